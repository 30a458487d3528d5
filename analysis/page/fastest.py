"""Who is fastest, from measured cells alone: along examples and width, and over every step that all have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import on_axis
from analysis.statistics import Interval

#: The axes along which an order is told: what moves, and what stays.
AXES = {
    "examples": ("n", ["dtype", "layers", "activation", "loss"]),
    "width": ("width", ["dtype", "depth", "n", "activation", "loss"]),
}
_STEP = ["dtype", "layers", "activation", "loss", "n"]


@dataclass(frozen=True)
class Podium:
    """One step that several series measured: the fastest with its time in seconds, those whose 95 % interval overlaps its own,
    and the next.

    ``ratio`` is the time of ``next`` over the fastest's, with its 95 % interval; both None where all overlap.
    """

    size: int
    first: str
    time_s: Interval
    near: tuple[str, ...]
    next: str | None
    ratio: Interval | None

    @property
    def leaders(self) -> tuple[str, ...]:
        """By name, so that two that change places within their intervals are the same leaders."""
        return tuple(sorted((self.first, *self.near)))


@dataclass(frozen=True)
class Stretch:
    """Neighbouring sizes of an axis with the same leaders, from the first podium to the last."""

    leaders: tuple[str, ...]
    start: Podium
    end: Podium


@dataclass(frozen=True)
class Order:
    """Who leads along an axis: ``variable`` moves, ``where`` says what stays."""

    variable: str
    where: str
    stretches: tuple[Stretch, ...]


def podium(size: int, rows: pd.DataFrame) -> Podium:
    """Of one step, a row a series: ``time_s``, ``ci_low_s``, ``ci_high_s``."""
    rows = rows.sort_values("time_s")
    first, others = rows.iloc[0], rows.iloc[1:]
    # of an interval that is not known it cannot be said that it lies apart
    apart = (others["ci_low_s"] > first["ci_high_s"]).to_numpy(bool)
    near = tuple(map(str, others.loc[~apart, "series"]))
    time = Interval(*(float(first[end]) for end in ("time_s", "ci_low_s", "ci_high_s")))
    after = others[apart].iloc[0] if apart.any() else None
    compared = (None, None) if after is None else (str(after["series"]), ratio(after, first))
    return Podium(size, str(first["series"]), time, near, *compared)


def ratio(a: pd.Series[Any], b: pd.Series[Any]) -> Interval:
    """Of two independent times: half² = half_a² + half_b² on the log scale."""
    halves = (np.log(row["ci_high_s"] / row["ci_low_s"]) / 2 for row in (a, b))
    centre, half = np.log(a["time_s"] / b["time_s"]), np.hypot(*halves)
    return Interval(*(float(np.exp(centre + sign * half)) for sign in (0, -1, 1)))


def podiums(steps: pd.DataFrame, by: Sequence[str], size: str, least: int) -> list[Podium]:
    """Of every step that at least so many series measured, the smallest first."""
    found = [podium(int(rows[size].iloc[0]), rows) for _, rows in steps.groupby(list(by)) if len(rows) >= least]
    return sorted(found, key=lambda one: one.size)


def order(steps: pd.DataFrame, axis: str) -> Order | None:
    """Along the line of an axis that most series share, over most sizes; None where no two series share two sizes."""
    variable, stays = AXES[axis]
    groups = on_axis(steps, axis).groupby(stays)
    lines = [(rows["series"].nunique(), rows[variable].nunique(), rows) for _, rows in groups]
    count, _, line = max(lines, key=lambda one: one[:2], default=(0, 0, steps))
    found = podiums(line, [variable], variable, count) if count > 1 else []
    if len(found) < 2:
        return None
    first = line.iloc[0]
    network = (
        f"layers {first['layers']}" if axis == "examples" else f"{first['depth']} weight layers, n = {first['n']:,}"
    )
    where = f"{network}, {first['activation']}, {first['dtype']}"
    return Order(variable, where, tuple(_stretches(found)))


def _stretches(found: Sequence[Podium]) -> Iterator[Stretch]:
    for leaders, group in groupby(found, key=lambda one: one.leaders):
        same = list(group)
        yield Stretch(leaders, same[0], same[-1])


def told(found: Order) -> str:
    """The order in words; its numbers stand in the table beside it."""
    parts = []
    for one in found.stretches:
        low, high = one.start.size, one.end.size
        where = f"at {found.variable} = {low:,}" if low == high else f"for {found.variable} from {low:,} to {high:,}"
        parts.append(f"{' or '.join(one.leaders)} {where}" + (" (intervals overlap)" if len(one.leaders) > 1 else ""))
    return f"{', '.join(parts)} ({found.where})"


@dataclass(frozen=True)
class Tally:
    """Over all steps that every series of a dtype measured: how often each is fastest alone, the most often first, and how
    often none is.
    """

    steps: int
    alone: tuple[tuple[str, int], ...]
    open: int


def tally(steps: pd.DataFrame) -> Tally | None:
    """Of the dtype that most series share; None where no two series share a step."""
    by_dtype = [(rows["series"].nunique(), str(dtype), rows) for dtype, rows in steps.groupby("dtype")]
    count, _, rows = max(by_dtype, key=lambda one: one[0], default=(0, "", steps))
    found = podiums(rows, _STEP, "n", count) if count > 1 else []
    if not found:
        return None
    alone = {str(name): sum(one.leaders == (name,) for one in found) for name in rows["series"].unique()}
    ranked = sorted(alone.items(), key=lambda pair: (-pair[1], pair[0]))
    return Tally(len(found), tuple(ranked), len(found) - sum(alone.values()))


def summary(steps: pd.DataFrame) -> dict[str, Any]:
    """What the first screen shows; ``orders`` is empty where a run has nothing to compare."""
    orders = [found for axis in AXES if (found := order(steps, axis))]
    return {"orders": [(one, told(one)) for one in orders], "tally": tally(steps)}
