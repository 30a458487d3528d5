"""What only a run on an accelerator has to tell, as tables of text that pages and Markdown both show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import devices, events, load, transfers, words
from analysis.devices import Match
from analysis.figures import Material, name_of
from analysis.launch import Launch
from analysis.statistics import Interval


@dataclass(frozen=True)
class Table:
    """Rows of text under ``columns``; ``folded`` where a page should not open with it."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    folded: bool = False


def tables(entries: pd.DataFrame, material: Material) -> list[Table]:
    """Every table that has a row; none for a run on the CPU alone."""
    if not entries["device"].map(load.on_accelerator).any():
        return []
    usual = load.usual(entries)
    matched = devices.matches(material.steps, material.copied)
    found = [
        launches(material),
        crossings(matched),
        *(common_cells(match) for match in matched),
        overheads(usual, material),
        replays(usual),
        conditions(entries, material),
        at_ceiling(material),
        copies(material),
    ]
    return [table for table in found if table.rows]


def launches(material: Material) -> Table:
    """The launch-overhead regime of every series, and how well the law that wins holds beyond it."""
    short = dict(material.names())
    rows = []
    for verdict in material.verdicts:
        found, winner = verdict.launch, verdict.choice.winner
        if verdict.phase != "step" or found is None:
            continue
        law = f"{winner.law.name}, {words.percent(winner.heldout_median, 1)}" if winner else verdict.choice.reason
        places = [_crossover(found, axis) for axis in ("examples", "width")]
        begins = words.count(found.arithmetic_from) if found.reached else "not reached in this sweep"
        named = "yes" if found.named else "no"
        cost = words.interval(found.seconds, words.seconds)
        rows.append((short.get(name_of(verdict), name_of(verdict)), named, cost, *places, begins, law))
    caption = (
        "Where launching binds, cost grows with neither n nor m. The crossover is the n·m at which arithmetic takes as long as "
        "launching, with its 95 % interval. Exponents and laws are judged in the arithmetic regime, where launching is at "
        "most a fifth of the cost; the error is the median over its held-out cells."
    )
    columns = (
        "implementation", "launch-overhead regime", "launch overhead", "crossover in n·m, along examples", "along width",
        "arithmetic regime from n·m", "law that wins there, held-out error",
    )  # fmt: skip
    return Table("Launch overhead and arithmetic", caption, columns, rows)


def _crossover(found: Launch, axis: str) -> str:
    if axis not in found.crossovers:
        return "not measured"
    return found.reasons.get(axis) or words.interval(found.crossovers[axis], words.count)


def crossings(matched: Iterable[Match]) -> Table:
    """Where the device begins to win."""
    rows = [
        (
            f"{match.dtype} against {match.host_dtype}",
            "with" if kind == "ratio_with_transfer" else "without",
            f"{found.variable}, at {found.fixed}",
            found.words,
            words.interval(found.at, words.count),
        )
        for match in matched
        for kind in devices.KINDS
        for found in devices.crossings(match, kind)
    ]
    caption = (
        "The fastest implementation on the CPU against the fastest on the device, between cells measured on both sides; the "
        "place is where the line between two of them, straight on log-log paper, passes 1, its interval where the ratio's "
        "95 % interval does."
    )
    columns = ("device against CPU", "transfer", "along", "what was found", "place")
    return Table("Where the accelerator wins, by axis", caption, columns, rows)


def common_cells(match: Match) -> Table:
    """Every cell measured on both sides."""
    rows = [
        (
            f"{c['n']:,}",
            f"{c['width']:,}",
            str(c["depth"]),
            str(c["p"]),
            f"{c['host']}, {words.seconds(c['host_s'])}",
            f"{c['device']}, {words.seconds(c['device_s'])}",
            words.interval(Interval(c["ratio"], c["ratio_low"], c["ratio_high"]), words.si),
            words.si(c["ratio_with_transfer"])
            + ("" if c["transfer_measured"] or np.isnan(c["ratio_with_transfer"]) else " (copy by its line)"),
        )
        for _, c in match.cells.iterrows()
    ]
    caption = (
        f"{len(match.cells)} cells were measured on both sides; {match.only_host} on the CPU alone and {match.only_device} on "
        "the device alone take no part. The ratio is CPU over device seconds, above 1 the device wins; copies that were not "
        "measured are told by the line through those that were, or not at all (–)."
    )
    title = f"Cell by cell: {match.dtype} on the device, {match.host_dtype} on the CPU"
    columns = ("n", "width", "depth", "p", "fastest on the CPU", "fastest on the device", "ratio", "with transfer")
    return Table(title, caption, columns, rows, folded=True)


def overheads(entries: pd.DataFrame, material: Material) -> Table:
    """Wall clock beside events."""
    rows = [
        (
            o.name,
            f"{o.size}: {o.layers}, n = {o.n:,}",
            words.seconds(o.wall_s),
            words.seconds(o.device_s),
            words.seconds(o.overhead_s),
            words.interval(o.share, lambda share: words.percent(share, 1)),
        )
        for o in events.overheads(entries, dict(material.names()))
    ]
    caption = (
        "A step by the synchronised wall clock and between two events on the device, in the smallest and the largest cell. "
        "The rest is the host's alone; its share has a 95 % interval over passes."
    )
    columns = ("implementation", "cell", "wall clock", "device", "host overhead", "share of the wall clock")
    return Table("Wall clock and device events", caption, columns, rows)


def replays(entries: pd.DataFrame) -> Table:
    """What capturing a step saves."""
    rows = [
        (f"{r.eager} over {r.replayed}", r.dtype, str(r.cells), words.interval(r.ratio, words.factor))
        for r in events.replays(entries)
    ]
    caption = (
        "How many times longer a step takes launched anew than replayed, over the smallest cells both measured; 95 % interval "
        "over passes."
    )
    return Table("Replaying a captured step", caption, ("ratio", "dtype", "cells", "times as long"), rows)


def conditions(entries: pd.DataFrame, material: Material) -> Table:
    """Under what the device was measured."""
    rows = [
        (
            c.name,
            f"{c.throttled:,}",
            f"{c.rounds:,}",
            "–" if np.isnan(c.clock_low) else f"{c.clock_low / 1e9:.3f} to {c.clock_high / 1e9:.3f}",
            words.si(c.temperature_c),
            c.input_sets,
            words.percent(c.cv, 1),
        )
        for c in events.conditions(entries, material.cells)
    ]
    caption = (
        "Rounds during which the device said that it throttled were dropped. Input sets are the prepared problems that a block "
        "of steps rotates through, so that small cells do not find their inputs in the cache; 1 means that they do."
    )
    columns = (
        "implementation", "throttled rounds, dropped", "rounds kept", "clock, GHz", "highest temperature, °C", "input sets",
        "CV between processes, normalised",
    )  # fmt: skip
    return Table("Clock, temperature and caches", caption, columns, rows)


def at_ceiling(material: Material) -> Table:
    """How near the largest cells come to the ceiling."""
    rows = [
        (
            f"{c['device']} {c['dtype']}",
            f"{c['ceiling_flops'] / 1e12:.3g}",
            str(c["series"]),
            f"{c['layers']}, n = {c['n']:,}",
            words.percent(c["share_of_ceiling"]),
        )
        for c in events.at_ceiling(material.cells).to_dict("records")
    ]
    caption = (
        "The best implementation at the cell with most work in matrix products, against the ceiling of the same run."
    )
    columns = ("device and dtype", "ceiling, TFLOP/s", "best implementation", "largest cell", "share of the ceiling")
    return Table("Share of the ceiling at the largest cells", caption, columns, rows)


def copies(material: Material) -> Table:
    """What copying a batch costs."""
    rows = [
        (
            f"{t['series']}, {t['phase']}",
            f"{t['n']:,}",
            words.count(t["bytes"]),
            words.seconds(t["time_s"]),
            words.si(t["bytes_per_s"] / 1e9),
            words.percent(t["share_of_step"]),
            "–" if t["link"] is None
            else f"{words.seconds(t['link'].latency_s)} + bytes / {words.si(t['link'].bytes_per_s / 1e9)} GB/s",
        )
        for t in transfers.table(material.copied)
    ]  # fmt: skip
    caption = (
        "Inputs and targets from host memory, pageable (transfer) and pinned (transfer-pinned): the smallest, a middle and the "
        "largest copy, raw seconds, beside the step on the same batch. A copy is no part of a step and stands in none of its "
        "laws, phases and figures."
    )
    columns = ("copy", "n", "bytes", "seconds", "GB/s", "of a step", "line through all copies")
    return Table("Copies from host to device", caption, columns, rows)
