"""How cost grows along one axis: a fixed part, a power of x, and steps where a cache or another kernel begins.

    t = fixed + scale · x^power · exp(Σ jump_k · [x > at_k])

The fixed part is what does not grow, whatever the growth is; steps are found by a segmented fit with a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.statistics import Floats

POWERS = (0.2, 2.5)
#: Cells on either side of a step; with fewer, a step cannot be told from a wild cell.
LEAST_BESIDE = 3
MOST_STEPS = 2
#: A step must change cost by as much to be one.
LEAST_JUMP = np.log(1.1)


@dataclass(frozen=True)
class Growth:
    """t = fixed + scale · x^power, seconds."""

    fixed: float
    scale: float
    power: float

    def at(self, x: Floats) -> Floats:
        """Seconds at x."""
        return np.asarray(self.fixed + self.scale * x**self.power)

    def where(self, share: float) -> float:
        """The x at which the fixed part is ``share`` of the cost: scale · x^power = fixed · (1 / share - 1)."""
        if self.fixed <= 0 or self.scale <= 0:
            return 0.0 if self.scale > 0 else np.inf
        return float((self.fixed * (1 / share - 1) / self.scale) ** (1 / self.power))


def fit(x: Floats, times: Floats) -> Growth:
    """Least relative error, Σ (t̂ / t - 1)², with fixed and scale not negative.

    Three points cannot tell the power too: they are taken for growth in proportion, which at worst calls for more cells.
    For a given power the best fixed and scale are known in closed form, so only the power is searched: a grid, refined
    around its best point until it is known to 1e-8.
    """
    if len(x) < 3:
        return Growth(0.0, float(np.mean(times / x)), 1.0)
    top = x.max()
    low, high = POWERS if len(x) > 3 else (1.0, 1.0)
    for _ in range(8 if high > low else 1):
        grid = np.linspace(low, high, 21)
        fixed, scale, cost = _best_parts(x / top, times, grid)
        best = int(np.argmin(cost))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return Growth(float(fixed[best]), float(scale[best] / top ** grid[best]), float(grid[best]))


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
