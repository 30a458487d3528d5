"""Data parallelism: what a step over k ranks costs, what an all-reduce costs, and whether fewer ranks predict more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analysis.claims import BAND as OF_EXPONENTS
from analysis.experiments import Claimed, Drawn, Section, Told, Word, parallel_figures
from analysis.experiments import parallel_law as law
from analysis.experiments import parallel_scaling as scaling
from analysis.experiments.found import Found
from analysis.experiments.parallel_law import Measured
from analysis.experiments.parallel_series import (
    BAND,
    HIDES,
    LEAST,
    Series,
    bandwidth,
    errors_of,
    of_all_reduces,
    of_more_ranks,
    of_steps,
    series,
    signed,
)
from analysis.experiments.parallel_tables import tables
from analysis.statistics import Floats
from analysis.verdicts import within
from analysis.words import interval, percent, seconds, with_interval

TITLE = "Data parallel: a step over several ranks"
#: What tells more ranks where two also shared a core (``parallel_more``).
MORE = "T(k) = w·s·S(n/k) + q·α·(k − 1) + [(β + γ)·g + δ·(g − L2)]·(k − 1)/k + λ·log2 k"
STATEMENT = "T(k) = o(k)·[s(k)·(t0 + n/k·(a·m + b·u·p) + c·m) + α·log2 k + β·g·(k − 1)/k]"


def section(found: Found) -> Section:
    """Laws, verdicts, tables and figures."""
    if not found.rows:
        return Section(found.name, TITLE, "Nothing was measured: no implementation here runs over several ranks.")
    every = series(found)
    return Section(
        found.name,
        TITLE,
        _lead(every),
        _paragraphs(every),
        tables(every),
        _figures(every),
        [claim for claim in claims(every) if claim.cells],
    )


# --- words ----------------------------------------------------------------------------------------------------------


def _lead(every: Sequence[Series]) -> str:
    network = "; ".join(
        f"{one.name} {seconds(one.fitted.alpha_s)} a hop and {bandwidth(one.fitted.beta_s)} GB/s"
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
    if any(one.more for one in every):
        told.append(
            "Where two ranks were also measured on one core, more ranks are predicted from 1 and 2 alone by a law of their own: "
            f"{MORE}, where S(n) = t0 + t1·layers + t2·hidden·p + n·(a·m + b·u·p) + c·m is a step of one rank, q are the "
            "all-reduces of a step, γ is what a byte costs more there, δ what one does that a core's L2 cache no longer "
            "holds, and λ what ranks wait for the last of them. Two ranks on a core each and two on one tell what each costs; "
            "between and beyond, all of it is linear in o(k), but for a hop between cores that are shared, which lies "
            "between one within such a core and turns. Figures show that law: over more than 2 ranks it is a prediction."
        )
    told += [f"{one.name}: {said}" for one in every for said in (_told_forms(one), _told_smaller(one)) if said]
    if any(k > cores for one in every for k in one.measured.ranks):
        told.append(
            "Ranks beyond the cores tell how the law holds where cores are shared; they say nothing of a network between "
            "machines."
        )
    return told


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


def claims(every: Sequence[Series]) -> list[Claimed]:
    """What is judged, each by implementation."""
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
            "steps over more than 2 ranks, by all coefficients of at most 2",
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
    low, high = signed(float(smaller.min())), signed(float(smaller.max()))
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


# --- figures --------------------------------------------------------------------------------------------------------


def _figures(every: Sequence[Series]) -> list[Drawn]:
    fits = {one.name: one.told for one in every if one.told}
    drawn = [_scaling_drawn(every, fits, told) for told in scaling.SCALINGS]
    return [
        one
        for one in (*drawn, _efficiency_drawn(every), _all_reduce_drawn(every, fits), _shares_drawn(every, fits))
        if one
    ]


def _scaling_drawn(every: Sequence[Series], fits: parallel_figures.Fits, told: str) -> Drawn | None:
    there = [one.measured for one in every if scaling.networks(one.measured, told)]
    if not there:
        return None
    title = "The same examples over more ranks" if told == "strong" else "As many examples for each rank"
    caption = (
        f"{told.capitalize()} scaling, {_of_sizes(there, told)}: marks are measured, lines the law, dots what is ideal on "
        f"{there[0].cores} cores. {_of_scaling(every, told)}"
    )
    return Drawn(f"parallel-{told}", title, caption, parallel_figures.scaling_figure(there, fits, told))


def _efficiency_drawn(every: Sequence[Series]) -> Drawn | None:
    able = [one for one in every if one.efficiencies]
    if not able:
        return None
    found = {one.name: one.efficiencies for one in able}
    caption = (
        "Efficiency as a share of what the cores allow, with 95 % intervals over passes, cut where they leave the panel. "
        f"{_of_efficiency(able)}"
    )
    figure = parallel_figures.efficiency_figure([one.measured for one in able], found)
    return Drawn("parallel-efficiency", "Efficiency", caption, figure)


def _all_reduce_drawn(every: Sequence[Series], fits: parallel_figures.Fits) -> Drawn | None:
    sent = [one.measured for one in every if one.name in fits]
    if not sent:
        return None
    caption = (
        "All-reduces by themselves: marks are measured, lines the law, dashed for messages smaller than gradients."
    )
    return Drawn(
        "parallel-all-reduce", "An all-reduce by its bytes", caption, parallel_figures.all_reduce_figure(sent, fits)
    )


def _shares_drawn(every: Sequence[Series], fits: parallel_figures.Fits) -> Drawn | None:
    there = [one.measured for one in every if one.name in fits and scaling.networks(one.measured, "strong")]
    if not there:
        return None
    caption = f"Shares of a step by the law of the figures above, strong scaling. {_of_shares(every)}"
    return Drawn("parallel-shares", "Where the time goes", caption, parallel_figures.parts_figure(there, fits))


def _of_sizes(there: Sequence[Measured], told: str) -> str:
    """N by network: in all where it stays, of a rank where it grows."""
    sizes = {}
    for one in there:
        for network in parallel_figures.chosen(one, told):
            first = scaling.line(one, network, told).iloc[0]
            sizes[network.name] = int(first["n"] if told == "strong" else first["n"] / first["ranks"])
    each = ", ".join(f"{n:,} for {name}" for name, n in sizes.items())
    return f"n = {each}" if told == "strong" else f"n of a rank = {each}"


def _of_scaling(every: Sequence[Series], told: str) -> str:
    """The numbers behind the lines: how far predictions from at most two ranks are off on these cells."""
    parts = []
    for one in every:
        errors = np.abs(of_more_ranks(one.measured, told))
        if len(errors) and np.isfinite(errors).all():
            parts.append(f"{one.name} {percent(float(np.median(errors)), 1)} ({len(errors)} steps)")
    return f"Median error of these steps over more ranks, predicted from 1 and 2: {', '.join(parts)}." if parts else ""


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
