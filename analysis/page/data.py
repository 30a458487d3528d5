"""A run as the one JSON block of its page: everything that charts, tables and the calculator show.

Cells are columns; names stand once in lists and are referred to by their place.  Seconds have five digits.  Rounds and drawn
coefficients are too many for text: base64 of little-endian numbers.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import cells as cell_table
from analysis import figures, predict, verdicts, words
from analysis.claims import BAND
from analysis.figures import Material, look
from analysis.laws import Choice
from analysis.load import Run, parameter_bytes
from analysis.normalise import IDENTITY
from analysis.page import growth
from analysis.predict import CALL_TERMS, PARAMETER_MOVES, UNIT_MOVES, Series
from analysis.regimes import Regimes
from analysis.verdicts import Verdict
from backprop_files import TRANSFERS

#: Rounds may take so many bytes of the page; what is more is left out evenly, and said.
MOST_ROUNDS_BYTES = 2_000_000
#: log(round / time of its cell) is kept in 65,535 equal steps between these.
LOG_RATIO = (-3.0, 6.0)
#: Terms of a law that are paid whatever the examples: what makes a cell overhead.
FIXED_TERMS = ("1", "depth", "hidden·p")
_NUMBERS = ("time_s", "ci_low_s", "ci_high_s", "raw_s", "share_of_ceiling")
_COUNTS = ("n", "m", "p", "u", "width", "depth", "passes")
_NAMED = ("layers", "activation", "loss", "optimizer", "phase", "axis")


def document(run: Run, material: Material) -> dict[str, Any]:
    """The whole block."""
    cells = pd.concat([material.cells, material.other_cells], ignore_index=True)
    judged = [*material.verdicts, *material.others]
    both = cells[["full_series", "series"]].drop_duplicates().astype(str)
    full_names = dict(sorted(zip(both["series"], both["full_series"], strict=True)))
    series = [series_of(short, cells[cells["series"] == short].iloc[0], i) for i, short in enumerate(full_names)]
    names = {short: i for i, short in enumerate(full_names)}
    lists = {name: sorted({str(value) for value in cells[name]}) for name in _NAMED}
    return {
        "schema": 1,
        "measured_at": run.measured_at,
        "band": BAND,
        "series": series,
        "lists": lists,
        "optimizer": str(material.cells["optimizer"].iloc[0]) if len(material.cells) else "",
        "cells": {
            **_cells(cells, lists, names),
            **_by_law(cells, material, judged),
            "regime": _regimes(cells, material),
        },
        "rounds": _rounds(run.entries, cells),
        "log_ratio": LOG_RATIO,
        "verdicts": [_verdict(material, verdict, names) for verdict in judged],
        "models": _models(run, list(full_names.values()), judged),
        "moves": {"parameter": PARAMETER_MOVES, "unit": UNIT_MOVES},
    }


# --- series and cells -----------------------------------------------------------------------------------------------


def series_of(name: str, first: pd.Series[Any], place: int) -> dict[str, Any]:
    """A series by one of its cells; colour and marker are places in the lists of ``analysis.figures``, as in its figures."""
    colour, marker = look(place)
    return {
        "name": name,
        "impl": str(first["impl"]),
        "device": str(first["device"]),
        "dtype": str(first["dtype"]),
        "colour": colour,
        "marker": marker,
    }


def _cells(cells: pd.DataFrame, lists: Mapping[str, Sequence[str]], names: Mapping[str, int]) -> dict[str, Any]:
    columns = placed(cells, lists, names, _COUNTS) | {name: rounded(cells[name]) for name in _NUMBERS}
    columns["heldout"] = [int(value) for value in cells["heldout"]]
    columns["settled"] = [int(bool(value)) for value in cells["settled"]]
    columns["peak_bytes"] = bytes_of(cells)
    return columns


def placed(
    cells: pd.DataFrame, lists: Mapping[str, Sequence[str]], names: Mapping[str, int], counts: Sequence[str]
) -> dict[str, Any]:
    """Columns that say what a cell is: its series and names by their places in the lists, and whole numbers."""
    columns: dict[str, Any] = {"series": [names[name] for name in cells["series"]]}
    for name, known in lists.items():
        place = {value: i for i, value in enumerate(known)}
        columns[name] = [place[str(value)] for value in cells[name]]
    return columns | {name: [int(value) for value in cells[name]] for name in counts}


def bytes_of(cells: pd.DataFrame) -> list[int | None]:
    """Peak bytes; None where nobody told them."""
    return [int(v) if v > 0 else None for v in pd.to_numeric(cells["peak_bytes"]).fillna(0)]


def rounded(values: Iterable[float], digits: int = 5) -> list[float | None]:
    """For JSON: None where a number is none."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values)]


def _by_law(cells: pd.DataFrame, material: Material, judged: Sequence[Verdict]) -> dict[str, Any]:
    """By the law that wins in a cell's group: its time with interval, and the same of bytes for steps."""
    found = {name: np.full(len(cells), np.nan) for name in _LAW_COLUMNS}
    for verdict in judged:
        if verdict.choice.final is None:
            continue
        at = (cells["full_series"] == figures.name_of(verdict)) & (cells["optimizer"] == verdict.optimizer)
        phase = "step" if verdict.phase == "memory" else verdict.phase
        at &= (cells["phase"] == phase) & (cells["axis"] != "functions")
        rows = cells[at]
        if verdict.phase == "memory":
            rows = verdicts.memory(rows)
        elif verdict.launch:
            rows = rows[verdict.launch.arithmetic(rows)]
        if rows.empty:
            continue
        columns = _LAW_COLUMNS[3:] if verdict.phase == "memory" else _LAW_COLUMNS[:3]
        for name, values in zip(columns, predict.intervals(verdict.choice, rows, rows).T, strict=True):
            found[name][rows.index] = values
    return {name: rounded(values) for name, values in found.items()}


_LAW_COLUMNS = ("law_s", "law_low_s", "law_high_s", "law_bytes", "law_low_bytes", "law_high_bytes")


def _regimes(cells: pd.DataFrame, material: Material) -> list[str | None]:
    """Of steps: along the examples axis as found there, else by the share of the winning law that is fixed."""
    found: list[str | None] = [None] * len(cells)
    for full, choice in material.choices().items():
        rows = cells[(cells["full_series"] == full) & (cells["phase"] == "step") & (cells["axis"] != "functions")]
        fit = choice.final
        if fit is None or rows.empty:
            continue
        fixed = [i for i, term in enumerate(fit.law.terms) if term.text in FIXED_TERMS]
        paid = fit.law.design(rows) * np.array(fit.coefficients)
        shares = paid[:, fixed].sum(axis=1) / np.maximum(paid.sum(axis=1), 1e-300)
        known = material.regimes.get(full)
        for i, share, axis, work in zip(rows.index, shares, rows["axis"], rows["n"] * rows["m"], strict=True):
            along = known is not None and "examples" in str(axis).split(",")
            found[i] = _along(known, float(work)) if along and known else _regime(float(share))
    return found


def _along(known: Regimes, work: float) -> str:
    if work <= known.overhead_until:
        return "overhead"
    return "transition" if work <= known.transition_until else "growth"


def _regime(fixed: float) -> str:
    return "overhead" if fixed > 0.5 else "transition" if fixed > 0.2 else "growth"


# --- rounds ---------------------------------------------------------------------------------------------------------


def _rounds(entries: pd.DataFrame, cells: pd.DataFrame) -> dict[str, Any]:
    """Of every cell its rounds in the order of the clock: the passes ([pass, minutes since the run began, rounds,
    disturbed]), and of every round the log of its time over the cell's, as measured and normalised.

    Where they are too many for a page every k-th stays; ``kept_one_in`` is k.
    """
    entries = entries[~entries["phase"].isin(TRANSFERS)]
    groups = {key: rows.sort_values("started_at") for key, rows in entries.groupby(IDENTITY, sort=False)}
    began = float(entries["started_at"].min()) if len(entries) else 0.0
    every = max(1, math.ceil(int(entries["rounds"].sum()) * 2 * 8 / 3 / MOST_ROUNDS_BYTES))
    found = [_rounds_of(groups[tuple(cell)], began, every, time, raw)
             for *cell, time, raw in cells[[*IDENTITY, "time_s", "raw_s"]].itertuples(index=False, name=None)]  # fmt: skip
    return {"kept_one_in": every, "cells": found}


def _rounds_of(rows: pd.DataFrame, began: float, every: int, time_s: float, raw_s: float) -> list[Any]:
    passes, raw, normal = [], [], []
    columns = ["pass", "started_at", "seconds", "normal_logs", "disturbed"]
    for number, started, seconds, logs, disturbed in rows[columns].itertuples(index=False, name=None):
        raw.append(np.log(seconds[::every]) - math.log(raw_s))
        normal.append(logs[::every] - math.log(time_s))
        passes.append([int(number), round((started - began) / 60, 2), len(seconds[::every]), int(disturbed)])
    return [passes, _steps(np.concatenate(raw)), _steps(np.concatenate(normal))]


def _steps(logs: np.ndarray) -> str:
    """16 bits a number: the step, 1.4e-4, is finer than any round repeats."""
    low, high = LOG_RATIO
    places = np.rint((np.clip(np.nan_to_num(logs), low, high) - low) / (high - low) * 65535)
    return base64.b64encode(places.astype("<u2").tobytes()).decode()


# --- verdicts -------------------------------------------------------------------------------------------------------


def _verdict(material: Material, verdict: Verdict, names: Mapping[str, int]) -> dict[str, Any]:
    winner = verdict.choice.winner
    return {
        "series": names[str(material.rows_of(verdict)["series"].iloc[0])],
        "phase": verdict.phase,
        "optimizer": verdict.optimizer,
        "word": verdict.word,
        "reason": verdict.reason,
        "sentence": sentence(verdict),
        "law": winner.law.name if winner else None,
        "exponents": {
            name: {
                "value": [plain(e.value), plain(e.ci_low), plain(e.ci_high)],
                "range": [plain(e.range_low), plain(e.range_high)],
                "grows": growth.word(e),
                "told": growth.told(name, e),
            }
            for name, e in verdict.exponents.items()
            if name in ("n", "m", "p")
        },
        "claimed": verdict.claimed,
    }


def sentence(verdict: Verdict) -> str:
    """The verdict on a step in one sentence."""
    powers = [
        f"{name}^{verdict.exponents[name].value:.2f}" if verdict.exponents[name].value is not None else f"{name}^?"
        for name in "nmp"
    ]
    told = f"cost grows as {' · '.join(powers)}"
    told += {
        "supported": f", and that is as {verdict.claim.law}",
        "refuted": f", not as {verdict.claim.law}",
        "inconclusive": f"; whether that is as {verdict.claim.law} cannot be told",
    }[verdict.word]
    winner = verdict.choice.winner
    if winner is None or winner.law.name == verdict.claim.law:
        return told
    return (
        f"{told}; the simplest law that tells unseen cells about as well as any is “{winner.law.name}” "
        f"({words.percent(winner.crossvalidated_median)} off)"
    )


def plain(value: float | None) -> float | None:
    """A number for JSON."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


# --- what predictions rest on ---------------------------------------------------------------------------------------


def _models(run: Run, full_names: Sequence[str], judged: Sequence[Verdict]) -> list[dict[str, Any] | None]:
    """For every series what ``analysis.predict`` rests on, to the last digit; None where no law was chosen."""
    told_by = predict.told_by(run.entries)
    return [_model_of(told_by, full, [v for v in judged if figures.name_of(v) == full]) for full in full_names]


def _model_of(entries: pd.DataFrame, full: str, judged: Sequence[Verdict]) -> dict[str, Any] | None:
    if not judged:
        return None
    one = judged[0]
    own = entries[(entries["impl"] == one.impl) & (entries["device"] == one.device) & (entries["dtype"] == one.dtype)]
    if own.empty:
        return None
    found = predict.of_verdicts(cell_table.table(own), judged)
    return None if isinstance(found, str) else model(found)


def model(found: Series) -> dict[str, Any]:
    """One series' laws and whatever else its predictions need."""
    steps = found.steps
    first = steps.iloc[0]
    sizes = {"n": steps["n"], "m": steps["m"], "p": steps["p"], "n·m": steps["n"] * steps["m"]}
    return {
        "step": _law(found.time, steps),
        "memory": _law(found.memory, verdicts.memory(steps)) if found.memory else None,
        "updates": {name: _law(choice, rows) for name, (choice, rows) in found.updates.items()},
        "kept": {name: plain(predict.arrays_kept(name)) for name in {str(first["optimizer"]), *found.updates}},
        "optimizer": str(first["optimizer"]),
        "activations": {name: list(p) for name, p in predict.known_activations(found).items()},
        "itemsize": exact(first["itemsize"]),
        "parameter_bytes": parameter_bytes(str(first["dtype"])),
        "ceiling_flops": exact(first["ceiling_flops"]),
        "bandwidth_bytes_per_s": exact(first["bandwidth_bytes_per_s"]),
        "caches": {level: exact(first[level]) for level in ("L1", "L2", "L3")},
        "seen": {name: [exact(v[v > 0].min()), exact(v.max())] for name, v in sizes.items()},
    }


def _law(choice: Choice, rows: pd.DataFrame) -> dict[str, Any]:
    final = choice.final
    assert final is not None
    known = predict.spread(choice, rows)
    return {
        "name": final.law.name,
        "terms": [
            {"text": term.text, "tree": term.tree, "call": int(term.text in CALL_TERMS)} for term in final.law.terms
        ],
        "coefficients": list(final.coefficients),
        "floor": choice.floor,
        "off": [exact(known.off), exact(known.off_beyond)],
        "largest": exact(known.largest),
        "noise": exact(known.noise),
        "t": known.t,
        "draws": None if choice.draws is None else numbers(choice.draws),
    }


def numbers(values: np.ndarray) -> str:
    """float64, to the last digit, row by row."""
    return base64.b64encode(np.ascontiguousarray(values, "<f8").tobytes()).decode()


def exact(value: Any) -> float | None:
    """A number with all its digits; None for none."""
    return float(value) if math.isfinite(float(value)) else None
