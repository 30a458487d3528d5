"""Correct before fast: does an implementation compute what the float64 NumPy reference says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from impls import reference
from impls.interface import AnyArray, Array, Backprop, Problem

#: Largest relative norm of the difference to the float64 reference.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}


class Mismatch(Exception):
    """An implementation does not compute what the reference says."""


@dataclass(frozen=True, eq=False)
class Expected:
    """What the reference says of a problem at its starting parameters."""

    problem: Problem
    loss: float
    gradients: list[Array]
    tolerance: float
    epsilon: float  # rounding unit of the dtype

    @classmethod
    def of(cls, problem: Problem, dtype: str) -> Expected:
        """Compute the reference's loss and gradients for a problem."""
        loss, gradients = reference.loss_and_gradients(problem)
        return cls(problem, loss, gradients, TOLERANCE[dtype], float(np.finfo(dtype).eps))

    def check_loss(self, value: float) -> float:
        """Relative error of the loss.  Raises Mismatch."""
        return self._judge("loss", abs(value - self.loss) / max(abs(self.loss), 1e-30))

    def check_gradients(self, found: Sequence[AnyArray]) -> float:
        """Largest relative error over the gradient arrays and their whole.  Raises Mismatch."""
        check_shapes("gradients", self.gradients, found)
        whole = relative_norm(_flat(found), _flat(self.gradients))
        # a bias gradient is far smaller than the rest: judged array by array, a missing one cannot hide
        parts = [relative_norm(f, g) for f, g in zip(found, self.gradients, strict=True)]
        return self._judge("gradient", float(np.max([whole, *parts])))  # keeps NaN, unlike max()

    def check_step(self, after: Sequence[AnyArray]) -> float:
        """How far the parameters after one step are from θ - η g, relative to η g.  Raises Mismatch.

        Rounding of θ itself may hide that much of the small move, so it is allowed for.
        """
        check_shapes("parameters", self.gradients, after)
        rate, before = self.problem.learning_rate, _flat(self.problem.parameters)
        move = rate * _flat(self.gradients)
        rounding = 2 * self.epsilon * np.linalg.norm(before)
        excess = float(np.maximum(np.linalg.norm(_flat(after) - (before - move)) - rounding, 0.0))  # keeps NaN
        return self._judge("step", excess / max(float(np.linalg.norm(move)), 1e-300))

    def _judge(self, what: str, error: float) -> float:
        if not error <= self.tolerance:  # NaN is a mismatch too
            raise Mismatch(
                f"{what} differs from the float64 reference by {error:.2g} (relative norm), "
                f"allowed {self.tolerance:g}, for layers {'-'.join(map(str, self.problem.network.layers))}, "
                f"{self.problem.network.activation}, {self.problem.network.loss}, n={self.problem.n}"
            )
        return error


def check_phases(implementation: Backprop, expected: Expected) -> None:
    """Forward, loss and backward from the start, no update.  Raises Mismatch."""
    implementation.forward()
    implementation.loss()
    implementation.backward()
    implementation.synchronize()
    expected.check_loss(implementation.loss_value())
    expected.check_gradients(implementation.gradients())


def check_step(implementation: Backprop, expected: Expected) -> None:
    """One step from the start.  Raises Mismatch."""
    implementation.step()
    implementation.synchronize()
    expected.check_loss(implementation.loss_value())
    expected.check_step(implementation.parameters())


def relative_norm(found: AnyArray, expected: AnyArray) -> float:
    """‖found - expected‖ / ‖expected‖."""
    difference = float(np.linalg.norm(np.asarray(found, float) - expected))
    scale = float(np.linalg.norm(expected))
    return difference / scale if scale else difference


def check_shapes(what: str, expected: Sequence[AnyArray], found: Sequence[AnyArray]) -> None:
    """Raise Mismatch unless both hold arrays of the same shapes."""
    wanted, got = [a.shape for a in expected], [np.shape(a) for a in found]
    if wanted != got:
        raise Mismatch(f"{what} have shapes {got}, expected {wanted}")


def _flat(arrays: Sequence[AnyArray]) -> AnyArray:
    return np.concatenate([np.asarray(a, float).ravel() for a in arrays])
