"""Writes the page of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from analysis import words
from analysis.figures import Material
from analysis.load import Run
from analysis.page import bundle, data, fastest
from analysis.pictures import Picture
from backprop_files import write_whole

#: Our scripts in the order they build on each other.
READING = ("format", "dom", "state", "chart", "cells", "law")
REPORT = (*READING, "explore", "ask", "calculator", "figures", "report")
#: Of a page of tables and figures alone.
TABLES = ("format", "dom", "chart", "figures", "tables")
#: Figures that the charts of the page stand for; they are files beside it.
DRAWN_IN_PAGE = ("time", "memory", "ceiling", "decisive")
#: Bytes that the other figures may take of a page; those beyond stay files beside it.
MOST_PICTURES_BYTES = 2_000_000


def write_report_page(page: Path, run: Run, material: Material, context: Mapping[str, Any]) -> None:
    """Write ``report.html``.  ``context`` is what its tables show; charts, questions and calculator read the data."""
    pictured = [*context["pictures"], *(one for told in context["experiments"] for one in told.pictures)]
    found = {**data.document(run, material), "charts": charts(pictured)}
    pictures, beside = within([one for one in context["pictures"] if one.key not in DRAWN_IN_PAGE])
    template = words.environment().get_template("report.html")
    shown = {"pictures": pictures, "beside": beside, "data": found, "page": parts(found, REPORT)}
    shown["fastest"] = fastest.summary(material.steps)
    write_whole(page, template.render({**context, **shown}))


def within(pictures: Sequence[Picture], most: int = MOST_PICTURES_BYTES) -> tuple[list[Picture], list[Picture]]:
    """Those that fit into a page, and those that do not."""
    taken = 0
    kept: list[Picture] = []
    beside: list[Picture] = []
    for picture in pictures:
        size = len(picture.inline)
        fits = taken + size <= most
        (kept if fits else beside).append(picture)
        taken += size * fits
    return kept, beside


def charts(pictures: Sequence[Picture]) -> dict[str, Any]:
    """By key what figures show as data, of those that could tell it."""
    return {picture.key: picture.chart for picture in pictures if picture.chart}


def parts_of_tables(pictures: Sequence[Picture]) -> dict[str, Markup]:
    """The parts of a page of tables and figures: the library comes with it only where a figure has told its data."""
    told = charts(pictures)
    return parts({"charts": told} if told else None, TABLES)


def parts(found: Any, scripts: tuple[str, ...]) -> dict[str, Markup]:
    """What a template puts into a page: style, data, library and scripts; without data no library."""
    drawn = {"json": Markup(bundle.safe_json(found)), "library": bundle.library()} if found else {}
    return {"style": bundle.style(), "script": bundle.script(*scripts), "json": Markup(), "library": Markup(), **drawn}
