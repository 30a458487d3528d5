"""NumPy, one example at a time, as textbooks write it (Nielsen, *Neural Networks and Deep Learning*, ch. 2)."""

from __future__ import annotations

import numpy as np

from impls import activations
from impls.interface import AnyArray, Problem
from impls.losses import LOSSES
from impls.optimizers import OverArrays
from impls.reference import XP


class NumpyLoop:
    """Backpropagation with matrix-vector products; every array is fresh, every example its own little pass."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self.f = activations.find(problem.network.activation)
        self.criterion = LOSSES[problem.network.loss]
        self.n = problem.n
        self.x = problem.inputs.astype(dtype)
        self.t = problem.targets.astype(dtype)
        self.W = [w.T.astype(dtype) for w in problem.parameters[0::2]]
        self.b = [b.astype(dtype) for b in problem.parameters[1::2]]
        self.optimize = OverArrays(problem.optimizer, problem.learning_rate, XP, [*self.W, *self.b])
        self._loss = float("nan")

    def forward(self) -> None:
        """z_l = W_l h_{l-1} + b_l,  h_l = f(z_l)."""
        self.examples = [self._forward_one(x) for x in self.x]

    def _forward_one(self, x: AnyArray) -> tuple[list[AnyArray], list[AnyArray]]:
        zs: list[AnyArray] = []
        hs = [x]
        for layer, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            if layer:
                hs.append(self.f.value(XP, zs[-1]))
            zs.append(W @ hs[-1] + b)
        return zs, hs

    def loss(self) -> None:
        """The mean loss, and each example's δ of the output layer."""
        total = 0.0
        self.deltas = []
        for (zs, _), t in zip(self.examples, self.t, strict=True):
            y, row = zs[-1][None], t[None]
            total += self.criterion.value(XP, y, row)
            self.deltas.append(self.criterion.delta(XP, y, row)[0] / self.n)
        self._loss = float(total / self.n)

    def backward(self) -> None:
        """∂L/∂W_l = Σ δ_l h_{l-1}^T,  ∂L/∂b_l = Σ δ_l,  δ_{l-1} = (W_l^T δ_l) ∘ f'(z_{l-1})."""
        self.gW = [np.zeros_like(W) for W in self.W]
        self.gb = [np.zeros_like(b) for b in self.b]
        for (zs, hs), output_delta in zip(self.examples, self.deltas, strict=True):
            delta = output_delta
            for layer in reversed(range(len(self.W))):
                self.gW[layer] += np.outer(delta, hs[layer])
                self.gb[layer] += delta
                if layer:
                    delta = (self.W[layer].T @ delta) * self.f.derivative(XP, zs[layer - 1], hs[layer])

    def update(self) -> None:
        """What the optimizer does to θ."""
        self.optimize([*self.gW, *self.gb])

    def step(self) -> None:
        """The four phases."""
        self.forward()
        self.loss()
        self.backward()
        self.update()

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return _interleave(self.W, self.b)

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``."""
        return _interleave(self.gW, self.gb)

    def loss_value(self) -> float:
        """The loss last computed."""
        return self._loss


def _interleave(W: list[AnyArray], b: list[AnyArray]) -> list[AnyArray]:
    return [array for w, x in zip(W, b, strict=True) for array in (w.T.copy(), x.copy())]
