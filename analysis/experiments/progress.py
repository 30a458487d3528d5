"""Cost against progress: what descent in batches of three sizes, by six optimizers, reaches by epoch and by second.

Epochs to a level come from the curves, seconds from what a whole epoch costs.  Ratios are paired by seed and their logs have
t intervals over the seeds.  A run that never reaches a level stays in: its length is the least that it would have taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis import words
from analysis.experiments import Claimed, Drawn, Section, Table, Told, Word
from analysis.experiments.found import Found, Row
from analysis.figures import COLOURS
from analysis.statistics import LEVEL, Estimate, Interval

Floats = NDArray[np.float64]
By = Literal["epochs", "seconds"]
Line = Literal["-", "--"]
SIDES: tuple[By, By] = ("epochs", "seconds")

#: Test accuracies asked for; where the best runs do not reach the second, and for R², shares of the best reached.
ACCURACIES, SHARES = (0.90, 0.95, 0.97), (0.80, 0.90, 0.95)
#: The level that claims are about.
GOAL = 1
VARIANTS = ("batch", "mini-batch", "stochastic")
VARIANT_COLOURS = dict(zip(VARIANTS, COLOURS, strict=False))
OPTIMIZERS = {
    "gradient-descent": "plain",
    "momentum": "momentum",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adam": "Adam",
}
PLAIN, ADAPTIVE = "gradient-descent", ("adagrad", "rmsprop", "adam")
#: Over the first steps rounding has not grown yet: so far, at most so much, the libraries' losses may differ.
FIRST_STEPS, AGREE = 30, 1e-3
SOURCE = "common advice"


@dataclass(frozen=True)
class Run:
    """One training run: curves by look, and what a whole epoch of it costs in normalised seconds."""

    impl: str
    variant: str
    optimizer: str
    seed: int
    batch: int
    rate: float
    epochs: Floats
    steps: Floats
    loss: Floats
    test_loss: Floats
    score: Floats  # test accuracy or R²
    diverged_at: int | None
    epoch_s: float
    clock: float  # the run's own clock, in pieces, over epochs × the raw cost of a whole one

    def to(self, level: float) -> tuple[float, bool]:
        """Epochs until the test score first reaches a level, straight between looks and a step at least, and True; where it
        never does all epochs of the run, and False.
        """
        there = np.nonzero(self.score >= level)[0]
        if not len(there):
            return float(self.epochs[-1]), False
        i = int(there[0])
        found = float(np.interp(level, self.score[i - 1 : i + 1], self.epochs[i - 1 : i + 1])) if i else 0.0
        return max(found, float(self.epochs[-1] / self.steps[-1])), True

    def cost(self, by: By) -> float:
        """Of an epoch."""
        return self.epoch_s if by == "seconds" else 1.0


@dataclass(frozen=True)
class Data:
    """A data set and all runs on it."""

    name: str
    kind: str
    layers: Sequence[int]
    n: int
    runs: Sequence[Run]

    def of(self, impl: str, variant: str, optimizer: str) -> dict[int, Run]:
        """Runs by seed."""
        wanted = impl, variant, optimizer
        return {run.seed: run for run in self.runs if (run.impl, run.variant, run.optimizer) == wanted}

    @property
    def impls(self) -> list[str]:
        return list(dict.fromkeys(run.impl for run in self.runs))

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Variants and optimizers that were measured, in order."""
        there = {(run.variant, run.optimizer) for run in self.runs}
        return [(v, o) for v in VARIANTS for o in OPTIMIZERS if (v, o) in there]

    def batch(self, variant: str) -> int:
        """Examples in a batch."""
        return next((run.batch for run in self.runs if run.variant == variant), 0)

    @property
    def what(self) -> str:
        """What a test score is."""
        return "R²" if self.kind == "regression" else "accuracy"

    @property
    def best(self) -> float:
        """The best test score: of every cell the median over seeds of the best look, of these the highest."""
        peaks = [
            float(np.median([np.nanmax(run.score) for run in runs.values()]))
            for impl in self.impls
            for v, o in self.cells
            if (runs := self.of(impl, v, o))
        ]
        return max(peaks)

    @property
    def relative(self) -> bool:
        """Whether levels are shares of the best score."""
        return self.kind == "regression" or self.best < ACCURACIES[GOAL]

    @property
    def levels(self) -> tuple[float, ...]:
        """Three test scores to reach.  Where nothing was learned none can be."""
        if not self.relative:
            return ACCURACIES
        return tuple(share * self.best if self.best > 0 else np.inf for share in SHARES)

    def level(self, i: int = GOAL) -> str:
        """A level in words."""
        if not self.relative:
            return f"{words.percent(self.levels[i])} test accuracy"
        return f"{words.percent(SHARES[i])} of the best test {self.what} (so {self.levels[i]:.3f})"

    @property
    def subject(self) -> str:
        """What a claim is about: ``digits (64-64-10)``."""
        return f"{self.name} ({'-'.join(map(str, self.layers))})"

    @property
    def described(self) -> str:
        """Data and network."""
        return f"{self.name} (network {'-'.join(map(str, self.layers))}, {self.n:,} training rows)"


def data_of(found: Found) -> list[Data]:
    """The data sets in the order they were trained on."""
    rows: dict[str, list[Row]] = {}
    for row in found.rows:
        if not row["tuning"]:
            rows.setdefault(str(row["name"]), []).append(row)
    return [
        Data(name, str(own[0]["kind"]), own[0]["layers"], int(own[0]["n"]), [_run(found, row) for row in own])
        for name, own in rows.items()
    ]


def _run(found: Found, row: Row) -> Run:
    epochs, steps, loss, test_loss, score = (
        np.asarray(row[key], float) for key in ("epoch", "steps", "loss", "test_loss", "test_score")
    )
    raw = float(np.median(np.atleast_1d(np.asarray(row["seconds"], float))))
    clock = row["clocked_s"][-1] / (epochs[-1] * raw)
    who = str(row["impl"]), str(row["variant"]), str(row["optimizer"]), int(row["seed"]), int(row["batch"])
    curves = epochs, steps, loss, test_loss, score
    return Run(*who, float(row["rate"]), *curves, row["diverged_at"], found.seconds(row), float(clock))


# --- comparisons ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """What one kind of run takes over what another does, paired by seed; logs are Student's over the seeds.

    ``at_most`` pairs are known from above, since the second run never got there, ``at_least`` from below; of ``unknown`` ones
    neither got there.
    """

    log: Estimate
    seeds: int
    at_most: int = 0
    at_least: int = 0
    unknown: int = 0

    @property
    def ratio(self) -> Interval:
        return self.log.interval().exp()

    def less(self, level: float = LEVEL) -> bool:
        """Whether the whole interval says that the first takes less."""
        return not self.at_least and not self.unknown and bool(self.log.interval(level).high < 0)

    def more(self, level: float = LEVEL) -> bool:
        """Whether it says that the first takes more."""
        return not self.at_most and not self.unknown and bool(self.log.interval(level).low > 0)

    @property
    def told(self) -> str:
        """The ratio in words."""
        if self.unknown:
            return f"neither got there with {self.unknown} of {self.seeds} seeds"
        if self.at_most and self.at_least:
            return f"each failed to get there with some of {self.seeds} seeds"
        bound = "at most " if self.at_most else "at least " if self.at_least else ""
        return f"{bound}{ratio_told(self.ratio)}"


def ratio_told(ratio: Interval) -> str:
    """``0.14× [0.09, 0.22]``."""
    if not np.isfinite(ratio.low):
        return f"{two_digits(ratio.value)}× (one seed)"
    return f"{two_digits(ratio.value)}× [{two_digits(ratio.low)}, {two_digits(ratio.high)}]"


def two_digits(value: float) -> str:
    """190, 0.085."""
    return words.significant(value, 2)


def compared(first: Mapping[int, Run], second: Mapping[int, Run], level: float, by: By) -> Compared:
    """Epochs or seconds to a level, the first kind's over the second's."""
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    logs, found = [], []
    for one, other in pairs:
        (a, a_there), (b, b_there) = one.to(level), other.to(level)
        logs.append(np.log(a * one.cost(by)) - np.log(b * other.cost(by)))
        found.append((a_there, b_there))
    counts = [found.count(kind) for kind in ((True, False), (False, True), (False, False))]
    return Compared(mean_of(logs), len(pairs), *counts)


def mean_of(logs: Sequence[float]) -> Estimate:
    """The mean over seeds with its standard error."""
    count = len(logs)
    error = float(np.std(logs, ddof=1) / np.sqrt(count)) if count > 1 else np.nan
    return Estimate(float(np.mean(logs)) if count else np.nan, error, max(count - 1, 0))


def per_epoch(first: Mapping[int, Run], second: Mapping[int, Run]) -> Compared:
    """Seconds of an epoch, the first kind's over the second's."""
    seeds = [seed for seed in first if seed in second]
    return Compared(mean_of([np.log(first[seed].epoch_s / second[seed].epoch_s) for seed in seeds]), len(seeds))


def word_of(parts: Sequence[Compared]) -> Word:
    """Of the claim that all take less: every one must; it falls where one takes more, with the level shared among them."""
    if all(part.less() for part in parts):
        return "supported"
    shared = 1 - (1 - LEVEL) / len(parts)  # Bonferroni: each of several chances to refute wrongly
    return "refuted" if any(part.more(shared) for part in parts) else "inconclusive"


# --- claims ---------------------------------------------------------------------------------------------------------


def claims_of(data: Data) -> list[Claimed]:
    """The claims about one data set."""
    return [claim for claim in (_epoch_claim(data), *_variant_claims(data), *_adaptive_claims(data)) if claim.cells]


def _epoch_claim(data: Data) -> Claimed:
    cells = {}
    for impl in data.impls:
        batch, stochastic = (data.of(impl, variant, PLAIN) for variant in ("batch", "stochastic"))
        if batch and stochastic:
            found = per_epoch(stochastic, batch)
            word: Word = "supported" if found.more() else "refuted" if found.less() else "inconclusive"
            why = f"Seconds of a whole epoch, stochastic over batch, over {found.seeds} seeds: {found.told}."
            cells[impl] = Told(word, found.told, why)
    statement = (
        f"{data.subject}: an epoch of stochastic descent ({data.n:,} steps of one example) takes longer than one of batch "
        "descent (one step)"
    )
    return Claimed(statement, "progress", cells, "progress-levels", SOURCE)


def _variant_claims(data: Data) -> Iterator[Claimed]:
    for other in ("batch", "stochastic"):
        cells = {}
        for impl in data.impls:
            mini, rival = data.of(impl, "mini-batch", PLAIN), data.of(impl, other, PLAIN)
            if mini and rival:
                found = compared(mini, rival, data.levels[GOAL], "seconds")
                names = f"mini-batch over {other} descent"
                cells[impl] = Told(word_of([found]), found.told, _why(data, names, found, mini, rival, "Seconds"))
        statement = (
            f"{data.subject}: mini-batch descent (b = {data.batch('mini-batch')}) reaches {data.level()} in less time than "
            f"{other} descent, both plain and tuned alike"
        )
        yield Claimed(statement, "progress", cells, "progress-levels", SOURCE)


def _adaptive_claims(data: Data) -> Iterator[Claimed]:
    methods = [name for name in ADAPTIVE if ("mini-batch", name) in data.cells]
    named = ", ".join(OPTIMIZERS[name] for name in methods)
    subject = f"adaptive methods ({named}), each of them, reach" if len(methods) > 1 else f"{named} reaches"
    for by, what in zip(SIDES, ("fewer epochs", "less time"), strict=True):
        cells = {}
        for impl in data.impls:
            plain, runs = (
                data.of(impl, "mini-batch", PLAIN),
                {name: data.of(impl, "mini-batch", name) for name in methods},
            )
            if plain and runs and all(runs.values()):
                found = {name: compared(own, plain, data.levels[GOAL], by) for name, own in runs.items()}
                evidence = "; ".join(f"{OPTIMIZERS[name]} {one.told}" for name, one in found.items())
                why = " ".join(
                    _why(data, f"{OPTIMIZERS[name]} over plain descent", one, runs[name], plain, by.capitalize())
                    for name, one in found.items()
                )
                cells[impl] = Told(word_of(list(found.values())), evidence, why)
        statement = (
            f"{data.subject}: {subject} {data.level()} in {what} than plain gradient "
            f"descent, all in mini-batches (b = {data.batch('mini-batch')}) and tuned alike"
        )
        yield Claimed(statement, "progress", cells, "progress-levels", SOURCE)


def _why(
    data: Data, names: str, found: Compared, first: Mapping[int, Run], second: Mapping[int, Run], what: str
) -> str:
    reached = " and ".join(reached_told(runs, data.levels[GOAL]) for runs in (first, second))
    return f"{what} to {data.level()}, {names}, paired by seed: {found.told}; reached by {reached} seeds."


def reached_told(runs: Mapping[int, Run], level: float) -> str:
    """``2 of 3``."""
    return f"{sum(run.to(level)[1] for run in runs.values())} of {len(runs)}"


# --- tables ---------------------------------------------------------------------------------------------------------


def tables_of(found: Found, sets: Sequence[Data]) -> list[Table]:
    """Time to every level, epochs to it, the grids, and how far the curves coincide."""
    return [
        *(table for data in sets for table in (_time_table(data), _epoch_table(data))),
        _grid_table(found),
        *([_agreement_table(sets)] if any(len(data.impls) > 1 for data in sets) else []),
    ]


def _time_table(data: Data) -> Table:
    heads = [f"{_short(data, i)}, {impl}" for i in range(len(data.levels)) for impl in data.impls]
    rows = [
        [
            v,
            OPTIMIZERS[o],
            *(to_level(data.of(impl, v, o), level, "seconds") for level in data.levels for impl in data.impls),
        ]
        for v, o in data.cells
    ]
    caption = f"{data.described}: time to {', '.join(data.level(i) for i in range(len(data.levels)))}. {_READING}"
    return Table(caption, ["descent", "optimizer", *heads], rows, range(2, 2 + len(heads)), folded=True)


_READING = "Geometric means over the seeds with 95 % intervals; where not all got there, by how many of the seeds it was reached."


def _epoch_table(data: Data) -> Table:
    """Epochs are the same in every library: those of the first one."""
    impl = data.impls[0]
    rows = []
    for v, o in data.cells:
        if runs := data.of(impl, v, o):
            last = [run.score[-1] for run in runs.values()]
            cells = [to_level(runs, level, "epochs") for level in data.levels]
            seconds = [
                words.seconds(float(np.median([run.epoch_s for run in own.values()])))
                if (own := data.of(name, v, o))
                else "–"
                for name in data.impls
            ]
            told = f"{np.median(last):.3f} ({min(last):.3f} to {max(last):.3f})"
            rows.append([v, OPTIMIZERS[o], _rates([run.rate for run in runs.values()]), *cells, told, *seconds])
    heads = [f"epochs to {_short(data, i)}" for i in range(len(data.levels))]
    header = ["descent", "optimizer", "rate", *heads, f"last test {data.what}", *(f"an epoch, {x}" for x in data.impls)]
    caption = (
        f"{data.described}: the chosen learning rates, epochs to each level and the test {data.what} after the last epoch "
        f"(median and range over seeds) in {impl}'s runs, and what an epoch costs. {_READING}"
    )
    return Table(caption, header, rows, range(2, len(header)), folded=True)


def _short(data: Data, i: int) -> str:
    return f"{data.levels[i]:.3f}" if data.relative else words.percent(data.levels[i])


def to_level(runs: Mapping[int, Run], level: float, by: By) -> str:
    """Geometric mean and interval over seeds, or by how many the level was reached."""
    if not runs:
        return "–"
    if not all(run.to(level)[1] for run in runs.values()):
        return f"{reached_told(runs, level)} seeds"
    return span(interval_to(runs, level, by), by)


def interval_to(runs: Mapping[int, Run], level: float, by: By) -> Interval:
    """Of what it takes to a level; a run that never gets there counts with its length."""
    return mean_of([np.log(run.to(level)[0] * run.cost(by)) for run in runs.values()]).interval().exp()


def span(interval: Interval, by: By) -> str:
    """``8.3 ms [6.1, 11]``, all in one unit."""
    units = ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))
    size, unit = next((u for u in units if interval.value >= u[0]), units[-1]) if by == "seconds" else (1.0, "")
    value, low, high = (end / size for end in (interval.value, interval.low, interval.high))
    return f"{two_digits(value)}{unit}" + (f" [{two_digits(low)}, {two_digits(high)}]" if np.isfinite(low) else "")


def _grid_table(found: Found) -> Table:
    rows = []
    for (data, v, o), own in grids(found).items():
        rates = dict.fromkeys(row["rate"] for row in own)
        tried = [_tried(rate, [row for row in own if row["rate"] == rate]) for rate in sorted(rates)]
        rows.append([data, v, OPTIMIZERS[o], _rates(list(chosen(own).values())), " · ".join(tried)])
    caption = (
        "Every learning rate that was tried, with its loss on the validation rows, averaged over the logarithm of epochs and "
        "over the seeds. The rate whose loss was least was chosen for each seed, so often as stands behind it. Rates that "
        "diverge are named with the step after which they had."
    )
    return Table(caption, ["data", "descent", "optimizer", "chosen", "tried"], rows, (3,), folded=True)


def grids(found: Found) -> dict[tuple[str, str, str], list[Row]]:
    """What tuning tried, by data, variant and optimizer."""
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for row in found.rows:
        if row["tuning"]:
            cells.setdefault((Path(str(row["data"])).name, str(row["variant"]), str(row["optimizer"])), []).append(row)
    return cells


def chosen(rows: Sequence[Row]) -> dict[int, float]:
    """The rate that was, by seed."""
    return {int(row["seed"]): float(row["rate"]) for row in rows if row["chosen"]}


def _rates(rates: Sequence[float]) -> str:
    """``0.1 (2), 0.3 (1)``: how often each; of one rate, that alone."""
    counts = Counter(sorted(rates))
    if len(counts) == 1:
        return f"{rates[0]:.2g}"
    return ", ".join(f"{rate:.2g} ({count})" for rate, count in counts.items())


def _tried(rate: float, rows: Sequence[Row]) -> str:
    gone = [row["diverged_at"] for row in rows if row["diverged_at"] is not None]
    if gone:
        return f"{rate:.2g}: diverged at step {', '.join(map(str, gone))}"
    return f"{rate:.2g}: {np.mean([row['score'] for row in rows]):.3g}"


@dataclass(frozen=True)
class Agreement:
    """Largest relative difference between two libraries' training losses, over the first steps and over all."""

    first: float
    whole: float


def agreement(data: Data, variant: str, optimizer: str) -> Agreement:
    """Of every two libraries' runs with equal seeds: |L - L'| / max(L, L') at the looks where both have a loss."""
    first, whole = [0.0], [0.0]
    for one, other in combinations([data.of(impl, variant, optimizer) for impl in data.impls], 2):
        for seed in one.keys() & other.keys():
            a, b = one[seed], other[seed]
            common = min(len(a.loss), len(b.loss))
            larger = np.maximum(a.loss[:common], b.loss[:common])
            apart = np.abs(a.loss[:common] - b.loss[:common]) / np.maximum(larger, 1e-12)
            whole.append(float(np.nanmax(apart)))
            first.append(float(np.nanmax(apart[a.steps[:common] <= FIRST_STEPS])))
    return Agreement(max(first), max(whole))


def _agreement_table(sets: Sequence[Data]) -> Table:
    names = [name for name in OPTIMIZERS if any(name == o for data in sets for _, o in data.cells)]
    rows = []
    for data in sets:
        for v in VARIANTS:
            found = [agreement(data, v, o) if (v, o) in data.cells else None for o in names]
            cells = [f"{one.first:.0e} / {one.whole:.0e}" if one else "–" for one in found]
            rows.append([data.name, v, *cells])
    caption = (
        "How far the libraries' training losses differ with equal seeds: the largest relative difference at any look, over "
        f"the first {FIRST_STEPS} steps / over the whole run. Rounding differs from the first step on, and training lets it grow."
    )
    return Table(
        caption, ["data", "descent", *(OPTIMIZERS[o] for o in names)], rows, range(2, 2 + len(names)), folded=True
    )


# --- figures --------------------------------------------------------------------------------------------------------


def figures_of(found: Found, sets: Sequence[Data]) -> list[Drawn]:
    """Curves by epoch and by second, by optimizer, and the time to the level of the claims."""
    return [
        *(_drawn_curves(data, i) for i, data in enumerate(sets)),
        *(_drawn_optimizers(data, i) for i, data in enumerate(sets)),
        Drawn(
            "progress-levels",
            "Time to the level of the claims",
            f"Time to {'; '.join(f'{data.level()} on {data.name}' for data in sets)}. Full marks: the geometric mean over the "
            "seeds with its 95 % interval. Hollow ones: not all seeds got there; the share that did stands beside it, and "
            "the mark counts each of the others with its length, the least it would have taken.",
            _levels(found, sets),
        ),
    ]


def _key(name: str, i: int) -> str:
    return f"progress-{name}-{i + 1}" if i else f"progress-{name}"


def _drawn_curves(data: Data, i: int) -> Drawn:
    impl = data.impls[0]
    caption = (
        f"{data.described}: test {data.what} and losses of plain gradient descent in batches of three sizes, each with its "
        f"own tuned learning rate; {impl}. Median over the seeds, shaded from the least to the largest; dotted: the levels "
        "asked about; dashed: the loss on the rows trained on. Horizontal axes are logarithmic, so the start is not shown."
    )
    return Drawn(_key("curves", i), f"Progress by epoch and by second: {data.name}", caption, _curves(data, impl))


def _drawn_optimizers(data: Data, i: int) -> Drawn:
    impl = data.impls[0]
    caption = (
        f"{data.described}: test loss of each optimizer with the rates tuned for it; {impl}. Median over the seeds, shaded "
        "from the least to the largest. Where a line rises, training goes on but the rows not trained on are predicted worse."
    )
    return Drawn(_key("optimizers", i), f"Test loss by second: {data.name}", caption, _by_optimizer(data, impl))


def _curves(data: Data, impl: str) -> Figure:
    figure = Figure(figsize=(9.5, 5.6), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row", sharex="col")
    for (above, below), by in zip(grid.T, SIDES, strict=True):
        for variant in VARIANTS:
            runs = data.of(impl, variant, PLAIN)
            _band(above, runs, variant, "score", by)
            _band(below, runs, variant, "test_loss", by)
            _band(below, runs, variant, "loss", by, linestyle="--")
        for level in filter(np.isfinite, data.levels):
            above.axhline(level, color="#888888", linewidth=0.8, linestyle=":")
        above.set(xscale="log")
        below.set(xscale="log", yscale="log", xlabel=by)
    top = 1.02 if data.kind == "classification" else 1.15 * max(data.best, 0.1)
    grid[0][0].set(ylim=(0, top), ylabel=f"test {data.what}")
    grid[1][0].set_ylabel("loss: test, and training dashed")
    _variant_legend(figure, data)
    return figure


def _by_optimizer(data: Data, impl: str) -> Figure:
    names = [name for name in OPTIMIZERS if any(o == name for _, o in data.cells)]
    lines = -(-len(names) // 3)
    figure = Figure(figsize=(9.5, 0.5 + 2.5 * lines), layout="constrained")
    grid = figure.subplots(lines, 3, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        for variant in VARIANTS:
            _band(axes, data.of(impl, variant, name), variant, "test_loss", "seconds")
        axes.set(xscale="log", yscale="log", title=OPTIMIZERS[name])
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    for axes in grid[:, 0]:
        axes.set_ylabel("test loss")
    _variant_legend(figure, data)
    return figure


def _variant_legend(figure: Figure, data: Data) -> None:
    handles = [
        Line2D([], [], color=VARIANT_COLOURS[variant], label=f"{variant} (b = {data.batch(variant):,})")
        for variant in VARIANTS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


Curve = Literal["score", "test_loss", "loss"]


def _band(axes: Axes, runs: Mapping[int, Run], variant: str, what: Curve, by: By, linestyle: Line = "-") -> None:
    """The median over seeds, shaded from the least to the largest where it is no second line."""
    if not runs:
        return
    common = min(len(run.epochs) for run in runs.values())
    x = next(iter(runs.values())).epochs[1:common] * np.median([run.cost(by) for run in runs.values()])
    curves = np.array([getattr(run, what)[1:common] for run in runs.values()])
    colour = VARIANT_COLOURS[variant]
    axes.plot(
        x, np.median(curves, axis=0), color=colour, linestyle=linestyle, linewidth=1.2 if linestyle == "-" else 0.8
    )
    if linestyle == "-":
        axes.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def _levels(found: Found, sets: Sequence[Data]) -> Figure:
    names = [name for name in OPTIMIZERS if any(name == o for data in sets for _, o in data.cells)]
    figure = Figure(figsize=(9.5, 0.9 + (0.5 + 0.42 * len(names)) * len(sets)), layout="constrained")
    grid = figure.subplots(len(sets), 3, squeeze=False, sharey=True, sharex="row")
    impls = list(dict.fromkeys(impl for data in sets for impl in data.impls))
    for line, data in zip(grid, sets, strict=True):
        for axes, variant in zip(line, VARIANTS, strict=True):
            _level_panel(axes, found, data, variant, names)
            axes.set(xscale="log", title=f"{data.name}, {variant}")
            axes.set_yticks(range(len(names)), [OPTIMIZERS[name] for name in names])
            axes.grid(axis="y", visible=False)
    grid[0][0].invert_yaxis()  # shared
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    handles = [Line2D([], [], linestyle="none", label=impl, **found.style(impl)) for impl in impls]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return figure


def _level_panel(axes: Axes, found: Found, data: Data, variant: str, names: Sequence[str]) -> None:
    level = data.levels[GOAL]
    for j, impl in enumerate(data.impls):
        style = found.style(impl)
        for i, name in enumerate(names):
            runs = data.of(impl, variant, name)
            if not runs:
                continue
            y = i + 0.22 * (j - (len(data.impls) - 1) / 2)
            interval = interval_to(runs, level, "seconds")
            there = sum(run.to(level)[1] for run in runs.values())
            if there == len(runs):
                if np.isfinite(interval.low):
                    axes.plot([interval.low, interval.high], [y, y], color=style["color"], linewidth=1)
                axes.plot(interval.value, y, linestyle="none", **style)
            else:
                axes.plot(interval.value, y, linestyle="none", markerfacecolor="white", **style)
                axes.annotate(
                    f"{there}/{len(runs)}",
                    (interval.value, y),
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=6.5,
                    color="#555555",
                )


# --- the section ----------------------------------------------------------------------------------------------------


def section(found: Found) -> Section:
    """What the report has of this experiment."""
    sets = data_of(found)
    title = "What a step buys: batch, mini-batch, stochastic and adaptive descent"
    if not sets:
        return Section(found.name, title, "Nothing was measured to the end.")
    return Section(
        found.name,
        title,
        " ".join(_lead(data) for data in sets),
        _paragraphs(found, sets),
        tables_of(found, sets),
        figures_of(found, sets),
        [claim for data in sets for claim in claims_of(data)],
    )


def _lead(data: Data) -> str:
    """What plain descent took to the level, by variant, in the first library."""
    impl = data.impls[0]
    parts = [f"{v} descent {_took(runs, data.levels[GOAL])}" for v in VARIANTS if (runs := data.of(impl, v, PLAIN))]
    return (
        f"On {data.described}, plain gradient descent reached {data.level()} in {impl} like this: {'; '.join(parts)}."
    )


def _took(runs: Mapping[int, Run], level: float) -> str:
    if not all(run.to(level)[1] for run in runs.values()):
        longest = words.seconds(max(run.epochs[-1] * run.epoch_s for run in runs.values()))
        return f"with {reached_told(runs, level)} seeds (runs last {longest})"
    epochs, seconds = interval_to(runs, level, "epochs").value, interval_to(runs, level, "seconds").value
    return f"in {two_digits(epochs)} epochs and {words.seconds(float(f'{seconds:.2g}'))}"


def _paragraphs(found: Found, sets: Sequence[Data]) -> list[str]:
    seeds = len({run.seed for run in sets[0].runs})
    return [
        "Every optimizer got its learning rate in the same way, for each size of batch: from a grid of rates a factor of three "
        "apart that grows while its best lies on the edge, the one whose validation loss was least, averaged over the "
        "logarithm of epochs, so that being quicker by a factor counts alike early and late. "
        f"{_edges(found)} NumPy alone did this, since all libraries' curves coincide; nothing else was tuned. Test rows had "
        "no part in it. Every seed was tuned anew, by tries with other starts and orders than its run has: intervals hold what "
        "tuning leaves to chance. Three fifths of the rows are trained on, a fifth each validates and tests; the split is "
        "one and the same, so intervals do not tell what other rows would change.",
        f"Every run was repeated with {seeds} seeds, alike in all libraries: equal starts, equal batches. A level counts as "
        "reached where the test score first does; between two looks, which lie close at first and ever further apart, the curve "
        "is taken as straight. Ratios are paired by seed, their logs have Student's t intervals over the seeds. A run that "
        "never reaches a level stays in the comparison with its whole length, which is the least it would have taken: the ratio "
        "is then a bound, and a verdict is given only where the bound decides it.",
        "A claim about several methods is supported where it holds for each of them, and refuted where it fails for one, whose "
        "interval is widened by the number of chances to be wrong.",
        f"What an epoch costs was timed in rounds of whole epochs, normalised like the sweeps' cells; seconds are epochs times "
        f"that. {_clocks(sets)}",
        *_disagreements(sets),
        *_divergences(sets),
    ]


def _edges(found: Found) -> str:
    cells = grids(found)
    edge = [
        f"{OPTIMIZERS[o]}, {v} on {data}"
        for (data, v, o), rows in cells.items()
        if {min(row["rate"] for row in rows), max(row["rate"] for row in rows)} & set(chosen(rows).values())
    ]
    if edge:
        return f"A chosen rate is the last that was tried, and might not be the best, for {'; '.join(edge)}."
    return f"In all {len(cells)} grids the chosen rates lie between others that were tried and did worse."


def _clocks(sets: Sequence[Data]) -> str:
    impls = list(dict.fromkeys(impl for data in sets for impl in data.impls))
    parts = []
    for impl in impls:
        clocks = [run.clock for data in sets for run in data.runs if run.impl == impl]
        parts.append(f"{np.median(clocks):.2f} times as long ({min(clocks):.2f} to {max(clocks):.2f}) in {impl}")
    return (
        "The runs themselves, which are handed over in pieces so that they can be looked at within an epoch, took "
        f"{', '.join(parts)}: small pieces cost more calls."
    )


def _disagreements(sets: Sequence[Data]) -> list[str]:
    """Whether the curves coincide where they must."""
    if all(len(data.impls) < 2 for data in sets):
        return []
    cells = [(data, v, o, agreement(data, v, o)) for data in sets for v, o in data.cells]
    apart = [f"{OPTIMIZERS[o]}, {v} on {data.name} ({one.first:.1g})" for data, v, o, one in cells if one.first > AGREE]
    if apart:
        return [
            f"The libraries' curves do NOT coincide: over the first {FIRST_STEPS} steps training losses differ by more than "
            f"{AGREE:g} of their size for {'; '.join(apart)}."
        ]
    first, whole = (max(getattr(one, part) for *_, one in cells) for part in ("first", "whole"))
    return [
        f"The libraries' curves coincide: over the first {FIRST_STEPS} steps training losses with equal seeds differ by at most "
        f"{first:.1g} of their size; over whole runs, through which rounding grows, by at most {whole:.1g}."
    ]


def _divergences(sets: Sequence[Data]) -> list[str]:
    gone = [
        f"{run.impl}, {run.optimizer}, {run.variant} on {data.name}, seed {run.seed} (step {run.diverged_at})"
        for data in sets
        for run in data.runs
        if run.diverged_at is not None
    ]
    return [f"Runs that diverged with the chosen rate: {'; '.join(gone)}."] if gone else []
