"""The few statistical tools the verdicts rest on; pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

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


def moderated_intervals(samples: list[Floats]) -> list[Interval]:
    """Means of many small samples with 95 % intervals whose variances are estimated together.

    With three passes a cell's own variance is hardly known.  Smyth (2004, *Stat. Appl. Genet. Mol. Biol.* 3:3): the
    variances come from a scaled inverse chi-square, s_i² ~ s0² F(d_i, d0), whose d0 and s0 all samples estimate together by
    the moments of log s²; the posterior (d0 s0² + d_i s_i²) / (d0 + d_i) then has d0 + d_i degrees of freedom.
    """
    counts = np.array([len(sample) for sample in samples])
    degrees = np.maximum(counts - 1, 0)
    variances = np.array([np.var(sample, ddof=1) if len(sample) > 1 else np.nan for sample in samples])
    prior_degrees, prior = _variance_prior(variances[degrees > 0], degrees[degrees > 0])
    found = []
    for sample, own, d in zip(samples, variances, degrees, strict=True):
        value = float(np.mean(sample))
        if not d:
            found.append(Interval(value, np.nan, np.nan))
            continue
        pooled = prior if np.isinf(prior_degrees) else (prior_degrees * prior + d * own) / (prior_degrees + d)
        half = t_quantile(min(prior_degrees + d, 1e6)) * np.sqrt(pooled / len(sample))
        found.append(Interval(value, value - float(half), value + float(half)))
    return found


def _variance_prior(variances: Floats, degrees: NDArray[np.int64]) -> tuple[float, float]:
    """Degrees of freedom d0 and variance s0² of the prior; d0 = 0 (no pooling) with fewer than three samples."""
    good = variances > 0
    if good.sum() < 3:
        return 0.0, 0.0
    half = degrees[good] / 2
    # E log s² = log s0² + ψ(d/2) - log(d/2) - ψ(d0/2) + log(d0/2);  Var log s² = ψ'(d/2) + ψ'(d0/2)
    shifted = np.log(variances[good]) - special.digamma(half) + np.log(half)
    excess = float(np.var(shifted, ddof=1) - np.mean(special.polygamma(1, half)))
    if excess <= 0:  # no more spread than chi-square itself brings: one variance for all
        return np.inf, float(np.exp(np.mean(shifted)))
    prior_half = float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - excess, 1e-3, 1e6))
    scale = float(np.exp(np.mean(shifted) + special.digamma(prior_half) - np.log(prior_half)))
    return 2 * prior_half, scale


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
