"""Architectures in JAX: plain functions; the whole step under one ``jit``, parameters and optimizer state donated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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
from impls.architectures.problem import Adversarial, ArchitectureProblem, Objective, Supervised, TemporalDifference
from impls.interface import AnyArray
from impls.jax_jit import XP, Apply, HeldByJax, Precision, optimizer_of, planned_bytes, resolve

Arrays = Sequence[jax.Array]
Batch = Mapping[str, jax.Array]
Theta = Iterator[jax.Array]


# --- layers: x (n, *shape), parameters in the order of ``layers`` ------------------------------------------------------

#: Kinds that see images as (n, h, w, c), as JAX's own libraries lay them out: XLA transposes any other layout on the CPU.
OF_IMAGES = (Conv2D, Pool2D)


def outputs(architecture: Architecture, theta: Arrays, x: jax.Array, masks: Arrays = ()) -> jax.Array:
    """What comes out of the last layer, (n, *architecture.outputs)."""
    return _laid(*_through(architecture.layers, iter(theta), iter(masks), x, False), False)


def _through(
    layers: Sequence[Layer], theta: Theta, masks: Iterator[jax.Array], x: jax.Array, last: bool
) -> tuple[jax.Array, bool]:
    """``last``: whether the channels of images are the last axis of x, and then of what comes out."""
    for layer in layers:
        if isinstance(layer, Residual):
            y, after = _through(layer.layers, theta, masks, x, last)
            x, last = _laid(x, last, after) + y, after
        elif isinstance(layer, Dropout):
            x = x * _laid(next(masks), False, last)
        else:
            wanted = last if isinstance(layer, Activation) else isinstance(layer, OF_IMAGES)
            x, last = FUNCTIONS[type(layer)](layer, theta, _laid(x, last, wanted)), wanted
    return x, last


def _laid(x: jax.Array, last: bool, wanted: bool) -> jax.Array:
    """(n, c, h, w) as (n, h, w, c), or back."""
    return x if last == wanted else jnp.moveaxis(x, 1, -1) if wanted else jnp.moveaxis(x, -1, 1)


def _dense(layer: Dense, theta: Theta, x: jax.Array) -> Any:
    return x @ next(theta) + next(theta)


def _activation(layer: Activation, theta: Theta, x: jax.Array) -> Any:
    return activations.find(layer.name).value(XP, x)


def _conv(layer: Conv2D, theta: Theta, x: jax.Array) -> Any:
    edges = [(layer.padding, layer.padding)] * 2
    z = lax.conv_general_dilated(x, next(theta), (layer.stride,) * 2, edges, dimension_numbers=("NHWC", "OIHW", "NHWC"))
    return z + next(theta)


def _pool(layer: Pool2D, theta: Theta, x: jax.Array) -> Any:
    if layer.step == layer.window:
        return _tiled(layer, x)
    window, strides = (1, layer.window, layer.window, 1), (1, layer.step, layer.step, 1)
    if layer.how == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
    return lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / layer.window**2


def _tiled(layer: Pool2D, x: jax.Array) -> Any:
    """Windows side by side are axes of their own: ``reduce_window`` says the same, but its derivative goes through every
    window for every number, and took more than half of a convolutional step.  Equal largest numbers share it in equal parts.
    """
    n, h, w, c = x.shape
    rows, columns = h // layer.window, w // layer.window
    whole = x[:, : rows * layer.window, : columns * layer.window]  # what is left over is in no window
    tiles = whole.reshape(n, rows, layer.window, columns, layer.window, c)
    return tiles.max((2, 4)) if layer.how == "max" else tiles.mean((2, 4))


def _flatten(layer: Flatten, theta: Theta, x: jax.Array) -> Any:
    return x.reshape(len(x), -1)


def _rnn(state: Any, a: jax.Array, b: jax.Array) -> Any:
    h = jnp.tanh(a + b)
    return (h,), h


def _lstm(state: Any, a: jax.Array, b: jax.Array) -> Any:
    i, f, g, o = jnp.split(a + b, 4, axis=1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _gru(state: Any, a: jax.Array, b: jax.Array) -> Any:
    (ar, az, an), (br, bz, bn) = jnp.split(a, 3, axis=1), jnp.split(b, 3, axis=1)
    n, z = jnp.tanh(an + jax.nn.sigmoid(ar + br) * bn), jax.nn.sigmoid(az + bz)
    h = (1 - z) * n + z * state[0]
    return (h,), h


#: (state, x Wx + bx, h Wh + bh) -> (state, h); the state's first part is h.  Formulas: ``reference``.
CELLS: dict[str, Callable[[Any, jax.Array, jax.Array], Any]] = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}


def _recurrent(layer: Recurrent, theta: Theta, x: jax.Array) -> Any:
    wx, wh, bx, bh = next(theta), next(theta), next(theta), next(theta)
    cell = CELLS[layer.cell]
    zeros = jnp.zeros((len(x), layer.units), x.dtype)

    def step(state: Any, a: jax.Array) -> Any:
        return cell(state, a, state[0] @ wh + bh)

    start = (zeros, zeros) if layer.cell == "lstm" else (zeros,)
    _, states = lax.scan(step, start, jnp.swapaxes(x, 0, 1) @ wx + bx)  # all inputs' products in one
    return jnp.swapaxes(states, 0, 1)


def _embedding(layer: Embedding, theta: Theta, x: jax.Array) -> Any:
    return next(theta)[x]


def _positions(layer: Positions, theta: Theta, x: jax.Array) -> Any:
    return x + next(theta)


def _layer_norm(layer: LayerNorm, theta: Theta, x: jax.Array) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return next(theta) * (centred * lax.rsqrt(variance + EPSILON)) + next(theta)


def _attention(layer: Attention, theta: Theta, x: jax.Array) -> Any:
    w, b, wo, bo = next(theta), next(theta), next(theta), next(theta)
    n, s, d = x.shape
    # by hand: jax.nn.dot_product_attention takes the softmax in float32 whatever it is given
    q, k, v = jnp.split((x @ w + b).reshape(n, s, 3 * layer.heads, d // layer.heads), 3, axis=2)
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / np.sqrt(d // layer.heads).astype(x.dtype)
    if layer.causal:
        scores = jnp.where(jnp.tri(s, dtype=bool), scores, -jnp.inf)
    y = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores, axis=-1), v)
    return y.reshape(n, s, d) @ wo + bo


FUNCTIONS: dict[type[Layer], Callable[[Any, Theta, jax.Array], Any]] = {
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


def supervised_loss(name: str, y: jax.Array, t: jax.Array) -> Any:
    """Formulas: ``problem.Supervised``."""
    if name == "mse":
        return ((y - t) ** 2).mean()
    logs = jax.nn.log_softmax(y, axis=-1)
    if name == "token_cross_entropy":
        return -jnp.take_along_axis(logs, t[..., None], axis=-1).mean()
    return -(t * logs).sum() / len(y)


def wanted_values(objective: TemporalDifference, target: Arrays, batch: Batch, masks: Arrays) -> jax.Array:
    """What Q should be: r + γ c max_a' Q⁻(s')_a'."""
    after = outputs(objective.architecture, target, batch["next_inputs"], masks).max(axis=1)
    wanted: jax.Array = batch["rewards"] + objective.discount * batch["ongoing"] * after
    return wanted


def loss_of(objective: Objective, y: jax.Array, target: Arrays, batch: Batch, masks: Arrays) -> Any:
    """The loss of an objective of one stage, whose outputs are y."""
    if isinstance(objective, Supervised):
        return supervised_loss(objective.architecture.loss, y, batch["targets"])
    assert isinstance(objective, TemporalDifference)
    taken = jnp.take_along_axis(y, batch["actions"][:, None], axis=1)[:, 0]
    return ((taken - wanted_values(objective, target, batch, masks)) ** 2).mean()


# --- compiled -------------------------------------------------------------------------------------------------------


class Compiled:
    """The jitted functions of an objective of one stage under one optimizer."""

    def __init__(self, objective: Objective, apply: Apply, precision: Precision) -> None:
        architecture = objective.architectures[0]

        def whole(theta: Arrays, target: Arrays, batch: Batch, masks: Arrays) -> Any:
            return loss_of(objective, outputs(architecture, theta, batch["inputs"], masks), target, batch, masks)

        def step(theta: Any, state: Any, target: Arrays, batch: Batch, masks: Arrays) -> Any:
            value, gradients = jax.value_and_grad(whole)(theta, target, batch, masks)
            return *apply(theta, gradients, state), value

        def forward(theta: Arrays, x: jax.Array, masks: Arrays) -> Any:
            return jax.vjp(lambda th: outputs(architecture, th, x, masks), theta)

        self.step = jax.jit(precision.under(step), donate_argnums=(0, 1))
        # jax.vjp's pullback is a pytree: forward hands it to backward, with all that it keeps
        self.forward = jax.jit(precision.under(forward))
        self.loss = jax.jit(precision.under(jax.value_and_grad(partial(loss_of, objective))))
        self.backward = jax.jit(lambda pullback, delta: pullback(delta)[0])
        self.update = jax.jit(apply, donate_argnums=(0, 2))


class Adversaries:
    """The jitted step of two adversaries, and the gradients of the same step, which no phase could be asked for: were they
    handed out by the step itself, small ones would take a third longer.
    """

    def __init__(self, objective: Adversarial, apply: Apply, precision: Precision) -> None:
        generator, discriminator = objective.generator, objective.discriminator
        own, drops = len(generator.parameters), generator.dropouts

        def judged(theta: Arrays, x: jax.Array, masks: Arrays) -> Any:
            return outputs(discriminator, theta, x, masks[drops:])

        def of_discriminator(theta: Arrays, fake: jax.Array, real: jax.Array, masks: Arrays) -> Any:
            lost = jax.nn.softplus(-judged(theta, real, masks)).mean()
            return lost + jax.nn.softplus(judged(theta, fake, masks)).mean()

        def of_fake(fake: jax.Array, theta: Arrays, masks: Arrays) -> Any:
            return jax.nn.softplus(-judged(theta, fake, masks)).mean()

        def whole(theta: Any, state: Any, target: Arrays, batch: Batch, masks: Arrays) -> Any:
            g, d = theta[:own], theta[own:]
            fake, pullback = jax.vjp(lambda th: outputs(generator, th, batch["noise"], masks[:drops]), g)
            d_gradients = jax.grad(of_discriminator)(d, fake, batch["real"], masks)
            d, d_state = apply(d, d_gradients, state[1])
            value, delta = jax.value_and_grad(of_fake)(fake, d, masks)
            g_gradients = pullback(delta)[0]
            g, g_state = apply(g, g_gradients, state[0])
            return ([*g, *d], (g_state, d_state), value), [*g_gradients, *d_gradients]

        both = precision.under(whole)
        self.step = jax.jit(lambda *arguments: both(*arguments)[0], donate_argnums=(0, 1))
        self.gradients = jax.jit(lambda *arguments: both(*arguments)[1])


@lru_cache(maxsize=4)
def compiled(objective: Objective, optimizer: str, rate: float, precision: Precision) -> Any:
    """Those of the latest few problems; preparing one again compiles nothing."""
    apply = optimizer_of(optimizer, rate)[1]
    if isinstance(objective, Adversarial):
        return Adversaries(objective, apply, precision)
    return Compiled(objective, apply, precision)


class JaxLayers(HeldByJax):
    """JAX on the CPU or a GPU, whatever the objective."""

    #: Of adversaries: whether a step computes, before it, the gradients that it will use, for ``gradients`` to tell.
    keep_gradients = False

    def __init__(
        self, problem: ArchitectureProblem, device: str = "cpu", dtype: str = "float32", threads: int = 1
    ) -> None:
        found = resolve(device)
        precision = Precision.plain(dtype, found, "architectures by jax")
        self._place = partial(jax.device_put, device=found)
        self._dtype, self._objective = np.dtype(precision.stored), problem.objective
        self.theta = [self._array(p) for p in problem.parameters]
        self.target = [self._array(p) for p in problem.target]
        self.masks = [self._array(mask) for mask in problem.masks]
        start = optimizer_of(problem.optimizer, problem.learning_rate)[0]
        self.state = self._place(self._start(start))
        self._compiled = compiled(problem.objective, problem.optimizer, problem.learning_rate, precision)
        self.value: Any = jnp.nan
        self.grads: list[jax.Array] = []
        self.hold(problem.arrays)
        self.synchronize()

    def _array(self, array: AnyArray) -> jax.Array:
        placed: jax.Array = self._place(array.astype(self._dtype) if array.dtype.kind == "f" else array.astype("int32"))
        return placed

    def _start(self, start: Callable[[Any], Any]) -> Any:
        """The optimizer's state: of each adversary its own."""
        if not isinstance(self._objective, Adversarial):
            return start(self.theta)
        own = len(self._objective.generator.parameters)
        return start(self.theta[:own]), start(self.theta[own:])

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        """Another batch in place of the problem's."""
        self.batch = {name: self._array(array) for name, array in arrays.items()}

    def renew_target(self) -> None:
        """Q⁻ ← Q, as copies: Q is donated to its next step."""
        if self.target:
            self.target = [jnp.copy(p) for p in self.theta]

    def forward(self) -> None:
        """The outputs, and the pullback."""
        self.y, self.pullback = self._compiled.forward(self.theta, self.batch["inputs"], self.masks)

    def loss(self) -> None:
        """The loss, and δ of the outputs; for temporal differences Q⁻ too."""
        self.value, self.delta = self._compiled.loss(self.y, self.target, self.batch, self.masks)

    def backward(self) -> None:
        """δ pulled back to all parameters."""
        self.grads = self._compiled.backward(self.pullback, self.delta)

    def update(self) -> None:
        """What the optimizer does to θ; the old parameters and states are donated."""
        self.theta, self.state = self._compiled.update(self.theta, self.grads, self.state)

    def step(self) -> None:
        """One compiled call."""
        if self.keep_gradients:
            self.grads = self._compiled.gradients(*self._arguments())
        self.theta, self.state, self.value = self._compiled.step(*self._arguments())

    def _arguments(self) -> tuple[Any, ...]:
        return self.theta, self.state, self.target, self.batch, self.masks

    def peak_bytes(self) -> int | None:
        """What XLA has planned for the step."""
        return planned_bytes(self._compiled.step, self._arguments())
