"""Optimizers in place over flat buffers, for the straight line: nothing is allocated, and memory is gone through once.

An update does so little to each number that it costs what moving θ, g and the states costs, if they move only once: so
all calls of one block follow each other while it is near, then those of the next.  A rule writes down one block.

Decay costs no call.  A state that decays, v ← μ v + g, is kept as a buffer v' and a number a, v = a v': decay multiplies the
number, a ← μ a, and what is added is divided by it, v' ← v' + g / a.  Where a has become small the buffer takes it over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any

from impls import optimizers
from impls.optimizers import Numbers, Optimizer

if TYPE_CHECKING:
    from impls.straight_line import Operations, Tensor

#: A buffer takes over a scale below this: numbers never are a thousand times those of the state itself, however long it
#: runs, and with a decay of 0.9 a multiplication is left every 66 steps.
SMALLEST_SCALE = 2.0**-10


@dataclass(frozen=True)
class Rule:
    """An optimizer in place: ``decays`` by state, within (0, 1), or none; what a step computes once; what it does to a block.

    ``once(sizes, *scales)`` gets ``Optimizer.sizes`` and the states' scales after the decay, and gives numbers;
    ``block(numbers, theta, g, s, *buffers)`` has scratch s of the block's length.
    """

    decays: tuple[float, ...]
    once: Callable[..., Numbers]
    block: Callable[..., None]


def _momentum(o: Operations, h: Any) -> Rule:
    def once(sizes: Numbers, a: float) -> Numbers:
        return 1.0 / a, -sizes[0] * a

    def block(numbers: Numbers, theta: Tensor, g: Tensor, s: Tensor, v: Tensor) -> None:
        o.add_scaled(numbers[0], g, v)  # v ← μ v + g
        o.add_scaled(numbers[1], v, theta)  # θ ← θ - η v

    return Rule((h.decay,), once, block)


def _nesterov(o: Operations, h: Any) -> Rule:
    def once(sizes: Numbers, a: float) -> Numbers:
        return 1.0 / a, -sizes[0], -sizes[0] * h.decay * a

    def block(numbers: Numbers, theta: Tensor, g: Tensor, s: Tensor, v: Tensor) -> None:
        o.add_scaled(numbers[0], g, v)  # v ← μ v + g
        o.add_scaled(numbers[1], g, theta)  # θ ← θ - η g - η μ v
        o.add_scaled(numbers[2], v, theta)

    return Rule((h.decay,), once, block)


def _adagrad(o: Operations, h: Any) -> Rule:
    def once(sizes: Numbers) -> Numbers:
        return (-sizes[0],)

    def block(numbers: Numbers, theta: Tensor, g: Tensor, s: Tensor, squares: Tensor) -> None:
        o.add_squared(1.0, g, squares, s)  # s ← s + g²
        o.sqrt(squares, s)
        o.add_quotient(numbers[0], g, s, theta)  # θ ← θ - η g / √s

    return Rule((), once, block)


def _rmsprop(o: Operations, h: Any) -> Rule:
    def once(sizes: Numbers, a: float) -> Numbers:
        root = math.sqrt(a)  # η g / (√(a s') + ε) = (η / √a) g / (√s' + ε / √a)
        return (1.0 - h.decay) / a, h.eps / root, -sizes[0] / root

    def block(numbers: Numbers, theta: Tensor, g: Tensor, s: Tensor, squares: Tensor) -> None:
        o.add_squared(numbers[0], g, squares, s)  # s ← ρ s + (1 - ρ) g²
        o.sqrt(squares, s)
        o.add_number(numbers[1], s)
        o.add_quotient(numbers[2], g, s, theta)  # θ ← θ - η g / (√s + ε)

    return Rule((h.decay,), once, block)


def _adam(o: Operations, h: Any) -> Rule:
    def once(sizes: Numbers, a: float, b: float) -> Numbers:
        rate, eps = sizes
        root = math.sqrt(b)  # η' a m' / (√(b v') + ε') = (η' a / √b) m' / (√v' + ε' / √b)
        return (1.0 - h.beta1) / a, (1.0 - h.beta2) / b, eps / root, -rate * a / root

    def block(numbers: Numbers, theta: Tensor, g: Tensor, s: Tensor, m: Tensor, v: Tensor) -> None:
        o.add_scaled(numbers[0], g, m)  # m ← β1 m + (1 - β1) g
        o.add_squared(numbers[1], g, v, s)  # v ← β2 v + (1 - β2) g²
        o.sqrt(v, s)
        o.add_number(numbers[2], s)
        o.add_quotient(numbers[3], m, s, theta)  # θ ← θ - η' m / (√v + ε')

    return Rule((h.beta1, h.beta2), once, block)


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
        self.ops = ops
        self.optimizer: Optimizer = optimizers.find(name)
        self.rate = rate
        self.steps = 0
        self.rule = RULES[name](ops, self.optimizer)
        size = len(flat)
        self.buffers = [ops.empty(size) for _ in self.optimizer.starts]
        for buffer, start in zip(self.buffers, self.optimizer.starts, strict=True):
            buffer[:] = start
        self.scales = [1.0] * len(self.rule.decays)  # a state is its buffer times its scale
        scratch = ops.empty(min(block, size))
        slices = [slice(start, min(start + block, size)) for start in range(0, size, block)]
        self.blocks = [
            (flat[part], gradient[part], scratch[: part.stop - part.start], *(buffer[part] for buffer in self.buffers))
            for part in slices
        ]

    def __call__(self) -> None:
        """The next step's."""
        self.steps += 1
        if self.scales:
            self._decay()
        rule = self.rule
        numbers = rule.once(self.optimizer.sizes(math, self.rate, self.steps), *self.scales)
        for block in self.blocks:
            rule.block(numbers, *block)

    def _decay(self) -> None:
        """A step's, on the scales alone; those that have become small go into their buffers first."""
        if min(self.scales) < SMALLEST_SCALE:
            for i, scale in enumerate(self.scales):
                if scale < SMALLEST_SCALE:
                    self.ops.multiply(self.buffers[i], self.ops.constant(scale), self.buffers[i])
                    self.scales[i] = 1.0
        self.scales = list(map(mul, self.scales, self.rule.decays))
