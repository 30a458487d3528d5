"""Machines that disagree with the others of their class, each named with how far and how sure.

A process (one pass of one implementation) ran on one machine.  Its effect is the median over its cells of the log time
against the same cells in the series' other processes; cells of a process share its memory layout and its clock, so a process
counts once, however many cells it measured.  Process effects are then what their series and their machine make of them:

    effect = series + machine + e,  e ~ N(0, σ²)                                   (least squares)

σ² is what processes of one machine and series differ by, over all machines of the class.  A machine is held against the mean
of the others that were not named: the one furthest off first, so that it does not pull the others' yardstick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.statistics import LEVEL, Estimate, Floats, Interval

#: A machine disagrees where the whole interval of its ratio lies beyond it, and agrees where the whole lies within.
THRESHOLD = 0.05
ROUNDS = 20

Word = Literal["disagrees", "agrees", "cannot tell", "alone"]


@dataclass(frozen=True)
class Ratio:
    """A machine's time over that of the ``others`` of its class: a factor with an interval that holds for all machines
    looked at together, NaN where nothing can tell, and what it comes to.
    """

    machine: str
    factor: Interval
    others: tuple[str, ...]
    word: Word
    why: str = ""


def process_effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns ``series``, ``process``, ``machine``, ``effect`` (log; its zero is the series') and ``cells``.

    ``rows`` has ``series``, ``cell``, ``process``, ``machine`` and ``log``, a row for each cell and process.  Cells' means
    and processes' medians are taken in turn until they settle, since not every process need have measured every cell.
    """
    rows = rows.assign(effect=0.0)
    process = [rows["series"], rows["process"]]
    cell = [rows["series"], rows["cell"]]
    for _ in range(ROUNDS):
        level = (rows["log"] - rows["effect"]).groupby(cell).transform("mean")
        moved = (rows["log"] - level).groupby(process).transform("median")
        settled = float((moved - rows["effect"]).abs().max()) < 1e-6
        rows = rows.assign(effect=moved)
        if settled:
            break
    return rows.groupby(["series", "process"], as_index=False).agg(
        machine=("machine", "first"), effect=("effect", "first"), cells=("cell", "nunique")
    )


def compare(rows: pd.DataFrame, looks: int) -> list[Ratio]:
    """Every machine of one class against the others, in the order of their names; rows as of ``process_effects``.

    ``looks`` is how often anything is looked at, all classes together: intervals are widened so that all of them hold at once
    (Bonferroni).
    """
    names = sorted(rows["machine"].unique())
    if len(names) < 2:
        return [Ratio(name, _NONE, (), "alone", "it is the only machine of its class") for name in names]
    model = _fit(process_effects(rows), names)
    level = 1 - (1 - LEVEL) / max(looks, 1)
    pool, named = list(names), []
    while len(pool) > 2:
        ratios = [_ratio(model, name, [other for other in pool if other != name], level) for name in pool]
        off = [ratio for ratio in ratios if ratio.word == "disagrees"]
        if not off:
            break
        worst = max(off, key=lambda ratio: abs(np.log(ratio.factor.value)))
        named.append(worst.machine)
        pool.remove(worst.machine)
    return [_ratio(model, name, [other for other in pool if other != name], level) for name in names]


_NONE = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class _Model:
    """The least squares of effects on series and machines: solution, (XᵀX)⁺, the projection on what can be told."""

    names: Sequence[str]
    solution: Floats
    inverse: Floats
    known: Floats
    variance: float
    degrees: int


def _fit(effects: pd.DataFrame, names: Sequence[str]) -> _Model:
    series = pd.get_dummies(effects["series"]).to_numpy(float)
    machine = np.column_stack([(effects["machine"] == name).to_numpy(float) for name in names])
    columns = np.hstack([machine, series])
    z = effects["effect"].to_numpy(float)
    inverse = np.linalg.pinv(columns.T @ columns)
    solution = inverse @ columns.T @ z
    degrees = len(z) - int(np.linalg.matrix_rank(columns))
    residuals = z - columns @ solution
    variance = float(residuals @ residuals) / degrees if degrees else np.nan
    return _Model(names, solution, inverse, inverse @ (columns.T @ columns), variance, degrees)


def _ratio(model: _Model, name: str, others: Sequence[str], level: float) -> Ratio:
    """Its effect - the mean of those others that measured something in common with it, directly or through further ones."""
    linked = [other for other in others if _told(model, _contrast(model, name, [other]))]
    if not linked:
        return Ratio(name, _NONE, tuple(others), "cannot tell", "it measured nothing that the others of its class did")
    contrast = _contrast(model, name, linked)
    value = float(contrast @ model.solution)
    if not model.degrees:
        lone = Interval(value, np.nan, np.nan).exp()
        return Ratio(name, lone, tuple(linked), "cannot tell", "too few passes to tell a machine from a pass")
    spread = model.variance * float(contrast @ model.inverse @ contrast)
    error = float(np.sqrt(max(spread, 0.0)))
    factor = Estimate(value, error, model.degrees).interval(level).exp()
    return Ratio(name, factor, tuple(linked), _word(factor))


def _contrast(model: _Model, name: str, others: Sequence[str]) -> Floats:
    found = np.zeros(len(model.solution))
    found[model.names.index(name)] = 1.0
    for other in others:
        found[model.names.index(other)] = -1 / len(others)
    return found


def _told(model: _Model, contrast: Floats) -> bool:
    return bool(np.allclose(contrast @ model.known, contrast, atol=1e-6))


def _word(factor: Interval) -> Word:
    """Equivalence by interval, as with exponents: beyond the threshold, within it, or neither."""
    if factor.low > 1 + THRESHOLD or factor.high < 1 / (1 + THRESHOLD):
        return "disagrees"
    return "agrees" if factor.low >= 1 / (1 + THRESHOLD) and factor.high <= 1 + THRESHOLD else "cannot tell"
