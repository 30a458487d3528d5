"""What was measured of workloads, by workload and implementation: cells, growth along every axis, and the laws fitted.

Laws come with the rows, as text: a workload states its own before it is measured.  Candidates are n·m·p (of which n·m is
left, since p is the same at all sizes of a workload), the workload's short product where it has one (n·m·T), products
counted exactly (the reuse law), and the workload's own.  Fits see no held-out cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import exponents, expressions, laws
from analysis.experiments.found import Found, undisturbed
from analysis.exponents import OVERHEAD_SHARE, Exponent
from analysis.hypotheses import Law, law_of
from analysis.laws import LawFit, Parts
from analysis.load import ITEMSIZE, cache_bytes
from analysis.statistics import (
    Floats,
    Interval,
    Spread,
    gradient,
    moderated_intervals,
    t_quantile,
    tamed,
    two_way_interval,
)
from analysis.verdicts import Word, within
from backprop_files import UserError

#: Names of laws: the article's, and the workload's own; others are the workload's affair.
ARTICLE, OWN, REUSE = "n·m·p", "own", "reuse"


@dataclass(frozen=True, eq=False)
class Along:
    """How time grows along one axis: the exponent in ``variable``, what was predicted of it (None: no power was), and how
    much larger it is than that of n·m, and than that of the workload's own law, fitted, over the same cells.
    """

    axis: str
    size: str
    variable: str
    predicted: float | None
    exponent: Exponent
    beyond_nm: Interval | None
    beyond_own: Interval | None

    @property
    def word(self) -> Word:
        """Whether time grows along this axis as the workload's own law says.

        Its terms grow differently, and seldom as one power of ``variable``, so the law is asked about the same cells.
        """
        return within(self.beyond_own, 0.0)

    @property
    def word_of_nm(self) -> Word:
        """Whether time grows along this axis as n·m does."""
        return within(self.beyond_nm, 0.0)


@dataclass(frozen=True, eq=False)
class Series:
    """One workload by one implementation.

    ``entries`` have a row for each cell and pass, ``cells`` one for each cell: ``layers`` (the sizes in words), ``time_s``,
    ``peak_bytes``, and a column for each variable that laws may name.
    """

    impl: str
    workload: str
    stated: Mapping[str, Any]
    entries: pd.DataFrame
    cells: pd.DataFrame
    along: tuple[Along, ...]
    fits: tuple[LawFit, ...]
    memory: tuple[LawFit, ...]

    @property
    def best(self) -> LawFit | None:
        """The law of time that wins."""
        return laws.best(self.fits) if self.fits else None

    @property
    def best_memory(self) -> LawFit | None:
        """The law of memory that wins."""
        return laws.best(self.memory) if self.memory else None

    def fit(self, name: str) -> LawFit | None:
        """One of the candidates; None where there were too few cells for it."""
        return next((fit for fit in self.fits if fit.law.name == name), None)

    @cached_property
    def middle(self) -> pd.Series | None:
        """The cell at the usual sizes."""
        there = self.cells[self.cells["layers"] == told(self.stated["middle"])]
        return there.iloc[0] if len(there) else None

    @cached_property
    def past_overhead(self) -> NDArray[np.bool_]:
        """Of every cell, whether its time goes to what grows with n, all but ``OVERHEAD_SHARE`` of it, by the own law."""
        fit = self.fit(OWN) or self.best
        if fit is None:
            return np.zeros(len(self.cells), np.bool_)
        parts = fit.law.design(self.cells) * np.array(fit.coefficients)
        grows = np.array(["n" in term.names for term in fit.law.terms])
        return np.asarray(parts[:, ~grows].sum(axis=1) <= OVERHEAD_SHARE * parts.sum(axis=1))

    @property
    def reuse(self) -> Floats:
        """How often each weight is used for an example: products, forward and backward, over 3m."""
        return (self.cells["products"] / (3 * self.cells["m"])).to_numpy(float)

    @property
    def per_nm(self) -> Floats:
        """Seconds for each example and parameter."""
        return (self.cells["time_s"] / (self.cells["n"] * self.cells["m"])).to_numpy(float)

    @property
    def share_of_ceiling(self) -> Floats:
        """Two operations for each product of the step, over time and the best rate of a matrix product; NaN where unknown."""
        done = 2 * self.cells["n"] * self.cells["products"] / self.cells["time_s"]
        return (done / self.cells["ceiling_flops"]).to_numpy(float)


def series(found: Found) -> list[Series]:
    """One for each workload and implementation measured, workloads first.  Raises UserError for laws that cannot be read."""
    entries = _entries(found)
    if not len(entries):
        return []
    stated = {row["workload"]: row["stated"] for row in found.rows}
    machine = _machine(found)
    made = []
    for workload in entries["workload"].unique():
        rows, names = _with_variables(entries[entries["workload"] == workload], machine, stated[workload])
        made += [
            _series(impl, str(workload), stated[workload], rows[rows["impl"] == impl], names)
            for impl in found.impls
            if (rows["impl"] == impl).any()
        ]
    return made


def told(sizes: Mapping[str, int]) -> str:
    """Sizes in words: ``n=32 T=64``."""
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def _entries(found: Found) -> pd.DataFrame:
    """A row for each cell and pass that counts.  The ceiling is the best of all implementations' usual ones."""
    rows = [row for row in found.rows if "cannot" not in row]
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(
        {
            "impl": [row["impl"] for row in rows],
            "workload": [row["workload"] for row in rows],
            "pass": [row["pass"] for row in rows],
            "layers": [told(row["sizes"]) for row in rows],  # what the tools for exponents know a cell by
            "activation": "",
            "axis": [",".join(row["on"]) for row in rows],
            "heldout": [bool(row["heldout"]) for row in rows],
            "quiet": [row["quiet"] for row in rows],
            "time_s": [found.seconds(row) for row in rows],
            "peak_bytes": pd.to_numeric(pd.Series([row.get("peak_bytes") for row in rows])),
            "ceiling_flops": pd.to_numeric(pd.Series([row["ceiling_flops"] for row in rows])),
            "first_call_s": [row["first_call_s"] for row in rows],
            "sizes": [row["sizes"] for row in rows],
            "columns": [row["columns"] for row in rows],
        }
    )
    cell = ["impl", "workload", "layers"]
    frame["peak_bytes"] = frame.groupby(cell)["peak_bytes"].transform("max")  # the first pass tells it
    frame["first_call_s"] = frame.groupby(cell)["first_call_s"].transform("max")  # later ones find compiled code
    frame["ceiling_flops"] = frame.groupby("impl")["ceiling_flops"].median().max()
    return undisturbed(frame, cell)


def _machine(found: Found) -> dict[str, float]:
    """Bytes of a number and of the caches; a cache whose size nobody told holds everything, so that its terms are 0."""
    caches = cache_bytes(found.machine.get("caches"))
    known = {level: size if np.isfinite(size) else np.inf for level, size in caches.items()}
    return {"itemsize": ITEMSIZE.get(str(found.settings.get("dtype")), np.nan), **known}


def _with_variables(
    rows: pd.DataFrame, machine: Mapping[str, float], stated: Mapping[str, Any]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of a workload with a column for each variable, and for what each axis' exponent is fitted in; the variables."""
    given = [{**columns, **machine} for columns in rows["columns"]]
    variables = {name: np.array([columns[name] for columns in given], float) for name in given[0]}
    if taken := sorted(variables.keys() & set(map(str, rows.columns))):
        raise UserError(f"{rows['workload'].iloc[0]}: a variable cannot be called '{taken[0]}', which is a column here")
    rows = rows.drop(columns="columns").assign(**variables)
    for axis in stated["axes"]:
        text = axis["variable"]
        if text not in variables:
            rows[text] = expressions.parse(text, f"axis {axis['name']}", tuple(variables))(variables)
    return rows, tuple(variables)


def _series(impl: str, workload: str, stated: Mapping[str, Any], entries: pd.DataFrame, names: Sequence[str]) -> Series:
    cells = _cells(entries)
    parts = Parts(cells[~cells["heldout"]], cells.iloc[:0], cells[cells["heldout"]])
    time = [law_of(law["name"], law["statement"], ("step",), law["terms"], names) for law in stated["laws"]]
    memory = [
        law_of(OWN, "the workload's own", ("memory",), stated["memory_law"], names),
        law_of("m", "parameters alone", ("memory",), ("1", "m"), names),
    ]
    of_bytes = parts if cells["peak_bytes"].notna().all() else Parts(*[cells.iloc[:0]] * 3)
    of_bytes = Parts(*(part.assign(time_s=part["peak_bytes"]) for part in vars(of_bytes).values()))  # what fits fit
    fits = _fits(time, parts)
    own = next((fit for fit in fits if fit.law.name == OWN), None)
    along = tuple(_along(entries, axis, own) for axis in stated["axes"])
    return Series(impl, workload, stated, entries, cells, along, fits, _fits(memory, of_bytes))


def _cells(entries: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over passes, wild ones pulled in."""
    wide = entries.pivot(index="layers", columns="pass", values="time_s")
    logs = tamed(np.log(wide.to_numpy(float)))
    means = pd.Series(np.exp(np.nanmean(logs, axis=1)), wide.index)
    cells = entries.drop_duplicates("layers").drop(columns=["pass", "quiet"])
    return cells.assign(time_s=cells["layers"].map(means), operations_total=cells["n"] * cells["products"])


def _fits(candidates: Sequence[Law], parts: Parts) -> tuple[LawFit, ...]:
    return tuple(
        fit
        for law in candidates
        if len(parts.seen) >= len(law.terms) + laws.SPARE_CELLS and (fit := laws.fit_law(law, parts)) is not None
    )


def _along(entries: pd.DataFrame, axis: Mapping[str, Any], own: LawFit | None) -> Along:
    exponent = exponents.of_axis(entries, axis["name"], axis["variable"])
    beyond = exponent.against(lambda cells: (cells["n"] * cells["m"]).to_numpy(float))
    beyond_own = None if own is None else exponent.against(own.predict)
    return Along(axis["name"], axis["size"], axis["variable"], axis["exponent"], exponent, beyond, beyond_own)


# --- what is quadratic in a size ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Quadratic:
    """t = c0 + c1·x + c2·x² along an axis whose products without weights grow as x²: the last part's share of the time at the
    largest x, with its 95 % interval (ends are NaN where it has none).
    """

    axis: str
    size: str
    largest: float
    share: Interval


def quadratic(one: Series) -> Quadratic | None:
    """Of the first axis where multiply-adds of activations with each other grow as the square of its size; None where none
    does, or with fewer than four cells.
    """
    for along in one.along:
        line = exponents.line(one.entries, along.axis, along.variable)
        if len(line.x) < 4:
            continue
        x = np.array([sizes[along.size] for sizes in line.cells["sizes"]], float)
        pairs = line.cells["without_weights"].to_numpy(float) / x**2
        if np.ptp(x) and pairs.min() > 0 and np.ptp(np.log(pairs)) < 0.01:
            return Quadratic(along.axis, along.size, float(x.max()), _share(x, line))
    return None


def _share(x: Floats, line: exponents.Line) -> Interval:
    logs = tamed(line.logs)
    means = np.asarray(np.nanmean(logs, axis=1))
    columns = np.column_stack([np.ones_like(x), x, x**2])

    def share(at: Floats) -> float:
        c = _relative(columns, np.exp(at))
        parts = c * columns[int(np.argmax(x))]
        return float(parts[2] / parts.sum())

    residuals = columns @ _relative(columns, np.exp(means)) / np.exp(means) - 1
    degrees = len(x) - 3
    about = Spread(float(residuals @ residuals) / degrees, degrees)
    return two_way_interval(share(means), gradient(share, means), logs, about)


def _relative(columns: Floats, times: Floats) -> Floats:
    """Least relative errors; coefficients may be negative, for what is not there must be able to come out as nothing."""
    return np.asarray(np.linalg.lstsq(columns / times[:, None], np.ones(len(times)))[0])


# --- one line for all workloads -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ReuseLine:
    """Time per n·m against weight reuse over all workloads of one implementation, cells past overhead.

    ``price`` are the seconds of one example's use of one weight, forward and backward: the line of slope 1.  ``slope`` is that
    of the workloads' means, each counting once, with its interval over workloads.  ``median_miss`` and ``miss`` are the factors
    within which half and nine in ten of the cells lie about the line; ``worst`` is the workload whose mean lies furthest off,
    ``off`` times the line.
    """

    impl: str
    price: float
    slope: Interval
    median_miss: float
    miss: float
    worst: str
    off: float
    workloads: int


def reuse_line(of_impl: Sequence[Series]) -> ReuseLine | None:
    """None with fewer than three workloads past overhead."""
    parts = {
        one.workload: (np.log(one.reuse[one.past_overhead]), np.log(one.per_nm[one.past_overhead]))
        for one in of_impl
        if one.past_overhead.any()
    }
    if len(parts) < 3:
        return None
    x = np.array([part[0].mean() for part in parts.values()])
    y = np.array([part[1].mean() for part in parts.values()])
    level = float(np.mean(y - x))
    away = np.abs(np.concatenate([part[1] - part[0] - level for part in parts.values()]))
    furthest = int(np.argmax(np.abs(y - x - level)))
    return ReuseLine(
        of_impl[0].impl,
        float(np.exp(level)),
        _slope(x, y),
        float(np.exp(np.median(away))),
        float(np.exp(np.quantile(away, 0.9))),
        list(parts)[furthest],
        float(np.exp(y - x - level)[furthest]),
        len(parts),
    )


def _slope(x: Floats, y: Floats) -> Interval:
    """Least squares, with Student's t over the points."""
    centred = x - x.mean()
    value = float(centred @ y / (centred @ centred))
    residuals = y - y.mean() - value * centred
    degrees = len(x) - 2
    half = t_quantile(degrees) * float(np.sqrt(residuals @ residuals / degrees / (centred @ centred)))
    return Interval(value, value - half, value + half)


# --- speed beside another implementation ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Beside:
    """One workload's times by one implementation over those of another, by cell (``sizes`` in words), with 95 % intervals."""

    impl: str
    workload: str
    ratios: Mapping[str, Interval]

    @property
    def slowest(self) -> tuple[str, Interval]:
        """Sizes at which the ratio is largest, and the ratio."""
        return max(self.ratios.items(), key=lambda item: item[1].value)


def beside(every: Sequence[Series], other: str) -> list[Beside]:
    """Of every series whose workload ``other`` did too, paired by pass."""
    made = []
    for one in every:
        base = next((s for s in every if s.workload == one.workload and s.impl == other), None)
        if base is None or one.impl == other:
            continue
        both = one.entries.merge(base.entries, on=["layers", "pass"], suffixes=("", "_other"))
        if not len(both):
            continue
        both["log"] = np.log(both["time_s"] / both["time_s_other"])
        wide = both.pivot(index="layers", columns="pass", values="log")
        samples = [row[~np.isnan(row)] for row in tamed(wide.to_numpy(float), own=True)]
        ratios = [found.exp() for found in moderated_intervals(samples)]
        made.append(Beside(one.impl, one.workload, dict(zip(map(str, wide.index), ratios, strict=True))))
    return made
