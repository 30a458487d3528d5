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
    ends = [float(np.clip(at, low, high)) for at in (fitted.crossover, fitted.where(OVERHEAD_SHARE))]
    scaled, reason = crossover(line, fitted, m)
    steps = tuple((x * m, ratio) for x, ratio in exponent.steps)
    return Regimes("examples", low * m, high * m, ends[0] * m, ends[1] * m, steps, scaled, reason)


def crossover(line: Line, fitted: Growth, other: float) -> tuple[Interval, str]:
    """Where the fixed part is as much as what grows, x · ``other``; NaN, with the reason, where that lies outside what was
    measured.
    """
    none = Interval(np.nan, np.nan, np.nan)
    at, low, high = fitted.crossover, float(line.x.min()), float(line.x.max())
    variable = "n" if line.axis == "examples" else "m"
    if at > high:
        return none, f"overhead is more than half of the cost up to {variable} = {high:,.0f}, the largest measured"
    if at < low:
        return none, f"overhead is less than half of the cost from {variable} = {low:,.0f} on, the smallest measured"

    def log_where(logs: Floats) -> float:
        return float(np.log(np.clip(line.grown(logs).crossover, low / 1e3, high * 1e3)))

    found = interval_along(line, fitted, log_where)
    return Interval(found.value * other, found.low * other, found.high * other), "half of the cost is fixed there"
