"""Epochs by the size of their batches: planted laws come out, unseen sizes are predicted, words follow the truth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.experiments import epochs as analysis
from analysis.experiments.found import Found
from bench.experiments import Settings, epochs, find

NETWORKS = ((16, 4), (64, 4), (64, 24), (256, 4))
N = 512


def cost(n: int, batch: int, width: int, p: int) -> float:
    """A planted law: every example pays for products and activations, every step for its calls and its parameters."""
    m, u = 64 * width + width * width + 10 * width, 2 * width
    return n * (5e-11 * m + 6e-11 * u * p) + math.ceil(n / batch) * (1e-5 + 3e-10 * m)


def planted(bend: float = 0.0, loop: float = 1.0, noise: float = 0.01, seed: int = 0) -> Found:
    """Rows of three passes; unseen sizes cost ``1 + bend`` times the law, a step alone 1/``loop`` of one in an epoch."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        for width, p in NETWORKS:
            m, u = 64 * width + width * width + 10 * width, 2 * width
            same = {
                "impl": "numpy", "pass": number, "layers": [64, width, width, 10], "activation": f"horner-{p // 2}",
                "optimizer": "gradient-descent", "m": m, "p": p, "u": u, "hidden": 2, "width": width,
            }  # fmt: skip
            for batch, seen in epochs.batches(N, 2).items():
                time = cost(N, batch, width, p) * (1 if seen else 1 + bend) * math.exp(noise * rng.standard_normal())
                rows.append({**same, "what": "epoch", "n": N, "batch": batch, "seen": seen, "seconds": [time]})
            step = cost(1, 1, width, p) / loop * math.exp(noise * rng.standard_normal())
            rows.append({**same, "what": "step", "n": 1, "batch": 1, "seen": False, "seconds": [step]})
            rows.append({**same, "what": "update", "n": N, "batch": N, "seen": False, "seconds": [1e-6]})
    return Found("epochs", {"impls": ["numpy"]}, {}, "now", rows, [])


def words(found: Found) -> list[str]:
    return [claim.cells["numpy"].word for claim in analysis.section(found).claims]


def test_a_planted_law_comes_out() -> None:
    (one,) = analysis.series(planted())
    assert one.best.law.name == "examples and steps"
    assert one.best.coefficients == pytest.approx((1e-5, 3e-10, 5e-11, 6e-11), rel=0.05)
    assert np.abs(one.errors).max() < 0.05
    assert words(planted()) == ["supported", "supported"]


def test_sizes_off_the_law_refute_it() -> None:
    assert words(planted(bend=0.3))[0] == "refuted"


def test_a_step_that_costs_less_within_an_epoch_refutes_n_whole_steps() -> None:
    assert words(planted(loop=0.3))[1] == "refuted"


def test_what_cannot_be_told_is_said() -> None:
    assert words(planted(noise=0.3, seed=3))[1] == "inconclusive"


def test_one_pass_has_no_verdict() -> None:
    found = planted()
    once = replace(found, rows=[row for row in found.rows if row["pass"] == 1])
    told = analysis.section(once).claims[1].cells["numpy"]
    assert told.word == "inconclusive"
    assert "nan" not in told.evidence


def test_batches_are_powers_of_two_and_some_between() -> None:
    found = epochs.batches(512, 2)
    assert [b for b, seen in found.items() if seen] == [2**k for k in range(10)]
    assert [b for b, seen in found.items() if not seen] == [3, 12, 48, 192]
    assert epochs.batches(1, 2) == {1: True}


def test_tasks_have_names_of_their_own() -> None:
    tasks = find("epochs").tasks(Settings(profile="full"))
    assert len({task.key for task in tasks}) == len(tasks)
