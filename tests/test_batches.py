"""Epochs in batches: every example once with its own target, in any order and size, by every optimizer."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from impls import numpy_fast, registry
from impls.conformance import EPOCH_BATCH, Expected, Mismatch, check_epochs, check_step
from impls.interface import Trains
from impls.numpy_fast import NumpyFast
from impls.registry import Entry
from tests.test_conformance import available
from tests.test_optimizers import problem_of

TRAINERS = ("numpy", "torch", "torch-manual", "torch-compile", "jax", "sklearn")


def cases() -> Iterator[Any]:
    for entry in map(registry.find, TRAINERS):
        slow = entry.cost.first_call_s > 1
        for optimizer in entry.optimizers[:1] if slow else entry.optimizers:
            for batch in (4,) if slow else (1, 4, 11, 100):
                yield pytest.param(entry, optimizer, batch, id=f"{entry.name}-{optimizer}-{batch}")


@pytest.mark.parametrize(("entry", "optimizer", "batch"), list(cases()))
def test_epochs_agree_with_the_reference(entry: Entry, optimizer: str, batch: int) -> None:
    expected = Expected.of(problem_of(optimizer, n=11), "float64")
    trainer = available(entry).prepare(expected.problem, dtype="float64")
    assert isinstance(trainer, Trains)
    check_epochs(trainer, expected, batch)


@pytest.mark.parametrize("entry", list(map(registry.find, ("numpy", "torch", "jax"))), ids=lambda e: e.name)
def test_float32_epochs_and_a_step_before_them(entry: Entry) -> None:
    problem = problem_of("adam", n=11)
    check_epochs(available(entry).prepare(problem), Expected.of(problem, "float32"))  # type: ignore[arg-type]
    trainer: Any = entry.prepare(problem)
    check_step(trainer, Expected.of(problem, "float32"))


def test_batches_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_fast, "BLOCK", 3)
    problem = problem_of("momentum", n=23)
    check_epochs(NumpyFast(problem, dtype="float64"), Expected.of(problem, "float64"), 9)


class _Swapped(NumpyFast):
    """Planted: targets stay in the order of the problem."""

    def _rows(self) -> Any:
        examples, targets = super()._rows()
        return examples, targets[::-1].copy()


class _Forgets(NumpyFast):
    """Planted: the smaller last batch is dropped."""

    def epoch(self, order: NDArray[Any], batch: int) -> None:
        super().epoch(order[: len(order) // batch * batch], batch)


class _Unshuffled(NumpyFast):
    """Planted: rows come as they lie."""

    def epoch(self, order: NDArray[Any], batch: int) -> None:
        super().epoch(np.sort(order), batch)


class _WholeMean(NumpyFast):
    """Planted: the last batch counts as if it were whole."""

    def epoch(self, order: NDArray[Any], batch: int) -> None:
        super().epoch(np.concatenate([order, order[: -len(order) % batch]]), batch)


@pytest.mark.parametrize("planted", [_Swapped, _Forgets, _Unshuffled, _WholeMean])
def test_planted_errors_are_caught(planted: type[NumpyFast]) -> None:
    problem = problem_of("gradient-descent", n=11)
    assert problem.n % EPOCH_BATCH
    with pytest.raises(Mismatch):
        check_epochs(planted(problem, dtype="float64"), Expected.of(problem, "float64"))


def test_numpy_allocates_only_the_shuffled_rows() -> None:
    problem = problem_of("adam", n=64)
    trainer = NumpyFast(problem, dtype="float64")
    order = np.random.default_rng(0).permutation(64)
    trainer.epoch(order, 8)
    rows_bytes = 64 * (problem.network.layers[0] + 1 + problem.network.layers[-1]) * 8
    tracemalloc.start()
    try:
        trainer.epoch(order, 8)
        assert tracemalloc.get_traced_memory()[1] < rows_bytes + 2048
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("batch", [4, 3, 16])
@pytest.mark.parametrize("optimizer", ["gradient-descent", "momentum", "adam"])
def test_the_second_epoch_compiles_nothing_and_a_rest_is_no_call_of_its_own(optimizer: str, batch: int) -> None:
    rate = 1.25e-4 + batch * 1e-9  # compiled functions are shared: none has this
    problem = replace(problem_of(optimizer, n=8), learning_rate=rate)
    trainer: Any = available(registry.find("jax")).prepare(problem)
    trainer.epoch(np.arange(problem.n), batch)
    assert trainer._compiled.step._cache_size() == 0
    for _ in range(2):
        trainer.step()
        trainer.epoch(np.arange(problem.n), batch)
    assert trainer._compiled.epoch._cache_size() == 1
    assert trainer._compiled.step._cache_size() == 1
