"""Objectives and seeded problems as data: what a step of a workload minimises, and one batch of it in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backprop_files import USUAL_OPTIMIZER, UserError
from impls import optimizers
from impls.architectures import layers
from impls.architectures.layers import Architecture, Counts, Dropout, Parameter
from impls.interface import AnyArray, Array


@dataclass(frozen=True)
class Stage:
    """A part of a step: a loss, and the parameters that it moves, from ``start`` to before ``stop``."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Objective:
    """What a step minimises, over one architecture or several."""

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """Those whose parameters it moves, in the order of the parameters."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Parts of a step, one after the other; each moves its own parameters before the next begins."""
        return (Stage("all", 0, len(self.parameters)),)

    def count(self) -> Counts:
        """Of one example in one step."""
        raise NotImplementedError

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Of all architectures, in order."""
        return tuple(p for architecture in self.architectures for p in architecture.parameters)

    @property
    def m(self) -> int:
        """Weights and biases."""
        return sum(architecture.m for architecture in self.architectures)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layers, each once."""
        return tuple(dict.fromkeys(kind for architecture in self.architectures for kind in architecture.kinds))


@dataclass(frozen=True)
class Supervised(Objective):
    """The architecture's own loss on ``inputs`` and ``targets``.

    mse: targets as the outputs.  cross_entropy: one-hot rows.  policy_gradient: -1/n Σ t log softmax(y) where t is the
    return in the column of the action taken and 0 elsewhere (Williams 1992).  token_cross_entropy: tokens (n, T), the mean
    over all of them.
    """

    architecture: Architecture

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return (self.architecture,)

    def count(self) -> Counts:
        return layers.count(self.architecture)


@dataclass(frozen=True)
class TemporalDifference(Objective):
    """1/n Σ (Q(s)_a - (r + γ c max_a' Q⁻(s')_a'))², with Q⁻ a copy of Q that stands still (Mnih et al. 2015).

    Arrays: ``inputs`` s, ``actions`` a (n), ``rewards`` r (n), ``next_inputs`` s', ``ongoing`` c (n), 0 where an episode
    ended.  Q⁻ has parameters of its own, ``ArchitectureProblem.target``.
    """

    architecture: Architecture
    discount: float = 0.99

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return (self.architecture,)

    def count(self) -> Counts:
        own = layers.count(self.architecture)
        forward = own.multiply_adds + own.without_weights
        return own + Counts(own.multiply_adds, own.without_weights, own.evaluations, forward, own.calls)


@dataclass(frozen=True)
class Adversarial(Objective):
    """Goodfellow et al. (2014), the generator's loss not saturating.  D puts out one logit.

    First D moves by 1/n Σ log(1 + e^-D(x)) + 1/n Σ log(1 + e^D(G(z))), then G by 1/n Σ log(1 + e^-D(G(z))), through the D that
    has moved; G(z) is computed once.  Arrays: ``noise`` z, ``real`` x.  Parameters: those of G, then those of D.
    """

    generator: Architecture
    discriminator: Architecture

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return (self.generator, self.discriminator)

    @property
    def stages(self) -> tuple[Stage, ...]:
        ours, all_ = len(self.generator.parameters), len(self.parameters)
        return Stage("discriminator", ours, all_), Stage("generator", 0, ours)

    def count(self) -> Counts:
        g, d = layers.count(self.generator), layers.count(self.discriminator)
        return g + d + d + layers.count(self.discriminator, frozen=True)


@dataclass(frozen=True, eq=False)
class ArchitectureProblem:
    """One seeded problem: an objective, starting parameters and one batch, all float64 (tokens and actions are integers).

    ``arrays`` have the examples along their first axis; ``masks`` one array (n, *shape) of zeros and 1/(1 - rate) for each
    Dropout, in order, of all architectures; ``target`` the parameters of Q⁻.
    """

    objective: Objective
    arrays: Mapping[str, AnyArray]
    parameters: tuple[Array, ...]
    learning_rate: float
    optimizer: str = USUAL_OPTIMIZER
    masks: tuple[Array, ...] = ()
    target: tuple[Array, ...] = field(default=())

    @property
    def n(self) -> int:
        """Training examples in one step."""
        return len(next(iter(self.arrays.values())))


def make_problem(
    objective: Objective,
    n: int,
    seed: int = 0,
    arrays: Mapping[str, AnyArray] | None = None,
    learning_rate: float | None = None,
    optimizer: str = optimizers.USUAL,
) -> ArchitectureProblem:
    """Make the problem of ``n`` examples; its batch is drawn at random unless ``arrays`` are given.

    Raises UserError for what cannot be built, and for an unknown optimizer.
    """
    for architecture in objective.architectures:
        layers.validate(architecture)
    _check_adversaries(objective)
    rate = optimizers.find(optimizer).learning_rate if learning_rate is None else learning_rate
    if n < 1:
        raise UserError(f"n = {n}: a step needs at least one example")
    rng = np.random.default_rng([seed, n, objective.m])
    parameters = initial_parameters(objective.parameters, rng)
    target = initial_parameters(objective.parameters, rng) if isinstance(objective, TemporalDifference) else ()
    masks = tuple(mask for architecture in objective.architectures for mask in _masks(architecture, n, rng))
    batch = dict(arrays) if arrays is not None else random_batch(objective, n, rng)
    return ArchitectureProblem(objective, batch, parameters, rate, optimizer, masks, target)


def _check_adversaries(objective: Objective) -> None:
    if isinstance(objective, Adversarial):
        made, seen = objective.generator.outputs, objective.discriminator.inputs
        if made != seen:
            raise UserError(f"the generator puts out {made}, and the discriminator takes {seen}")
        if objective.discriminator.outputs != (1,):
            raise UserError(f"the discriminator puts out {objective.discriminator.outputs}: give it one logit, (1,)")


def initial_parameters(parameters: tuple[Parameter, ...], rng: np.random.Generator) -> tuple[Array, ...]:
    """Weights of variance 1/fan_in, biases and gains with a spread of 0.1 about where they start."""
    return tuple(
        rng.standard_normal(p.shape) / np.sqrt(p.fan_in) if p.fan_in else p.start + 0.1 * rng.standard_normal(p.shape)
        for p in parameters
    )


def random_batch(objective: Objective, n: int, rng: np.random.Generator) -> dict[str, AnyArray]:
    """Arrays of the right shapes: numbers of spread ½, as the suite's other inputs, and uniform classes, tokens, actions."""
    if isinstance(objective, Adversarial):
        return {
            "noise": rng.standard_normal((n, *objective.generator.inputs)),
            "real": 0.5 * rng.standard_normal((n, *objective.discriminator.inputs)),
        }
    architecture = objective.architectures[0]
    inputs = _inputs(architecture, n, rng)
    if isinstance(objective, TemporalDifference):
        return {
            "inputs": inputs,
            "actions": rng.integers(architecture.outputs[-1], size=n),
            "rewards": rng.standard_normal(n),
            "next_inputs": _inputs(architecture, n, rng),
            "ongoing": (rng.random(n) > 0.1).astype(float),
        }
    return {"inputs": inputs, "targets": _targets(architecture, n, rng)}


def _inputs(architecture: Architecture, n: int, rng: np.random.Generator) -> AnyArray:
    if architecture.vocabulary:
        return rng.integers(architecture.vocabulary, size=(n, *architecture.inputs))
    return 0.5 * rng.standard_normal((n, *architecture.inputs))


def _targets(architecture: Architecture, n: int, rng: np.random.Generator) -> AnyArray:
    outputs = architecture.outputs
    if architecture.loss == "mse":
        return 0.5 * rng.standard_normal((n, *outputs))
    if architecture.loss == "token_cross_entropy":
        return rng.integers(outputs[-1], size=(n, outputs[0]))
    rows = np.eye(outputs[-1])[rng.integers(outputs[-1], size=n)]
    return rows if architecture.loss == "cross_entropy" else rows * rng.standard_normal((n, 1))


def _masks(architecture: Architecture, n: int, rng: np.random.Generator) -> list[Array]:
    return [
        (rng.random((n, *shape)) >= layer.rate) / (1 - layer.rate)
        for layer, shape, _ in architecture.walk()
        if isinstance(layer, Dropout)
    ]
