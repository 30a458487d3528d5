"""The launch-overhead regime of an accelerator: where cost grows with neither n nor m, and where arithmetic takes over.

A step there is a train of kernels that the host launches.  While every kernel is shorter than its launch, cost is that of
launching, whatever n and m are; beyond the crossover it is that of arithmetic.  Host and device overlap, so the two are
joined by a knee of any sharpness, from their sum to the larger of them (``analysis.growth.knee``).

The *launch-overhead regime* is named where the cells below the knee are flat: their exponents of n and of m, as far as the
sweep has cells to tell them, are 0 within ±0.1 by interval.  The *arithmetic regime* begins where the fixed part is at
most a fifth of the cost; exponents and laws are judged there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import words
from analysis.claims import BAND
from analysis.exponents import OVERHEAD_SHARE, Exponent, Line, along, interval_along, of_lines
from analysis.growth import LEAST_FOR_KNEE, Growth
from analysis.regimes import crossover
from analysis.statistics import Bools, Floats, Interval

#: Cells are bound by launching where it is so much of their cost.
BOUND_SHARE = 0.9
_AXES = {"examples": ("n", "m"), "width": ("m", "n")}  # by axis: what it moves, and what else the work is a multiple of
_NONE = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Launch:
    """What launching costs one implementation on an accelerator, and up to where it binds, in units of ``unit``.

    ``growth`` has by variable (n, m) the exponent over the cells that launching binds, ``crossovers`` by axis where what
    grows is as much as what is fixed.  ``arithmetic_from`` is where the arithmetic regime begins: infinite where the sweep
    does not reach it, 0 where it never leaves it.
    """

    unit: str  # n·m; n or m alone where the claim is that the other does not count
    named: bool
    seconds: Interval  # of launching; NaN where nothing is fixed
    growth: Mapping[str, Exponent]
    crossovers: Mapping[str, Interval]
    reasons: Mapping[str, str]  # by axis, why there is no crossover
    arithmetic_from: float
    low: float  # the range measured
    high: float

    @property
    def reached(self) -> bool:
        """Whether some cells are past launching."""
        return bool(np.isfinite(self.arithmetic_from))

    @property
    def crossover(self) -> Interval:
        """Along the examples axis where that has one, else along the width axis; NaN for none."""
        known = [self.crossovers[axis] for axis in _AXES if axis in self.crossovers]
        return next((found for found in known if np.isfinite(found.value)), _NONE)

    def size(self, rows: pd.DataFrame) -> Floats:
        """Rows in ``unit``."""
        return np.asarray(np.prod([rows[name].to_numpy(float) for name in self.unit.split("·")], axis=0))

    def arithmetic(self, rows: pd.DataFrame) -> Bools:
        """Which rows lie in the arithmetic regime."""
        return np.asarray(self.size(rows) >= self.arithmetic_from)


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
    def arithmetic_from(self) -> float:
        at = self.fitted.where(OVERHEAD_SHARE)
        return 0.0 if at < self.line.x.min() else at * self.other

    def bound(self) -> Exponent:
        """How cost grows over the cells that launching binds."""
        kept = self.line.x <= self.fitted.where(BOUND_SHARE)
        flat = replace(self.line, fixed=0.0, kept=tuple(map(bool, kept)))
        return of_lines([flat], (self.line.axis,), _AXES[self.line.axis][0], None)


def launch(entries: pd.DataFrame, claimed: Mapping[str, float]) -> Launch | None:
    """Of one group's rows on an accelerator; None where no axis has cells enough to tell.  ``claimed`` are the exponents of
    the claim: what is claimed not to grow at all cannot tell where growth begins.
    """
    moving = [name for name in "nm" if claimed.get(name) != 0]
    axes = {axis: _axis(entries, axis, moving) for axis, (variable, _) in _AXES.items() if variable in moving}
    found = {axis: part for axis, part in axes.items() if part is not None}
    if not found:
        return None
    told = {axis: crossover(part.line, part.fitted, part.other) for axis, part in found.items()}
    growth = {_AXES[axis][0]: part.bound() for axis, part in found.items()}
    first = next(iter(found.values()))
    return Launch(
        "·".join(moving),
        _is_flat(growth),
        _seconds(first),
        growth,
        {axis: interval for axis, (interval, _) in told.items()},
        {axis: reason for axis, (interval, reason) in told.items() if not np.isfinite(interval.value)},
        _arithmetic_from(list(found.values())),
        min(part.low for part in found.values()),
        max(part.high for part in found.values()),
    )


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


def _is_flat(growth: Mapping[str, Exponent]) -> bool:
    """Whether cost grows with nothing that could be told: an interval within ±0.1 at least, and none beyond."""
    known = [(e.ci_low, e.ci_high) for e in growth.values() if e.ci_low is not None and e.ci_high is not None]
    flat = [low >= -BAND and high <= BAND for low, high in known]
    beyond = [high < -BAND or low > BAND for low, high in known]
    return any(flat) and not any(beyond)


def told(found: Launch) -> str:
    """The launch-overhead regime in a plain sentence."""
    if not found.named:
        return _unnamed(found)
    known = {name: e for name, e in found.growth.items() if e.ci_low is not None}
    flat = " and ".join(
        f"{name} (exponent {words.with_interval(e.value or 0.0, e.ci_low or 0.0, e.ci_high or 0.0)})"
        for name, e in known.items()
    )
    verb = "grows with neither" if len(known) > 1 else "does not grow with"
    flat = flat.replace(" and ", " nor ") if len(known) > 1 else flat
    cost = f"launch overhead of {words.seconds(found.seconds.value)}"
    if not np.isfinite(found.crossover.value):
        return (
            f"Launch-overhead regime: cost is a {cost} and {verb} {flat}; the crossover to the arithmetic regime is not "
            f"reached in this sweep, up to {found.unit} = {words.count(found.high)}."
        )
    sentence = (
        f"Launch-overhead regime up to {found.unit} ≈ {_counted(found.crossover)}: below it cost is a {cost} and {verb} "
        f"{flat}; "
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
    where = f", crossover at {found.unit} ≈ {_counted(at)}" if np.isfinite(at.value) else ""
    return (
        f"No launch-overhead regime could be shown: too few cells below the knee, or cost grows there too{where}; exponents "
        f"and laws are judged from {_from(found)} on."
    )


def _from(found: Launch) -> str:
    return f"{found.unit} = {words.count(found.arithmetic_from)}"


def _counted(found: Interval) -> str:
    known = np.isfinite(found.low) and np.isfinite(found.high)
    ends = f" [{words.count(found.low)}, {words.count(found.high)}]" if known else ""
    return words.count(found.value) + ends
