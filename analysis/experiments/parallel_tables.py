"""Tables of data parallelism."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from analysis.experiments import Table, parallel_figures
from analysis.experiments import parallel_law as law
from analysis.experiments import parallel_more as more
from analysis.experiments import parallel_scaling as scaling
from analysis.experiments.parallel_law import IN_TURN, Law
from analysis.experiments.parallel_series import (
    GIGA,
    Predictor,
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
        _placed_table(every),
        _predictions_table(every),
        _each_table(every),
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
    caption = (
        "Other forms of the all-reduce; ★ is kept: the declared form, first, yields only to one that errs clearly less."
    )
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


def _placed_table(every: Sequence[Series]) -> Table:
    rows = []
    for one in every:
        if not one.more:
            continue
        steps = more.crowded(one.measured)
        off = percent(median(steps), 1) if steps["error"].notna().all() else "–"
        for where, name in (("2 on 2", "apart"), ("2 on 1", "together")):
            told = [interval(_paid(one, name, part, times), three) for part, times in _PAID]
            rows.append((one.name, where, *told, off if name == "together" else "–"))
    header = (
        "implementation",
        "ranks on cores",
        "computing",
        "α, µs",
        "β, ps",
        "γ, ps",
        "δ, ps",
        "λ, µs",
        "off, median",
    )
    caption = (
        "What two ranks pay on a core each and on one: computing in times of one rank alone (2 on one core is to take turns "
        "and no more), a hop, a byte, what a byte costs more in a step (γ) and beyond a core's cache (δ), and the wait for "
        "the last. More ranks are predicted from these. The last column has the errors of the steps on one core, each by a "
        "fit that did not see it."
    )
    return Table(caption, header, rows, (2, 3, 4, 5, 6, 7, 8))


_PAID = (("work", 1.0), ("hop_s", MICRO), ("byte_s", PICO), ("cold_s", PICO), ("far_s", PICO), ("lag_s", MICRO))


def _paid(one: Series, placed: str, part: str, times: float) -> Interval:
    def told(cells: pd.DataFrame) -> float:
        found = more.fit(cells)
        return float(getattr(getattr(found, placed), part)) * times if found else np.nan

    found = law.over_passes(one.measured, told, signed=True)  # some may be 0, which has no scale
    return Interval(found.value, max(0.0, found.low), found.high)


def _predictions_table(every: Sequence[Series]) -> Table:
    rows = [row for one in every if one.beyond for row in _predictions(one)]
    header = ("implementation", "scaling", "the law", "steps", "error, median", "nine in ten", "off most at")
    ranks = " and ".join(str(k) for k in dict.fromkeys(k for one in every for k in one.beyond))
    caption = (
        f"Steps over {ranks} ranks as predicted from runs with 1 and 2 alone. ★ is judged: the law for more ranks where two "
        "were measured on one core, else the declared one. Intervals over passes. A step may stand in both ways of scaling."
    )
    return Table(caption, header, rows, (3, 4, 5))


def _predictions(one: Series) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    laws: list[tuple[str, Predictor]] = [("for more ranks", more.fit)] if one.more else []
    laws.append(("as declared", law.fit))
    for i, (name, by) in enumerate(laws):
        for way in (*scaling.SCALINGS, "model", "") if i == 0 else ("",):
            cells = law.scaled(from_fewer(one.measured, by), way)
            if not len(cells) or cells["error"].isna().any():
                continue
            found = errors_of(one.measured, partial(of_more_ranks, told=way, by=by))
            shown = (interval(found.median, percent_1), interval(found.p90, percent_1), _worst(cells))
            rows.append((one.name, way or "all", name + (" ★" if i == 0 else ""), str(found.cells), *shown))
    return rows


def _each_table(every: Sequence[Series]) -> Table:
    rows = [
        (one.name, f"{cell['layers']} {cell['activation']}", f"{int(cell['n']):,}", str(cell["scaling"]), str(int(cell["ranks"])),
         seconds(float(cell["time_s"])), *(signed(float(error)) for error in (cell["error"], at_once)))
        for one in every
        if one.beyond
        for (_, cell), at_once in zip(
            one.from_fewer.iterrows(), from_fewer(one.measured, law.fit)["error"], strict=True
        )
        if np.isfinite([cell["error"], at_once]).all()
    ]  # fmt: skip
    header = ("implementation", "network", "n", "scaling", "ranks", "a step", "off by ★", "as declared")
    return Table("Each of these steps, and how far both laws are off.", header, rows, (2, 4, 5, 6, 7), folded=True)


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


def _with_parts(cells: pd.DataFrame, fitted: Law) -> list[tuple[pd.Series, pd.Series]]:
    parts = scaling.shares(cells, fitted)
    return [(cells.iloc[i], parts.iloc[i]) for i in range(len(cells))]


def _overlap_table(every: Sequence[Series]) -> Table:
    rows = [
        (one.name, found.name or "all steps, of other networks too, mean", str(found.ranks), f"{found.n:,}" if found.n else "",
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
