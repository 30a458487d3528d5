"""Exponents of n, m and p with intervals that reflect how passes differ and how straight the line is.

An exponent is the slope of log time on log x along the axis that moves x alone.  It means something only where cost
has left the fixed overhead, so cells whose overhead is more than ``OVERHEAD_SHARE`` of their time are not used; which
remain is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares, nnls

from analysis.cells import on_axis
from analysis.statistics import Floats, pooled_slope, t_quantile

OVERHEAD_SHARE = 0.2
LEAST_POINTS = 3
LEAST_SPAN = 4.0

#: Which axes move which variable, and which variable that is.
AXES = {
    "n": (("examples",), "n"),
    "m": (("depth", "width"), "m"),
    "p": (("activation",), "p"),
    "m_depth": (("depth",), "m"),
    "m_width": (("width",), "m"),
}


@dataclass(frozen=True)
class Exponent:
    """An exponent and its 95 % interval over the range used; None where ``reason`` says why there is none."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    range_low: float | None
    range_high: float | None
    points: int
    reason: str


def missing(reason: str, points: int = 0) -> Exponent:
    """No exponent, and why."""
    return Exponent(None, None, None, None, None, points, reason)


def exponents(entries: pd.DataFrame, claimed: dict[str, float]) -> dict[str, Exponent]:
    """All exponents of one group's rows (one row a cell and pass).  ``claimed`` says which are expected to be 0."""
    return {name: exponent(entries, name, claimed[name[0]]) for name in AXES}


def exponent(entries: pd.DataFrame, name: str, claimed: float) -> Exponent:
    """One exponent of one group's rows."""
    axes, variable = AXES[name]
    parts = [_usable(entries, axis, variable, claimed) for axis in axes]
    kept = [part for part in parts if part["point"].nunique() >= (1 if claimed == 0 else 2)]
    if not kept:
        found = max((part["point"].nunique() for part in parts), default=0)
        axis = " and ".join(axes)
        if all(on_axis(entries, a).empty for a in axes):
            return missing(f"the {axis} axis was not measured")
        past = f"only {found} of its cells" if found else "none of its cells"
        return missing(f"{past} past fixed overhead, where that is at most {OVERHEAD_SHARE:.0%} of the time", found)
    used = pd.concat([part.assign(group=i) for i, part in enumerate(kept)])
    points = used["point"].nunique()
    low, high = float(used["x"].min()), float(used["x"].max())
    if points < LEAST_POINTS or high / low < LEAST_SPAN:
        return missing(
            f"{points} cells past fixed overhead, {variable} from {low:,.0f} to {high:,.0f}: too few to tell", points
        )
    return _estimate(used, points, low, high)


def _usable(entries: pd.DataFrame, axis: str, variable: str, claimed: float) -> pd.DataFrame:
    """Rows of an axis past the overhead, with columns x, log_x, log_t, point and pass."""
    rows = on_axis(entries, axis)
    rows = rows.assign(
        x=rows[variable].astype(float), point=rows["layers"] + rows["activation"] + rows["n"].astype(str)
    )
    if rows.empty:
        return rows.assign(log_x=[], log_t=[])
    if claimed != 0:
        rows = rows[rows["point"].isin(_past_overhead(entries, rows, axis))]
    return rows.assign(log_x=np.log(rows["x"]), log_t=np.log(rows["time_s"]))


def _past_overhead(entries: pd.DataFrame, rows: pd.DataFrame, axis: str) -> set[str]:
    """Points whose fixed overhead is a small share of their time.

    Along the activation axis the overhead is that of the examples axis: the products are no overhead there, since the
    claim is that p multiplies the whole cost.
    """
    source = on_axis(entries, "examples") if axis == "activation" else rows
    if source.empty:
        return set(rows["point"])
    variable = "n" if axis in ("activation", "examples") else "m"
    mean = source.assign(x=source[variable]).groupby("x")["time_s"].mean()
    fixed = fixed_overhead(mean.index.to_numpy(float), mean.to_numpy(float))
    times = rows.groupby("point")["time_s"].mean()
    return set(times.index[fixed <= OVERHEAD_SHARE * times])


def fixed_overhead(x: Floats, times: Floats) -> float:
    """t0 of t = t0 + s·x^β, fitted to relative errors with β free: what does not grow, whatever the growth is.

    Three points cannot tell β too; they are taken for growth in proportion (β = 1), which at worst calls for more cells.
    """
    if len(x) < 3:
        return 0.0
    if len(x) == 3:
        return float(nnls(np.column_stack([np.ones_like(x), x]) / times[:, None], np.ones_like(times))[0][0])
    scaled = x / x.max()

    def residuals(parameters: Floats) -> Floats:
        fixed, slope, beta = parameters
        return np.asarray((np.exp(fixed) + np.exp(slope) * scaled**beta) / times - 1)

    starts = [
        (np.log(times.min() * share), np.log(times.max()), beta) for share in (0.01, 0.9) for beta in (0.6, 1.0, 1.5)
    ]
    bounds = (np.log([times.min() * 1e-6, times.max() * 1e-6, 1]), np.log([times.max(), times.max() * 10, 1]))
    lower = np.array([bounds[0][0], bounds[0][1], 0.2])
    upper = np.array([bounds[1][0], bounds[1][1], 2.5])
    fits = [least_squares(residuals, np.clip(start, lower, upper), bounds=(lower, upper)) for start in starts]
    return float(np.exp(min(fits, key=lambda fit: fit.cost).x[0]))


def _estimate(used: pd.DataFrame, points: int, low: float, high: float) -> Exponent:
    """Mean over passes of the slope, with the wider of two intervals.

    * between passes: t-interval over the passes' slopes (memory layout, clock: what a fresh process changes);
    * along the line: the usual regression interval over the cells' means (cache steps, bends: what a few cells of one
      axis cannot tell from a trend).
    With one pass only the second is there, and it needs four cells.
    """
    slopes = np.array(
        [
            pooled_slope(*(part[c].to_numpy() for c in ("log_x", "log_t", "group")))[0]
            for _, part in used.groupby("pass")
            if part["point"].nunique() == points
        ]
    )
    means = used.groupby(["group", "point"], as_index=False)[["log_x", "log_t"]].mean()
    slope, residuals = pooled_slope(*(means[c].to_numpy() for c in ("log_x", "log_t", "group")))
    halves = []
    if len(slopes) >= 2:
        slope = float(slopes.mean())
        halves.append(t_quantile(len(slopes) - 1) * float(slopes.std(ddof=1)) / np.sqrt(len(slopes)))
    degrees = len(means) - means["group"].nunique() - 1
    if degrees >= 1 and (len(slopes) >= 2 or points >= 4):
        centred = (means["log_x"] - means.groupby("group")["log_x"].transform("mean")).to_numpy(float)
        error = float(np.sqrt(residuals @ residuals / degrees / (centred @ centred)))
        halves.append(t_quantile(degrees) * error)
    if not halves:
        return Exponent(slope, None, None, low, high, points, "one pass and three cells give no interval")
    half = max(halves)
    reason = f"{points} cells past fixed overhead, {max(len(slopes), 1)} passes"
    return Exponent(slope, slope - half, slope + half, low, high, points, reason)
