"""An experiment's file, read and checked: its rows with the task each belongs to, and their times normalised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.experiments import NAMES
from analysis.figures import COLOURS, MARKERS
from analysis.normalise import quiet
from backprop_files import SCHEMA_VERSION, UserError

Row = Mapping[str, Any]
#: A clock moves by no more: a product that took longer was disturbed itself, and would make what it stands beside look fast.
MOST_CLOCK = 1.5
#: So many processes without a disturbance make the disturbed ones superfluous.
ENOUGH = 2


@dataclass(frozen=True)
class Found:
    """``rows`` hold what the tasks answered, each with its task's ``impl``, ``pass``, ``key`` and arguments."""

    name: str
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    measured_at: str
    rows: Sequence[Row]
    failed: Sequence[Row]

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(list(self.rows))

    @property
    def impls(self) -> list[str]:
        """Implementations measured, in the order they were asked for."""
        asked = list(self.settings.get("impls", ()))
        there = list(dict.fromkeys(str(row["impl"]) for row in self.rows))
        return [name for name in asked if name in there] + [name for name in there if name not in asked]

    def style(self, impl: str) -> dict[str, Any]:
        """Colour and marker of an implementation, the same in every figure of a section."""
        i = self.impls.index(impl)
        return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}

    @cached_property
    def _usual_product_s(self) -> float:
        """What the product kernel usually takes in quiet moments of this run."""
        levels = [quiet(np.asarray(times)) for row in self.rows if len(times := _products(row))]
        return float(np.exp(np.median(levels))) if levels else float("nan")

    def seconds(self, row: Row) -> float:
        """Normalised seconds of a row's rounds: q(rounds) / q(product) times the usual q(product) (``analysis.normalise``), the
        clock told by the products within ``MOST_CLOCK`` of the usual one.

        The row has ``seconds``, a number or a list, and ``reference_s`` by kernel beside them.
        """
        return float(np.exp(quiet(np.atleast_1d(np.asarray(row["seconds"], float))))) / self._clock(row)

    def usual_seconds(self, row: Row) -> float:
        """The same of the median round: for what is not only slowed by others, but by itself, now more and now less."""
        return float(np.median(np.asarray(row["seconds"], float))) / self._clock(row)

    def _clock(self, row: Row) -> float:
        """How much slower than usual the clock ran, by the products beside a row; 1 where there are none."""
        products = _products(row)
        if not len(products):
            return 1.0
        clock = float(np.exp(quiet(products))) / self._usual_product_s
        return min(max(clock, 1 / MOST_CLOCK), MOST_CLOCK)


def _products(row: Row) -> np.ndarray:
    return np.atleast_1d(np.asarray(row.get("reference_s", {}).get("product", []), float))


def undisturbed(times: pd.DataFrame, cell: Sequence[str]) -> pd.DataFrame:
    """Without processes that saw no quiet round (``quiet`` is 0), where ``ENOUGH`` others measured the cell."""
    calm = times["quiet"] > 0
    others = calm.groupby([times[name] for name in cell]).transform("sum")
    return times[calm | (others < ENOUGH)]


def in_directory(directory: Path) -> list[Found]:
    """What lies in a run directory's ``experiments/``, in the order of the report; nothing where there is none.

    Raises UserError, one line that names the file, for what is not whole or not ours.
    """
    return [read(path) for name in NAMES if (path := directory / "experiments" / f"{name}.json").is_file()]


def read(path: Path) -> Found:
    """One experiment's file.  Raises UserError."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no whole JSON ({error}); measure it again") from error
    try:
        if document["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{path}: has schema {document['schema_version']!r}, this reads {SCHEMA_VERSION}")
        name = document["experiment"]
        if name not in NAMES:
            raise UserError(f"{path}: holds experiment {name!r}, which is none of {', '.join(NAMES)}")
        rows = [
            {**task["arguments"], "impl": task["impl"], "pass": task["pass"], "key": task["key"], **row}
            for task in document["tasks"]
            for row in task["rows"]
        ]
        return Found(
            name, document["settings"], document["machine_info"], str(document["datetime"]), rows, document["failed"]
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is no experiment of ours ({type(error).__name__}: {error})") from error
