"""Data-parallel implementations compute what the float64 reference says of the whole batch, however it is split."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bench import ranks
from bench.rank_worker import Row
from impls import optimizers, registry
from impls.shares import share
from tests.rank_work import address_of, loopback

TOLERANCE = 1e-10
ENTRIES = [entry for entry in registry.ENTRIES if entry.launched_by]
#: Divisible by 4 and not, fewer rows than ranks, a single one; every loss, activations of each kind, every optimizer.
CASES: list[dict[str, Any]] = [
    *({"n": n, "loss": loss} for n, loss in product((8, 11, 3, 1), ("mse", "cross_entropy"))),
    {"n": 11, "loss": "mse", "activation": "relu"},
    {"n": 11, "loss": "mse", "activation": "horner-8"},
    *({"n": 11, "loss": "mse", "optimizer": name} for name in optimizers.NAMES if name != optimizers.USUAL),
]
#: For what compiles a second a case; tests/test_conformance.py has all of them on one rank.
FEWER: list[dict[str, Any]] = [
    {"n": 8, "loss": "cross_entropy"},
    {"n": 11, "loss": "mse", "optimizer": "adam", "activation": "horner-8"},
    {"n": 3, "loss": "cross_entropy", "optimizer": "nesterov"},
    {"n": 1, "loss": "mse"},
]
#: Every number of ranks in processes of their own; where one process can have them all as devices, that as well.
LAUNCHES = [
    pytest.param(entry, k, layout, id=f"{entry.name}-{k}-{layout}")
    for entry in ENTRIES
    for k, layout in ((1, "processes"), (2, "processes"), (4, "processes"), (4, "devices"))
    if not (layout == "devices" and entry.launched_by == "torchrun")
]


def launch(impl: str, k: int, layout: str, work: str, arguments: dict[str, Any], folder: Path) -> list[Row]:
    """Ranks in float64, on all cores there are."""
    if reason := registry.find(impl).missing():
        pytest.skip(reason)
    asked = ranks.Launch(impl, k, ranks.usual_cores(), layout, dtype="float64")
    return ranks.run(asked, f"tests.rank_work:{work}", arguments, folder / "launch")


@pytest.mark.parametrize(("entry", "k", "layout"), LAUNCHES)
def test_ranks_together_compute_what_one_does(entry: registry.Entry, k: int, layout: str, tmp_path: Path) -> None:
    cases = FEWER if entry.cost.first_call_s > 0.1 else CASES
    *rows, told = launch(entry.name, k, layout, "errors", {"cases": cases}, tmp_path)
    assert len(rows) == len(cases)
    for case, row in zip(cases, rows, strict=True):
        found = {name: value for name, value in row.items() if name not in case}
        assert {"phases loss", "gradients", "steps", "steps in turn", "in turn gradients"} <= set(found)
        assert max(found.values()) < TOLERANCE, row
    processes = k if layout == "processes" else 1
    assert told["seen"] == [[k, rank] for rank in range(processes)]
    assert told["beyond"] == [0] * processes
    if processes > 1:
        assert sum(told["listening"]) > 0  # ranks do talk by sockets: the look at them sees some


@pytest.mark.parametrize("impl", [entry.name for entry in ENTRIES])
def test_planted_errors_are_caught(impl: str, tmp_path: Path) -> None:
    rows = launch(impl, 2, "processes", "planted", {"n": 11, "loss": "mse"}, tmp_path)
    found = {row["planted"]: row["caught"] for row in rows}
    assert found.pop("nothing") == 0
    assert found == dict.fromkeys(found, 1.0)
    assert len(found) >= 4


@pytest.mark.parametrize("impl", [entry.name for entry in ENTRIES])
def test_alone_each_rank_goes_its_own_way(impl: str, tmp_path: Path) -> None:
    own = {"torch-ddp": "parameters", "jax-sharded": "drifting"}
    (row,) = launch(impl, 2, "processes", "alone", {"n": 11, "loss": "mse", "own": own}, tmp_path)
    assert row["error"] < TOLERANCE
    assert row["apart"] > 0.01  # or something was sent after all


@pytest.mark.parametrize("impl", [entry.name for entry in ENTRIES])
def test_a_step_makes_as_many_all_reduces_as_it_tells(impl: str, tmp_path: Path) -> None:
    networks = [(5, 7, 6, 4), (64, 1024, 1024, 10)]  # less than DDP's first bucket, and more
    rows = launch(impl, 2, "processes", "messages", {"networks": networks}, tmp_path)
    assert [row["told"] for row in rows] == [row["seen"] for row in rows]
    assert [row["told"] for row in rows] == ([1, 2] if impl == "torch-ddp" else [7, 7])


@pytest.mark.parametrize(("n", "k"), [(8, 4), (11, 4), (3, 4), (1, 4), (1000, 7), (5, 1)])
def test_every_row_is_somebodys(n: int, k: int) -> None:
    shares = [range(n)[share(n, k, rank)] for rank in range(k)]
    assert [row for rows in shares for row in rows] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_kernels_addresses_are_read_right() -> None:
    assert address_of("0100007F") == "127.0.0.1"
    assert address_of("00000000") == "0.0.0.0"
    assert address_of("00000000000000000000000001000000") == "::1"
    assert loopback("127.0.0.1:5") and loopback("::1:5") and loopback("::ffff:127.0.0.1:5")
    assert not loopback("0.0.0.0:5") and not loopback(":::5") and not loopback("10.0.0.1:5")
