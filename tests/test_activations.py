"""The dial p: horner-K is what it says, at every K, without overflow or subnormals."""

from __future__ import annotations

import numpy as np
import pytest

from backprop_files import UserError
from impls import activations
from impls.activations import HORNER_DEGREES, HORNER_RADIUS, horner, horner_coefficients
from impls.interface import AnyArray, Array, Network
from impls.problem import make_problem
from impls.reference import XP, _forward

Z = np.concatenate([np.linspace(-HORNER_RADIUS, HORNER_RADIUS, 2001), [1e-20, -1e-20, 1e-8, 0.0]])


@pytest.mark.parametrize("degree", HORNER_DEGREES)
def test_horner_is_its_polynomial(degree: int) -> None:
    f = horner(degree)
    value, derivative = horner_coefficients(degree)
    polynomial = np.polynomial.Polynomial(value)
    np.testing.assert_allclose(f.value(XP, Z), polynomial(Z / HORNER_RADIUS), rtol=1e-12, atol=1e-14)
    slope = polynomial.deriv()(Z / HORNER_RADIUS) / HORNER_RADIUS
    np.testing.assert_allclose(f.derivative(XP, Z, None) + 0 * Z, slope, rtol=1e-12, atol=1e-14)
    assert len(value) == degree + 1
    assert len(derivative) == degree
    assert f.p == 4 * degree


def intermediates(coefficients: list[float], z: Array) -> list[AnyArray]:
    """Everything Horner's rule computes on the way, in float32."""
    y = z.astype(np.float32) * np.float32(1 / HORNER_RADIUS)
    result = np.full_like(y, coefficients[-1])
    found = [y]
    for coefficient in coefficients[-2::-1]:
        product = result * y
        result = product + np.float32(coefficient)
        found += [product, result]
    return found


@pytest.mark.parametrize("degree", HORNER_DEGREES)
def test_horner_never_overflows_or_goes_subnormal(degree: int) -> None:
    network = Network((64, *[16] * 12, 10), f"horner-{degree}")
    problem = make_problem(network, 64, seed=degree)
    zs, _ = _forward(network, problem.parameters, problem.inputs)
    met = np.concatenate([Z, *(z.ravel() for z in zs)])
    tiny = np.finfo(np.float32).tiny
    with np.errstate(over="raise", under="raise"):
        for coefficients in horner_coefficients(degree):
            for array in intermediates(coefficients, met):
                assert np.isfinite(array).all()
                assert not np.any((array != 0) & (np.abs(array) < tiny))


@pytest.mark.parametrize("depth", [1, 8, 32])
@pytest.mark.parametrize("degree", [1, 4, 32])
def test_signals_survive_depth(degree: int, depth: int) -> None:
    network = Network((64, *[64] * depth, 10), f"horner-{degree}")
    problem = make_problem(network, 32)
    zs, _ = _forward(network, problem.parameters, problem.inputs)
    assert all(0.05 < z.std() < 5 for z in zs)


def test_names() -> None:
    assert activations.horner_degree("horner-7") == 7
    assert activations.horner_degree("horner-0") is None
    assert activations.horner_degree(f"horner-{HORNER_DEGREES[-1] + 1}") is None
    with pytest.raises(UserError, match="did you mean 'sigmoid'"):
        activations.find("sigmoed")
    with pytest.raises(UserError, match="horner-K"):
        activations.find("horner-0")
