"""Activations as data: a formula, its derivative, and the exact number of operations of both.

Each formula is written once over an array namespace ``xp`` (NumPy, jax.numpy, autograd.numpy, or the scalars of the
``python`` implementation), with the names of NumPy plus ``erf``.  The derivative may use the value ``a = f(z)``.
Counts are what the formulas execute; ``tests/test_counts.py`` holds them against the counting implementation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backprop_files import UserError
from impls.names import nearest

Formula = Callable[..., Any]


@dataclass(frozen=True)
class Activation:
    """``value(xp, z)`` and ``derivative(xp, z, a)`` with their operations per unit."""

    name: str
    value: Formula
    derivative: Formula
    value_operations: int
    derivative_operations: int

    @property
    def p(self) -> int:
        """Operations to compute one unit's activation and its derivative."""
        return self.value_operations + self.derivative_operations


LEAK = 0.01
SQRT_HALF = math.sqrt(0.5)
INVERSE_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


def _sigmoid(xp: Any, z: Any) -> Any:
    # 1 / (1 + e^-z) = tanh(z / 2) / 2 + 1 / 2, which cannot overflow
    return xp.tanh(z * 0.5) * 0.5 + 0.5


def _softplus(xp: Any, z: Any) -> Any:
    # log(1 + e^z) = max(z, 0) + log(1 + e^-|z|), which cannot overflow
    return xp.maximum(z, 0.0) + xp.log1p(xp.exp(-xp.absolute(z)))


def _normal_cdf(xp: Any, z: Any) -> Any:
    return (xp.erf(z * SQRT_HALF) + 1.0) * 0.5


def _gelu_derivative(xp: Any, z: Any, a: Any) -> Any:
    # d(z Φ(z))/dz = Φ(z) + z φ(z)
    return _normal_cdf(xp, z) + z * (xp.exp(z * z * -0.5) * INVERSE_SQRT_2PI)


def _silu_derivative(xp: Any, z: Any, a: Any) -> Any:
    # d(z σ(z))/dz = σ + z σ (1 - σ) = σ + a (1 - σ)
    sigma = _sigmoid(xp, z)
    return sigma + a * (1.0 - sigma)


_PLAIN = (
    Activation("identity", lambda xp, z: z, lambda xp, z, a: 1.0, 0, 0),
    Activation("relu", lambda xp, z: xp.maximum(z, 0.0), lambda xp, z, a: xp.where(z > 0, 1.0, 0.0), 1, 1),
    Activation(
        "leaky_relu",
        lambda xp, z: xp.maximum(z, z * LEAK),
        lambda xp, z, a: xp.where(z > 0, 1.0, LEAK),
        2,
        1,
    ),
    Activation("sigmoid", _sigmoid, lambda xp, z, a: a * (1.0 - a), 4, 2),
    Activation("tanh", lambda xp, z: xp.tanh(z), lambda xp, z, a: 1.0 - a * a, 1, 2),
    Activation("softplus", _softplus, lambda xp, z, a: -xp.expm1(-a), 6, 3),
    Activation("gelu", lambda xp, z: z * _normal_cdf(xp, z), _gelu_derivative, 5, 10),
    Activation("silu", lambda xp, z: z * _sigmoid(xp, z), _silu_derivative, 5, 7),
)

#: Degrees K of ``horner-K``; |z| up to twice the radius stays far from overflow in float32 at any of them.
HORNER_DEGREES = range(1, 65)
#: ``horner-K`` evaluates in y = z / HORNER_RADIUS, so that every coefficient is of order 1 and no product is subnormal.
HORNER_RADIUS = 16.0


def horner_coefficients(degree: int) -> tuple[list[float], list[float]]:
    """Coefficients in y = z / 16, constant first, of ``horner-K`` and of its derivative by z.

    f(z) = z + (1 + y² + y³ + … + y^K) / 8: nearly linear, so that signals neither die nor explode however deep the
    network is, and K sets the cost alone.
    """
    value = [0.125] * (degree + 1)
    value[1] = HORNER_RADIUS
    derivative = [k * c / HORNER_RADIUS for k, c in enumerate(value)][1:]
    return value, derivative


def _evaluate(coefficients: list[float], z: Any) -> Any:
    # ((c_K y + c_{K-1}) y + …) y + c_0: K multiplications and K additions, and one multiplication for y
    y = z * (1 / HORNER_RADIUS)
    result: Any = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * y + coefficient
    return result


def horner(degree: int) -> Activation:
    """The dial for p: a polynomial of ``degree`` K by Horner's rule, p = (2K + 1) + (2K - 1) = 4K operations."""
    value, derivative = horner_coefficients(degree)
    return Activation(
        f"horner-{degree}",
        lambda xp, z: _evaluate(value, z),
        lambda xp, z, a: _evaluate(derivative, z),
        2 * degree + 1,
        2 * degree - 1,
    )


PLAIN_NAMES = tuple(activation.name for activation in _PLAIN)
_BY_NAME = {activation.name: activation for activation in _PLAIN}


def horner_degree(name: str) -> int | None:
    """K of ``horner-K``, None for any other name."""
    match = re.fullmatch(r"horner-(\d+)", name)
    return int(match[1]) if match and int(match[1]) in HORNER_DEGREES else None


def find(name: str) -> Activation:
    """Look an activation up.  Raises UserError with the nearest known name."""
    degree = horner_degree(name)
    if degree is not None:
        return horner(degree)
    if name not in _BY_NAME:
        known = (*PLAIN_NAMES, f"horner-K (K from {HORNER_DEGREES[0]} to {HORNER_DEGREES[-1]})")
        raise UserError(nearest("activation", name, known))
    return _BY_NAME[name]
