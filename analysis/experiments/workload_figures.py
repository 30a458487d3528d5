"""Figures of workloads: time per n·m against weight reuse, exponents along every axis, shares of the ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.charts import Axis, Chart, Line, Panel, Row
from analysis.claims import BAND
from analysis.experiments.found import Found
from analysis.experiments.workload_series import Along, ReuseLine, Series
from analysis.statistics import Interval

GREY = "#777777"
#: Times are drawn in picoseconds.
PICO = 1e12


def reuse(every: Sequence[Series], lines: Mapping[str, ReuseLine], overhead: str) -> Chart:
    """A panel for each implementation, a colour and marker for each workload; hollow what ``overhead`` says."""
    impls = list(dict.fromkeys(one.impl for one in every))
    ends = [min(one.reuse.min() for one in every) / 1.3, max(one.reuse.max() for one in every) * 1.3]
    panels = [Panel(impl, [*_cells(every, impl), *_same_price(lines.get(impl), ends)]) for impl in impls]
    x = Axis("uses of each weight for an example", log=True)
    return Chart(x, [Row(Axis("time / (n·m)", "ps", log=True), panels, 3.4)], hollow=overhead)


def _cells(every: Sequence[Series], impl: str) -> list[Line]:
    return [
        Line(one.workload, list(one.reuse), list(PICO * one.per_nm), "points", hollow=list(~one.past_overhead))
        for one in every
        if one.impl == impl
    ]


def _same_price(line: ReuseLine | None, ends: Sequence[float]) -> list[Line]:
    return (
        [Line("", ends, [PICO * line.price * end for end in ends], "line", "every use costs the same")] if line else []
    )


def growth(found: Found, every: Sequence[Series]) -> Figure | None:
    """A row for each workload's axis, a marker for each implementation, beside what is predicted, ±``BAND``; None where no
    exponent was found.
    """
    rows = [
        (one.workload, along.axis, along.variable, along.predicted)
        for one in every
        for along in one.along
        if any(_along(other, one.workload, along.axis) for other in every)
    ]
    rows = list(dict.fromkeys(rows))
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 1.2 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    top = len(rows) - 1
    for i, (workload, name, _, predicted) in enumerate(rows):
        y = top - i
        if predicted is not None:
            axes.fill_betweenx([y - 0.42, y + 0.42], predicted - BAND, predicted + BAND, color="#dddddd", linewidth=0)
            axes.plot([predicted] * 2, [y - 0.42, y + 0.42], color=GREY, linewidth=1)
        for k, impl in enumerate(found.impls):
            along = next((a for one in every if one.impl == impl and (a := _along(one, workload, name))), None)
            if along is not None:
                _exponent(axes, along, y + 0.22 * ((len(found.impls) - 1) / 2 - k), found.style(impl))
    axes.set(ylim=(-0.6, top + 0.6), xlabel="exponent of time past fixed overhead")
    axes.set_yticks(
        range(top, -1, -1), [f"{workload} · {name}: {_in(variable)}" for workload, name, variable, _ in rows]
    )
    axes.set_xlim(*_limits(every))
    _between(axes, [row[0] for row in rows])
    handles = [Line2D([], [], label=impl, linestyle="", **found.style(impl)) for impl in found.impls]
    handles.append(Line2D([], [], color=GREY, label=f"predicted, ±{BAND}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _along(one: Series, workload: str, axis: str) -> Along | None:
    """Of a series of that workload, the axis where it has an exponent."""
    if one.workload != workload:
        return None
    return next((a for a in one.along if a.axis == axis and a.exponent.value is not None), None)


def _in(variable: str) -> str:
    return f"in {variable}"


def _exponent(axes: Axes, along: Along, y: float, style: Mapping[str, Any]) -> None:
    found = along.exponent
    assert found.value is not None
    if found.ci_low is not None and found.ci_high is not None:
        axes.plot([found.ci_low, found.ci_high], [y, y], color=style["color"], linewidth=1.2)
    axes.plot([found.value], [y], linestyle="", **style)


def _limits(every: Sequence[Series]) -> tuple[float, float]:
    """All exponents, and of their intervals what is no wider than ½ to either side."""
    ends = [1.0 - 2 * BAND, 1.0 + 2 * BAND]
    for one in every:
        for along in one.along:
            found = along.exponent
            if found.value is not None:
                low, high = found.ci_low or found.value, found.ci_high or found.value
                ends += [max(low, found.value - 0.5), min(high, found.value + 0.5)]
    return min(ends) - 0.05, max(ends) + 0.05


def _between(axes: Axes, workloads: Sequence[str]) -> None:
    """Lines between workloads, and none between the rows of one."""
    top = len(workloads) - 1
    axes.grid(visible=False, axis="y")
    for i in range(1, len(workloads)):
        if workloads[i] != workloads[i - 1]:
            axes.axhline(top - i + 0.5, color="#bbbbbb", linewidth=0.6)


def speed(found: Found, every: Sequence[Series], ratios: Mapping[tuple[str, str], Interval], beside: str) -> Figure:
    """Share of the matrix-product ceiling at the usual sizes, and time over that of the implementation ``beside``."""
    workloads = list(dict.fromkeys(one.workload for one in every))
    figure = Figure(figsize=(8.4 if ratios else 5.0, 1.4 + 0.32 * len(workloads)), layout="constrained")
    panels = figure.subplots(1, 2 if ratios else 1, sharey=True, squeeze=False)[0]
    top = len(workloads) - 1
    for one in every:
        if one.middle is not None:
            share = one.share_of_ceiling[one.cells["layers"] == one.middle["layers"]][0]
            panels[0].plot([100 * share], [top - workloads.index(one.workload)], linestyle="", **found.style(one.impl))
    panels[0].set(xlabel="share of the matrix-product ceiling, %", xlim=(0, None))
    panels[0].set_yticks(range(top, -1, -1), workloads)
    for (impl, workload), ratio in ratios.items():
        y = top - workloads.index(workload)
        style = found.style(impl)
        panels[1].plot([ratio.low, ratio.high], [y, y], color=style["color"], linewidth=1.2)
        panels[1].plot([ratio.value], [y], linestyle="", **style)
    if ratios:
        panels[1].axvline(1.0, color=GREY, linewidth=1)
        panels[1].set(xscale="log", xlabel=f"time / time of {beside}")
        ticks = [
            tick
            for tick in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20)
            if _within(tick, panels[1].get_xlim())
        ]
        panels[1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panels[1].set_xticks([], minor=True)
    handles = [Line2D([], [], label=impl, linestyle="", **found.style(impl)) for impl in found.impls]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)))
    return figure


def _within(value: float, ends: tuple[float, float]) -> bool:
    return ends[0] <= value <= ends[1]
