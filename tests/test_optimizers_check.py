"""The comparison of updates with the bytes they move: its arithmetic, and that every candidate runs."""

from __future__ import annotations

import pytest

from bench import optimizers_check
from bench.optimizers_check import FLOOR, bytes_moved, candidates, measure, network_of, table
from impls.optimizers import NAMES, find


@pytest.mark.parametrize("parameters", [1_000, 100_000, 1_000_000])
def test_networks_have_about_so_many_parameters(parameters: int) -> None:
    assert network_of(parameters).m == pytest.approx(parameters, rel=0.05)


def test_bytes_are_those_of_parameters_gradients_and_states() -> None:
    assert [bytes_moved(find(name), 1) for name in NAMES] == [12, 20, 20, 20, 20, 28]


def test_ratios_are_of_one_turn() -> None:
    m = network_of(1000).m
    # Adam moves 28 bytes where the copy reads and writes 16: a copy of 16 ns a parameter makes a floor of 28
    turns = [{FLOOR: 16e-9 * m * pace, "numpy (sweep)": 56e-9 * m * pace} for pace in (1.0, 2.0, 3.0)]
    assert "| numpy (sweep) | 112 | 2.00 | 1.00 |" in table("adam", 1000, turns)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_every_candidate_runs(optimizer: str) -> None:
    pytest.importorskip("torch")
    calls = candidates(optimizer, 1000)
    assert {FLOOR, "numpy (sweep)", "torch, single tensor", "torch, foreach"} <= calls.keys()
    turns = measure(calls, turns=1, seconds=1e-5)
    assert all(seconds > 0 for seconds in turns[0].values())
    assert optimizers_check.table(optimizer, 1000, turns).count("\n") == len(calls) + 1
