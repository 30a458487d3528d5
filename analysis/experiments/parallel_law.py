"""The law of data parallelism, fitted: what an all-reduce costs, what ranks at once cost each other, a step over k of them.

    T(k) = o(k)·[s(k)·(t0 + ⌈n/k⌉·(a·m + b·u·p) + c·m) + α·log2 k + β·g·(k - 1)/k]

with g the bytes of the gradient, o(k) = max(1, k/c) for k ranks that share c cores, and s(k) what ranks at once cost each
other in caches and memory.  The slowest rank has ⌈n/k⌉ examples.  α and β come from the all-reduce sweep alone, of sizes that
gradients have, s(k) from steps that send nothing, and t0, a, b and c from steps, with the rest known.  Coefficients cannot be
negative, errors are relative (``analysis.laws``).

Where two ranks were also measured on one core, they tell what sharing one costs (``Prices``), and more ranks than cores are
predicted without a row of theirs:

    T(k) = o(k)^w·s(min(k, c))·(t0 + ⌈n/k⌉·(a·m + b·u·p) + c·m) + o(k)^x·α·(k - 1) + o(k)^y·β·g·(k - 1)/k

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
class Prices:
    """What sharing a core costs, as powers of o(k): 1 is taking turns, 0 nothing; of computing, of a hop, and of a byte."""

    work: float = 1.0
    hop: float = 1.0
    byte: float = 1.0


TURNS, NOTHING = Prices(), Prices(hop=0.0, byte=0.0)


@dataclass(frozen=True)
class Form:
    """How an all-reduce may depend on k: what multiplies α, and what sending costs ranks that share cores (None: as measured)."""

    name: str
    hops: Callable[[Floats], Floats]
    prices: Prices | None


def _tree(k: Floats) -> Floats:
    return np.asarray(np.log2(k))


def _ring(k: Floats) -> Floats:
    return np.asarray(k - 1.0)


DECLARED = Form("α·log2 k, cores shared", _tree, TURNS)
FREE = Form("α·log2 k, cores free", _tree, NOTHING)
#: gloo passes gradients round a ring, 2·(k - 1) messages one after the other.
PRICED = Form("α·(k − 1), cores as priced", _ring, None)
FORMS = (
    DECLARED,
    Form("α·(k − 1), cores shared", _ring, TURNS),
    FREE,
    Form("α·(k − 1), cores free", _ring, NOTHING),
    Form("α·log2 k, cores as priced", _tree, None),
    PRICED,
)


@dataclass(frozen=True)
class Version:
    """How steps may send: all gradients at once, or every layer adding all-reduces of its own (α's part times 1 + r·layers, r
    fitted), as where a library sends every array by itself.  ``as_found`` lets hops and bytes cost what they do in steps, where
    caches are cold and ranks arrive apart: α's part times 1 + u + r·layers and β's part times 1 + v, all of them fitted.  And
    the form that an all-reduce has.
    """

    name: str
    by_layer: bool
    form: Form
    as_found: bool = False


AS_DECLARED = Version("as declared", by_layer=False, form=DECLARED)
AT_ONCE_PRICED = Version("cores as priced", by_layer=False, form=PRICED)
BY_LAYER_PRICED = Version("by layer, cores as priced", by_layer=True, form=PRICED)
AS_FOUND_PRICED = Version("as steps find it, cores as priced", by_layer=True, form=PRICED, as_found=True)
VERSIONS = (
    AS_DECLARED,
    Version("by layer", by_layer=True, form=DECLARED),
    Version("by layer, cores free", by_layer=True, form=FREE),
    AT_ONCE_PRICED,
    BY_LAYER_PRICED,
    AS_FOUND_PRICED,
)
#: What hops and bytes cost more in steps is this machine's caches and cores, which another network's α and β do not scale.
AS_NETWORKS = tuple(version for version in VERSIONS if not version.as_found)


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
    by_step: float = 0.0  # what a hop costs more in a step than in an all-reduce by itself, as a share
    by_byte: float = 0.0  # what a byte does
    prices: Prices = TURNS
    hops: Callable[[Floats], Floats] = _tree  # of an all-reduce, by k

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
            "waiting": (shared(ranks, cores) ** self.prices.work - 1) * slower * alone,
            "communication": communication(cells, self)
            + pieces(cells, self) @ np.array([self.by_layer, self.by_step, self.by_byte]),
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
    return np.asarray(np.ceil(numbers(cells, "n") / numbers(cells, "ranks")))


def design(cells: pd.DataFrame) -> Floats:
    """Columns t0, a, b, c of what one rank does, shape (cells, 4)."""
    n, m = share(cells), numbers(cells, "m")
    return np.column_stack([np.ones(len(cells)), n * m, n * numbers(cells, "u") * numbers(cells, "p"), m])


def communication(cells: pd.DataFrame, by: Coefficients) -> Floats:
    """o(k)^x·α·hops(k) + o(k)^y·β·g·(k - 1)/k of steps, with x = y = 1 as declared; nothing where they send nothing."""
    columns = _sending(cells, numbers(cells, "gradient_bytes"), by.hops, by.prices)
    return _sent(cells, columns @ np.array([by.alpha_s, by.beta_s]))


def pieces(cells: pd.DataFrame, by: Coefficients) -> Floats:
    """Columns of what steps may pay beside: α's part for every layer, α's part, and β's part."""
    columns = _sending(cells, numbers(cells, "gradient_bytes"), by.hops, by.prices)
    by_hop, by_byte = by.alpha_s * columns[:, 0], by.beta_s * columns[:, 1]
    return np.column_stack([_sent(cells, more) for more in (by_hop * numbers(cells, "depth"), by_hop, by_byte)])


def _sent(cells: pd.DataFrame, seconds: Floats) -> Floats:
    return np.asarray(np.where(cells["variant"] == ALONE, 0.0, seconds))


def _sending(cells: pd.DataFrame, size_bytes: Floats, hops: Callable[[Floats], Floats], prices: Prices) -> Floats:
    """Columns α and β: o(k)^x·hops(k) and o(k)^y·B·(k - 1)/k."""
    k = numbers(cells, "ranks")
    over = shared(k, numbers(cells, "cores"))
    return np.column_stack([over**prices.hop * hops(k), over**prices.byte * size_bytes * (k - 1) / k])


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
    first = rows.groupby(CELL, sort=False)[["scaling", "messages", *SIZES]].first().reindex(logs.index).reset_index()
    return Measured(name, impl, first.assign(time_s=np.exp(np.nanmedian(table, axis=1))), table)


# --- fits -----------------------------------------------------------------------------------------------------------


def sweep_design(sweep: pd.DataFrame, form: Form = DECLARED, prices: Prices = TURNS) -> Floats:
    """Columns α and β of all-reduces; ``prices`` are those measured, for a form that has none of its own."""
    return _sending(sweep, numbers(sweep, "bytes"), form.hops, form.prices or prices)


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


def fit(cells: pd.DataFrame, variant: str = STEP, version: Version = AS_DECLARED) -> Coefficients | None:
    """All coefficients from these cells; None where there are too few of a kind, or no prices where the version asks."""
    sweep, steps = gradient_sized(cells), of(cells, "step", variant)
    if len(sweep) < LEAST_CELLS or len(steps) < TERMS + laws.SPARE_CELLS:
        return None
    form = version.form
    prices = form.prices or priced(cells)
    if prices is None:
        return None
    (alpha, beta), _ = laws.fit_relative(sweep_design(sweep, form, prices), numbers(sweep, "time_s"))
    slower = contention(cells, prices.work)
    if form.prices is None:  # what ranks beyond the cores cost each other is in the price
        slower = {k: value for k, value in slower.items() if k <= cells["cores"].max()}
    of_cells = (slower, int(cells["cores"].max()))
    known = Coefficients(float(alpha), float(beta), 0.0, 0.0, 0.0, 0.0, *of_cells, prices=prices, hops=form.hops)
    (t0, a, b, c, *more), _ = laws.fit_relative(*_step_problem(known, steps, version))
    by_layer, by_step, by_byte = [*map(float, more), 0.0, 0.0, 0.0][:3]
    found = replace(
        known,
        t0_s=float(t0),
        a_s=float(a),
        b_s=float(b),
        c_s=float(c),
        by_layer=by_layer,
        by_step=by_step,
        by_byte=by_byte,
    )
    return _repriced(found, of(cells, "step", variant, crowded=True)) if version.as_found else found


def _step_problem(
    known: Coefficients, steps: pd.DataFrame, version: Version = AS_DECLARED
) -> tuple[Floats, Floats, bool, Floats]:
    """Columns, times and the part of them that is known, as ``laws.fit_relative`` takes them."""
    ranks, cores = numbers(steps, "ranks"), numbers(steps, "cores")
    slower = shared(ranks, cores) ** known.prices.work * known.s(ranks, cores)
    columns = slower[:, None] * design(steps)
    if version.by_layer:
        columns = np.column_stack([columns, pieces(steps, known)[:, : 3 if version.as_found else 1]])
    return columns, numbers(steps, "time_s"), False, communication(steps, known)


def _repriced(found: Coefficients, crowded: pd.DataFrame) -> Coefficients:
    """With the prices of a hop and of a byte that steps on shared cores paid, beyond computing."""
    if len(crowded) <= len(("hop", "byte")):
        return found
    parts = found.parts(crowded)
    computing = parts.drop(columns="communication").sum(axis=1).to_numpy(float)
    by_hop = replace(found, beta_s=0.0).parts(crowded)["communication"].to_numpy(float)
    by_byte = parts["communication"].to_numpy(float) - by_hop
    times = numbers(crowded, "time_s")
    dearer, _ = laws.fit_relative(np.column_stack([by_hop, by_byte]), times, False, computing)
    if not (dearer > 0).all():
        (whole,), _ = laws.fit_relative((by_hop + by_byte)[:, None], times, False, computing)
        dearer = np.array([whole, whole])
    if not (dearer > 0).all():
        return found
    over = float(shared(numbers(crowded, "ranks"), numbers(crowded, "cores"))[0])
    hop, byte = np.log(dearer) / np.log(over)
    prices = replace(found.prices, hop=found.prices.hop + float(hop), byte=found.prices.byte + float(byte))
    return replace(found, prices=prices)


def contention(cells: pd.DataFrame, price: float = 1.0) -> dict[int, float]:
    """s(k) by k > 1: a step that sends nothing over o(k)^price times the one of a single rank with as many examples; nothing
    where there are no such pairs.
    """
    alone = of(cells, "step", ALONE)
    found = {}
    for k, at_once in alone[alone["ranks"] > 1].groupby("ranks"):
        if slower := _beside_one(at_once, alone):
            over = shared(np.array([float(str(k))]), numbers(at_once, "cores")[:1])[0]
            found[int(str(k))] = slower / float(over) ** price
    return found


def _beside_one(at_once: pd.DataFrame, alone: pd.DataFrame) -> float:
    """Times over those of a single rank with as many examples, geometric mean over the networks; 0 where there are none."""
    key = ["layers", "activation", "loss", "share"]
    single = alone[alone["ranks"] == 1]
    times = [cells.assign(share=share(cells)).set_index(key)["time_s"] for cells in (at_once, single)]
    ratios = (times[0] / times[1]).dropna().to_numpy(float)
    return float(np.exp(np.mean(np.log(ratios)))) if len(ratios) else 0.0


def priced(cells: pd.DataFrame) -> Prices | None:
    """What sharing a core costs, by launches of few ranks on fewer cores than they can use; None where there are none.

    Computing: such a step that sends nothing takes o^w times that of a single rank with as many examples.  Sending: α and β of
    their sweep are o^x and o^y times those of as many ranks with a core each.
    """
    crowded, sweep = of(cells, "step", ALONE, crowded=True), gradient_sized(cells, crowded=True)
    if not len(crowded) or not len(sweep):
        return None
    k, cores = numbers(sweep, "ranks").min(), numbers(sweep, "cores").min()
    apart = gradient_sized(cells)
    apart = apart[apart["ranks"] == k]
    work, sent = _beside_one(crowded[crowded["ranks"] == k], of(cells, "step", ALONE)), _dearer(sweep, apart)
    if not work or sent is None:
        return None
    return Prices(*(np.log([work, *sent]) / np.log(k / cores)).tolist())


def _dearer(sweep: pd.DataFrame, apart: pd.DataFrame) -> tuple[float, float] | None:
    """Both α and β over those of ranks apart; as one ratio, of all sizes, where a fit holds one of them at 0."""
    times = [cells.set_index("bytes")["time_s"] for cells in (sweep, apart)]
    ratios = (times[0] / times[1]).dropna().to_numpy(float)
    if len(ratios) < LEAST_CELLS - 1:
        return None
    together, alone = (
        laws.fit_relative(np.column_stack([np.ones(len(cells)), numbers(cells, "bytes")]), numbers(cells, "time_s"))[
            0
        ]
        for cells in (sweep, apart)
    )
    if (together > 0).all() and (alone > 0).all():
        alpha, beta = together / alone
        return float(alpha), float(beta)
    whole = float(np.exp(np.mean(np.log(ratios))))
    return whole, whole


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

    if name not in ("by_step", "by_byte"):
        return over_passes(one, told)
    more = over_passes(one, told, signed=True)  # near 0 it has no scale of its own
    return Interval(more.value, max(0.0, more.low), more.high)


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
    prices = priced(one.cells)
    able = [form for form in FORMS if form.prices or prices]
    forms = [form for form in able if form.prices == TURNS or max(ranks) > one.cores]  # else the same
    found = forms if len(ranks) > 1 else FORMS[:1]
    return [_judge_form(form, sweep, fitted, ranks, prices or TURNS) for form in found]


def _judge_form(form: Form, sweep: pd.DataFrame, fitted: pd.DataFrame, ranks: Sequence[int], prices: Prices) -> Judged:
    columns, times = sweep_design(fitted, form, prices), numbers(fitted, "time_s")
    at = fitted["ranks"].to_numpy(int)

    def predicted(by: Bools, cells: pd.DataFrame) -> Floats:
        coefficients, _ = laws.fit_relative(columns[by], times[by])
        return np.asarray(sweep_design(cells, form, prices) @ coefficients / numbers(cells, "time_s") - 1)

    known = min(ranks) if form.prices is None else 0  # prices were told beside the fewest ranks: these are not unseen
    by_rank = {k: predicted(at != k, fitted[at == k]) for k in ranks if k != known} if len(ranks) > 1 else {}
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


def left_out(cells: pd.DataFrame, variant: str = STEP, version: Version = AS_DECLARED) -> pd.DataFrame:
    """Steps with ``error``, t̂/t - 1, each left out of the fit in turn; α, β, s(k) and prices come from other cells anyway."""
    found = fit(cells, variant, version)
    steps = of(cells, "step", variant)
    error = np.nan if found is None else laws.crossvalidate(*_step_problem(found, steps, version))
    return steps.assign(error=error)


def unseen_ranks(one: Measured, k: int, version: Version = AS_DECLARED) -> pd.DataFrame:
    """The steps over k ranks with ``error``, by everything fitted to other numbers of ranks."""
    return _predicted(one, one.cells["ranks"] != k, k, version)


def from_fewer(one: Measured, k: int, version: Version | None = None, most: int = 2) -> pd.DataFrame:
    """The steps over k ranks with ``error``, by everything fitted to at most ``most`` ranks, the version included."""
    fewer = one.cells["ranks"] <= most
    return _predicted(one, fewer, k, version or for_more_ranks(one.cells[fewer]))


def for_more_ranks(cells: pd.DataFrame) -> Version:
    """What is declared to predict more ranks than these cells have: as steps find it and as priced, where two ranks were measured
    on one core; else the law as declared.
    """
    return AS_DECLARED if priced(cells) is None else AS_FOUND_PRICED


def crowded(one: Measured) -> pd.DataFrame:
    """The steps on fewer cores than their ranks can use, with ``error``, each by fits to no more ranks that did not see it."""
    steps = of(one.cells, "step", STEP, crowded=True)
    if not len(steps):
        return steps.assign(error=0.0)
    fewer = one.cells[one.cells["ranks"] <= steps["ranks"].max()]
    version = for_more_ranks(fewer)
    fits = [fit(fewer.drop(index=[at]), version=version) for at in steps.index]
    seconds = [np.nan if by is None else by.seconds(steps.iloc[[i]])[0] for i, by in enumerate(fits)]
    return steps.assign(error=np.array(seconds) / steps["time_s"] - 1)


def _predicted(one: Measured, seen: pd.Series, k: int, version: Version) -> pd.DataFrame:
    steps = one.steps(STEP)
    steps = steps[steps["ranks"] == k]
    found = fit(one.cells[seen], STEP, version)
    return steps.assign(error=np.nan if found is None else found.seconds(steps) / steps["time_s"] - 1)


def best_version(one: Measured, versions: Sequence[Version] = VERSIONS) -> Version:
    """As declared, unless another version errs clearly less on steps over several ranks, left out in turn; the least of them."""
    return _clearly_best(one.cells, versions)


def _clearly_best(cells: pd.DataFrame, versions: Sequence[Version]) -> Version:
    """The first unless another errs clearly less on steps over several ranks, left out in turn; the least of them."""
    errors = {version: _over_several(left_out(cells, STEP, version)) for version in versions}
    best = min(versions, key=lambda version: float(np.nan_to_num(np.abs(errors[version]).mean(), nan=np.inf)))
    return best if _clearly_less(errors[best], errors[versions[0]]) else versions[0]


def _over_several(cells: pd.DataFrame) -> Floats:
    errors = cells.loc[cells["ranks"] > 1, "error"].to_numpy(float)
    return errors if len(errors) else np.array([np.nan])
