"""Time and memory of a step that was never measured, from a run's winning laws: interval, binding ceiling, and whether it
lies beyond what was measured.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import activations, cells, laws, sizes, verdicts, words
from analysis.costs import MOVES_PER_PARAMETER, costs
from analysis.hypotheses import Law
from analysis.laws import Choice
from analysis.load import Run, parameter_bytes, usual_optimizer
from analysis.statistics import LEVEL, Floats, Interval, t_quantile
from analysis.verdicts import Verdict
from backprop_files import UserError

#: Times a parameter and a unit of an example are read or written in a step, at the least: parameters forward, backward,
#: gradient written, read and parameter updated; a unit's value and its δ written and read.
PARAMETER_MOVES, UNIT_MOVES = 5, 4
#: Terms that are library calls and fixed overhead, whatever the arithmetic.
CALL_TERMS = ("1", "depth", "hidden·p", "n·depth", "n·hidden·p")


@dataclass(frozen=True)
class Prediction:
    """Seconds and bytes of a step with 95 % intervals for one new measurement; ``floors_s`` are lower bounds by ceiling."""

    impl: str
    device: str
    dtype: str
    law: str
    time_s: Interval
    memory_law: str
    memory_bytes: Interval
    floors_s: dict[str, float]
    binding: str
    p: float
    p_from: str
    beyond: tuple[str, ...]  # in words; empty where it lies within what was measured
    optimizer: str = ""

    @property
    def extrapolates(self) -> bool:
        """Whether it lies beyond what was measured."""
        return bool(self.beyond)


@dataclass(frozen=True, eq=False)
class Series:
    """What predictions of one implementation on one device in one dtype rest on."""

    steps: pd.DataFrame
    time: Choice
    memory: Choice | None
    updates: Mapping[str, tuple[Choice, pd.DataFrame]] = field(
        default_factory=dict
    )  # by optimizer: its law and its cells


def series(run: Run, impl: str, hypotheses: Sequence[Law] | None = None, device: str = "", dtype: str = "") -> Series:
    """Fit one implementation's steps and memory.  Raises UserError where the run has none, or no law could be chosen."""
    entries = told_by(run.entries)
    known = sorted(entries.loc[entries["phase"] == "step", "impl"].unique())
    if impl not in known:
        near = difflib.get_close_matches(impl, known, 1)
        hint = f": did you mean '{near[0]}'?" if near else f"; it holds {', '.join(known) or 'no step'}"
        raise UserError(f"the run has no step of '{impl}'{hint}")
    chosen = entries[entries["impl"] == impl]
    for key, wanted in (("device", device), ("dtype", dtype)):
        found = sorted(chosen[key].unique())
        if wanted and wanted not in found:
            raise UserError(f"the run has '{impl}' on {key} {', '.join(found)}, not '{wanted}'")
        if not wanted and len(found) > 1:
            raise UserError(f"the run has '{impl}' on several: choose with --{key} {'|'.join(found)}")
        chosen = chosen[chosen[key] == (wanted or found[0])]
    table = cells.table(chosen)
    found_series = of_verdicts(table, verdicts.judge(chosen, table, hypotheses))
    if isinstance(found_series, str):
        raise UserError(f"no law of '{impl}' could be chosen: {found_series}; measure more cells (--profile quick)")
    return found_series


def told_by(entries: pd.DataFrame) -> pd.DataFrame:
    """The rows that predictions rest on: steps by the usual optimizer, and updates by all."""
    own = usual_optimizer(entries[entries["phase"] == "step"])
    return entries[(entries["phase"] == "update") | ((entries["phase"] == "step") & (entries["optimizer"] == own))]


def of_verdicts(table: pd.DataFrame, judged: Sequence[Verdict]) -> Series | str:
    """The same from one series' cell table and its verdicts, with updates by every optimizer; why not, where no law of the
    step was chosen.
    """
    choices = {(v.phase, v.optimizer): v.choice for v in judged}
    steps = table[table["phase"] == "step"]
    time, memory = (next((c for (phase, _), c in choices.items() if phase == p), None) for p in ("step", "memory"))
    if time is None or time.final is None:
        return time.reason if time else "no step was measured"
    updates = {
        optimizer: (choice, table[(table["phase"] == "update") & (table["optimizer"] == optimizer)])
        for (phase, optimizer), choice in choices.items()
        if phase == "update" and choice.final is not None
    }
    steps = steps[steps["optimizer"] == usual_optimizer(steps)].reset_index(drop=True)
    return Series(steps, time, memory if memory and memory.final else None, updates)


def predict(found: Series, layers: Sequence[int], n: int, activation: str, optimizer: str = "") -> Prediction:
    """Predict one step, by the run's usual optimizer or by another whose updates it measured.

    Raises UserError for sizes that are none, an activation whose p the run does not tell, or an optimizer without a law.
    """
    if n < 1 or len(layers) < 2 or min(layers) < 1:
        raise UserError(
            "--n and --widths are positive whole numbers, two widths at least: inputs, hidden layers, outputs"
        )
    steps = found.steps
    first = steps.iloc[0]
    p, p_from = p_of(activation, found)
    row = sizes.like(first, layers, n, p)
    time = interval(found.time, steps, row)
    memory = Interval(np.nan, np.nan, np.nan)
    if found.memory:
        memory = interval(found.memory, verdicts.memory(steps), row)
    own = str(first["optimizer"])
    if optimizer not in ("", own):
        time, memory = _by_optimizer(found, row, optimizer, time, memory)
    floors = _floors(found, row)
    return Prediction(
        str(first["impl"]),
        str(first["device"]),
        str(first["dtype"]),
        found.time.final.law.name if found.time.final else "",
        time,
        found.memory.final.law.name if found.memory and found.memory.final else "",
        memory,
        floors,
        max(floors, key=lambda name: floors[name]),
        p,
        p_from,
        tuple(beyond(steps, row)),
        optimizer or own,
    )


def _by_optimizer(
    found: Series, row: pd.DataFrame, optimizer: str, time: Interval, memory: Interval
) -> tuple[Interval, Interval]:
    """A step by another optimizer: the update's law exchanged, and what the optimizer keeps of every parameter, by count."""
    own = str(found.steps["optimizer"].iloc[0])
    for name in (own, optimizer):
        if name not in found.updates:
            known = ", ".join(sorted({own, *found.updates})) or "none"
            raise UserError(f"the run has no law of the update by '{name}'; it has {known}")
    taken, given = (interval(*found.updates[name], row) for name in (own, optimizer))
    # t = t_step - t_update(usual) + t_update(other), and not below the update alone
    value = max(time.value - taken.value + given.value, given.value)
    parts = (
        (part.value / value * np.log(part.high / part.value)) if part.value > 0 else 0.0
        for part in (time, taken, given)
    )
    half = float(np.sqrt(sum(part**2 for part in parts)))
    kept = arrays_kept(optimizer) - arrays_kept(own)
    more = kept * float(row["m"].iloc[0]) * parameter_bytes(str(found.steps["dtype"].iloc[0]))
    grown = Interval(memory.value + more, memory.low + more, memory.high + more)
    return Interval(value, value * float(np.exp(-half)), value * float(np.exp(half))), grown


def arrays_kept(optimizer: str) -> float:
    """Arrays of the parameters' size that an optimizer keeps from step to step; NaN where that is not known.

    Each is read and written in an update, beside the three moves of every update.
    """
    moves = MOVES_PER_PARAMETER.get(optimizer)
    return float("nan") if moves is None else (moves - 3) / 2


def epoch(
    found: Series, layers: Sequence[int], batch: int, activation: str, rows: int, optimizer: str = ""
) -> Interval:
    """Seconds of one pass over ``rows`` examples in batches, the last one smaller where they do not divide: steps alone, no
    shuffling and no loading.  One law's errors are shared by all steps, so that the ends of the intervals add up.
    """
    if rows < 1:
        raise UserError("--rows is a positive whole number: examples of an epoch")
    whole, rest = divmod(rows, batch)
    parts = [(whole, batch)] * (whole > 0) + [(1, rest)] * (rest > 0)
    steps = [(count, predict(found, layers, n, activation, optimizer).time_s) for count, n in parts]
    return Interval(*(sum(count * getattr(step, end) for count, step in steps) for end in ("value", "low", "high")))


@dataclass(frozen=True)
class Spread:
    """How far a new cell may lie from a law (log scale), as ``interval`` says: of sizes measured, and beyond the largest of
    them (in operations of matrix products); the noise of a measurement, and Student's t.
    """

    off: float
    off_beyond: float
    largest: float
    noise: float
    t: float


def spread(choice: Choice, rows: pd.DataFrame) -> Spread:
    """Of a choice that was made on ``rows``."""
    final, winner = choice.final, choice.winner
    assert final is not None
    assert winner is not None
    degrees = max(final.fitted_cells - len(final.law.terms), 2)
    off = half_width(final.crossvalidated, degrees)
    judged = len(winner.heldout) >= laws.LEAST_HELDOUT
    larger = max(off, half_width(winner.heldout, degrees)) if judged else off
    return Spread(off, larger, float(_work(rows).max()), _noise(rows), t_quantile(degrees))


def interval(choice: Choice, rows: pd.DataFrame, row: pd.DataFrame) -> Interval:
    """The prediction for one new cell: what the coefficients leave open, and how far cells lie from the law.

    How far cells lie: of |log t̂ / t| over cells that the fit did not see, the 95 % quantile, which holds 95 % of new cells
    like them whatever their distribution (split conformal prediction: Lei et al. 2018, *JASA* 113:1094), or what a normal
    distribution of their scatter would ask for, if that is more; beyond the largest cell measured, over the held-out ones
    too, which lay as far beyond the cells fitted.  A new measurement has its own noise between passes besides.
    """
    value, low, high = intervals(choice, rows, row)[0]
    return Interval(float(value), float(low), float(high))


def intervals(choice: Choice, rows: pd.DataFrame, at: pd.DataFrame) -> Floats:
    """``interval`` of every row of ``at``, shape (rows, 3): value, low, high; the ends are NaN where the value is not
    positive.
    """
    final, known = choice.final, spread(choice, rows)
    assert final is not None
    values = np.maximum(final.predict(at), choice.floor)
    off = np.where(_work(at).to_numpy(float) > known.largest, known.off_beyond, known.off)
    drawn = np.zeros(len(values))
    if choice.draws is not None:
        times = final.law.design(at) @ choice.draws.T
        with np.errstate(all="ignore"):
            drawn = np.std(np.log(np.maximum(times, 1e-3 * values[:, None])), axis=1)
    half = np.sqrt(off**2 + known.t**2 * (drawn**2 + known.noise**2))
    half[~(values > 0)] = np.nan
    return np.column_stack([values, values * np.exp(-half), values * np.exp(half)])


def _noise(rows: pd.DataFrame) -> float:
    """Standard error (log) of one new measurement of as many passes as the run's cells had; bytes have none."""
    if (rows["phase"] == "memory").all() or not (rows["passes"] > 1).any():
        return 0.0
    return float(np.sqrt((rows["between_cv"] ** 2 / rows["passes"]).median()))


def _work(rows: pd.DataFrame) -> pd.Series:
    return rows["operations_product"].astype(float)


def half_width(errors: np.ndarray, degrees: float) -> float:
    """Of a 95 % interval on the log scale, for one new cell, from errors t̂/t - 1 of cells that a fit did not see."""
    logs = np.abs(np.log1p(np.maximum(errors, -0.99)))
    scale = 1.4826 * float(np.median(logs))
    scatter = float(np.sqrt(np.mean(np.minimum(logs, 4 * scale) ** 2)))  # a wild cell pulled in, as in the fit
    return max(float(np.quantile(logs, LEVEL)), t_quantile(degrees) * scatter)


def p_of(activation: str, found: Series) -> tuple[float, str]:
    """Operations of an activation: of ``horner-K`` by count, of a real one by what it costs where the run measured that."""
    dial = re.fullmatch(r"horner-(\d+)", activation)
    if dial and 1 <= int(dial[1]) <= 64:
        return 4.0 * int(dial[1]), "counted"
    multiply_add = next(
        (c.seconds.value for c in costs(found.time, "step", found.steps) if c.unit == "multiply-add"), None
    )
    calibrated = {c.activation: c for c in activations.calibrate(found.steps, multiply_add)}
    own = calibrated.get(activation)
    if own and own.equivalent_p is not None:
        return own.equivalent_p, f"by measured cost (counted: {own.p})"
    counted = found.steps.loc[found.steps["activation"] == activation, "p"]
    if len(counted):
        return float(counted.iloc[0]), "counted"
    known = [
        "horner-K",
        *sorted(set(found.steps["activation"]) - {a for a in found.steps["activation"] if "horner" in a}),
    ]
    raise UserError(f"activation '{activation}' was not measured in this run, which knows {', '.join(known)}")


def known_activations(found: Series) -> dict[str, tuple[float, str]]:
    """P of every activation that the run measured but the dial, and where it is from."""
    names = sorted({str(name) for name in found.steps["activation"]})
    return {name: p_of(name, found) for name in names if not name.startswith("horner-")}


def _floors(found: Series, row: pd.DataFrame) -> dict[str, float]:
    """Seconds that a step cannot go below, by ceiling; for calls what the law says they take."""
    final = found.time.final
    assert final is not None
    first, at = found.steps.iloc[0], row.iloc[0]
    moved = float(at["itemsize"]) * (PARAMETER_MOVES * at["m"] + UNIT_MOVES * at["n"] * at["units"])
    terms = final.law.design(row)[0] * np.array(final.coefficients)
    calls = sum(float(t) for term, t in zip(final.law.terms, terms, strict=True) if term.text in CALL_TERMS)
    floors = {"calls and fixed overhead": calls}
    if np.isfinite(first["ceiling_flops"]):
        floors["matrix products"] = float(at["operations_product"]) / float(first["ceiling_flops"])
    if np.isfinite(first["bandwidth_bytes_per_s"]):
        floors["memory bandwidth"] = float(moved) / float(first["bandwidth_bytes_per_s"])
    return floors


def beyond(steps: pd.DataFrame, row: pd.DataFrame) -> list[str]:
    """In which of n, m, p and n·m a cell lies outside what was measured, and how far."""
    told = []
    for name in ("n", "m", "p", "n·m"):
        value, seen = float(_size(row, name).iloc[0]), _size(steps, name)
        if value > seen.max():
            told.append(f"{name} = {value:,.0f} is {value / seen.max():,.1f} times the largest measured")
        elif value < seen[seen > 0].min():
            told.append(f"{name} = {value:,.0f} is below the smallest measured, {seen[seen > 0].min():,.0f}")
    return told


def _size(rows: pd.DataFrame, name: str) -> pd.Series:
    return (rows["n"] * rows["m"] if name == "n·m" else rows[name]).astype(float)


def document(found: Prediction, epoch_s: Interval | None = None) -> dict[str, Any]:
    """For scripts; missing numbers are null."""

    def plain(interval: Interval) -> dict[str, float | None]:
        values = {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high}
        return {key: value if np.isfinite(value) else None for key, value in values.items()}

    return {
        "impl": found.impl,
        "device": found.device,
        "dtype": found.dtype,
        "time_s": plain(found.time_s),
        "time_law": found.law,
        "memory_bytes": plain(found.memory_bytes),
        "memory_law": found.memory_law or None,
        "floors_s": found.floors_s,
        "binding": found.binding,
        "p": found.p,
        "p_from": found.p_from,
        "extrapolates": list(found.beyond),
        "optimizer": found.optimizer,
    } | ({} if epoch_s is None else {"epoch_s": plain(epoch_s)})


def told(found: Prediction, epoch_s: Interval | None = None) -> list[tuple[str, str]]:
    """For people: what, and its value in words."""
    time, memory = found.time_s, found.memory_bytes
    rows = [
        ("series", f"{found.impl}, {found.device}, {found.dtype}"),
        ("time of a step", _between(time)),
        *([("time of an epoch", _between(epoch_s))] if epoch_s else []),
        ("law", found.law),
    ]
    if found.memory_law:
        rows.append(
            (
                "peak memory",
                f"{_megabytes(memory.value)}, 95 % between {_megabytes(memory.low)} and {_megabytes(memory.high)}",
            )
        )
        rows.append(("law of memory", found.memory_law))
    else:
        rows.append(("peak memory", "the run has no law of memory for it"))
    shares = (f"{name} {words.seconds(floor)} ({floor / time.value:.0%})" for name, floor in found.floors_s.items())
    rows.append(("cannot go below", "; ".join(shares)))
    rows.append(("binding", found.binding))
    rows.append(("p", f"{found.p:.3g}, {found.p_from}"))
    return rows


def _between(found: Interval) -> str:
    return f"{words.seconds(found.value)}, 95 % between {words.seconds(found.low)} and {words.seconds(found.high)}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.3g} MB" if np.isfinite(value) else "?"
