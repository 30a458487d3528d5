"""Why backpropagation: all gradients by reverse mode, by forward mode and by central differences, over the loss alone.

Times are normalised and paired within a process; a ratio's log has an interval over processes, whose variances all sizes
tell together.  Exponents are fitted where neither the loss nor a pass is mostly the library's fixed overhead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis import exponents, words
from analysis.charts import Axis, Chart, Line, Panel, Row
from analysis.claims import BAND
from analysis.experiments import Claimed, Drawn, Section, Table, Told, Word
from analysis.experiments.found import Found, undisturbed
from analysis.exponents import OVERHEAD_SHARE, Exponent
from analysis.statistics import LEVEL, Estimate, Floats, moderated, tamed
from analysis.verdicts import equivalent

#: Most that all gradients may cost over the loss: 5 operations for one (Baur & Strassen), 4 with moves of data counted
#: (Griewank & Walther).
BOUND = 5.0
THEORY = "theory: Baur & Strassen 1983, Griewank & Walther 2008"
#: What more than that of a time is fixed is called overhead.
SHARE = words.percent(OVERHEAD_SHARE)


@dataclass(frozen=True)
class Method:
    """A way to all gradients: what it is called, and the power of m that its ratio to the loss should grow as."""

    label: str
    grows: int


METHODS = {
    "reverse": Method("reverse mode (backpropagation)", 0),
    "forward": Method("forward mode, one tangent a pass", 1),
    "forward-batch": Method("forward mode, a batch of tangents a pass", 1),
    "central": Method("central differences", 1),
}


@dataclass(frozen=True, eq=False)
class Curve:
    """One implementation's method: log of time(all gradients) / time(loss), (sizes, passes; NaN where not measured)."""

    impl: str
    method: str
    m: Floats
    logs: Floats
    past: tuple[bool, ...]  # sizes at which both have left the fixed overhead
    sampled: tuple[bool, ...]  # sizes at which not all passes were timed
    exponent: Exponent  # of the ratio in m
    of_pass: Exponent  # of a pass's time in m; where parameters take turns there are as many passes as parameters

    @cached_property
    def estimates(self) -> list[Estimate]:
        """Of the log ratio at every size."""
        return moderated([row[~np.isnan(row)] for row in tamed(self.logs, own=True)])

    def told(self, i: int) -> str:
        """Ratio and interval at a size."""
        found = self.estimates[i].interval().exp()
        return words.with_interval(found.value, found.low, found.high, ".2f" if found.value < 10 else ".3g")

    def ratio(self, i: int) -> float:
        """At a size."""
        return float(np.exp(self.estimates[i].value))


Curves = Mapping[tuple[str, str], Curve]


def section(found: Found) -> Section:
    """What was found of the cost of all gradients."""
    times = _times(found)
    curves = {
        (impl, method): curve
        for impl in found.impls
        for method in METHODS
        if (curve := _curve(times[times["impl"] == impl], impl, method)) is not None
    }
    return Section(
        found.name,
        "Why backpropagation",
        _lead(times, curves),
        _paragraphs(found, times),
        [_ratio_table(curves), _exponent_table(curves), _error_table(times)] if curves else [],
        _figures(found, curves) if curves else [],
        _claims(curves),
    )


# --- rows to curves -------------------------------------------------------------------------------------------------


def _times(found: Found) -> pd.DataFrame:
    """A row a measurement: ``time_s`` of all gradients (or of the loss), ``pass_s`` of what is done for one parameter where
    parameters take turns; disturbed ones are left out where others tell enough.
    """
    columns = ["impl", "method", "m", "n", "pass", "calls", "calls_in_all", "parameters", "error", "quiet"]
    frame = pd.DataFrame([{name: row[name] for name in columns} for row in found.rows], columns=columns)
    scale = frame["calls_in_all"] / frame["calls"]
    time_s = np.array([found.seconds(row) for row in found.rows]) * scale.to_numpy(float)
    turns = np.where(frame["method"].isin(["loss", "reverse"]), 1, frame["m"])
    frame = frame.assign(time_s=time_s, pass_s=time_s / turns, sampled=frame["calls"] < frame["calls_in_all"])
    # what the exponents' tools want to know of a cell
    frame = frame.assign(axis="width", activation="", p=0, layers=frame["m"].astype(str))
    return undisturbed(frame, ["impl", "method", "m"])


def _curve(times: pd.DataFrame, impl: str, method: str) -> Curve | None:
    loss, own = times[times["method"] == "loss"], times[times["method"] == method]
    both = own.merge(loss[["m", "pass", "time_s"]], on=["m", "pass"], suffixes=("", "_of_loss"))
    if not len(both):
        return None
    both = both.assign(time_s=both["time_s"] / both["time_s_of_loss"])
    wide = both.pivot(index="m", columns="pass", values="time_s")
    kept = _past_overhead(loss) & _past_overhead(own.assign(time_s=own["pass_s"]))
    past = tuple(int(m) in kept for m in wide.index)
    sampled = both.groupby("m")["sampled"].any()
    of_pass = exponents.exponent(own.assign(time_s=own["pass_s"]), "m_width", None)
    return Curve(
        impl,
        method,
        wide.index.to_numpy(float),
        np.log(wide.to_numpy(float)),
        past,
        tuple(bool(s) for s in sampled),
        _ratio_exponent(both[both["m"].isin(kept)]),
        of_pass,
    )


def _past_overhead(rows: pd.DataFrame) -> set[int]:
    """Sizes m at which a pass is past the fixed overhead."""
    found = exponents.line(rows, "width", "m")
    if not len(found.x):
        return set()
    means = found.means
    past = found.fixed_part(means) <= OVERHEAD_SHARE * np.exp(means)
    return {int(m) for m in found.x[past]}


def _ratio_exponent(rows: pd.DataFrame) -> Exponent:
    """Of ratios at sizes past overhead: nothing is fixed in them any more."""
    if rows["m"].nunique() < exponents.LEAST_POINTS:
        few = rows["m"].nunique()
        return exponents.missing(
            f"only {few} sizes at which neither the loss nor a pass is more than {SHARE} fixed overhead",
            few,
        )
    return exponents.exponent(rows, "m_width", 0.0)


# --- claims ---------------------------------------------------------------------------------------------------------


def _claims(curves: Curves) -> list[Claimed]:
    reverse, batch, central = (_of(curves, method) for method in ("reverse", "forward-batch", "central"))
    found = [
        (
            f"the loss and all its gradients take at most {BOUND:g} times as long as the loss alone",
            "loss alone and with all gradients, along m (by width) at fixed n",
            {impl: _bounded(curve) for impl, curve in reverse.items()},
            "gradients-ratio",
        ),
        (
            "what gradients cost over the loss does not grow with m",
            "the same, past fixed overhead",
            {impl: _grows(curve) for impl, curve in reverse.items()},
            "gradients-ratio",
        ),
        (
            "by forward mode all gradients cost as m times the loss",
            "passes with a batch of tangents each, sampled where they would take too long, past fixed overhead",
            {impl: _grows(curve) for impl, curve in batch.items()},
            "gradients",
        ),
        (
            "by central differences all gradients cost as m times the loss",
            "two losses for each parameter, sampled where they would take too long, past fixed overhead",
            {impl: _grows(curve) for impl, curve in central.items()},
            "gradients",
        ),
    ]
    return [Claimed(said, how, told, figure, THEORY) for said, how, told, figure in found if told]


def _of(curves: Curves, method: str) -> dict[str, Curve]:
    """By implementation."""
    return {impl: curve for (impl, name), curve in curves.items() if name == method}


def _bounded(curve: Curve) -> Told:
    """Supported where every size's interval lies below the bound; refuted where some size's lies above it, at a level that
    allows for there being so many sizes.
    """
    intervals = [estimate.interval().exp() for estimate in curve.estimates]
    strict = [estimate.interval(1 - (1 - LEVEL) / len(curve.m)).exp() for estimate in curve.estimates]
    top = int(np.argmax([found.value for found in intervals]))
    evidence = f"at most {curve.told(top)} (m = {curve.m[top]:,.0f})"
    above = [i for i, found in enumerate(strict) if found.low > BOUND]
    if above:
        where = ", ".join(f"{curve.told(i)} at m = {curve.m[i]:,.0f}" for i in above)
        return Told("refuted", evidence, f"Refuted: the ratio is {where}.{_where_overhead(curve, above)}")
    if all(found.high <= BOUND for found in intervals):
        last = f"{curve.told(-1)} at the largest m, {curve.m[-1]:,.0f}"
        return Told("supported", evidence, f"The ratio is {evidence} and {last}; every interval lies below {BOUND:g}.")
    doubtful = [f"{m:,.0f}" for m, found in zip(curve.m, intervals, strict=True) if not found.high <= BOUND]
    return Told(
        "inconclusive",
        evidence,
        f"The ratio is {evidence}; at m = {', '.join(doubtful)} its interval is unknown or reaches above {BOUND:g}.",
    )


def _where_overhead(curve: Curve, sizes: Sequence[int]) -> str:
    """The theory counts operations: where a library's calls are what takes time, it says nothing."""
    within = [i for i in sizes if not curve.past[i]]
    if not within:
        return " These sizes are past fixed overhead."
    return (
        f" {'There' if len(within) == len(sizes) else f'At {len(within)} of these sizes'} more than {SHARE} of the "
        "time of the loss or of the gradients is the library's fixed overhead, of which the theory, which counts operations, "
        "says nothing."
    )


def _grows(curve: Curve) -> Told:
    """Whether the ratio's exponent is what it should be, within the band."""
    power, exponent = METHODS[curve.method].grows, curve.exponent
    word: Word = equivalent(exponent, power)
    evidence = _exponent(exponent)
    if exponent.value is None or exponent.ci_low is None:
        return Told("inconclusive", evidence, f"The exponent of m in the ratio has no interval: {exponent.reason}.")
    over = f"for m from {exponent.range_low:,.0f} to {exponent.range_high:,.0f} ({exponent.reason})"
    why = {
        "supported": f"the interval lies within {power} ± {BAND}",
        "refuted": f"the interval lies outside {power} ± {BAND}",
        "inconclusive": f"the interval reaches across an end of {power} ± {BAND}",
    }
    return Told(word, evidence, f"The ratio to the loss grows as m^{evidence} {over}; {why[word]}.")


# --- words and tables -----------------------------------------------------------------------------------------------


def _exponent(found: Exponent, more: int = 0) -> str:
    """An exponent with its interval, ``more`` added to it."""
    if found.value is None:
        return "–"
    ends = [np.nan if end is None else end + more for end in (found.ci_low, found.ci_high)]
    return words.with_interval(found.value + more, ends[0], ends[1], ".2f")


def _lead(times: pd.DataFrame, curves: Curves) -> str:
    """What the largest network says, in numbers."""
    reverse = _of(curves, "reverse")
    if not reverse:
        return "Nothing was measured that could be compared."
    top = max(curve.m[-1] for curve in reverse.values())
    there = {impl: curve for impl, curve in reverse.items() if curve.m[-1] == top}
    cheap = _range([curve.ratio(-1) for curve in there.values()], ".2g")
    said = [
        f"At m = {top:,.0f} the loss and all its gradients take {cheap} times as long as the loss alone by backpropagation"
    ]
    for method in ("forward-batch", "central"):
        dear = [c.ratio(-1) for impl, c in _of(curves, method).items() if impl in there and c.m[-1] == top]
        if dear:
            said.append(f"{_range([ratio / 1000 for ratio in dear], ',.0f')} thousand times by {METHODS[method].label}")
    return "; ".join(said) + ". " + _in_seconds(times, curves, next(iter(there)), top)


def _in_seconds(times: pd.DataFrame, curves: Curves, impl: str, top: float) -> str:
    """The same as what one waits for."""
    at = times[(times["impl"] == impl) & (times["m"] == top)].groupby("method")["time_s"].median()
    if not {"reverse", "central"} <= set(at.index):
        return ""
    slow = "would take" if curves[impl, "central"].sampled[-1] else "take"
    return (
        f"For {impl} that is {words.seconds(at['reverse'])} for one gradient by backpropagation, where central differences "
        f"{slow} {_duration(at['central'])}."
    )


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return words.seconds(seconds)


def _range(values: Sequence[float], form: str) -> str:
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _ratio_table(curves: Curves) -> Table:
    reverse = _of(curves, "reverse")
    sizes = sorted({m for curve in reverse.values() for m in curve.m})

    def cell(curve: Curve, m: float) -> str:
        where = np.flatnonzero(curve.m == m)
        return curve.told(int(where[0])) + ("" if curve.past[where[0]] else " †") if len(where) else "–"

    return Table(
        "The cheap gradient: time of the loss and all its gradients by backpropagation over the time of the loss alone, with "
        f"95 % intervals over processes. †: more than {SHARE} of one of the two is the library's fixed overhead.",
        ["m", *reverse],
        [[f"{m:,.0f}", *(cell(curve, m) for curve in reverse.values())] for m in sizes],
        range(len(reverse) + 1),
    )


def _exponent_table(curves: Curves) -> Table:
    """The time of all gradients is that of a pass, m times over where parameters take turns."""
    rows = [
        [
            curve.impl,
            METHODS[curve.method].label,
            str(METHODS[curve.method].grows),
            _exponent(curve.exponent),
            _exponent(curve.of_pass, METHODS[curve.method].grows),
            f"{sum(curve.past)} of {len(curve.m)}",
        ]
        for curve in curves.values()
    ]
    return Table(
        "Exponents of m at fixed n, with 95 % intervals: of the time of all gradients over that of the loss, at the sizes past "
        "fixed overhead, and of the time of all gradients itself, without its fixed part. Layers that widen together have "
        "activations that grow as the root of m only, which pulls the exponent of the time down. –: too few sizes to tell.",
        [
            "library",
            "all gradients by",
            "expected of the ratio",
            "ratio to the loss",
            "time itself",
            "sizes past overhead",
        ],
        rows,
        (2, 3, 4, 5),
    )


def _error_table(times: pd.DataFrame) -> Table:
    """What was computed meanwhile, at the ends: central differences lose figures as m grows."""
    ends = sorted({int(times["m"].min()), int(times["m"].max())})
    rows = []
    for method, about in METHODS.items():
        own = times[times["method"] == method]
        errors = [own.loc[own["m"] == m, "error"].to_numpy(float) for m in ends]
        rows.append([about.label, *(_range(found.tolist(), ".0e") if len(found) else "–" for found in errors)])
    return Table(
        "How far the derivatives computed were from the float64 reference (norm of the difference over the norm), smallest and "
        "largest of all libraries and processes.",
        ["derivatives by", *(f"m = {m:,}" for m in ends)],
        rows,
        range(1, len(ends) + 1),
    )


def _paragraphs(found: Found, times: pd.DataFrame) -> list[str]:
    if not len(times):
        return []
    batch = times.loc[times["method"] == "forward-batch", "parameters"]
    width = f"{int(batch.iloc[0])} tangents" if len(batch) else "a batch of tangents"
    said = [
        f"Networks of three weight layers, all of one width, tanh, n = {int(times['n'].iloc[0])} examples; m grows by the width. "
        "Every way was held to the float64 reference in the process that timed it. The loss alone keeps nothing for a "
        f"backward pass. Forward mode carries one tangent or {width} at once; tangents are dense: no use is made of a unit "
        "vector's zeros, as the libraries' own forward modes make none. Central differences move one parameter at a time, up and "
        "down, in place.",
        _sampling(times),
        f"Fixed overhead is what a fit of fixed + scale · m^power finds; exponents are judged at sizes where it is at most "
        f"{SHARE} of the loss and of a pass. The theory bounds operations, not seconds: what is said here is "
        "said of seconds, on this machine.",
    ]
    absent = [name for name in found.settings.get("impls", ()) if name not in found.impls]
    if absent:
        said.append(
            f"Not measured here: {', '.join(absent)} (no derivatives in these three ways, or the tasks failed)."
        )
    return said


def _sampling(times: pd.DataFrame) -> str:
    """How much of what is told was timed, and how much multiplied."""
    turns = times[times["method"].isin(["forward", "forward-batch", "central"])]
    if not turns["sampled"].any():
        return "All passes were timed."
    covered = (turns["calls"] * turns["parameters"]).clip(upper=turns["m"])
    largest = turns["m"] == turns["m"].max()
    whole = turns[~turns["sampled"]]["m"]
    until = f"Some ways were timed whole, up to m = {int(whole.max()):,}. Else " if len(whole) else "Of all ways "
    few = _range(covered[largest].tolist(), ",.0f")
    return (
        f"{until}a sample of passes, spread over the parameters, was timed and the time multiplied by the number of all passes "
        f"over those timed; at m = {int(turns['m'].max()):,} for {few} parameters. A pass does the same work for every "
        "parameter, so this is what all would take, but nobody has waited for it."
    )


# --- figures --------------------------------------------------------------------------------------------------------


def _figures(found: Found, curves: Curves) -> list[Drawn]:
    return [
        Drawn(
            "gradients",
            "All gradients, by three ways",
            "Time of all gradients over the time of the loss alone, against m, with 95 % intervals over processes; both axes are "
            "logarithmic. Filled: all passes were timed; hollow: a sample of them, multiplied. Dotted: m times the loss.",
            _all_ways(found, curves),
        ),
        Drawn(
            "gradients-ratio",
            "The cheap gradient",
            "Time of the loss and all its gradients by backpropagation over the time of the loss alone, with 95 % intervals over "
            f"processes. Hollow: more than {SHARE} of one of the two is the library's fixed overhead. Dashed: the "
            f"bound, {BOUND:g}.",
            _cheap_gradient(found, _of(curves, "reverse")),
        ),
    ]


def _all_ways(found: Found, curves: Curves) -> Chart:
    """A panel for each implementation, a line for each method."""
    impls = [impl for impl in found.impls if any(name == impl for name, _ in curves)]
    panels = []
    for impl in impls:
        drawn = {method: curve for (name, method), curve in curves.items() if name == impl}
        m = list(next(iter(drawn.values())).m)
        lines = [_line(METHODS[method].label, curve, curve.sampled) for method, curve in drawn.items()]
        panels.append(Panel(impl, [*lines, Line("", m, m, "dotted", "m times the loss")]))
    y = Axis("time of all gradients / time of the loss", log=True)
    names = [way.label for way in METHODS.values()]
    return Chart(_M, [Row(y, panels, 3.0)], names, hollow="a sample of passes, multiplied")


def _cheap_gradient(found: Found, reverse: Mapping[str, Curve]) -> Chart:
    """A line for each implementation."""
    lines = [_line(impl, curve, [not past for past in curve.past]) for impl, curve in reverse.items()]
    sizes = [size for curve in reverse.values() for size in curve.m]
    lines.append(
        Line("", [min(sizes), max(sizes)], [BOUND, BOUND], "dashed", "the bound") if sizes else Line("", [], [])
    )
    top = max((curve.ratio(i) for curve in reverse.values() for i in range(len(curve.m))), default=BOUND)
    y = Axis("loss and all gradients / loss", low=0, high=1.15 * max(BOUND, top))
    return Chart(_M, [Row(y, [Panel("", lines)], 2.8)], found.impls, hollow="mostly fixed overhead")


_M = Axis("weights and biases m", log=True)


def _line(name: str, curve: Curve, hollow: Sequence[bool]) -> Line:
    """Ratios with their intervals; hollow where told."""
    found = [estimate.interval().exp() for estimate in curve.estimates]
    low, high = [interval.low for interval in found], [interval.high for interval in found]
    return Line(name, list(curve.m), [interval.value for interval in found], low=low, high=high, hollow=list(hollow))
