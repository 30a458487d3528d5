"""A comparison for people (rows for the terminal, Markdown for a pull request) and for scripts (JSON)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis import words
from analysis.comparison import Comparison, told_ratio
from analysis.exponents import Exponent
from analysis.ratios import Ratio
from analysis.scaling import BEYOND, Change, Quantity
from backprop_files import SCHEMA_VERSION, write_json, write_whole

#: The order of rows: what needs attention first.
ORDER = {"slower": 0, "cannot tell": 1, "faster": 2, "same": 3}


def write(found: Comparison, directory: Path, markdown: Path | None = None, json_file: Path | None = None) -> None:
    """``comparison.md`` and ``comparison.json`` in the directory, and copies where asked for."""
    text = markdown_of(found)
    for path in filter(None, (directory / "comparison.md", markdown)):
        write_whole(path, text)
    for path in filter(None, (directory / "comparison.json", json_file)):
        write_json(path, document(found))


def cell_rows(found: Comparison) -> list[dict[str, str]]:
    """One row a cell, slower ones first: cell, base, head, change, sessions, word."""
    ordered = sorted(found.cells, key=lambda ratio: (ORDER[ratio.word], ratio.cell))
    return [
        {
            "cell": ratio.cell,
            "base": words.seconds(ratio.base_s),
            "head": words.seconds(ratio.head_s),
            "change": told_ratio(ratio.interval),
            "sessions": str(ratio.sessions),
            "word": _word(ratio),
        }
        for ratio in ordered
    ]


def by_series(found: Comparison) -> dict[str, list[dict[str, str]]]:
    """The same rows by series (implementation, device, dtype and phase), short enough for a terminal."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in cell_rows(found):
        parts = row["cell"].split()
        groups.setdefault(" ".join([*parts[:3], parts[-1]]), []).append(
            {
                "cell": " ".join(parts[3:-1]),
                "base": row["base"],
                "change": row["change"],
                "pairs": row["sessions"],
                "word": row["word"],
            }
        )
    return groups


def growth_told(found: Comparison) -> str:
    """What was seen of growth where nothing larger is proved, in one sentence."""
    still = [change for change in found.changes if not change.larger and not change.doubt]
    if not still:
        return ""
    low, high = (pick(still, key=lambda change: change.sees) for pick in (min, max))
    return (
        f"Growth: no change of {len(still)} exponents; one of {low.sees:.3f} would have shown in {low.series} "
        f"({low.name}), at worst one of {high.sees:.3f} in {high.series} ({high.name})."
    )


def _word(ratio: Ratio) -> str:
    return "not slower" if ratio.word == "cannot tell" and ratio.cleared else ratio.word


def change_rows(found: Comparison) -> list[dict[str, str]]:
    """One row for every series and axis: exponents of both sides, the change, the price of what grows, the word."""
    return [
        {
            "series": change.series,
            "axis": change.name,
            "base": _exponent(change.base),
            "head": _exponent(change.head),
            "change": f"{change.difference.value:+.3f} [{change.difference.low:+.3f}, {change.difference.high:+.3f}]",
            "price": told_ratio(change.price),
            "word": _change_word(change),
        }
        for change in sorted(found.changes, key=lambda change: not change.larger)
    ]


def _change_word(change: Change) -> str:
    if change.larger:
        return "larger"
    if change.doubt:
        return "cannot tell"
    return f"no change (±{change.sees:.3f} would show)"


def quantity_rows(found: Comparison) -> list[dict[str, str]]:
    """One row for every quantity: both sides, the ratio, the word."""
    return [
        {
            "series": row.series,
            "quantity": row.name,
            "base": quantity(row.base, row.unit),
            "head": quantity(row.head, row.unit),
            "change": told_ratio(row.ratio) if math.isfinite(row.ratio.value) else "–",
            "word": row.reason or {"slower": "larger", "faster": "smaller"}.get(row.word, row.word),
        }
        for row in found.quantities
    ]


def memory_rows(found: Comparison) -> list[dict[str, str]]:
    """Cells whose peak memory differs."""
    return [
        {
            "cell": row.cell,
            "base": f"{row.base_bytes:,}",
            "head": "–" if row.head_bytes is None else f"{row.head_bytes:,}",
            "change": "–" if row.head_bytes is None else f"{row.head_bytes / row.base_bytes - 1:+.1%}",
            "word": "larger" if row.larger else "cannot tell" if row.head_bytes is None else "within the allowance",
        }
        for row in found.memory
        if row.base_bytes != row.head_bytes
    ]


def headline(found: Comparison) -> str:
    """The whole in one sentence."""
    cells, allow = f"{len(found.cells)} cells", f"{found.allow:.0%}"
    if found.outcome == "slower":
        count = len(found.reasons)
        return f"Slower, gone or failed: {count} finding{'s' * (count > 1)} at an allowance of {allow}."
    if found.outcome == "cannot tell":
        doubts = f"{len(found.reasons)} reason{'s' * (len(found.reasons) > 1)} for doubt"
        return f"Cannot tell whether HEAD is more than {allow} slower: {doubts}; {cells} were measured."
    return f"Nothing slower: none of {cells} is more than {allow} slower."


def markdown_of(found: Comparison) -> str:
    """For a pull request's comment or a job's summary."""
    return (
        words.environment()
        .get_template("comparison.md")
        .render(
            found=found,
            headline=headline(found),
            cells=cell_rows(found),
            changes=change_rows(found),
            quantities=quantity_rows(found),
            memory=memory_rows(found),
        )
    )


def document(found: Comparison) -> dict[str, Any]:
    """The contract for scripts: ratios are head / base; missing numbers are null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "base": found.base,
        "head": found.head,
        "allow": found.allow,
        "outcome": found.outcome,
        "exit_code": found.exit_code,
        "headline": headline(found),
        "reasons": list(found.reasons),
        "sessions": found.sessions,
        "seconds": found.seconds,
        "cells": [
            {
                "cell": ratio.cell,
                "word": ratio.word,
                "cleared": ratio.cleared,
                "ratio": _plain(asdict(ratio.interval)),
                "sessions": ratio.sessions,
                "base_s": ratio.base_s,
                "head_s": ratio.head_s,
            }
            for ratio in found.cells
        ],
        "scaling": [_change_object(change) for change in found.changes],
        "quantities": [_quantity_object(row) for row in found.quantities],
        "memory": [asdict(row) for row in found.memory],
        "vanished": dict(found.vanished),
        "left_out": [dict(row) for row in found.left_out],
        "new": list(found.new),
        "failed": [dict(row) for row in found.failed],
    }


def _change_object(change: Change) -> dict[str, Any]:
    return {
        "series": change.series,
        "axis": change.name,
        "base_exponent": change.base.value,
        "head_exponent": change.head.value,
        "difference": _plain(asdict(change.difference)),
        "price": _plain(asdict(change.price)),
        "largest": _plain(asdict(change.largest)),
        "beyond": _plain(asdict(change.beyond)),
        "beyond_factor": BEYOND,
        "larger": change.larger,
        "doubt": change.doubt,
    }


def _quantity_object(row: Quantity) -> dict[str, Any]:
    plain = _plain({"base": row.base, "head": row.head})
    names = {"slower": "larger", "faster": "smaller"}
    return {
        "series": row.series,
        "quantity": row.name,
        "unit": row.unit,
        **plain,
        "ratio": _plain(asdict(row.ratio)),
        "word": names.get(row.word, row.word),
        "reason": row.reason or None,
    }


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in numbers.items()}


def _exponent(found: Exponent) -> str:
    return "–" if found.value is None else f"{found.value:.2f}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit: seconds as people say them."""
    if not math.isfinite(value):
        return "–"
    if unit.startswith("s"):
        return (words.seconds(value) if value > 0 else "0 s") + unit[1:]
    return f"{value:,.3g} {unit}"
