"""The textbook every implementation of an architecture is held against: float64 NumPy, and forward only.

Gradients are not written down here, so no slip in a backward formula can be shared: the derivative of a loss along a
direction v is Im L(θ + i h v) / h with h = 1e-30, exact to rounding since nothing is subtracted (Squire & Trapp 1998;
Martins, Sturdza & Alonso 2003).  So every formula works on complex numbers; where it compares, it compares real parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf

from impls import activations
from impls.architectures.layers import (
    EPSILON,
    Activation,
    Architecture,
    Attention,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    Pool2D,
    Positions,
    Recurrent,
    Residual,
)
from impls.architectures.problem import Adversarial, ArchitectureProblem, Supervised, TemporalDifference
from impls.interface import AnyArray

#: Of the complex step: its square is far below the least number, so that real parts are those of θ.
H = 1e-30

#: NumPy on complex numbers, as the formulas of activations want it.
XP = SimpleNamespace(
    **{name: getattr(np, name) for name in ("tanh", "exp", "log", "log1p", "expm1", "where", "mean", "sum", "sqrt")},
    maximum=lambda a, b: np.where(np.real(a) > np.real(b), a, b),
    absolute=lambda a: np.where(np.real(a) < 0, -a, a),
    erf=erf,
)


def outputs(
    architecture: Architecture, parameters: Sequence[AnyArray], inputs: AnyArray, masks: Sequence[AnyArray] = ()
) -> AnyArray:
    """What comes out of the last layer, (n, *architecture.outputs)."""
    return _through(architecture.layers, iter(parameters), iter(masks), inputs)


def _through(layers: Sequence[Layer], theta: Iterator[AnyArray], masks: Iterator[AnyArray], x: AnyArray) -> AnyArray:
    for layer in layers:
        if isinstance(layer, Residual):
            x = x + _through(layer.layers, theta, masks, x)
        elif isinstance(layer, Dropout):
            x = x * next(masks)
        else:
            x = FORMULAS[type(layer)](layer, theta, x)
    return x


# --- layers: parameters in the order of ``layers``, x (n, *shape) -----------------------------------------------------

Theta = Iterator[AnyArray]


def _dense(layer: Dense, theta: Theta, x: AnyArray) -> AnyArray:
    return np.asarray(x @ next(theta) + next(theta))


def _activation(layer: Activation, theta: Theta, x: AnyArray) -> AnyArray:
    return np.asarray(activations.find(layer.name).value(XP, x))


def _conv(layer: Conv2D, theta: Theta, x: AnyArray) -> AnyArray:
    w, b, p, s = next(theta), next(theta), layer.padding, layer.stride
    windows = _windows(np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))), layer.kernel, s)
    # z_n,o,y,x = Σ_c,i,j W_o,c,i,j window_n,c,y,x,i,j + b_o
    return np.asarray(np.einsum("ocij,ncyxij->noyx", w, windows, optimize=True) + b[:, None, None])


def _windows(x: AnyArray, size: int, stride: int) -> AnyArray:
    """(n, channels, rows, columns, size, size)."""
    return sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def _pool(layer: Pool2D, theta: Theta, x: AnyArray) -> AnyArray:
    windows = _windows(x, layer.window, layer.step)
    flat = windows.reshape(*windows.shape[:4], -1)
    if layer.how == "mean":
        return np.asarray(flat.mean(axis=-1))
    largest = flat.real.argmax(axis=-1)  # the first of equal ones
    return np.take_along_axis(flat, largest[..., None], axis=-1)[..., 0]


def _flatten(layer: Flatten, theta: Theta, x: AnyArray) -> AnyArray:
    return x.reshape(len(x), -1)


def _sigmoid(z: AnyArray) -> AnyArray:
    return np.asarray(activations.find("sigmoid").value(XP, z))


def _recurrent(layer: Recurrent, theta: Theta, x: AnyArray) -> AnyArray:
    wx, wh, bx, bh = next(theta), next(theta), next(theta), next(theta)
    h = c = np.zeros((len(x), layer.units))
    states = []
    for t in range(x.shape[1]):
        a, b = x[:, t] @ wx + bx, h @ wh + bh
        if layer.cell == "rnn":  # h' = tanh(x Wx + bx + h Wh + bh), Elman (1990)
            h = np.tanh(a + b)
        elif layer.cell == "lstm":  # c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c'), Hochreiter & Schmidhuber (1997)
            i, f, g, o = np.split(a + b, 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
        else:  # n = tanh(a_n + σ(r) b_n), h' = (1 - σ(z)) n + σ(z) h, Cho et al. (2014) as cuDNN has it
            (ar, az, an), (br, bz, bn) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
            n, z = np.tanh(an + _sigmoid(ar + br) * bn), _sigmoid(az + bz)
            h = (1 - z) * n + z * h
        states.append(h)
    return np.stack(states, axis=1)


def _embedding(layer: Embedding, theta: Theta, x: AnyArray) -> AnyArray:
    return np.asarray(next(theta)[x])


def _positions(layer: Positions, theta: Theta, x: AnyArray) -> AnyArray:
    return np.asarray(x + next(theta))


def _layer_norm(layer: LayerNorm, theta: Theta, x: AnyArray) -> AnyArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return np.asarray(next(theta) * centred / np.sqrt(variance + EPSILON) + next(theta))


def _attention(layer: Attention, theta: Theta, x: AnyArray) -> AnyArray:
    w, b, wo, bo = next(theta), next(theta), next(theta), next(theta)
    n, s, d = x.shape
    # (3, n, heads, s, d / heads)
    q, k, v = (x @ w + b).reshape(n, s, 3, layer.heads, d // layer.heads).transpose(2, 0, 3, 1, 4)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(d // layer.heads)
    if layer.causal:
        scores = np.where(np.tri(s, dtype=bool), scores, -1e30)
    weights = np.exp(_log_softmax(scores))
    return np.asarray((weights @ v).transpose(0, 2, 1, 3).reshape(n, s, d) @ wo + bo)


FORMULAS: dict[type[Layer], Callable[..., AnyArray]] = {
    Dense: _dense,
    Activation: _activation,
    Conv2D: _conv,
    Pool2D: _pool,
    Flatten: _flatten,
    Recurrent: _recurrent,
    Embedding: _embedding,
    Positions: _positions,
    LayerNorm: _layer_norm,
    Attention: _attention,
}


# --- losses ---------------------------------------------------------------------------------------------------------


def _log_softmax(y: AnyArray) -> AnyArray:
    shifted = y - y.real.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _softplus(z: AnyArray) -> AnyArray:
    return np.asarray(activations.find("softplus").value(XP, z))


def stage_loss(problem: ArchitectureProblem, stage: int, parameters: Sequence[AnyArray] | None = None) -> Any:
    """The loss of a stage (``Objective.stages``) at ``parameters``; complex where these are."""
    theta = problem.parameters if parameters is None else parameters
    objective, arrays = problem.objective, problem.arrays
    if isinstance(objective, Supervised):
        y = outputs(objective.architecture, theta, arrays["inputs"], problem.masks)
        return supervised_loss(objective.architecture.loss, y, arrays["targets"])
    if isinstance(objective, TemporalDifference):
        return _temporal_difference(problem, objective, theta)
    assert isinstance(objective, Adversarial)
    return _adversarial(problem, objective, stage, theta)


def supervised_loss(name: str, y: AnyArray, t: AnyArray) -> Any:
    """Formulas: ``problem.Supervised``."""
    if name == "mse":
        return ((y - t) ** 2).mean()
    if name == "token_cross_entropy":
        return -np.take_along_axis(_log_softmax(y), t[..., None], axis=-1).mean()
    return -(t * _log_softmax(y)).sum() / len(y)


def _temporal_difference(problem: ArchitectureProblem, objective: TemporalDifference, theta: Sequence[AnyArray]) -> Any:
    arrays, masks = problem.arrays, problem.masks
    q = outputs(objective.architecture, theta, arrays["inputs"], masks)
    after = outputs(objective.architecture, problem.target, arrays["next_inputs"], masks)
    wanted = arrays["rewards"] + objective.discount * arrays["ongoing"] * after.max(axis=1)
    taken = q[np.arange(len(q)), arrays["actions"]]
    return ((taken - wanted) ** 2).mean()


def _adversarial(problem: ArchitectureProblem, objective: Adversarial, stage: int, theta: Sequence[AnyArray]) -> Any:
    own, drops = len(objective.generator.parameters), objective.generator.dropouts
    fake = outputs(objective.generator, theta[:own], problem.arrays["noise"], problem.masks[:drops])
    of_fake = outputs(objective.discriminator, theta[own:], fake, problem.masks[drops:])
    if objective.stages[stage].name == "generator":
        return _softplus(-of_fake).mean()
    of_real = outputs(objective.discriminator, theta[own:], problem.arrays["real"], problem.masks[drops:])
    return _softplus(-of_real).mean() + _softplus(of_fake).mean()


def derivative(
    problem: ArchitectureProblem, stage: int, parameters: Sequence[AnyArray], direction: dict[int, AnyArray]
) -> float:
    """d/dε of a stage's loss at θ + ε v, where ``direction`` has v of some of the arrays."""
    theta = [p + 1j * H * direction[i] if i in direction else p for i, p in enumerate(parameters)]
    return float(np.imag(stage_loss(problem, stage, theta)) / H)
