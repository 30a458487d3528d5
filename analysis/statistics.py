"""The few statistical tools the verdicts rest on; pure functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; the ends are NaN where nothing can tell."""

    value: float
    low: float
    high: float

    def exp(self) -> Interval:
        """Of a logarithm, the interval of the number; what is hardly known may be infinite."""
        with np.errstate(over="ignore"):
            return Interval(*(float(end) for end in np.exp([self.value, self.low, self.high])))


def t_quantile(degrees: float) -> float:
    """Two-sided 95 % quantile of Student's t."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, degrees))


def share_of(hits: int, n: int) -> Interval:
    """A share with its exact 95 % interval (Clopper & Pearson 1934), which covers at any n; of no trials all is open."""
    if not n:
        return Interval(np.nan, 0.0, 1.0)
    found = stats.binomtest(hits, n).proportion_ci(LEVEL, "exact")
    return Interval(hits / n, float(found.low), float(found.high))


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error and the degrees of freedom that is known with; NaN and 0 where nothing is."""

    value: float
    error: float
    degrees: float

    def interval(self, level: float = LEVEL) -> Interval:
        """Two-sided, by Student's t."""
        if not self.degrees > 0:
            return Interval(self.value, np.nan, np.nan)
        half = float(stats.t.ppf(0.5 + level / 2, self.degrees)) * self.error
        return Interval(self.value, self.value - half, self.value + half)

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "not above ``bound``": small where it is; 1 where nothing is known."""
        if not self.degrees > 0:
            return 1.0
        return float(stats.t.sf((self.value - bound) / max(self.error, 1e-300), self.degrees))

    def p_below(self, bound: float) -> float:
        """One-sided p-value of "not below ``bound``"."""
        return Estimate(-self.value, self.error, self.degrees).p_above(-bound)


def moderated(samples: list[Floats]) -> list[Estimate]:
    """Means of many small samples, with standard errors from variances that are estimated together.

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
        value = float(np.mean(sample)) if len(sample) else np.nan
        if not d:
            found.append(Estimate(value, np.nan, 0.0))
            continue
        pooled = (prior_degrees * prior + d * own) / (prior_degrees + d)
        found.append(Estimate(value, float(np.sqrt(pooled / len(sample))), float(min(prior_degrees + d, 1e6))))
    return found


def moderated_intervals(samples: list[Floats]) -> list[Interval]:
    """Means with 95 % intervals, after ``moderated``."""
    return [estimate.interval() for estimate in moderated(samples)]


def discoveries(p_values: Floats, rate: float) -> NDArray[np.bool_]:
    """Which of many claims hold with a false discovery rate of at most ``rate`` (Benjamini & Hochberg 1995)."""
    order = np.argsort(p_values)
    limits = rate * np.arange(1, len(p_values) + 1) / max(len(p_values), 1)
    good = np.nonzero(p_values[order] <= limits)[0]
    found = np.zeros(len(p_values), bool)
    if len(good):
        found[order[: good[-1] + 1]] = True
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
    # no more spread than chi-square itself brings: one variance for all, known no better than all samples together know it
    most = float(degrees.sum()) / 2
    least = float(special.polygamma(1, most))
    if excess <= least:
        prior_half = most
    else:
        prior_half = float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - excess, 1e-3, most))
    scale = float(np.exp(np.mean(shifted) + special.digamma(prior_half) - np.log(prior_half)))
    return 2 * prior_half, scale


#: Two sources of spread are taken for one unless an F test at this level tells them apart.
POOLING_LEVEL = 0.25
#: A pass of a cell further from the cell's median than so many robust deviations is pulled in to there.
WILD = 4.0


@dataclass(frozen=True)
class Spread:
    """How far residuals scatter: a mean square and its degrees of freedom."""

    mean_square: float
    degrees: float


def tamed(logs: Floats, own: bool = False) -> Floats:
    """Log times (cells, passes) with wild ones pulled in: one disturbed pass of a cell must not bend a line.

    The deviation is estimated over all cells together, so a single pass cannot hide behind its own spread; with ``own`` it
    is the cell's own where that is larger: a cell that always scatters widely is no wild one.
    """
    if logs.shape[1] < 3:
        return logs
    middle = np.nanmedian(logs, axis=1, keepdims=True)
    away = logs - middle
    # the median of |away| misses the middle pass itself, which is its own median: those zeros are left out
    scale = 1.4826 * np.nanmedian(np.abs(away[away != 0])) if np.any(away != 0) else 0.0
    if not scale:
        return logs
    if own:
        apart = np.where(away == 0, np.nan, np.abs(away))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a cell all of whose passes agree has no spread of its own
            scale = np.fmax(scale, 1.4826 * np.nanmedian(apart, axis=1, keepdims=True))
    return np.asarray(middle + np.clip(away, -WILD * scale, WILD * scale))


def two_way_interval(estimate: float, gradient: Floats, logs: Floats, line: Spread) -> Interval:
    """95 % interval of an estimate that is a smooth function of cells' mean log times.

    Two things differ and neither may be forgotten: passes (a fresh process has another memory layout, another clock) and
    cells (a size is faster or slower than the line says, in every pass alike).  With g the gradient of the estimate by
    the cells' log times, its variance is V = A + B - C, the two-way cluster variance of Cameron, Gelbach & Miller (2011,
    *J. Bus. Econ. Stat.* 29:238):

        A = line · Σ g²                     cells about the line, which holds C's noise too
        B = var_p(Σ g (y_p - ȳ)) / P        passes, which hold it too
        C = interaction · Σ g² / P          what is neither

    With three passes B has two degrees of freedom, so A and B count apart from C only where an F test says so; else they
    are pooled with it.  Degrees of freedom after Satterthwaite.

    ``gradient`` (cells,), ``logs`` (cells, passes; NaN where a pass lacks a cell), ``line`` mean square about the line.
    """
    sum_g2 = float(gradient @ gradient)
    whole = logs[:, ~np.isnan(logs).any(axis=0)]
    cells = Spread(line.mean_square * sum_g2, line.degrees)
    if whole.shape[1] < 2:  # one pass: the line's own residuals, if they are more than one
        return _interval(estimate, cells) if line.degrees > 1 else Interval(estimate, np.nan, np.nan)
    passes_count = whole.shape[1]
    away = whole - whole.mean(axis=1, keepdims=True)
    moved = gradient @ away
    passes = Spread(float(moved @ moved) / (passes_count - 1) / passes_count, passes_count - 1)
    rest = away - away.mean(axis=0)
    degrees = (len(logs) - 1) * (passes_count - 1)
    both = Spread(float((rest**2).sum()) / degrees / passes_count * sum_g2, degrees)
    return _interval(estimate, _joined(cells, passes, both))


def _joined(cells: Spread, passes: Spread, both: Spread) -> Spread:
    apart, pooled = [], both
    for part in (cells, passes):
        if part.degrees < 1:
            continue
        if _larger(part, both):
            apart.append(part)
        else:
            total = pooled.degrees + part.degrees
            square = (pooled.mean_square * pooled.degrees + part.mean_square * part.degrees) / total
            pooled = Spread(square, total)
    # A + B - C: what is apart holds the rest once each
    left = 1 - len(apart)
    variance = max(sum(part.mean_square for part in apart) + left * pooled.mean_square, pooled.mean_square)
    weight = sum(part.mean_square**2 / part.degrees for part in apart)
    weight += (left * pooled.mean_square) ** 2 / pooled.degrees
    return Spread(variance, max(1.0, variance**2 / weight) if weight else pooled.degrees)


def _larger(part: Spread, both: Spread) -> bool:
    if both.mean_square <= 0:
        return part.mean_square > 0
    return bool(stats.f.sf(part.mean_square / both.mean_square, part.degrees, both.degrees) < POOLING_LEVEL)


def _interval(estimate: float, spread: Spread) -> Interval:
    if spread.degrees < 1:
        return Interval(estimate, np.nan, np.nan)
    half = t_quantile(spread.degrees) * float(np.sqrt(spread.mean_square))
    return Interval(estimate, estimate - half, estimate + half)


def gradient(function: Callable[[Floats], float], at: Floats, step: float = 1e-4) -> Floats:
    """Central differences of a function of a vector."""
    found = np.empty_like(at)
    for i in range(len(at)):
        moved = np.zeros_like(at)
        moved[i] = step
        found[i] = (function(at + moved) - function(at - moved)) / (2 * step)
    return found
