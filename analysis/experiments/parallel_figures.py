"""Figures of data parallelism: scaling, efficiency, all-reduce and the parts of a step.  One function each; nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.charts import Axis, Chart, Line, Panel, Row, Way
from analysis.experiments.parallel_law import Coefficients, Measured, gradient_sized
from analysis.experiments.parallel_scaling import SCALINGS, Efficiency, Network, line, networks, shares
from analysis.statistics import Floats

#: Networks in a figure at most: the smallest and the largest are always among them.
MOST = 4
#: Efficiency up to where it is shown, %: intervals of what hardly repeats would press everything else flat.
MOST_SHOWN = 150.0
PARTS = {
    "compute": ("compute, ⌈n/k⌉·(a·m + b·u·p)", "#0072B2"),
    "replicated": ("done anew by every rank, t0 + c·m", "#009E73"),
    "contention": ("sharing caches and memory, s(k)", "#E69F00"),
    "waiting": ("waiting for a core, o(k)", "#CC79A7"),
    "communication": ("communication", "#D55E00"),
}

Fits = Mapping[str, Coefficients]


def chosen(one: Measured, scaling: str) -> list[Network]:
    """At most ``MOST`` networks, spread evenly from small to large."""
    every = networks(one, scaling)
    if not every:
        return []
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(MOST, len(every))).round().astype(int))]


def _ranks(every: Sequence[Measured]) -> Axis:
    ranks = sorted({k for one in every for k in one.ranks})
    return Axis("ranks, k", log=True, marks={k: str(k) for k in ranks}, low=min(ranks) * 0.85, high=max(ranks) * 1.18)


def _names(every: Sequence[Measured], scaling: str) -> list[str]:
    return list(dict.fromkeys(network.name for one in every for network in chosen(one, scaling)))


def scaling_figure(every: Sequence[Measured], fits: Fits, scaling: str) -> Chart:
    """Time of a step against k: measured, by the law, and the ideal that the cores there are allow."""
    panels = [
        Panel(one.name, [line for n in chosen(one, scaling) for line in _steps(one, n, fits, scaling)]) for one in every
    ]
    return Chart(_ranks(every), [Row(Axis("a step", "ms", log=True), panels)], _names(every, scaling))


def _steps(one: Measured, network: Network, fits: Fits, scaling: str) -> Iterator[Line]:
    cells = line(one, network, scaling)
    k = list(cells["ranks"])
    yield Line(network.name, k, list(cells["time_s"] * 1e3), "points", "measured")
    single = cells.loc[cells["ranks"] == 1, "time_s"]
    if len(single):
        ideal = float(single.iloc[0]) * _ideal(cells, scaling)
        yield Line(network.name, k, list(ideal * 1e3), "dotted", "ideal")
    if one.name in fits:
        yield Line(network.name, k, list(fits[one.name].seconds(cells) * 1e3), "line", "law")


def _ideal(cells: pd.DataFrame, scaling: str) -> Floats:
    """T(k)/T(1) where communication costs nothing and every core is used: 1/min(k, c) strong, o(k) weak."""
    k, c = cells["ranks"].to_numpy(float), cells["cores"].to_numpy(float)
    return np.asarray(1 / np.minimum(k, c) if scaling == "strong" else np.maximum(1, k / c))


def efficiency_figure(every: Sequence[Measured], found: Mapping[str, Sequence[Efficiency]]) -> Chart:
    """Efficiency over what the cores allow, against k; strong scaling above, weak below."""
    told = [s for s in SCALINGS if any(e.scaling == s for one in every for e in found[one.name])]
    rows = [
        Row(_efficiency_axis(scaling, found), [_efficiencies(one, scaling, found[one.name]) for one in every], 2.1)
        for scaling in told
    ]
    return Chart(_ranks(every), rows, list(dict.fromkeys(name for scaling in told for name in _names(every, scaling))))


def _efficiency_axis(scaling: str, found: Mapping[str, Sequence[Efficiency]]) -> Axis:
    ends = [100 * e.allowed.high for own in found.values() for e in own if e.scaling == scaling]
    most = max([110.0, *(1.03 * end for end in ends if np.isfinite(end))])
    return Axis(f"efficiency, {scaling} scaling", "%", low=0, high=min(most, MOST_SHOWN))


def _efficiencies(one: Measured, scaling: str, found: Sequence[Efficiency]) -> Panel:
    """A line for each network, and what could not be better."""
    lines = [Line("", [min(one.ranks), max(one.ranks)], [100.0, 100.0], "line")]
    there = chosen(one, scaling)
    for i, network in enumerate(there):
        own = [e for e in found if e.scaling == scaling and e.network == network and np.isfinite(e.allowed.value)]
        values, lows, highs = ([100 * getattr(e.allowed, end) for e in own] for end in ("value", "low", "high"))
        aside = 0.03 * (i - (len(there) - 1) / 2)  # intervals beside each other, not upon each other
        k = [1.0, *(float(e.ranks) for e in own)]
        lines.append(Line(network.name, k, [100.0, *values], low=[np.nan, *lows], high=[np.nan, *highs], aside=aside))
    return Panel(one.name, lines)


def all_reduce_figure(every: Sequence[Measured], fits: Fits) -> Chart:
    """Time of an all-reduce against its bytes, by k, with the fitted law."""
    ranks = sorted({int(k) for one in every for k in one.of("all_reduce")["ranks"].unique() if k > 1})
    panels = [Panel(one.name, [line for k in ranks for line in _all_reduces(one, k, fits)]) for one in every]
    sizes = pd.concat([one.of("all_reduce")["bytes"] for one in every])
    x = Axis("size", "bytes", log=True, marks=_byte_marks(sizes))
    return Chart(x, [Row(Axis("an all-reduce", "ms", log=True), panels)], [f"{k} ranks" for k in ranks])


def _all_reduces(one: Measured, k: int, fits: Fits) -> Iterator[Line]:
    sweep = one.of("all_reduce")
    cells = sweep[sweep["ranks"] == k].sort_values("bytes")
    yield Line(f"{k} ranks", list(cells["bytes"]), list(cells["time_s"] * 1e3), "points", "measured")
    if one.name not in fits or cells.empty:
        return
    least = float(gradient_sized(one.cells)["bytes"].min())
    ways: tuple[tuple[float, float, Way, str], ...] = (
        (cells["bytes"].min(), least, "dashed", "not fitted there"),
        (least, cells["bytes"].max(), "line", "α-β law"),
    )
    for low, high, way, means in ways:
        sizes = np.geomspace(low, high, 40)
        law = _all_reduce_s(fits[one.name], one.cores, k, sizes)
        yield Line(f"{k} ranks", list(sizes), list(law * 1e3), way, means)


def _all_reduce_s(found: Coefficients, cores: int, k: int, sizes: Floats) -> Floats:
    over, ranks = max(1.0, k / cores), np.array([float(k)])
    by_hop = over**found.prices.hop * found.alpha_s * found.hops(ranks)
    return np.asarray(by_hop + over**found.prices.byte * found.beta_s * sizes * (k - 1) / k)


def _byte_marks(sizes: pd.Series) -> dict[float, str]:
    marks = {8: "8 B", 2**10: "1 KiB", 2**15: "32 KiB", 2**20: "1 MiB", 2**25: "32 MiB", 2**30: "1 GiB"}
    return {float(size): told for size, told in marks.items() if sizes.min() <= size <= sizes.max()}


def parts_figure(every: Sequence[Measured], fits: Fits) -> Figure:
    """Shares of a step's time by part, in strong scaling, for the smallest, the middle and the largest network."""
    fitted = [one for one in every if one.name in fits]
    figure = Figure(figsize=(max(3.4 * len(fitted) + 0.4, 6.2), 3.6), layout="constrained")
    axes = figure.subplots(1, len(fitted), sharey=True, sharex=True, squeeze=False)[0]
    for ax, one in zip(axes, fitted, strict=True):
        ax.set_title(one.name)
        at, labels, middles = 0.0, [], []
        for network in _three(networks(one, "strong")):
            cells = line(one, network, "strong")
            part, bottom = 100 * shares(cells, fits[one.name]), np.zeros(len(cells))
            x = at + np.arange(len(cells))
            for name, (_, colour) in PARTS.items():
                ax.bar(x, part[name], 0.82, bottom=bottom, color=colour)
                bottom += part[name].to_numpy(float)
            labels += [(float(i), str(int(k))) for i, k in zip(x, cells["ranks"], strict=True)]
            middles.append((float(x.mean()), f"{network.layers}\n{network.activation}"))
            at += len(cells) + 0.8
        ax.set_xticks([i for i, _ in labels], [told for _, told in labels])
        ax.grid(visible=False, axis="x")
        ax.set(ylim=(0, 100), xlabel="ranks, k")
        for middle, told in middles:
            ax.annotate(
                told,
                (middle, 0),
                (0, -17),
                ("data", "axes fraction"),
                "offset points",
                ha="center",
                va="top",
                fontsize=7,
            )
        ax.xaxis.labelpad = 24
    axes[0].set_ylabel("share of a step, %")
    handles = [Patch(color=colour, label=told) for told, colour in PARTS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2 if len(fitted) == 1 else 3)
    return figure


def _three(every: Sequence[Network]) -> list[Network]:
    return [every[i] for i in sorted({0, (len(every) - 1) // 2, len(every) - 1})] if every else []
