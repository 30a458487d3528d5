"""What an accelerator's events, clocks and counters tell beside the wall clock, as tables of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import BATCH, SERIES, on_accelerator
from analysis.normalise import kept
from analysis.statistics import Estimate, Floats, Interval, moderated_intervals

#: Implementations that replay a step captured once, and the one that launches the same step anew each time.
REPLAYS: Mapping[str, str] = {"torch-graph": "torch"}
#: So many of the smallest cells tell what replaying saves.
SMALLEST = 3


@dataclass(frozen=True)
class Overhead:
    """One cell: seconds by the wall clock and by the device's events; ``share`` of the wall clock that is the host's alone."""

    name: str
    size: str  # smallest, largest
    layers: str
    n: int
    wall_s: float
    device_s: float
    share: Interval

    @property
    def overhead_s(self) -> float:
        """Wall minus device seconds."""
        return self.wall_s - self.device_s


@dataclass(frozen=True)
class Conditions:
    """Under what one series was measured: rounds dropped for throttling, ranges of clock (Hz), the highest temperature, the
    prepared problems a block rotates through, and the CV between processes of normalised time (median over steps).
    """

    name: str
    throttled: int
    rounds: int
    clock_low: float
    clock_high: float
    temperature_c: float
    input_sets: str
    cv: float


@dataclass(frozen=True)
class Replay:
    """How many times longer a step takes launched anew than replayed, over the smallest cells both measured."""

    replayed: str
    eager: str
    dtype: str
    cells: int
    ratio: Interval


def _full(key: Any) -> str:
    return " ".join(map(str, key))


def _accelerated(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["phase"] == "step") & rows["device"].map(on_accelerator).astype(bool)]


def overheads(entries: pd.DataFrame, names: Mapping[str, str]) -> list[Overhead]:
    """Of every series with events its smallest and its largest step; ``names`` are short names by full ones."""
    found = []
    rows = kept(_accelerated(entries))
    rows = rows[rows["device_seconds"].notna()]
    for key, own in rows.groupby(SERIES):
        for size, work in (("smallest", own["operations_total"].min()), ("largest", own["operations_total"].max())):
            found.append(_overhead(names.get(_full(key), _full(key)), size, own[own["operations_total"] == work]))
    return found


def _overhead(name: str, size: str, rows: pd.DataFrame) -> Overhead:
    first = rows.iloc[0]
    rows = rows[(rows[BATCH] == first[BATCH]).all(axis=1)]
    device = np.array([np.median(times) for times in rows["device_seconds"]])
    wall = rows["raw_s"].to_numpy(float)
    (share,) = moderated_intervals([1 - device / wall])
    return Overhead(
        name, size, str(first["layers"]), int(first["n"]), float(np.median(wall)), float(np.median(device)), share
    )


def conditions(entries: pd.DataFrame, cells: pd.DataFrame) -> list[Conditions]:
    """Of every series on an accelerator, copies included where rounds are counted."""
    found = []
    far = entries[entries["device"].map(on_accelerator).astype(bool)]
    steps = _accelerated(cells)
    for key, rows in far.groupby(SERIES):
        clocks = [clock for clock in rows["clock_hz"] if clock is not None]
        every = np.concatenate(clocks) if clocks else np.array([np.nan])
        own = steps[(steps[SERIES] == list(key)).all(axis=1)]
        name = str(own["series"].iloc[0]) if len(own) else _full(key)
        sets = ", ".join(map(str, sorted(rows["input_sets"].unique())))
        found.append(
            Conditions(
                name,
                int(rows["throttled_rounds"].sum()),
                int(rows["rounds"].sum()),
                float(every.min()),
                float(every.max()),
                float(rows["temperature_c"].max()),
                sets,
                float(own["between_cv"].median()),
            )
        )
    return found


def at_ceiling(cells: pd.DataFrame) -> pd.DataFrame:
    """By device and dtype the best share of the measured ceiling at the cell with most work in products."""
    rows = _accelerated(cells).dropna(subset=["share_of_ceiling"])
    if rows.empty:
        return rows
    most = rows.groupby(["device", "dtype"])["operations_product"].transform("max")
    largest = rows[rows["operations_product"] == most]
    return largest.loc[largest.groupby(["device", "dtype"])["share_of_ceiling"].idxmax()]


def replays(entries: pd.DataFrame) -> list[Replay]:
    """What replaying a captured step saves where launching binds."""
    rows = kept(_accelerated(entries))
    found = []
    for replayed, eager in REPLAYS.items():
        for (_, dtype), own in rows.groupby(["device", "dtype"]):
            sides = [own[own["impl"] == impl] for impl in (eager, replayed)]
            common = _smallest(*sides)
            if len(common):
                logs = [_by_pass(side, common) for side in sides]
                found.append(Replay(replayed, eager, str(dtype), len(common), _ratio(*logs)))
    return found


def _smallest(a: pd.DataFrame, b: pd.DataFrame) -> pd.MultiIndex:
    """The smallest cells that both measured."""
    work = a.groupby(BATCH)["operations_total"].first()
    common = work[work.index.isin(pd.MultiIndex.from_frame(b[BATCH]))]
    return pd.MultiIndex.from_tuples(list(common.nsmallest(SMALLEST).index), names=BATCH)


def _by_pass(rows: pd.DataFrame, cells: pd.MultiIndex) -> Floats:
    """Mean log time over the cells in every pass that has them all."""
    own = rows[pd.MultiIndex.from_frame(rows[BATCH]).isin(cells)]
    logs = np.log(own["time_s"]).groupby(own["pass"])
    whole = logs.size() == len(cells)
    return np.asarray(logs.mean()[whole], float)


def _ratio(a: Floats, b: Floats) -> Interval:
    """Exp of the difference of two means, by Welch's interval: the passes of two implementations are different processes."""
    if not (len(a) and len(b)):
        return Interval(np.nan, np.nan, np.nan)
    value = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Estimate(value, np.nan, 0.0).interval().exp()
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    spread = float(np.sum(parts))
    weight = float(np.sum(parts**2 / np.array([len(a) - 1, len(b) - 1])))
    return Estimate(value, float(np.sqrt(spread)), spread**2 / weight if weight else 1e6).interval().exp()
