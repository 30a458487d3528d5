"""The law of data parallelism as declared, fitted: what an all-reduce costs, what ranks at once cost each other, a step over k.

    T(k) = o(k)·[s(k)·(t0 + ⌈n/k⌉·(a·m + b·u·p) + c·m) + α·log2 k + β·g·(k - 1)/k]

with g the bytes of the gradient, o(k) = max(1, k/c) for k ranks that share c cores, and s(k) what ranks at once cost each
other in caches and memory.  The slowest rank has ⌈n/k⌉ examples.  α and β come from the all-reduce sweep alone, of sizes that
gradients have, s(k) from steps that send nothing, and t0, a, b and c from steps, with the rest known.  Coefficients cannot be
negative, errors are relative (``analysis.laws``).  ``parallel_more`` predicts more ranks than were measured.

Ranks wait for the slowest of them, and how they get in each other's way is part of what a step takes: a launch tells a cell by
its median round, not by its fastest, in which they happened not to.  A cell's time is the median over passes, since a
disturbance that lasts as long as a launch spoils all of it.  Intervals rest on how launches differ: the whole of it is fitted
anew without each pass in turn (the jackknife: Efron & Stein 1981), with Student's t for so few passes, and wider by what a
median of few spreads beyond their mean.  They do not hold what the law itself gets wrong, which errors on cells that no fit saw
tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd

from analysis import laws
from analysis.experiments.found import Found, undisturbed
from analysis.load import cache_bytes
from analysis.statistics import Bools, Floats, Interval, t_quantile
from backprop_files import UserError

STEP, IN_TURN, ALONE = "step", "in_turn", "alone"
#: What makes a cell, apart from the pass; an all-reduce has bytes and no network, a step the other way round.
CELL = ["kind", "variant", "layers", "activation", "loss", "n", "bytes", "ranks", "cores"]
SIZES = ["m", "u", "p", "depth", "gradient_bytes"]
#: Terms of a step that are fitted.
TERMS = 4
#: Fewer cells than this say nothing of a form.
LEAST_CELLS = 4
#: The standard error of a median over that of a mean, of few normal values: 1.16 of three, 1.20 of five.
OF_MEDIAN = 1.2


@dataclass(frozen=True)
class Form:
    """How an all-reduce may depend on k: what multiplies α, and whether it waits for shared cores."""

    name: str
    hops: Callable[[Floats], Floats]
    waits: bool


def _tree(k: Floats) -> Floats:
    return np.asarray(np.log2(k))


def _ring(k: Floats) -> Floats:
    return np.asarray(k - 1.0)


DECLARED = Form("α·log2 k, cores shared", _tree, waits=True)
#: gloo passes gradients round a ring, 2·(k - 1) messages one after the other.
RING = Form("α·(k − 1), cores shared", _ring, waits=True)
RING_FREE = Form("α·(k − 1), cores free", _ring, waits=False)
FORMS = (DECLARED, RING, Form("α·log2 k, cores free", _tree, waits=False), RING_FREE)


@dataclass(frozen=True)
class Coefficients:
    """Seconds: ``alpha_s`` a hop, ``beta_s`` a byte, ``t0_s`` a step, ``a_s`` an example and weight, ``b_s`` an example,
    unit and operation, ``c_s`` a weight; ``contention`` is s(k) by k, where it was measured.
    """

    alpha_s: float
    beta_s: float
    t0_s: float
    a_s: float
    b_s: float
    c_s: float
    contention: Mapping[int, float]
    cores: int  # that ranks share at most

    def s(self, ranks: Floats, cores: Floats) -> Floats:
        """As measured on all cores, else 1 + σ·(min(k, c) - 1), linear in the ranks that run at once (Gunther 2007)."""
        found = 1 + self.sigma * (np.minimum(ranks, cores) - 1)
        for k, value in self.contention.items():
            found[(ranks == k) & (cores == min(k, self.cores))] = value
        return np.asarray(found)

    @property
    def sigma(self) -> float:
        """Least squares through the measured s(k)."""
        pairs = [(min(k, self.cores) - 1, value - 1) for k, value in self.contention.items()]
        below = sum(x * x for x, _ in pairs)
        return sum(x * y for x, y in pairs) / below if below else 0.0

    def parts(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Seconds by part, a row a cell: ``compute`` (what shrinks with k), ``replicated`` (what every rank does anew: t0 +
        c·m), ``contention`` (what sharing caches and memory adds to both, s(k) - 1), ``waiting`` (for a core that another
        rank has, o(k) - 1), ``communication``.
        """
        at_work = design(cells) * np.array([self.t0_s, self.a_s, self.b_s, self.c_s])
        compute, replicated = at_work[:, 1] + at_work[:, 2], at_work[:, 0] + at_work[:, 3]
        ranks, cores = numbers(cells, "ranks"), numbers(cells, "cores")
        alone, slower = compute + replicated, self.s(ranks, cores)
        found = {
            "compute": compute,
            "replicated": replicated,
            "contention": (slower - 1) * alone,
            "waiting": (shared(ranks, cores) - 1) * slower * alone,
            "communication": communication(cells, self),
        }
        return pd.DataFrame(found, index=cells.index)

    def seconds(self, cells: pd.DataFrame) -> Floats:
        """T(k), a number a cell."""
        return np.asarray(self.parts(cells).sum(axis=1), float)

    def all_reduce_s(self, ranks: int, cores: int, sizes: Floats) -> Floats:
        """An all-reduce by itself, of so many bytes."""
        k = np.full(len(sizes), float(ranks))
        return np.asarray(_columns(k, np.minimum(k, cores), sizes) @ np.array([self.alpha_s, self.beta_s]))


def shared(ranks: Floats, cores: Floats) -> Floats:
    """o(k) = max(1, k/c)."""
    return np.maximum(1.0, ranks / cores)


def share(cells: pd.DataFrame) -> Floats:
    """⌈n/k⌉, the examples of the slowest rank."""
    return np.asarray(np.ceil(numbers(cells, "n") / numbers(cells, "ranks")))


def design(cells: pd.DataFrame) -> Floats:
    """Columns t0, a, b, c of what one rank does, shape (cells, 4)."""
    n, m = share(cells), numbers(cells, "m")
    return np.column_stack([np.ones(len(cells)), n * m, n * numbers(cells, "u") * numbers(cells, "p"), m])


def communication(cells: pd.DataFrame, by: Coefficients) -> Floats:
    """o(k)·(α·log2 k + β·g·(k - 1)/k) of steps; nothing where they send nothing."""
    columns = _columns(numbers(cells, "ranks"), numbers(cells, "cores"), numbers(cells, "gradient_bytes"))
    return np.asarray(np.where(cells["variant"] == ALONE, 0.0, columns @ np.array([by.alpha_s, by.beta_s])))


def _columns(k: Floats, cores: Floats, size_bytes: Floats, form: Form = DECLARED) -> Floats:
    """Columns α and β: o(k)·hops(k) and o(k)·B·(k - 1)/k."""
    over = shared(k, cores) if form.waits else np.ones(len(k))
    return np.column_stack([over * form.hops(k), over * size_bytes * (k - 1) / k])


def numbers(cells: pd.DataFrame, name: str) -> Floats:
    """A column as numbers."""
    return cells[name].to_numpy(float)


# --- what was measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """One implementation: ``cells`` (a row each, with ``time_s``, the median over passes) and their log times, shape (cells,
    passes), NaN where a pass lacks a cell.
    """

    name: str
    impl: str
    cells: pd.DataFrame
    logs: Floats

    @property
    def cores(self) -> int:
        """Cores that ranks share at most; fewer ranks have fewer."""
        return int(self.cells["cores"].max())

    @property
    def ranks(self) -> list[int]:
        """Numbers of ranks that steps were measured over."""
        return sorted(int(k) for k in self.of("step")["ranks"].unique())

    def of(self, kind: str, variant: str | None = None) -> pd.DataFrame:
        """The cells of a kind, and of a variant."""
        return of(self.cells, kind, variant)

    def steps(self, variant: str) -> pd.DataFrame:
        """The cells of a variant."""
        return self.of("step", variant)

    @cached_property
    def without(self) -> list[pd.DataFrame]:
        """The cells as they would be without each pass in turn; none with one pass."""
        count = self.logs.shape[1]
        return [self._at(np.delete(self.logs, i, axis=1)) for i in range(count)] if count > 1 else []

    def _at(self, logs: Floats) -> pd.DataFrame:
        there = ~np.isnan(logs).all(axis=1)
        return self.cells[there].assign(time_s=np.exp(np.nanmedian(logs[there], axis=1)))


def of(cells: pd.DataFrame, kind: str, variant: str | None = None, crowded: bool = False) -> pd.DataFrame:
    """Of launches that have as many cores as they can use, or of those on fewer."""
    usable = np.minimum(cells["ranks"], cells["cores"].max())
    there = (cells["cores"] < usable) == crowded
    found: pd.DataFrame = cells[there & (cells["kind"] == kind) & ((cells["variant"] == variant) | (variant is None))]
    return found


def scaled(steps: pd.DataFrame, scaling: str) -> pd.DataFrame:
    """The steps of one way of scaling, all of them for none."""
    return steps[np.array([not scaling or scaling in told.split(",") for told in steps["scaling"]], bool)]


def measured(found: Found) -> list[Measured]:
    """One for each implementation, and for each way of making ranks where one has several.  Raises UserError for rows that
    lack what the law is made of.
    """
    rows = _rows(found)
    made = []
    for impl in found.impls:
        own = rows[rows["impl"] == impl]
        for layout in own["layout"].unique():
            name = impl if own["layout"].nunique() == 1 else f"{impl}, {layout}"
            chosen = own[own["layout"] == layout]
            if len(chosen):
                made.append(_measured(name, impl, chosen))
    return made


def _rows(found: Found) -> pd.DataFrame:
    made = []
    told = cache_bytes(found.machine.get("caches"))["L2"]
    cache = told if np.isfinite(told) else np.inf  # nothing lies beyond what nobody knows
    for row in found.rows:
        try:
            if not row["seconds"]:
                raise ValueError("no rounds")
            made.append(_row(row, found.usual_seconds(row)) | {"cache_bytes": cache})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"experiment parallel, {row['key']}: a row is of another form ({type(error).__name__}: {error}); "
                "measure it again"
            ) from error
    if not made:
        raise UserError("experiment parallel: nothing was measured")
    return pd.DataFrame(made)


def _row(row: Mapping[str, object], time_s: float) -> dict[str, object]:
    """A row with its time, and a value in every column that makes a cell."""
    kind = str(row["kind"])
    step = kind == "step"
    if not (np.isfinite(time_s) and time_s > 0):
        raise ValueError(f"a time of {time_s} s")
    return {
        "impl": row["impl"],
        "layout": str(row.get("layout", "processes")),
        "pass": row["pass"],
        "quiet": float(str(row.get("quiet", 1))),
        "kind": kind,
        "variant": str(row["variant"]) if step else "",
        "scaling": str(row["scaling"]) if step else "",
        "layers": "-".join(map(str, _list(row["layers"]))) if step else "",
        "activation": str(row["activation"]) if step else "",
        "loss": str(row["loss"]) if step else "",
        "bytes": 0.0 if step else float(str(row["bytes"])),
        **{name: float(str(row[name])) if step else 0.0 for name in ("n", *SIZES)},
        **{name: int(str(row[name])) for name in ("ranks", "cores")},
        "messages": int(str(row.get("messages", 1))),  # all-reduces of a step
        "time_s": time_s,
    }


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"layers {value!r}")
    return value


def _measured(name: str, impl: str, rows: pd.DataFrame) -> Measured:
    rows = undisturbed(rows, CELL)
    logs = rows.assign(log_s=np.log(rows["time_s"])).pivot_table("log_s", CELL, "pass", sort=False)
    table = logs.to_numpy(float)
    kept = rows.groupby(CELL, sort=False)[["scaling", "messages", "cache_bytes", *SIZES]].first()
    first = kept.reindex(logs.index).reset_index()
    return Measured(name, impl, first.assign(time_s=np.exp(np.nanmedian(table, axis=1))), table)


# --- fits -----------------------------------------------------------------------------------------------------------


def sweep_design(sweep: pd.DataFrame, form: Form = DECLARED) -> Floats:
    """Columns α and β of all-reduces."""
    return _columns(numbers(sweep, "ranks"), numbers(sweep, "cores"), numbers(sweep, "bytes"), form)


def sweep_of(cells: pd.DataFrame, crowded: bool = False) -> pd.DataFrame:
    """The all-reduces over more than one rank."""
    sweep = of(cells, "all_reduce", None, crowded)
    return sweep[sweep["ranks"] > 1]


def gradient_sized(cells: pd.DataFrame, crowded: bool = False) -> pd.DataFrame:
    """Of these the ones that α and β are fitted to: from the last size below the smallest gradient on.

    The law is about gradients, and a library may send a few bytes in another way than many.
    """
    sweep, gradients = sweep_of(cells, crowded), of(cells, "step")["gradient_bytes"]
    least = sweep.loc[sweep["bytes"] <= gradients.min(), "bytes"].max() if len(gradients) else 0.0
    return sweep[sweep["bytes"] >= least] if np.isfinite(least) else sweep


def fit(cells: pd.DataFrame, variant: str = STEP) -> Coefficients | None:
    """All coefficients from these cells; None where there are too few of a kind."""
    sweep, steps = gradient_sized(cells), of(cells, "step", variant)
    if len(sweep) < LEAST_CELLS or len(steps) < TERMS + laws.SPARE_CELLS:
        return None
    (alpha, beta), _ = laws.fit_relative(sweep_design(sweep), numbers(sweep, "time_s"))
    of_cells = (contention(cells), int(cells["cores"].max()))
    known = Coefficients(float(alpha), float(beta), 0.0, 0.0, 0.0, 0.0, *of_cells)
    (t0, a, b, c), _ = laws.fit_relative(*_step_problem(known, steps))
    return replace(known, t0_s=float(t0), a_s=float(a), b_s=float(b), c_s=float(c))


def _step_problem(known: Coefficients, steps: pd.DataFrame) -> tuple[Floats, Floats, bool, Floats]:
    """Columns, times and the part of them that is known, as ``laws.fit_relative`` takes them."""
    ranks, cores = numbers(steps, "ranks"), numbers(steps, "cores")
    slower = shared(ranks, cores) * known.s(ranks, cores)
    return slower[:, None] * design(steps), numbers(steps, "time_s"), False, communication(steps, known)


def contention(cells: pd.DataFrame) -> dict[int, float]:
    """s(k) by k > 1: a step that sends nothing over o(k) times the one of a single rank with as many examples; nothing where
    there are no such pairs.
    """
    alone = of(cells, "step", ALONE)
    found = {}
    for k, at_once in alone[alone["ranks"] > 1].groupby("ranks"):
        if slower := _beside_one(at_once, alone):
            over = shared(np.array([float(str(k))]), numbers(at_once, "cores")[:1])[0]
            found[int(str(k))] = slower / float(over)
    return found


def _beside_one(at_once: pd.DataFrame, alone: pd.DataFrame) -> float:
    """Times over those of a single rank with as many examples, geometric mean over the networks; 0 where there are none."""
    key = ["layers", "activation", "loss", "share"]
    single = alone[alone["ranks"] == 1]
    times = [cells.assign(share=share(cells)).set_index(key)["time_s"] for cells in (at_once, single)]
    ratios = (times[0] / times[1]).dropna().to_numpy(float)
    return float(np.exp(np.mean(np.log(ratios)))) if len(ratios) else 0.0


def over_passes(one: Measured, told: Callable[[pd.DataFrame], float], signed: bool = False) -> Interval:
    """What ``told`` makes of the cells, with its 95 % interval over passes; ends are NaN with one pass.

    The jackknife: with θ_i told without pass i of P, the variance is (P - 1)/P · Σ (θ_i - θ̄)².  On the log scale, unless
    the quantity may be negative (``signed``) or is 0, where a coefficient was held there.
    """
    value = told(one.cells)
    others = np.array([told(cells) for cells in one.without])
    if not np.isfinite([value, *others]).all():
        return Interval(value, np.nan, np.nan)
    if not signed and value > 0 and (others > 0).all():
        return jackknife(float(np.log(value)), np.log(others)).exp()
    found = jackknife(value, others)
    return found if signed else Interval(value, max(0.0, found.low), found.high)


def coefficient(one: Measured, name: str, times: float = 1.0) -> Interval:
    """One of the coefficients with its interval over passes, in a unit ``times`` as small; NaN where nothing is fitted."""

    def told(cells: pd.DataFrame) -> float:
        found = fit(cells)
        return np.nan if found is None else float(getattr(found, name)) * times

    return over_passes(one, told)


def jackknife(value: float, others: Floats) -> Interval:
    """By what each pass's absence makes of a value; ends are NaN with fewer than two passes."""
    count = len(others)
    if count < 2 or not np.isfinite(others).all():
        return Interval(value, np.nan, np.nan)
    error = float(np.sqrt((count - 1) / count * np.sum((others - others.mean()) ** 2)))
    half = t_quantile(count - 1) * error * (OF_MEDIAN if count > 2 else 1.0)
    return Interval(value, value - half, value + half)


# --- the all-reduce by itself ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Judged:
    """A form of the all-reduce: its errors t̂/t - 1 on cells left out in turn, on smaller messages than gradients, which no
    fit saw, and on each k left out whole.
    """

    form: Form
    errors: Floats
    smaller: Floats
    by_rank: Mapping[int, Floats]


def judge_forms(one: Measured) -> list[Judged]:
    """The declared form first; others only where several k were measured, which alone can tell them apart."""
    sweep, fitted = sweep_of(one.cells), gradient_sized(one.cells)
    ranks = sorted(int(k) for k in fitted["ranks"].unique())
    if len(fitted) < LEAST_CELLS:
        return []
    forms = [form for form in FORMS if form.waits or max(ranks) > one.cores]  # else the same
    found = forms if len(ranks) > 1 else FORMS[:1]
    return [_judge_form(form, sweep, fitted, ranks) for form in found]


def _judge_form(form: Form, sweep: pd.DataFrame, fitted: pd.DataFrame, ranks: Sequence[int]) -> Judged:
    columns, times = sweep_design(fitted, form), numbers(fitted, "time_s")
    at = fitted["ranks"].to_numpy(int)

    def predicted(by: Bools, cells: pd.DataFrame) -> Floats:
        coefficients, _ = laws.fit_relative(columns[by], times[by])
        return np.asarray(sweep_design(cells, form) @ coefficients / numbers(cells, "time_s") - 1)

    by_rank = {k: predicted(at != k, fitted[at == k]) for k in ranks} if len(ranks) > 1 else {}
    smaller = predicted(at > 0, sweep.drop(fitted.index))
    return Judged(form, laws.crossvalidate(columns, times), smaller, by_rank)


def holds_best(judged: Sequence[Judged]) -> Judged:
    """The declared form unless another errs clearly less on cells left out."""
    best = min(judged, key=lambda one: float(np.abs(one.errors).mean()))
    return best if _clearly_less(best.errors, judged[0].errors) else judged[0]


def _clearly_less(errors: Floats, declared: Floats) -> bool:
    """By two standard errors of the difference, paired cell by cell."""
    less = np.abs(declared) - np.abs(errors)
    if len(less) < LEAST_CELLS or not np.isfinite(less).all():
        return False
    return bool(less.mean() > 0 and less.mean() > 2 * less.std(ddof=1) / np.sqrt(len(less)))


# --- cells that no fit saw ------------------------------------------------------------------------------------------


def left_out(cells: pd.DataFrame, variant: str = STEP) -> pd.DataFrame:
    """Steps with ``error``, t̂/t - 1, each left out of the fit in turn; α, β and s(k) come from other cells anyway."""
    found = fit(cells, variant)
    steps = of(cells, "step", variant)
    error = np.nan if found is None else laws.crossvalidate(*_step_problem(found, steps))
    return steps.assign(error=error)


def unseen_ranks(one: Measured, k: int) -> pd.DataFrame:
    """The steps over k ranks with ``error``, by the declared law fitted to other numbers of ranks."""
    steps = one.steps(STEP)
    return with_error(steps[steps["ranks"] == k], fit(one.cells[one.cells["ranks"] != k]))


class Law(Protocol):
    """What tells the time of steps, and of what it is made."""

    def seconds(self, cells: pd.DataFrame) -> Floats:
        """A number a cell."""

    def parts(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Seconds by part, a row a cell (``Coefficients.parts``)."""

    def all_reduce_s(self, ranks: int, cores: int, sizes: Floats) -> Floats:
        """An all-reduce by itself, of so many bytes."""


def with_error(steps: pd.DataFrame, by: Law | None) -> pd.DataFrame:
    """Steps with ``error``, t̂/t - 1; NaN where nothing was fitted."""
    return steps.assign(error=np.nan if by is None else by.seconds(steps) / steps["time_s"] - 1)
