"""Comparisons of planted truth: the files a duel writes, with rounds drawn around known ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backprop_files import SCHEMA_VERSION, write_json
from bench import documents, duel, profiles
from bench.cells import Cell, Setting, facts
from impls import registry

MACHINE = {"cpu_model": "planted", "affinity": [0, 1], "memory_bytes": 1 << 34, "accelerators": [], "libraries": {}}
ROUNDS = 12
Change = Callable[[Mapping[str, Any]], float]


def cells(impl: str = "numpy", phase: str = "step") -> list[Cell]:
    """The smoke profile's cells of an implementation."""
    entry = registry.find(impl)
    setting = Setting(entry, "cpu", entry.dtypes[0], 1)
    return [Cell(setting, point, phase) for point in profiles.points(profiles.find("smoke"), entry, 0)]


def seconds(found: Mapping[str, Any]) -> float:
    """The planted law of BASE: overhead, products, activation."""
    return float(2e-5 + found["n"] * (2e-10 * found["m"] + 2e-10 * found["u"] * found["p"]))


def write(
    directory: Path,
    change: Change = lambda found: 1.0,
    sessions: int = 6,
    noise: float = 0.01,
    seed: int = 0,
    peak: Change = lambda found: 1.0,
    machines: tuple[Mapping[str, Any], Mapping[str, Any]] = (MACHINE, MACHINE),
    measured: Sequence[Cell] | None = None,
    **more: Any,
) -> Path:
    """A duel of numpy's smoke cells: HEAD takes ``change`` times as long, sessions scatter with ``noise`` (log)."""
    rng = np.random.default_rng(seed)
    chosen = list(cells() if measured is None else measured)
    for number in range(1, sessions + 1):
        entries: tuple[list[Any], list[Any]] = ([], [])
        for cell in chosen:
            info = facts(cell, "synthetic", 0)
            shift = np.log(change(info)) + rng.normal(0, noise)
            pace = np.abs(rng.normal(0, 0.3, ROUNDS))  # the machine's speed, which both sides share
            for i in (0, 1):
                logs = np.log(seconds(info)) + pace + i * shift + rng.normal(0, 0.01, ROUNDS)
                peak_bytes = round(1e6 * (peak(info) if i else 1.0)) if number == 1 else None
                extra = info | _measured(number, peak_bytes)
                name = f"{cell.label} pass={number}"
                entries[i].append(documents.entry(name, cell.point.label, np.exp(logs).tolist(), extra))
        for side, machine, own in zip(("base", "head"), machines, entries, strict=True):
            document = documents.document(own, machine, {"id": side}, {"run": {}})
            write_json(directory / side / "data" / f"numpy-pass{number}.json", document)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "base": {"told": "main (0123456789)"},
        "head": {"told": "the working tree"},
        "cells": [cell.label for cell in chosen],
        "vanished": {},
        "left_out": [],
        "new": [],
        "failed": [],
        "looks": list(duel.LOOKS),
        "sessions": sessions,
        "seconds": 10.0,
    }
    write_json(directory / "duel.json", content | more)
    return directory


def _measured(number: int, peak_bytes: int | None) -> dict[str, Any]:
    times = [1e-4] * ROUNDS
    return {
        "schema_version": SCHEMA_VERSION,
        "reference_s": {"product": times, "objects": times},
        "pass": number,
        "first_call_s": 1e-3,
        "peak_bytes": peak_bytes,
        "memory_from": "tracemalloc",
        "ceiling_flops": 1e11,
        "bandwidth_bytes_per_s": 1e10,
        "call_floor_s": 1e-6,
        "settled": True,
        "dropped_rounds": 0,
        "started_at": 1.0,
        "rounds_at_s": [0.01 * i for i in range(ROUNDS)],
        "wall_s": 0.1,
        "machine_state": {},
        "iterations": 10,
    }


def rows(logs: np.ndarray[Any, Any]) -> pd.DataFrame:
    """Log ratios (cells, sessions) as ``analysis.ratios.pairs`` makes them."""
    count, sessions = logs.shape
    return pd.DataFrame(
        {
            "cell": np.repeat([f"cell {i}" for i in range(count)], sessions),
            "pass": np.tile(np.arange(sessions), count),
            "log_ratio": logs.ravel(),
            "impl": "numpy",
            "device": "cpu",
            "dtype": "float32",
            "phase": "step",
            "optimizer": "gradient-descent",
            "base_s": 1e-4,
            "head_s": 1e-4,
        }
    )
