"""How cost grows along one axis: a fixed part, a power of x, and steps where a cache or another kernel begins.

    t = fixed + scale · x^power · exp(Σ jump_k · [x > at_k])

The fixed part is what does not grow, whatever the growth is; steps are found by a segmented fit with a penalty.

Where launching and arithmetic overlap, as on an accelerator, cost is nearer to the larger of the two than to their sum:

    t^k = fixed^k + (scale · x^power)^k

with a *sharpness* k from 1, the sum, to ``SHARPEST``, all but the larger of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import least_squares

from analysis.statistics import Floats

POWERS = (0.2, 2.5)
#: Sharpnesses a knee may have, and those the search for it starts from.
SHARPEST = 8.0
STARTS = (1.0, 2.0, 4.0, 8.0)
#: With fewer cells a knee's sharpness cannot be told as well as its place.
LEAST_FOR_KNEE = 5
#: Cells on either side of a step; with fewer, a step cannot be told from a wild cell.
LEAST_BESIDE = 3
MOST_STEPS = 2
#: A step must change cost by as much to be one.
LEAST_JUMP = np.log(1.1)


@dataclass(frozen=True)
class Growth:
    """t^k = fixed^k + (scale · x^power)^k, seconds, with k = ``sharpness``."""

    fixed: float
    scale: float
    power: float
    sharpness: float = 1.0

    def at(self, x: Floats) -> Floats:
        """Seconds at x."""
        k = self.sharpness
        return np.asarray((self.fixed**k + (self.scale * x**self.power) ** k) ** (1 / k))

    def where(self, share: float) -> float:
        """The x at which the fixed part is ``share`` of the cost: (scale · x^power)^k = fixed^k · (share^-k - 1)."""
        return self._where_beyond((1 / share**self.sharpness - 1) ** (1 / self.sharpness))

    @property
    def crossover(self) -> float:
        """The x at which what grows is as much as what is fixed."""
        return self._where_beyond(1.0)

    def _where_beyond(self, multiple: float) -> float:
        """The x at which what grows is a multiple of what is fixed."""
        if self.fixed <= 0 or self.scale <= 0:
            return 0.0 if self.scale > 0 else np.inf
        with np.errstate(over="ignore"):
            return float(np.power(self.fixed * multiple / self.scale, 1 / self.power))


def fit(x: Floats, times: Floats, sharpness: float = 1.0) -> Growth:
    """Least relative error of t^k, Σ (t̂^k / t^k - 1)², with fixed and scale not negative.

    Three points cannot tell the power too: they are taken for growth in proportion, which at worst calls for more cells.
    For a given power the best fixed and scale are known in closed form, so only the power is searched: a grid, refined
    around its best point until it is known to 1e-8.
    """
    if len(x) < 3:
        return Growth(0.0, float(np.mean(times / x)), 1.0, sharpness)
    top, k = x.max(), sharpness
    low, high = POWERS if len(x) > 3 else (1.0, 1.0)
    for _ in range(8 if high > low else 1):
        grid = np.linspace(low, high, 21)
        fixed, scale, cost = _best_parts(x / top, times**k, grid * k)
        best = int(np.argmin(cost))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    fixed, scale = fixed ** (1 / k), scale ** (1 / k)
    return Growth(float(fixed[best]), float(scale[best] / top ** grid[best]), float(grid[best]), k)


def knee(x: Floats, times: Floats) -> Growth:
    """The same with the sharpness fitted too, by least squares of log t from the best of a few starts.

    With too few cells, or no fixed part, it is ``fit``.
    """
    starts = [fit(x, times, k) for k in (STARTS if len(x) >= LEAST_FOR_KNEE else STARTS[:1])]
    best = min(starts, key=lambda found: float(np.sum(np.log(found.at(x) / times) ** 2)))
    if len(starts) == 1 or best.fixed <= 0 or best.scale <= 0:
        return best
    log_x, log_t = np.log(x / x.max()), np.log(times)
    start = [np.log(best.fixed), np.log(best.at(x.max() * np.ones(1))[0]), best.power, np.log(best.sharpness)]
    bounds = ([-np.inf, -np.inf, POWERS[0], 0.0], [np.inf, np.inf, POWERS[1], np.log(SHARPEST)])
    inside = np.clip(start, np.array(bounds[0]) + 1e-6, np.array(bounds[1]) - 1e-6)

    def residuals(at: Floats) -> Floats:
        return _soft_knee(at, log_x)[0] - log_t

    def jacobian(at: Floats) -> Floats:
        return _soft_knee(at, log_x)[1]

    found = least_squares(
        residuals,
        inside,
        jac=jacobian,
        bounds=bounds,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    ).x
    fixed, level, power, log_k = map(float, found)
    return Growth(float(np.exp(fixed)), float(np.exp(level) / x.max() ** power), power, float(np.exp(log_k)))


def _soft_knee(at: Floats, log_x: Floats) -> tuple[Floats, Floats]:
    """A knee, log(e^(k·fixed) + e^(k·(level + power·log x))) / k, and its derivatives by fixed, level, power and log k."""
    fixed, level, power, log_k = at
    k, grown = np.exp(log_k), level + power * log_x
    joined = np.logaddexp(k * fixed, k * grown)
    share = np.exp(k * grown - joined)
    by_log_k = (1 - share) * fixed + share * grown - joined / k
    return joined / k, np.column_stack([1 - share, share, share * log_x, by_log_k])


def _best_parts(x: Floats, times: Floats, powers: Floats) -> tuple[Floats, Floats, Floats]:
    """Of a·fixed + b·scale ≈ 1 with a = 1/t and b = x^power/t: the non-negative solution for every power."""
    a = 1 / times
    b = x ** powers[:, None] * a
    aa, ab, bb, sa, sb = a @ a, b @ a, (b * b).sum(axis=1), a.sum(), b.sum(axis=1)
    determinant = aa * bb - ab**2
    safe = np.where(determinant > 1e-12 * aa * bb, determinant, np.inf)
    fixed, scale = (sa * bb - sb * ab) / safe, (sb * aa - sa * ab) / safe
    no_fixed, no_scale = fixed <= 0, scale <= 0
    fixed, scale = np.where(no_fixed, 0.0, fixed), np.where(no_scale, 0.0, scale)
    scale = np.where(no_fixed, sb / bb, scale)
    fixed = np.where(no_scale & ~no_fixed, sa / aa, fixed)
    cost = ((fixed[:, None] * a + scale[:, None] * b - 1) ** 2).sum(axis=1)
    return fixed, scale, cost


def steps(log_x: Floats, log_t: Floats, noise: float) -> tuple[float, ...]:
    """Where log t jumps off a straight line in log x: the x (log) between cells, at most ``MOST_STEPS`` of them.

    Every choice of steps is fitted; a step costs the criterion N log(RSS / N + noise²) + 3 log N for each, twice its place
    and once its height (Zhang & Siegmund 2007, *Biometrics* 63:22).  ``noise`` is the standard error of a cell, which keeps
    a perfect line from being cut up for nothing.
    """
    order = np.argsort(log_x)
    x, y = log_x[order], log_t[order]
    count = len(x)
    gaps = [(x[i - 1] + x[i]) / 2 for i in range(LEAST_BESIDE, count - LEAST_BESIDE + 1) if x[i] > x[i - 1]]
    chosen: tuple[float, ...] = ()
    best = _criterion(x, y, chosen, noise)
    for number in range(1, MOST_STEPS + 1):
        if count < 2 * LEAST_BESIDE + 1 + 2 * (number - 1):
            break
        for places in combinations(gaps, number):
            found = _criterion(x, y, places, noise)
            if found < best and np.all(np.abs(_jumps(x, y, places)) >= LEAST_JUMP):
                best, chosen = found, places
    return tuple(map(float, chosen))


def _columns(x: Floats, places: tuple[float, ...]) -> Floats:
    return np.column_stack([np.ones_like(x), x, *[(x > place).astype(float) for place in places]])


def _jumps(x: Floats, y: Floats, places: tuple[float, ...]) -> Floats:
    return np.asarray(np.linalg.lstsq(_columns(x, places), y)[0][2:])


def _criterion(x: Floats, y: Floats, places: tuple[float, ...], noise: float) -> float:
    columns = _columns(x, places)
    residuals = y - columns @ np.linalg.lstsq(columns, y)[0]
    mean_square = float(residuals @ residuals) / len(x) + noise**2 + 1e-12
    return len(x) * float(np.log(mean_square)) + 3 * len(places) * float(np.log(len(x)))
