"""Figures of data parallelism: scaling, efficiency, all-reduce and the parts of a step.  One function each; nothing is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.experiments.parallel_law import Law, Measured, gradient_sized
from analysis.experiments.parallel_scaling import SCALINGS, Efficiency, Network, line, networks, shares
from analysis.figures import COLOURS, MARKERS
from analysis.statistics import Floats

GREY = "#777777"
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

Fits = Mapping[str, Law]


def chosen(one: Measured, scaling: str) -> list[Network]:
    """At most ``MOST`` networks, spread evenly from small to large."""
    every = networks(one, scaling)
    if not every:
        return []
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(MOST, len(every))).round().astype(int))]


def _panels(every: Sequence[Measured], rows: int = 1, height: float = 3.2) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(max(3.4 * len(every) + 0.4, 6.2), height), layout="constrained")
    grid = figure.subplots(rows, len(every), sharey="row", sharex=True, squeeze=False)
    for ax, one in zip(grid[0], every, strict=True):
        ax.set_title(one.name)
    return figure, grid.tolist()


def _ranks(ax: Axes, ranks: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, [str(k) for k in ranks])
    ax.set_xticks([], minor=True)
    ax.set_xlim(min(ranks) * 0.85, max(ranks) * 1.18)


def _plain_log(ax: Axes) -> None:
    """A log axis of times with few, readable marks."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    marks = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]
    ticks = [mark for mark in marks if low <= mark <= high]
    if len(ticks) > 7:
        ticks = [mark for mark in ticks if f"{mark:e}"[0] == "1"]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]} for i, name in enumerate(names)
    }


def _names(every: Sequence[Measured], scaling: str) -> list[str]:
    return list(dict.fromkeys(network.name for one in every for network in chosen(one, scaling)))


def scaling_figure(every: Sequence[Measured], fits: Fits, scaling: str) -> Figure:
    """Time of a step against k: measured, by the law, and the ideal that the cores there are allow."""
    figure, ((*axes,),) = _panels(every)
    styles = _styles(_names(every, scaling))
    for ax, one in zip(axes, every, strict=True):
        for network in chosen(one, scaling):
            cells, style = line(one, network, scaling), styles[network.name]
            ax.plot(cells["ranks"], cells["time_s"] * 1e3, linestyle="", **style)
            single = cells.loc[cells["ranks"] == 1, "time_s"]
            if len(single):
                ideal = float(single.iloc[0]) * _ideal(cells, scaling)
                ax.plot(cells["ranks"], ideal * 1e3, ":", color=style["color"], linewidth=1)
            if one.name in fits:
                ax.plot(cells["ranks"], fits[one.name].seconds(cells) * 1e3, "-", color=style["color"])
        _ranks(ax, one.ranks)
        ax.set_xlabel("ranks, k")
    axes[0].set_ylabel("a step, ms")
    _plain_log(axes[0])
    handles = [Line2D([], [], linestyle="", label=name, **style) for name, style in styles.items()]
    handles += [Line2D([], [], color="k", label="law"), Line2D([], [], color="k", linestyle=":", label="ideal")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _ideal(cells: pd.DataFrame, scaling: str) -> Floats:
    """T(k)/T(1) where communication costs nothing and every core is used: 1/min(k, c) strong, o(k) weak."""
    k, c = cells["ranks"].to_numpy(float), cells["cores"].to_numpy(float)
    return np.asarray(1 / np.minimum(k, c) if scaling == "strong" else np.maximum(1, k / c))


def efficiency_figure(every: Sequence[Measured], found: Mapping[str, Sequence[Efficiency]]) -> Figure:
    """Efficiency over what the cores allow, against k; strong scaling above, weak below."""
    rows = [s for s in SCALINGS if any(e.scaling == s for one in every for e in found[one.name])]
    figure, grid = _panels(every, len(rows), 1.0 + 2.1 * len(rows))
    styles = _styles(list(dict.fromkeys(name for scaling in rows for name in _names(every, scaling))))
    for scaling, axes in zip(rows, grid, strict=True):
        for ax, one in zip(axes, every, strict=True):
            there = chosen(one, scaling)
            for i, network in enumerate(there):
                own = [e for e in found[one.name] if e.scaling == scaling and e.network == network]
                shift = 1 + 0.03 * (i - (len(there) - 1) / 2)  # intervals beside each other, not upon each other
                _with_bars(ax, [e for e in own if np.isfinite(e.allowed.value)], shift, styles[network.name])
            ax.axhline(100, color=GREY, linewidth=1)
            _ranks(ax, one.ranks)
        axes[0].set_ylabel(f"{scaling} scaling,\nefficiency, %")
        axes[0].set_ylim(0, min(max(110.0, axes[0].get_ylim()[1]), MOST_SHOWN))
    for ax in grid[-1]:
        ax.set_xlabel("ranks, k")
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _with_bars(ax: Axes, own: Sequence[Efficiency], shift: float, style: Mapping[str, Any]) -> None:
    k = np.array([1.0, *(e.ranks for e in own)]) * shift
    ax.plot(k, [100.0, *(100 * e.allowed.value for e in own)], **style)
    for at, e in zip(k[1:], own, strict=True):
        if np.isfinite(e.allowed.low):
            ax.plot([at, at], [100 * e.allowed.low, 100 * e.allowed.high], color=style["color"], linewidth=1)


def all_reduce_figure(every: Sequence[Measured], fits: Fits) -> Figure:
    """Time of an all-reduce against its bytes, by k, with the fitted law."""
    figure, ((*axes,),) = _panels(every)
    ranks = sorted({int(k) for one in every for k in one.of("all_reduce")["ranks"].unique() if k > 1})
    styles = _styles([str(k) for k in ranks])
    for ax, one in zip(axes, every, strict=True):
        sweep = one.of("all_reduce")
        for k in ranks:
            cells = sweep[sweep["ranks"] == k].sort_values("bytes")
            ax.plot(cells["bytes"], cells["time_s"] * 1e3, linestyle="", **styles[str(k)])
            if one.name in fits and len(cells):
                least = float(gradient_sized(one.cells)["bytes"].min())
                for low, high, line in ((cells["bytes"].min(), least, "--"), (least, cells["bytes"].max(), "-")):
                    sizes = np.geomspace(low, high, 40)
                    law = fits[one.name].all_reduce_s(k, one.cores, sizes)
                    ax.plot(sizes, law * 1e3, line, color=styles[str(k)]["color"])
        ax.set(xscale="log", xlabel="bytes")
        ax.set_xticks(*_byte_marks(sweep["bytes"]))
        ax.set_xticks([], minor=True)
    axes[0].set_ylabel("an all-reduce, ms")
    _plain_log(axes[0])
    handles = [Line2D([], [], label=f"{k} ranks", linestyle="", **styles[str(k)]) for k in ranks]
    handles += [
        Line2D([], [], color="k", label="α-β law"),
        Line2D([], [], color="k", linestyle="--", label="not fitted there"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _byte_marks(sizes: pd.Series) -> tuple[list[float], list[str]]:
    marks = {8: "8 B", 2**10: "1 KiB", 2**15: "32 KiB", 2**20: "1 MiB", 2**25: "32 MiB", 2**30: "1 GiB"}
    there = {size: told for size, told in marks.items() if sizes.min() <= size <= sizes.max()}
    return [float(size) for size in there], list(there.values())


def parts_figure(every: Sequence[Measured], fits: Fits) -> Figure:
    """Shares of a step's time by part, in strong scaling, for the smallest, the middle and the largest network."""
    fitted = [one for one in every if one.name in fits]
    figure, ((*axes,),) = _panels(fitted, height=3.6)
    for ax, one in zip(axes, fitted, strict=True):
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
