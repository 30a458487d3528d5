"""The float64 NumPy reference every implementation is held against: short, allocating, obviously the textbook."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from scipy.special import erf

from impls import activations
from impls.interface import Array, Network, Problem
from impls.losses import LOSSES

#: NumPy with erf, as the formulas of activations and losses want it.
XP = SimpleNamespace(
    **{
        name: getattr(np, name)
        for name in ("tanh", "exp", "log", "log1p", "expm1", "maximum", "absolute", "where", "mean", "sum", "max")
    },
    erf=erf,
)


def outputs(network: Network, parameters: Sequence[Array], inputs: Array) -> Array:
    """The linear outputs, shape (n, layers[-1])."""
    return _forward(network, parameters, inputs)[0][-1]


def loss(problem: Problem, parameters: Sequence[Array] | None = None) -> float:
    """The loss of a problem at ``parameters`` (its own start if None)."""
    y = outputs(problem.network, parameters or problem.parameters, problem.inputs)
    return float(LOSSES[problem.network.loss].value(XP, y, problem.targets))


def loss_and_gradients(problem: Problem, parameters: Sequence[Array] | None = None) -> tuple[float, list[Array]]:
    """Loss and gradients by backpropagation, in the order and shapes of ``Problem.parameters``.

    Source: Rumelhart, Hinton & Williams (1986), in the notation of Nielsen, *Neural Networks and Deep Learning*, ch. 2.
    """
    network = problem.network
    parameters = problem.parameters if parameters is None else parameters
    f = activations.find(network.activation)
    zs, hs = _forward(network, parameters, problem.inputs)
    y = zs[-1]
    delta = LOSSES[network.loss].delta(XP, y, problem.targets)
    gradients: list[Array] = []
    for layer in reversed(range(network.depth)):
        # ∂L/∂W_l = h_{l-1}^T δ_l,  ∂L/∂b_l = Σ_n δ_l
        gradients = [hs[layer].T @ delta, delta.sum(axis=0), *gradients]
        if layer:
            # δ_{l-1} = (δ_l W_l^T) ∘ f'(z_{l-1})
            delta = (delta @ parameters[2 * layer].T) * f.derivative(XP, zs[layer - 1], hs[layer])
    return float(LOSSES[network.loss].value(XP, y, problem.targets)), gradients


def _forward(network: Network, parameters: Sequence[Array], inputs: Array) -> tuple[list[Array], list[Array]]:
    """Pre-activations z of every layer, and what went into every layer."""
    f = activations.find(network.activation)
    zs: list[Array] = []
    hs = [inputs]
    for layer in range(network.depth):
        if layer:
            hs.append(f.value(XP, zs[-1]))
        zs.append(hs[-1] @ parameters[2 * layer] + parameters[2 * layer + 1])
    return zs, hs
