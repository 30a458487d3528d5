"""Every implementation's optimizers do what the textbook says; what differs a little from it is caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from impls import counts, dtypes, in_place_updates, numpy_fast, optimizers, reference, registry, torch_manual
from impls.conformance import BOLD, STEPS, Expected, Mismatch, check_step, check_steps, relative_norm
from impls.interface import AnyArray, Array, Network, Problem
from impls.numpy_fast import NumpyFast, NumpyOperations
from impls.optimizers import NAMES, OPTIMIZERS, USUAL
from impls.problem import make_problem
from impls.python_scalars import PythonScalars
from impls.registry import Entry
from tests.test_conformance import LAYERS, available, whole
from tests.test_numpy_fast import allocated

KEPT = [name for name in NAMES if OPTIMIZERS[name].states]


def problem_of(optimizer: str, activation: str = "tanh", layers: tuple[int, ...] = LAYERS, n: int = 11) -> Problem:
    """A learning rate so bold that rounding hides nothing."""
    rate = BOLD * OPTIMIZERS[optimizer].learning_rate
    return make_problem(Network(layers, activation), n, seed=3, learning_rate=rate, optimizer=optimizer)


def cases() -> Iterator[Any]:
    """Registry × optimizer × dtype; what compiles for long gets one dtype only."""
    for entry in registry.ENTRIES:
        for optimizer in entry.optimizers:
            for dtype in entry.dtypes[:1] if entry.cost.first_call_s > 1 else entry.dtypes:
                yield pytest.param(entry, optimizer, dtype, id=f"{entry.name}-{optimizer}-{dtype}")


@pytest.mark.parametrize(("entry", "optimizer", "dtype"), list(cases()))
def test_ten_steps_agree_with_the_reference(entry: Entry, optimizer: str, dtype: str) -> None:
    problem = problem_of(optimizer)
    expected = Expected.of(problem, dtype)
    stepped = available(entry).prepare(problem, dtype=dtype)
    check_step(stepped, expected)
    for _ in range(STEPS - 1):
        stepped.step()
    stepped.synchronize()
    expected.check_steps(stepped.parameters())
    assert dtypes.find("float64").steps_tolerance == pytest.approx(1e-9)
    if not whole(entry) or (entry.cost.first_call_s and dtype == "float32"):
        return
    by_phase = entry.prepare(problem, dtype=dtype)
    for _ in range(STEPS):
        for phase in (by_phase.forward, by_phase.loss, by_phase.backward, by_phase.update):
            phase()
    by_phase.synchronize()
    expected.check_steps(by_phase.parameters())  # phases one by one keep the same states


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if e.name.startswith(("numpy", "torch-m"))], ids=str)
def test_blocks_of_parameters_are_seamless(entry: Entry, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_fast, "UPDATE_BLOCK_BYTES", 7 * 8)
    monkeypatch.setattr(torch_manual, "UPDATE_BLOCK", {"cpu": 7})
    problem = problem_of(optimizer)
    assert problem.network.m % 7
    check_steps(available(entry).prepare(problem, dtype="float64"), Expected.of(problem, "float64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", KEPT)
def test_states_mean_the_same_after_thousands_of_steps(optimizer: str, dtype: str) -> None:
    """Long enough for the slowest decay to have gone from its scale into the buffer."""
    steps, rate, rng = 7_200, OPTIMIZERS[optimizer].learning_rate, np.random.default_rng(2)
    ops = NumpyOperations(dtype)
    flat, gradient = ops.array(rng.standard_normal(6)), ops.empty(6)
    expected = [flat.astype("float64")]
    update = in_place_updates.Update(ops, optimizer, rate, flat, gradient, 4)
    definition = optimizers.OverArrays(optimizer, rate, np, expected)
    for _ in range(steps):
        gradient[:] = rng.standard_normal(6) + 0.5
        update()
        definition([gradient.astype("float64")])
    assert all(a > decay**steps for a, decay in zip(update.scales, update.rule.decays, strict=True))
    tolerance = dtypes.find(dtype).steps_tolerance
    assert relative_norm(flat, expected[0]) < tolerance
    for buffer, scale, state in zip(update.buffers, update.scales or [1.0], definition.states[0], strict=True):
        assert relative_norm(buffer * scale, state) < tolerance


@pytest.mark.parametrize("activation", ["relu", "gelu", "horner-4"])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_that_are_rounding_are_no_mismatch(optimizer: str, dtype: str, activation: str) -> None:
    """A parameter whose gradient is nearly zero moves as far as any other, one way or the other."""
    problem = problem_of(optimizer, activation, (64, 128, 128, 10), 256)
    check_step(NumpyFast(problem, dtype=dtype), Expected.of(problem, dtype))


# --- one definition -------------------------------------------------------------------------------------------------


def test_every_table_has_every_optimizer() -> None:
    assert list(reference.MOVES) == list(NAMES)
    assert list(in_place_updates.RULES) == KEPT
    pytest.importorskip("torch")
    from impls.torch_device import OPTIMIZERS as TORCH

    assert list(TORCH) == list(NAMES)
    pytest.importorskip("jax")
    from impls.jax_jit import OPTAX

    assert list(OPTAX) == KEPT


def test_first_steps_by_hand() -> None:
    g = [np.array([3.0, -0.5])]
    rates = {name: reference.first_move(problem_of(name), g)[0] / problem_of(name).learning_rate for name in NAMES}
    np.testing.assert_allclose(rates[USUAL], [3.0, -0.5])
    np.testing.assert_allclose(rates["momentum"], [3.0, -0.5])
    np.testing.assert_allclose(rates["nesterov"], [5.7, -0.95])
    np.testing.assert_allclose(rates["adagrad"], [3 / np.sqrt(9.1), -0.5 / np.sqrt(0.35)])
    np.testing.assert_allclose(rates["rmsprop"], [np.sqrt(10), -np.sqrt(10)], rtol=1e-7)
    np.testing.assert_allclose(rates["adam"], [1.0, -1.0], rtol=1e-7)  # both biases cancel: the sign alone is left


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("layers", [(3, 2), (5, 7, 6, 4)], ids=str)
def test_operations_equal_the_count(layers: tuple[int, ...], optimizer: str) -> None:
    network = Network(layers)
    counted = PythonScalars(make_problem(network, 2, optimizer=optimizer), counting=True)
    for steps in (1, 2):
        counted.step()
        formulas = counts.operations(network, 2, optimizer)
        assert {phase: counted.tally.total(phase) for phase in formulas} == {
            phase: steps * sum(kinds.values()) for phase, kinds in formulas.items()
        }


def test_counting_does_not_change_the_numbers() -> None:
    for optimizer in NAMES:
        plain, counted = (PythonScalars(problem_of(optimizer), counting=counting) for counting in (False, True))
        for _ in range(3):
            plain.step()
            counted.step()
        for one, other in zip(plain.parameters(), counted.parameters(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_unknown_optimizers_are_told() -> None:
    with pytest.raises(UserError, match=r"unknown optimizer 'adm': did you mean 'adam'\? known: gradient-descent, .*"):
        make_problem(Network((3, 2)), 1, optimizer="adm")


def test_what_cannot_be_done_is_said() -> None:
    network = Network(LAYERS)
    assert registry.find("sklearn").cannot(network, "adam") == "sklearn has no optimizer 'adam'"
    assert registry.find("sklearn").cannot(network, "nesterov") is None
    assert all(entry.cannot(network) is None for entry in registry.ENTRIES)


def test_the_usual_problem_stays_what_it_was() -> None:
    one, other = (make_problem(Network(LAYERS), 4, optimizer=name) for name in (USUAL, "adam"))
    assert (one.optimizer, one.learning_rate) == ("gradient-descent", 1e-3)
    assert make_problem(Network(LAYERS), 4).optimizer == USUAL
    for a, b in zip((one.inputs, *one.parameters), (other.inputs, *other.parameters), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("optimizer", NAMES)
def test_an_update_allocates_no_array(optimizer: str) -> None:
    instance = NumpyFast(make_problem(Network((64, 256, 256, 10)), 4, optimizer=optimizer))
    most, left = allocated(instance)
    assert most < 2048 < instance.theta.flat.nbytes
    assert left < 1024


# --- the checker is checked -----------------------------------------------------------------------------------------

Move = Callable[[int, Array, list[Array]], tuple[Array, list[Array]]]


class Wrong:
    """Right gradients, and an optimizer given by what step t takes from each array: ``move(t, g, states)``."""

    def __init__(self, problem: Problem, move: Move, starts: tuple[float, ...]) -> None:
        self.problem, self.move, self.steps = problem, move, 0
        self.theta = list(problem.parameters)
        self.states = [[np.full_like(p, start) for start in starts] for p in self.theta]

    def forward(self) -> None: ...
    def loss(self) -> None: ...
    def backward(self) -> None: ...
    def update(self) -> None: ...
    def synchronize(self) -> None: ...

    def step(self) -> None:
        self.steps += 1
        self.value, self.found = reference.loss_and_gradients(self.problem, self.theta)
        for i, g in enumerate(self.found):
            move, self.states[i] = self.move(self.steps, g, self.states[i])
            self.theta[i] = self.theta[i] - self.problem.learning_rate * move

    def parameters(self) -> list[AnyArray]:
        return list(self.theta)

    def gradients(self) -> list[AnyArray]:
        return list(self.found)

    def loss_value(self) -> float:
        return self.value


def adam(correct_m: bool = True, correct_v: bool = True, eps: str = "outside") -> Move:
    """Adam, right unless told otherwise."""

    def move(t: int, g: Array, states: list[Array]) -> tuple[Array, list[Array]]:
        m = 0.9 * states[0] + 0.1 * g
        v = 0.999 * states[1] + 0.001 * g * g
        m_hat = m / (1 - 0.9**t) if correct_m else m
        v_hat = v / (1 - 0.999**t) if correct_v else v
        if eps == "inside":
            return m_hat / np.sqrt(v_hat + 1e-8), [m, v]
        if eps == "beside the uncorrected root":
            return m_hat * np.sqrt(1 - 0.999**t) / (np.sqrt(v) + 1e-8), [m, v]
        return m_hat / (np.sqrt(v_hat) + 1e-8), [m, v]

    return move


def rmsprop(t: int, g: Array, states: list[Array]) -> tuple[Array, list[Array]]:
    """ε inside the root."""
    s = 0.9 * states[0] + 0.1 * g * g
    return g / np.sqrt(s + 1e-8), [s]


def velocity(form: str) -> Move:
    """Momentum: Polyak's, Nesterov's, and what is taken for them."""

    def move(t: int, g: Array, states: list[Array]) -> tuple[Array, list[Array]]:
        v = 0.9 * states[0] + (0.1 if form == "dampened" else 1.0) * g
        moves = {"nesterov": g + 0.9 * v, "nesterov of the last v": g + 0.9 * states[0], "v twice": v + 0.9 * v}
        return moves.get(form, v), [v]

    return move


def adagrad(t: int, g: Array, states: list[Array]) -> tuple[Array, list[Array]]:
    """As torch has it by default: ε outside the root, squares from zero."""
    s = states[0] + g * g
    return g / (np.sqrt(s) + 1e-10), [s]


PLANTED: dict[str, tuple[str, Move, tuple[float, ...], bool]] = {  # optimizer, move, starts, seen in the first step
    "adam without correction of m": ("adam", adam(correct_m=False), (0, 0), True),
    "adam without correction of v": ("adam", adam(correct_v=False), (0, 0), True),
    "adam without either": ("adam", adam(correct_m=False, correct_v=False), (0, 0), True),
    "adam with ε inside the root": ("adam", adam(eps="inside"), (0, 0), True),
    "adam with ε beside the uncorrected root": ("adam", adam(eps="beside the uncorrected root"), (0, 0), True),
    "rmsprop with ε inside the root": ("rmsprop", rmsprop, (0,), True),
    "adagrad with torch's defaults": ("adagrad", adagrad, (0,), True),
    "dampened momentum": ("momentum", velocity("dampened"), (0,), True),
    "momentum for nesterov": ("nesterov", velocity("polyak"), (0,), True),
    "nesterov for momentum": ("momentum", velocity("nesterov"), (0,), True),
    "nesterov of the last v": ("nesterov", velocity("nesterov of the last v"), (0,), True),
    "nesterov without its own g": ("nesterov", velocity("v twice"), (0,), False),
    "no momentum at all": ("momentum", lambda t, g, states: (g, states), (0,), False),
}
RIGHT: dict[str, tuple[Move, tuple[float, ...]]] = {
    "adam": (adam(), (0, 0)),
    "momentum": (velocity("polyak"), (0,)),
    "nesterov": (velocity("nesterov"), (0,)),
}


@pytest.mark.parametrize("what", PLANTED)
def test_wrong_optimizers_are_caught(what: str) -> None:
    name, move, starts, at_once = PLANTED[what]
    problem = problem_of(name)
    expected = Expected.of(problem, "float64")
    if at_once:
        with pytest.raises(Mismatch, match=rf"step differs .* mse, {name}, n=11"):
            check_step(Wrong(problem, move, starts), expected)
    with pytest.raises(Mismatch, match="what 10 steps moved differs"):
        check_steps(Wrong(problem, move, starts), expected)


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_are_not(name: str) -> None:
    problem = problem_of(name)
    expected = Expected.of(problem, "float64")
    check_step(Wrong(problem, *RIGHT[name]), expected)
    check_steps(Wrong(problem, *RIGHT[name]), expected)


def test_gross_errors_show_in_float32_too() -> None:
    for what in ("adam without either", "dampened momentum", "momentum for nesterov"):
        name, move, starts, _ = PLANTED[what]
        problem = problem_of(name)
        with pytest.raises(Mismatch):
            check_step(Wrong(problem, move, starts), Expected.of(problem, "float32"))


def test_arrays_follow_the_definition_to_rounding() -> None:
    """``OverArrays`` in float32 stays float32, and near what float64 says."""
    for name in KEPT:
        theta = [np.ones(5, "float32")]
        update = optimizers.OverArrays(name, 0.1, np, theta)
        for _ in range(3):
            update([np.linspace(-1, 1, 5, dtype="float32")])
        assert theta[0].dtype == np.float32
        assert all(state.dtype == np.float32 for state in update.states[0])
        wide = [np.ones(5)]
        exact = optimizers.OverArrays(name, 0.1, np, wide)
        for _ in range(3):
            exact([np.linspace(-1, 1, 5)])
        assert relative_norm(theta[0], wide[0]) < 1e-6
