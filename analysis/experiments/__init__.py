"""What the experiments found: for each one file that turns the rows of its tasks into a section of the report.

A section is plain data (sentences, tables, figures, rows for the table of claims), so that the page, the Markdown and the
terminal can show any of them.  ``section`` of the file named like the experiment makes it from ``Found``; nothing here
measures, prints or writes.  Wording follows the evidence: a verdict is one of the words of ``analysis.verdicts``, with
the interval it rests on beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from backprop_files import EXPERIMENTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.charts import Chart
    from analysis.experiments.found import Found

NAMES: tuple[str, ...] = EXPERIMENTS

Word = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; ``numbers`` are the columns that read best flush right.  A ``folded`` one is long: pages
    show its caption, and the rest when asked to.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    folded: bool = False


@dataclass(frozen=True)
class Drawn:
    """A figure, as data where it is points and lines (``analysis.charts``); ``key`` is its file name, unique in the report,
    and the anchor that claims point to.
    """

    key: str
    title: str
    caption: str
    figure: Figure | Chart


@dataclass(frozen=True)
class Told:
    """A verdict for one implementation: the word, the interval it rests on, and the sentence behind it."""

    word: Word
    evidence: str
    why: str


@dataclass(frozen=True)
class Claimed:
    """A row of the table of claims: a sentence, and by implementation what was found of it; ``figure`` shows it."""

    statement: str
    experiment: str
    cells: Mapping[str, Told]
    figure: str
    source: str = "the article"


@dataclass(frozen=True)
class Section:
    """What the report has of one experiment."""

    name: str
    title: str
    lead: str  # what was found, in a few plain sentences
    paragraphs: Sequence[str] = ()  # how it was measured, and what bounds what is said
    tables: Sequence[Table] = ()
    figures: Sequence[Drawn] = ()
    claims: Sequence[Claimed] = ()
    failed: Sequence[str] = ()  # tasks that did, with the reason; ``section`` fills it in


def section(found: Found) -> Section:
    """The section of one experiment's file."""
    made: Section = importlib.import_module(f"analysis.experiments.{found.name}").section(found)
    return replace(made, failed=[f"{row['impl']}, {row['key']}: {row['reason']}" for row in found.failed])
