"""The whole of a comparison, judged from its files: cells, memory, scaling, what failed; and what the gate says.

Fail closed: a cell that BASE has and HEAD lacks, or that failed in HEAD, fails the gate.  Nothing is judged across machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import load, ratios, scaling
from analysis.hypotheses import declared
from analysis.ratios import Ratio
from analysis.scaling import Change, Quantity
from backprop_files import SCHEMA_VERSION, UserError

#: Peak bytes are exact; what differs by less than this is bookkeeping.
LEAST_BYTES = 4096
#: Machine facts that must agree, whatever libraries are compared.
MACHINE = ("cpu_model", "machine", "system", "affinity", "memory_bytes", "accelerators")

Outcome = Literal["nothing slower", "slower", "cannot tell"]
EXIT: Mapping[Outcome, int] = {"nothing slower": 0, "slower": 1, "cannot tell": 4}


@dataclass(frozen=True)
class Memory:
    """Peak bytes of one cell on both sides; None where HEAD no longer tells them."""

    cell: str
    base_bytes: int
    head_bytes: int | None
    larger: bool


@dataclass(frozen=True)
class Comparison:
    """What two sides differ in; ``outcome`` is the whole, ``reasons`` why, one line each."""

    base: str
    head: str
    allow: float
    sessions: int
    seconds: float
    cells: tuple[Ratio, ...]
    memory: tuple[Memory, ...]
    changes: tuple[Change, ...]
    quantities: tuple[Quantity, ...]
    vanished: Mapping[str, str]  # cells that HEAD lacks, and why
    new: tuple[str, ...]
    failed: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    outcome: Outcome
    reasons: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 nothing slower, 1 slower, 4 cannot tell."""
        return EXIT[self.outcome]


def compare(directory: Path, allow: float, whole: bool = True) -> Comparison:
    """Judge what ``directory`` holds; without ``whole`` only what a look needs.  Raises UserError for damaged files, or
    sides measured on different machines.
    """
    duel = _duel(directory)
    sides = [_side(directory / name) for name in ("base", "head")]
    looks: list[int] = duel["looks"]
    cells: list[Ratio] = []
    changes: list[Change] = []
    memory: list[Memory] = []
    quantities: list[Quantity] = []
    if all(sides):
        base, head = (side.entries for side in sides if side)
        _same_machine(directory, [side.machine for side in sides if side])
        rows = ratios.pairs(base, head)
        cells = ratios.ratios(rows, allow, looks)
        changes = scaling.changes(rows, base, head, allow, looks)
        memory = _memory(rows, allow)
        if whole:
            quantities = scaling.quantities(rows, allow, declared())
    outcome, reasons = _judge(duel, cells, changes, memory, allow)
    return Comparison(
        duel["base"]["told"],
        duel["head"]["told"],
        allow,
        duel["sessions"],
        duel["seconds"],
        tuple(cells),
        tuple(memory),
        tuple(changes),
        tuple(quantities),
        dict(duel["vanished"]),
        tuple(duel["new"]),
        tuple(duel["failed"]),
        tuple(duel["left_out"]),
        outcome,
        tuple(reasons),
    )


def doubtful(found: Comparison, look: int, words: bool) -> set[str]:
    """Cells that need more sessions after a look: those not told yet, those accused at the first look, and those of axes
    whose growth looks changed.  ``words``: until each has its word, not only until it is cleared of being slower.
    """
    open_ = {
        ratio.cell
        for ratio in found.cells
        if (ratio.word == "cannot tell" if words else not ratio.cleared and ratio.word != "slower")
        or (ratio.word in ("slower", "faster") and not look)
    }
    for change in found.changes:
        if change.suspect and (not change.larger or not look):
            open_ |= set(change.cells)
    return open_


def _duel(directory: Path) -> dict[str, Any]:
    path = directory / "duel.json"
    if not path.exists() and any(directory.glob("data/*.json")):  # a run, be it a fleet's
        raise UserError(
            f"{directory}: is a run, no comparison of two sides on one machine, which 'ab' and 'gate' measure and judge; "
            "'report A B --compare' sets runs side by side"
        )
    try:
        duel = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: no comparison can be read there: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is not whole JSON ({error})") from error
    good = isinstance(duel, dict) and duel.get("schema_version") == SCHEMA_VERSION
    if not good or not all(isinstance(duel.get(key), kind) for key, kind in _TYPES.items()) or not _whole(duel):
        raise UserError(f"{path}: is no comparison of this version")
    return dict(duel)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "base": dict, "head": dict, "cells": list, "vanished": dict, "new": list, "left_out": list, "failed": list,
    "looks": list, "sessions": int, "seconds": (int, float),
}  # fmt: skip


def _whole(duel: Mapping[str, Any]) -> bool:
    """Whether what is inside the parts is as it is written."""
    return (
        all(isinstance(duel[side].get("told"), str) for side in ("base", "head"))
        and all(isinstance(cell, str) for cell in (*duel["cells"], *duel["new"], *duel["vanished"].values()))
        and bool(duel["looks"])
        and all(isinstance(look, int) and look > 0 for look in duel["looks"])
        and all(isinstance(row, dict) and {"cell", "side", "reason"} <= row.keys() for row in duel["failed"])
        and all(isinstance(row, dict) and {"impl", "cell", "reason"} <= row.keys() for row in duel["left_out"])
    )


def _side(directory: Path) -> load.Run | None:
    return load.load([directory]) if any(directory.glob("data/*.json")) else None


def _same_machine(directory: Path, machines: Sequence[Mapping[str, Any]]) -> None:
    base, head = machines
    for key in MACHINE:
        if base.get(key) != head.get(key):
            raise UserError(
                f"{directory}: base and head were measured on different machines: {key} is {base.get(key)!r} and "
                f"{head.get(key)!r}"
            )


def _memory(rows: pd.DataFrame, allow: float) -> list[Memory]:
    """Cells whose peak BASE tells: it is exact, so one session is enough."""
    numbers = rows.assign(a=pd.to_numeric(rows["peak_bytes"]), b=pd.to_numeric(rows["peak_bytes_head"]))
    peaks = numbers[(numbers["phase"] == "step") & ~(numbers["a"] <= 0)].groupby("cell")[["a", "b"]].max()
    peaks = peaks.dropna(subset=["a"])
    return [
        Memory(str(cell), int(a), None, False)
        if np.isnan(b)
        else Memory(str(cell), int(a), int(b), bool(b > a * (1 + allow) and b - a >= LEAST_BYTES))
        for cell, a, b in peaks.itertuples()
    ]


def _judge(
    duel: Mapping[str, Any],
    cells: Sequence[Ratio],
    changes: Sequence[Change],
    memory: Sequence[Memory],
    allow: float,
) -> tuple[Outcome, list[str]]:
    """The whole, and why; what fails stands first."""
    failing = [f"{cell}: is gone in HEAD: {why}" for cell, why in duel["vanished"].items()]
    failing += [f"{row['cell']}: failed in HEAD: {row['reason']}" for row in duel["failed"] if row["side"] == "head"]
    failing += [f"{ratio.cell}: {told_ratio(ratio.interval)}" for ratio in cells if ratio.word == "slower"]
    failing += [_growth(change).format("growth is dearer") for change in changes if change.larger]
    failing += [
        f"{row.cell}: peak memory {row.head_bytes / row.base_bytes - 1:+.1%}, {row.base_bytes:,} to {row.head_bytes:,} bytes"
        for row in memory
        if row.larger and row.head_bytes
    ]
    if failing:
        return "slower", failing
    unsure = [
        f"{row['cell']}: failed in BASE: {row['reason']}; nothing to compare with"
        for row in duel["failed"]
        if row["side"] == "base"
    ]
    measured = {ratio.cell for ratio in cells} | {row["cell"] for row in duel["failed"]}
    unsure += [f"{cell}: was not measured" for cell in duel["cells"] if cell not in measured]
    unsure += [f"{row.cell}: its peak memory is not told in HEAD" for row in memory if row.head_bytes is None]
    unsure += [_doubt(ratio, allow, duel["looks"]) for ratio in cells if not ratio.cleared]
    unsure += [
        _growth(change).format("growth may be dearer") + ": a larger --budget" for change in changes if change.doubt
    ]
    return ("cannot tell", unsure) if unsure else ("nothing slower", [])


def _doubt(ratio: Ratio, allow: float, looks: Sequence[int]) -> str:
    """A cell that is not told, and what more it would need."""
    told = f"{ratio.cell}: {told_ratio(ratio.interval)}"
    least = ratios.least_to_accuse(looks)
    if ratio.sessions < least:
        return f"{told}; {ratio.sessions} sessions are too few to judge by, {least} are the least: a larger --budget"
    needed = ratios.more_sessions(ratio, allow)
    if needed is None or needed > 1000:
        return (
            f"{told}; it lies too near the allowance of {allow:.0%} for any number of sessions: choose another --allow"
        )
    if needed > looks[-1]:
        return f"{told}; about {needed} sessions would tell, and {looks[-1]} are the most: a quieter machine, or another --allow"
    return f"{told}; about {needed} sessions would tell (so far {ratio.sessions}): a larger --budget"


def _growth(change: Change) -> str:
    return (
        f"{change.series}: {{}} in {change.name}: what grows costs {told_ratio(change.price)}, its exponent "
        f"{change.difference.value:+.3f} [{change.difference.low:+.3f}, {change.difference.high:+.3f}]; the largest cell "
        f"{told_ratio(change.largest)}"
    )


def told_ratio(interval: Any) -> str:
    """``+3.1 % [+1.0 %, +5.2 %]``."""
    if not np.isfinite(interval.low):
        return f"{interval.value - 1:+.1%} (no interval yet)"
    return f"{interval.value - 1:+.1%} [{interval.low - 1:+.1%}, {interval.high - 1:+.1%}]"
