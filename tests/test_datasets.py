"""Data sets: what is bundled stays what it is, files are read as numbers or refused in one line, and splits are fair."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from bench import plan
from impls import datasets
from impls.data_files import MOST_CSV_CLASSES, read
from impls.datasets import INPUT_SCALE, Dataset, find, split
from impls.interface import AnyArray, Array, Network
from impls.problem import make_problem

RNG = np.random.default_rng(4)
FEATURES = RNG.normal(5.0, 3.0, (40, 3))
LABELS = np.arange(40) % 4
NUMBERS = FEATURES @ [1.0, -2.0, 0.5] + 7.25


def csv_file(path: Path, inputs: Array, targets: AnyArray, header: str = "") -> Path:
    """A CSV file with the target last."""
    rows = [",".join(map(repr, [*map(float, row), target.item()])) for row, target in zip(inputs, targets, strict=True)]
    path.write_text("\n".join([*([header] if header else []), *rows]) + "\n")
    return path


def npz_file(path: Path, **arrays: Any) -> Path:
    """An npz archive."""
    np.savez(path, **arrays)
    return path


def in_order(rows: AnyArray) -> AnyArray:
    """As a data set puts them."""
    return rows[np.random.default_rng(0).permutation(len(rows))]


def standardised(columns: Array) -> Array:
    """By the textbook."""
    found: Array = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return found


# --- bundled ------------------------------------------------------------------------------------------------------


def test_digits_are_what_they_were() -> None:
    bundle = pytest.importorskip("sklearn.datasets").load_digits()
    pixels = in_order(bundle.data).astype(np.float64)
    digits = find("digits")
    assert (digits.n, digits.features, digits.outputs, digits.kind, digits.loss) == (
        *(1797, 64, 10),
        *("classification", "cross_entropy"),
    )
    assert np.array_equal(digits.inputs, 0.5 * (pixels - pixels.mean()) / pixels.std())
    assert digits.labels is not None
    assert np.array_equal(digits.labels, in_order(bundle.target))
    assert np.array_equal(digits.targets, np.eye(10)[digits.labels])
    problem = make_problem(Network((64, 5, 10)), 1800, seed=3, data="digits")
    assert np.array_equal(problem.inputs[:1797], digits.inputs)
    assert np.array_equal(problem.targets[1797:], digits.targets[:3])  # beyond its rows they repeat
    rng = np.random.default_rng([3, 1800, 64, 5, 10])
    assert np.array_equal(problem.parameters[0], rng.standard_normal((64, 5)) / 8)


def test_diabetes_are_numbers_to_predict() -> None:
    bundle = pytest.importorskip("sklearn.datasets").load_diabetes(scaled=False)
    diabetes = find("diabetes")
    assert (diabetes.n, diabetes.features, diabetes.outputs) == (442, 10, 1)
    assert (diabetes.kind, diabetes.loss, diabetes.labels) == ("regression", "mse", None)
    np.testing.assert_allclose(diabetes.inputs, INPUT_SCALE * in_order(standardised(bundle.data)), atol=1e-12)
    np.testing.assert_allclose(diabetes.targets[:, 0], in_order(standardised(bundle.target)), atol=1e-12)


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets._bundled.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"data 'diabetes' come with scikit-learn: pip install .*\[peers\]"):
        find("diabetes")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match=r"data set 'diabetis': did you mean 'diabetes'\? .* ends in \.csv or \.npz"):
        find("diabetis")
    with pytest.raises(UserError, match=r"did you mean 'synthetic'\? known: synthetic, digits, diabetes"):
        make_problem(Network((3, 2)), 1, data="syntetic")
    with pytest.raises(UserError, match="unknown data set ''"):
        find("")


# --- files that will do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "a,b,c,what", ',"b, the second",c,what', '"two\nlines",b,c,what'])
@pytest.mark.parametrize("form", ["\n", "\r\n", "blank lines", "marked", "quoted", "spaces"])
def test_csv_with_classes_and_back(tmp_path: Path, header: str, form: str) -> None:
    path = csv_file(tmp_path / "mine.csv", FEATURES, 10 * LABELS - 10, header)
    text = path.read_text()
    changed = {
        "\r\n": text.replace("\n", "\r\n"),
        "blank lines": "\n" + text.replace("\n", "\n\n"),
        "marked": "\ufeff" + text,
        "quoted": "\n".join(f'"{line.replace(",", chr(34) + "," + chr(34))}"' for line in text.splitlines()),
        "spaces": text.replace(",", " , "),
    }
    if header.count('"') and form in ("quoted", "spaces", "blank lines"):
        pytest.skip("the change would change what the header says")
    path.write_bytes(changed.get(form, text).encode())
    found = find(str(path))
    assert (found.name, found.kind, found.outputs, found.n) == ("mine.csv", "classification", 4, 40)
    assert found.labels is not None
    assert np.array_equal(found.labels, in_order(LABELS))  # -10, 0, 10, 20 in sorted order
    assert np.array_equal(found.targets, np.eye(4)[found.labels])
    np.testing.assert_allclose(found.inputs, INPUT_SCALE * in_order(standardised(FEATURES)), atol=1e-12)


def test_csv_numbers_come_back_bit_for_bit(tmp_path: Path) -> None:
    inputs, targets = read(csv_file(tmp_path / "x.CSV", FEATURES, NUMBERS))
    assert np.array_equal(inputs, FEATURES)
    assert np.array_equal(targets, NUMBERS[:, None])
    found = find(str(tmp_path / "x.CSV"))
    assert (found.kind, found.loss, found.outputs) == ("regression", "mse", 1)
    np.testing.assert_allclose(found.targets[:, 0], in_order(standardised(NUMBERS)), atol=1e-12)


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (np.arange(40.0) % 2, "classification"),
        (np.arange(40.0) % 2 + 0.5, "regression"),
        (np.arange(2.0 * MOST_CSV_CLASSES) % MOST_CSV_CLASSES, "classification"),
        (np.arange(2.0 * MOST_CSV_CLASSES) % (MOST_CSV_CLASSES + 1), "regression"),
        (1e300 * np.array([1.0, 2.0, 3.0]), "classification"),
    ],
    ids=["0 and 1", "0.5 and 1.5", "as many classes as may be", "one more", "too large for integers"],
)
def test_whole_numbers_are_classes_unless_there_are_many(tmp_path: Path, targets: Array, kind: str) -> None:
    path = csv_file(tmp_path / "x.csv", RNG.normal(size=(len(targets), 2)), targets)
    assert find(str(path)).kind == kind


@pytest.mark.parametrize("names", [("inputs", "targets"), ("X", "y")])
@pytest.mark.parametrize("integer", [np.int64, np.uint8, np.bool_])
def test_npz_with_classes(tmp_path: Path, names: tuple[str, str], integer: type) -> None:
    targets: AnyArray = (LABELS % 2).astype(integer)
    others = {"text": np.array(["a"]), "objects": np.array([{}], object)}  # of no concern, and never opened
    path = npz_file(tmp_path / "x.npz", **{names[0]: FEATURES, names[1]: targets}, **others)
    found = find(str(path))
    assert (found.kind, found.outputs) == ("classification", 2)
    assert found.labels is not None
    assert np.array_equal(found.labels, in_order(LABELS % 2))


@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_npz_with_numbers(tmp_path: Path, outputs: int) -> None:
    targets = FEATURES[:, :outputs] if outputs else np.round(NUMBERS)
    found = find(str(npz_file(tmp_path / "x.npz", inputs=FEATURES.astype(np.float32), targets=targets)))
    assert (found.kind, found.targets.shape) == ("regression", (40, max(outputs, 1)))
    expected = standardised(targets.reshape(40, -1))
    np.testing.assert_allclose(found.targets, in_order(expected), atol=1e-12)
    assert found.inputs.dtype == found.targets.dtype == np.float64


@pytest.mark.filterwarnings("error")
def test_constant_and_enormous_columns_do_no_harm(tmp_path: Path) -> None:
    columns = np.stack([np.full(40, 0.1), 1e308 * np.sign(FEATURES[:, 0] - 5), 1e-310 * np.arange(40)], axis=1)
    found = find(str(csv_file(tmp_path / "x.csv", columns, LABELS)))
    assert (found.inputs[:, 0] == 0).all()
    np.testing.assert_allclose(found.inputs[:, 1:].std(axis=0), INPUT_SCALE)


def test_a_file_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "x.csv", FEATURES, LABELS)
    before = find(str(path))
    assert find(str(path)) is before
    csv_file(path, FEATURES, LABELS % 2)
    os.utime(path, ns=(1, 1))
    assert find(str(path)).outputs == 2


def test_a_large_file_is_read_in_seconds(tmp_path: Path) -> None:
    rows = RNG.normal(size=(100_000, 20))
    path = tmp_path / "large.csv"
    path.write_text("\n".join(",".join(map(repr, row)) for row in rows.tolist()))
    start = time.process_time()
    assert np.array_equal(read(path)[0], rows[:, :-1])
    assert time.process_time() - start < 10  # about 1 s; cell by cell it would do too
    with path.open("a") as file:
        file.write("\n" + ",".join(["1"] * 19 + ["nan"]))
    start = time.process_time()
    with pytest.raises(UserError, match="line 100001, column 20: missing value 'nan'"):
        read(path)
    assert time.process_time() - start < 20


# --- files that will not do ---------------------------------------------------------------------------------------

#: What stands in the file, and what must be said.
BAD_CSV: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n ", "is empty"),
    "blank but for a mark": (b"\xef\xbb\xbf\n", "one column only"),
    "header alone": (b"a,b,c\n", "holds a header and no rows"),
    "one row": (b"1,2,0\n", "one row only"),
    "header and one row": (b"a,b,c\n1,2,0\n", "one row only"),
    "one column": (b"1\n2\n3\n", "line 1: has one column only"),
    "semicolons": (b"a;b;c\n1;2;0\n", "line 1: has one column only; separate cells with commas"),
    "one class": (b"a,b,what\n1,2,3\n2,3,3\n", "the target, column 3 ('what'), is 3 in every row: one class only"),
    "constant": (b"1,2,0.5\n2,3,0.5\n", "the target, column 3, is 0.5 in every row: a constant"),
    "empty cell": (b"1,2,0\n1,,1\n", "line 2, column 2: missing value ''; fill it in"),
    "empty cell, named": (b"a,b,c\n\n1,2,0\n1, ,1\n", "line 4, column 2 ('b'): missing value ''"),
    "empty target": (b"1,2,0\n1,2,\n", "line 2, column 3: missing value ''"),
    "nan": (b"1,2,0\n1,NaN,1\n", "line 2, column 2: missing value 'NaN'"),
    "nan in front": (b"nan,nan,nan\n1,2,1\n", "line 1, column 1: missing value 'nan'"),
    "NA": (b"1,2,0\n1,NA,1\n", "line 2, column 2: missing value 'NA'"),
    "question mark": (b"1,2,0\n1,?,1\n", "line 2, column 2: missing value '?'"),
    "nothing but commas in front": (b",,\n1,2,1\n", "line 1, column 1: missing value ''"),
    "infinity": (b"1,2,0\n1,-inf,1\n", "line 2, column 2: '-inf' is not finite"),
    "beyond float64": (b"1,2,0\n1,1e999,1\n", "line 2, column 2: '1e999' is not finite"),
    "text": (b"1,2,0\n1,red,1\n", "line 2, column 2: 'red' is no number; write classes and categories as whole"),
    "text as target": (b"a,b,c\n1,2,setosa\n1,3,other\n", "line 2, column 3 ('c'): 'setosa' is no number"),
    "half a header": (b"a,b,2019\n1,2,0\n", "line 1, column 1: 'a' is no number; write classes and categories as "),
    "a header twice": (b"a,b,c\na,b,c\n1,2,0\n", "line 2, column 1 ('a'): 'a' is no number"),
    "Python's number": (b"1,2,0\n1_000,2,1\n", "line 2, column 1: '1_000' is no number"),
    "a long cell": (b"1,2,0\n1," + b"x" * 999 + b",1\n", "'" + "x" * 40 + "' is no number"),
    "short row": (b"1,2,0\n1,2\n", "line 2: has 2 cells, line 1 has 3"),
    "long row": (b"a,b,c\n1,2,0\n1,2,3,4\n", "line 3: has 4 cells, line 1 has 3"),
    "rows longer than the header": (b"a,b\n1,2,0\n1,2,3\n", "line 2: has 3 cells, line 1 has 2"),
    "row of one cell": (b"1,2,0\n1\n", "line 2: has 1 cell, line 1 has 3"),
    "commas at the ends": (b"1,2,0,\n1,2,1,\n", "line 1, column 4: missing value ''"),
    "no text": (b"1,2,0\n\xff\xfe1,2,1\n", "line 2: is no UTF-8 text"),
    "a cell without end": (b'1,2,"0\n' + b"x" * 200_000, "is no CSV: field larger than field limit"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(tmp_path: Path, case: str) -> None:
    content, words = BAD_CSV[case]
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    refused(path, words)


def refused(path: Path, words: str) -> None:
    """One line that names the file and says ``words``, from whoever reads it."""
    with pytest.raises(UserError) as caught:
        find(str(path))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert words in text
    assert "\n" not in text
    with pytest.raises(UserError, match="bad"):
        plan.make(plan.Settings(data=str(path)))


GOOD: dict[str, Any] = {"inputs": FEATURES, "targets": LABELS}


def spoilt(value: float) -> Array:
    """Features with ``value`` in row 3, column 2."""
    inputs = FEATURES.copy()
    inputs[2, 1] = value
    return inputs


#: What stands in place of good arrays, and what must be said.
BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({"inputs": None, "data": FEATURES}, "has no array 'inputs' (or 'X'); it holds 'targets', 'data'"),
    "no targets": ({"targets": None}, "has no array 'targets' (or 'y'); it holds 'inputs'"),
    "objects": ({"inputs": np.array([[1, 2], [3, None]], object)}, "array 'inputs' holds Python objects, which are"),
    "text": ({"targets": LABELS.astype(str)}, "array 'targets' is dtype <U21"),
    "complex": ({"inputs": FEATURES.astype(complex)}, "array 'inputs' is dtype complex128"),
    "records": ({"targets": np.zeros(40, [("a", "f8")])}, "array 'targets' is dtype [('a', '<f8')]"),
    "nan": ({"inputs": spoilt(np.nan)}, "inputs, row 3, column 2: missing value nan"),
    "infinity": ({"inputs": spoilt(-np.inf)}, "inputs, row 3, column 2: -inf is not finite"),
    "nan as target": ({"targets": spoilt(np.nan)[:, 1]}, "targets, row 3: missing value nan"),
    "beyond float64": ({"inputs": np.full((40, 2), np.longdouble("1e4000"))}, "inputs, row 1, column 1: inf is not"),
    "flat": ({"inputs": FEATURES[:, 0]}, "inputs have shape (40,), targets (40,); give (rows, features)"),
    "images": ({"inputs": FEATURES.reshape(40, 3, 1)}, "inputs have shape (40, 3, 1)"),
    "lengths": ({"targets": LABELS[:39]}, "inputs have shape (40, 3), targets (39,)"),
    "a number": ({"targets": 3.0}, "targets ()"),
    "empty": ({"inputs": FEATURES[:0], "targets": LABELS[:0]}, "it is empty"),
    "no features": ({"inputs": FEATURES[:, :0]}, "it is empty"),
    "one row": ({"inputs": FEATURES[:1], "targets": LABELS[:1]}, "one row only"),
    "one class": ({"targets": np.full(40, 7)}, "targets is 7 in every row: one class only"),
    "constant": ({"targets": np.full(40, 7.5)}, "targets, column 1, is 7.5 in every row: a constant"),
    "one constant of two": ({"targets": np.stack([NUMBERS, 0 * NUMBERS], 1)}, "targets, column 2, is 0 in every row"),
    "rows of integers": ({"targets": np.eye(4, dtype=int)[LABELS]}, "whole numbers are classes, in shape (rows,)"),
    "too many classes": (
        {"inputs": np.ones((1001, 1)), "targets": np.arange(1001)},
        "1,001 different whole numbers, more than 1,000 classes; give numbers to predict as floats",
    ),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path: Path, case: str) -> None:
    changes, words = BAD_NPZ[case]
    arrays = {name: array for name, array in (GOOD | changes).items() if array is not None}
    refused(npz_file(tmp_path / "bad.npz", **arrays), words)


def of_numpy(save: Callable[..., None], *arguments: Any) -> bytes:
    """What numpy writes."""
    stream = io.BytesIO()
    save(stream, *arguments)
    return stream.getvalue()


def flipped() -> bytes:
    """An archive with a byte changed in the middle of its first array."""
    content = bytearray(of_numpy(lambda stream: np.savez(stream, **GOOD)))
    content[len(content) // 3] ^= 0xFF
    return bytes(content)


def archive_of(**members: bytes) -> bytes:
    """A zip archive with these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


HUGE = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }".ljust(
    118
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"1,2,3\n", "is no npz archive"),
        (of_numpy(np.save, FEATURES), "is no npz archive; write it with numpy.savez"),
        (pickle.dumps(GOOD), "is no npz archive"),
        (flipped(), "is damaged"),
        (flipped()[:-60], "is no npz archive"),
        (archive_of(), "it holds nothing"),
        (archive_of(inputs=b"1,2,3"), "array 'inputs' is no array"),
        (archive_of(**{"inputs.npy": b"1,2,3"}), "array 'inputs' is no array"),
        (archive_of(**{"inputs.npy": b"\x93NUMPY\x09\x09"}), "is damaged, or too large"),
        (archive_of(**{"inputs.npy": HUGE}), "is damaged, or too large"),
    ],
    ids=["nothing", "text", "npy", "pickle", "flipped", "cut", "no array", "raw", "no npy", "version", "huge"],
)
def test_files_that_are_no_npz(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    refused(path, words)


class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["bad.npz", "bad.csv", "whole.npz", "whole.csv"])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "unpickled"
    payload = np.empty((2, 1), object)
    payload[:] = Payload(mark)
    content = pickle.dumps(Payload(mark))
    path = tmp_path / name
    if name == "bad.npz":
        npz_file(path, inputs=payload, targets=np.arange(2))
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(UserError):
        find(str(path))
    assert not mark.exists()
    if name == "bad.npz":  # the payload does what it says: were it unpickled, it would be seen
        np.load(path, allow_pickle=True)["inputs"]
    else:
        pickle.loads(content)
    assert mark.exists()


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "bad.csv", "no such file")
    refused(tmp_path / "bad.json", "data files end in .csv or .npz, not '.json'")
    (tmp_path / "bad").write_text("1,2\n")
    refused(tmp_path / "bad", "data files end in .csv or .npz, not ''")
    (tmp_path / "bad.npz").mkdir()
    refused(tmp_path / "bad.npz", "cannot be read: Is a directory")
    (tmp_path / "bad.csv").write_text("1,2\n")

    def forbidden(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read everything
    refused(tmp_path / "bad.csv", "cannot be read: Permission denied")


# --- splits -------------------------------------------------------------------------------------------------------


def rows_of(count: int, labels: AnyArray | None = None) -> Dataset:
    """Rows that can be told apart."""
    rows = np.arange(float(count))[:, None]
    if labels is None:
        return Dataset("some", rows, rows)
    return Dataset("some", rows, np.eye(labels.max() + 1)[labels], labels)


@pytest.mark.parametrize("count", [5, 6, 7, 8, 9, 10, 101, 1797])
@pytest.mark.parametrize("classes", [0, 2, 10])
def test_every_row_is_in_one_part(count: int, classes: int) -> None:
    whole = rows_of(count, np.arange(count) ** 2 % classes if classes else None)
    parts = split(whole, seed=1)
    rows = [set(part.inputs[:, 0]) for part in parts]
    assert sum(map(len, rows)) == len(set.union(*rows)) == count
    assert all(abs(len(found) - share * count) < 1 for found, share in zip(rows, (0.6, 0.2, 0.2), strict=True))
    for part in parts:
        own = part.inputs[:, 0].astype(int)
        assert np.array_equal(part.targets, whole.targets[own])  # rows stay whole
        assert part.kind == whole.kind
        assert part.labels is None or np.array_equal(part.labels, whole.labels[own])  # type: ignore[index]


def test_every_class_has_its_share_in_every_part() -> None:
    labels = np.repeat([0, 1, 2, 3], [500, 100, 12, 2])
    for seed in range(50):
        train, validation, test = split(rows_of(len(labels), labels), seed)
        assert train.labels is not None
        for label, count in enumerate([500, 100, 12, 2]):
            assert abs((train.labels == label).sum() - 0.6 * count) < 2
            assert (train.labels == label).any()
        assert validation.outputs == test.outputs == 4
        assert np.any(np.diff(train.labels) < 0)  # mixed, not class by class


def test_the_same_seed_splits_alike_and_another_otherwise() -> None:
    whole = rows_of(100, np.arange(100) % 3)
    one, same, other = (split(whole, seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a.inputs, b.inputs) for a, b in zip(one, same, strict=True))
    assert set(one.test.inputs[:, 0]) != set(other.test.inputs[:, 0])


def test_too_few_rows_for_three_parts() -> None:
    with pytest.raises(UserError, match="data 'some' have 4 rows: give 5 or more"):
        split(rows_of(4), 0)


# --- networks and runs --------------------------------------------------------------------------------------------


def test_a_network_of_another_shape_or_loss_is_refused(tmp_path: Path) -> None:
    classes = str(csv_file(tmp_path / "classes.csv", FEATURES, LABELS))
    numbers = str(csv_file(tmp_path / "numbers.csv", FEATURES, NUMBERS))
    for layers in ((3, 5), (4, 4)):
        with pytest.raises(
            UserError, match=r"data 'classes.csv' have 3 features and 4 classes; the network has layers"
        ):
            make_problem(Network(layers), 2, data=classes)
    with pytest.raises(UserError, match=r"'numbers.csv' have 3 features and 1 output, which are numbers.* use 'mse'"):
        make_problem(Network((3, 1), loss="cross_entropy"), 2, data=numbers)
    for data, layers, loss in ((classes, (3, 4), "cross_entropy"), (classes, (3, 4), "mse"), (numbers, (3, 1), "mse")):
        problem = make_problem(Network(layers, loss=loss), 50, data=data)
        assert np.array_equal(problem.inputs[:10], problem.inputs[40:])
        assert np.array_equal(problem.targets[:10], problem.targets[40:])


@pytest.mark.parametrize("data", ["mine.csv", "diabetes"])
def test_a_sweep_says_what_shape_it_needs(tmp_path: Path, data: str) -> None:
    if data == "diabetes":
        pytest.importorskip("sklearn")
    else:
        data = str(csv_file(tmp_path / data, FEATURES, LABELS))
    with pytest.raises(UserError) as caught:
        plan.make(plan.Settings(data=data))
    assert "needs 64 features and 10 classes or outputs" in str(caught.value)
    assert f"experiment progress --data {data}'" in str(caught.value)


def test_a_sweep_over_a_file(tmp_path: Path) -> None:
    inputs, labels = RNG.normal(size=(100, 64)), np.arange(100) % 10
    (tmp_path / "data folder").mkdir()
    csv_file(tmp_path / "data folder" / "mine.csv", inputs, labels)
    options = ["--profile", "smoke", "--passes", "1", "--budget", "20", "--phases", "step", "--impls", "numpy"]
    command = [
        sys.executable,
        "-m",
        "backprop_bench",
        "run",
        *options,
        "--out",
        "out",
        "--data",
        "data folder/mine.csv",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    asked = json.loads((tmp_path / "out" / "run.json").read_text())
    assert asked["data"] == str(tmp_path / "data folder" / "mine.csv")  # --resume finds it from anywhere
    (path,) = (tmp_path / "out" / "data").glob("*.json")
    document = json.loads(path.read_text())
    assert document["benchmarks"]
    assert {entry["extra_info"]["data"] for entry in document["benchmarks"]} == {"mine.csv"}
    assert document["backprop_bench"]["run"]["data"] == "mine.csv"
    assert any("'mine.csv' have 100 rows" in note for note in document["backprop_bench"]["notes"])
    assert str(tmp_path / "data folder") not in (tmp_path / "out" / "report.html").read_text()


def test_a_bad_file_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("1,2\n1,x\n")
    command = [sys.executable, "-m", "backprop_bench", "run", "--data", "bad.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/bad.csv, line 2, column 2: 'x' is no number; write classes and " + (
        "categories as whole numbers\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]
