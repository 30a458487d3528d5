"""The report: files in, a folder of files out.  The only place in this room with side effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import (
    accelerators,
    figures,
    fits,
    fleet,
    fleet_report,
    laws,
    load,
    machines,
    timeline,
    transfers,
    verdicts,
    words,
)
from analysis import cells as cell_table
from analysis.activations import calibrate
from analysis.claims import BAND, CLAIMS, HELDOUT_BAND
from analysis.costs import Cost
from analysis.experiments import report as experiments
from analysis.exponents import Exponent
from analysis.figures import Material
from analysis.fleet_report import ClassPart
from analysis.hypotheses import Law, declared
from analysis.load import Run
from analysis.page import write
from analysis.pictures import Picture, picture
from analysis.regimes import Regimes
from analysis.regimes import regimes as regimes_of
from analysis.verdicts import LawVerdict, Verdict
from backprop_files import TRANSFERS, write_json, write_whole


def write_report(paths: Sequence[Path], out: Path, laws_file: Path | None = None) -> Path:
    """Write report.html, report.md, cells.csv, fits.json and figures/ into ``out``; returns the page's path.

    A run of several machine classes gets a page over all of them, and for each class a report of its own in
    ``classes/<slug>/``.  Directories that hold experiments get a section for each, and ``experiments.json``; without a sweep
    these are all there is.  ``laws_file`` declares laws of the user's own.  Raises UserError for unusable files and for a
    directory that cannot be written.
    """
    hypotheses = declared(laws_file)
    told = experiments.write(paths, out)
    if told and not any(load.holds_cells(path) for path in paths):
        return experiments.write_page(told, out)
    run = load.load([path for path in paths if load.holds_cells(path)] if told else paths)
    told = experiments.beside(told, [machine.info for machine in run.machines] or [run.machine])
    rows = fleet.machine_rows(run) if fleet.several_machines(run) else []
    if not load.of_several_classes(run):
        _write_run(run, rows, told, hypotheses, out)
        return out / "report.html"
    parts = {}
    for known in run.classes:
        own = [row for row in rows if row.group == known.id]
        parts[known.id] = _write_run(load.of_class(run, known.id), own, (), hypotheses, fleet_report.folder(out, known))
    return fleet_report.write(run, parts, rows, told, hypotheses, out)


def _write_run(
    run: Run,
    rows: Sequence[fleet.MachineRow],
    told: Sequence[experiments.ToldSection],
    hypotheses: Sequence[Law],
    out: Path,
) -> ClassPart:
    """The report of one machine class; ``rows`` are its machines, none where the run was measured by one machine alone."""
    cells = cell_table.table(run.entries)
    material = _material(run.entries, cells, verdicts.judge(run.entries, cells, hypotheses))
    part = ClassPart(cells, fits.document(run, material), material)
    if rows:
        document = part.document | fleet_report.machines_document(run, rows)
        part = ClassPart(fleet_report.with_machines(run, cells), document, material)
        run = replace(run, notes=[*run.notes, *fleet.named(rows)])
    write_whole(
        out / "cells.csv", part.cells.drop(columns=["full_series", "series"]).to_csv(index=False, float_format="%.6g")
    )
    write_json(out / "fits.json", part.document)
    pictures, absent = _draw(material, out / "figures")
    context = _context(run, material, pictures, absent, told)
    if len(rows) > 1:
        context["tables"] = [fleet_report.machines_table(run, rows), *context["tables"]]
        context["pictures"] = [*pictures, fleet_report.machines_picture(run, rows, out / "figures")]
    templates = words.environment()
    write_whole(out / "report.md", templates.get_template("report.md").render(context))
    write.write_report_page(out / "report.html", run, material, context)
    return part


def _material(entries: pd.DataFrame, cells: pd.DataFrame, judged: Sequence[Verdict]) -> Material:
    """Figures and tables show the usual optimizer; others have a table of their own, and their claims."""
    copied, cells = transfers.copies(cells), cells[~cells["phase"].isin(TRANSFERS)]
    entries = entries[~entries["phase"].isin(TRANSFERS)]
    own = load.usual_optimizer(entries)
    usual = load.usual(entries)
    mine = [verdict for verdict in judged if verdict.optimizer == own]
    return Material(
        cells[cells["optimizer"] == own].reset_index(drop=True),
        mine,
        timeline.rounds(usual),
        timeline.states(usual),
        _regimes(usual, mine),
        [verdict for verdict in judged if verdict.optimizer != own],
        cells[cells["optimizer"] != own].reset_index(drop=True),
        copied,
    )


def _regimes(entries: pd.DataFrame, judged: Sequence[Verdict]) -> dict[str, Regimes]:
    """Regimes of every series' steps, by full name."""
    found = {}
    for verdict in judged:
        if verdict.phase != "step":
            continue
        key = [verdict.impl, verdict.device, verdict.dtype, "step", verdict.optimizer]
        rows = entries[(entries[load.GROUP] == key).all(axis=1)]
        regimes = regimes_of(rows, verdict.exponents["n"])
        if regimes:
            found[figures.name_of(verdict)] = regimes
    return found


# --- figures --------------------------------------------------------------------------------------------------------


def _draw(material: Material, folder: Path) -> tuple[list[Picture], list[str]]:
    """Draw every figure the run has cells for; titles of the others come second."""
    pictures, absent = [], []
    for drawing in figures.DRAWINGS:
        figure = drawing.draw(material)
        if figure is None:
            if drawing.key != "devices":  # on the CPU alone nobody asks for it
                absent.append(drawing.title)
            continue
        pictures.append(picture(figure, drawing.key, drawing.title, drawing.caption(material), folder))
    return pictures, absent


# --- the page -------------------------------------------------------------------------------------------------------


def _context(
    run: Run, material: Material, pictures: list[Picture], absent: list[str], told: Sequence[experiments.ToldSection]
) -> dict[str, Any]:
    steps = [v for v in material.verdicts if v.phase == "step"]
    cells = material.cells
    return {
        "run": run,
        "opening": opening([(_series(material, v), v) for v in steps]),
        "steps": [_opening_row(material, v) for v in steps],
        "series": [short for _, short in material.names()],
        "claims": _claims(run, material, told),
        "tables": accelerators.tables(run.entries, material),
        "experiments": told,
        "phases": [(_series(material, v), v) for v in material.verdicts if v.phase not in ("step", "memory")],
        "laws": [(_series(material, v), v, judged) for v in steps for judged in _winner_first(v)],
        "law_statements": {judged.fit.law.name: judged.fit.law.statement for v in steps for judged in v.laws},
        "costs": costs_table(material),
        "regimes": [(short, material.regimes[full]) for full, short in material.names() if full in material.regimes],
        "memory": [(_series(material, v), v, v.choice.winner) for v in material.verdicts if v.phase == "memory"],
        "functions": functions_table(material),
        "precision": precision_table(cells),
        "each": [row for _, row in cells[cells["phase"] == "step"].iterrows()],
        "ceilings": cell_table.ceilings(run.entries).reset_index().to_dict("records"),
        "pictures": pictures,
        "absent": absent,
        "left_out": load.by_reason(run.left_out),
        "failed": load.by_reason(run.failed),
        "machine": words.machine_rows(run.machine),
        "other_machines": [words.machine_rows(machine) for machine in run.other_machines],
        "settings": words.settings_rows(run.settings),
        "optimizers": optimizers_table(material),
        "cells": len(cells) + len(material.other_cells),
        "typical": float(cells["precision"].median()),
        "unsettled": int((~cells["settled"].astype(bool)).sum()),
        "disturbed": int(run.entries["disturbed"].sum()),
        "measurements": len(run.entries),
        "dropped": int(cells["dropped_rounds"].sum()),
        "band": BAND,
        "heldout_band": HELDOUT_BAND,
    }


def _claims(run: Run, material: Material, told: Sequence[experiments.ToldSection]) -> list[dict[str, Any]]:
    """Tables of claims: what the sweep tells, then what each experiment does."""
    rows = claims_table(material)
    of_sweep = {
        "title": "Of the sweep",
        "where": machines.where(run.machine, run.measured_at),
        "of_sweep": True,
        "columns": [short for _, short in material.names()],
        "rows": rows,
    }
    return [*([of_sweep] if rows else []), *experiments.claims(told)]


def _winner_first(verdict: Verdict) -> list[LawVerdict]:
    return sorted(verdict.laws, key=lambda judged: judged.fit is not verdict.choice.winner)


def claims_table(material: Material) -> list[dict[str, Any]]:
    """Every sentence about cost: the claim, its experiment, and by series the word and the evidence it rests on; then the
    rival laws of a step.
    """
    rows = []
    for claim in CLAIMS.values():
        found = {_series(material, v): v for v in material.verdicts if v.phase == claim.phase}
        if found:
            cells = {name: {"word": v.word, "evidence": evidence(v), "why": v.reason} for name, v in found.items()}
            rows.append(
                {"claim": claim.statement, "source": claim.source, "experiment": claim.experiment, "cells": cells}
            )
    rows += _claims_of_others(material)
    steps = [v for v in material.verdicts if v.phase == "step"]
    for name in dict.fromkeys(judged.fit.law.name for v in steps for judged in v.laws):
        cells = {
            _series(material, v): {
                "word": judged.word,
                "evidence": f"held-out cells err by {words.percent(judged.fit.heldout_median)}",
                "why": judged.reason,
            }
            for v in steps
            for judged in v.laws
            if judged.fit.law.name == name
        }
        if name != CLAIMS["step"].law:
            experiment = "larger cells than fitted; exponents"
            rows.append(
                {"claim": f"a step costs as “{name}”", "source": "rival", "experiment": experiment, "cells": cells}
            )
    return rows


def _claims_of_others(material: Material) -> list[dict[str, Any]]:
    """The update's claim by every optimizer beside the usual one."""
    rows: dict[str, dict[str, Any]] = {}
    for verdict in material.others:
        claim = verdict.claim
        row = {"source": claim.source, "experiment": claim.experiment, "cells": {}}
        row["claim"] = claim.statement.replace("the update", f"the update by {verdict.optimizer}")
        told = {"word": verdict.word, "evidence": evidence(verdict), "why": verdict.reason}
        rows.setdefault(verdict.optimizer, row)["cells"][_series(material, verdict)] = told
    return list(rows.values())


def optimizers_table(material: Material) -> list[dict[str, Any]]:
    """What an update costs for each parameter, and a step at the centre, by optimizer; nothing where there is only one.

    ``updates`` has by series the cost of a parameter; ``steps`` the step over that of the usual optimizer, of one cell.
    """
    if material.other_cells.empty:
        return []
    rows: dict[str, dict[str, Any]] = {}
    for verdict in (*material.verdicts, *material.others):
        for cost in fits.costs_of(material, verdict) if verdict.phase == "update" else ():
            if cost.unit == "parameter":
                row = rows.setdefault(verdict.optimizer, {"optimizer": verdict.optimizer, "updates": {}, "steps": {}})
                row["updates"][_series(material, verdict)] = cost
    where = ["full_series", "layers", "activation", "loss", "n"]
    usual = material.steps.set_index(where)["time_s"]
    for _, cell in material.other_cells[material.other_cells["phase"] == "step"].iterrows():
        key, name = tuple(cell[where]), str(cell["optimizer"])
        if key in usual.index:
            row = rows.setdefault(name, {"optimizer": name, "updates": {}, "steps": {}})
            row["steps"][str(cell["series"])] = float(cell["time_s"] / usual[key])
    return list(rows.values())


def evidence(verdict: Verdict) -> str:
    """The exponents a verdict rests on: those that refute it, or that leave it open, or all."""
    claimed = verdict.claimed
    words = {name: verdicts.equivalent(verdict.exponents[name], claimed[name]) for name in "nmp" if name in claimed}
    deciding = [name for name, word in words.items() if word == verdict.word] or list(words)
    return "; ".join(_short_exponent(name, verdict.exponents[name], claimed[name]) for name in deciding)


def _short_exponent(name: str, exponent: Exponent, claimed: float) -> str:
    told = f", claimed {claimed:.2g}"
    if exponent.value is None:
        return f"{name} not estimated{told}"
    interval = "" if exponent.ci_low is None else f" [{exponent.ci_low:.2f}, {exponent.ci_high:.2f}]"
    return f"{name}^{exponent.value:.2f}{interval}{told}"


def costs_table(material: Material) -> list[dict[str, Any]]:
    """What things cost by the winning law of each series' step: one row a unit, one column a series."""
    by_unit: dict[str, dict[str, Cost]] = {}
    for verdict in material.verdicts:
        if verdict.phase == "step":
            for cost in fits.costs_of(material, verdict):
                by_unit.setdefault(cost.unit, {})[_series(material, verdict)] = cost
    return [{"unit": unit, "costs": found} for unit, found in by_unit.items()]


def _series(material: Material, verdict: Verdict) -> str:
    return str(material.rows_of(verdict)["series"].iloc[0])


def opening(steps: Sequence[tuple[str, Verdict]]) -> str:
    """The first paragraph: what was found of whole steps, by the names of their series, in plain words."""
    by_word = {word: [n for n, v in steps if v.word == word] for word in ("supported", "refuted", "inconclusive")}
    told = [
        f"growth in proportion to n·m·p is {word} for {_list(names)}" for word, names in by_word.items() if names
    ] or ["no whole step was measured"]
    parts = ["Over the range measured, " + "; ".join(told) + "."]
    won: dict[str, list[str]] = {}
    for name, verdict in steps:
        if verdict.choice.winner and verdict.choice.winner.law.name != verdict.claim.law:
            won.setdefault(verdict.choice.winner.law.name, []).append(name)
    if won:
        told = [f"“{law}” for {_list(names)}" for law, names in sorted(won.items(), key=lambda item: -len(item[1]))]
        parts.append(f"Cells that were not fitted are predicted better than by n·m·p by the law {_list(told)}.")
    loose = [v for _, v in steps if v.word == "refuted" and "fails too" not in v.reason]
    if loose:
        parts.append(
            "O(·) is an upper bound: where cost grows more slowly than claimed the bound is not violated, it is only "
            "not the law by which cost grows. What is tested here is the law."
        )
    return " ".join(parts)


def _list(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _opening_row(material: Material, verdict: Verdict) -> dict[str, Any]:
    winner = verdict.choice.winner
    rival = next((fit for fit in verdict.choice.fits if fit.law.name == verdict.claim.law), None)
    return {
        "name": _series(material, verdict),
        "verdict": verdict,
        "winner": winner,
        "rival": rival,
        "error": _errors(winner),
        "rival_error": _errors(rival),
    }


def _errors(fit: laws.LawFit | None) -> str:
    """Median errors on cells that the law had not seen: of the sizes fitted, and larger ones."""
    if fit is None:
        return "–"
    same_sizes = words.percent(fit.crossvalidated_median)
    return same_sizes if not fit.heldout_cells else f"{same_sizes} / {words.percent(fit.heldout_median)}"


def functions_table(material: Material) -> list[dict[str, Any]]:
    """Real activation functions at one point: p by count, and by series what an element costs in multiply-adds."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for verdict in material.verdicts:
        if verdict.phase != "step":
            continue
        steps = material.steps[material.steps["full_series"] == figures.name_of(verdict)]
        multiply_add = next(
            (c.seconds.value for c in fits.costs_of(material, verdict) if c.unit == "multiply-add"), None
        )
        for found in calibrate(steps, multiply_add):
            row = rows.setdefault(
                (found.activation, found.p), {"activation": found.activation, "p": found.p, "found": {}}
            )
            row["found"][_series(material, verdict)] = found
    return sorted(rows.values(), key=lambda row: int(row["p"]))


def precision_table(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """How narrow the intervals became, by series."""
    return [
        {
            "name": name,
            "cells": len(rows),
            "passes": int(rows["passes"].max()),
            "raw_cv": rows["raw_between_cv"].median(),
            "cv": rows["between_cv"].median(),
            "median": rows["precision"].median(),
            "p90": rows["precision"].quantile(0.9),
            "within": float((rows["precision"] <= 0.03).mean()),
        }
        for name, rows in cells.groupby("series")
    ]
