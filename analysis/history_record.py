"""One run as the history keeps it: its commit, its machine class, and every number worth following."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import cells as cell_table
from analysis import growth, load, normalise, verdicts
from analysis.costs import costs
from analysis.exponents import along, interval_along
from analysis.load import Run
from analysis.machines import machine_class, machine_name
from analysis.normalise import IDENTITY
from analysis.regimes import regimes
from analysis.statistics import Floats, Interval
from analysis.verdicts import Verdict
from backprop_files import USUAL_OPTIMIZER, UserError

#: What a cell's name leaves out.
_USUAL = {"loss": "mse", "optimizer": USUAL_OPTIMIZER, "data": "synthetic"}
#: Units: multiples of the product reference kernel's time, seconds where none was timed, bytes, examples times weights.
PRODUCTS, SECONDS, BYTES = "× product", "s", "bytes"
_NONE = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Commit:
    """What was measured.  ``time`` in ISO 8601, UTC."""

    id: str
    time: str
    branch: str
    dirty: bool
    project: str


@dataclass(frozen=True)
class Group:
    """Whose number it is; without dtype, threads and phase that of a machine."""

    impl: str
    device: str
    dtype: str = ""
    threads: int = 0
    phase: str = ""


@dataclass(frozen=True)
class Point:
    """One number of one series.  ``value`` and its 95 % interval in ``unit``; of cells also normalised and raw seconds."""

    group: Group
    quantity: str
    unit: str
    axis: str
    cell: str
    interval: Interval
    passes: int
    time_s: float | None = None
    raw_s: float | None = None
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Record:
    """A run, ready to be stored; ``digest`` is of its measurements, so that it is known again whatever its files are called."""

    digest: str
    commit: Commit
    machine: dict[str, Any]
    machine_name: str
    python: str
    libraries: dict[str, str]
    measured_at: str
    settings: dict[str, Any]
    points: tuple[Point, ...]


def record(path: Path, commit_id: str = "", commit_time: str = "", machine_class_name: str = "") -> Record:
    """Read a run directory or file.  ``commit_id`` and ``commit_time`` stand in for what its files do not tell;
    ``machine_class_name`` chooses where machines of several classes measured it.  Machines of one class stand in one
    series: times of each are in multiples of its own reference.

    Raises UserError for files that cannot be used, and for a run without a commit.
    """
    run = load.one_class(load.load([path]), machine_class_name)
    run = replace(run, entries=normalise.levelled(run.entries))
    commit = _commit(path, run, commit_id, commit_time)
    machine = machine_class(run.machine)
    return Record(
        digest=_digest(run.entries),
        commit=commit,
        machine=machine,
        machine_name=machine_name(machine),
        python=str(run.machine.get("python_version") or "?"),
        libraries={str(name): str(version) for name, version in sorted((run.machine.get("libraries") or {}).items())},
        measured_at=_utc(run.measured_at) or run.measured_at,
        settings=run.settings,
        points=tuple(_points(run)),
    )


def _digest(entries: pd.DataFrame) -> str:
    """SHA-256 of what was measured: cells, passes and every round's seconds."""
    lines = sorted(
        f"{[row[key] for key in IDENTITY]} {row['pass']} {np.asarray(row['seconds'], float).tobytes().hex()}"
        for _, row in entries.iterrows()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- commit and machine ---------------------------------------------------------------------------------------------


def _commit(path: Path, run: Run, commit_id: str, commit_time: str) -> Commit:
    found = run.commit
    others = list(found.get("others") or [])
    if others and not commit_id:
        raise UserError(
            f"{path}: its files are of several commits ({found.get('id')}, {', '.join(others)}); say with --commit which "
            "one was measured"
        )
    known = found.get("id") if found.get("id") not in (None, "", "unversioned") else None
    chosen = commit_id or known
    if not chosen:
        raise UserError(f"{path}: does not tell its commit; give --commit ID and --commit-time TIME")
    same = not commit_id or commit_id == known
    time = commit_time or (found.get("time") if same else None)
    if not time:
        raise UserError(f"{path}: does not tell when {chosen} was committed; give --commit-time, 2026-01-31T12:00:00Z")
    utc = _utc(str(time))
    if utc is None:
        raise UserError(f"{path}: commit time {time!r} is no time; give --commit-time as 2026-01-31T12:00:00Z")
    return Commit(
        str(chosen),
        utc,
        str(found.get("branch") or ""),
        same and bool(found.get("dirty")),
        str(found.get("project") or ""),
    )


def _utc(text: str) -> str | None:
    """ISO 8601 in UTC, to the second; without a zone it is taken to be UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- numbers --------------------------------------------------------------------------------------------------------


def _points(run: Run) -> Iterator[Point]:
    reference = normalise.reference_s(run.entries)
    for _, rows in run.entries.groupby("threads"):  # laws are fitted within one number of threads
        cells = cell_table.table(rows)
        yield from _cells(cells, reference)
        yield from _scaling(rows, cells, reference)
    for device, seconds in reference.items():
        passes = int(run.entries.loc[run.entries["device"] == device, "pass"].nunique())
        seconds_told = Interval(seconds, math.nan, math.nan)
        yield Point(Group("machine", device), "reference kernel", SECONDS, "", "", seconds_told, passes)


def _cells(cells: pd.DataFrame, reference: dict[str, float]) -> Iterator[Point]:
    """Of every cell its time, and of steps the peak of memory."""
    for row in cells.to_dict("records"):
        group = Group(row["impl"], row["device"], row["dtype"], int(row["threads"]), row["phase"])
        axis, name = row["axis"], cell_name(row)
        scale = reference.get(row["device"], 1.0)
        unit = PRODUCTS if row["device"] in reference else SECONDS
        time = Interval(*(row[key] / scale for key in ("time_s", "ci_low_s", "ci_high_s")))
        passes = int(row["passes"])
        yield Point(group, "time", unit, axis, name, time, passes, row["time_s"], row["raw_s"])
        peak = row["peak_bytes"]
        if row["phase"] == "step" and peak is not None and math.isfinite(peak) and peak > 0:
            yield Point(group, "peak memory", BYTES, axis, name, Interval(float(peak), math.nan, math.nan), passes)


def cell_name(row: dict[Any, Any]) -> str:
    """What tells a cell from others of its implementation and phase: ``64-128-10 horner-4 n=64``."""
    unusual = [str(row[key]) for key, usual in _USUAL.items() if row[key] != usual]
    return " ".join([str(row["layers"]), str(row["activation"]), f"n={row['n']}", *unusual])


def _scaling(entries: pd.DataFrame, cells: pd.DataFrame, reference: dict[str, float]) -> Iterator[Point]:
    """How cost grows: exponents, fixed overhead, crossover, the law that wins and what things cost by it."""
    entries = pd.concat([normalise.kept(entries), verdicts.memory(entries)])
    groups = dict(list(entries.groupby(load.GROUP)))
    for verdict in verdicts.judge(entries[entries["phase"] != "memory"], cells):
        rows = groups[(verdict.impl, verdict.device, verdict.dtype, verdict.phase, verdict.optimizer)]
        name = "" if verdict.optimizer == USUAL_OPTIMIZER else verdict.optimizer  # stands where a cell's name does
        memory = verdict.phase == "memory"
        scale = 1.0 if memory else reference.get(verdict.device, 1.0)
        unit = BYTES if memory else PRODUCTS if verdict.device in reference else SECONDS
        threads = int(rows["threads"].iloc[0])
        group = Group(verdict.impl, verdict.device, verdict.dtype, threads, verdict.phase)
        passes = int(rows["pass"].nunique())
        for quantity, its_unit, axis, interval in _numbers(verdict, rows, cells, scale, unit):
            if math.isfinite(interval.value) and (interval.value > 0 or "exponent" in quantity):  # no logarithm of 0
                yield Point(group, quantity, its_unit, axis, name, interval, passes)
        if verdict.choice.winner:
            law = verdict.choice.winner.law.name
            yield Point(group, "winning law", "", "", name, _NONE, passes, text=law)


def _numbers(
    verdict: Verdict, entries: pd.DataFrame, cells: pd.DataFrame, scale: float, unit: str
) -> Iterator[tuple[str, str, str, Interval]]:
    """(quantity, unit, axis, interval) of one group; ``entries`` are its rows, ``cells`` everybody's."""
    for name, exponent in verdict.exponents.items():
        if exponent.value is not None:
            low, high = (math.nan if end is None else end for end in (exponent.ci_low, exponent.ci_high))
            axis = ",".join(dict.fromkeys(line.axis for line in exponent.lines))
            yield f"exponent of {name.replace('_', ' by ')}", "", axis, Interval(exponent.value, low, high)
    yield "fixed overhead", unit, "examples", _scaled(fixed_overhead(entries), scale)
    told = [verdict.impl, verdict.device, verdict.dtype, verdict.optimizer]
    own = (cells[["impl", "device", "dtype", "optimizer"]] == told).all(axis=1)
    for cost in costs(verdict.choice, verdict.phase, cells[own]):
        yield f"cost: {cost.unit}", unit, "", _scaled(cost.seconds, scale)
    if verdict.phase == "step":
        found = regimes(entries, verdict.exponents["n"])
        if found:
            yield "crossover", "n·m", "examples", found.crossover


def _scaled(interval: Interval, scale: float) -> Interval:
    return Interval(interval.value / scale, interval.low / scale, interval.high / scale)


def fixed_overhead(entries: pd.DataFrame) -> Interval:
    """t0 along the examples axis of one group's rows, with a two-way interval on the log scale; NaN for none."""
    found = along(entries, "examples", "n")
    if found is None or len(found[0].x) < growth.LEAST_BESIDE + 1 or found[1].fixed <= 0:
        return _NONE
    line, fitted = found

    def log_fixed(at: Floats) -> float:
        return float(np.log(max(line.grown(at).fixed, fitted.fixed * 1e-3)))

    return interval_along(line, fitted, log_fixed)
