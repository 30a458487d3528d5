"""Reverse mode, forward mode and central differences agree, in every library and with the reference; errors are caught."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from backprop_files import UserError
from impls import derivatives, reference, registry
from impls.conformance import Expected, Mismatch, relative_norm
from impls.derivatives import Derivatives, Shifts, flat
from impls.interface import Network, Problem
from impls.problem import make_problem

LAYERS = (5, 7, 6, 4)
N = 11
NAMES = tuple(derivatives.TARGETS)


def problem_of(activation: str, loss: str, n: int = N) -> Problem:
    return make_problem(Network(LAYERS, activation, loss), n, seed=3)


def prepared(name: str, problem: Problem, dtype: str = "float64") -> Derivatives:
    """The derivatives, or a skip with the reason."""
    if reason := registry.find(name).missing():
        pytest.skip(reason)
    return derivatives.prepare(name, problem, dtype=dtype)


def check_loss_and_reverse(found: Derivatives, expected: Expected) -> None:
    """The loss alone, and with all gradients.  Raises Mismatch."""
    for call in (found.loss, found.reverse):
        call()
        found.synchronize()
        expected.check_loss(found.value())
    expected.check_gradients(found.gradients())


def check_one_by_one(found: Derivatives, expected: Expected, start: int, count: int) -> None:
    """Derivatives by ``count`` parameters, by forward mode and by central differences.  Raises Mismatch."""
    for call, central in ((found.forward, False), (found.central, True)):
        call(start, count)
        found.synchronize()
        expected.check_derivatives(found.derivatives(), start, central)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(
    ("dtype", "activation"),
    # the steps of float32 are so long that they go across relu's kinks
    [("float64", "tanh"), ("float64", "relu"), ("float64", "gelu"), ("float32", "tanh"), ("float32", "gelu")],
)
@pytest.mark.parametrize("name", NAMES)
def test_all_three_agree_with_the_reference(name: str, dtype: str, activation: str, loss: str) -> None:
    problem = problem_of(activation, loss)
    expected = Expected.of(problem, dtype)
    found = prepared(name, problem, dtype)
    check_loss_and_reverse(found, expected)
    check_one_by_one(found, expected, 0, problem.network.m)
    check_loss_and_reverse(found, expected)  # parameters are where they were, and unit tangents are taken back
    check_one_by_one(found, expected, 3, 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_what_its_parameters_are_one_by_one(name: str) -> None:
    problem = problem_of("tanh", "cross_entropy")
    found = prepared(name, problem)
    m = problem.network.m
    for method in (found.forward, found.central):
        one_by_one = []
        for k in range(m):
            method(k, 1)
            one_by_one.append(found.derivatives())
        for start, count in ((0, m), (m - 9, 9)):  # the last ones are biases
            method(start, count)
            np.testing.assert_allclose(
                found.derivatives(), np.concatenate(one_by_one)[start : start + count], rtol=1e-9, atol=1e-13
            )


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_numpy_adds_up_over_blocks_of_examples(loss: str) -> None:
    problem = problem_of("gelu", loss, n=1100)  # three blocks
    expected = Expected.of(problem, "float64")
    found = prepared("numpy", problem)
    check_loss_and_reverse(found, expected)
    check_one_by_one(found, expected, 0, problem.network.m)


@pytest.mark.parametrize("part", ["loss", "reverse", "forward", "central"])
def test_a_planted_error_is_caught(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of("tanh", "mse")
    expected = Expected.of(problem, "float64")
    found = prepared("numpy", problem)
    if part == "loss":
        monkeypatch.setattr(found, "value", lambda: expected.loss * (1 + 1e-8))
    elif part == "reverse":
        wrong = [g.copy() for g in expected.gradients]
        wrong[3][0] *= 1 + 1e-6  # one bias of many
        monkeypatch.setattr(found, "gradients", lambda: wrong)
    else:
        shift = 2 if part == "forward" else 2e5
        method = getattr(found, part)

        def off(start: int, count: int) -> None:
            method(start, count)
            found._found[0] *= 1 + shift * 1e-8  # type: ignore[attr-defined]

        monkeypatch.setattr(found, part, off)
    with pytest.raises(Mismatch):
        check_loss_and_reverse(found, expected)
        check_one_by_one(found, expected, 0, 10)


def test_a_neighbours_derivative_is_caught() -> None:
    """An order of parameters of its own would be as good a gradient: the check must see it."""
    problem = problem_of("tanh", "mse")
    expected = Expected.of(problem, "float64")
    for central in (False, True):
        with pytest.raises(Mismatch):
            expected.check_derivatives(flat(expected.gradients)[1:11], 0, central)
        with pytest.raises(Mismatch, match="shape"):
            expected.check_derivatives(flat(expected.gradients)[:10, None], 0, central)


def test_shifts_are_told_as_they_were_rounded() -> None:
    theta = np.array([0.0, 0.3, -70.0], np.float32)
    shifts = Shifts.of(theta)
    assert shifts.up.dtype == theta.dtype
    h = np.cbrt(np.finfo(np.float32).eps)
    np.testing.assert_allclose(shifts.apart, 2 * h * np.array([1, 1, 70]), rtol=1e-4)
    assert shifts.apart[2] == float(shifts.up[2]) - float(shifts.down[2])


def test_central_differences_of_the_reference_itself() -> None:
    """What is held against the reference is held against the definition, without any library."""
    problem = problem_of("tanh", "cross_entropy")
    theta = flat(problem.parameters)
    shifts = Shifts.of(theta)

    def loss_at(k: int, value: float) -> float:
        moved = theta.copy()
        moved[k] = value
        ends = np.cumsum([p.size for p in problem.parameters])[:-1]
        parts = [a.reshape(p.shape) for a, p in zip(np.split(moved, ends), problem.parameters, strict=True)]
        return reference.loss(problem, parts)

    found = [(loss_at(k, shifts.up[k]) - loss_at(k, shifts.down[k])) / shifts.apart[k] for k in range(len(theta))]
    assert relative_norm(np.array(found), flat(reference.loss_and_gradients(problem)[1])) < 1e-8


def test_an_unknown_name_is_told_with_what_there_is() -> None:
    with pytest.raises(UserError, match="numpy"):
        derivatives.prepare("nump", problem_of("tanh", "mse"))


def test_listing_imports_no_library() -> None:
    code = "import sys, impls.derivatives; sys.exit(any(name in sys.modules for name in ('torch', 'jax', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
