"""The law of data parallelism, fitted: what an all-reduce costs, what ranks at once cost each other, a step over k of them.

    T(k) = o(k)·[s(k)·(t0 + ⌈n/k⌉·(a·m + b·u·p) + c·m) + α·log2 k + β·g·(k - 1)/k]

with g the bytes of the gradient, o(k) = max(1, k/c) for k ranks that share c cores, and s(k) what ranks at once cost each
other in caches and memory.  The slowest rank has ⌈n/k⌉ examples.  α and β come from the all-reduce sweep alone, of sizes that
gradients have, s(k) from steps that send nothing, and t0, a, b and c from steps, with the rest known.  Coefficients cannot be
negative, errors are relative (``analysis.laws``).

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

import numpy as np
import pandas as pd

from analysis import laws
from analysis.experiments.found import Found, undisturbed
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
class Version:
    """How steps may send: all gradients at once, or every layer adding all-reduces of its own (α·log2 k·(1 + r·layers), r
    fitted), as where a library sends every array by itself; and whether ranks that share cores wait for them when sending.
    """

    name: str
    by_layer: bool
    shares: bool


AS_DECLARED = Version("as declared", by_layer=False, shares=True)
VERSIONS = (
    AS_DECLARED,
    Version("by layer", by_layer=True, shares=True),
    Version("by layer, cores free", by_layer=True, shares=False),
)


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
    by_layer: float = 0.0  # all-reduces that every layer adds to the one of a step
    shares: bool = True  # whether sending waits for shared cores

    def s(self, ranks: Floats, cores: Floats) -> Floats:
        """As measured, else 1 + σ·(min(k, c) - 1), which is linear in the ranks that run at once (Gunther 2007)."""
        found = 1 + self.sigma * (np.minimum(ranks, cores) - 1)
        for k, value in self.contention.items():
            found[ranks == k] = value
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
        ranks, cores = _numbers(cells, "ranks"), _numbers(cells, "cores")
        alone, slower = compute + replicated, self.s(ranks, cores)
        found = {
            "compute": compute,
            "replicated": replicated,
            "contention": (slower - 1) * alone,
            "waiting": (shared(ranks, cores) - 1) * slower * alone,
            "communication": communication(cells, self) + self.by_layer * hops(cells, self),
        }
        return pd.DataFrame(found, index=cells.index)

    def seconds(self, cells: pd.DataFrame) -> Floats:
        """T(k), a number a cell."""
        return np.asarray(self.parts(cells).sum(axis=1), float)


def shared(ranks: Floats, cores: Floats) -> Floats:
    """o(k) = max(1, k/c)."""
    return np.maximum(1.0, ranks / cores)


def share(cells: pd.DataFrame) -> Floats:
    """⌈n/k⌉, the examples of the slowest rank."""
    return np.asarray(np.ceil(_numbers(cells, "n") / _numbers(cells, "ranks")))


def design(cells: pd.DataFrame) -> Floats:
    """Columns t0, a, b, c of what one rank does, shape (cells, 4)."""
    n, m = share(cells), _numbers(cells, "m")
    return np.column_stack([np.ones(len(cells)), n * m, n * _numbers(cells, "u") * _numbers(cells, "p"), m])


def communication(cells: pd.DataFrame, by: Coefficients) -> Floats:
    """o(k)·(α·log2 k + β·g·(k - 1)/k) of steps; nothing where they send nothing."""
    k = _numbers(cells, "ranks")
    return _sent(
        cells, by.alpha_s * np.log2(k) + by.beta_s * _numbers(cells, "gradient_bytes") * (k - 1) / k, by.shares
    )


def hops(cells: pd.DataFrame, by: Coefficients) -> Floats:
    """o(k)·α·log2 k for every layer: what it costs beside if each sends its gradient by itself."""
    return _sent(cells, by.alpha_s * np.log2(_numbers(cells, "ranks")) * _numbers(cells, "depth"), by.shares)


def _sent(cells: pd.DataFrame, seconds: Floats, shares: bool) -> Floats:
    over = shared(_numbers(cells, "ranks"), _numbers(cells, "cores")) if shares else 1.0
    return np.asarray(np.where(cells["variant"] == ALONE, 0.0, over * seconds))


def _numbers(cells: pd.DataFrame, name: str) -> Floats:
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
        return _of(self.cells, kind, variant)

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


def _of(cells: pd.DataFrame, kind: str, variant: str | None = None) -> pd.DataFrame:
    return cells[(cells["kind"] == kind) & ((cells["variant"] == variant) | (variant is None))]


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
    for row in found.rows:
        try:
            if not row["seconds"]:
                raise ValueError("no rounds")
            made.append(_row(row, found.usual_seconds(row)))
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
    first = rows.groupby(CELL, sort=False)[["scaling", *SIZES]].first().reindex(logs.index).reset_index()
    return Measured(name, impl, first.assign(time_s=np.exp(np.nanmedian(table, axis=1))), table)


# --- fits -----------------------------------------------------------------------------------------------------------


def sweep_design(sweep: pd.DataFrame, form: Form | None = None) -> Floats:
    """Columns α and β of all-reduces: o(k)·log2 k and o(k)·B·(k - 1)/k."""
    k = _numbers(sweep, "ranks")
    form = form or DECLARED
    over = shared(k, _numbers(sweep, "cores")) if form.shares else np.ones(len(k))
    return np.column_stack([over * form.hops(k), over * _numbers(sweep, "bytes") * (k - 1) / k])


def sweep_of(cells: pd.DataFrame) -> pd.DataFrame:
    """The all-reduces over more than one rank."""
    sweep = _of(cells, "all_reduce")
    return sweep[sweep["ranks"] > 1]


def gradient_sized(cells: pd.DataFrame) -> pd.DataFrame:
    """Of these the ones that α and β are fitted to: from the last size below the smallest gradient on.

    The law is about gradients, and a library may send a few bytes in another way than many.
    """
    sweep, gradients = sweep_of(cells), _of(cells, "step")["gradient_bytes"]
    least = sweep.loc[sweep["bytes"] <= gradients.min(), "bytes"].max() if len(gradients) else 0.0
    return sweep[sweep["bytes"] >= least] if np.isfinite(least) else sweep


def fit(cells: pd.DataFrame, variant: str = STEP, version: Version = AS_DECLARED) -> Coefficients | None:
    """All coefficients from these cells; None where there are too few of a kind."""
    sweep, steps = gradient_sized(cells), _of(cells, "step", variant)
    if len(sweep) < LEAST_CELLS or len(steps) < TERMS + laws.SPARE_CELLS:
        return None
    columns = sweep_design(sweep, DECLARED if version.shares else FREE)
    (alpha, beta), _ = laws.fit_relative(columns, _numbers(sweep, "time_s"))
    of_cells = (contention(cells), int(cells["cores"].max()))
    known = Coefficients(float(alpha), float(beta), 0.0, 0.0, 0.0, 0.0, *of_cells, shares=version.shares)
    (t0, a, b, c, *more), _ = laws.fit_relative(*_step_problem(known, steps, version))
    return replace(known, t0_s=float(t0), a_s=float(a), b_s=float(b), c_s=float(c), by_layer=float(sum(more)))


def _step_problem(
    known: Coefficients, steps: pd.DataFrame, version: Version = AS_DECLARED
) -> tuple[Floats, Floats, bool, Floats]:
    """Columns, times and the part of them that is known, as ``laws.fit_relative`` takes them."""
    ranks, cores = _numbers(steps, "ranks"), _numbers(steps, "cores")
    slower = shared(ranks, cores) * known.s(ranks, cores)
    columns = slower[:, None] * design(steps)
    if version.by_layer:
        columns = np.column_stack([columns, hops(steps, known)])
    return columns, _numbers(steps, "time_s"), False, communication(steps, known)


def contention(cells: pd.DataFrame) -> dict[int, float]:
    """s(k) by k > 1: a step that sends nothing over o(k) times the one of a single rank with as many examples, geometric mean
    over the networks; nothing where there are no such pairs.
    """
    alone = _of(cells, "step", ALONE)
    key = ["layers", "activation", "loss", "share"]
    alone = alone.assign(share=share(alone))
    single = alone[alone["ranks"] == 1].set_index(key)["time_s"]
    found = {}
    for k, at_once in alone[alone["ranks"] > 1].groupby("ranks"):
        ratios = (at_once.set_index(key)["time_s"] / single).dropna().to_numpy(float)
        if len(ratios):
            over = shared(np.array([float(str(k))]), _numbers(at_once, "cores")[:1])[0]
            found[int(str(k))] = float(np.exp(np.mean(np.log(ratios)))) / float(over)
    return found


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


def coefficient(one: Measured, name: str, times: float = 1.0, version: Version = AS_DECLARED) -> Interval:
    """One of the coefficients with its interval over passes, in a unit ``times`` as small; NaN where nothing is fitted."""

    def told(cells: pd.DataFrame) -> float:
        found = fit(cells, version=version)
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


@dataclass(frozen=True)
class Form:
    """How an all-reduce may depend on k: what multiplies α, and whether ranks that share cores wait for them."""

    name: str
    hops: Callable[[Floats], Floats]
    shares: bool


DECLARED = Form("α·log2 k, cores shared", lambda k: np.asarray(np.log2(k)), shares=True)
FREE = Form("α·log2 k, cores free", lambda k: np.asarray(np.log2(k)), shares=False)
FORMS = (
    DECLARED,
    Form("α·(k − 1), cores shared", lambda k: np.asarray(k - 1), shares=True),
    FREE,
    Form("α·(k − 1), cores free", lambda k: np.asarray(k - 1), shares=False),
)


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
    forms = [form for form in FORMS if form.shares or max(ranks) > one.cores]  # else the same
    return [_judge_form(form, sweep, fitted, ranks) for form in (forms if len(ranks) > 1 else FORMS[:1])]


def _judge_form(form: Form, sweep: pd.DataFrame, fitted: pd.DataFrame, ranks: Sequence[int]) -> Judged:
    columns, times = sweep_design(fitted, form), _numbers(fitted, "time_s")
    at = fitted["ranks"].to_numpy(int)

    def predicted(by: Bools, cells: pd.DataFrame) -> Floats:
        coefficients, _ = laws.fit_relative(columns[by], times[by])
        return np.asarray(sweep_design(cells, form) @ coefficients / _numbers(cells, "time_s") - 1)

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


def left_out(one: Measured, variant: str = STEP, version: Version = AS_DECLARED) -> pd.DataFrame:
    """Steps with ``error``, t̂/t - 1, each left out of the fit in turn; α, β and s(k) come from other cells anyway."""
    found = fit(one.cells, variant, version)
    steps = one.steps(variant)
    error = np.nan if found is None else laws.crossvalidate(*_step_problem(found, steps, version))
    return steps.assign(error=error)


def unseen_ranks(one: Measured, k: int, version: Version = AS_DECLARED) -> pd.DataFrame:
    """The steps over k ranks with ``error``, by everything fitted to other numbers of ranks."""
    return _predicted(one, one.cells["ranks"] != k, k, version)


def from_fewer(one: Measured, k: int, version: Version = AS_DECLARED, most: int = 2) -> pd.DataFrame:
    """The steps over k ranks with ``error``, by everything fitted to at most ``most`` ranks."""
    return _predicted(one, one.cells["ranks"] <= most, k, version)


def _predicted(one: Measured, seen: pd.Series, k: int, version: Version) -> pd.DataFrame:
    steps = one.steps(STEP)
    steps = steps[steps["ranks"] == k]
    found = fit(one.cells[seen], STEP, version)
    return steps.assign(error=np.nan if found is None else found.seconds(steps) / steps["time_s"] - 1)


def best_version(one: Measured) -> Version:
    """As declared, unless another version errs clearly less on steps over several ranks, left out in turn; the least of them."""
    errors = {version: _over_several(left_out(one, STEP, version)) for version in VERSIONS}
    best = min(VERSIONS, key=lambda version: float(np.nan_to_num(np.abs(errors[version]).mean(), nan=np.inf)))
    return best if _clearly_less(errors[best], errors[AS_DECLARED]) else AS_DECLARED


def _over_several(cells: pd.DataFrame) -> Floats:
    errors = cells.loc[cells["ranks"] > 1, "error"].to_numpy(float)
    return errors if len(errors) else np.array([np.nan])
