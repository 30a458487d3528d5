"""Planted progress: runs whose epochs to a level and seconds per epoch are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.experiments.found import Found

#: Epochs to 95 %, seed by seed (None: never), and seconds of an epoch.
Truth = tuple[Sequence[float | None], float]
EPOCHS = 60.0


def run_row(
    impl: str, variant: str, optimizer: str, seed: int, to_95: float | None, epoch_s: float, **other: Any
) -> dict[str, Any]:
    """A run whose test score rises in a line to the first look past 95 %, which it passes when told; 50 % at most where it
    never does.
    """
    epochs = np.linspace(0, EPOCHS, 121)
    score = 0.5 * epochs / EPOCHS
    if to_95:
        score = 0.95 * (np.minimum(epochs, epochs[epochs >= to_95][0]) / to_95)
    loss = 2.3 * np.exp(-epochs / 10)
    return {
        "key": f"{impl}: planted {variant} {optimizer}",
        "impl": impl,
        "pass": 1,
        "tuning": False,
        "data": "planted",
        "name": "planted",
        "kind": "classification",
        "layers": [4, 8, 3],
        "n": 100,
        "variant": variant,
        "optimizer": optimizer,
        "batch": {"batch": 100, "mini-batch": 32, "stochastic": 1}[variant],
        "seed": seed,
        "rate": 0.1,
        "epoch": epochs.tolist(),
        "steps": (epochs * 4).tolist(),
        "loss": loss.tolist(),
        "test_loss": (1.1 * loss).tolist(),
        "test_score": score.tolist(),
        "diverged_at": None,
        "clocked_s": (epochs * epoch_s).tolist(),
        "seconds": [epoch_s],
        "reference_s": {"product": [1e-4]},
    } | other


def grid_row(rate: float, score: float | None, chosen: bool, seed: int = 0, step: int | None = None) -> dict[str, Any]:
    """A rate that was tried for plain mini-batch descent."""
    cell = {"data": "planted", "variant": "mini-batch", "optimizer": "gradient-descent", "batch": 32, "tuning": True}
    tried = {"rate": rate, "seed": seed, "score": score, "diverged_at": step, "chosen": chosen}
    return {"impl": "numpy", "pass": 1, "key": "rates: planted", **cell, **tried}


#: Rates around the best, as tuning leaves them.
GRID = (grid_row(0.01, 0.9, False), grid_row(0.1, 0.4, True), grid_row(1.0, None, False, step=7))


def found_of(
    truths: Mapping[tuple[str, str], Truth], impl: str = "numpy", extra: Sequence[dict[str, Any]] = GRID
) -> Found:
    """An experiment's file with these truths by variant and optimizer."""
    rows = [
        run_row(impl, variant, optimizer, seed, to_95, epoch_s)
        for (variant, optimizer), (epochs, epoch_s) in truths.items()
        for seed, to_95 in enumerate(epochs)
    ]
    return found_from([*extra, *rows], impl)


def found_from(rows: Sequence[dict[str, Any]], *impls: str, failed: Sequence[dict[str, Any]] = ()) -> Found:
    """An experiment's file with these rows."""
    return Found("progress", {"impls": list(impls)}, {}, "2024-05-01", rows, failed)
