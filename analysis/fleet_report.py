"""The report of several machines: their table and figure, and the page over several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import fits, fleet, joint, machines, words
from analysis.accelerators import Table
from analysis.experiments.report import ToldSection
from analysis.figures import COLOURS, MARKERS, STYLE, Material
from analysis.fleet import MachineRow
from analysis.hypotheses import Law
from analysis.joint import Joint
from analysis.load import Run, by_reason
from analysis.machines import MachineClass, cut
from analysis.normalise import IDENTITY, kept
from analysis.odd_machines import THRESHOLD
from analysis.page import write as page
from analysis.pictures import Picture, picture
from analysis.statistics import Interval
from analysis.verdicts import Verdict
from backprop_files import write_json, write_whole

#: A figure has room for so many machines; a table of more is folded.
MOST_DRAWN, LONG = 40, 20
#: Names of machines in a cell of ``cells.csv``.
MOST_NAMED = 8
_PANELS_A_ROW = 3
_BAND = words.percent(THRESHOLD)


@dataclass(frozen=True, eq=False)
class ClassPart:
    """What a class's own report holds: its cells, its ``fits.json`` and what its figures were drawn from."""

    cells: pd.DataFrame
    document: dict[str, Any]
    material: Material

    @property
    def steps(self) -> list[Verdict]:
        """Verdicts on whole steps."""
        return [verdict for verdict in self.material.verdicts if verdict.phase == "step"]


def folder(out: Path, known: MachineClass) -> Path:
    """Where a class's own report lies; a slug is letters, digits and dashes, whatever the files say."""
    return out / "classes" / known.slug


# --- machines of a class --------------------------------------------------------------------------------------------


def with_machines(run: Run, cells: pd.DataFrame) -> pd.DataFrame:
    """The cell table with ``machine_class`` and ``machines``, the names of those that measured a cell."""
    slugs = {known.id: known.slug for known in run.classes}
    counted = kept(run.entries)
    names = counted.groupby(IDENTITY)["machine"].agg(lambda found: _few(sorted(set(found))))
    keys = pd.MultiIndex.from_frame(cells[IDENTITY])
    own = counted.groupby(IDENTITY)["machine_class"].first().map(slugs)
    return cells.assign(machine_class=own.reindex(keys).to_numpy(), machines=names.reindex(keys).to_numpy())


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(cut, names[:MOST_NAMED])) + more


def machines_document(run: Run, rows: Sequence[MachineRow]) -> dict[str, Any]:
    """What is added to ``fits.json`` where several machines measured."""
    slugs = {known.id: known.slug for known in run.classes}
    return {
        "machine_classes": [
            {"slug": known.slug, "id": known.id, "name": known.name, "facts": dict(known.facts)}
            for known in run.classes
        ],
        "machines": [_machine_object(row, slugs[row.group]) for row in rows],
    }


def _machine_object(row: MachineRow, slug: str) -> dict[str, Any]:
    return {
        "machine": row.machine,
        "machine_class": slug,
        "device": row.device,
        "passes": row.passes,
        "cells": row.cells,
        "ceiling_flops": _number(row.ceiling_flops),
        "bandwidth_bytes_per_s": _number(row.bandwidth_bytes_per_s),
        "reference_s": _number(row.reference_s),
        "normalised_ratio": fits.interval_object(row.normalised.factor),
        "overall_ratio": fits.interval_object(row.overall.factor),
        "word": row.word,
        "sentence": row.sentence,
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def machines_table(run: Run, rows: Sequence[MachineRow]) -> Table:
    """One row a machine and device."""
    classes = {known.id: known.short for known in run.classes}
    several = len(classes) > 1
    devices = len({row.device for row in rows}) > 1
    head = (*(("class",) if several else ()), *(("device",) if devices else ()))
    body = [
        (
            cut(row.machine, 32),
            *((classes[row.group],) if several else ()),
            *((row.device,) if devices else ()),
            str(row.passes),
            str(row.cells),
            words.si(row.ceiling_flops / 1e9),
            words.si(row.bandwidth_bytes_per_s / 1e9),
            words.seconds(row.reference_s),
            words.interval(row.overall.factor, _two),
            words.interval(row.normalised.factor, _two),
            _word(row),
        )
        for row in rows
    ]
    columns = (
        "machine", *head, "passes", "cells", "ceiling, GFLOP/s", "bandwidth, GB/s", "reference", "seconds / others'",
        "normalised / others'", "word",
    )  # fmt: skip
    return Table("Machines", _machines_caption(), columns, body, folded=len(body) > LONG)


def _two(value: float) -> str:
    return f"{value:.2f}"


def _word(row: MachineRow) -> str:
    reason = row.normalised.why if row.word in ("cannot tell", "alone") else ""
    return f"{row.word}: {reason}" if reason else row.word


def _machines_caption() -> str:
    return (
        "Every machine against the others of its class, over the cells they have in common. Passes count one for each "
        "implementation. Seconds are those of quiet rounds; normalised time is in units of the machine's own reference, the "
        "quiet product kernel, so that another clock alone does not show in it. Intervals rest on how passes differ and hold "
        f"for all machines together at 95 %. A machine disagrees where the whole interval lies beyond ±{_BAND}, and "
        "agrees where all of it lies within; one that disagrees is not among the others any more."
    )


def machines_picture(run: Run, rows: Sequence[MachineRow], figures: Path) -> Picture:
    """The figure of every machine against its class."""
    with mpl.rc_context(STYLE):
        figure, drawn = _machines_figure(run, rows)
    left = sum(np.isfinite(row.overall.factor.value) for row in rows) - drawn
    caption = (
        "Every machine's time over that of the others of its class: filled markers in units of its own reference, hollow ones "
        "in seconds; intervals hold for all machines together at 95 %, a marker without one has too few passes. Inside the "
        f"grey band, ±{_BAND}, a machine agrees with its class; a hollow marker alone outside it is another clock."
        + (f" The {drawn} furthest off are drawn, {left} are left out." if left else "")
    )
    return picture(figure, "machines", "Machines against their class", caption, figures)


def _machines_figure(run: Run, rows: Sequence[MachineRow]) -> tuple[Figure, int]:
    compared = [row for row in rows if np.isfinite(row.overall.factor.value)]
    furthest = sorted(compared, key=lambda row: -_off(row))[:MOST_DRAWN]
    shown = [row for row in compared if row in furthest]
    figure = Figure(figsize=(10, 1.5 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(1 / (1 + THRESHOLD), 1 + THRESHOLD, color="#dddddd", zorder=0)
    axes.axvline(1, color="#888888", linewidth=1)
    classes = [known.id for known in run.classes]
    for at, row in enumerate(shown):
        colour = COLOURS[classes.index(row.group) % len(COLOURS)]
        _mark(axes, row.normalised.factor, at - 0.14, colour, filled=True)
        _mark(axes, row.overall.factor, at + 0.14, colour, filled=False)
    axes.set(xlabel="time over the others of the class", ylim=(len(shown) - 0.5, -0.5), xlim=_limits(shown))
    devices = len({row.device for row in rows}) > 1
    labels = [cut(row.machine, 28) + (f" {row.device}" if devices else "") for row in shown]
    axes.set_yticks(range(len(shown)), [label.replace("$", r"\$") for label in labels])
    handles = [
        Line2D(
            [], [], color=COLOURS[i % len(COLOURS)], marker="o", linestyle="-", label=known.short.replace("$", r"\$")
        )
        for i, known in enumerate(run.classes)
        if any(row.group == known.id for row in shown)
    ]
    handles += [
        Line2D([], [], color="#555555", marker="o", linestyle="none", label="normalised time"),
        Line2D([], [], color="#555555", marker="o", linestyle="none", markerfacecolor="white", label="seconds"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure, len(shown)


def _off(row: MachineRow) -> float:
    found = [abs(np.log(ratio.factor.value)) for ratio in (row.normalised, row.overall)]
    return float(np.nanmax(found))


def _mark(axes: Any, found: Interval, at: float, colour: str, filled: bool) -> None:
    if not np.isfinite(found.value):
        return
    if np.isfinite(found.low):
        axes.plot([found.low, found.high], [at, at], color=colour, linewidth=1.6 if filled else 0.9)
    axes.plot([found.value], [at], "o", color=colour, markerfacecolor=colour if filled else "white")


def _limits(rows: Sequence[MachineRow]) -> tuple[float, float]:
    """Room for every estimate and for intervals that say something."""
    values = [row.normalised.factor for row in rows] + [row.overall.factor for row in rows]
    ends = [end for found in values for end in (found.value, found.low, found.high) if np.isfinite(end)]
    low, high = (max(min([*ends, 0.9]), 0.5), min(max([*ends, 1.1]), 2.0))
    points = [found.value for found in values if np.isfinite(found.value)]
    return min(low, *points) * 0.98, max(high, *points) * 1.02


# --- several classes ------------------------------------------------------------------------------------------------


def write(
    run: Run,
    parts: Mapping[str, ClassPart],
    rows: Sequence[MachineRow],
    told: Sequence[ToldSection],
    hypotheses: Sequence[Law],
    out: Path,
) -> Path:
    """The page over all classes with its files, beside the classes' own; returns the page's path."""
    found = joint.joint(run.entries, hypotheses)
    cells = pd.concat([parts[known.id].cells for known in run.classes], ignore_index=True)
    write_whole(
        out / "cells.csv", cells.drop(columns=["full_series", "series"]).to_csv(index=False, float_format="%.6g")
    )
    write_json(out / "fits.json", document(run, parts, rows, found))
    pictures = []
    if any(np.isfinite(row.overall.factor.value) for row in rows):
        pictures.append(machines_picture(run, rows, out / "figures"))
    if any(len(error.ratios) for one in found for error in one.errors):
        pictures.append(_joint_picture(run, found, out / "figures"))
    context = _context(run, parts, rows, found, pictures, told)
    context["page"] = page.parts_of_tables([*pictures, *(one for section in told for one in section.pictures)])
    templates = words.environment()
    write_whole(out / "report.md", templates.get_template("fleet.md").render(context))
    write_whole(out / "report.html", templates.get_template("fleet.html").render(context))
    return out / "report.html"


def document(
    run: Run, parts: Mapping[str, ClassPart], rows: Sequence[MachineRow], found: Sequence[Joint]
) -> dict[str, Any]:
    """``fits.json`` over all classes: every class's fits with its name, then machines, and the joint laws."""
    first = parts[run.classes[0].id].document
    by_class = [
        fit | {"machine_class": known.slug} for known in run.classes for fit in parts[known.id].document["fits"]
    ]
    slugs = {known.id: known.slug for known in run.classes}
    return (
        {"schema_version": first["schema_version"], "run": first["run"], "fits": by_class}
        | machines_document(run, rows)
        | {"joint_unit": joint.UNIT, "joint": [_joint_object(one, slugs) for one in found]}
    )


def _joint_object(found: Joint, slugs: Mapping[str, str]) -> dict[str, Any]:
    verdict, winner = found.verdict, found.verdict.choice.winner
    return {
        "impl": verdict.impl,
        "device": verdict.device,
        "dtype": verdict.dtype,
        "phase": verdict.phase,
        "machines": found.machines,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "exponents": {name: fits.exponent_object(exponent) for name, exponent in verdict.exponents.items()},
        "winning_law": winner.law.name if winner else None,
        "costs": [{"unit": cost.unit, "references": fits.interval_object(cost.seconds)} for cost in found.costs],
        "classes": [
            {
                "machine_class": slugs[error.group],
                "cells": error.cells,
                "joint_median": _number(error.joint_median),
                "left_out_law": error.left_out_law or None,
                "left_out_median": _number(error.left_out_median),
                "left_out_p90": _number(error.left_out_p90),
                "slower": _number(error.slower),
                "word": error.word,
            }
            for error in found.errors
        ],
    }


def _context(
    run: Run,
    parts: Mapping[str, ClassPart],
    rows: Sequence[MachineRow],
    found: Sequence[Joint],
    pictures: Sequence[Picture],
    told: Sequence[ToldSection],
) -> dict[str, Any]:
    return {
        "run": run,
        "opening": opening(run, parts, rows, found),
        "differences": machines.differences(run.classes),
        "named": fleet.named(rows),
        "classes": [_class_row(run, known, parts[known.id], rows) for known in run.classes],
        "verdicts": _side_by_side(run, parts),
        "joint": [_joint_row(one) for one in found],
        "predicted": [(one, error, _short(run, error.group)) for one in found for error in one.errors],
        "unit": joint.UNIT,
        "failed": by_reason(run.failed),
        "left_out": by_reason(run.left_out),
        "settings": words.settings_rows(run.settings),
        "tables": [machines_table(run, rows), *([costs] if (costs := _costs_table(found)).rows else [])],
        "pictures": pictures,
        "experiments": told,
        "enough": joint.ENOUGH,
    }


def _short(run: Run, group: str) -> str:
    return next(known.short for known in run.classes if known.id == group)


def _class_row(run: Run, known: MachineClass, part: ClassPart, rows: Sequence[MachineRow]) -> dict[str, Any]:
    own = [row for row in rows if row.group == known.id]
    return {
        "known": known,
        "shown": cut(known.name, 120),
        "machines": len({row.machine for row in own}),
        "passes": sum(row.passes for row in own),
        "cells": len(part.cells),
        "ceiling": _range([row.ceiling_flops / 1e9 for row in own], words.si),
        "bandwidth": _range([row.bandwidth_bytes_per_s / 1e9 for row in own], words.si),
        "reference": _range([row.reference_s for row in own], words.seconds),
        "named": sum(bool(row.sentence) for row in own),
    }


def _range(values: Sequence[float], form: Any) -> str:
    """Lowest to highest, or one where they read alike."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "–"
    low, high = form(min(known)), form(max(known))
    return str(low) if low == high else f"{low} to {high}"


def _name(verdict: Verdict) -> str:
    return f"{verdict.impl} {verdict.device} {verdict.dtype}"


def _side_by_side(run: Run, parts: Mapping[str, ClassPart]) -> list[dict[str, Any]]:
    """Of every series the word, exponents and winning law on each class; None where the class did not measure it."""
    by_class = {known.id: {_name(v): v for v in parts[known.id].steps} for known in run.classes}
    names = sorted({name for found in by_class.values() for name in found})
    return [{"name": name, "verdicts": [by_class[known.id].get(name) for known in run.classes]} for name in names]


def _joint_row(found: Joint) -> dict[str, Any]:
    winner = found.verdict.choice.winner
    return {
        "name": _name(found.verdict),
        "verdict": found.verdict,
        "machines": found.machines,
        "law": winner.law.name if winner else "–",
        "error": words.percent(winner.crossvalidated_median) if winner else "–",
    }


def _costs_table(found: Sequence[Joint]) -> Table:
    """Coefficients of the joint laws by unit and series."""
    names = [_name(one.verdict) for one in found]
    by_name = {_name(one.verdict): {cost.unit: cost.seconds for cost in one.costs} for one in found}
    units = list(dict.fromkeys(unit for costs in by_name.values() for unit in costs))
    rows = [(unit, *(_millionths(by_name[name].get(unit)) for name in names)) for unit in units]
    caption = (
        f"Coefficients of the joint laws, in millionths of a reference ({joint.UNIT}), with 95 % "
        f"intervals that rest on how machines and cells differ; none with fewer than {joint.ENOUGH} machines."
    )
    return Table("What things cost, whatever the machine", caption, ("one", *names), rows)


def _millionths(found: Interval | None) -> str:
    return "–" if found is None else words.interval(found, lambda value: words.significant(1e6 * value, 3))


def opening(run: Run, parts: Mapping[str, ClassPart], rows: Sequence[MachineRow], found: Sequence[Joint]) -> str:
    """The first paragraph: verdicts of the classes, the joint law, and who disagrees."""
    count = len({(row.group, row.machine) for row in rows})
    told = [f"{count} machines of {len(run.classes)} classes measured this sweep."]
    told += [_alike(run, parts), _foretold(found), _odd(rows)]
    return " ".join(part for part in told if part)


def _alike(run: Run, parts: Mapping[str, ClassPart]) -> str:
    by_word: dict[str, list[str]] = {}
    unlike = []
    for row in _side_by_side(run, parts):
        found = {known.short: v.word for known, v in zip(run.classes, row["verdicts"], strict=True) if v is not None}
        if len(set(found.values())) == 1:
            where = "on every class" if len(found) == len(run.classes) else f"on {_listed(list(found))} alone"
            by_word.setdefault(f"{next(iter(found.values()))} {where}", []).append(row["name"])
        else:
            unlike.append(f"{row['name']} ({', '.join(f'{word} on {short}' for short, word in found.items())})")
    parts_told = [f"{word} for {_listed(names)}" for word, names in by_word.items()]
    parts_told += [f"not the same on all classes for {_listed(unlike)}"] if unlike else []
    return f"Growth in proportion to n·m·p is {'; '.join(parts_told)}." if parts_told else ""


def _foretold(found: Sequence[Joint]) -> str:
    """How well a class is predicted from the others."""
    errors = [error for one in found for error in one.errors if np.isfinite(error.left_out_median)]
    if not errors:
        return "No implementation was measured on two classes with a reference kernel, so there is no joint law."
    good = [error for error in errors if error.word == "supported"]
    bad = [error for error in errors if error.word == "refuted"]
    worst = words.percent(max(error.left_out_median for error in errors))
    best = words.percent(min(error.left_out_median for error in errors))
    span = best if best == worst else f"{best} to {worst}"
    told = (
        "In units of each machine's own reference, the law of the other classes predicts a class with a median error of"
    )
    told = f"{told} {span}"
    if not bad and len(good) == len(errors):
        return f"{told}: one law holds for all of them."
    if bad:
        return f"{told}: {len(bad)} of {len(errors)} such predictions fail, so one law does not hold for all classes."
    return f"{told}: whether one law holds for all of them is not decided."


def _odd(rows: Sequence[MachineRow]) -> str:
    named = [row for row in rows if row.sentence]
    unsure = [row for row in rows if row.word == "cannot tell"]
    if named:
        stand = "machines stand out from their classes" if len(named) > 1 else "machine stands out from its class"
        told = f"{len(named)} {stand}, named below."
    else:
        told = "No machine stands out from its class."
    return told + (f" Of {len(unsure)} it cannot be told." if unsure else "")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _joint_picture(run: Run, found: Sequence[Joint], figures: Path) -> Picture:
    shown = [one for one in found if any(len(error.ratios) for error in one.errors)]
    with mpl.rc_context(STYLE):
        figure = _joint_figure(run, shown)
    caption = (
        "Predicted over measured time of every class's cells by the law that the other classes alone make, against the time "
        "in units of the machine's own reference. On the line the law is right; the grey band is ±20 %. A class that lies "
        "above or below as a whole is faster or slower than its reference promises."
    )
    return picture(figure, "joint", "Each class predicted from the others", caption, figures)


def _ratio_ticks(most: float) -> tuple[list[float], list[str]]:
    if most < 2:
        return [0.67, 0.8, 1, 1.25, 1.5], ["0.67", "0.8", "1", "1.25", "1.5"]
    return [0.25, 0.5, 1, 2, 4], ["≤ ¼", "½", "1", "2", "≥ 4"]


def _joint_figure(run: Run, found: Sequence[Joint]) -> Figure:
    across = min(len(found), _PANELS_A_ROW)
    down = (len(found) + _PANELS_A_ROW - 1) // _PANELS_A_ROW
    figure = Figure(figsize=(10, 1.0 + 3.0 * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    classes = [known.id for known in run.classes]
    off = max(float(np.abs(np.log(e.ratios)).max()) for one in found for e in one.errors if len(e.ratios))
    most = 1.5 if off < np.log(1.5) else 4.0
    for axes, one in zip(panels.flat, found, strict=False):
        axes.axhspan(1 / 1.2, 1.2, color="#e8e8e8", zorder=0)
        axes.axhline(1, color="#888888", linewidth=1)
        for error in one.errors:
            i = classes.index(error.group)
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            axes.plot(error.times, np.clip(error.ratios, 1 / most, most), linestyle="none", alpha=0.8, **style)
        axes.set(xscale="log", yscale="log", title=cut(_name(one.verdict), 32), xlabel="measured, in references")
        axes.set_yticks(*_ratio_ticks(most))
        axes.set_ylim(1 / most / 1.05, most * 1.05)
        axes.minorticks_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("predicted / measured")
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], linestyle="none",
               label=known.short.replace("$", r"\$"))
        for i, known in enumerate(run.classes)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
