"""Every figure is one function: frame and verdicts in, a matplotlib ``Figure`` out.  A new figure is one function.

Nothing prints and nothing touches global style; colours are Okabe and Ito's, which colour-blind readers can tell apart,
and every implementation has a marker of its own as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from analysis import devices, sizes
from analysis.cells import on_axis
from analysis.claims import BAND
from analysis.devices import Match
from analysis.laws import Choice, LawFit
from analysis.regimes import Regimes
from analysis.verdicts import Verdict

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = "osD^vP*X"
PHASE_COLOURS = {"forward": "#56B4E9", "loss": "#000000", "backward": "#E69F00", "update": "#009E73"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",  # a page must look the same where our font is missing
    "svg.hashsalt": "backprop-bench",
    "lines.markersize": 4.5,
    "lines.linewidth": 1.2,
}


def look(place: int) -> tuple[int, int]:
    """Colour and marker of a place, as places in their lists: beyond as many as there are colours, markers move on."""
    return place % len(COLOURS), (place + place // len(COLOURS)) % len(MARKERS)


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the cell table and the verdicts of one device and dtype mix."""

    cells: pd.DataFrame
    verdicts: Sequence[Verdict]
    rounds: pd.DataFrame  # of analysis.timeline
    states: pd.DataFrame
    regimes: Mapping[str, Regimes]  # by full series
    others: Sequence[Verdict] = ()  # of optimizers beside the usual one, whose cells are in none of the figures
    other_cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    copied: pd.DataFrame = field(default_factory=pd.DataFrame)  # of analysis.transfers, in none of the other cells

    def rows_of(self, verdict: Verdict) -> pd.DataFrame:
        """The cells of a verdict's series and optimizer, of every phase."""
        usual = (self.cells["optimizer"] == verdict.optimizer).any()
        cells = self.cells if usual else self.other_cells
        return cells[(cells["full_series"] == name_of(verdict)) & (cells["optimizer"] == verdict.optimizer)]

    @property
    def steps(self) -> pd.DataFrame:
        """Cells of whole steps."""
        return self.cells[self.cells["phase"] == "step"]

    @property
    def series(self) -> list[str]:
        """Series in the figures: implementations, with device and dtype where one has several."""
        return sorted(self.cells["series"].unique())

    def style(self, series: str) -> dict[str, Any]:
        """Colour and marker of a series, the same in every figure of the report.  Those of very many series are pixels: drawn
        one by one they would make a page of megabytes.
        """
        i = self.series.index(series)
        pixels = {"rasterized": True} if len(self.series) > len(COLOURS) else {}
        colour, marker = look(i)
        return {"color": COLOURS[colour], "marker": MARKERS[marker]} | pixels

    def names(self) -> list[tuple[str, str]]:
        """Full and short name of every series, in the order of the short ones."""
        pairs = self.cells[["full_series", "series"]].drop_duplicates().itertuples(index=False, name=None)
        return sorted(((str(full), str(short)) for full, short in pairs), key=lambda pair: pair[1])

    def arithmetic(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Of one series' steps those that laws are judged by: on an accelerator the ones past launching."""
        found = [v.launch for v in self.verdicts if v.phase == "step" and name_of(v) in set(rows["full_series"])]
        return rows[found[0].arithmetic(rows)] if found and found[0] else rows

    def choices(self) -> dict[str, Choice]:
        """The choice of a law for every series' step that has one."""
        return {name_of(v): v.choice for v in self.verdicts if v.phase == "step" and v.choice.winner is not None}

    def winners(self) -> dict[str, LawFit]:
        """The winning law of every series' step."""
        return {name: choice.winner for name, choice in self.choices().items() if choice.winner is not None}


def name_of(verdict: Verdict) -> str:
    """The series a verdict belongs to, before it is shortened."""
    return f"{verdict.impl} {verdict.device} {verdict.dtype}"


@dataclass(frozen=True)
class Drawing:
    """A figure of the report: its key (file name), title, what it shows, and how it is drawn."""

    key: str
    title: str
    caption: Callable[[Material], str]
    draw: Callable[[Material], Figure | None]


DRAWINGS: list[Drawing] = []


def drawing(
    key: str, title: str, caption: Callable[[Material], str]
) -> Callable[[Callable[[Material], Figure | None]], Any]:
    """Register a figure.  The function returns None where the run lacks the cells for it."""

    def register(function: Callable[[Material], Figure | None]) -> Callable[[Material], Figure | None]:
        def styled(material: Material) -> Figure | None:
            with mpl.rc_context(STYLE):
                return function(material)

        DRAWINGS.append(Drawing(key, title, caption, styled))
        return function

    return register


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _legend(figure: Figure, material: Material, names: Sequence[str], extra: Sequence[Any] = ()) -> None:
    handles = [Line2D([], [], label=name, linestyle="-", **material.style(name)) for name in names]
    figure.legend(handles=[*handles, *extra], loc="outside lower center", ncols=min(5, len(handles) + len(extra)))


# --- time against each axis -----------------------------------------------------------------------------------------

_PANELS = (
    ("examples", "n", "examples n"),
    ("depth", "m", "weights and biases m, by depth"),
    ("width", "m", "weights and biases m, by width"),
    ("activation", "p", "operations per activation p"),
)


def _time_caption(material: Material) -> str:
    cells = material.steps
    return (
        "Seconds for one step when one thing moves and all else stays. Markers: measured, with 95 % intervals over "
        "passes; thin dashed lines: the law that wins for each implementation; dotted grey: the roofline, the time the "
        f"matrix products alone would take at the measured ceiling ({_ceilings(cells)}) for the network "
        "that most implementations share. Both axes are logarithmic: a straight line of slope 1 is growth in proportion."
    )


def _ceilings(cells: pd.DataFrame) -> str:
    """The ceiling, or each with its device and dtype where they are several."""
    found = cells.groupby(["device", "dtype"])["ceiling_flops"].median().dropna()
    if len(found) < 2:
        return f"{float(cells['ceiling_flops'].median()) / 1e9:,.0f} GFLOP/s"
    return "; ".join(
        f"{device} {dtype} {flops / 1e9:,.0f} GFLOP/s"
        for device, dtype, flops in found.reset_index().itertuples(index=False)
    )


@drawing("time", "Time of a step against n, m and p", _time_caption)
def time_against_axes(material: Material) -> Figure | None:
    """Four panels, one an axis."""
    panels = [panel for panel in _PANELS if len(on_axis(material.steps, panel[0]))]
    if not panels:
        return None
    figure = _figure(10, 3.8 * ((len(panels) + 1) // 2) + 0.5)
    grid = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    names: set[str] = set()
    for axes, (axis, variable, label) in zip(grid.flat, panels, strict=False):
        names |= _time_panel(axes, material, on_axis(material.steps, axis), variable)
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds per step")
        _few_ticks(axes)
    extra = [
        Line2D([], [], color="#666666", linestyle="--", linewidth=0.9, label="winning law"),
        Line2D([], [], color="#666666", linestyle=":", label="roofline"),
    ]
    _legend(figure, material, sorted(names), extra)
    return figure


def _few_ticks(axes: Axes) -> None:
    """Over less than two decades matplotlib labels minor ticks too, one on another: 1, 2 and 5 are enough."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        if high < 100 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf)))
            axis.set_minor_formatter(NullFormatter())


def _time_panel(axes: Axes, material: Material, cells: pd.DataFrame, variable: str) -> set[str]:
    winners = material.winners()
    for name, rows in cells.groupby("series"):
        line = rows.sort_values(variable)
        style = material.style(str(name))
        errors = np.nan_to_num(
            np.clip([line["time_s"] - line["ci_low_s"], line["ci_high_s"] - line["time_s"]], 0, None)
        )
        axes.errorbar(line[variable], line["time_s"], errors, linestyle="none", elinewidth=0.8, **style)
        law = winners.get(str(rows["full_series"].iloc[0]))
        if law:
            judged = material.arithmetic(line)
            axes.plot(judged[variable], law.predict(judged), "--", color=style["color"], linewidth=0.9)
    usual = _usual_network(cells, variable)
    for ceiling in sorted(set(cells.groupby(["device", "dtype"])["ceiling_flops"].median())):
        axes.plot(usual[variable], usual["operations_product"] / ceiling, ":", color="#666666")
    return set(map(str, cells["series"].unique()))


def _usual_network(cells: pd.DataFrame, variable: str) -> pd.DataFrame:
    """Cells of the inputs, outputs and fixed things that most series share: a slow one sweeps smaller networks."""
    fixed = [
        name for name in ("n", "width", "depth", "activation") if cells.groupby("series")[name].nunique().max() == 1
    ]
    shared = cells.groupby(fixed)["series"].nunique()
    usual = cells.set_index(fixed).loc[[shared.idxmax()]].reset_index()
    return usual.drop_duplicates(variable).sort_values(variable)


# --- exponents ------------------------------------------------------------------------------------------------------


def _exponent_caption(material: Material) -> str:
    told = sum(1 for v in material.verdicts if v.phase == "step" for x in "nmp" if v.exponents[x].ci_low is not None)
    return (
        f"Exponents of n, m and p in the cost of a step with 95 % intervals ({told} could be estimated). The article claims 1; "
        f"inside the grey band (±{BAND}) an exponent is called equal to 1. A missing marker means too few cells past "
        "fixed overhead, or an axis that was not measured."
    )


@drawing("exponents", "Exponents against the claimed 1", _exponent_caption)
def exponents(material: Material) -> Figure | None:
    """One panel each for n, m and p; a row for each implementation."""
    verdicts = [v for v in material.verdicts if v.phase == "step"]
    if not any(v.exponents[x].value is not None for v in verdicts for x in "nmp"):
        return None
    figure = _figure(10, 1.4 + 0.36 * len(verdicts))
    panels = figure.subplots(1, 3, sharey=True, squeeze=False)[0]
    labels = [_short(material, v) for v in verdicts]
    for axes, name in zip(panels, "nmp", strict=True):
        axes.axvspan(1 - BAND, 1 + BAND, color="#dddddd", zorder=0)
        axes.axvline(1, color="#888888", linewidth=1)
        for row, verdict in enumerate(verdicts):
            _exponent_mark(axes, verdict, name, row, material.style(labels[row]))
        axes.set(xlabel=f"exponent of {name}", xlim=_limits(verdicts, name), ylim=(len(verdicts) - 0.5, -0.5))
        axes.set_yticks(range(len(verdicts)), labels)
    return figure


def _exponent_mark(axes: Axes, verdict: Verdict, name: str, row: int, style: dict[str, Any]) -> None:
    found = verdict.exponents[name]
    if found.value is None:
        axes.text(
            0.02, row, "not estimated", transform=axes.get_yaxis_transform(), va="center", fontsize=7, color="#777777"
        )
        return
    if found.ci_low is not None and found.ci_high is not None:
        axes.plot([found.ci_low, found.ci_high], [row, row], color=style["color"], linewidth=2)
    axes.plot([found.value], [row], linestyle="none", **style)


def _limits(verdicts: Sequence[Verdict], name: str) -> tuple[float, float]:
    """Room for every estimate, but not for an interval so wide that it says nothing."""
    found = [v.exponents[name] for v in verdicts if v.exponents[name].value is not None]
    lows = [max(e.ci_low if e.ci_low is not None else e.value or 0, -0.5) for e in found]
    highs = [min(e.ci_high if e.ci_high is not None else e.value or 1, 2.0) for e in found]
    return min([*lows, 0.0]) - 0.05, max([*highs, 1.2]) + 0.05


def _short(material: Material, verdict: Verdict) -> str:
    matches = material.cells.loc[material.cells["full_series"] == name_of(verdict), "series"]
    return str(matches.iloc[0])


# --- laws -----------------------------------------------------------------------------------------------------------


_LAWS_A_ROW = 3


def _prediction_caption(material: Material) -> str:
    return (
        "Predicted over measured time of a step for each declared law, fitted on the small cells only. Filled markers are "
        "held-out cells, 8 to 16 times larger than any cell fitted; hollow ones were fitted. On the line the law is right; "
        "the grey band is ±20 %."
    )


@drawing("laws", "Predicted against measured, law by law", _prediction_caption)
def predicted_against_measured(material: Material) -> Figure | None:
    """One panel a law."""
    fits = [(v, fit) for v in material.verdicts if v.phase == "step" for fit in v.choice.fits]
    names = list(dict.fromkeys(fit.law.name for _, fit in fits))
    if not names:
        return None
    rows = (len(names) + _LAWS_A_ROW - 1) // _LAWS_A_ROW
    figure = _figure(10, 0.8 + 2.7 * rows)
    panels = figure.subplots(rows, min(len(names), _LAWS_A_ROW), sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes, law in zip(panels.flat, names, strict=False):
        axes.axhspan(1 / 1.2, 1.2, color="#e8e8e8", zorder=0)
        axes.axhline(1, color="#888888", linewidth=1)
        for verdict, fit in fits:
            if fit.law.name == law:
                _prediction_marks(axes, material, verdict, fit)
        axes.set(xscale="log", yscale="log", title=textwrap.fill(law, 26), ylim=(0.15, 7))
        axes.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
        axes.minorticks_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("predicted / measured")
    for axes in list(panels.flat[: len(names)])[-panels.shape[1] :]:
        axes.set_xlabel("measured seconds per step")
        axes.tick_params(labelbottom=True)
    kinds = [
        Line2D([], [], linestyle="none", marker="o", color="#666666", label="held out"),
        Line2D([], [], linestyle="none", marker="o", color="#666666", markerfacecolor="none", label="fitted"),
    ]
    _legend(figure, material, sorted({_short(material, v) for v, _ in fits}), kinds)
    return figure


def _prediction_marks(axes: Axes, material: Material, verdict: Verdict, fit: LawFit) -> None:
    rows = material.steps[(material.steps["full_series"] == name_of(verdict)) & (material.steps["axis"] != "functions")]
    rows = material.arithmetic(rows[rows["heldout"] | (rows["operations_total"] <= fit.largest_fitted)])
    style = material.style(_short(material, verdict))
    ratio = np.clip(fit.predict(rows) / rows["time_s"], 0.16, 6.5)
    out = rows["heldout"].to_numpy(bool)
    style |= {"linestyle": "none", "rasterized": True}  # hundreds of markers: a drawing of them all would be large
    axes.plot(rows["time_s"][~out], ratio[~out], markerfacecolor="none", alpha=0.5, **style)
    axes.plot(rows["time_s"][out], ratio[out], **style)


# --- regimes --------------------------------------------------------------------------------------------------------

_BANDS = (("overhead", "#D5D9E0"), ("transition", "#F3D9A4"), ("growth", "#BFE3D0"))


def _regimes_caption(material: Material) -> str:
    return (
        "Where the fixed part is more than half of a step's cost (overhead), more than a fifth (transition), and where cost "
        "grows with the work, along the examples axis, in n·m. Marks: the crossover, where overhead is half of the cost, with "
        "its 95 % interval; where there is none, it lies outside what was measured. Dotted: steps in the price of the work, "
        "found by a segmented fit with a penalty, and by how much."
    )


@drawing("regimes", "Overhead, transition, growth", _regimes_caption)
def regimes(material: Material) -> Figure | None:
    """A row of bands for each series."""
    known = [(name, material.regimes[full]) for full, name in material.names() if full in material.regimes]
    if not known:
        return None
    figure = _figure(10, 1.5 + 0.42 * len(known))
    axes = figure.subplots()
    for row, (_, found) in enumerate(known):
        ends = [found.low, found.overhead_until, found.transition_until, found.high]
        for (_, colour), start, end in zip(_BANDS, ends, ends[1:], strict=False):
            if end > start:
                axes.barh(row, end - start, left=start, height=0.62, color=colour)
        for at, ratio in found.steps:
            axes.plot([at, at], [row - 0.31, row + 0.31], ":", color="#333333", linewidth=1.6)
            axes.text(at, row - 0.33, f"×{ratio:.2f}", ha="center", va="bottom", fontsize=7)
        if np.isfinite(found.crossover.low):
            axes.plot([found.crossover.low, found.crossover.high], [row, row], color="black", linewidth=2.2)
        if np.isfinite(found.crossover.value):
            axes.plot([found.crossover.value], [row], "o", color="black", markersize=5)
    axes.set(xscale="log", xlabel="n·m, examples times weights and biases", ylim=(len(known) - 0.5, -0.6))
    axes.set_xlim(min(found.low for _, found in known), max(found.high for _, found in known))
    axes.set_yticks(range(len(known)), [name for name, _ in known])
    axes.grid(axis="y", visible=False)
    patches: list[Any] = [Patch(color=colour, label=name) for name, colour in _BANDS]
    patches.append(Line2D([], [], color="black", marker="o", linewidth=2.2, label="overhead is half of the cost"))
    figure.legend(handles=patches, loc="outside lower center", ncols=4)
    return figure


# --- memory ---------------------------------------------------------------------------------------------------------


def _memory_caption(material: Material) -> str:
    return (
        "Peak bytes that one prepared problem holds during a step (parameters, batch, workspace, temporaries), as the "
        "library's own allocator counts them, when one thing moves and all else stays. Dashed: the memory law that wins "
        "for each implementation. Bytes do not differ from pass to pass."
    )


@drawing("memory", "Peak memory of a step", _memory_caption)
def memory(material: Material) -> Figure | None:
    """Three panels: n, m by width, p."""
    steps = material.steps[pd.to_numeric(material.steps["peak_bytes"]) > 0]
    panels = [panel for panel in _PANELS if panel[0] != "depth" and on_axis(steps, panel[0])[panel[1]].nunique() > 1]
    if not panels:
        return None
    figure = _figure(10, 3.6)
    names: set[str] = set()
    finals = {name_of(v): v.choice.final for v in material.verdicts if v.phase == "memory" and v.choice.final}
    for axes, (axis, variable, label) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        for name, rows in on_axis(steps, axis).groupby("series"):
            line = rows.sort_values(variable)
            style = material.style(str(name))
            axes.plot(line[variable], pd.to_numeric(line["peak_bytes"]) / 1e6, linestyle="none", **style)
            law = finals.get(str(line["full_series"].iloc[0]))
            if law:
                axes.plot(line[variable], law.predict(line) / 1e6, "--", color=style["color"], linewidth=0.9)
            names.add(str(name))
        axes.set(xscale="log", yscale="log", xlabel=label)
    figure.axes[0].set_ylabel("peak megabytes of a step")
    _legend(figure, material, sorted(names), [Line2D([], [], color="#666666", linestyle="--", label="winning law")])
    return figure


# --- ceiling --------------------------------------------------------------------------------------------------------


def _ceiling_caption(material: Material) -> str:
    best = material.steps.sort_values("share_of_ceiling").iloc[-1]
    return (
        "Share of the matrix-product ceiling that each step reaches (operations in products / time / measured ceiling) "
        f"against the work in it. The best is {best['series']} with {best['share_of_ceiling']:.0%} at layers {best['layers']}, "
        f"n = {best['n']:,}. Activations count as time but not as products, so costly activations lower the share."
    )


@drawing("ceiling", "Share of the matrix-product ceiling", _ceiling_caption)
def share_of_ceiling(material: Material) -> Figure | None:
    """All step cells."""
    cells = material.steps.dropna(subset=["share_of_ceiling"])
    if cells.empty:
        return None
    figure = _figure(10, 4.6)
    axes = figure.subplots()
    for name, rows in cells.groupby("series"):
        axes.plot(
            rows["operations_product"],
            100 * rows["share_of_ceiling"],
            linestyle="none",
            alpha=0.75,
            **material.style(str(name)),
        )
    axes.axhline(100, color="#888888", linewidth=1)
    axes.set(
        xscale="log", yscale="log", xlabel="operations in matrix products per step", ylabel="share of the ceiling, %"
    )
    axes.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    _legend(figure, material, sorted(map(str, cells["series"].unique())))
    return figure


# --- which is fastest -----------------------------------------------------------------------------------------------


def _fastest_caption(material: Material) -> str:
    return (
        "The implementation that the winning laws predict to be fastest for a network of two hidden layers, by examples and "
        "width; dots are the cells measured on the examples and width axes, coloured by the one that was in fact fastest; a "
        "hollow one is a tie, where the next one's 95 % interval overlaps. Only implementations measured on all axes take part."
    )


@drawing("fastest", "Which implementation is fastest where", _fastest_caption)
def fastest(material: Material) -> Figure | None:
    """A map over n and width."""
    taking_part = _complete(material)
    measured = pd.concat([on_axis(material.steps, "examples"), on_axis(material.steps, "width")])
    measured = measured[measured["series"].isin(taking_part)].drop_duplicates(["series", "layers", "n", "activation"])
    if len(taking_part) < 2 or measured.empty:
        return None
    n = np.geomspace(measured["n"].min(), measured["n"].max(), 60)
    width = np.geomspace(measured["width"].min(), measured["width"].max(), 60)
    grid = _two_hidden_layers(n, width, measured.iloc[0])
    times = np.array([choice.seconds(grid) for choice in taking_part.values()])
    names = list(taking_part)
    figure = _figure(8, 4.8)
    axes = figure.subplots()
    colours = mpl.colors.ListedColormap([material.style(name)["color"] for name in names])
    best = times.argmin(axis=0).reshape(len(width), len(n))
    axes.pcolormesh(
        n, width, best, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, alpha=0.45, shading="nearest", rasterized=True
    )
    points = measured.groupby(["layers", "n", "activation"])["time_s"]
    won = measured.loc[points.idxmin()[points.size() > 1]]  # alone, nobody is fastest
    for (name, tie), rows in won.assign(tie=_ties(measured, won)).groupby(["series", "tie"]):
        style = material.style(str(name))
        fill = {"markerfacecolor": "white", "markeredgewidth": 2} if tie else {"markeredgecolor": "white"}
        axes.plot(rows["n"], rows["width"], linestyle="none", markersize=8, clip_on=False, **style, **fill)
    axes.set(xscale="log", yscale="log", xlabel="examples n", ylabel="width of the hidden layers")
    axes.grid(False)
    predicted = [names[i] for i in np.unique(best)]
    patches = [Patch(color=material.style(name)["color"], alpha=0.45, label=f"{name} predicted") for name in predicted]
    _legend(figure, material, sorted(map(str, won["series"].unique())), patches)
    return figure


def _ties(measured: pd.DataFrame, won: pd.DataFrame) -> list[bool]:
    """Whether another one's interval overlaps that of the fastest, for each row of ``won``."""
    keys = ["layers", "n", "activation"]
    ties = []
    for _, best in won.iterrows():
        others = measured[(measured[keys] == best[keys]).all(axis=1) & (measured["series"] != best["series"])]
        ties.append(bool((others["ci_low_s"] <= best["ci_high_s"]).any()))
    return ties


def _complete(material: Material) -> dict[str, Choice]:
    """Winning laws of the series measured on the examples, width and activation axes of the same cells as most."""
    winners = material.choices()
    axes = ("examples", "width", "activation")
    cells = [on_axis(material.steps, axis) for axis in axes]
    found = {}
    top = material.steps["n"].max() / 8  # a slow implementation's far smaller sweep does not reach into the map
    for name in material.series:
        own = [part[part["series"] == name] for part in cells]
        if all(len(part) for part in own) and own[0]["n"].max() >= top:
            law = winners.get(str(own[0]["full_series"].iloc[0]))
            if law:
                found[name] = law
    return found


def _two_hidden_layers(n: np.ndarray, width: np.ndarray, like: pd.Series) -> pd.DataFrame:
    w, x = (a.ravel() for a in np.meshgrid(width, n, indexing="ij"))
    return sizes.like(like, (like["inputs"], w, w, like["outputs"]), x, float(like["p"]))


# --- where an accelerator wins --------------------------------------------------------------------------------------

#: Where the colour of a ratio changes; few of them, so that a file of few colours shows them as they are.
_RATIOS = (1 / 100, 1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0, 100.0)
_LINES: tuple[tuple[Literal["-", "--"], str], ...] = (("-", "without transfer"), ("--", "with transfer"))


def _where_caption(material: Material) -> str:
    found = devices.matches(material.steps, material.copied)
    counts = "; ".join(
        f"{match.dtype}: {len(match.cells)} cells on both sides, {match.only_host} on the CPU alone, {match.only_device} on "
        "the device alone"
        for match in found
    )
    return (
        "Seconds of the fastest implementation on the CPU over those of the fastest on the device, by examples and width, one "
        "panel for each dtype of the device (fewer bits stand against the CPU's float32). Dots: cells measured on both sides; "
        "small ones are of another depth or activation. Behind them, what the winning laws predict for the depth and "
        "activation of the examples axis, never below what launching takes. Black lines: where both are equally fast by those "
        f"laws, solid without and dashed with the copy of the batch to the device. Above 1 the device wins. {counts}."
    )


@drawing("devices", "Where the accelerator wins", _where_caption)
def where_the_device_wins(material: Material) -> Figure | None:
    """One panel a dtype of the device."""
    found = [match for match in devices.matches(material.steps, material.copied) if len(match.cells)]
    if not found:
        return None
    columns = min(2, len(found))
    lines = -(-len(found) // columns)
    figure = _figure(5.4 * columns + (0 if columns > 1 else 1.6), 4.0 * lines + 0.6)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    colours = mpl.colormaps["RdBu"].resampled(len(_RATIOS) + 1)
    norm = mpl.colors.BoundaryNorm(_RATIOS, colours.N, extend="both")
    for axes, match in zip(grid.flat, found, strict=False):
        _where_panel(axes, material, match, {"norm": norm, "cmap": colours})
        axes.set(xscale="log", yscale="log", title=f"device {match.dtype}, CPU {match.host_dtype}")
        axes.grid(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("width of the hidden layers")
    for axes in list(grid.flat[: len(found)])[-columns:]:
        axes.set_xlabel("examples n")
        axes.tick_params(labelbottom=True)
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours), ax=list(grid.flat[: len(found)]), shrink=0.9)
    bar.set_label("CPU seconds / device seconds")
    bar.set_ticks(list(_RATIOS), labels=["1/100", "1/30", "1/10", "1/3", "1", "3", "10", "30", "100"])
    handles = [Line2D([], [], color="black", linestyle=style, label=name) for style, name in _LINES]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, title="equally fast by the winning laws")
    return figure


def _where_panel(axes: Axes, material: Material, match: Match, colours: dict[str, Any]) -> None:
    cells = match.cells
    if cells["n"].nunique() > 1 and cells["width"].nunique() > 1:
        n, width = (np.geomspace(cells[name].min(), cells[name].max(), 60) for name in ("n", "width"))
        rows = devices.networks(match, material.steps, n, width)
        for ratio, (style, _) in zip(
            devices.predicted(match, material.verdicts, material.copied, rows), _LINES, strict=True
        ):
            field = np.log(ratio).reshape(len(width), len(n))
            if style == "-" and np.isfinite(field).all():
                axes.pcolormesh(n, width, np.exp(field), alpha=0.5, shading="nearest", rasterized=True, **colours)
            if np.isfinite(field).all() and field.min() < 0 < field.max():
                axes.contour(n, width, field, [0.0], colors="black", linestyles=style, linewidths=1.6)
    usual = np.array([{"examples", "width"} & set(names.split(",")) != set() for names in cells["axis"]], bool)
    for part, size in ((cells[~usual], 18), (cells[usual], 60)):
        axes.scatter(
            part["n"], part["width"], size, part["ratio"], edgecolors="#333333", linewidths=0.7,
            clip_on=False, zorder=3, **colours,
        )  # fmt: skip


# --- phases ---------------------------------------------------------------------------------------------------------


def _phase_point(material: Material) -> pd.DataFrame:
    """Phase cells at the largest point that most implementations share."""
    cells = material.cells[material.cells["phase"].isin(list(PHASE_COLOURS))]
    if cells.empty:
        return cells
    points = cells.groupby(["layers", "activation", "n"]).agg(
        count=("series", "nunique"), work=("operations_total", "sum")
    )
    layers, activation, n = points[points["count"] == points["count"].max()]["work"].idxmax()
    chosen: pd.DataFrame = cells[(cells["layers"] == layers) & (cells["activation"] == activation) & (cells["n"] == n)]
    return chosen


def _phase_caption(material: Material) -> str:
    point = _phase_point(material)
    if point.empty:
        return ""
    first = point.iloc[0]
    return (
        "Time of each phase, measured one by one, as a share of the whole step (its milliseconds stand at the left), at the "
        f"largest point that most implementations share: layers {first['layers']}, {first['activation']}, n = {first['n']:,}. "
        "A bar that ends beyond 100 % belongs to an implementation whose whole step, written as its users write it, is "
        "faster than its phases one by one. Implementations that only do whole steps are not shown."
    )


@drawing("phases", "Time by phase", _phase_caption)
def phases(material: Material) -> Figure | None:
    """Stacked bars, each implementation's whole step being 100 %."""
    point = _phase_point(material)
    if point.empty:
        return None
    whole = _same_point(material.steps, point).set_index("series")["time_s"]
    table = point.pivot_table(index="series", columns="phase", values="time_s", aggfunc="first")
    table = table[table.index.isin(whole.index)]
    if table.empty:
        return None
    steps = whole.reindex(table.index)
    labels = [f"{name}\n{_milliseconds(seconds)}" for name, seconds in steps.items()]
    figure = _figure(10, 1.6 + 0.5 * len(labels))
    axes = figure.subplots()
    left = np.zeros(len(labels))
    for phase, colour in PHASE_COLOURS.items():
        if phase in table:
            shares = 100 * (table[phase].fillna(0) / steps).to_numpy()
            axes.barh(labels, shares, left=left, color=colour, label=phase, height=0.65)
            left += shares
    axes.axvline(100, color="black", linewidth=1, label="whole step")
    axes.set(xlabel="share of the whole step, %")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _same_point(cells: pd.DataFrame, point: pd.DataFrame) -> pd.DataFrame:
    keys = ["layers", "activation", "n"]
    return cells[(cells[keys] == point[keys].iloc[0]).all(axis=1)]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


# --- the decisive picture -------------------------------------------------------------------------------------------


def _decisive_caption(material: Material) -> str:
    return (
        "Time per example and parameter, t/(n·m), against p/(mean fan-in) along the activation axis, where only p moves. If "
        "each weight paid for the activation (n·m·p), points would follow the dashed line through the origin; if each unit "
        "pays (additive), they lie on the solid straight line that starts at the cost of the products. Both are fitted to "
        "these points by relative error."
    )


@drawing("decisive", "Does the activation cost once per weight or once per unit?", _decisive_caption)
def per_parameter(material: Material) -> Figure | None:
    """Small multiples, one an implementation."""
    cells = on_axis(material.steps, "activation")
    groups = [(str(name), rows.sort_values("p")) for name, rows in cells.groupby("series") if rows["p"].nunique() > 2]
    if not groups:
        return None
    columns = min(4, len(groups))
    lines = -(-len(groups) // columns)
    figure = _figure(10 if columns > 2 else 5 * columns, 2.9 * lines + 0.4)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(groups) :]:
        axes.set_visible(False)
    for axes, (name, rows) in zip(grid.flat, groups, strict=False):
        x = (rows["p"] * rows["u"] / rows["m"]).to_numpy(float)
        y = (1e9 * rows["time_s"] / rows["n"] / rows["m"]).to_numpy(float)
        line = np.linspace(0, x.max(), 50)
        start, slope = np.linalg.lstsq(np.column_stack([1 / y, x / y]), np.ones_like(y))[0]
        proportional = float((x / y).sum() / (x / y @ (x / y)))
        axes.plot(line, start + slope * line, "-", color="#444444", label="additive: products + n·u·p")
        axes.plot(line, proportional * line, "--", color="#999999", label="n·m·p")
        axes.plot(x, y, linestyle="none", **material.style(name))
        axes.set(title=name, xlim=(0, None), ylim=(0, 1.25 * y.max()))
    for axes in grid[-1]:
        axes.set_xlabel("p / (mean fan-in)")
    for axes in grid[:, 0]:
        axes.set_ylabel("ns per example\nand parameter")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


# --- the run itself -------------------------------------------------------------------------------------------------

_STATES = (
    ("load", 1.0, "load"),
    ("clock_mhz", 1e-3, "clock,\nGHz"),
    ("available_bytes", 2.0**-30, "free,\nGiB"),
    ("memory_stall_percent", 1.0, "memory\nstall, %"),
)


def _timeline_caption(material: Material) -> str:
    raw, normal = (
        float(np.diff(np.quantile(material.rounds[kind], [0.16, 0.84]))[0] / 2) for kind in ("raw", "normal")
    )
    return (
        "Every round in the order of the clock, divided by the median of its cell over all passes: above as measured "
        f"(two in three within ±{raw:.1%}), below normalised by the reference kernels beside it (±{normal:.1%}). Rounds "
        "beyond the frame stand on its edge. What the machine told of itself meanwhile stands underneath."
    )


@drawing("timeline", "The run in the order of the clock", _timeline_caption)
def timeline(material: Material) -> Figure | None:
    """Rounds, raw and normalised, over load, clock and memory."""
    found = material.rounds
    if found.empty:
        return None
    shown = [
        (key, scale, label) for key, scale, label in _STATES if material.states.get(key, pd.Series()).notna().any()
    ]
    figure = _figure(10, 4.6 + 0.9 * len(shown))
    panels = figure.subplots(2 + len(shown), 1, sharex=True, height_ratios=[2.3, 2.3, *[0.9] * len(shown)])
    for axes, kind, label in zip(panels, ("raw", "normal"), ("as measured", "normalised"), strict=False):
        for name, rows in found.groupby("impl"):
            ratio = rows[kind].clip(0.71, 1.99)
            axes.plot(
                rows["minutes"],
                ratio,
                ".",
                markersize=1.5,
                alpha=0.4,
                color=_colour(material, str(name)),
                rasterized=True,
            )
        axes.set(yscale="log", ylim=(0.7, 2.02), ylabel=f"round / cell,\n{label}")
        axes.set_yticks([0.7, 1, 1.4, 2], ["0.7", "1", "1.4", "2"])
        axes.minorticks_off()
    for axes, (key, scale, label) in zip(panels[2:], shown, strict=True):
        axes.plot(material.states["minutes"], scale * material.states[key], color="#444444", linewidth=0.9)
        axes.set(ylabel=label, ylim=(0, None))
    panels[-1].set_xlabel("minutes since the run began")
    names = sorted(map(str, found["impl"].unique()))
    marks = [Line2D([], [], linestyle="none", marker="o", color=_colour(material, name), label=name) for name in names]
    figure.legend(handles=marks, loc="outside lower center", ncols=min(8, len(marks)))
    return figure


def _colour(material: Material, impl: str) -> str:
    first = material.cells.loc[material.cells["impl"] == impl, "series"].iloc[0]
    return str(material.style(str(first))["color"])
