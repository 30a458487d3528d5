"""How near one hidden layer comes to a function with so many units, and whether training or the width stops it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import words
from analysis.charts import Axis, Chart, Line, Panel, Row
from analysis.experiments import Claimed, Drawn, Section, Table, Told
from analysis.experiments.found import Found
from analysis.figures import COLOURS
from analysis.statistics import Estimate, Floats, Interval, moderated

#: Training binds, and not the width, where its error is more than so many times the best found for the width.
BINDS = 2.0
#: An error so small is as near as wanted: what is left below is rounding of an ill-conditioned system in float64.
REACHED = 1e-9
#: The same of networks trained in that precision.
PRECISION = {"float32": 1e-6, "float64": REACHED}
#: Slopes are taken over the upper half of the widths, but over so many at least.
LEAST_WIDTHS = 3
NAME = "approximation"
ACTIVATIONS = ("tanh", "relu")
CURVES = (COLOURS[4], COLOURS[2], COLOURS[0])
KEYS = ["function", "activation", "width", "seed"]


# --- what was measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pair:
    """One function and activation: errors (widths, seeds) over the grid, relative to the function's spread.

    ``trained`` is a root mean square, NaN where a run diverged; ``best`` is the least of its seed with the output layer
    solved for, whether hidden weights were laid out or found by this implementation's training; ``held`` the same among
    output weights that the precision of training can hold.  ``…_maximum`` are the largest errors of the same networks.
    """

    function: str
    activation: str
    formula: str
    shape: str
    inputs: int
    widths: Floats
    trained: Floats
    trained_maximum: Floats
    best: Floats
    best_maximum: Floats
    held: Floats
    held_maximum: Floats
    floor: float  # of what training can reach
    interpolated: Floats | None  # (widths,): joined up straight between equidistant points

    @property
    def name(self) -> str:
        """In sentences."""
        return f"{self.function} by {self.activation}"

    @cached_property
    def excess(self) -> Floats:
        """The log of trained over held (widths, seeds); an error within rounding of the precision trained in is no excess."""
        return np.asarray(np.log(np.maximum(self.trained, self.floor) / np.maximum(self.held, self.floor)))

    @property
    def binds(self) -> list[bool]:
        """By width, whether training binds: its error, in the mean over seeds, is beyond ``BINDS`` times the held one."""
        return [bool(row.size and row.mean() > np.log(BINDS)) for row in map(_known, self.excess)]


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def middle(errors: Floats) -> Floats:
    """Geometric means over seeds (widths,), of those that ended; NaN where none did."""
    return np.array([np.exp(np.log(known).mean()) if (known := _known(row)).size else np.nan for row in errors])


def pairs(found: Found, impl: str) -> list[Pair]:
    """Of one implementation, in the order they were measured."""
    frame = found.frame
    trained = frame[(frame["kind"] == "training") & (frame["impl"] == impl)]
    bound = frame[frame["kind"] == "bound"]
    floor = PRECISION.get(str(found.settings.get("dtype")), REACHED)
    return [
        _pair(str(function), str(activation), rows, _of(bound, function, activation), floor)
        for (function, activation), rows in trained.groupby(["function", "activation"], sort=False)
    ]


def _of(bound: pd.DataFrame, function: Any, activation: Any) -> pd.DataFrame:
    chosen: pd.DataFrame = bound[(bound["function"] == function) & (bound["activation"] == activation)]
    return chosen


def _pair(function: str, activation: str, rows: pd.DataFrame, bound: pd.DataFrame, floor: float) -> Pair:
    table = _by_seed(rows, "rms")
    least = {kind: _least(rows, bound, kind, table) for kind in ("best", "held")}
    straight = None
    if "interpolated_rms" in bound and bound["interpolated_rms"].notna().any():
        straight = bound.groupby("width")["interpolated_rms"].first().reindex(table.index).to_numpy(float)
    about = rows.iloc[0]
    return Pair(
        function,
        activation,
        str(about["formula"]),
        str(about["shape"]),
        int(about["inputs"]),
        table.index.to_numpy(float),
        table.to_numpy(float),
        _by_seed(rows, "maximum").to_numpy(float),
        *least["best"],
        *least["held"],
        floor,
        straight,
    )


def _least(rows: pd.DataFrame, bound: pd.DataFrame, kind: str, like: pd.DataFrame) -> tuple[Floats, Floats]:
    """Root mean square and maximum of the better of two: on hidden layers that training found, and that were laid out."""
    (found, found_maximum), (laid_out, laid_out_maximum) = (
        [_by_seed(part, f"{kind}_{value}").reindex_like(like).to_numpy(float) for value in ("rms", "maximum")]
        for part in (rows, bound)
    )
    from_training = ~(laid_out <= found) & ~np.isnan(found)  # where one is missing, the other
    return np.where(from_training, found, laid_out), np.where(from_training, found_maximum, laid_out_maximum)


def _by_seed(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    return rows.assign(**{value: rows[value].astype(float)}).pivot(index="width", columns="seed", values=value)


# --- rates ----------------------------------------------------------------------------------------------------------


def upper(widths: Floats) -> slice:
    """Where the upper half of the widths lies."""
    return slice(-max(LEAST_WIDTHS, -(-len(widths) // 2)), None)


def slopes(widths: Floats, errors: Floats) -> Floats:
    """The slope of log error on log width over the upper half of the widths, for every seed that has all of them."""
    x = np.log(widths[upper(widths)])
    y = np.log(errors[upper(widths)])
    away = x - x.mean()
    # least squares: Σ (x - x̄) y / Σ (x - x̄)²
    return _known(away @ y / (away @ away))


@dataclass(frozen=True)
class Rate:
    """How error goes with width: a power with its interval over seeds, or the width from which on it is ``reached``."""

    pair: Pair
    slope: Estimate
    reached: float | None

    def interval(self) -> Interval:
        """95 %."""
        return self.slope.interval()

    @property
    def told(self) -> str:
        """As a table has it."""
        return f"reached at {self.reached:.0f}" if self.reached is not None else _interval(self.interval())


def rates(found: Sequence[Pair], errors: Callable[[Pair], Floats], floor: Callable[[Pair], float]) -> list[Rate]:
    """Of every pair; how seeds differ is estimated from all that are not reached together (``statistics.moderated``)."""
    reached = [_reached(pair, errors(pair), floor(pair)) for pair in found]
    open_ = [i for i, width in enumerate(reached) if width is None]
    known = dict(zip(open_, moderated([slopes(found[i].widths, errors(found[i])) for i in open_]), strict=True))
    nothing = Estimate(np.nan, np.nan, 0.0)
    return [Rate(pair, known.get(i, nothing), reached[i]) for i, pair in enumerate(found)]


def _reached(pair: Pair, errors: Floats, floor: float) -> float | None:
    """The first width whose error is within rounding, if that of the largest is."""
    small = middle(errors) <= floor
    return float(pair.widths[np.argmax(small)]) if small[-1] else None


def best_rates(found: Sequence[Pair]) -> list[Rate]:
    """Of the best error found for each width."""
    return rates(found, lambda pair: pair.best, lambda pair: REACHED)


def trained_rates(found: Sequence[Pair]) -> list[Rate]:
    """Of the error after training."""
    return rates(found, lambda pair: pair.trained, lambda pair: pair.floor)


# --- verdicts -------------------------------------------------------------------------------------------------------


def falls(found: Sequence[Rate], what: str) -> Told:
    """Whether error keeps falling with width, for every function and activation.

    Supported where every 95 % interval of the slope lies below 0 or the error is within rounding; refuted where one lies
    at or above 0, at a level that counts how many were looked at (Bonferroni); else inconclusive.
    """
    judged = [rate for rate in found if rate.reached is None]
    rising = [rate for rate in judged if rate.slope.value >= 0 and rate.slope.p_above(0.0) < 0.025 / len(judged)]
    falling = [rate for rate in judged if rate.interval().high < 0]
    done = [rate for rate in found if rate.reached is not None]
    widths = found[0].pair.widths[upper(found[0].pair.widths)]
    why = (
        f"From {widths[0]:.0f} to {widths[-1]:.0f} units {what} falls with an interval below 0 for {len(falling)} of "
        f"{len(found)} pairs of function and activation"
    )
    why += f", and is within rounding for {_listed(done)}" if done else ""
    rest = [rate for rate in judged if rate not in falling and rate not in rising]
    why += f"; it rises for {_listed(rising)}" if rising else ""
    why += f"; for {_listed(rest)} the intervals leave it open" if rest else ""
    if rising:
        most = max(rising, key=lambda rate: rate.interval().low)
        return Told("refuted", f"slope {most.told}, {most.pair.name}", f"{why}.")
    if not judged:
        return Told("supported", "all within rounding", f"{why}.")
    slowest = max(judged, key=lambda rate: np.nan_to_num(rate.interval().high, nan=np.inf))
    word: Any = "inconclusive" if rest else "supported"
    return Told(word, f"slowest: slope {slowest.told}, {slowest.pair.name}", f"{why}.")


def finds(found: Sequence[Pair]) -> Told:
    """Whether training ends within ``BINDS`` times the best error to hold, at the largest width, for most pairs.

    A pair is within or beyond where the whole 95 % interval of the ratio over seeds is, and not within where a run diverged.
    """
    ratios = [estimate.interval().exp() for estimate in moderated([_known(pair.excess[-1]) for pair in found])]
    whole = [not np.isnan(pair.trained[-1]).any() for pair in found]
    within = [pair for pair, ratio, all_ in zip(found, ratios, whole, strict=True) if all_ and ratio.high < BINDS]
    beyond = [pair for pair, ratio in zip(found, ratios, strict=True) if ratio.low > BINDS]
    why = (
        f"With {found[0].widths[-1]:.0f} units the error after training is within {BINDS:.0f} times the best found to hold for "
        f"{_share(within, found)}, and beyond for {_share(beyond, found)}"
    )
    why += f"; runs of {whole.count(False)} diverged" if not all(whole) else ""
    known = sorted((ratio for ratio in ratios if not np.isnan(ratio.value)), key=lambda ratio: ratio.value)
    evidence = f"median ratio {_interval(known[len(known) // 2])}; " if known else ""
    evidence += f"within: {len(within)}, beyond: {len(beyond)} of {len(found)}"
    if 2 * len(within) > len(found):
        return Told("supported", evidence, f"{why}.")
    return Told("refuted" if 2 * len(beyond) > len(found) else "inconclusive", evidence, f"{why}.")


def _listed(found: Sequence[Rate]) -> str:
    return ", ".join(rate.pair.name for rate in found)


def _share(some: Sequence[Pair], found: Sequence[Pair]) -> str:
    names = f" ({', '.join(pair.name for pair in some)})" if some and 2 * len(some) < len(found) else ""
    return f"{len(some)} of {len(found)} pairs{names}"


def _interval(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{_signed(interval.value)} [unknown]"
    return f"{_signed(interval.value)} [{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if abs(value) < 100 else words.significant(value, 3).replace("-", "−")


# --- tables ---------------------------------------------------------------------------------------------------------


def _errors_tables(found: Sequence[Pair], impl: str) -> list[Table]:
    trained = (
        f"Error after training ({impl}) by hidden units, and in brackets the best found for that width with output weights that "
        "the precision of training can hold: root mean square over the grid, as a share of the function's standard deviation, "
        f"geometric mean over seeds. * training binds: more than {BINDS:.0f} times that best"
    )
    largest = "The same networks: their largest error anywhere on the grid, as a share of the standard deviation"
    best = (
        "The best found for each width with output weights solved for in float64: root mean square, and largest error"
    )
    plain = [[False] * len(pair.widths) for pair in found]
    return [
        _errors_table(found, trained, [(pair.trained, pair.held) for pair in found], [pair.binds for pair in found]),
        _errors_table(found, largest, [(pair.trained_maximum, pair.held_maximum) for pair in found], plain),
        _errors_table(found, best, [(pair.best, pair.best_maximum) for pair in found], plain),
    ]


def _errors_table(
    found: Sequence[Pair], caption: str, errors: Sequence[tuple[Floats, Floats]], marks: Sequence[Sequence[bool]]
) -> Table:
    widths = [f"{width:.0f}" for width in found[0].widths]
    rows = [
        [
            f"{pair.function}: {pair.formula}",
            pair.activation,
            *(
                f"{_less(a)}{' *' if marked else ''} ({_less(b)})".replace(" ", "\N{NO-BREAK SPACE}")
                for a, b, marked in zip(middle(first), middle(second), marked_ones, strict=True)
            ),
        ]
        for pair, (first, second), marked_ones in zip(found, errors, marks, strict=True)
    ]
    return Table(caption, ["function", "activation", *widths], rows, range(2, 2 + len(widths)))


def _less(error: float) -> str:
    if np.isnan(error):
        return "–"
    return f"<{REACHED:.0e}".replace("-", "−") if error < REACHED else f"{error:.2g}".replace("-", "−")


def _rates_table(found: Sequence[Pair], impl: str) -> Table:
    best, after = best_rates(found), trained_rates(found)
    rows = [
        [pair.function, pair.shape, str(pair.inputs), pair.activation, b.told, a.told, _straight(pair)]
        for pair, b, a in zip(found, best, after, strict=True)
    ]
    for label, chosen in (("all of one input", 1), ("all of two inputs", 2)):
        kept = [[r.slope.value for r in rs if r.reached is None and r.pair.inputs == chosen] for rs in (best, after)]
        if any(kept):
            rows.append([label, "", str(chosen), "both", *(_interval(_over_functions(values)) for values in kept), ""])
    widths = found[0].widths[upper(found[0].widths)]
    caption = (
        f"The power of the width that the error goes with, from {widths[0]:.0f} to {widths[-1]:.0f} units ({impl}): slope of "
        "log error on log width with its 95 % interval over seeds, in the last rows over functions. Reached: within "
        "rounding from so many units on"
    )
    header = ["function", "kind", "inputs", "activation", "best found", "after training", "equidistant pieces"]
    return Table(caption, header, rows, range(4, 7))


def _over_functions(values: Sequence[float]) -> Interval:
    known = _known(np.asarray(values, float))
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan
    return Estimate(float(known.mean()), error, float(len(known) - 1)).interval()


def _straight(pair: Pair) -> str:
    if pair.interpolated is None:
        return ""
    if pair.interpolated[-1] <= REACHED:
        return "exact"
    return _signed(float(slopes(pair.widths, pair.interpolated[:, None])[0]))


def _costs_table(found: Found) -> Table:
    """What training cost, by implementation and width, over the functions that all trained."""
    shared = _shared(found)
    rows = []
    for (impl, width), part in shared.groupby(["impl", "width"], sort=False):
        one = part[part["inputs"] == part["inputs"].min()]
        seconds = _seconds(found, part)
        rows.append(
            [
                str(impl),
                f"{width}",
                words.count(float(one["m"].iloc[0])),
                f"{one['steps'].max():,.0f}",
                words.count(float(np.exp(np.log(one["operations"].astype(float)).mean()))),
                words.seconds(float(np.exp(np.log(seconds).mean()))),
                words.si(float(middle(part["rms"].to_numpy(float)[None])[0])),
            ]
        )
    names = ", ".join(dict.fromkeys(shared["function"]))
    caption = (
        f"What training costs, in the mean over {names}, both activations and all seeds: seconds are normalised and do not "
        "hold compiling; the error beside them is what they bought"
    )
    header = ["implementation", "units", "m", "steps", "operations", "seconds", "error"]
    return Table(caption, header, rows, range(1, 7))


def _seconds(found: Found, rows: pd.DataFrame) -> list[float]:
    records: list[Any] = rows.to_dict("records")
    return [found.seconds(row) for row in records]


def _diverged_table(found: Found) -> list[Table]:
    frame = found.frame
    gone = frame[frame["diverged_at"].notna()] if "diverged_at" in frame else frame.iloc[:0]
    if gone.empty:
        return []
    columns = ["impl", *KEYS, "diverged_at"]
    rows = [
        [f"{value:.0f}" if isinstance(value, float) else str(value) for value in row] for row in gone[columns].values
    ]
    return [Table("Runs that diverged, and at which step", [*columns[:-1], "step"], rows, range(3, 6))]


def _shared(found: Found) -> pd.DataFrame:
    """Trained rows of the functions that every implementation trained, on the seeds they all had."""
    frame = found.frame
    trained = frame[(frame["kind"] == "training") & frame["rms"].notna()]
    everywhere = trained.groupby(KEYS)["impl"].transform("nunique") == trained["impl"].nunique()
    shared: pd.DataFrame = trained[everywhere].sort_values("width", kind="stable")
    order = {impl: i for i, impl in enumerate(found.impls)}
    return shared.sort_values("impl", key=lambda names: names.map(order), kind="stable")


# --- figures --------------------------------------------------------------------------------------------------------


def _panels(names: Sequence[str], height: float = 2.5) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, max(2, len(names)))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(10, height * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(names) - columns) : len(names)]:
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[: len(names)])


def _widths_figure(found: Sequence[Pair]) -> Chart:
    formulas = {pair.function: pair.formula for pair in found}
    panels = [
        Panel(f"{name}: {formula}", [line for pair in found if pair.function == name for line in _errors_of(pair)])
        for name, formula in formulas.items()
    ]
    least = float(np.fmin.reduce([np.fmin.reduce(pair.trained, axis=None) for pair in found]))
    there = least > 0  # and not NaN: some run ended
    low = float(10 ** np.floor(np.log10(least / 3))) if there else None
    y = Axis("error / standard deviation", log=there, low=low, high=2.0 if there else None)
    rows = [Row(y, panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)]
    return Chart(Axis("hidden units", log=True), rows, ACTIVATIONS, hollow="training binds")


#: Panels in a row.
COLUMNS = 4


def _errors_of(pair: Pair) -> list[Line]:
    """What training finds, with its range over seeds, and what the width can do."""
    low, high = (ends.reduce(pair.trained, axis=1) for ends in (np.fmin, np.fmax))
    name, widths, trained = pair.activation, list(pair.widths), list(middle(pair.trained))
    return [
        Line(name, widths, trained, low=list(low), high=list(high), means="trained", hollow=list(pair.binds)),
        Line(name, widths, list(middle(pair.best)), "dashed", "best in float64"),
        Line(name, widths, list(middle(pair.held)), "dotted", "best to hold"),
    ]


def _cost_figure(found: Found) -> Figure:
    shared = _shared(found)
    seconds = _seconds(found, shared)
    means = (
        shared.assign(log_s=np.log(seconds), log_error=np.log(shared["rms"].astype(float)))
        .groupby(["impl", "function", "activation", "width"], sort=False)[["log_s", "log_error"]]
        .mean()
        .reset_index()
    )
    formulas = dict(zip(shared["function"], shared["formula"], strict=True))
    columns = [(name, activation) for name in formulas for activation in dict.fromkeys(shared["activation"])]
    figure, panels = _panels([name for name, _ in columns])
    for axes, (name, activation) in zip(panels, columns, strict=True):
        rows = means[(means["function"] == name) & (means["activation"] == activation)]
        for impl in found.impls:
            own = rows[rows["impl"] == impl].sort_values("width")
            axes.plot(np.exp(own["log_s"]), np.exp(own["log_error"]), **found.style(impl))
            for _, end in own.iloc[[0, -1]].iterrows() if impl == found.impls[0] else ():
                place = float(np.exp(end["log_s"])), float(np.exp(end["log_error"]))
                axes.annotate(f"{end['width']:.0f}", place, (4, 4), textcoords="offset points")
        axes.set_title(f"{name}, {activation}", fontsize=9)
    panels[0].set(xscale="log", yscale="log")
    _label(figure, panels, "seconds of training", "error / standard deviation")
    handles = [Line2D([], [], label=impl, **found.style(impl)) for impl in found.impls]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _curves(found: Found) -> pd.DataFrame:
    frame = found.frame
    return frame[frame["curve"].notna() & (frame["impl"] == found.impls[0])] if "curve" in frame else frame.iloc[:0]


def _fits_figure(rows: pd.DataFrame) -> Figure:
    names, activations = list(dict.fromkeys(rows["function"])), list(dict.fromkeys(rows["activation"]))
    widths = sorted(rows["width"].unique())
    figure = Figure(figsize=(10, 2.3 * len(activations) + 0.7), layout="constrained")
    grid = figure.subplots(len(activations), max(2, len(names)), squeeze=False, sharex=True, sharey="col")
    for axes in grid[:, len(names) :].flat:
        axes.set_visible(False)
    for line, activation in zip(grid, activations, strict=True):
        for axes, name in zip(line, names, strict=False):
            part = rows[(rows["function"] == name) & (rows["activation"] == activation)].sort_values("width")
            curves = list(part["curve"])
            axes.plot(curves[0]["x"], curves[0]["function"], color="#c4c4c4", linewidth=4, solid_capstyle="round")
            for width, curve in zip(part["width"], curves, strict=True):
                axes.plot(curve["x"], curve["network"], color=CURVES[widths.index(width) % len(CURVES)], linewidth=1.1)
            axes.set_title(f"{name}, {activation}", fontsize=9)
    _label(figure, list(grid[-1]), "x", "scaled value")
    handles = [Line2D([], [], color="#c4c4c4", linewidth=4, label="function")]
    handles += [Line2D([], [], color=CURVES[i % len(CURVES)], label=f"{width} units") for i, width in enumerate(widths)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _label(figure: Figure, panels: Sequence[Axes], x: str, y: str) -> None:
    """Below the lowest panel of every column; on the left once for all."""
    for axes in panels:
        if axes.xaxis.get_tick_params()["labelbottom"]:
            axes.set_xlabel(x)
    figure.supylabel(y, fontsize=9)


def _figures(found: Found, first: Sequence[Pair]) -> list[Drawn]:
    impl = found.impls[0]
    drawn = [
        Drawn(
            "approximation-width",
            "Error against width: what training finds, and what the width can do",
            f"Solid: networks trained by {impl}, geometric mean and range over seeds. Hollow markers: training binds, its "
            f"error is more than {BINDS:.0f} times the best found for that width. Thin lines are such bests, bounds from above: "
            "the output layer solved for by least squares over hidden layers that were laid out, drawn or trained; dashed "
            "in float64, dotted with output weights that the precision of training can hold, which is what markers compare "
            "with. Where lines leave the frame, the tables go on.",
            _widths_figure(first),
        )
    ]
    if not _shared(found).empty:
        drawn.append(
            Drawn(
                "approximation-cost",
                "Error against what training cost",
                "From the narrowest network to the widest (their units stand at the ends of one line), for the functions "
                "that every implementation trained: geometric means over seeds. Lines lie side by side where libraries "
                "find the same network at another price.",
                _cost_figure(found),
            )
        )
    curves = _curves(found)
    if not curves.empty:
        drawn.append(
            Drawn(
                "approximation-fits",
                "Functions of one variable, and networks trained on them",
                f"Each function, scaled to mean 0 and standard deviation 1, and the networks of some widths that {impl} "
                "trained with the first seed.",
                _fits_figure(curves),
            )
        )
    return drawn


# --- the section ----------------------------------------------------------------------------------------------------


def section(found: Found) -> Section:
    """Figures, tables and verdicts."""
    by_impl = {impl: made for impl in found.impls if (made := pairs(found, impl))}
    if not by_impl:
        return Section(NAME, TITLE, "Nothing was measured.")
    impl, first = next(iter(by_impl.items()))
    claims = _claims(by_impl)
    tables = [*_errors_tables(first, impl), _rates_table(first, impl)]
    if not _shared(found).empty:
        tables.append(_costs_table(found))
    return Section(
        NAME,
        TITLE,
        _lead(first, impl, claims),
        [*_paragraphs(found), *_differences(found)],
        [*tables, *_diverged_table(found)],
        _figures(found, first),
        claims,
    )


TITLE = "Does one hidden layer approximate any function, and does training find the network?"


def _claims(by_impl: Mapping[str, Sequence[Pair]]) -> list[Claimed]:
    return [
        Claimed(
            "more units bring one hidden layer nearer to a continuous function: the best error found keeps falling with width",
            NAME,
            {impl: falls(best_rates(found), "the best error found") for impl, found in by_impl.items()},
            "approximation-width",
            "the article; Cybenko 1989, Hornik 1991, Leshno et al. 1993",
        ),
        Claimed(
            f"gradient descent finds such networks: with the largest width it ends within {BINDS:.0f} times the best error found "
            "among weights that its precision can hold, for most functions",
            NAME,
            {impl: finds(found) for impl, found in by_impl.items()},
            "approximation-width",
            "ours, of what the theorems leave out",
        ),
        Claimed(
            "with the same steps of training more units bring a smaller error, for every function",
            NAME,
            {impl: falls(trained_rates(found), "the error after training") for impl, found in by_impl.items()},
            "approximation-width",
            "ours, of what the theorems leave out",
        ),
    ]


def _lead(found: Sequence[Pair], impl: str, claims: Sequence[Claimed]) -> str:
    can, finds_it, falls_too = (claim.cells[impl] for claim in claims)
    binding = sum(pair.binds[-1] for pair in found)
    return (
        f"What the width can do: {_lower(can.why)} What training finds: {_lower(finds_it.why)} At that width training binds, "
        f"in the mean over seeds, for {binding} of {len(found)} pairs. With the same number of steps at every width: "
        f"{_lower(falls_too.why)}"
    )


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _paragraphs(found: Found) -> list[str]:
    trained = found.frame[found.frame["kind"] == "training"]
    about = trained.iloc[0]
    rates_by_width = trained.groupby("learning_rate", sort=False)["width"].agg(["min", "max"])
    tried = ", ".join(
        f"{rate:g} {'up to' if i == 0 else 'from'} {row['max'] if i == 0 else row['min']:.0f} units"
        for i, (rate, row) in enumerate(rates_by_width.iterrows())
    )
    steps = int(trained["steps"].max())
    return [
        "What this can say: the theorems (Cybenko 1989, Hornik 1991, Leshno et al. 1993) say of every continuous function "
        "that for every distance there is a width that comes so near. No measurement can prove that, nor refute it: seen here "
        "is whether, on a handful of functions and over the widths tried, the best error we could find keeps falling, and "
        "whether training finds networks like these. The best error found is a bound from above: better hidden layers may "
        "exist, so a slope that flattens may be the fault of our layouts, and to be within twice the best found is less than "
        "to be within twice the best there is. Slopes are averages over a finite range of widths; their intervals tell how "
        "seeds differ, not how straight the line is.",
        "Best found: hidden weights drawn over the domain at several steepnesses, laid out at equal distances, drawn where the "
        "function is steep (Bolager et al. 2023), or taken from training; then the output layer by least squares in float64 "
        "on points of their own. In float64 it may rest on differences of large numbers that float32 cannot hold; training is "
        "therefore compared with the best without singular values below 1e-6 of the largest (in float64: 2e-15), and nothing "
        f"below {PRECISION['float32']:g} is asked of it in float32. Errors are taken on a grid that no training and no fit has "
        "seen.",
        f"Training: Adam, {steps:,} steps on batches of {about['batch']:.0f} from {about['points']:,.0f} points, learning "
        f"rate {tried}, which then falls twice by five (over about 5/8, 2/8 and 1/8 of the steps). Rates, batch "
        "and starts were chosen in trials on these same functions. Another budget or optimizer would find other "
        "networks: verdicts on training hold for this one.",
        "Theory to hold the slopes against: Barron (1993, IEEE Trans. Inf. Theory 39:930) proves a root mean square error of at "
        "most C·width^(−1/2) for functions whose Fourier transform has a finite first moment, whatever the number of inputs, "
        "with a C that may be large; piecewise linear functions of k pieces, and so relu with k units, come to smooth "
        "functions of one variable as k^(−2) (DeVore 1998, Acta Numerica 7:51; for relu networks Yarotsky 2017, Neural Networks "
        "94:103). Both bound the best network of a width, not the one that training finds.",
    ]


def _differences(found: Found) -> list[str]:
    """How far libraries end from the first one for equal seeds."""
    table = _shared(found).pivot_table(index=KEYS, columns="impl", values="rms")
    first, *others = [impl for impl in found.impls if impl in table]
    if not others or table.empty:
        return []
    told = []
    for impl in others:
        away = (table[impl] / table[first] - 1).abs()
        told.append(f"{impl} {_percent(away.median())} (at most {_percent(away.max())})")
    seeds = table[first].groupby(level=KEYS[:-1]).agg(lambda errors: errors.max() / errors.min() - 1)
    return [
        f"Libraries start from the same parameters and see the same batches: for equal seeds the error after training "
        f"differs from {first}'s in the median by {' and '.join(told)}, by rounding that thousands of steps make larger. "
        f"Seeds differ by {_percent(seeds.median())} in the median."
    ]


def _percent(share: float) -> str:
    return words.percent(share, 1) if share >= 1e-3 else f"{share:.0e}"
