"""Data parallelism: what a step over k ranks costs, what an all-reduce costs, and whether fewer ranks predict more.

Bands are declared here, before data are seen.  A law predicts where nine in ten of the cells that no fit saw lie within
``BAND``, with the 95 % interval over passes of that quantile below it; it is refuted where half of them lie outside, with the
interval of the median above it; between the two nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from analysis.claims import BAND as OF_EXPONENTS
from analysis.experiments import Claimed, Drawn, Section, Table, Told, Word, parallel_figures
from analysis.experiments import parallel_law as law
from analysis.experiments import parallel_scaling as scaling
from analysis.experiments.found import Found
from analysis.experiments.parallel_law import IN_TURN, STEP, Coefficients, Judged, Measured
from analysis.statistics import Floats, Interval
from analysis.verdicts import within
from analysis.words import interval, percent, seconds, with_interval

TITLE = "Data parallel: a step over several ranks"
#: Errors of predictions, relative.
BAND = 0.15
#: Predictions of more ranks rest on no more than this many.
FEW = 2
#: Overlap hides communication where it hides at least so much of it.
HIDES = 0.1
#: Fewer cells than this judge nothing.
LEAST = 4
STATEMENT = "T(k) = o(k)·[s(k)·(t0 + n/k·(a·m + b·u·p) + c·m) + α·log2 k + β·g·(k − 1)/k]"
GIGA, MICRO, NANO, PICO = 1e-9, 1e6, 1e9, 1e12


@dataclass(frozen=True, eq=False)
class Series:
    """One implementation, and what was found of it."""

    measured: Measured
    fitted: Coefficients | None
    forms: list[Judged]

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return self.measured.name

    @cached_property
    def beyond(self) -> list[int]:
        """Numbers of ranks that are predicted from fewer."""
        return [k for k in self.measured.ranks if k > FEW]

    @cached_property
    def left_out(self) -> pd.DataFrame:
        """Steps over more than one rank, each left out of the fit in turn."""
        cells = law.left_out(self.measured)
        return cells[cells["ranks"] > 1]

    @cached_property
    def from_fewer(self) -> pd.DataFrame:
        """Steps over more ranks, by what was fitted to 1 and 2."""
        return pd.concat([law.from_fewer(self.measured, k) for k in self.beyond]) if self.beyond else pd.DataFrame()

    @cached_property
    def from_fewer_by_layer(self) -> pd.DataFrame:
        """The same by the law in which every layer sends by itself."""
        return pd.concat([law.from_fewer(self.measured, k, by_layer=True) for k in self.beyond])

    @cached_property
    def layers_send(self) -> bool:
        """Whether that law errs clearly less."""
        return law.layers_send(self.measured)

    @cached_property
    def told(self) -> Coefficients | None:
        """The fit that figures show: the declared law's, unless layers clearly send by themselves."""
        return law.fit(self.measured.cells, by_layer=True) if self.layers_send else self.fitted

    @cached_property
    def efficiencies(self) -> list[scaling.Efficiency]:
        """Strong and weak, by network and k."""
        return scaling.efficiencies(self.measured)

    @cached_property
    def hidden(self) -> Interval:
        """Share of communication that overlap hides, all steps together."""
        return scaling.hidden(self.measured)


def section(found: Found) -> Section:
    """Laws, verdicts, tables and figures."""
    if not found.rows:
        return Section(found.name, TITLE, "Nothing was measured: no implementation here runs over several ranks.")
    every = [Series(one, law.fit(one.cells), law.judge_forms(one)) for one in law.measured(found)]
    return Section(
        found.name,
        TITLE,
        _lead(every),
        _paragraphs(every),
        [table for table in _tables(every) if table.rows],
        _figures(every),
        [claim for claim in _claims(every) if claim.cells],
    )


# --- errors, and what they say ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """Of |t̂/t - 1|: the median and the 90 % quantile with their intervals over passes, and of how many cells."""

    cells: int
    median: Interval
    p90: Interval

    @property
    def word(self) -> Word:
        """By the declared rule."""
        if self.cells < LEAST or np.isnan(self.p90.low):
            return "inconclusive"
        if self.p90.high <= BAND:
            return "supported"
        return "refuted" if self.median.low > BAND else "inconclusive"

    @property
    def told(self) -> str:
        """In words."""
        return f"median {interval(self.median, _percent)}, nine in ten within {interval(self.p90, _percent)}"


def errors_of(one: Measured, judged: Callable[[Measured], Floats]) -> Errors:
    """``judged`` makes errors of what was measured; each pass is left out of all of it in turn."""
    whole, *without = [
        np.abs(judged(Measured(one.name, one.impl, cells, np.log(cells[["time_s"]].to_numpy(float)))))
        for cells in (one.cells, *one.without)
    ]

    def quantile(q: float) -> Interval:
        if not all(len(errors) and np.isfinite(errors).all() for errors in (whole, *without)):
            return Interval(np.nan, np.nan, np.nan)
        # on a linear scale: errors near 0 have no scale of their own
        found = law.jackknife(float(np.quantile(whole, q)), np.array([np.quantile(errors, q) for errors in without]))
        return Interval(found.value, max(0.0, found.low), found.high)

    return Errors(len(whole), quantile(0.5), quantile(0.9))


def of_steps(one: Measured, variant: str = STEP) -> Floats:
    """Errors of steps over more than one rank, each left out in turn."""
    cells = law.left_out(one, variant)
    return cells.loc[cells["ranks"] > 1, "error"].to_numpy(float)


def by_layer(one: Measured) -> Floats:
    """The same by the law that lets every layer send by itself."""
    cells = law.left_out(one, STEP, by_layer=True)
    return cells.loc[cells["ranks"] > 1, "error"].to_numpy(float)


def of_more_ranks(one: Measured, told: str = "", layers: bool = False) -> Floats:
    """Errors of steps over more ranks than ``FEW``, predicted from fewer; of one way of scaling, or of all."""
    parts = [law.from_fewer(one, k, layers) for k in one.ranks if k > FEW]
    cells = pd.concat(parts) if parts else one.steps(STEP).iloc[:0].assign(error=0.0)
    return law.scaled(cells, told)["error"].to_numpy(float)


def of_all_reduces(one: Measured) -> Floats:
    """Errors of all-reduces by the declared form, each left out in turn."""
    judged = law.judge_forms(one)
    return judged[0].errors if judged else np.array([])


# --- words ----------------------------------------------------------------------------------------------------------


def _percent(value: float) -> str:
    return percent(value, 1)


def _lead(every: Sequence[Series]) -> str:
    network = "; ".join(
        f"{one.name} {seconds(one.fitted.alpha_s)} a hop and {_bandwidth(one.fitted.beta_s)} GB/s"
        for one in every
        if one.fitted
    )
    more = "; ".join(
        f"{one.name} median error {percent(float(np.median(errors)), 1)}, nine in ten within "
        f"{percent(float(np.quantile(errors, 0.9)), 1)}"
        for one in every
        if len(one.from_fewer) and len(errors := np.abs(one.from_fewer["error"].dropna()))
    )
    said = "A step over k ranks shares the examples, does the update anew on every rank, and adds up gradients."
    said += f" An all-reduce costs here, by latency and bandwidth: {network}." if network else ""
    return said + (f" Steps over more ranks, predicted from runs with 1 and 2 alone: {more}." if more else "")


def _paragraphs(every: Sequence[Series]) -> list[str]:
    cores = every[0].measured.cores
    told = [
        f"The law is {STATEMENT}, where g are the bytes of the gradient and o(k) = max(1, k/c) says that k ranks share c = "
        f"{cores} cores, computing and sending alike. α and β come from all-reduces alone, of sizes that gradients have, s(k) "
        "from steps that send nothing, and t0, a, b and c from steps, with the rest known.",
        "Intervals rest on how launches differ: all is fitted anew without each pass in turn. They do not hold what the law "
        f"gets wrong; errors on cells left out do. The law is supported where nine in ten of these lie within "
        f"{percent(BAND)}, the interval too, refuted where half of them lie outside, the interval too.",
        "Efficiency is T(1)/(k·T(k)) where n stays (strong scaling) and T(1)/T(k) where n grows with k (weak). Ranks that "
        "share cores cannot reach 100 %, so it is told also as a share of what the cores allow, o(k) times as much.",
        "What overlap saves is the time of a step whose all-reduce waits for the end of backward, less that of a step as "
        "users write it. Where ranks use all cores, sending takes the cores that compute: there is little to hide behind.",
    ]
    told += [
        f"{one.name}: {said}"
        for one in every
        for said in (_told_forms(one), _told_smaller(one), _told_layers(one))
        if said
    ]
    if any(k > cores for one in every for k in one.measured.ranks):
        told.append(
            "Ranks beyond the cores tell how the law holds where cores are shared; they say nothing of a network between "
            "machines."
        )
    return told


def _told_layers(one: Series) -> str:
    """Whether a step sends the gradients of its layers one by one."""
    if not one.layers_send:
        return ""
    more = interval(law.coefficient(one.measured, "by_layer", by_layer=True), _two)
    with_them = percent(float(np.median(np.abs(by_layer(one.measured)))), 1)
    return (
        f"a step costs as if every layer added {more} all-reduces of its own, which the declared law does not say: with them the "
        f"median error is {with_them} instead of {percent(_median(one.left_out), 1)}."
    )


def _told_forms(one: Series) -> str:
    """Which form of the all-reduce holds."""
    if len(one.forms) < 2:
        return ""
    best = law.holds_best(one.forms)
    declared = float(np.abs(one.forms[0].errors).mean())
    if best.form == law.DECLARED:
        return f"no other form of the all-reduce errs clearly less than {law.DECLARED.name} ({percent(declared, 1)} on average)."
    return (
        f"the all-reduce grows rather as {best.form.name}: it errs by {percent(float(np.abs(best.errors).mean()), 1)} on cells "
        f"left out, {law.DECLARED.name} by {percent(declared, 1)}. The declared law stays the one that is judged."
    )


# --- claims ---------------------------------------------------------------------------------------------------------


def _claims(every: Sequence[Series]) -> list[Claimed]:
    rule = f"nine in ten cells that no fit saw within {percent(BAND)}"
    fitted = [one for one in every if one.fitted]
    return [
        Claimed(
            f"a step over k ranks costs {STATEMENT}: {rule}",
            "steps over several ranks, each cell left out in turn",
            {one.name: _claim(one, of_steps, "steps") for one in fitted},
            "parallel-strong",
            "ours",
        ),
        Claimed(
            f"runs with 1 and 2 ranks tell what more ranks take: {rule}",
            "steps over more than 2 ranks, by α, β, s and coefficients of at most 2",
            {one.name: _claim(one, of_more_ranks, "steps over more ranks") for one in fitted if one.beyond},
            "parallel-strong",
            "ours",
        ),
        Claimed(
            f"an all-reduce of a gradient's size costs α·log2 k + β·B·(k − 1)/k: {rule}",
            "all-reduces by themselves, each left out in turn",
            {one.name: _all_reduce_claim(one) for one in every if one.forms},
            "parallel-all-reduce",
            "ours",
        ),
        Claimed(
            "the part of a step that is shared out shrinks as 1/k",
            "steps that send nothing, over o(k), less t0 + c·m",
            {one.name: _shrinks(one) for one in fitted},
            "parallel-shares",
            "ours",
        ),
        Claimed(
            f"overlap with backward hides at least {percent(HIDES)} of communication",
            "steps against steps whose all-reduce waits for the end of backward",
            {one.name: _hides(one) for one in every if np.isfinite(one.hidden.value)},
            "parallel-shares",
            "ours",
        ),
    ]


def _claim(one: Series, judged: Callable[[Measured], Floats], what: str) -> Told:
    found = errors_of(one.measured, judged)
    why = f"Of {found.cells} {what}, the law is off by: {found.told}."
    if what == "steps" and (said := _told_layers(one)):
        why += f" {said[0].upper()}{said[1:]}"
    if np.isnan(found.p90.low):
        why += " One pass has no interval: no verdict rests on it."
    elif found.word == "inconclusive" and found.cells >= LEAST:
        why += f" That is neither all within {percent(BAND)} nor half outside."
    return Told(found.word, found.told, why)


def _all_reduce_claim(one: Series) -> Told:
    found = _claim(one, of_all_reduces, "all-reduces")
    more = [_told_forms(one), _told_smaller(one)]
    return Told(
        found.word, found.evidence, " ".join([found.why, *(f"{said[0].upper()}{said[1:]}" for said in more if said)])
    )


def _told_smaller(one: Series) -> str:
    """How far messages smaller than any gradient are off, which go another way."""
    if not one.forms or not len(smaller := one.forms[0].smaller):
        return ""
    low, high = _signed(float(smaller.min())), _signed(float(smaller.max()))
    return f"of messages smaller than any gradient, which no fit saw, the law is off by {low} to {high}."


def _shrinks(one: Series) -> Told:
    found = scaling.shrinking(one.measured)
    if not np.isfinite(found.value):
        return Told(
            "inconclusive", "no network is mostly compute", "No network spends most of a step on what is shared out."
        )
    told = with_interval(found.value, found.low, found.high)
    word: Word = within(found, 1.0)
    band = f"1 ± {OF_EXPONENTS}"
    ends = {
        "supported": f"within {band}",
        "refuted": f"outside {band}",
        "inconclusive": f"not clearly in or out of {band}",
    }
    why = f"It shrinks as (1/k)^{told}, {ends[word]}."
    if found.value < 1:
        why += " What is missing is what ranks at once cost each other in caches and memory, s(k)."
    return Told(word, f"(1/k)^{told}", why)


def _hides(one: Series) -> Told:
    found = one.hidden
    told = f"{interval(found, percent)} of communication"
    if np.isnan(found.low):
        return Told("inconclusive", told, "One pass has no interval: no verdict rests on it.")
    word: Word = "supported" if found.low >= HIDES else "refuted" if found.high < HIDES else "inconclusive"
    why = f"Over all steps, overlap hides {told}."
    if found.high < 0:
        why = (
            f"A step as users write it takes longer than one whose all-reduce waits: {told} hidden, less than nothing."
        )
    return Told(word, told, why)


# --- tables ---------------------------------------------------------------------------------------------------------


def _tables(every: Sequence[Series]) -> list[Table]:
    return [
        _network_table(every),
        _forms_table(every),
        _coefficients_table(every),
        _predictions_table(every),
        _efficiency_table(every),
        _shares_table(every),
        _overlap_table(every),
    ]


def _bandwidth(beta_s: float) -> str:
    """Of a rank's link, in GB/s: each byte goes out and comes back, so that β = 2 / bandwidth."""
    return f"{2 * GIGA / beta_s:.3g}" if beta_s > 0 else "no limit seen"


def _network_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        if not one.fitted:
            continue
        beta = law.coefficient(one.measured, "beta_s")
        width = Interval(*(2 * GIGA / end if end > 0 else np.nan for end in (beta.value, beta.high, beta.low)))
        found = errors_of(one.measured, of_all_reduces)
        rows.append(
            (
                one.name,
                interval(law.coefficient(one.measured, "alpha_s", MICRO), _three),
                interval(law.coefficient(one.measured, "beta_s", PICO), _three),
                interval(width, _three),
                percent(found.median.value, 1),
                percent(found.p90.value, 1),
                _worst_size(one),
                _smallest(one),
            )
        )
    header = (
        "implementation",
        "α, µs a hop",
        "β, ps a byte",
        "2/β, GB/s",
        "error, median",
        "nine in ten",
        "off most at",
        "smallest",
    )
    caption = (
        "All-reduces by themselves, o(k)·(α·log2 k + β·B·(k − 1)/k). 2/β is the bandwidth of a rank's link, since each byte "
        "goes out and comes back. Errors are of sizes that gradients have, left out in turn; smaller messages are not fitted."
    )
    return Table(caption, header, rows, (1, 2, 3, 4, 5))


def _three(value: float) -> str:
    return f"{value:.3g}"


def _worst_size(one: Series) -> str:
    sweep, errors = law.gradient_sized(one.measured.cells), one.forms[0].errors
    at = int(np.argmax(np.abs(errors)))
    return f"{int(sweep['bytes'].iloc[at]):,} B, {int(sweep['ranks'].iloc[at])} ranks: {_signed(float(errors[at]))}"


def _smallest(one: Series) -> str:
    """The measured time of the smallest message, which a latency alone would be."""
    sweep = law.sweep_of(one.measured.cells)
    cells = sweep[sweep["bytes"] == sweep["bytes"].min()]
    times = [f"{seconds(time)} over {k}" for k, time in zip(cells["ranks"], cells["time_s"], strict=True)]
    return f"{int(sweep['bytes'].min())} B: {'; '.join(times)}"


def _signed(error: float) -> str:
    return f"{100 * error:+.0f}\N{NO-BREAK SPACE}%"


def _forms_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        best = law.holds_best(one.forms) if one.forms else None
        for judged in one.forms if len(one.forms) > 1 else []:
            ranks = "; ".join(f"{k} ranks {percent(float(np.median(np.abs(e))), 1)}" for k, e in judged.by_rank.items())
            mark = " ★" if judged is best else ""
            rows.append((one.name, judged.form.name + mark, percent(float(np.abs(judged.errors).mean()), 1), ranks))
    header = ("implementation", "form of α's part", "cells left out in turn, mean", "ranks left out whole, median")
    caption = "Other forms of the all-reduce; ★ holds best. The declared form, first, yields only to one that errs clearly less."
    return Table(caption, header, rows, (2,))


def _coefficients_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        if not one.fitted:
            continue
        units = (("t0_s", MICRO), ("a_s", PICO), ("b_s", PICO), ("c_s", NANO))
        at_once = "; ".join(f"{interval(_contention(one, k), _two)} for {k}" for k in one.fitted.contention)
        layered = law.coefficient(one.measured, "by_layer", by_layer=True)
        whole = [k for k in one.measured.ranks if k > 1 and len(one.measured.ranks) > 2]
        unseen = "; ".join(f"{k}: {percent(_median(law.unseen_ranks(one.measured, k)), 1)}" for k in whole)
        in_turn = of_steps(one.measured, IN_TURN)
        rows.append(
            (
                one.name,
                *(interval(law.coefficient(one.measured, name, times), _three) for name, times in units),
                at_once or "not measured: 1",
                percent(_median(one.left_out), 1),
                unseen or "–",
                percent(float(np.median(np.abs(in_turn))), 1) if len(in_turn) else "–",
                interval(layered, _two),
                percent(float(np.median(np.abs(by_layer(one.measured)))), 1),
            )
        )
    header = (
        "implementation", "t0, µs", "a, ps", "b, ps", "c, ns", "s(k)", "left out in turn", "ranks left out whole",
        "without overlap", "all-reduces a layer", "with these",
    )  # fmt: skip
    caption = (
        "A step's coefficients: t0 for a step, a for an example and weight, b for an example, unit and operation, c for a "
        "weight. Median errors of steps over several ranks that no fit saw, also of steps whose all-reduce waits for "
        "backward (without overlap), and of steps by a law in which every layer adds all-reduces of its own, fitted."
    )
    return Table(caption, header, rows, (1, 2, 3, 4, 6, 8, 9, 10))


def _two(value: float) -> str:
    return f"{value:.2f}"


def _median(cells: pd.DataFrame) -> float:
    return float(np.median(np.abs(cells["error"]))) if len(cells) else np.nan


def _contention(one: Series, k: int) -> Interval:
    return law.over_passes(one.measured, lambda cells: law.contention(cells).get(k, np.nan))


def _predictions_table(every: Sequence[Series]) -> Table:
    rows = [row for one in every if one.beyond for row in _predictions(one)]
    header = ("implementation", "scaling", "steps", "error, median", "nine in ten", "off most at")
    ranks = " and ".join(str(k) for k in dict.fromkeys(k for one in every for k in one.beyond))
    caption = (
        f"Steps over {ranks} ranks as predicted from runs with 1 and 2 alone: coefficients, α, β and s(k) from these. Intervals "
        "over passes. A step may stand in both ways of scaling; “by layer” is the law in which every layer adds all-reduces."
    )
    return Table(caption, header, rows, (2, 3, 4))


def _predictions(one: Series) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for told, layers in (*((way, False) for way in (*scaling.SCALINGS, "model", "")), ("", True)):
        cells = one.from_fewer_by_layer if layers else one.from_fewer
        cells = law.scaled(cells, told)
        if not len(cells) or cells["error"].isna().any():
            continue
        found = errors_of(one.measured, partial(of_more_ranks, told=told, layers=layers))
        name = "all, by layer" if layers else told or "all"
        shown = (interval(found.median, _percent), interval(found.p90, _percent), _worst(cells))
        rows.append((one.name, name, str(found.cells), *shown))
    return rows


def _worst(cells: pd.DataFrame) -> str:
    worst = cells.iloc[int(np.argmax(np.abs(cells["error"].to_numpy(float))))]
    return f"{worst['layers']} {worst['activation']}, n = {int(worst['n']):,}: {_signed(float(worst['error']))}"


def _efficiency_table(every: Sequence[Series]) -> Table:
    rows = [
        (one.name, found.scaling, found.network.name, str(found.ranks), f"{found.n:,}", seconds(found.time_s),
         interval(found.plain, percent), interval(found.allowed, percent))
        for one in every
        for found in one.efficiencies
    ]  # fmt: skip
    header = ("implementation", "scaling", "network", "ranks", "n", "a step", "efficiency", "of what cores allow")
    caption = (
        "Efficiency, with intervals over passes: T(1)/(k·T(k)) strong, T(1)/T(k) weak; the last column times o(k)."
    )
    return Table(caption, header, rows, (3, 4, 5, 6, 7), folded=True)


def _shares_table(every: Sequence[Series]) -> Table:
    rows = [
        (one.name, network.name, str(int(cell["ranks"])), seconds(float(cell["time_s"])),
         *(percent(float(parts[name])) for name in parallel_figures.PARTS))
        for one in every
        if one.told
        for network in scaling.networks(one.measured, "strong")
        for cell, parts in _with_parts(scaling.line(one.measured, network, "strong"), one.told)
    ]  # fmt: skip
    header = (
        "implementation",
        "network",
        "ranks",
        "a step",
        "compute",
        "done anew",
        "sharing",
        "waiting",
        "communication",
    )
    caption = (
        "Where the time goes by the law, n the same for any number of ranks: compute that is shared out, t0 + c·m that every "
        "rank does anew, what sharing caches and memory adds to both, waiting for a core that another rank has, communication."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 6, 7, 8), folded=True)


def _with_parts(cells: pd.DataFrame, fitted: Coefficients) -> list[tuple[pd.Series, pd.Series]]:
    parts = scaling.shares(cells, fitted)
    return [(cells.iloc[i], parts.iloc[i]) for i in range(len(cells))]


def _overlap_table(every: Sequence[Series]) -> Table:
    rows = [
        (one.name, found.name or "all steps, mean", str(found.ranks), f"{found.n:,}" if found.n else "",
         interval(found.communication_s, _ms), interval(found.saved_s, _ms), interval(found.hidden, percent))
        for one in every
        for found in scaling.overlaps(one.measured)
    ]  # fmt: skip
    header = ("implementation", "network", "ranks", "n", "communication, ms", "saved, ms", "hidden")
    caption = (
        "What overlap saves: communication is a step whose all-reduce waits for backward less one that sends nothing; saved is "
        "the former less a step as users write it. Intervals over passes."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 6), folded=True)


def _ms(value: float) -> str:
    return f"{1e3 * value:.3g}"


# --- figures --------------------------------------------------------------------------------------------------------


def _figures(every: Sequence[Series]) -> list[Drawn]:
    measured = [one.measured for one in every]
    fits = {one.name: one.told for one in every if one.told}
    drawn = []
    titles = {"strong": "The same examples over more ranks", "weak": "As many examples for each rank"}
    for told, title in titles.items():
        there = [one for one in measured if scaling.networks(one, told)]
        if there:
            caption = (
                f"{told.capitalize()} scaling: marks are measured, lines the law, dots what is ideal on "
                f"{measured[0].cores} cores. {_of_scaling(every, told)}"
            )
            drawn.append(Drawn(f"parallel-{told}", title, caption, parallel_figures.scaling_figure(there, fits, told)))
    able = [one for one in every if one.efficiencies]
    if able:
        figure = parallel_figures.efficiency_figure(
            [one.measured for one in able], {one.name: one.efficiencies for one in able}
        )
        caption = (
            f"Efficiency as a share of what the cores allow, with 95 % intervals over passes. {_of_efficiency(able)}"
        )
        drawn.append(Drawn("parallel-efficiency", "Efficiency", caption, figure))
    sent = [one.measured for one in every if one.fitted]
    if sent:
        alone = "; ".join(
            f"{name}: α {seconds(f.alpha_s)} a hop, 2/β {_bandwidth(f.beta_s)} GB/s" for name, f in fits.items()
        )
        caption = f"All-reduces by themselves: marks are measured, lines α·log2 k + β·B·(k − 1)/k. {alone}."
        figure = parallel_figures.all_reduce_figure(sent, fits)
        drawn.append(Drawn("parallel-all-reduce", "An all-reduce by its bytes", caption, figure))
    if any(scaling.networks(one, "strong") for one in sent):
        caption = f"Shares of a step by the law, strong scaling. {_of_shares(every)}"
        figure = parallel_figures.parts_figure([one for one in sent if scaling.networks(one, "strong")], fits)
        drawn.append(Drawn("parallel-shares", "Where the time goes", caption, figure))
    return drawn


def _of_scaling(every: Sequence[Series], told: str) -> str:
    """The numbers behind the lines: how far the law is off on these cells, left out in turn."""
    parts = []
    for one in every:
        cells = law.scaled(one.left_out, told)
        if len(cells) and cells["error"].notna().all():
            parts.append(f"{one.name} {percent(_median(cells), 1)}")
    return f"Median error of the law on these steps, left out in turn: {', '.join(parts)}." if parts else ""


def _of_efficiency(every: Sequence[Series]) -> str:
    parts = []
    for one in every:
        most = max(found.ranks for found in one.efficiencies)
        values = [
            found.allowed.value for found in one.efficiencies if found.ranks == most and found.scaling == "strong"
        ]
        if values:
            parts.append(f"{one.name} {percent(min(values))} to {percent(max(values))} over {most} ranks")
    return f"Strong scaling: {', '.join(parts)}." if parts else ""


def _of_shares(every: Sequence[Series]) -> str:
    parts = []
    for one in every:
        there = scaling.networks(one.measured, "strong")
        if one.told and there:
            cells = scaling.line(one.measured, there[-1], "strong")
            last = scaling.shares(cells, one.told).iloc[-1]
            k = int(cells["ranks"].iloc[-1])
            parts.append(f"{one.name} {percent(float(last['communication']))} over {k} ranks")
    return f"Communication in the largest network: {', '.join(parts)}." if parts else ""
