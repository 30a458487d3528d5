"""A run in the formats of services that watch benchmarks: one function a format, and its line in ``FORMATS``.

Times are normalised (``analysis.normalise``) and stand with their 95 % intervals over passes; a run of one pass has none.
Memory is ``peak_bytes``, where somebody told it; it is that of a whole step, so a cell of another phase has none.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import cells as cell_table
from analysis import load
from backprop_files import USUAL_OPTIMIZER, UserError

#: What is told of a cell only where it is not the usual: a name must not change because another run holds more.
USUAL = {"threads": 1, "data": "synthetic", "optimizer": USUAL_OPTIMIZER}
#: Significant digits: finer than any interval, few enough to read.
DIGITS = 6
#: The longest name of a benchmark in Bencher (bencher.dev/docs/reference/bencher-metric-format, "Order of Precedence").
BENCHER_NAME_BYTES = 1024


@dataclass(frozen=True)
class Entry:
    """One cell of a run.  Times in seconds, memory in bytes; NaN where nothing is known."""

    name: str
    time_s: float
    low_s: float
    high_s: float
    peak_bytes: float
    passes: int
    rounds: int


Format = Callable[[Sequence[Entry]], Any]


def github_action_benchmark(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The tool ``customSmallerIsBetter`` of github-action-benchmark: an array of {name, unit, value, range, extra}.

    Source: README of benchmark-action/github-action-benchmark, "custom benchmarks", and its ``extractRangeInfo``, which takes
    a range only as ± and a number in the entry's own unit.  Times in ms, memory in bytes.
    """
    times = [
        {
            "name": entry.name,
            "unit": "ms",
            "value": _short(entry.time_s * 1e3),
            **({"range": f"± {_short((entry.high_s - entry.low_s) / 2 * 1e3)}"} if _known(entry.low_s) else {}),
            "extra": _told(entry),
        }
        for entry in entries
    ]
    memory = [
        {"name": f"{entry.name} peak memory", "unit": "bytes", "value": round(entry.peak_bytes)}
        for entry in entries
        if _known(entry.peak_bytes)
    ]
    return times + memory


def bencher_metric_format(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, float]]]:
    """Bencher Metric Format: benchmark -> measure -> {value, lower_value, upper_value}.

    Source: bencher.dev/docs/reference/bencher-metric-format.  ``latency`` is Bencher's own measure, in ns;
    ``peak-memory``, in bytes, is made by the first report that holds it.

    Raises UserError for a name longer than Bencher takes.
    """
    for entry in entries:
        if len(entry.name.encode()) > BENCHER_NAME_BYTES:
            raise UserError(
                f"{entry.name[:60]}…: Bencher takes names of at most {BENCHER_NAME_BYTES} bytes, this one has "
                f"{len(entry.name.encode())}; export a run without it"
            )
    return {entry.name: _bencher_measures(entry) for entry in entries}


def _bencher_measures(entry: Entry) -> dict[str, dict[str, float]]:
    latency = {"value": _short(entry.time_s * 1e9)}
    if _known(entry.low_s):
        latency |= {"lower_value": _short(entry.low_s * 1e9), "upper_value": _short(entry.high_s * 1e9)}
    memory = {"peak-memory": {"value": float(round(entry.peak_bytes))}} if _known(entry.peak_bytes) else {}
    return {"latency": latency, **memory}


#: Every format by the name that ``--format`` takes.
FORMATS: dict[str, Format] = {"gab": github_action_benchmark, "bmf": bencher_metric_format}


def export(run: Path, format_name: str, machine_class: str = "") -> str:
    """A run directory or pytest-benchmark file as the text of a format: strict JSON in ASCII, ending with a newline.
    ``machine_class`` chooses where machines of several classes measured it.

    Raises UserError for an unknown format, and for a run that is empty or unusable.
    """
    if format_name not in FORMATS:
        near = difflib.get_close_matches(format_name, FORMATS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose of {', '.join(FORMATS)}"
        raise UserError(f"unknown format '{format_name}': {hint}")
    found = FORMATS[format_name](entries_of(run, machine_class))
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def entries_of(run: Path, machine_class: str = "") -> list[Entry]:
    """All cells of a run, in the order of their names.  Raises UserError where the run is empty or unusable, or of several
    machine classes of which none was chosen: one cell would have two values.
    """
    table = cell_table.table(load.one_class(load.load([run]), machine_class).entries)
    entries = sorted((_entry(row) for _, row in table.iterrows()), key=lambda entry: entry.name)
    for one, other in itertools.pairwise(entries):
        if one.name == other.name:
            raise UserError(f"{run}: two cells are named '{one.name}'; a service could not tell them apart")
    return entries


def _entry(row: pd.Series) -> Entry:
    return Entry(
        name=name_of(row),
        time_s=float(row["time_s"]),
        low_s=float(row["ci_low_s"]),
        high_s=float(row["ci_high_s"]),
        peak_bytes=float(pd.to_numeric(row["peak_bytes"])) if row["phase"] == "step" else math.nan,
        passes=int(row["passes"]),
        rounds=int(row["rounds"]),
    )


def name_of(row: pd.Series) -> str:
    """A cell's name, the same in every run: ``numpy cpu float32 64-128-10 tanh mse n=32 step``."""
    told = [row[key] for key in ("impl", "device", "dtype", "layers", "activation", "loss")]
    unusual = [f"{key}={row[key]}" for key, usual in USUAL.items() if row[key] != usual]
    return " ".join(" ".join(map(str, [*told, f"n={row['n']}", row["phase"], *unusual])).split())


def _told(entry: Entry) -> str:
    """What a tooltip says beside the value."""
    counted = f"{entry.passes} passes, {entry.rounds} rounds"
    if not _known(entry.low_s):
        return f"no interval: {counted}"
    return f"95 % interval {_short(entry.low_s * 1e3)} to {_short(entry.high_s * 1e3)} ms over {counted}"


def _known(value: float) -> bool:
    return math.isfinite(value)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
