"""Figures of a predicted cluster: time and efficiency against ranks, strong and weak scaling beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis import pictures, words
from analysis.cluster import Prediction, Rank
from analysis.figures import COLOURS, STYLE
from backprop_files import write_json

WHOLE, SENT, IDEAL = COLOURS[0], COLOURS[1], "#777777"


def write(found: Prediction, document: dict[str, object], out: Path) -> list[Path]:
    """Both figures as SVG and PNG, and ``prediction.json``, into ``out``; returns what was written.  Raises UserError."""
    with mpl.rc_context(STYLE):
        drawn = {"cluster-time": time(found), "cluster-efficiency": efficiency(found)}
        for key, figure in drawn.items():
            pictures.picture(figure, key, key, "", out)
    write_json(out / "prediction.json", document)
    return [*(out / f"{key}.{kind}" for key in drawn for kind in ("svg", "png")), out / "prediction.json"]


def time(found: Prediction) -> Figure:
    """Time of a step with its 95 % band, what of it is communication, and the ideal."""
    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    single = found.single_s.value
    for ax, ranks, kind in zip(axes, (found.strong, found.weak), ("strong", "weak"), strict=True):
        k, times = _numbers(ranks)
        ax.fill_between(k, 1e3 * times[:, 1], 1e3 * times[:, 2], color=WHOLE, alpha=0.18, linewidth=0, label="95 %")
        ax.plot(k, 1e3 * times[:, 0], "o-", color=WHOLE, label="a step")
        sent = times[:, 0] * [rank.communication for rank in ranks]
        ax.plot(k[sent > 0], 1e3 * sent[sent > 0], "s--", color=SENT, label="communication")
        ideal = single / k if kind == "strong" else np.full(len(k), single)
        ax.plot(k, 1e3 * ideal, ":", color=IDEAL, label="ideal")
        each = "in all" if kind == "strong" else "a rank"
        ax.set(title=f"{kind} scaling, n = {found.n:,} {each}", yscale="log")
        _ranks(ax, [rank.ranks for rank in ranks])
    if 1 < found.fastest <= found.strong[-1].ranks:
        axes[0].axvline(found.fastest, color=IDEAL, linewidth=0.8)
        told = f"fastest, k ≈ {words.significant(found.fastest, 2)}"
        axes[0].annotate(
            told,
            (found.fastest, 1),
            (-4, -2),
            ("data", "axes fraction"),
            "offset points",
            ha="right",
            va="top",
            fontsize=8,
        )
    axes[0].set_ylabel("a step, ms")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def efficiency(found: Prediction) -> Figure:
    """Efficiency against ranks, strong and weak."""
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    ax = figure.subplots()
    for kind, ranks, style in (("strong", found.strong, "o-"), ("weak", found.weak, "s-")):
        k, _ = _numbers(ranks)
        told = f"{kind}, n = {found.n:,} {'in all' if kind == 'strong' else 'a rank'}"
        colour = WHOLE if kind == "strong" else COLOURS[2]
        ax.plot(k, [100 * rank.efficiency for rank in ranks], style, color=colour, label=told)
    ax.axhline(100, color=IDEAL, linewidth=1)
    ax.set(ylabel="efficiency, %", ylim=(0, 108))
    _ranks(ax, [rank.ranks for rank in found.weak])
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _numbers(ranks: Sequence[Rank]) -> tuple[np.ndarray, np.ndarray]:
    """k, shape (ranks,), and time with its interval, shape (ranks, 3)."""
    times = [[rank.time_s.value, rank.time_s.low, rank.time_s.high] for rank in ranks]
    return np.array([float(rank.ranks) for rank in ranks]), np.array(times)


def _ranks(ax: Axes, ranks: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    every = -(-len(ranks) // 7)  # no more marks than can be read
    ax.set_xticks(ranks[::every], [f"{k:,}" for k in ranks[::every]])
    ax.set_xticks([], minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("ranks, k")
