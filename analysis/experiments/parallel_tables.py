"""Tables of data parallelism."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from analysis.experiments import Table, parallel_figures
from analysis.experiments import parallel_law as law
from analysis.experiments import parallel_scaling as scaling
from analysis.experiments.parallel_law import IN_TURN, Coefficients
from analysis.experiments.parallel_series import (
    FEW,
    GIGA,
    Series,
    errors_of,
    from_fewer,
    median,
    milliseconds,
    of_all_reduces,
    of_more_ranks,
    of_steps,
    percent_1,
    signed,
    three,
    two,
)
from analysis.statistics import Interval
from analysis.words import interval, percent, seconds

MICRO, NANO, PICO = 1e6, 1e9, 1e12


def tables(every: Sequence[Series]) -> list[Table]:
    """Those that have rows."""
    made = [
        _network_table(every),
        _sizes_table(every),
        _forms_table(every),
        _coefficients_table(every),
        _versions_table(every),
        _prices_table(every),
        _predictions_table(every),
        _efficiency_table(every),
        _shares_table(every),
        _overlap_table(every),
    ]
    return [table for table in made if table.rows]


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
                interval(law.coefficient(one.measured, "alpha_s", MICRO), three),
                interval(law.coefficient(one.measured, "beta_s", PICO), three),
                interval(width, three),
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


def _worst_size(one: Series) -> str:
    sweep, errors = law.gradient_sized(one.measured.cells), one.forms[0].errors
    at = int(np.argmax(np.abs(errors)))
    return f"{int(sweep['bytes'].iloc[at]):,} B, {int(sweep['ranks'].iloc[at])} ranks: {signed(float(errors[at]))}"


def _smallest(one: Series) -> str:
    """The measured time of the smallest message, which a latency alone would be."""
    sweep = law.sweep_of(one.measured.cells)
    cells = sweep[sweep["bytes"] == sweep["bytes"].min()]
    times = [f"{seconds(time)} over {k}" for k, time in zip(cells["ranks"], cells["time_s"], strict=True)]
    return f"{int(sweep['bytes'].min())} B: {'; '.join(times)}"


def _sizes_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        if not one.forms:
            continue
        fitted, sweep = law.gradient_sized(one.measured.cells), law.sweep_of(one.measured.cells)
        errors = pd.concat(
            [
                pd.Series(one.forms[0].errors, fitted.index),
                pd.Series(one.forms[0].smaller, sweep.drop(fitted.index).index),
            ]
        )
        for size, cells in sweep.groupby("bytes"):
            told = [
                f"{seconds(time)} ({signed(float(errors[at]))})"
                for at, time in zip(cells.index, cells["time_s"], strict=True)
            ]
            ranks = ", ".join(str(k) for k in cells["ranks"])
            rows.append((one.name, f"{int(float(str(size))):,}", ranks, "; ".join(told)))
    header = ("implementation", "bytes", "ranks", "an all-reduce, and how far the law is off")
    caption = "All-reduces by size: what was measured, and the error of the declared form, left out in turn."
    return Table(caption, header, rows, (1,), folded=True)


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
        at_once = "; ".join(f"{interval(_contention(one, k), two)} for {k}" for k in one.fitted.contention)
        whole = [k for k in one.measured.ranks if k > 1 and len(one.measured.ranks) > 2]
        unseen = "; ".join(f"{k}: {percent(median(law.unseen_ranks(one.measured, k)), 1)}" for k in whole)
        in_turn = of_steps(one.measured, IN_TURN)
        rows.append(
            (
                one.name,
                *(interval(law.coefficient(one.measured, name, times), three) for name, times in units),
                at_once or "not measured: 1",
                percent(median(one.left_out), 1),
                unseen or "–",
                percent(float(np.median(np.abs(in_turn))), 1) if len(in_turn) else "–",
            )
        )
    header = (
        "implementation", "t0, µs", "a, ps", "b, ps", "c, ns", "s(k)", "left out in turn", "ranks left out whole",
        "without overlap",
    )  # fmt: skip
    caption = (
        "A step's coefficients: t0 for a step, a for an example and weight, b for an example, unit and operation, c for a "
        "weight. Median errors of steps over several ranks that no fit saw, also of steps whose all-reduce waits for "
        "backward (without overlap)."
    )
    return Table(caption, header, rows, (1, 2, 3, 4, 6, 8))


def _contention(one: Series, k: int) -> Interval:
    return law.over_passes(one.measured, lambda cells: law.contention(cells).get(k, np.nan))


def _prices_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        steps = law.crowded(one.measured)
        if not len(steps) or steps["error"].isna().any():
            continue
        k, cores = int(steps["ranks"].iloc[0]), int(steps["cores"].iloc[0])
        times = [interval(_dearer(one, told, k / cores), two) for told in _PRICES]
        rows.append((one.name, f"{k} on {cores}", *times, str(len(steps)), percent(median(steps), 1), _worst(steps)))
    header = (
        "implementation",
        "ranks on cores",
        "computing",
        "α",
        "β",
        "α in steps",
        "β in steps",
        "steps",
        "error, median",
        "off most at",
    )
    caption = (
        "What sharing a core costs: computing, in times of one rank alone; sending, in times of as many ranks with a core each, "
        "by itself and in steps. To take turns and no more would be 2 for 2 on 1. Errors are of the steps on shared cores, each "
        "by a fit that did not see it."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 6, 7, 8))


def _in_steps(cells: pd.DataFrame) -> law.Prices | None:
    found = law.fit(cells, version=law.AS_FOUND_PRICED)
    return found.prices if found else None


_PRICES: tuple[tuple[Callable[[pd.DataFrame], law.Prices | None], str], ...] = (
    (law.priced, "work"),
    (law.priced, "hop"),
    (law.priced, "byte"),
    (_in_steps, "hop"),
    (_in_steps, "byte"),
)


def _dearer(one: Series, told: tuple[Callable[[pd.DataFrame], law.Prices | None], str], over: float) -> Interval:
    prices_of, name = told

    def times(cells: pd.DataFrame) -> float:
        found = prices_of(cells[cells["ranks"] <= FEW])
        return float(over ** getattr(found, name)) if found else np.nan

    return law.over_passes(one.measured, times)


def _predictions_table(every: Sequence[Series]) -> Table:
    rows = [row for one in every if one.beyond for row in _predictions(one)]
    header = ("implementation", "scaling", "the law", "steps", "error, median", "nine in ten", "off most at")
    ranks = " and ".join(str(k) for k in dict.fromkeys(k for one in every for k in one.beyond))
    caption = (
        f"Steps over {ranks} ranks as predicted from runs with 1 and 2 alone: coefficients, α, β, s(k) and prices from these. "
        "★ is judged: as steps find it and as priced, where two ranks were measured on one core. "
        "Intervals over passes. A step may stand in both ways of scaling."
    )
    return Table(caption, header, rows, (3, 4, 5))


def _predictions(one: Series) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    judged = one.for_more_ranks
    ways = [(way, judged) for way in (*scaling.SCALINGS, "model")] + [("", version) for version in law.VERSIONS]
    for way, version in ways:
        cells = law.scaled(from_fewer(one.measured, version), way)
        if not len(cells) or cells["error"].isna().any():
            continue
        found = errors_of(one.measured, partial(of_more_ranks, told=way, version=version))
        shown = (interval(found.median, percent_1), interval(found.p90, percent_1), _worst(cells))
        mark = " ★" if version == judged else ""
        rows.append((one.name, way or "all", version.name + mark, str(found.cells), *shown))
    return rows


def _versions_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        for version in law.VERSIONS if one.fitted else ():
            found = errors_of(one.measured, partial(of_steps, version=version))
            layers = law.coefficient(one.measured, "by_layer", version=version)
            name = version.name + (" ★" if version == one.version else "")
            if np.isnan(found.median.value):
                continue
            dearer = law.coefficient(one.measured, "by_byte", version=version)
            more = (
                interval(layers, two) if version.by_layer else "none",
                interval(dearer, percent) if version.as_found else "none",
            )
            shown = (interval(found.median, percent_1), interval(found.p90, percent_1))
            rows.append((one.name, name, *more, *shown))
    header = (
        "implementation",
        "steps send",
        "all-reduces a layer adds",
        "a byte costs more by",
        "error, median",
        "nine in ten",
    )
    caption = (
        "Other versions of the law of a step: every layer adds all-reduces of its own; hops and bytes cost more in a step than "
        "in an all-reduce by itself; sending waits for no shared core, or for one as priced. ★ tells best; the declared one, "
        "first, yields only to one that errs clearly less. Errors are of steps over several ranks, left out in turn."
    )
    return Table(caption, header, rows, (2, 3, 4, 5))


def _worst(cells: pd.DataFrame) -> str:
    worst = cells.iloc[int(np.argmax(np.abs(cells["error"].to_numpy(float))))]
    return f"{worst['layers']} {worst['activation']}, n = {int(worst['n']):,}: {signed(float(worst['error']))}"


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
         interval(found.communication_s, milliseconds), interval(found.saved_s, milliseconds), interval(found.hidden, percent))
        for one in every
        for found in scaling.overlaps(one.measured)
    ]  # fmt: skip
    header = ("implementation", "network", "ranks", "n", "communication, ms", "saved, ms", "hidden")
    caption = (
        "What overlap saves: communication is a step whose all-reduce waits for backward less one that sends nothing; saved is "
        "the former less a step as users write it. Intervals over passes."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 6), folded=True)
