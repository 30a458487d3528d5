"""Optimizers as data: one definition for every library, its hyper-parameters, its state, its exact operation counts.

θ is any parameter, g its gradient ∂L/∂θ, η the learning rate, t = 1, 2, … the number of the step.  The definitions are
those on which ``torch.optim`` and ``optax`` agree; every docstring names the arguments that make them.  ``moved`` is
written once over an array namespace ``xp`` (NumPy, autograd.numpy, or the scalars of the ``python`` implementation);
the textbook form that everything is held against is in ``impls.reference``, on purpose written another way.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backprop_files import USUAL_OPTIMIZER, UserError
from impls.interface import AnyArray
from impls.names import nearest

USUAL = USUAL_OPTIMIZER

Numbers = tuple[Any, ...]


@dataclass(frozen=True)
class Optimizer(ABC):
    """What a step does with gradients; fields are hyper-parameters.

    ``operations`` are done for each parameter in an update, ``operations_once`` for all of them together.
    """

    name: ClassVar[str]
    operations: ClassVar[int]
    operations_once: ClassVar[int] = 0
    #: Small, so that thousands of steps on one batch leave the parameters near their start: finite, nothing subnormal.
    learning_rate: ClassVar[float]
    #: Whether moves do not shrink with their gradients: near zero, rounding of a gradient may then be the whole move.
    normalises: ClassVar[bool] = False

    @property
    def starts(self) -> tuple[float, ...]:
        """What each state array is filled with before the first step, in order."""
        return ()

    @property
    def states(self) -> int:
        """Numbers kept of each parameter from step to step."""
        return len(self.starts)

    def sizes(self, xp: Any, rate: Any, t: Any) -> Numbers:
        """What step ``t`` computes once for all parameters: the step size first."""
        return (rate,)

    @abstractmethod
    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        """θ after the step, and after it the new states; all of the shape of ``theta``."""


@dataclass(frozen=True)
class GradientDescent(Optimizer):
    """θ ← θ - η g.

    Source: Cauchy (1847).  ``torch.optim.SGD(lr)``, ``optax.sgd(lr)``.
    """

    name = USUAL
    operations = 2
    learning_rate = 1e-3

    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        return (theta - sizes[0] * g,)


@dataclass(frozen=True)
class Momentum(Optimizer):
    """v ← μ v + g;  θ ← θ - η v,  v = 0 at the start.

    Source: Polyak (1964), with the learning rate outside v, as torch has it: the same for a constant η.
    ``torch.optim.SGD(lr, momentum=μ)`` without dampening, ``optax.sgd(lr, momentum=μ)``.
    """

    name = "momentum"
    operations = 4
    learning_rate = 1e-4  # a steady gradient moves θ by η / (1 - μ) a step

    decay: float = 0.9

    @property
    def starts(self) -> tuple[float, ...]:
        return (0.0,)

    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        (v,) = states
        v = v * self.decay + g
        return theta - sizes[0] * v, v


@dataclass(frozen=True)
class Nesterov(Momentum):
    """v ← μ v + g;  θ ← θ - η (g + μ v),  v = 0 at the start.

    Source: Nesterov (1983) as Sutskever, Martens, Dahl & Hinton (2013) write it, seen from the point looked ahead to, as
    torch has it: gradients are taken where θ is.  ``torch.optim.SGD(lr, momentum=μ, nesterov=True)``,
    ``optax.sgd(lr, momentum=μ, nesterov=True)``, which is ``optax.trace(μ, nesterov=True)``.
    """

    name = "nesterov"
    operations = 6

    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        (v,) = states
        v = v * self.decay + g
        return theta - sizes[0] * (v * self.decay + g), v


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """s ← s + g²;  θ ← θ - η g / √s,  s = 0.1 at the start.

    Source: Duchi, Hazan & Singer (2011), the diagonal form.  What keeps the root from zero is where s starts, and nothing
    else: torch adds its ε outside the root and optax inside, so they agree where ε is 0 and s starts above it.
    ``torch.optim.Adagrad(lr, initial_accumulator_value=0.1, eps=0)``,
    ``optax.adagrad(lr, initial_accumulator_value=0.1, eps=0)``; 0.1 is optax's own.
    """

    name = "adagrad"
    operations = 6
    learning_rate = 1e-3

    start: float = 0.1

    @property
    def starts(self) -> tuple[float, ...]:
        return (self.start,)

    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        (s,) = states
        s = s + g * g
        return theta - sizes[0] * g / xp.sqrt(s), s


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """s ← ρ s + (1 - ρ) g²;  θ ← θ - η g / (√s + ε),  s = 0 at the start: ε outside the root, nothing centred.

    Source: Tieleman & Hinton (2012), lecture 6.5, with their ρ = 0.9.  ``torch.optim.RMSprop(lr, alpha=ρ, eps=ε)``,
    ``optax.rmsprop(lr, decay=ρ, eps=ε, eps_in_sqrt=False)``: optax puts ε inside the root unless told not to.
    """

    name = "rmsprop"
    operations = 9
    learning_rate = 1e-5  # every parameter moves about so far in every step, however small its gradient
    normalises = True

    decay: float = 0.9
    eps: float = 1e-8

    @property
    def starts(self) -> tuple[float, ...]:
        return (0.0,)

    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        (s,) = states
        s = s * self.decay + g * g * (1.0 - self.decay)
        return theta - sizes[0] * g / (xp.sqrt(s) + self.eps), s


@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) g²;  θ ← θ - η m̂ / (√v̂ + ε),  m̂ = m / (1 - β1^t),
    v̂ = v / (1 - β2^t),  m = v = 0 at the start: both biases corrected, ε outside the root and beside the corrected v̂.

    Source: Kingma & Ba (2015), algorithm 1.  What is computed is the same in their cheaper order (end of section 2), with ε
    scaled along so that nothing changes: θ ← θ - η' m / (√v + ε'),  η' = η √(1 - β2^t) / (1 - β1^t),  ε' = ε √(1 - β2^t).
    ``torch.optim.Adam(lr, betas=(β1, β2), eps=ε)``, ``optax.adam(lr, β1, β2, eps=ε, eps_root=0)``.
    """

    name = "adam"
    operations = 12
    operations_once = 8
    learning_rate = 1e-5  # every parameter moves about so far in every step, however small its gradient
    normalises = True

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @property
    def starts(self) -> tuple[float, ...]:
        return (0.0, 0.0)

    def sizes(self, xp: Any, rate: Any, t: Any) -> Numbers:
        root = xp.sqrt(1.0 - self.beta2**t)
        return rate * root / (1.0 - self.beta1**t), root * self.eps

    def moved(self, xp: Any, sizes: Numbers, theta: Any, g: Any, *states: Any) -> Numbers:
        m, v = states
        rate, eps = sizes
        m = m * self.beta1 + g * (1.0 - self.beta1)
        v = v * self.beta2 + g * g * (1.0 - self.beta2)
        return theta - rate * m / (xp.sqrt(v) + eps), m, v


class OverArrays:
    """An optimizer over NumPy arrays as textbooks write it: changes ``parameters`` in place, remembers the states.

    ``xp`` is a namespace of NumPy's functions.
    """

    def __init__(self, name: str, rate: float, xp: Any, parameters: Sequence[AnyArray]) -> None:
        self.optimizer = find(name)
        self.rate, self.xp, self.parameters = rate, xp, parameters
        self.steps = 0
        self.states: list[Numbers] = [tuple(np.full_like(p, x) for x in self.optimizer.starts) for p in parameters]

    def __call__(self, gradients: Sequence[AnyArray]) -> None:
        """One step."""
        if self.optimizer.name == USUAL:  # no new array for θ
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter -= self.rate * gradient
            return
        self.steps += 1
        sizes = self.optimizer.sizes(math, self.rate, self.steps)  # Python's numbers leave float32 what it is
        for i, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            parameter[...], *states = self.optimizer.moved(self.xp, sizes, parameter, gradient, *self.states[i])
            self.states[i] = tuple(states)


OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer for optimizer in (GradientDescent(), Momentum(), Nesterov(), AdaGrad(), RMSProp(), Adam())
}
NAMES = tuple(OPTIMIZERS)


def find(name: str) -> Optimizer:
    """The optimizer of that name.  Raises UserError with the nearest known one."""
    if name not in OPTIMIZERS:
        raise UserError(nearest("optimizer", name, OPTIMIZERS))
    return OPTIMIZERS[name]
