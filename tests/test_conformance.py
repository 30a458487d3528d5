"""Every implementation computes what the float64 reference says; and the checker catches those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from bench import machine
from impls import activations, dtypes, numpy_fast, reference, registry, torch_manual
from impls.conformance import Expected, Mismatch, check_phases, check_step, relative_norm
from impls.interface import PHASES, AnyArray, Backprop, Network, Problem
from impls.losses import LOSSES
from impls.problem import make_problem
from impls.registry import Entry

LAYERS = (5, 7, 6, 4)
N = 11
ACTIVATIONS = (*activations.PLAIN_NAMES, "horner-1", "horner-2", "horner-8", "horner-32")


def available(entry: Entry) -> Entry:
    """The entry, or a skip with the reason."""
    if entry.missing():
        pytest.skip(str(entry.missing()))
    if "cpu" not in entry.devices:
        pytest.skip(f"{entry.name} runs on {', '.join(entry.devices)} alone: tests/test_torch_graph.py")
    return entry


def thorough(entry: Entry) -> bool:
    """Whether it is held closely: all but what compiles for half a minute a case, or is a peer, with tests of its own."""
    return "smoke" in entry.sweeps or bool(entry.launched_by)


def cases() -> Iterator[object]:
    """Registry × dtype × activation × loss.  Compilers take a third of a second a function, so they get every
    activation once and every loss and dtype once, not the whole product.
    """
    for entry in registry.ENTRIES:
        if not thorough(entry):
            continue  # compiled for half a minute a case: one case of its own below
        compiles = entry.cost.first_call_s > 0.1
        for dtype in entry.dtypes:
            for loss in entry.losses:
                for activation in ACTIVATIONS:
                    thinned = compiles and (dtype, loss) != ("float32", "mse") and activation not in ("tanh", "gelu")
                    if entry.cannot(Network(LAYERS, activation, loss)) or thinned:
                        continue
                    yield pytest.param(entry, dtype, activation, loss, id=f"{entry.name}-{dtype}-{activation}-{loss}")


def problem_of(activation: str, loss: str, n: int = N) -> Problem:
    """A learning rate of 1 makes a step's move as large as the gradient: nothing hides in rounding."""
    return make_problem(Network(LAYERS, activation, loss), n, seed=3, learning_rate=1.0)


def whole(entry: Entry) -> bool:
    """Whether the entry does single phases."""
    return set(PHASES) <= set(entry.phases)


@pytest.mark.parametrize(("entry", "dtype", "activation", "loss"), list(cases()))
def test_agrees_with_the_reference(entry: Entry, dtype: str, activation: str, loss: str) -> None:
    available(entry)
    problem = problem_of(activation, loss)
    expected = Expected.of(problem, dtype)
    frozen = [problem.inputs.copy(), problem.targets.copy(), *(p.copy() for p in problem.parameters)]
    stepped = entry.prepare(problem, dtype=dtype)
    check_step(stepped, expected)
    if whole(entry):
        by_phase = entry.prepare(problem, dtype=dtype)
        check_phases(by_phase, expected)
        first = by_phase.gradients()
        by_phase.forward()
        by_phase.loss()
        by_phase.backward()
        by_phase.synchronize()
        for again, before in zip(by_phase.gradients(), first, strict=True):
            np.testing.assert_array_equal(again, before)  # a second call gives the same, to the bit
        by_phase.update()
        by_phase.synchronize()
        expected.check_step(by_phase.parameters())
        for one, other in zip(by_phase.parameters(), stepped.parameters(), strict=True):
            assert (
                relative_norm(one, other) <= expected.tolerance + expected.turned_slopes
            )  # phases one by one equal the step
    for array, shape in zip(stepped.parameters(), (p.shape for p in problem.parameters), strict=True):
        assert array.shape == shape
        assert array.dtype == np.dtype(dtypes.find(dtype).stored)
    for array, before in zip((problem.inputs, problem.targets, *problem.parameters), frozen, strict=True):
        np.testing.assert_array_equal(array, before)  # inputs unmutated


@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if thorough(e)], ids=lambda e: e.name)
@pytest.mark.parametrize("n", [1, 23])
def test_one_example_and_uneven_blocks(entry: Entry, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    available(entry)
    monkeypatch.setattr(numpy_fast, "BLOCK", 5)  # 23 examples in blocks of 5, 5, 5, 4, 4
    monkeypatch.setattr(torch_manual, "BLOCK", {"cpu": 5})
    for loss in entry.losses:
        problem = problem_of("tanh", loss, n)
        expected = Expected.of(problem, "float64")
        check_step(entry.prepare(problem, dtype="float64"), expected)
        if whole(entry):
            check_phases(entry.prepare(problem, dtype="float64"), expected)


@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if not thorough(e)], ids=lambda e: e.name)
def test_slow_compilers_agree_once(entry: Entry) -> None:
    available(entry)
    problem = problem_of("tanh", "mse")
    check_step(entry.prepare(problem), Expected.of(problem, "float32"))


@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if len(e.devices) > 1], ids=lambda e: e.name)
def test_agrees_on_an_accelerator(entry: Entry) -> None:
    if reason := machine.device_missing(entry.devices[-1]):
        pytest.skip(reason)
    available(entry)
    problem = problem_of("tanh", "mse")
    check_step(entry.prepare(problem, device=entry.devices[-1]), Expected.of(problem, "float32"))


# --- the reference itself -------------------------------------------------------------------------------------------


def central_differences(problem: Problem, step: float = 1e-6) -> list[AnyArray]:
    """∂L/∂θ_i ≈ (L(θ_i + h) - L(θ_i - h)) / 2h, every parameter in turn."""
    gradients = []
    for which, parameter in enumerate(problem.parameters):
        gradient = np.zeros_like(parameter)
        for index in np.ndindex(parameter.shape):
            values = []
            for sign in (1, -1):
                moved = [p.copy() for p in problem.parameters]
                moved[which][index] += sign * step
                values.append(reference.loss(problem, moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_reference_agrees_with_central_differences(activation: str, loss: str) -> None:
    problem = make_problem(Network((3, 4, 4, 2), activation, loss), 5, seed=1)
    _, gradients = reference.loss_and_gradients(problem)
    for found, expected in zip(gradients, central_differences(problem), strict=True):
        assert relative_norm(found, expected) < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_stable_at_large_outputs(loss: str) -> None:
    problem = make_problem(Network((3, 4), "tanh", loss), 5)
    huge = replace(problem, parameters=tuple(1e4 * p for p in problem.parameters))
    value, gradients = reference.loss_and_gradients(huge)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


# --- the checker is checked -----------------------------------------------------------------------------------------


class Wrong:
    """A correct implementation whose gradients are spoilt on their way out, and into the update."""

    def __init__(self, spoil: Callable[[list[AnyArray]], list[AnyArray]], problem: Problem, dtype: str) -> None:
        self.problem, self.spoil, self.dtype = problem, spoil, dtype
        self.theta = list(problem.parameters)

    def forward(self) -> None: ...
    def loss(self) -> None: ...
    def backward(self) -> None: ...
    def synchronize(self) -> None: ...

    def update(self) -> None:
        rate = self.problem.learning_rate
        self.theta = [p - rate * g for p, g in zip(self.theta, self.gradients(), strict=True)]

    def step(self) -> None:
        self.update()

    def parameters(self) -> list[AnyArray]:
        return [p.astype(self.dtype) for p in self.theta]

    def gradients(self) -> list[AnyArray]:
        return [g.astype(self.dtype) for g in self.spoil(reference.loss_and_gradients(self.problem)[1])]

    def loss_value(self) -> float:
        return reference.loss(self.problem)


SPOILT: dict[str, Callable[[list[AnyArray]], list[AnyArray]]] = {
    "scaled by 1.001": lambda g: [1.001 * x for x in g],
    "one layer scaled by 1.001": lambda g: [*g[:2], 1.001 * g[2], *g[3:]],
    "missing bias term": lambda g: [*g[:3], np.zeros_like(g[3]), *g[4:]],
    "transposed weight": lambda g: [*g[:2], g[2].T.copy(), *g[3:]],
    "wrong sign": lambda g: [-x for x in g],
    "not a number": lambda g: [*g[:2], np.full_like(g[2], np.nan), *g[3:]],
    "wrong shape": lambda g: [g[0].T.copy(), *g[1:]],
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("what", SPOILT)
def test_wrong_gradients_are_caught(what: str, dtype: str) -> None:
    problem = make_problem(Network((5, 6, 6, 4)), 9, seed=2, learning_rate=1.0)
    expected = Expected.of(problem, dtype)
    right: Backprop = Wrong(lambda g: g, problem, dtype)
    check_phases(right, expected)
    check_step(right, expected)
    wrong: Backprop = Wrong(SPOILT[what], problem, dtype)
    with pytest.raises(Mismatch, match=r"gradient|shapes"):
        check_phases(wrong, expected)
    if what != "wrong shape":
        with pytest.raises(Mismatch, match="step"):
            check_step(wrong, expected)


def test_a_wrong_loss_is_caught() -> None:
    problem = make_problem(Network((5, 6, 4)), 9)
    with pytest.raises(Mismatch, match=r"loss .* 5-6-4, tanh, mse, n=9"):
        Expected.of(problem, "float64").check_loss(1.001 * reference.loss(problem))
