"""Do large networks rarely stick?  How far restarts end above the best of their size, at what, and how that goes with m.

"Stuck" is three things, told apart.  A run may end above the best that was *found* of its size or a smaller one; that alone
says nothing of minima.  Where its gradient is not small, it is unfinished.  Only where the gradient is all but 0 and the
Hessian has no direction down is it called a minimum, which it is to second order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from scipy import stats

from analysis.experiments import Claimed, Drawn, Section, Table, Told, Word
from analysis.experiments.found import Found
from analysis.figures import COLOURS, MARKERS
from analysis.statistics import LEVEL, Interval, share_of
from analysis.words import count, percent, si

#: Above the best is what ends with so much more loss: nats, or variances of the numbers to predict.
ABOVE = 0.05
#: The same in another measure: of what the best gained over the best constant output, so much is missing.
MISSING = 0.05
#: A way of length 30, which weights of small networks have, gains 0.003 at the first and 0.045 along the second: less
#: than ``ABOVE``.  Gradients of 2-norm below the first count as none, eigenvalues above minus the second as not negative.
GRADIENT, CURVATURE = 1e-4, 1e-4
#: "Large" are networks of so many weights, and "rarely" is so large a share of the runs.
LARGE, RARELY = 1_000, 0.05
#: Shares of fewer runs are not drawn beside those of the first library.
FEW = 5

MINIMUM, KINK, SADDLE, CRITICAL = "at a minimum", "at a kink", "at a saddle", "small gradient"
UNFINISHED, LATER, DIVERGED = "unfinished", "on the way to the best", "diverged"
#: At what runs end above the best, as far as was looked.
KINDS = {
    MINIMUM: "#0072B2",
    KINK: "#56B4E9",
    SADDLE: "#CC79A7",
    CRITICAL: "#009E73",
    UNFINISHED: "#E69F00",
    LATER: "#999999",
    DIVERGED: "#000000",
}
#: One set of networks: the same rows, activation and size.
SIZE = ["data", "activation", "m"]
ACTIVATION_COLOURS = {"tanh": COLOURS[0], "relu": COLOURS[1]}


def section(found: Found) -> Section:
    """What was found of sticking."""
    runs = runs_of(found)
    if not len(runs):
        return Section(found.name, TITLE, "Nothing was measured.")
    first = runs[runs["impl"] == found.impls[0]]
    return Section(
        found.name,
        TITLE,
        _lead(first),
        _paragraphs(runs, first),
        [_spread_table(first), _kinds_table(first), *_libraries_table(runs, found.impls)],
        [_losses_figure(found, runs), _share_figure(runs, found.impls), _kinds_figure(first), _time_figure(first)],
        [claim for claims in (_rarely, _falls, _are_minima) for claim in claims(runs, found.impls)],
    )


TITLE = "Do large networks rarely stick?"


# --- what became of each run ----------------------------------------------------------------------------------------


def runs_of(found: Found) -> pd.DataFrame:
    """A row a run.  ``best`` is what runs of its size or a smaller one reached, in any library; ``above`` and ``missing`` say
    whether it ends above that by either measure, ``kind`` at what if so.  ``above_all`` is beside the best of any size and
    activation.  ``step_s`` is a step's normalised time.  A diverged run is above any best.
    """
    runs = found.frame
    if not len(runs):
        return runs
    numbers = ["loss", "gradient", "polished", "polished_gradient", "least_eigenvalue", "largest_eigenvalue", "dead"]
    runs = runs.assign(**{name: runs[name].astype(float) for name in numbers})
    runs["best"] = best(runs, runs["loss"])
    runs["best_polished"] = best(runs, runs[["loss", "polished"]].min(axis=1))
    runs["above"] = ~(runs["loss"] <= runs["best"] + ABOVE)  # NaN too
    runs["above_all"] = ~(runs["loss"] <= runs.groupby("data")["loss"].transform("min") + ABOVE)
    gained = (runs["constant"] - runs["best"]).clip(lower=0)
    runs["missing"] = ~(runs["loss"] <= runs["best"] + MISSING * gained)
    runs["kind"] = [kind(row) if row["above"] else "" for row in runs.to_dict("records")]
    runs["step_s"] = [found.seconds(row) / max(row["steps"], 1) for row in found.rows]
    return runs


def best(runs: pd.DataFrame, losses: pd.Series) -> np.ndarray:
    """For each run the least loss of its size and all smaller ones, of the same data and activation.

    A larger network contains the smaller ones: its further units need but output weights of 0.  So what those reach is
    there to be reached, and a size with few restarts is not flattered by its own best.
    """
    least = losses.groupby([runs[name] for name in SIZE]).min()  # sorted by m
    nested = least.groupby(level=SIZE[:-1]).cummin()
    return nested.reindex(pd.MultiIndex.from_frame(runs[SIZE])).to_numpy(float)


def kind(run: Mapping[Any, Any]) -> str:
    """What a run that ended above the best ended at, as far as was looked: one of ``KINDS``."""
    if math.isnan(run["loss"]):
        return DIVERGED
    if math.isnan(run["polished"]):  # too large for a Hessian
        return CRITICAL if run["gradient"] <= GRADIENT else UNFINISHED
    if run["polished"] <= run["best_polished"] + ABOVE:
        return LATER
    if run["kink"]:
        return KINK
    if run["polished_gradient"] > GRADIENT:
        return UNFINISHED
    return SADDLE if run["least_eigenvalue"] < -CURVATURE else MINIMUM


# --- shares and trends ----------------------------------------------------------------------------------------------


def trend(runs: pd.DataFrame) -> Interval:
    """By how much the share above the best changes when m grows tenfold, activations taken apart.

    With x = log10 m less its mean in the activation, b = Σ x y / Σ x² (the slope of the Cochran-Armitage test), and
    var b = Σ_sizes (Σ x)² p (1 - p) / n / (Σ x²)² with p = (hits + 1) / (n + 2), so that shares of 0 and 1 are not taken for
    certain.  NaN where all runs, or none, end above.
    """
    x = runs["m"].map(math.log10)
    x = x - x.groupby(runs["activation"]).transform("mean")
    squares = float((x**2).sum())
    if not squares or runs["above"].nunique() < 2:
        return Interval(math.nan, math.nan, math.nan)
    slope = float((x * runs["above"]).sum()) / squares
    sizes = pd.DataFrame({"x": x, "y": runs["above"]}).groupby([runs["activation"], runs["m"]])
    sums, hits, n = sizes["x"].sum(), sizes["y"].sum(), sizes["y"].count()
    p = (hits + 1) / (n + 2)
    half = stats.norm.ppf(0.5 + LEVEL / 2) * math.sqrt(float((sums**2 * p * (1 - p) / n).sum())) / squares
    return Interval(slope, slope - half, slope + half)


def _word(below: bool, above: bool) -> Word:
    return "supported" if below else "refuted" if above else "inconclusive"


# --- claims ---------------------------------------------------------------------------------------------------------


def _rarely(runs: pd.DataFrame, impls: Sequence[str]) -> list[Claimed]:
    large = runs[runs["m"] >= LARGE]
    return [
        Claimed(
            f"large networks rarely end far above the best found: at most {percent(RARELY)} of runs from "
            f"{LARGE:,} weights on ({_named(data)})",
            "many restarts, all sizes on the same rows",
            {impl: rarely(of) for impl, of in _by_impl(large, data, impls)},
            "minima-share",
        )
        for data in _datas(large)
    ]


def rarely(large: pd.DataFrame) -> Told:
    """Whether at most ``RARELY`` of these runs end above the best."""
    hits, n = int(large["above"].sum()), len(large)
    found = share_of(hits, n)
    word = _word(found.high <= RARELY, found.low > RARELY)
    missing = int(large["missing"].sum())
    why = (
        f"{hits} of {n} runs at {_sizes(large)} weights end more than {ABOVE} above the best "
        f"({missing} by the other measure, {percent(MISSING)} of what the best gained)."
    )
    if word == "inconclusive":
        why += f" So few runs cannot tell {percent(RARELY)}: they tell that it is at most {percent(found.high, 1)}."
    return Told(word, f"{hits} of {n}: {_interval(found)}", why)


def _falls(runs: pd.DataFrame, impls: Sequence[str]) -> list[Claimed]:
    return [
        Claimed(
            f"the share of runs that end above the best falls with m, over all sizes together ({_named(data)})",
            "many restarts, all sizes on the same rows",
            {impl: falls(of) for impl, of in _by_impl(runs, data, impls)},
            "minima-share",
        )
        for data in _datas(runs)
    ]


def falls(runs: pd.DataFrame) -> Told:
    """Whether the share above the best falls with m, over all sizes; and where it does not fall all the way."""
    found = trend(runs)
    if math.isnan(found.value):
        which = "every run ends" if runs["above"].all() else "no run ends"
        return Told("inconclusive", "no trend", f"There is no trend to see: {which} above the best.")
    told = f"{_points(found.value)} [{_points(found.low)}, {_points(found.high)}] points per tenfold m"
    word = _word(found.high < 0, found.low > 0)
    peaks = [_peak(of, runs.groupby(["activation", "m"]).ngroups) for _, of in runs.groupby("activation", sort=False)]
    why = f"The share changes by {told}, over m = {_sizes(runs)}. {' '.join(why for _, why in peaks)}"
    return Told(word, "; ".join([told, *(rise for rise, _ in peaks if rise)]), why)


def _peak(runs: pd.DataFrame, among: int) -> tuple[str, str]:
    """Of one activation: that the share clearly rises before it falls, if so; and a sentence on where it is largest."""
    activation, sizes = runs["activation"].iloc[0], _tallies(runs)
    peak, least = max(sizes, key=lambda m: sizes[m][0] / sizes[m][1]), min(sizes)
    if not sizes[peak][0]:
        return "", f"By {activation} it is 0 at every size."
    there = f"By {activation} it is largest at m = {peak:,} ({_ratio(*sizes[peak])})"
    if peak == least:
        return "", f"{there}."
    clear = _differ(sizes[peak], sizes[least], among)
    apart = "" if clear else ", too close to tell"
    why = f"{there}, not at the smallest, m = {least:,} ({_ratio(*sizes[least])}{apart})."
    rise = f"by {activation} it first rises, from {_ratio(*sizes[least])} at {least:,} to {_ratio(*sizes[peak])} at {peak:,}"
    return rise if clear else "", why


def _ratio(hits: int, n: int) -> str:
    return percent(hits / n)


def _differ(one: tuple[int, int], other: tuple[int, int], among: int) -> bool:
    """Whether two shares differ, by Fisher's exact test; one is the largest ``among`` so many."""
    table = np.array([[hits, n - hits] for hits, n in (one, other)])
    return bool(stats.fisher_exact(table).pvalue * among < 1 - LEVEL)


def _are_minima(runs: pd.DataFrame, impls: Sequence[str]) -> list[Claimed]:
    return [
        Claimed(
            f"where small networks end above the best they are at local minima (to second order), for the most part "
            f"({_named(data)})",
            "L-BFGS from there, and the Hessian",
            {impl: are_minima(of) for impl, of in _by_impl(runs[runs["polished"].notna()], data, impls)},
            "minima-kinds",
            "implied by the article",
        )
        for data in _datas(runs)
    ]


def are_minima(looked_at: pd.DataFrame) -> Told:
    """Whether more than half of the runs above the best are at minima, which kinks may be, and what still falls may find."""
    kinds = looked_at.loc[looked_at["above"], "kind"].value_counts()
    n, minima = int(kinds.sum()), int(kinds.get(MINIMUM, 0))
    if not n:
        return Told("inconclusive", "none above the best", "No run that was looked at ended above the best.")
    maybe = minima + sum(int(kinds.get(name, 0)) for name in (KINK, CRITICAL, UNFINISHED))
    least, most = share_of(minima, n), share_of(maybe, n)
    told = f"{minima} of {n}: {_interval(least)}"
    if maybe > minima:
        told += f"; {maybe} with all that may be: {_interval(most)}"
    why = (
        f"Of {n} runs above the best: {_counted(kinds)}. A kink may be a minimum, and what still falls may come to one."
    )
    return Told(_word(least.low > 0.5, most.high < 0.5), told, why)


def _counted(kinds: pd.Series) -> str:
    """3 at a minimum, 2 unfinished."""
    return ", ".join(f"{number} {name}" for name, number in kinds.items())


def _by_impl(runs: pd.DataFrame, data: str, impls: Sequence[str]) -> Iterable[tuple[str, pd.DataFrame]]:
    for impl in impls:
        of = runs[(runs["impl"] == impl) & (runs["data"] == data)]
        if len(of):
            yield impl, of


# --- words ----------------------------------------------------------------------------------------------------------


def _lead(first: pd.DataFrame) -> str:
    told = [text for data in _datas(first) for text in _lead_of(first[first["data"] == data], _named(data))]
    return (
        " ".join(told)
        + " “Above the best” is above the best found of that size or smaller ones; minima are told by the Hessian, to second "
        "order."
    )


def _lead_of(runs: pd.DataFrame, name: str) -> list[str]:
    found = []
    large = runs[runs["m"] >= LARGE]
    if len(large):
        hits = int(large["above"].sum())
        of = share_of(hits, len(large))
        found.append(
            f"On {name}, {hits or 'none'} of {len(large)} runs from {LARGE:,} weights on ended more than {ABOVE} above the "
            f"best (at most {percent(of.high, 1)} of such runs, at 95 %)."
        )
    above = runs[runs["above"]]
    if not len(above):
        return [*found, f"No run on {name} did at any size." if found else f"On {name} no run ended above the best."]
    shares = {(activation, m): float(of["above"].mean()) for _, activation, m, of in _sizes_of(runs)}
    activation, m = max(shares, key=lambda key: shares[key])
    which = runs[runs["activation"] == activation]
    least, last = int(which["m"].min()), int(above["m"].max())
    beside = f"; at the smallest, {least:,}, {percent(shares[activation, least])}" if m != least else ""
    found.append(
        f"{'It happened' if found else f'On {name} it happened'} most at {m:,} weights with {activation} "
        f"({percent(shares[activation, m])} of runs{beside}), and at no size above {last:,}. Such runs in all: {len(above)} "
        f"({_counted(above['kind'].value_counts())})."
    )
    return found


def _paragraphs(runs: pd.DataFrame, first: pd.DataFrame) -> list[str]:
    rates = " and then ".join(f"{steps:,} steps at {rate:g}" for rate, steps in first["stages"].iloc[0])
    goal = float(first["goal"].iloc[0])
    rows = ", ".join(
        f"{_named(data)} {int(of['n'].iloc[0])} rows of {of['layers'].iloc[0][0]} inputs"
        for data in _datas(first)
        for of in [first[first["data"] == data]]
    )
    return [
        f"Every size learns the same rows ({rows}): XOR at ±1, and of the data the first rows, centred, projected to their "
        "first principal components and scaled to standard deviation ½. Networks have one hidden layer; m grows with its width. "
        f"Training is Adam on all rows at once, {rates}; a run is over at a loss of {goal:g}, as no loss is below 0 and so none "
        f"is further than {ABOVE} above it. Equal restarts start from equal weights in every library.",
        "A run counts as above the best if its loss exceeds the least that any library's run of that size or a smaller "
        f"one reached with that activation, by more than {ABOVE} in nats (variances, where numbers are predicted). Smaller "
        "ones count because larger networks contain them, with output weights of 0; so a size with few restarts is not "
        "flattered by its own best. What larger ones reach may be out of a small network's reach, which is no sign of "
        "sticking; the table has it beside. The best found need not be the least there is: where all runs end equally "
        "badly, none is above. On XOR 0 can be approached from two hidden units on, and wherever the best is at most "
        f"{goal:g}, little is left below it.",
        "At what they ended: runs of networks of up to a few hundred weights go on by L-BFGS in float64, off the clock, for "
        f"{int(first['polish'].iloc[0]):,} iterations at most. “{LATER.capitalize()}”: that brings them to less than {ABOVE} "
        f"above the best so found. “{UNFINISHED.capitalize()}”: their gradient still exceeds {GRADIENT:g} then, so that "
        f"nothing is known of a minimum. “{KINK.capitalize()}”: a relu bends there, no Hessian can say whether it is a "
        "minimum, and its gradient need not be 0 if it is. Else the Hessian, by central differences of gradients, has an "
        f"eigenvalue below -{CURVATURE:g} (saddle) or none (minimum, to second order: flat directions are allowed, with cross "
        "entropy some lead to infinity, and a saddle of higher order looks the same). L-BFGS may stall at a kink, or step over "
        "a ridge: what it brings down, gradient descent alone need not. Of larger networks only the gradient is known.",
        "What bounds this: one hidden layer, two data sets, one optimizer, one way to draw the start, few rows that large "
        "networks can learn by heart. Where a verdict speaks of several activations and sizes, their runs are pooled: it holds "
        "for their mean, and of one size alone less is known (see the table). Every interval is at 95 % by itself: of twenty "
        "such verdicts one may err; those of several libraries are no independent looks.",
        *_dead_words(first),
    ]


def _dead_words(first: pd.DataFrame) -> list[str]:
    relu = first[(first["activation"] == "relu") & first["dead"].notna()]
    if not len(relu):
        return []
    told = []
    for data in _datas(relu):
        of = relu[relu["data"] == data]
        small = of[of["m"].isin(of.loc[of["above"], "m"])]
        if not len(small):
            continue
        above, others = small[small["above"]], small[~small["above"]]
        a, b = int((above["dead"] > 0).sum()), int((others["dead"] > 0).sum())
        told.append(
            f"on {_named(data)} {a} of {len(above)} runs above the best have a dead relu, and {b} of {len(others)} others of the "
            "same sizes"
        )
    if not told:
        return []
    units = np.array([layers[1] for layers in relu["layers"]])
    ends, starts = (percent(float((relu[name].to_numpy() / units).mean()), 1) for name in ("dead", "dead_at_start"))
    return [
        f"Dead relus (hidden units that are 0 on every row): {'; '.join(told)}. Over all sizes {starts} of hidden units are dead "
        f"at the start and {ends} at the end, in a run's mean."
    ]


def _sizes_of(runs: pd.DataFrame) -> Iterable[tuple[str, str, int, pd.DataFrame]]:
    """Data set, activation, m and the runs of it, in the order measured."""
    for keys, of in runs.groupby(SIZE, sort=False):
        data, activation, m = map(str, keys)
        yield data, activation, int(m), of


def _tallies(runs: pd.DataFrame) -> dict[int, tuple[int, int]]:
    """By m, from the smallest: runs above the best, and all."""
    return {int(str(m)): (int(of["above"].sum()), len(of)) for m, of in runs.groupby("m")}


def _datas(runs: pd.DataFrame) -> list[str]:
    return [str(name) for name in runs["data"].unique()]


def _named(data: str) -> str:
    return "XOR" if data == "xor" else data


def _interval(found: Interval) -> str:
    return f"{percent(found.value, 1)} [{percent(found.low, 1)}, {percent(found.high, 1)}]"


def _points(slope: float) -> str:
    return f"{100 * slope:+.1f}"


def _sizes(runs: pd.DataFrame) -> str:
    return ", ".join(f"{m:,}" for m in sorted(runs["m"].unique()))


# --- tables ---------------------------------------------------------------------------------------------------------


def _spread_table(first: pd.DataFrame) -> Table:
    rows = []
    for data, activation, m, of in _sizes_of(first):
        quartiles = of["loss"].quantile([0.25, 0.5, 0.75, 1.0])
        found = share_of(int(of["above"].sum()), len(of))
        rows.append(
            (
                f"{_named(data)} {activation}",
                f"{m:,}",
                str(len(of)),
                _loss(float(of["best"].iloc[0])),
                _loss(float(quartiles[0.5])),
                f"{_loss(float(quartiles[0.25]))}–{_loss(float(quartiles[0.75]))}",
                _loss(float(quartiles[1.0])),
                f"{percent(found.value)} [{percent(found.low)}, {percent(found.high)}]",
                percent(float(of["above_all"].mean())),
                percent(float(of["missing"].mean())),
                _diverged(of),
            )
        )
    caption = (
        f"Final losses of {first['impl'].iloc[0]} by size: the best of that size and smaller ones in any library, median, "
        f"quartiles and the worst; the share of runs more than {ABOVE} above that best, above the best of all sizes and "
        f"activations, and of those that miss {percent(MISSING)} of what the best gained over a constant output; runs that "
        "diverged, which count as above, and after which step the first did."
    )
    header = (
        *("data", "m", "runs", "best", "median", "quartiles", "worst", f"above by {ABOVE}", "above the best of all"),
        *(f"missing {percent(MISSING)}", "diverged"),
    )
    return Table(caption, header, rows, tuple(range(1, 11)))


def _diverged(runs: pd.DataFrame) -> str:
    """How many, and after which step the first did."""
    steps = runs["diverged_at"].dropna()
    return f"{len(steps)} (step {steps.min():.0f})" if len(steps) else "0"


def _loss(value: float) -> str:
    return "–" if math.isnan(value) else f"{max(value, 0.0) + 0.0:.3f}"


def _kinds_table(first: pd.DataFrame) -> Table:
    rows = []
    for data, activation, m, of in _sizes_of(first):
        above, others = of[of["above"]], of[~of["above"]]
        if not len(above):
            continue
        kinds = above["kind"].value_counts()
        relu = activation == "relu"
        rows.append(
            (
                f"{_named(data)} {activation}",
                f"{m:,}",
                f"{len(above)} of {len(of)}",
                *(str(int(kinds.get(name, 0))) for name in KINDS),
                f"{int((above['dead'] > 0).sum())} of {len(above)}" if relu else "–",
                f"{int((others['dead'] > 0).sum())} of {len(others)}" if relu else "–",
                si(float(above["gradient"].median())),
            )
        )
    header = ("data", "m", "above", *KINDS, "dead relus: above", "others", "gradient at the end of training, median")
    return Table(
        f"What runs of {first['impl'].iloc[0]} that end above the best end at.", header, rows, tuple(range(1, 13))
    )


def _libraries_table(runs: pd.DataFrame, impls: Sequence[str]) -> list[Table]:
    """How far runs from equal starts come apart; none where one library was measured."""
    keys = [*SIZE, "restart"]
    runs = runs.assign(early=[curve[0][1] if curve else math.nan for curve in runs["curve"]])
    first = runs[runs["impl"] == impls[0]]
    rows = []
    for impl in impls[1:]:
        both = runs[runs["impl"] == impl].merge(first, on=keys, suffixes=("", "_of_first"))
        if not len(both):
            continue
        early, late = ((both[what] - both[f"{what}_of_first"]).abs() for what in ("early", "loss"))
        other = int((both["above"] != both["above_of_first"]).sum())
        told = [si(float(of.quantile(q))) for of in (early, late) for q in (0.5, 0.9, 1.0)]
        rows.append((impl, str(len(both)), *told, str(other)))
    if not rows:
        return []
    steps = min(curve[0][0] for curve in runs["curve"] if curve)
    caption = (
        f"Equal starts in other libraries, beside {impls[0]}: differences of the losses after {steps} steps, and at the end. "
        "Rounding differs and grows with every step where training is unstable: late differences are to be expected."
    )
    quantiles = ("median", "p90", "most")
    header = (
        *("library", "equal starts"),
        *(f"{when}, {q}" for when in (f"after {steps} steps", "at the end") for q in quantiles),
        "above in one only",
    )
    return [Table(caption, header, rows, tuple(range(1, 9)))]


# --- figures --------------------------------------------------------------------------------------------------------

#: Losses below this are drawn at it.
FLOOR = 0.008


def _panels(runs: pd.DataFrame, height: float, label: str) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A panel for each data set and activation, with the runs in it."""
    datas, activations = _datas(runs), runs["activation"].unique()
    figure = Figure(figsize=(9.4, height * len(datas) + 0.7), layout="constrained")
    axes = figure.subplots(len(datas), len(activations), squeeze=False, sharey="row")
    found = []
    for row, data in zip(axes, datas, strict=True):
        row[0].set_ylabel(label)
        for ax, activation in zip(row, activations, strict=True):
            ax.set(title=f"{_named(data)}, {activation}", xlabel="weights and biases m")
            found.append((ax, runs[(runs["data"] == data) & (runs["activation"] == activation)]))
    return figure, found


def _losses_figure(found: Found, runs: pd.DataFrame) -> Drawn:
    impls = found.impls
    figure, panels = _panels(runs, 2.7, "final loss")
    rng = np.random.default_rng(0)
    for ax, of in panels:
        for i, impl in enumerate(impls):
            own = of[of["impl"] == impl]
            aside = 1.13 ** (i - (len(impls) - 1) / 2) * np.exp(0.03 * rng.standard_normal(len(own)))
            style = found.style(impl) | {"linestyle": "", "alpha": 0.55, "markersize": 3.5, "markeredgewidth": 0}
            ax.plot(own["m"] * aside, own["loss"].clip(lower=FLOOR), **style)
        for _, _, m, own in _sizes_of(of):
            limit = float(own["best"].iloc[0]) + ABOVE
            ax.plot([m / 1.2, m * 1.2], [limit, limit], "k-", linewidth=1.4)
        ax.set(xscale="log", yscale="log")
    handles = [Line2D([], [], linestyle="", label=impl, **found.style(impl)) for impl in impls]
    handles.append(Line2D([], [], color="k", label=f"{ABOVE} above the best"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    caption = (
        f"A point is a run. Those over the black line, {ABOVE} above the best of that size and smaller ones, count as above "
        f"the best. Training is over at a loss of {float(runs['goal'].iloc[0]):g}; what is below {FLOOR} is drawn there, runs "
        "that diverged are left out."
    )
    return Drawn("minima-losses", "Where restarts end, by size", caption, figure)


def _share_figure(runs: pd.DataFrame, impls: Sequence[str]) -> Drawn:
    datas = _datas(runs)
    first = runs["impl"] == impls[0]
    shown = runs[first | (runs.groupby(["impl", *SIZE])["loss"].transform("size") >= FEW)]
    figure = Figure(figsize=(9.4, 3.6), layout="constrained")
    axes = figure.subplots(1, len(datas), squeeze=False, sharey=True)[0]
    for ax, data in zip(axes, datas, strict=True):
        for j, (activation, colour) in enumerate(ACTIVATION_COLOURS.items()):
            for i, impl in enumerate(impls):
                of = shown[(shown["data"] == data) & (shown["activation"] == activation) & (shown["impl"] == impl)]
                if len(of):
                    _draw_shares(ax, of, colour, i, 1.07 ** (j + 2 * i - len(impls) + 0.5))
        ax.set(xscale="log", xlabel="weights and biases m", title=_named(data), ylim=(-0.03, 1.03))
        large = runs[first & (runs["data"] == data) & (runs["m"] >= LARGE)]
        if len(large):
            pooled = share_of(int(large["above"].sum()), len(large))
            ax.fill_between(
                [LARGE, 1.3 * large["m"].max()], pooled.low, pooled.high, color="#999999", alpha=0.5, linewidth=0
            )
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0].set_ylabel("runs above the best")
    handles: list[Artist] = [Patch(color=colour, label=name) for name, colour in ACTIVATION_COLOURS.items()]
    there = set(shown["impl"])
    handles += [
        Line2D([], [], color="k", label=impl, **_point(i, "k")) for i, impl in enumerate(impls) if impl in there
    ]
    if (runs.loc[first, "m"] >= LARGE).any():
        handles.append(
            Patch(color="#999999", alpha=0.5, linewidth=0, label=f"all from {LARGE:,} on together, {impls[0]}")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    caption = (
        f"The share of runs that end more than {ABOVE} above the best found of their size and smaller ones, with 95 % intervals "
        f"(Clopper and Pearson) for {impls[0]}; grey: of all its runs from {LARGE:,} weights on. Others had fewer "
        f"restarts: where they had {FEW} or more their shares are drawn, without their wider intervals. Libraries start from "
        "equal weights, so they are no independent trials."
    )
    return Drawn("minima-share", "How many end above the best", caption, figure)


def _draw_shares(ax: Axes, runs: pd.DataFrame, colour: str, i: int, aside: float) -> None:
    sizes = _tallies(runs)
    found = [share_of(*tally) for tally in sizes.values()]
    values = np.array([of.value for of in found])
    x = np.array(list(sizes), float) * aside
    if i:
        ax.plot(x, values, color=colour, **_point(i, colour))
        return
    ends = np.array([[of.value - of.low for of in found], [of.high - of.value for of in found]])
    ax.errorbar(x, values, ends, color=colour, elinewidth=1.0, **_point(i, colour))


def _point(i: int, colour: str) -> dict[str, Any]:
    """The first library's points are full and joined."""
    return {
        "marker": MARKERS[i % len(MARKERS)],
        "markerfacecolor": "white" if i else colour,
        "linestyle": "" if i else "-",
    }


def _kinds_figure(first: pd.DataFrame) -> Drawn:
    figure, panels = _panels(first, 2.5, "share of all runs")
    for ax, of in panels:
        sizes = sorted(of["m"].unique())
        totals = of.groupby("m").size()
        bottom = np.zeros(len(sizes))
        for name, colour in KINDS.items():
            for dead in (False, True):
                hit = of[(of["kind"] == name) & ((of["dead"] > 0) == dead)]
                part = (hit.groupby("m").size().reindex(sizes, fill_value=0) / totals).to_numpy(float)
                hatch = "////" if dead else ""
                ax.bar(
                    range(len(sizes)), part, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0
                )
                bottom += part
        ax.set(ylim=(0, 1))
        ax.set_xticks(range(len(sizes)), [count(m) for m in sizes], rotation=40, fontsize=8)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.grid(False, axis="x")
    there = [name for name in KINDS if (first["kind"] == name).any()] or [MINIMUM]
    handles: list[Artist] = [Patch(facecolor=KINDS[name], label=name) for name in there]
    handles.append(Patch(facecolor="#999999", edgecolor="white", hatch="////", label="with dead relus"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    caption = (
        f"Bars: runs of {first['impl'].iloc[0]} above the best, by what L-BFGS, the gradient and the Hessian say of where they "
        "ended. Hatched: with at least one hidden unit that is 0 on every row."
    )
    return Drawn("minima-kinds", "At what they end", caption, figure)


def _time_figure(first: pd.DataFrame) -> Drawn:
    figure, panels = _panels(first, 2.5, "loss")
    norm = LogNorm(first["m"].min(), max(first["m"].max(), first["m"].min() + 1))
    colours = ListedColormap(colormaps["viridis_r"](np.linspace(0.2, 1, 256)))  # yellow is hardly seen on white
    for ax, of in panels:
        for _, _, m, own in _sizes_of(of):
            steps, middle, worst = curves(own)
            seconds = steps * float(own["step_s"].median())
            colour = colours(norm(m))
            ax.plot(seconds, np.clip(middle, FLOOR, None), color=colour)
            ax.plot(seconds, np.clip(worst, FLOOR, None), color=colour, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel="training time of a run, s")
    figure.colorbar(ScalarMappable(norm, colours), ax=[ax for ax, _ in panels], label="weights and biases m")
    handles = [
        Line2D([], [], color="k", label="median of runs"),
        Line2D([], [], color="k", linestyle=":", label="nine in ten are better"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    caption = (
        f"Loss on the rows trained on against the time a run of {first['impl'].iloc[0]} has trained, normalised. Where lines are "
        "level at the end more time would change little; where they still fall the budget binds."
    )
    return Drawn("minima-time", "What more time brings", caption, figure)


def curves(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps looked at by any of these runs, and median and 90 % quantile of their losses; what is over stays."""
    steps = np.array(sorted({point[0] for curve in runs["curve"] for point in curve}), float)
    losses = [np.interp(steps, *np.array(curve, float).T) for curve in runs["curve"] if len(curve)]
    if not losses:
        return steps, steps, steps
    return steps, np.median(losses, axis=0), np.quantile(losses, 0.9, axis=0)
