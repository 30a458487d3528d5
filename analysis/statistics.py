"""The few statistical tools the verdicts rest on; pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; the ends are NaN where nothing can tell."""

    value: float
    low: float
    high: float


def t_quantile(degrees: float) -> float:
    """Two-sided 95 % quantile of Student's t."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, degrees))


def mean_interval(samples: Floats) -> Interval:
    """Mean of independent samples with its t-interval; with one sample the ends are NaN."""
    value = float(np.mean(samples))
    if len(samples) < 2:
        return Interval(value, np.nan, np.nan)
    half = t_quantile(len(samples) - 1) * float(np.std(samples, ddof=1)) / np.sqrt(len(samples))
    return Interval(value, value - half, value + half)


def geometric_interval(times: Floats) -> Interval:
    """Geometric mean of positive times with a t-interval on the log scale: passes differ by factors."""
    logs = mean_interval(np.log(times))
    return Interval(*np.exp([logs.value, logs.low, logs.high]).tolist())


def pooled_slope(x: Floats, y: Floats, group: NDArray[np.int64]) -> tuple[float, Floats]:
    """Common slope of y on x with an intercept of its own for every group, and the residuals.

    Subtracting each group's mean first gives the same least-squares slope as fitting the intercepts.
    """
    x, y = x.astype(float).copy(), y.astype(float).copy()
    for label in np.unique(group):
        x[group == label] -= x[group == label].mean()
        y[group == label] -= y[group == label].mean()
    slope = float(x @ y / (x @ x))
    return slope, y - slope * x
