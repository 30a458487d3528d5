"""A figure as data: panels of points and lines over axes.  Here matplotlib draws it into files; in a page the one script
``figures.js`` draws the same data with Vega-Lite, to be read by pointer and keyboard.

A figure that is points and lines returns a ``Chart`` and need know neither; what is something else (areas, bars, maps) returns
a matplotlib ``Figure``, which pages hold as SVG.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from analysis.figures import COLOURS, MARKERS, STYLE, look

#: How a line is drawn: its points alone; joined; or a line without points, such as a law's.
Way = Literal["points", "joined", "line", "dashed", "dotted"]
_STROKES: dict[Way, Any] = {"points": "", "joined": "-", "line": "-", "dashed": "--", "dotted": ":"}
#: What is nobody's is grey.
GREY = "#777777"
#: A panel's width in inches.
_WIDTH = 3.4


@dataclass(frozen=True)
class Axis:
    """``title`` without its ``unit``.  ``marks`` are the only places that are marked, with what stands there; ``low`` and
    ``high`` are ends, where the data do not decide.
    """

    title: str
    unit: str = ""
    log: bool = False
    marks: Mapping[float, str] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True)
class Line:
    """Values ``y`` at ``x``, with ``low`` to ``high`` as their intervals.  Lines of one ``name`` look alike in every panel;
    without a name they are nobody's.  ``means`` says what the way it is drawn stands for: measured, by the law, ideal.
    Points may be ``hollow``.  It is drawn ``aside`` by that share of x, so that intervals stand beside each other.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    drawn: Way = "joined"
    means: str = ""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    hollow: Sequence[bool] = ()
    aside: float = 0.0

    @property
    def ends(self) -> list[tuple[float, float]]:
        """The interval of every value, nan where there is none."""
        if not len(self.low):
            return [(math.nan, math.nan)] * len(self.y)
        return [(float(low), float(high)) for low, high in zip(self.low, self.high, strict=True)]


@dataclass(frozen=True)
class Panel:
    """Lines over the axes of their row and column."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Row:
    """Panels side by side over one axis ``y``; ``height`` in inches, of the file."""

    y: Axis
    panels: Sequence[Panel]
    height: float = 2.4


@dataclass(frozen=True)
class Chart:
    """Rows of panels over one axis ``x``.  ``names`` fixes the order of colours; without it names come as they are drawn.
    ``hollow`` says what hollow points are.
    """

    x: Axis
    rows: Sequence[Row]
    names: Sequence[str] = ()
    hollow: str = ""

    @property
    def lines(self) -> Iterator[Line]:
        """Of all panels."""
        return (line for row in self.rows for panel in row.panels for line in panel.lines)

    @property
    def places(self) -> dict[str, int]:
        """The place of each name that is drawn."""
        there = [line.name for line in self.lines if line.name]
        known = {name: i for i, name in enumerate(dict.fromkeys([*self.names, *there]))}
        return {name: place for name, place in known.items() if name in there}


# --- as data --------------------------------------------------------------------------------------------------------


def document(chart: Chart) -> dict[str, Any]:
    """For the page: numbers to five digits, whole ones as they are, null for none."""
    names = [(name, *look(place)) for name, place in chart.places.items()]
    return {
        "x": _axis(chart.x),
        "hollow": chart.hollow,
        "names": [{"name": name, "colour": colour, "marker": marker} for name, colour, marker in names],
        "rows": [
            {
                "y": _axis(row.y),
                "panels": [
                    {"title": panel.title, "lines": [_line(line) for line in panel.lines if len(line.x)]}
                    for panel in row.panels
                ],
            }
            for row in chart.rows
        ],
    }


def _axis(axis: Axis) -> dict[str, Any]:
    marks = [[float(at), text] for at, text in axis.marks.items()]
    return {"title": axis.title, "unit": axis.unit, "log": axis.log, "marks": marks, "low": axis.low, "high": axis.high}


def _line(line: Line) -> dict[str, Any]:
    found: dict[str, Any] = {"name": line.name, "drawn": line.drawn, "means": line.means}
    found |= {"hollow": [int(bool(one)) for one in line.hollow], "aside": line.aside}
    return found | {name: _numbers(getattr(line, name)) for name in ("x", "y", "low", "high")}


def _numbers(values: Sequence[float]) -> list[float | None]:
    kept = (value if value.is_integer() else float(f"{value:.5g}") for value in map(float, values))
    return [value if math.isfinite(value) else None for value in kept]


# --- as a figure ----------------------------------------------------------------------------------------------------


def drawn(shown: Figure | Chart) -> Figure:
    """What is shown, for papers."""
    with mpl.rc_context(STYLE):
        return _figure(shown) if isinstance(shown, Chart) else shown


def _figure(chart: Chart) -> Figure:
    columns = max(len(row.panels) for row in chart.rows)
    size = (max(_WIDTH * columns + 0.4, 6.2), 1.0 + sum(row.height for row in chart.rows))
    found = Figure(figsize=size, layout="constrained")
    heights = [row.height for row in chart.rows]
    grid = found.subplots(len(chart.rows), columns, sharey="row", sharex=True, squeeze=False, height_ratios=heights)
    styles = {name: _style(place) for name, place in chart.places.items()}
    for row, axes in zip(chart.rows, grid, strict=True):
        for ax, panel in zip(axes, row.panels, strict=False):
            ax.set_title(panel.title)
            for line in panel.lines:
                _draw(ax, line, styles.get(line.name, {"color": GREY, "marker": ""}))
        for ax in axes[len(row.panels) :]:
            ax.set_axis_off()
        axes[0].set_ylabel(row.y.label)
        _scale(axes[0], row.y, "y")
    for ax in grid[-1]:
        ax.set_xlabel(chart.x.label)
    _scale(grid[0][0], chart.x, "x")
    handles = _key(chart, styles)
    found.legend(handles=handles, loc="outside lower center", ncols=max(1, min(len(handles), 2 * columns, 4)))
    return found


def _style(place: int) -> dict[str, Any]:
    colour, marker = look(place)
    return {"color": COLOURS[colour], "marker": MARKERS[marker]}


def _draw(ax: Axes, line: Line, style: Mapping[str, Any]) -> None:
    at, y = np.asarray(line.x, float) * (1 + line.aside), np.asarray(line.y, float)
    own: dict[str, Any] = dict(style) if line.drawn in ("points", "joined") else {**style, "marker": ""}
    ax.plot(at, y, linestyle=_STROKES[line.drawn], **own)
    if any(line.hollow):
        hollow = np.asarray(line.hollow, bool)
        ax.plot(at[hollow], y[hollow], linestyle="", **own, markerfacecolor="white")
    for x, (low, high) in zip(at, line.ends, strict=True):
        if math.isfinite(low) and math.isfinite(high):
            ax.plot([x, x], [low, high], color=style["color"], linewidth=1)


def _scale(ax: Axes, axis: Axis, which: Literal["x", "y"]) -> None:
    """Scale, ends and marks of an axis that its whole row or column shares."""
    of = ax.xaxis if which == "x" else ax.yaxis
    set_scale, set_ends = (ax.set_xscale, ax.set_xlim) if which == "x" else (ax.set_yscale, ax.set_ylim)
    if axis.log:
        set_scale("log")
        of.set_minor_formatter(NullFormatter())
    set_ends(axis.low, axis.high)
    if axis.marks:
        of.set_ticks(list(axis.marks), labels=list(axis.marks.values()))
        of.set_ticks([], minor=True)
    elif axis.log:
        _few_marks(ax, which)


def _few_marks(ax: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis of few decades with marks at 1, 2 and 5, in plain numbers."""
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    places = [digit * 10.0**power for power in range(-12, 13) for digit in (1, 2, 5)]
    places = [place for place in places if low <= place <= high]
    if len(places) > 7:
        places = [place for place in places if f"{place:e}"[0] == "1"]
    if len(places) > 7 or (places and not 1e-4 <= places[0] < 1e6):
        return  # matplotlib's own powers of ten
    (ax.xaxis if which == "x" else ax.yaxis).set_ticks(places, labels=[f"{place:g}" for place in places])


def _key(chart: Chart, styles: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """Names in their colours, then what each way of drawing means."""
    joined = any(line.drawn == "joined" for line in chart.lines)
    found = [Line2D([], [], linestyle="-" if joined else "", label=name, **style) for name, style in styles.items()]
    means = list(meanings(chart).items())
    found += [
        Line2D([], [], color="k", linestyle=_STROKES[way], marker="o" * (way == "points"), label=told)
        for way, told in means
    ]
    if chart.hollow:
        found.append(Line2D([], [], color="k", linestyle="", marker="o", markerfacecolor="white", label=chart.hollow))
    return found


def meanings(chart: Chart) -> dict[Way, str]:
    """By the way of drawing, what it means; of lines that are nobody's too."""
    return {line.drawn: line.means for line in chart.lines if line.means}
