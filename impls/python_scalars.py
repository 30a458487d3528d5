"""Pure Python scalars: the exact truth for small networks.

With ``counting=True`` the very same code runs on ``Counted`` numbers, each of which tallies the operations done to
it; the sums are the counts of ``impls.counts``, measured instead of derived.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from operator import mul
from types import SimpleNamespace
from typing import Any

import numpy as np

from impls import activations, optimizers
from impls.interface import AnyArray, Problem

#: A float, or a ``Counted`` that behaves like one.
Scalar = Any
Vector = list[Scalar]

FLOATS = SimpleNamespace(
    tanh=math.tanh,
    exp=math.exp,
    log=math.log,
    log1p=math.log1p,
    expm1=math.expm1,
    erf=math.erf,
    sqrt=math.sqrt,
    maximum=lambda a, b: a if a > b else b,
    absolute=abs,
    where=lambda condition, yes, no: yes if condition else no,
)


class Tally:
    """Operations by phase and kind: add, multiply, divide, compare, transcendental, sign."""

    def __init__(self) -> None:
        self.phase = "forward"
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str) -> None:
        self.counts[self.phase, kind] += 1

    def total(self, phase: str) -> int:
        """All operations of one phase."""
        return sum(count for (name, _), count in self.counts.items() if name == phase)


class Counted:
    """A number that counts what is done to it."""

    __slots__ = ("tally", "value")

    def __init__(self, value: float, tally: Tally) -> None:
        self.value = value
        self.tally = tally

    def _binary(self, other: Any, kind: str, result: Callable[[float, float], float], swap: bool = False) -> Counted:
        self.tally.add(kind)
        a, b = self.value, other.value if isinstance(other, Counted) else other
        return Counted(result(b, a) if swap else result(a, b), self.tally)

    def __add__(self, other: Any) -> Counted:
        return self._binary(other, "add", lambda a, b: a + b)

    def __sub__(self, other: Any) -> Counted:
        return self._binary(other, "add", lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Counted:
        return self._binary(other, "add", lambda a, b: a - b, swap=True)

    def __mul__(self, other: Any) -> Counted:
        return self._binary(other, "multiply", lambda a, b: a * b)

    def __truediv__(self, other: Any) -> Counted:
        return self._binary(other, "divide", lambda a, b: a / b)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rpow__(self, base: float) -> Counted:
        return self.unary("transcendental", lambda exponent: float(base**exponent))

    def __neg__(self) -> Counted:
        return self.unary("sign", float.__neg__)

    def __abs__(self) -> Counted:
        return self.unary("sign", abs)

    def __gt__(self, other: Any) -> bool:
        self.tally.add("compare")
        return bool(self.value > (other.value if isinstance(other, Counted) else other))

    def unary(self, kind: str, function: Callable[[float], float]) -> Counted:
        """Apply a function of one number."""
        self.tally.add(kind)
        return Counted(function(self.value), self.tally)


def _transcendental(name: str) -> Callable[[Counted], Counted]:
    function = getattr(math, name)
    return lambda x: x.unary("transcendental", function)


COUNTING = SimpleNamespace(
    **{name: _transcendental(name) for name in ("tanh", "exp", "log", "log1p", "expm1", "erf", "sqrt")},
    maximum=FLOATS.maximum,
    absolute=abs,
    where=FLOATS.where,
)


class PythonScalars:
    """Backpropagation as nested loops over Python floats (float64), one example after another."""

    def __init__(
        self, problem: Problem, device: str = "cpu", dtype: str = "float64", threads: int = 1, counting: bool = False
    ) -> None:
        network = problem.network
        self.tally = Tally()
        self.xp = COUNTING if counting else FLOATS
        number: Callable[[float], Scalar] = (lambda x: Counted(x, self.tally)) if counting else float
        self.f = activations.find(network.activation)
        self.compute_loss = {"mse": self._mse, "cross_entropy": self._cross_entropy}[network.loss]
        self.inputs = _numbers(problem.inputs, number)
        self.targets = _numbers(problem.targets, number)
        self.learning_rate = number(problem.learning_rate)
        self.optimizer = optimizers.find(problem.optimizer)
        self.number, self.steps = number, 0
        # W[layer][unit] holds the unit's incoming weights
        self.W = [_numbers(w.T, number) for w in problem.parameters[0::2]]
        self.b = [_numbers(b, number) for b in problem.parameters[1::2]]
        # for every row of parameters, lists of its states
        self.states = [
            [[number(start) for _ in row] for start in self.optimizer.starts] for row in _rows(self.W, self.b)
        ]
        # the mean over examples, for mse over outputs too; mse's derivative brings a 2
        self.loss_scale = 1.0 / (problem.n * (network.layers[-1] if network.loss == "mse" else 1))
        self.delta_scale = self.loss_scale * (2.0 if network.loss == "mse" else 1.0)
        self._loss: Scalar = math.nan

    def forward(self) -> None:
        """z_l = W_l h_{l-1} + b_l,  h_l = f(z_l), for every example."""
        self.tally.phase = "forward"
        self.z, self.h = [], []
        last = len(self.W) - 1
        for x in self.inputs:
            zs: list[Vector] = []
            hs = [x]
            for layer, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
                zs.append([sum(map(mul, w, hs[-1]), start) for w, start in zip(W, b, strict=True)])
                if layer < last:
                    hs.append([self.f.value(self.xp, z) for z in zs[-1]])
            self.z.append(zs)
            self.h.append(hs)

    def loss(self) -> None:
        """The loss over all examples, and δ of the output layer."""
        self.tally.phase = "loss"
        terms, self.delta = zip(
            *(self.compute_loss(zs[-1], t) for zs, t in zip(self.z, self.targets, strict=True)), strict=True
        )
        self._loss = sum(terms) * self.loss_scale

    def _mse(self, y: Vector, t: Vector) -> tuple[Scalar, Vector]:
        difference = [a - b for a, b in zip(y, t, strict=True)]
        return sum(d * d for d in difference), [d * self.delta_scale for d in difference]

    def _cross_entropy(self, y: Vector, t: Vector) -> tuple[Scalar, Vector]:
        # -Σ t log softmax(y) = log Σ exp(y - max y) - Σ t (y - max y)
        peak = y[0]
        for value in y[1:]:
            peak = self.xp.maximum(peak, value)
        shifted = [value - peak for value in y]
        powers = [self.xp.exp(s) for s in shifted]
        total = sum(powers)
        term = self.xp.log(total) - sum(map(mul, t, shifted))
        return term, [(e / total - target) * self.delta_scale for e, target in zip(powers, t, strict=True)]

    def backward(self) -> None:
        """Sum ∂L/∂W_l = δ_l h_{l-1}^T and ∂L/∂b_l = δ_l over examples, δ_{l-1} = (W_l^T δ_l) ∘ f'(z_{l-1})."""
        self.tally.phase = "backward"
        self.gW = [[[0.0] * len(w) for w in W] for W in self.W]
        self.gb = [[0.0] * len(b) for b in self.b]
        for zs, hs, output_delta in zip(self.z, self.h, self.delta, strict=True):
            delta: Vector = output_delta
            for layer in range(len(self.W) - 1, -1, -1):
                h = hs[layer]
                self.gb[layer] = [g + d for g, d in zip(self.gb[layer], delta, strict=True)]
                self.gW[layer] = [
                    [g + d * x for g, x in zip(row, h, strict=True)]
                    for row, d in zip(self.gW[layer], delta, strict=True)
                ]
                if layer:
                    back = [sum(map(mul, column, delta)) for column in zip(*self.W[layer], strict=True)]
                    delta = [
                        d * self.f.derivative(self.xp, z, a) for d, z, a in zip(back, zs[layer - 1], h, strict=True)
                    ]

    def update(self) -> None:
        """What the optimizer does to θ, number by number."""
        self.tally.phase = "update"
        if self.optimizer.name == optimizers.USUAL:
            self._descend()
            return
        self.steps += 1
        sizes = self.optimizer.sizes(self.xp, self.learning_rate, self.number(self.steps))
        for row, gradients, states in zip(_rows(self.W, self.b), _rows(self.gW, self.gb), self.states, strict=True):
            found = [
                self.optimizer.moved(self.xp, sizes, x, g, *kept)
                for x, g, *kept in zip(row, gradients, *states, strict=True)
            ]
            row[:], *states[:] = map(list, zip(*found, strict=True))

    def _descend(self) -> None:
        # θ ← θ - η ∂L/∂θ, without a call for every number
        rate = self.learning_rate
        for W, gW in zip(self.W, self.gW, strict=True):
            W[:] = [[w - rate * g for w, g in zip(*rows, strict=True)] for rows in zip(W, gW, strict=True)]
        for b, gb in zip(self.b, self.gb, strict=True):
            b[:] = [x - rate * g for x, g in zip(b, gb, strict=True)]

    def step(self) -> None:
        """The four phases; pure Python has nothing to fuse."""
        self.forward()
        self.loss()
        self.backward()
        self.update()

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return _arrays(self.W, self.b)

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``."""
        return _arrays(self.gW, self.gb)

    def loss_value(self) -> float:
        """The loss last computed."""
        return _plain(self._loss)


def _numbers(array: AnyArray, number: Callable[[float], Scalar]) -> Any:
    return [_numbers(row, number) for row in array] if array.ndim > 1 else [number(x) for x in array.tolist()]


def _rows(W: list[list[Vector]], b: list[Vector]) -> list[Vector]:
    return [*(row for weights in W for row in weights), *b]


def _plain(x: Scalar) -> float:
    return float(x.value if isinstance(x, Counted) else x)


def _arrays(W: list[list[Vector]], b: list[Vector]) -> list[AnyArray]:
    arrays: list[AnyArray] = []
    for weights, bias in zip(W, b, strict=True):
        arrays += [np.array([[_plain(w) for w in row] for row in weights]).T, np.array([_plain(x) for x in bias])]
    return arrays
