"""What an epoch costs by the size of its batches: the law, its word on sizes it never saw, and what dominates where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import laws
from analysis.charts import Axis, Chart, Line, Panel, Row
from analysis.experiments import Claimed, Drawn, Section, Table, Told, Word
from analysis.experiments.found import Found
from analysis.hypotheses import declared
from analysis.laws import LawFit, Parts
from analysis.statistics import Interval, share_of, t_quantile
from analysis.words import percent, seconds, with_interval

#: A law predicts batch sizes if of four in five the time lies within this of what it says.
WITHIN, SHARE = 0.1, 0.8
#: Times that do not repeat make misses: so large a share of them refutes no law.  A time repeats if half of its passes lie
#: within so much of the median.
UNSTEADY, REPEATS = 0.1, 0.05
#: A step of one example, and an epoch's share of one: equal within this.
EQUAL = 0.1
CELL = ["impl", "what", "layers", "activation", "optimizer", "n", "batch"]
#: Terms of the laws by what they are paid for.
PARTS = {
    "overhead": ("1", "steps", "steps·hidden·p", *(f"steps·reaches(batch, {least})" for least in (2, 4))),
    "parameters, once a step": ("steps·m", "steps·reaches(batch, 4)·m"),
    "products": ("n·m",),
    "activations": (
        "n",
        "n·u·p",
        "n·u",
        "steps·u·p·(1 - reaches(batch, 2))",
        "steps·u·(p - 2)·loose(batch, 8)",
    ),
}
PART_COLOURS = ("#999999", "#009E73", "#0072B2", "#E69F00")


@dataclass(frozen=True)
class Series:
    """One implementation under one optimizer: its cells, the laws fitted, and the one chosen."""

    impl: str
    optimizer: str
    cells: pd.DataFrame  # a row a cell, passes joined; epochs and the rest
    passes: pd.DataFrame  # a row a cell and pass
    fits: Sequence[LawFit]
    best: LawFit

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return self.impl if self.optimizer == "gradient-descent" else f"{self.impl}, {self.optimizer}"

    @property
    def epochs(self) -> pd.DataFrame:
        """The epochs in batches of any size."""
        return self.cells[self.cells["what"] == "epoch"]

    @property
    def unseen(self) -> pd.DataFrame:
        """Those no fit saw, with ``error``, t̂/t - 1 of the law that wins."""
        return self._judged(self.epochs[~self.epochs["seen"].astype(bool)])

    @property
    def unsteady(self) -> float:
        """Share of the epochs whose times do not repeat from pass to pass; NaN where there is one pass."""
        epochs = self.passes[self.passes["what"] == "epoch"]
        if epochs["pass"].nunique() < 2:
            return float("nan")
        logs = epochs.assign(log_s=np.log(epochs["time_s"])).groupby(CELL)["log_s"]
        away = logs.agg(lambda passes: float(np.median(np.abs(passes - np.median(passes)))))
        return float((away > REPEATS).mean())

    @property
    def longer(self) -> pd.DataFrame:
        """The epochs over more examples, likewise."""
        return self._judged(self.cells[self.cells["what"] == "longer"])

    @property
    def share(self) -> Interval:
        """Of the batch sizes no fit saw, those within ``WITHIN``.

        Given the fit, sizes that were drawn each on its own are independent trials; that some octaves or networks are harder
        than others only makes the count vary less (Hoeffding 1956).  So it is an interval for other sizes of these networks,
        drawn alike, not for other networks.
        """
        within = np.abs(self.unseen["error"]) <= WITHIN
        return share_of(int(within.sum()), len(within))

    def _judged(self, cells: pd.DataFrame) -> pd.DataFrame:
        return cells.assign(error=self.best.predict(cells) / cells["time_s"] - 1)


def section(found: Found) -> Section:
    """Laws, verdicts, tables and figures."""
    every = series(found)
    return Section(
        "epochs",
        "What an epoch costs, from stochastic to batch",
        _lead(every),
        (
            "Batch sizes are drawn from every octave between 1 and n, anew for every network: one of each, 1 and n are "
            "fitted, with one epoch over a quarter of the examples; the others judge. Laws are fitted to relative errors, "
            "for all networks of an implementation together, with coefficients that cannot be negative; the one that "
            "wins errs least on cells left out in turn. An epoch takes as many of the examples as fill whole batches, "
            "and its time is the median over passes.",
            f"Supported where the 95 % interval of the share lies at or above {percent(SHARE)}, refuted where it lies "
            "below: it tells of other batch sizes for these networks, drawn alike, not of other networks. What a size "
            "costs need not lie on any smooth law: libraries compile and call other code for other sizes, whole vectors "
            "of 8 or 16 examples or what is left of them. Such sizes are named in the table.",
            _longer(every),
            "Parameters are paid for once a step by the update, and also where a product of few examples reads all "
            "weights anew: the law cannot tell these apart, so the update's own share was measured by itself. JAX runs "
            "an epoch in one compiled loop, so its step within an epoch has no call of its own.",
        ),
        (_laws_table(every), _misses_table(every), _shares_table(every)),
        (_cost_figure(every), _share_figure(every)),
        (_law_claim(every), _stochastic_claim(every)),
    )


def series(found: Found) -> list[Series]:
    """One for each implementation and optimizer measured."""
    rows = found.frame.assign(time_s=[found.seconds(row) for row in found.rows])
    rows["layers"] = ["-".join(map(str, layers)) for layers in rows["layers"]]
    rows["steps"] = np.ceil(rows["n"] / rows["batch"])
    made = []
    for impl in found.impls:
        for optimizer in rows["optimizer"].unique():
            passes = rows[(rows["impl"] == impl) & (rows["optimizer"] == optimizer)]
            if (passes["what"] == "epoch").any():
                made.append(_fitted(impl, str(optimizer), passes))
    return made


def _fitted(impl: str, optimizer: str, passes: pd.DataFrame) -> Series:
    kept = ["m", "p", "u", "hidden", "width", "steps", "seen"]
    logs = passes.assign(log_s=np.log(passes["time_s"]))
    # the median, since a disturbance that lasts as long as a cell may spoil it in one pass
    cells = logs.groupby(CELL, as_index=False).agg({"log_s": "median", **dict.fromkeys(kept, "first")})
    cells["time_s"] = np.exp(cells["log_s"])
    cells["operations_total"] = cells["n"] * cells["m"]
    seen = cells[cells["what"].isin(["epoch", "shorter"]) & cells["seen"].astype(bool)]
    unseen = cells[(cells["what"] == "epoch") & ~cells["seen"].astype(bool)]
    parts = Parts(seen, seen.iloc[:0], unseen)
    candidates = [law for law in declared() if "epoch" in law.phases]
    fits = [fit for law in candidates if (fit := laws.fit_law(law, parts)) is not None]
    return Series(impl, optimizer, cells, passes, fits, min(fits, key=lambda fit: fit.loss))


# --- words ----------------------------------------------------------------------------------------------------------


def _lead(every: Sequence[Series]) -> str:
    told = [f"{one.name} {_counted(one)} (median error {percent(_median(one.unseen), 1)})" for one in every]
    return (
        "An epoch is n times what an example costs and n/b times what a step costs. Asked about batch sizes it was not "
        f"fitted to, the law that wins is right within {percent(WITHIN)} for: {'; '.join(told)}."
    )


def _longer(every: Sequence[Series]) -> str:
    """How far the laws reach beyond the examples that were fitted."""
    told = [
        f"{one.name} {percent(float(np.abs(cells['error']).max()), 1)}" for one in every if len(cells := one.longer)
    ]
    if not told:
        return "No epoch was measured over more examples than those fitted."
    n, batch = (int(every[0].longer[name].iloc[0]) for name in ("n", "batch"))
    return (
        f"Over {n:,} examples in batches of {batch}, which leave a rest, the law is off by at most: {', '.join(told)}."
    )


def _counted(one: Series) -> str:
    within = int((np.abs(one.unseen["error"]) <= WITHIN).sum())
    return f"{within} of {len(one.unseen)} sizes"


def _median(cells: pd.DataFrame) -> float:
    return float(np.median(np.abs(cells["error"])))


def _law_claim(every: Sequence[Series]) -> Claimed:
    cells = {one.name: _predicts(one) for one in every}
    statement = (
        "an epoch costs n times an example's part and n/b times a step's part, which predicts at least "
        f"{percent(SHARE)} of other batch sizes within {percent(WITHIN)}"
    )
    return Claimed(statement, "epochs in batches of 1 to n", cells, "epochs-cost")


def _predicts(one: Series) -> Told:
    share = one.share
    word: Word = "supported" if share.low >= SHARE else "refuted" if share.high < SHARE else "inconclusive"
    told = f"{percent(share.value)} [{percent(share.low)}, {percent(share.high)}] of sizes"
    median = percent(_median(one.unseen), 1)
    why = f"“{one.best.law.name}” predicts {_counted(one)} within {percent(WITHIN)}: {told}, median error {median}."
    if word != "supported":
        worst = min(_by_network(one), key=lambda network: network.right / network.sizes)
        why += f" It does worst for {worst.name}: {worst.right} of {worst.sizes} sizes."
    if word == "refuted" and not one.unsteady <= UNSTEADY:  # NaN too
        return Told("inconclusive", f"{told}, {_noise(one)}", f"{why} But {_noise(one)}: that may be why.")
    return Told(word, told, why)


def _noise(one: Series) -> str:
    """Why misses may be the machine's fault."""
    if np.isnan(one.unsteady):
        return "one pass cannot tell noise from the law"
    return f"{percent(one.unsteady)} of times do not repeat within {percent(REPEATS)}"


@dataclass(frozen=True)
class _Network:
    """Of one network's unseen sizes, how many the law is right about, its median error, and what it misses."""

    name: str
    right: int
    sizes: int
    median: float
    missed: pd.DataFrame


def _by_network(one: Series) -> list[_Network]:
    made = []
    for (layers, activation), cells in one.unseen.groupby(["layers", "activation"]):
        missed = cells[np.abs(cells["error"]) > WITHIN].sort_values("batch")
        right = len(cells) - len(missed)
        made.append(_Network(f"{layers} {activation}", right, len(cells), _median(cells), missed))
    return made


def _stochastic_claim(every: Sequence[Series]) -> Claimed:
    cells = {one.name: _stochastic(one) for one in every}
    statement = "with b = 1 an epoch costs as much as n whole steps: forward, backward and update for every example"
    return Claimed(statement, "an epoch of single examples over n steps of one example", cells, "epochs-cost")


def _stochastic(one: Series) -> Told:
    ratio = _ratio(one)
    if not np.isfinite(ratio.low):
        return Told("inconclusive", f"{ratio.value:.2f}, one pass", "One pass has no interval: no verdict rests on it.")
    told = with_interval(ratio.value, ratio.low, ratio.high)
    low, high = 1 / (1 + EQUAL), 1 + EQUAL
    if low <= ratio.low and ratio.high <= high:
        return Told("supported", told, f"An epoch of single examples takes {told} times n steps of one example.")
    if ratio.high < low or ratio.low > high:
        less = "less: each example goes through all phases, but not by a call of its own"
        more = "more: beside its step, each example is picked and handed over"
        by = less if ratio.high < low else more
        return Told("refuted", told, f"An epoch of single examples takes {told} times as long as n steps, {by}.")
    return Told("inconclusive", told, f"{told} reaches beyond ±{percent(EQUAL)} about 1.")


def _ratio(one: Series) -> Interval:
    """epoch(b = 1) / (n · step(1)), mean over networks of the log, with a t interval over passes."""
    keys = ["pass", "layers", "activation"]
    epoch = one.passes[(one.passes["what"] == "epoch") & (one.passes["batch"] == 1)].set_index(keys)
    step = one.passes[one.passes["what"] == "step"].set_index(keys)
    ratios = epoch["time_s"] / epoch["n"] / step["time_s"]
    logs = ratios.map(np.log).groupby("pass").mean().to_numpy(float)
    mean = float(np.mean(logs))
    if len(logs) < 2:
        return Interval(mean, np.nan, np.nan).exp()
    half = t_quantile(len(logs) - 1) * float(np.std(logs, ddof=1)) / np.sqrt(len(logs))
    return Interval(mean, mean - half, mean + half).exp()


# --- tables ---------------------------------------------------------------------------------------------------------


def _laws_table(every: Sequence[Series]) -> Table:
    rows = [
        (
            one.name,
            fit.law.name + (" ★" if fit is one.best else ""),
            "; ".join(f"{t.text}: {c:.3g}" for t, c in zip(fit.law.terms, fit.coefficients, strict=True)),
            percent(fit.crossvalidated_median, 1),
            percent(fit.heldout_median, 1),
            percent(fit.heldout_p90, 1),
        )
        for one in every
        for fit in one.fits
    ]
    header = (
        "implementation",
        "law",
        "coefficients, seconds per term",
        "left out in turn",
        "unseen, median",
        "unseen, p90",
    )
    return Table("Laws of an epoch; ★ wins. Errors are absolute and relative.", header, rows, (3, 4, 5))


def _misses_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        for found in _by_network(one):
            missed = zip(found.missed["batch"], found.missed["error"], strict=True)
            told = ", ".join(f"{batch} ({100 * error:+.0f}\N{NO-BREAK SPACE}%)" for batch, error in missed)
            right = f"{found.right} of {found.sizes}"
            rows.append((one.name, found.name, right, percent(found.median, 1), told or "none"))
    header = ("implementation", "network", f"within {percent(WITHIN)}", "median error", "batch sizes missed")
    caption = "The law that wins on batch sizes that no fit saw; errors are prediction over time, less one."
    return Table(caption, header, rows, (2, 3))


def _shares_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        for network, cells in one.epochs.groupby(["layers", "activation"]):
            times = cells.set_index("batch")["time_s"]
            n = int(times.index.max())
            alone = one.cells[(one.cells["layers"] == network[0]) & (one.cells["activation"] == network[1])].set_index(
                "what"
            )["time_s"]
            update = float(alone.get("update", np.nan))
            rows.append(
                (
                    one.name,
                    " ".join(map(str, network)),
                    seconds(float(times[1])),
                    seconds(float(times[n])),
                    f"{times[1] / times[n]:.1f}×",
                    _share_of_epoch(update * n / float(times[1])),
                    _share_of_epoch(update / float(times[n])),
                )
            )
    header = ("implementation", "network", "epoch, b = 1", "epoch, b = n", "ratio", "update, b = 1", "update, b = n")
    caption = (
        "Epochs of single examples and of one batch; the share of the update, timed by itself as a call of its own, which "
        "may take longer than a whole step in a compiled loop."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 6))


def _share_of_epoch(share: float) -> str:
    return percent(share, 1) if not share > 1 else "over 100 %"


# --- figures --------------------------------------------------------------------------------------------------------


def _cost_figure(every: Sequence[Series]) -> Drawn:
    networks = list(dict.fromkeys(every[0].epochs[["layers", "activation"]].itertuples(index=False, name=None)))
    panels = [Panel(one.name, [line for network in networks for line in _costs(one, network)]) for one in every]
    chart = Chart(
        Axis("examples in a batch, b", log=True),
        [Row(Axis("an example", "µs", log=True), panels)],
        [" ".join(network) for network in networks],
        hollow="never fitted",
    )
    caption = "An epoch's time for each example. Lines: the law that wins; open marks: batch sizes that no fit saw."
    return Drawn("epochs-cost", "An epoch by the size of its batches", caption, chart)


def _costs(one: Series, network: tuple[str, str]) -> list[Line]:
    cells = _of(one, *network)
    if cells.empty:
        return []
    batch, per_example = list(cells["batch"]), list(cells["time_s"] / cells["n"] * 1e6)
    law, name = list(one.best.predict(cells) / cells["n"] * 1e6), " ".join(network)
    return [
        Line(name, batch, law, "line", "law"),
        Line(name, batch, per_example, "points", "measured", hollow=list(~cells["seen"].astype(bool))),
    ]


def _share_figure(every: Sequence[Series]) -> Drawn:
    figure = Figure(figsize=(3.3 * len(every) + 0.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(every), sharey=True, squeeze=False)[0]
    layers, activation = _middle(every[0])
    for ax, one in zip(axes, every, strict=True):
        cells = _of(one, layers, activation)
        terms = one.best.law.design(cells) * np.array(one.best.coefficients)
        texts = [term.text for term in one.best.law.terms]
        parts = [terms[:, [i for i, text in enumerate(texts) if text in names]].sum(axis=1) for names in PARTS.values()]
        whole = np.sum(parts, axis=0)
        ax.stackplot(cells["batch"], *(100 * part / whole for part in parts), colors=PART_COLOURS, labels=list(PARTS))
        ax.set(
            xscale="log", xlabel="examples in a batch, b", title=one.name, ylim=(0, 100), xlim=(1, cells["batch"].max())
        )
        ax.xaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel("share of an epoch, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, 2 * len(every)))
    caption = f"What an epoch's time goes to by the law that wins, for {layers} {activation}."
    return Drawn("epochs-shares", "Where overhead, update and products dominate", caption, figure)


def _of(one: Series, layers: str, activation: str) -> pd.DataFrame:
    """A network's epochs, from small batches to large."""
    epochs = one.epochs
    return epochs[(epochs["layers"] == layers) & (epochs["activation"] == activation)].sort_values("batch")


def _middle(one: Series) -> tuple[str, str]:
    networks = one.epochs.sort_values(["m", "p"])[["layers", "activation"]].drop_duplicates()
    layers, activation = networks.iloc[(len(networks) - 1) // 2]
    return str(layers), str(activation)
