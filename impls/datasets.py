"""Data sets to train on: those that scikit-learn bundles, and files of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backprop_files import UserError
from impls import data_files
from impls.interface import AnyArray, Array
from impls.names import counted, nearest

#: Standard deviation of the inputs; keeps pre-activations of order 1/2.
INPUT_SCALE = 0.5
#: Three parts of five are trained on.  Of any two rows dealt in turn one goes to the training rows.
TRAIN, VALIDATION, TEST = range(3)
DEAL = (TRAIN, VALIDATION, TRAIN, TEST, TRAIN)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows to learn: ``inputs`` (N, features), ``targets`` (N, outputs), both float64, in a fixed random order.

    Targets are one-hot rows where there are classes, whose ``labels`` (N,) count from 0; else ``labels`` is None.
    """

    name: str
    inputs: Array
    targets: Array
    labels: NDArray[np.integer[Any]] | None = None

    @property
    def kind(self) -> Literal["classification", "regression"]:
        """Whether classes are told apart or numbers predicted."""
        return "regression" if self.labels is None else "classification"

    @property
    def loss(self) -> Literal["cross_entropy", "mse"]:
        """The loss that fits its kind."""
        return "mse" if self.labels is None else "cross_entropy"

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.inputs)

    @property
    def features(self) -> int:
        """Columns of the inputs: units of a network's first layer."""
        return int(self.inputs.shape[1])

    @property
    def outputs(self) -> int:
        """Columns of the targets: units of a network's last layer."""
        return int(self.targets.shape[1])

    @property
    def told(self) -> str:
        """Its shape in words: ``data 'digits' have 64 features and 10 classes``."""
        what = "output" if self.labels is None else "class"
        return f"data '{self.name}' have {counted(self.features, 'feature')} and {counted(self.outputs, what)}"

    def take(self, rows: NDArray[np.integer[Any]]) -> Dataset:
        """These rows of it."""
        labels = None if self.labels is None else self.labels[rows]
        return Dataset(self.name, self.inputs[rows], self.targets[rows], labels)


class Parts(NamedTuple):
    """A data set in three; no row is in two."""

    train: Dataset
    validation: Dataset
    test: Dataset


def find(name: str, known: tuple[str, ...] = ()) -> Dataset:
    """A bundled data set by name, or that of a file by its path.

    Raises UserError for an unknown name (with the nearest of ours and of ``known``), a file that will not do, or where
    scikit-learn is missing.
    """
    if name in BUNDLED:
        return _bundled(name)
    if not is_file(name):
        raise UserError(f"{nearest('data set', name, (*known, *BUNDLED))}, or a path that ends in .csv or .npz")
    path = Path(name)
    return _of_file(path.absolute(), _state(path))


def is_file(name: str) -> bool:
    """Whether ``name`` is a file's path, there or not, rather than a data set's name."""
    return name not in BUNDLED and bool(Path(name).suffix or Path(name).name != name or Path(name).is_file())


def located(name: str) -> str:
    """``name`` as it is understood in any working directory: a file's path made absolute."""
    return str(Path(name).absolute()) if is_file(name) else name


def split(dataset: Dataset, seed: int) -> Parts:
    """Three fifths of the rows to train, a fifth each to validate and to test, drawn at random; the same for the same seed.

    Every class is dealt out in the same shares; one of two rows or more is in all cases among the rows to train.  Raises
    UserError for fewer than 5 rows.
    """
    if dataset.n < len(DEAL):
        told = f"data '{dataset.name}' have {counted(dataset.n, 'row')}"
        raise UserError(f"{told}: give {len(DEAL)} or more, to train, validate and test")
    order = np.random.default_rng(seed).permutation(dataset.n)
    # class by class, so that dealing in turn gives each class its shares
    grouped = order if dataset.labels is None else order[np.argsort(dataset.labels[order], kind="stable")]
    part = np.empty(dataset.n, int)
    part[grouped] = np.resize(DEAL, dataset.n)
    return Parts(*(dataset.take(order[part[order] == which]) for which in (TRAIN, VALIDATION, TEST)))


def _state(path: Path) -> tuple[int, int]:
    """What changes when the file does; nothing where reading it will say what is wrong."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _of_file(path: Path, state: tuple[int, int]) -> Dataset:
    """Read once, unless the file changes."""
    return _made(path.name, *data_files.read(path))


def _made(name: str, inputs: Array, targets: AnyArray) -> Dataset:
    """A data set of inputs as they come and of targets: integers (N,) are classes, floats (N, outputs) numbers."""
    order = _order(len(inputs))
    scaled = INPUT_SCALE * _standardised(inputs[order])
    if targets.ndim == 2:
        return Dataset(name, scaled, _standardised(targets[order]))
    classes, labels = np.unique(targets, return_inverse=True)
    return Dataset(name, scaled, np.eye(len(classes))[labels[order]], labels[order])


def _order(rows: int) -> NDArray[np.int64]:
    """Files are often sorted; the first rows of a data set should be like the others."""
    return np.random.default_rng(0).permutation(rows)


def _standardised(columns: Array) -> Array:
    """Mean 0 and standard deviation 1 in every column; constant columns become 0."""
    largest = np.abs(columns).max(axis=0)
    within = columns / np.where(largest > 0, largest, 1.0)  # so that no square overflows
    centred = within - within.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled: Array = centred / np.where(deviation > 0, deviation, 1.0)
    return scaled


# --- bundled with scikit-learn --------------------------------------------------------------------------------------


@cache
def _bundled(name: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise UserError(
            f"data '{name}' come with scikit-learn: pip install -c constraints.txt -e '.[peers]'"
        ) from error
    return BUNDLED[name](datasets)


def _digits(bundle: Any) -> Dataset:
    """1,797 images of 8x8 pixels: centred and scaled all together, for the corners are always white."""
    digits = bundle.load_digits()
    order = _order(len(digits.target))
    pixels = digits.data[order].astype(np.float64)
    labels = digits.target[order]
    return Dataset("digits", INPUT_SCALE * (pixels - pixels.mean()) / pixels.std(), np.eye(10)[labels], labels)


def _diabetes(bundle: Any) -> Dataset:
    """442 patients: ten measurements, and how far the illness went in a year (Efron et al. 2004)."""
    patients = bundle.load_diabetes(scaled=False)
    return _made("diabetes", patients.data.astype(np.float64), patients.target.astype(np.float64)[:, None])


BUNDLED: dict[str, Callable[[Any], Dataset]] = {"digits": _digits, "diabetes": _diabetes}
