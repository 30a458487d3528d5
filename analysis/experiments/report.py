"""Sections as files: figures, ``experiments.json``, and a page of their own where no sweep was measured beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from analysis import words
from analysis.experiments import Section, found, section
from analysis.experiments.found import Found
from analysis.figures import STYLE
from analysis.page import bundle
from analysis.pictures import Picture, picture
from backprop_files import SCHEMA_VERSION, write_json, write_whole


@dataclass(frozen=True)
class ToldSection:
    """A section with its figures drawn, and what it was made from."""

    section: Section
    pictures: Sequence[Picture]
    found: Found

    @property
    def settings(self) -> str:
        """In words; of a data file its name alone, without the folders of this machine."""
        return ", ".join(f"{key} {_plain(key, value)}" for key, value in self.found.settings.items() if value != [])


def write(paths: Sequence[Path], out: Path) -> list[ToldSection]:
    """Draw the experiments of run directories into ``out/figures`` and write ``out/experiments.json``; nothing where there
    are none.  Raises UserError for unusable files and where ``out`` cannot be written.
    """
    with mpl.rc_context(STYLE):
        told = [_told(one, out) for path in paths if path.is_dir() for one in found.in_directory(path)]
    if told:
        write_json(out / "experiments.json", document(told))
    return told


def _told(one: found.Found, out: Path) -> ToldSection:
    made = section(one)
    pictures = [picture(d.figure, d.key, d.title, d.caption, out / "figures") for d in made.figures]
    return ToldSection(made, pictures, one)


def _plain(key: str, value: Any) -> str:
    if key == "data":
        return Path(str(value)).name
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def document(told: Sequence[ToldSection]) -> dict[str, Any]:
    """What scripts may rely on: by experiment its claims with their words, and its tables."""
    return {
        "schema_version": SCHEMA_VERSION,
        "experiments": [
            {
                "experiment": one.section.name,
                "measured_at": one.found.measured_at,
                "lead": one.section.lead,
                "claims": [
                    {
                        "statement": claim.statement,
                        "source": claim.source,
                        "figure": f"figures/{claim.figure}.svg",
                        "verdicts": {name: vars(cell) for name, cell in claim.cells.items()},
                    }
                    for claim in one.section.claims
                ],
                "tables": [
                    {"caption": table.caption, "header": list(table.header), "rows": [list(row) for row in table.rows]}
                    for table in one.section.tables
                ],
                "failed": [dict(row) for row in one.found.failed],
            }
            for one in told
        ],
    }


def claims_table(told: Sequence[ToldSection]) -> list[dict[str, Any]]:
    """The rows of the table of claims."""
    return [
        {
            "claim": claim.statement,
            "source": claim.source,
            "experiment": claim.experiment,
            "figure": claim.figure,
            "cells": {name: vars(cell) for name, cell in claim.cells.items()},
        }
        for one in told
        for claim in one.section.claims
    ]


def write_page(told: Sequence[ToldSection], out: Path) -> Path:
    """Write report.html and report.md of experiments alone; returns the page's path."""
    rows = claims_table(told)
    context = {
        "title": told[0].section.title if len(told) == 1 else "What gradient descent costs, and what it buys",
        "claims": rows,
        "claimed_of": list(dict.fromkeys(name for row in rows for name in row["cells"])),
        "experiments": told,
        "machine": words.machine_rows(told[0].found.machine),
        "style": bundle.style(),
        "script": bundle.script("dom", "tables"),
    }
    templates = words.environment()
    write_whole(out / "report.md", templates.get_template("experiments_page.md").render(context))
    page = out / "report.html"
    write_whole(page, templates.get_template("experiments_page.html").render(context))
    return page
