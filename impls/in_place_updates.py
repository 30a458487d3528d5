"""Optimizers in place over flat buffers, for the straight line: nothing is allocated, and memory is gone through once.

An update does so little to each number that it costs what moving θ, g and the states costs, if they move only once: so
all calls of one block follow each other while it is in cache, then those of the next.  A rule writes down one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from impls import optimizers
from impls.optimizers import Numbers, Optimizer

if TYPE_CHECKING:
    from impls.straight_line import Operations, Tensor

#: rule(sizes, theta, g, s, *states): one block; ``sizes`` as ``Optimizer.sizes`` gives them, s is scratch of its length.
Rule = Callable[..., None]


def _momentum(o: Operations, h: Any) -> Rule:
    decay = o.constant(h.decay)

    def rule(sizes: Numbers, theta: Tensor, g: Tensor, s: Tensor, v: Tensor) -> None:
        o.multiply(v, decay, v)  # v ← μ v + g
        o.add(v, g, v)
        o.add_scaled(-sizes[0], v, theta)  # θ ← θ - η v

    return rule


def _nesterov(o: Operations, h: Any) -> Rule:
    decay = o.constant(h.decay)

    def rule(sizes: Numbers, theta: Tensor, g: Tensor, s: Tensor, v: Tensor) -> None:
        o.multiply(v, decay, v)  # v ← μ v + g
        o.add(v, g, v)
        o.add_scaled(-sizes[0], g, theta)  # θ ← θ - η g - η μ v
        o.add_scaled(-sizes[0] * h.decay, v, theta)

    return rule


def _adagrad(o: Operations, h: Any) -> Rule:
    def rule(sizes: Numbers, theta: Tensor, g: Tensor, s: Tensor, squares: Tensor) -> None:
        o.add_squared(1.0, g, squares, s)  # s ← s + g²
        o.sqrt(squares, s)
        o.add_quotient(-sizes[0], g, s, theta)  # θ ← θ - η g / √s

    return rule


def _rmsprop(o: Operations, h: Any) -> Rule:
    decay, eps = o.constant(h.decay), o.constant(h.eps)

    def rule(sizes: Numbers, theta: Tensor, g: Tensor, s: Tensor, squares: Tensor) -> None:
        o.multiply(squares, decay, squares)  # s ← ρ s + (1 - ρ) g²
        o.add_squared(1.0 - h.decay, g, squares, s)
        o.sqrt(squares, s)
        o.add(s, eps, s)
        o.add_quotient(-sizes[0], g, s, theta)  # θ ← θ - η g / (√s + ε)

    return rule


def _adam(o: Operations, h: Any) -> Rule:
    beta1, beta2 = o.constant(h.beta1), o.constant(h.beta2)

    def rule(sizes: Numbers, theta: Tensor, g: Tensor, s: Tensor, m: Tensor, v: Tensor) -> None:
        rate, eps = sizes
        o.multiply(m, beta1, m)  # m ← β1 m + (1 - β1) g
        o.add_scaled(1.0 - h.beta1, g, m)
        o.multiply(v, beta2, v)  # v ← β2 v + (1 - β2) g²
        o.add_squared(1.0 - h.beta2, g, v, s)
        o.sqrt(v, s)
        o.add(s, eps, s)
        o.add_quotient(-rate, m, s, theta)  # θ ← θ - η' m / (√v + ε')

    return rule


RULES: dict[str, Callable[[Operations, Any], Rule]] = {
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
}


class Update:
    """One problem's update as a call; holds the states, and counts the steps.

    ``flat`` and ``gradient`` are the flat buffers, of which ``block`` numbers at a time are worked on.
    """

    def __init__(self, ops: Operations, name: str, rate: float, flat: Tensor, gradient: Tensor, block: int) -> None:
        self.optimizer: Optimizer = optimizers.find(name)
        self.rate = rate
        self.steps = 0
        size = len(flat)
        states = [ops.empty(size) for _ in self.optimizer.starts]
        for state, start in zip(states, self.optimizer.starts, strict=True):
            state[:] = start
        scratch = ops.empty(min(block, size))
        slices = [slice(start, min(start + block, size)) for start in range(0, size, block)]
        self.blocks = [
            (flat[part], gradient[part], scratch[: part.stop - part.start], *(state[part] for state in states))
            for part in slices
        ]
        self.rule = RULES[name](ops, self.optimizer)

    def __call__(self) -> None:
        """The next step's."""
        self.steps += 1
        sizes = self.optimizer.sizes(math, self.rate, self.steps)
        rule = self.rule
        for block in self.blocks:
            rule(sizes, *block)
