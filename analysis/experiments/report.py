"""Sections as files: figures, ``experiments.json``, and a page of their own where no sweep was measured beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

from analysis import machines, words
from analysis.experiments import Section, found, section
from analysis.experiments.found import Found
from analysis.figures import STYLE
from analysis.page import write as page
from analysis.pictures import Picture, picture
from backprop_files import SCHEMA_VERSION, write_json, write_whole


@dataclass(frozen=True)
class ToldSection:
    """A section with its figures drawn, and what it was made from; ``elsewhere`` is a sentence where the sweep beside it was
    measured on another machine or with other libraries.
    """

    section: Section
    pictures: Sequence[Picture]
    found: Found
    elsewhere: str = ""

    @property
    def where(self) -> str:
        """When and on what it was measured."""
        return machines.where(self.found.machine, self.found.measured_at)

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


def beside(told: Sequence[ToldSection], sweep: Sequence[Mapping[str, Any]]) -> list[ToldSection]:
    """Sections as they stand beside a sweep, by its machines' ``machine_info``, and what differs from all of them."""
    return [replace(one, elsewhere=_elsewhere(one.found.machine, sweep)) for one in told]


def _elsewhere(own: Mapping[str, Any], sweep: Sequence[Mapping[str, Any]]) -> str:
    """What differs from the sweep, which comes first in brackets; nothing where that is nothing."""
    first, *others = machines.grouped([dict(info) for info in (own, *sweep)])
    said = []
    if others and first not in others:
        there = machines.machine_name(machines.machine_class(dict(sweep[0])))
        said.append(f"on another machine than the sweep, which ran on {machines.cut(there, 120)}")
    libraries = _libraries(own)
    unlike = [
        f"{name} {libraries[name]}, not {version}"
        for info in sweep[:1]
        for name, version in _libraries(info).items()
        if name in libraries and libraries[name] != version
    ]
    said += [f"with other libraries than the sweep: {machines.cut(', '.join(unlike), 200)}"] if unlike else []
    return (
        f"Measured {', and '.join(said)}. Times here and there are not to be held against each other." if said else ""
    )


def _libraries(info: Mapping[str, Any]) -> dict[str, str]:
    found = info.get("libraries")
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}


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


def claims(told: Sequence[ToldSection]) -> list[dict[str, Any]]:
    """A table of claims for each experiment that judges any: its columns are those that it measured."""
    return [
        {
            "title": one.section.title,
            "where": one.where,
            "of_sweep": False,
            "columns": list(dict.fromkeys(name for claim in one.section.claims for name in claim.cells)),
            "rows": [
                {
                    "claim": claim.statement,
                    "source": claim.source,
                    "experiment": claim.experiment,
                    "figure": claim.figure,
                    "cells": {name: vars(cell) for name, cell in claim.cells.items()},
                }
                for claim in one.section.claims
            ],
        }
        for one in told
        if one.section.claims
    ]


def write_page(told: Sequence[ToldSection], out: Path) -> Path:
    """Write report.html and report.md of experiments alone; returns the page's path."""
    context = {
        "title": told[0].section.title if len(told) == 1 else "What gradient descent costs, and what it buys",
        "claims": claims(told),
        "experiments": told,
        "machine": words.machine_rows(told[0].found.machine),
        "page": page.parts_of_tables([one for of in told for one in of.pictures]),
    }
    templates = words.environment()
    write_whole(out / "report.md", templates.get_template("experiments_page.md").render(context))
    write_whole(out / "report.html", templates.get_template("experiments_page.html").render(context))
    return out / "report.html"
