"""Regimes along an axis: overhead, transition, growth, and the steps in it; and where overhead is half of the cost.

The fixed part is more than half of the cost in *overhead*, more than a fifth in *transition*; beyond lies *growth*, where
exponents are fitted.  Steps are changes of price within it, found by a penalised segmented fit (``analysis.growth``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import growth
from analysis.exponents import OVERHEAD_SHARE, Exponent, Line, along, interval_along
from analysis.growth import Growth
from analysis.statistics import Floats, Interval

#: (name, share of the cost that is fixed at its lower end)
OVERHEAD_FROM = 0.5


@dataclass(frozen=True)
class Regimes:
    """Along one axis of one series, in units of n·m: the range measured, the ends of overhead and of transition, steps
    (n·m, ratio of the price beyond), and the crossover, where the fixed part is half of the cost, with its interval.
    """

    axis: str
    low: float
    high: float
    overhead_until: float
    transition_until: float
    steps: tuple[tuple[float, float], ...]
    crossover: Interval
    reason: str


def regimes(entries: pd.DataFrame, exponent: Exponent) -> Regimes | None:
    """Of the examples axis of one group's rows; None where it has too few cells.  ``exponent`` is that of n."""
    found = along(entries, "examples", "n")
    if found is None or len(found[0].x) < growth.LEAST_BESIDE + 1:
        return None
    line, fitted = found
    m = float(line.cells["m"].iloc[0])
    low, high = float(line.x.min()), float(line.x.max())
    ends = [float(np.clip(fitted.where(share), low, high)) for share in (OVERHEAD_FROM, OVERHEAD_SHARE)]
    crossover, reason = _crossover(line, fitted, low, high)
    scaled = Interval(crossover.value * m, crossover.low * m, crossover.high * m)
    steps = tuple((x * m, ratio) for x, ratio in exponent.steps)
    return Regimes("examples", low * m, high * m, ends[0] * m, ends[1] * m, steps, scaled, reason)


def _crossover(line: Line, fitted: Growth, low: float, high: float) -> tuple[Interval, str]:
    """N at which the fixed part is half of the cost; NaN, with the reason, where that lies outside what was measured."""
    none = Interval(np.nan, np.nan, np.nan)
    at = fitted.where(OVERHEAD_FROM)
    if at > high:
        return none, f"overhead is more than half of the cost up to n = {high:,.0f}, the largest measured"
    if at < low:
        return none, f"overhead is less than half of the cost from n = {low:,.0f} on, the smallest measured"

    def log_where(logs: Floats) -> float:
        return float(np.log(np.clip(growth.fit(line.x, np.exp(logs)).where(OVERHEAD_FROM), low / 1e3, high * 1e3)))

    return interval_along(line, fitted, log_where), "half of the cost is fixed there"
