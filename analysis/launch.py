"""The launch-overhead regime of an accelerator: where cost grows with neither n nor m, and where arithmetic takes over.

A step there is a train of kernels that the host launches.  While every kernel is shorter than its launch, cost is that of
launching, whatever n and m are; beyond the crossover it is that of arithmetic.  Host and device overlap, so the two are
joined by a knee of any sharpness, from their sum to the larger of them (``analysis.growth.knee``).

The *launch-overhead regime* is named where cells are bound by launching and flat: the curve's exponents of n and of m over
them, as far as the sweep has such cells, are 0 within ±0.1 by interval, and the cells themselves do not contradict it.  The
*arithmetic regime* begins where the fixed part is at most a fifth of the cost; exponents and laws are judged there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import words
from analysis.claims import BAND
from analysis.exponents import LEAST_SPAN, OVERHEAD_SHARE, Line, along, interval_along, plain_interval_along
from analysis.growth import LEAST_FOR_KNEE, Growth
from analysis.regimes import crossover
from analysis.statistics import Bools, Floats, Interval

#: Cells are bound by launching where it is so much of their cost.
BOUND_SHARE = 0.95
_AXES = {"examples": ("n", "m"), "width": ("m", "n")}  # by axis: what it moves, and what else the work is a multiple of
_NONE = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Launch:
    """What launching costs one implementation on an accelerator, and up to where it binds, in units of ``unit``.

    ``growth`` has by variable (n, m) the exponent over the cells that launching binds, where there are any; ``crossovers`` by
    axis where what grows is as much as what is fixed.  ``arithmetic_from`` is where the arithmetic regime begins: infinite
    where the sweep does not reach it, 0 where it never leaves it.
    """

    unit: str  # n·m; n or m alone where the claim is that the other does not count
    named: bool
    seconds: Interval  # of launching; NaN where nothing is fixed
    growth: Mapping[str, Interval]
    crossovers: Mapping[str, Interval]
    reasons: Mapping[str, str]  # by axis, why there is no crossover
    arithmetic_from: float
    low: float  # the range measured
    high: float
    depth: int  # of the networks it was told along; deeper ones have as many times more to launch

    @property
    def reached(self) -> bool:
        """Whether some cells are past launching."""
        return bool(np.isfinite(self.arithmetic_from))

    @property
    def crossover(self) -> Interval:
        """Along the examples axis where that has one, else along the width axis; NaN for none."""
        known = [self.crossovers[axis] for axis in _AXES if axis in self.crossovers]
        return next((found for found in known if np.isfinite(found.value)), _NONE)

    def arithmetic(self, rows: pd.DataFrame) -> Bools:
        """Which rows lie in the arithmetic regime: launching is at most a fifth of their time."""
        if not self.reached:
            return np.zeros(len(rows), bool)
        if not np.isfinite(self.seconds.value):
            return np.ones(len(rows), bool)
        more = np.maximum(rows["depth"].to_numpy(float) / self.depth, 1.0)
        return np.asarray(rows["time_s"].to_numpy(float) >= self.seconds.value * more / OVERHEAD_SHARE)


@dataclass(frozen=True, eq=False)
class _Axis:
    line: Line
    fitted: Growth
    other: float  # what x is multiplied by to be in the unit

    @property
    def low(self) -> float:
        return float(self.line.x.min()) * self.other

    @property
    def high(self) -> float:
        return float(self.line.x.max()) * self.other

    @property
    def outside(self) -> str:
        """On which side of what was measured the crossover lies, where it does not lie within."""
        beyond = self.fitted.crossover > self.line.x.max()
        return "not reached in this sweep" if beyond else "below the smallest measured"

    @property
    def arithmetic_from(self) -> float:
        at = self.fitted.where(OVERHEAD_SHARE)
        return 0.0 if at < self.line.x.min() else at * self.other

    @property
    def bound(self) -> Bools:
        """Which cells launching binds; they are none where they span less than a factor of ``LEAST_SPAN``."""
        found = self.line.x <= self.fitted.where(BOUND_SHARE)
        x = self.line.x[found]
        return np.asarray(found & (x.max(initial=0.0) >= LEAST_SPAN * self.line.x.min()))

    def growth(self) -> Interval:
        """The curve's mean exponent over the cells that launching binds."""
        ends = self.line.x[self.bound][[0, -1]]

        def exponent(logs: Floats) -> float:
            low, high = np.log(self.line.grown(logs).at(ends))
            return float((high - low) / np.log(ends[1] / ends[0]))

        return plain_interval_along(self.line, self.fitted, exponent)

    def contradicted(self) -> bool:
        """Whether the cells that launching should bind grow all the same, or shrink: by a straight line through them alone,
        for the curve tells nothing of how badly it fits.
        """
        slope = np.polyfit(np.log(self.line.x[self.bound]), self.line.means[self.bound], 1)[0]
        return bool(abs(slope) > BAND / 2)


def launch(entries: pd.DataFrame, claimed: Mapping[str, float]) -> Launch | None:
    """Of one group's rows on an accelerator; None where no axis has cells enough to tell.  ``claimed`` are the exponents of
    the claim: what is claimed not to grow at all cannot tell where growth begins.
    """
    moving = [name for name in "nm" if claimed.get(name) != 0]
    axes = {axis: _axis(entries, axis, moving) for axis, (variable, _) in _AXES.items() if variable in moving}
    found = {axis: part for axis, part in axes.items() if part is not None}
    if not found:
        return None
    crossovers = {axis: crossover(part.line, part.fitted, part.other)[0] for axis, part in found.items()}
    growth = {_AXES[axis][0]: part.growth() for axis, part in found.items() if part.bound.any()}
    flat = [interval.low >= -BAND and interval.high <= BAND for interval in growth.values()]
    first = next(iter(found.values()))
    return Launch(
        "·".join(moving),
        _smallest(found) in growth
        and all(flat)
        and not any(part.contradicted() for part in found.values() if part.bound.any()),
        _seconds(first),
        growth,
        crossovers,
        {axis: found[axis].outside for axis, interval in crossovers.items() if not np.isfinite(interval.value)},
        _arithmetic_from(list(found.values())),
        min(part.low for part in found.values()),
        max(part.high for part in found.values()),
        int(first.line.cells["depth"].iloc[0]),
    )


def _smallest(axes: Mapping[str, _Axis]) -> str:
    """What the axis moves that begins with the least work: if launching does not bind there, it binds nowhere."""
    return _AXES[min(axes, key=lambda axis: axes[axis].low)][0]


def _arithmetic_from(axes: list[_Axis]) -> float:
    """Where every axis has left launching; an axis that never does counts with its end, unless none does."""
    if all(axis.arithmetic_from > axis.high for axis in axes):
        return float(np.inf)
    return max(min(axis.arithmetic_from, axis.high) for axis in axes)


def _axis(entries: pd.DataFrame, axis: str, moving: list[str]) -> _Axis | None:
    variable, other = _AXES[axis]
    found = along(entries, axis, variable)
    if found is None or len(found[0].x) < LEAST_FOR_KNEE:
        return None
    return _Axis(*found, float(found[0].cells[other].iloc[0]) if other in moving else 1.0)


def _seconds(axis: _Axis) -> Interval:
    """What launching costs."""
    if axis.fitted.fixed <= 0:
        return _NONE
    least = axis.fitted.fixed * 1e-3
    return interval_along(axis.line, axis.fitted, lambda y: float(np.log(max(axis.line.grown(y).fixed, least))))


def told(found: Launch) -> str:
    """The launch-overhead regime in a plain sentence."""
    if not found.named:
        return _unnamed(found)
    both = len(found.growth) > 1
    verb = "grows with neither" if both else "does not grow with"
    flat = " nor ".join(
        f"{name} (exponent {words.with_interval(e.value, e.low, e.high)})" for name, e in found.growth.items()
    )
    cost = f"launch overhead of {words.seconds(found.seconds.value)}"
    if not np.isfinite(found.crossover.value):
        return (
            f"Launch-overhead regime: cost is a {cost} and {verb} {flat}; the crossover to the arithmetic regime is not "
            f"reached in this sweep, up to {found.unit} = {words.count(found.high)}."
        )
    sentence = (
        f"Launch-overhead regime up to {found.unit} ≈ {words.interval(found.crossover, words.count)}: below it cost is a "
        f"{cost} and {verb} {flat}; "
    )
    if not found.reached:
        return (
            sentence + f"the arithmetic regime itself is not reached, up to {found.unit} = {words.count(found.high)}."
        )
    return sentence + f"exponents and laws are judged in the arithmetic regime, from {_from(found)} on."


def _unnamed(found: Launch) -> str:
    if not found.reached:
        return f"The arithmetic regime is not reached in this sweep, up to {found.unit} = {words.count(found.high)}."
    if not found.arithmetic_from:
        return f"No launch-overhead regime in this sweep, from {found.unit} = {words.count(found.low)} on."
    at = found.crossover
    where = f", crossover at {found.unit} ≈ {words.interval(at, words.count)}" if np.isfinite(at.value) else ""
    return (
        f"No launch-overhead regime could be shown: too few cells below the knee, or cost grows there too{where}; exponents "
        f"and laws are judged from {_from(found)} on."
    )


def _from(found: Launch) -> str:
    return f"{found.unit} = {words.count(found.arithmetic_from)}"
