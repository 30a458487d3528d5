"""The float64 NumPy reference every implementation is held against: short, allocating, obviously the textbook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from impls import activations, optimizers
from impls.interface import Array, Network, Problem
from impls.losses import LOSSES

#: NumPy with erf, as the formulas of activations and losses want it.
XP = SimpleNamespace(
    **{
        name: getattr(np, name)
        for name in (
            "tanh",
            "exp",
            "log",
            "log1p",
            "expm1",
            "maximum",
            "absolute",
            "where",
            "mean",
            "sum",
            "max",
            "sqrt",
        )
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


# --- optimizers as textbooks write them: step t's move d of one array, θ ← θ - η d, and the new states ----------------

Move = tuple[Array, tuple[Array, ...]]


def _gradient_descent(h: Any, t: int, g: Array) -> Move:
    return g, ()


def _momentum(h: Any, t: int, g: Array, v: Array) -> Move:
    # v_t = μ v_{t-1} + g_t,  d = v_t
    v = h.decay * v + g
    return v, (v,)


def _nesterov(h: Any, t: int, g: Array, v: Array) -> Move:
    # v_t = μ v_{t-1} + g_t,  d = g_t + μ v_t
    v = h.decay * v + g
    return g + h.decay * v, (v,)


def _adagrad(h: Any, t: int, g: Array, s: Array) -> Move:
    # s_t = s_{t-1} + g_t²,  d = g_t / √s_t
    s = s + g**2
    return g / np.sqrt(s), (s,)


def _rmsprop(h: Any, t: int, g: Array, s: Array) -> Move:
    # s_t = ρ s_{t-1} + (1 - ρ) g_t²,  d = g_t / (√s_t + ε)
    s = h.decay * s + (1 - h.decay) * g**2
    return g / (np.sqrt(s) + h.eps), (s,)


def _adam(h: Any, t: int, g: Array, m: Array, v: Array) -> Move:
    # m_t = β1 m_{t-1} + (1 - β1) g_t,  v_t = β2 v_{t-1} + (1 - β2) g_t²
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    # m̂ = m_t / (1 - β1^t),  v̂ = v_t / (1 - β2^t),  d = m̂ / (√v̂ + ε)
    m_hat, v_hat = m / (1 - h.beta1**t), v / (1 - h.beta2**t)
    return m_hat / (np.sqrt(v_hat) + h.eps), (m, v)


MOVES: dict[str, Callable[..., Move]] = {
    "gradient-descent": _gradient_descent,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
}


def first_move(problem: Problem, gradients: Sequence[Array]) -> list[Array]:
    """What the first step takes from every parameter where it finds these gradients: η d."""
    optimizer = optimizers.find(problem.optimizer)
    move = MOVES[problem.optimizer]
    starts = ((np.full_like(g, start) for start in optimizer.starts) for g in gradients)
    return [problem.learning_rate * move(optimizer, 1, g, *s)[0] for g, s in zip(gradients, starts, strict=True)]


def after_steps(problem: Problem, steps: int) -> list[Array]:
    """The parameters after so many steps of the problem's optimizer on its one batch."""
    return train(problem, steps)[1]


def train(problem: Problem, steps: int) -> tuple[list[float], list[Array]]:
    """The loss before each step, and the parameters after the last."""
    return _descend(problem, [np.arange(problem.n)] * steps)


def after_epochs(problem: Problem, orders: Sequence[NDArray[np.intp]], batch: int) -> list[Array]:
    """The parameters after an epoch in each of these orders of the examples, a step for each ``batch`` of them."""
    batches = [order[start : start + batch] for order in orders for start in range(0, len(order), batch)]
    return _descend(problem, batches)[1]


def _descend(problem: Problem, batches: Sequence[NDArray[np.intp]]) -> tuple[list[float], list[Array]]:
    """A step on each batch of rows: the loss before it, and the parameters after the last."""
    optimizer = optimizers.find(problem.optimizer)
    move = MOVES[problem.optimizer]
    parameters = list(problem.parameters)
    states = [tuple(np.full_like(p, start) for start in optimizer.starts) for p in parameters]
    losses = []
    for t, rows in enumerate(batches, start=1):
        part = replace(problem, inputs=problem.inputs[rows], targets=problem.targets[rows])
        value, gradients = loss_and_gradients(part, parameters)
        losses.append(value)
        for i, g in enumerate(gradients):
            d, states[i] = move(optimizer, t, g, *states[i])
            parameters[i] = parameters[i] - problem.learning_rate * d
    return losses, parameters
