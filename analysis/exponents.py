"""Exponents of n, m and p with intervals that reflect how passes differ and how straight the line is.

An exponent is the slope of log(t - t0) on log x along the axis that moves x alone, over the cells where the fixed part t0
is at most ``OVERHEAD_SHARE`` of the cost.  t0 is fitted along the whole axis with the power left free (``analysis.growth``),
so that growth of any power is left as it is; steps (a cache, another kernel) that a penalised fit finds get a level of
their own.  The range that remains is reported, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import growth
from analysis.cells import on_axis
from analysis.growth import Growth
from analysis.load import on_accelerator
from analysis.statistics import Bools, Floats, Interval, Spread, gradient, tamed, two_way_interval

OVERHEAD_SHARE = 0.2
LEAST_POINTS = 3
LEAST_SPAN = 4.0
#: What is left of a time without its fixed part is at least this share of it: beyond, its logarithm is all noise.
LEAST_REST = 0.02

#: Which axes move which variable, and which variable that is.
AXES = {
    "n": (("examples",), "n"),
    "m": (("depth", "width"), "m"),
    "p": (("activation",), "p"),
    "m_depth": (("depth",), "m"),
    "m_width": (("width",), "m"),
}


@dataclass(frozen=True, eq=False)
class Line:
    """The cells of one axis in the order of x: ``x`` (cells,), log times ``logs`` (cells, passes; NaN where not measured).

    ``sharpness`` says how the fixed part and what grows are joined (``analysis.growth``): None for their sum, a number on an
    accelerator, where they overlap.  ``fixed`` is a fixed part known from elsewhere; None: fitted along this axis.  ``kept``
    are the cells past overhead, ``places`` (log x) the steps found among them.
    """

    axis: str
    cells: pd.DataFrame  # one row a cell: what predicts needs
    x: Floats
    logs: Floats
    fixed: float | None = None
    kept: tuple[bool, ...] = ()
    places: tuple[float, ...] = ()
    sharpness: float | None = None

    @property
    def means(self) -> Floats:
        """Mean over passes of the log time of each cell, wild passes pulled in."""
        return np.asarray(np.nanmean(tamed(self.logs), axis=1))

    @property
    def joined(self) -> float:
        """The sharpness as a number."""
        return 1.0 if self.sharpness is None else self.sharpness

    def fixed_part(self, logs: Floats) -> float:
        """Seconds that do not grow along this axis, for log times (cells,)."""
        return growth.fit(self.x, np.exp(logs), self.joined).fixed if self.fixed is None else self.fixed

    def grown(self, logs: Floats) -> Growth:
        """How cost grows along this axis, for log times (cells,): with a knee of any sharpness on an accelerator."""
        return (growth.fit if self.sharpness is None else growth.knee)(self.x, np.exp(logs))


@dataclass(frozen=True, eq=False)
class Exponent:
    """An exponent and its 95 % interval over the range used; None where ``reason`` says why there is none."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    range_low: float | None
    range_high: float | None
    points: int
    reason: str
    steps: tuple[
        tuple[float, float], ...
    ] = ()  # x at which a step in cost was found, and the ratio of the price beyond
    lines: tuple[Line, ...] = ()  # what it was estimated from
    by_cell: Floats | None = None  # its gradient by the mean log time of every cell of the lines

    def of(self, predict: Callable[[pd.DataFrame], Floats]) -> float | None:
        """The same estimate of times that a law predicts for the same cells; None where there was none."""
        return slope(self.lines, _predicted(self.lines, predict)) if self.lines else None

    def against(self, predict: Callable[[pd.DataFrame], Floats]) -> Interval | None:
        """Measured minus predicted exponent with its 95 % interval; None where there was no estimate.

        How far cells lie off a straight line does not count here, only how far off the law's own curve.
        """
        if self.by_cell is None:
            return None
        logs = _aligned([tamed(line.logs) for line in self.lines])
        means, expected = np.nanmean(logs, axis=1), _predicted(self.lines, predict)
        columns, z, root = _system(self.lines, means)
        z = z - _system(self.lines, expected)[1]
        solution = np.linalg.lstsq(columns * root[:, None], z * root)[0]
        about = _about(columns, z, root, np.asarray(solution, float))
        return two_way_interval(float(solution[0]), self.by_cell, logs, about)


def missing(reason: str, points: int = 0) -> Exponent:
    """No exponent, and why."""
    return Exponent(None, None, None, None, None, points, reason)


def exponents(
    entries: pd.DataFrame, claimed: Mapping[str, float], counts: Callable[[pd.DataFrame], Bools] | None = None
) -> dict[str, Exponent]:
    """All exponents of one group's rows (one row a cell and pass).  ``claimed`` says which are expected to be 0; of cells
    past overhead only those that ``counts`` says are used.
    """
    lines = {axis: line(entries, axis, variable) for axes, variable in AXES.values() for axis in axes}
    return {name: _exponent(lines, name, claimed.get(name[0]), counts) for name in AXES}


def exponent(entries: pd.DataFrame, name: str, claimed: float | None) -> Exponent:
    """One exponent of one group's rows."""
    return exponents(entries, {} if claimed is None else {name[0]: claimed})[name]


def _exponent(
    lines: Mapping[str, Line],
    name: str,
    claimed: float | None,
    counts: Callable[[pd.DataFrame], Bools] | None = None,
) -> Exponent:
    """Where 0 is claimed nothing is fixed overhead: that it does not grow is the claim."""
    axes, variable = AXES[name]
    known = 0.0 if claimed == 0 else _fixed_of_examples(lines["examples"]) if name == "p" else None
    source = lines["examples"] if name == "p" and claimed != 0 else None
    joined = lines["examples"].sharpness if name == "p" else None
    found = [replace(lines[axis], fixed=known, sharpness=joined or lines[axis].sharpness) for axis in axes]
    return _of_lines([_past_overhead(part, counts) for part in found], axes, variable, source)


def of_axis(entries: pd.DataFrame, axis: str, variable: str) -> Exponent:
    """The exponent along any one axis, in the column ``variable``; its fixed part is fitted along it."""
    return _of_lines([_past_overhead(line(entries, axis, variable))], (axis,), variable, None)


def _of_lines(found: Sequence[Line], axes: Sequence[str], variable: str, source: Line | None) -> Exponent:
    """Common to lines of which the cells past overhead are known."""
    used = [part for part in found if sum(part.kept) >= 2]
    if not used:
        return _none_past(found, axes)
    x = np.concatenate([part.x[list(part.kept)] for part in used])
    points = len(x)
    if points < LEAST_POINTS or x.max() / x.min() < LEAST_SPAN:
        if len(set(np.concatenate([part.x for part in found]).tolist())) == 1:
            return missing(f"its axis has one value of {variable} only", points)
        return missing(
            f"{points} cells past fixed overhead, {variable} from {x.min():,.0f} to {x.max():,.0f}: too few to tell",
            points,
        )
    return _estimate([_with_steps(part) for part in used], points, source)


def line(entries: pd.DataFrame, axis: str, variable: str, fixed: float | None = None) -> Line:
    """The cells of an axis, in the order of ``variable``, each with its passes."""
    rows = on_axis(entries, axis).sort_values([variable, "pass"], kind="stable")
    cell, _ = pd.factorize(
        pd.Series(list(zip(rows["layers"], rows["activation"], rows["n"], strict=True)), dtype=object)
    )
    number, _ = pd.factorize(rows["pass"], sort=True)
    logs = np.full((cell.max(initial=-1) + 1, number.max(initial=-1) + 1), np.nan)
    logs[cell, number] = np.log(rows["time_s"].to_numpy(float))
    cells = rows.iloc[np.unique(cell, return_index=True)[1]]
    found = Line(axis, cells, cells[variable].to_numpy(float), logs, fixed)
    return replace(found, sharpness=growth.knee(found.x, np.exp(found.means)).sharpness) if _overlaps(cells) else found


def _overlaps(cells: pd.DataFrame) -> bool:
    """Whether these are times on an accelerator, which computes while the host launches what comes next."""
    if not len(cells) or "device" not in cells or cells["phase"].iloc[0] == "memory":
        return False
    return on_accelerator(str(cells["device"].iloc[0]))


def _fixed_of_examples(examples: Line) -> float:
    """Along the activation axis the overhead is that of the examples axis: the products are none there, since the claim
    is that p multiplies the whole cost.
    """
    return examples.fixed_part(examples.means) if len(examples.x) else 0.0


def _past_overhead(found: Line, counts: Callable[[pd.DataFrame], Bools] | None = None) -> Line:
    if not len(found.x):
        return found
    means = found.means
    past = found.fixed_part(means) <= OVERHEAD_SHARE * np.exp(means)
    if counts is not None:
        past &= counts(found.cells)
    return replace(found, kept=tuple(bool(k) for k in past))


def _none_past(lines: Sequence[Line], axes: Sequence[str]) -> Exponent:
    axis = " and ".join(axes)
    if not any(len(found.x) for found in lines):
        return missing(f"the {axis} axis was not measured")
    count = max(sum(found.kept) for found in lines)
    past = f"only {count} of its cells" if count else "none of its cells"
    return missing(f"{past} past fixed overhead, where that is at most {OVERHEAD_SHARE:.0%} of the time", count)


def _with_steps(found: Line) -> Line:
    """Steps among the kept cells, judged against the standard error of a cell."""
    kept = list(found.kept)
    fixed = found.fixed_part(found.means)
    rest = _log_rest(np.exp(found.means[kept]), fixed, found.joined)
    logs = tamed(found.logs)[kept]
    away = logs - np.nanmean(logs, axis=1, keepdims=True)
    passes = logs.shape[1]
    noise = float(np.sqrt(np.nanmean(away**2) / max(passes - 1, 1))) if passes > 1 else 0.0
    return replace(found, places=growth.steps(np.log(found.x[kept]), rest, noise))


def _log_rest(times: Floats, fixed: float, k: float) -> Floats:
    """Without its fixed part: log (t^k - t0^k)^(1/k)."""
    return np.asarray(np.log(np.maximum(times**k - fixed**k, LEAST_REST * times**k)) / k)


def slope(lines: Sequence[Line], logs: Floats) -> float:
    """Common slope over the lines, for log times of all their cells one after the other."""
    columns, z, root = _system(lines, logs)
    return float(np.linalg.lstsq(columns * root[:, None], z * root)[0][0])


def _system(lines: Sequence[Line], logs: Floats) -> tuple[Floats, Floats, Floats]:
    """log(t - t0) = slope·log x + a level for every line and step; weights are those of log t's own noise.

    d log(t - t0) = d log t / (1 - share), so a cell counts with (1 - share)²; likewise with t^k - t0^k and share^k.
    """
    parts, values, roots = [], [], []
    start = 0
    for found in lines:
        part = logs[start : start + len(found.x)]
        start += len(found.x)
        kept = list(found.kept)
        fixed, times = found.fixed_part(part), np.exp(part[kept])
        x = np.log(found.x[kept])
        parts.append(np.column_stack([x, np.ones_like(x), *[(x > place).astype(float) for place in found.places]]))
        values.append(_log_rest(times, fixed, found.joined))
        roots.append(np.maximum(1 - (fixed / times) ** found.joined, LEAST_REST))
    width = 1 + sum(part.shape[1] - 1 for part in parts)
    columns = np.zeros((sum(len(part) for part in parts), width))
    row, column = 0, 1
    for part in parts:
        columns[row : row + len(part), 0] = part[:, 0]
        columns[row : row + len(part), column : column + part.shape[1] - 1] = part[:, 1:]
        row, column = row + len(part), column + part.shape[1] - 1
    return columns, np.concatenate(values), np.concatenate(roots)


def _estimate(lines: Sequence[Line], points: int, source: Line | None) -> Exponent:
    """Over the lines; ``source`` is the axis their fixed part was fitted along, where that was another one."""
    lines = tuple(lines)
    logs = _aligned([tamed(found.logs) for found in lines])
    means = np.nanmean(logs, axis=1)
    value = slope(lines, means)
    columns, z, root = _system(lines, means)
    solution = np.linalg.lstsq(columns * root[:, None], z * root)[0]
    about = _about(columns, z, root, np.asarray(solution, float))
    by_cell = gradient(lambda at: slope(lines, at), means)
    if source is not None:
        further = _variance_of_fixed(lines, means, source) / float(by_cell @ by_cell)
        about = Spread(about.mean_square + further, about.degrees)
    found = two_way_interval(value, by_cell, logs, about)
    x = np.concatenate([part.x[list(part.kept)] for part in lines])
    passes = int((~np.isnan(logs)).any(axis=0).sum())
    known = bool(np.isfinite(found.low))
    reason = f"{points} cells past fixed overhead, {passes} pass{'es' if passes > 1 else ''}"
    if not known:
        reason += ": too few for an interval"
    return Exponent(
        value,
        found.low if known else None,
        found.high if known else None,
        float(x.min()),
        float(x.max()),
        points,
        reason,
        _steps_of(lines, np.asarray(solution, float)),
        lines,
        by_cell,
    )


def _about(columns: Floats, z: Floats, root: Floats, solution: Floats) -> Spread:
    """Scatter of the cells about the lines of a system."""
    residuals = (z - columns @ solution) * root
    degrees = len(z) - columns.shape[1]
    return Spread(float(residuals @ residuals) / max(degrees, 1), degrees)


def _predicted(lines: Sequence[Line], predict: Callable[[pd.DataFrame], Floats]) -> Floats:
    """Log times a law predicts for all cells of the lines."""
    return np.concatenate([np.log(np.maximum(predict(line.cells), 1e-300)) for line in lines])


def _variance_of_fixed(lines: Sequence[Line], means: Floats, source: Line) -> float:
    """Variance of the slope for what the fixed part, fitted along another axis, leaves open: the scatter of that axis'
    cells about its curve, times how the slope moves with them.
    """
    at = source.means
    if len(at) <= 3:
        return 0.0
    fitted = growth.fit(source.x, np.exp(at), source.joined)
    residuals = fitted.at(source.x) / np.exp(at) - 1
    moved = gradient(lambda y: slope([replace(part, fixed=source.fixed_part(y)) for part in lines], means), at)
    return float(residuals @ residuals) / (len(at) - 3) * float(moved @ moved)


def _steps_of(lines: Sequence[Line], solution: Floats) -> tuple[tuple[float, float], ...]:
    """Where the steps are, and exp of their heights: the solution holds the slope, then each line's level and steps."""
    found, at = [], 1
    for part in lines:
        for i, place in enumerate(part.places, start=at + 1):
            found.append((float(np.exp(place)), float(np.exp(solution[i]))))
        at += 1 + len(part.places)
    return tuple(found)


def _aligned(tables: Sequence[Floats]) -> Floats:
    """Passes of several lines side by side: the same processes measured them."""
    passes = max(table.shape[1] for table in tables)
    padded = [np.pad(table, ((0, 0), (0, passes - table.shape[1])), constant_values=np.nan) for table in tables]
    return np.vstack(padded)


def interval_along(line: Line, fitted: Growth, log_of: Callable[[Floats], float]) -> Interval:
    """A quantity of the growth ``fitted`` along a line, with its 95 % interval; ``log_of`` tells the quantity's log from the
    cells' log times.
    """
    return plain_interval_along(line, fitted, log_of).exp()


def plain_interval_along(line: Line, fitted: Growth, function: Callable[[Floats], float]) -> Interval:
    """The same of a quantity that is no factor."""
    logs = tamed(line.logs)
    means = np.nanmean(logs, axis=1)
    residuals = fitted.at(line.x) / np.exp(means) - 1
    degrees = len(line.x) - (3 if line.sharpness is None else 4)
    about = Spread(float(residuals @ residuals) / max(degrees, 1), degrees)
    return two_way_interval(function(means), gradient(function, means), logs, about)


def along(entries: pd.DataFrame, axis: str, variable: str) -> tuple[Line, Growth] | None:
    """The cells of an axis and how they grow; None where it has fewer than three."""
    found = line(entries, axis, variable)
    return (found, found.grown(found.means)) if len(found.x) >= 3 else None
