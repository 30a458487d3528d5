"""The comparison of updates with the bytes they move: its arithmetic, and that every candidate runs."""

from __future__ import annotations

import numpy as np
import pytest

from bench import optimizers_check
from bench.ceilings import COPIED_BYTES
from bench.optimizers_check import (
    MEMORY,
    NEAR,
    SAME_BYTES,
    SWEPT,
    TORCH_FORMS,
    bytes_moved,
    calls_in_cache,
    calls_table,
    candidates,
    measure,
    network_of,
    table,
)
from impls.optimizers import NAMES, find


@pytest.mark.parametrize("parameters", [1_000, 100_000, 1_000_000])
def test_networks_have_about_so_many_parameters(parameters: int) -> None:
    assert network_of(parameters).m == pytest.approx(parameters, rel=0.05)


def test_bytes_are_those_of_parameters_gradients_and_states() -> None:
    assert [bytes_moved(find(name), 1) for name in NAMES] == [12, 20, 20, 20, 20, 28]


def test_ratios_are_of_one_turn() -> None:
    m = network_of(1000).m
    # Adam moves 28 bytes where the copy in as much memory reads and writes 16: one of 16 ns a parameter makes a floor of 28;
    # memory that moves a byte in 2 ns makes one of 56
    turns = [
        {MEMORY: 4e-9 * COPIED_BYTES * pace, SAME_BYTES: 16e-9 * m * pace, SWEPT: 112e-9 * m * pace * pace}
        for pace in (1.0, 2.0, 3.0)
    ]
    found = table("adam", 1000, turns)
    assert "| floor: 28 bytes a parameter, memory bandwidth | 112 | | | |" in found
    assert "| floor: 28 bytes a parameter, copy in as much memory | 56 | | | |" in found
    assert "| numpy (sweep) | 448 | 4.00 | 8.00 | 1.00 |" in found
    assert "best torch form" not in found


def test_the_best_form_of_torch_is_named() -> None:
    single, foreach, fused = TORCH_FORMS
    turn = {MEMORY: 1.0, SAME_BYTES: 1.0, SWEPT: 1e-6, single: 4e-6, foreach: 2e-6, fused: 3e-6}
    assert table("adam", 1000, [turn]).endswith(
        f"best torch form: torch, foreach, {2000 / network_of(1000).m:.3g} ns a parameter"
    )


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_every_candidate_runs(optimizer: str) -> None:
    pytest.importorskip("torch")
    calls = candidates(optimizer, 1000)
    assert {MEMORY, SAME_BYTES, SWEPT, "torch, single tensor", "torch, foreach"} <= calls.keys()
    turns = measure(calls, turns=1, seconds=1e-5)
    assert all(seconds > 0 for seconds in turns[0].values())
    assert optimizers_check.table(optimizer, 1000, turns).count("\n") == len(calls) + 3


def test_calls_stay_finite_however_often_they_are_made() -> None:
    with np.errstate(all="raise"):
        turns = measure(calls_in_cache(), turns=3, seconds=1e-3)
    assert calls_table(turns).count("\n") == len(calls_in_cache()) + 1
    assert "| √ | 2e+03 |" in calls_table([{"√": 2e-6 * NEAR}])
