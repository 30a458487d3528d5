"""A peer: HIPS autograd, gradients traced over NumPy code at every step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from autograd.scipy.special import erf

from impls import activations
from impls.interface import AnyArray, Problem
from impls.losses import LOSSES
from impls.optimizers import OverArrays
from impls.reference import XP as NUMPY

XP = SimpleNamespace(
    **{
        name: getattr(anp, name)
        for name in ("tanh", "exp", "log", "log1p", "expm1", "maximum", "absolute", "where", "mean", "sum", "max")
    },
    erf=erf,
)


class AutogradHips:
    """``value_and_grad`` over plain NumPy code, then the optimizer; whole steps only."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self.network = problem.network
        self.f = activations.find(self.network.activation)
        self.criterion = LOSSES[self.network.loss]
        self.theta = [p.astype(dtype) for p in problem.parameters]
        self.x, self.t = problem.inputs.astype(dtype), problem.targets.astype(dtype)
        self.optimize = OverArrays(problem.optimizer, problem.learning_rate, NUMPY, self.theta)
        self.value_and_gradients = value_and_grad(self._loss)
        self.value: Any = np.nan
        self.grads: list[AnyArray] = []

    def _loss(self, theta: list[AnyArray]) -> Any:
        h = self.x
        for layer in range(self.network.depth):
            z = anp.dot(h, theta[2 * layer]) + theta[2 * layer + 1]
            h = self.f.value(XP, z) if layer < self.network.depth - 1 else z
        return self.criterion.value(XP, h, self.t)

    def step(self) -> None:
        """Trace, pull back, descend."""
        self.value, self.grads = self.value_and_gradients(self.theta)
        self.optimize(self.grads)

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return [p.copy() for p in self.theta]

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``."""
        return [np.array(g) for g in self.grads]

    def loss_value(self) -> float:
        """The loss last computed."""
        return float(self.value)
