"""Every implementation trains on real data: scikit-learn's digits, the whole batch in every step, by every optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from impls import datasets, reference, registry
from impls.interface import Array, Network, Problem
from impls.problem import make_problem
from impls.registry import Entry
from tests.test_conformance import available, thorough

ACCURACY = 0.95
TEST_ROWS = 360


@dataclass(frozen=True)
class Training:
    """Enough steps for 95 % on rows that were not trained on."""

    network: Network
    rows: int
    rate: float
    steps: int
    optimizer: str = "gradient-descent"


USUAL = Training(Network((64, 48, 10), "tanh", "cross_entropy"), 1437, 1.0, 80)
#: The same for an implementation a thousand times slower: fewer rows and units, longer strides.
SLOW = Training(Network((64, 16, 10), "tanh", "cross_entropy"), 500, 2.0, 40)


def problem_of(training: Training) -> Problem:
    """Training rows of the digits; the last 360 are kept for the test."""
    pytest.importorskip("sklearn")
    digits = datasets.find("digits")
    start = make_problem(training.network, 1, seed=5)
    rows = slice(0, training.rows)
    return Problem(
        training.network, digits.inputs[rows], digits.targets[rows], start.parameters, training.rate, training.optimizer
    )


def accuracy(network: Network, parameters: list[Array]) -> float:
    """Share of the test rows that are recognised."""
    digits = datasets.find("digits")
    assert digits.labels is not None
    found = reference.outputs(network, parameters, digits.inputs[-TEST_ROWS:]).argmax(axis=1)
    return float((found == digits.labels[-TEST_ROWS:]).mean())


@cache
def expected_curve(training: Training) -> Array:
    """Losses by the float64 reference, step by step."""
    return np.array(reference.train(problem_of(training), training.steps)[0])


def learns(entry: Entry, training: Training) -> None:
    """Losses follow the reference's, and the test rows are recognised."""
    dtype = entry.dtypes[0]
    implementation = entry.prepare(problem_of(training), dtype=dtype)
    losses = []
    for _ in range(training.steps):
        implementation.step()
        losses.append(implementation.loss_value())
    np.testing.assert_allclose(losses, expected_curve(training), rtol=1e-3 if dtype == "float32" else 1e-8)
    parameters = [np.asarray(p, np.float64) for p in implementation.parameters()]
    assert accuracy(training.network, parameters) >= ACCURACY


@pytest.mark.parametrize("entry", registry.ENTRIES, ids=lambda e: e.name)
def test_learns_the_digits(entry: Entry) -> None:
    available(entry)
    learns(entry, SLOW if entry.slow else USUAL)


#: Learning rate and steps with which each optimizer gets there.
RATES = {"momentum": (0.3, 60), "nesterov": (0.3, 60), "adagrad": (0.1, 60), "rmsprop": (0.01, 40), "adam": (0.02, 40)}


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("entry", registry.ENTRIES, ids=lambda e: e.name)
def test_every_optimizer_learns_the_digits(entry: Entry, optimizer: str) -> None:
    available(entry)
    if entry.slow or entry.cost.example_s or not thorough(entry):
        pytest.skip("too slow for it: the ten steps of test_optimizers.py tell")
    rate, steps = RATES[optimizer]
    learns(entry, replace(USUAL, rate=rate, steps=steps, optimizer=optimizer))
