"""Every layer kind in NumPy by hand, forward and backward, compiled into a list of calls whose operands are fixed buffers.

A layer reads a ``Node`` and makes the next.  Nodes lie in memory in one of two ways: examples *last*, (*shape, n), in which
features, images and the steps of a recurrence are contiguous blocks; or examples *first*, (n, *shape), in which a position's
features are, as attention and normalisation want them.  Where two layers differ a copy stands between them.

Here δ of a node is ∂L/∂(its values).  Sources: Rumelhart, Hinton & Williams (1986) for products and activations, LeCun et al.
(1998) for convolutions, Werbos (1990) for recurrences, Ba et al. (2016) and Vaswani et al. (2017) as ``layers`` names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from impls.activations import INVERSE_SQRT_2PI
from impls.architectures.layers import (
    EPSILON,
    GATES,
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
    Shape,
    walk,
)
from impls.interface import AnyArray
from impls.numpy_fast import NumpyOperations
from impls.straight_line import emit_normal_cdf, in_place

Call = Callable[[], object]
LAST, FIRST = "last", "first"


class Node:
    """Values between two layers, and their δ where one is wanted.

    With examples last, the buffer has one more row, of ones: a product with it adds the bias.
    """

    def __init__(self, ops: NumpyOperations, shape: Shape, n: int, layout: str, wants: bool = True) -> None:
        self.shape, self.n, self.layout = shape, n, layout
        self.shared = False  # whether others need these values later, so that no layer may work on them in place
        size = math.prod(shape)
        self.rows = ops.empty(size + 1, n) if layout == LAST else ops.empty(n, size)
        if layout == LAST:
            self.rows[size] = 1.0
        whole = (*shape, n) if layout == LAST else (n, *shape)
        self.x = (self.rows[:size] if layout == LAST else self.rows).reshape(whole)
        self.d: AnyArray | None = ops.empty(*whole) if wants else None

    def seen_as(self, shape: Shape) -> Node:
        """The same memory in another shape."""
        other = object.__new__(Node)
        other.shape, other.n, other.layout = shape, self.n, self.layout
        other.shared, other.rows = self.shared, self.rows
        whole = (*shape, self.n) if self.layout == LAST else (self.n, *shape)
        other.x = self.x.reshape(whole)
        other.d = None if self.d is None else self.d.reshape(whole)
        return other


@dataclass(frozen=True)
class Theta:
    """One layer's parameters and gradients: its arrays one by one, and all of them as they lie in memory."""

    arrays: Sequence[AnyArray]
    gradients: Sequence[AnyArray]
    flat: AnyArray
    flat_gradient: AnyArray


class Chain:
    """An architecture as two lists of calls, ``forward`` and ``backward``, for ``n`` examples.

    ``weights`` says whether backward gives the parameters' gradients, ``wants`` whether it gives that of the input.
    """

    def __init__(
        self,
        ops: NumpyOperations,
        architecture: Architecture,
        theta: AnyArray,
        gradient: AnyArray,
        n: int,
        masks: Sequence[AnyArray] = (),
        weights: bool = True,
        wants: bool = False,
        backward: bool = True,
    ) -> None:
        self.ops, self.weights, self.training = ops, weights, backward
        self.n = n
        self.forward: list[Call] = []
        self._backward: list[list[Call]] = []  # of each layer, in forward order
        self._theta, self._gradient, self._at = theta, gradient, 0
        self.masks = iter(masks)
        self._ones: dict[int, AnyArray] = {}
        if architecture.vocabulary:
            self.tokens = np.zeros((n, *architecture.inputs), np.intp)
            kinds = [type(layer) for layer, _, _ in architecture.walk()]
            # where tokens are to go: to a recurrence, or to attention
            self.token_layout = next((LAYOUTS[kind] for kind in kinds if kind in LAYOUTS), FIRST)
            self.input = Node(ops, architecture.inputs, n, FIRST, False)  # stands for the tokens
        else:
            self.input = Node(ops, architecture.inputs, n, self._first_layout(architecture), wants)
        self.input.shared = True
        self._scratch: dict[tuple[int, int], AnyArray] = {}
        self.output = self._through(architecture.layers, self.input)

    @property
    def backward(self) -> list[Call]:
        """From δ of ``output`` to all gradients."""
        return [call for calls in reversed(self._backward) for call in calls]

    def hold(self, inputs: AnyArray) -> None:
        """Copy a batch (n, *shape) to where the chain reads it."""
        if inputs.dtype.kind == "i":
            self.tokens[:] = inputs
        else:
            self.input.x[:] = np.moveaxis(inputs, 0, -1) if self.input.layout == LAST else inputs

    @staticmethod
    def _first_layout(architecture: Architecture) -> str:
        for layer, _, _ in architecture.walk():
            if layout := LAYOUTS.get(type(layer)):
                return layout
        return LAST

    def _through(self, layers: Sequence[Layer], x: Node) -> Node:
        for layer, before, after in walk(tuple(layers), x.shape):
            x = self._residual(layer, x) if isinstance(layer, Residual) else self._layer(layer, before, after, x)
        return x

    def _layer(self, layer: Layer, before: Shape, after: Shape, x: Node) -> Node:
        if not isinstance(layer, Embedding):
            features = isinstance(layer, Dense) and len(before) == 1
            x = self._laid(x, LAST if features else LAYOUTS.get(type(layer), x.layout))
        forward, backward = Emitter(self.forward), Emitter([])
        made = KINDS[type(layer)](self, layer, self._take(layer, before), x, after, forward, backward)
        self._backward.append(backward.calls)
        return made

    def _take(self, layer: Layer, shape: Shape) -> Theta:
        arrays, gradients, start = [], [], self._at
        for parameter in layer.parameters(shape):
            part = slice(self._at, self._at + parameter.size)
            arrays.append(self._theta[part].reshape(parameter.shape))
            gradients.append(self._gradient[part].reshape(parameter.shape))
            self._at += parameter.size
        return Theta(arrays, gradients, self._theta[start : self._at], self._gradient[start : self._at])

    def _residual(self, layer: Residual, x: Node) -> Node:
        # backward runs from the end: ``after`` first, then the inner layers', then ``before``
        before, after = Emitter([]), Emitter([])
        x.shared = True
        self._backward.append(before.calls)
        inner = self._laid(self._through(layer.layers, x), x.layout)
        self._backward.append(after.calls)
        y = self.node(x.shape, x.n, x.layout)
        Emitter(self.forward)(np.add, x.x, inner.x, y.x)
        if self.training:
            after(np.copyto, inner.d, y.d)  # a copy: the inner layers may work in place
            if x.d is not None:
                before(np.add, x.d, y.d, x.d)  # δ_x = δ_y + what came through the inner layers
        return y

    def _laid(self, x: Node, layout: str) -> Node:
        """``x`` in this layout: itself, or a copy."""
        if x.layout == layout:
            return x
        y = self.node(x.shape, x.n, layout, x.d is not None)
        axes = (-1, 0) if layout == FIRST else (0, -1)
        Emitter(self.forward)(np.copyto, y.x, np.moveaxis(x.x, *axes))
        if x.d is not None and y.d is not None:
            back: list[Call] = [partial(np.copyto, x.d, np.moveaxis(y.d, *reversed(axes)))]
            self._backward.append(back)
        return y

    def node(self, shape: Shape, n: int, layout: str, wants: bool = True) -> Node:
        """A new one."""
        return Node(self.ops, shape, n, layout, wants and self.training)

    def scratch(self, like: AnyArray, which: int = 0) -> AnyArray:
        """A buffer of that shape, which any layer may overwrite; ``which`` tells apart those needed at once."""
        key = like.size, which
        if key not in self._scratch:
            self._scratch[key] = self.ops.empty(like.size)
        return self._scratch[key].reshape(like.shape)

    def ones(self, count: int) -> AnyArray:
        """So many."""
        if count not in self._ones:
            self._ones[count] = np.ones(count, self.ops.dtype)
        return self._ones[count]


class Emitter:
    """Appends calls."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls

    def __call__(self, function: Callable[..., object], *operands: Any, **more: Any) -> None:
        self.calls.append(partial(function, *operands, **more))


# --- dense and elementwise ------------------------------------------------------------------------------------------
# kind(chain, layer, theta, x, shape, f, b): f and b emit calls forward and backward; the node that is made is returned


def _dense(c: Chain, layer: Dense, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    y = c.node(shape, x.n, x.layout)
    if len(shape) == 1:
        _dense_columns(c, theta, x, y, f, b)
    elif x.layout == LAST:
        _dense_steps(c, theta, x, y, f, b)
    else:
        _dense_rows(c, theta, x, y, f, b)
    return y


def _dense_columns(c: Chain, theta: Theta, x: Node, y: Node, f: Emitter, b: Emitter) -> None:
    """Features with examples last: W and b lie one after the other, [W; b] (fan_in + 1, units)."""
    whole, gradient = (flat.reshape(len(x.rows), -1) for flat in (theta.flat, theta.flat_gradient))
    f(np.dot, whole.T, x.rows, y.x)  # z = [W; b]^T [x; 1]
    if c.weights:
        b(np.dot, x.rows, _transposed(y.d), gradient)  # ∂L/∂[W; b] = [x; 1] δ^T
    if x.d is not None:
        b(np.dot, theta.arrays[0], y.d, x.d)  # δ_x = W δ


def _dense_steps(c: Chain, theta: Theta, x: Node, y: Node, f: Emitter, b: Emitter) -> None:
    """A sequence (T, features, n): a product for each step."""
    (w, bias), gradients = theta.arrays, theta.gradients
    f(np.matmul, w.T, x.x, y.x)
    f(np.add, y.x, bias[:, None], y.x)
    if c.weights:
        _gradient_over_steps(c, x.x, y.d, gradients[0], gradients[1], b)
    if x.d is not None:
        b(np.matmul, w, y.d, x.d)


def _gradient_over_steps(
    c: Chain, x: AnyArray, d: AnyArray | None, w: AnyArray, bias: AnyArray | None, b: Emitter
) -> None:
    """∂L/∂W = Σ_t x_t δ_t^T as one product over all steps and examples, and Σ_t Σ_n δ."""
    assert d is not None
    steps, n = len(x), x.shape[2]
    side = c.scratch(np.empty((x.shape[1], steps, n), np.void), 1)
    delta = c.scratch(np.empty((d.shape[1], steps, n), np.void), 2)
    b(np.copyto, side, x.transpose(1, 0, 2))
    b(np.copyto, delta, d.transpose(1, 0, 2))
    flat = delta.reshape(len(delta), -1)
    b(np.dot, side.reshape(len(side), -1), flat.T, w)
    if bias is not None:
        b(np.add.reduce, flat, axis=1, out=bias)


def _dense_rows(c: Chain, theta: Theta, x: Node, y: Node, f: Emitter, b: Emitter) -> None:
    """A sequence with examples first: positions are rows."""
    _rows_product(c, theta.arrays, theta.gradients, _rows(x.x), _rows(y.x), _rows(x.d), _rows(y.d), f, b)


def _rows(a: AnyArray | None) -> Any:
    return None if a is None else a.reshape(-1, a.shape[-1])


def _rows_product(
    c: Chain,
    arrays: Sequence[AnyArray],
    gradients: Sequence[AnyArray],
    x: AnyArray,
    y: AnyArray,
    dx: AnyArray | None,
    dy: Any,
    f: Emitter,
    b: Emitter,
) -> None:
    w, bias = arrays
    f(np.dot, x, w, y)
    f(np.add, y, bias, y)
    if not c.training:
        return
    if c.weights:
        b(np.dot, x.T, dy, gradients[0])  # ∂L/∂W = x^T δ
        b(np.dot, c.ones(len(dy)), dy, gradients[1])  # ∂L/∂b = 1^T δ
    if dx is not None:
        b(np.dot, dy, w.T, dx)  # δ_x = δ W^T


def _transposed(a: AnyArray | None) -> Any:
    return None if a is None else a.T


def _activation(c: Chain, layer: Activation, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """In place, unless z is needed later or others need it."""
    if layer.name == "gelu":
        return _gelu(c, x, shape, f, b)
    formula = in_place(layer.name)
    y = x if not (formula.keeps_z or x.shared) else c.node(shape, x.n, x.layout, x.d is not None)
    z, a = x.x.reshape(-1), y.x.reshape(-1)
    if y is not x and not formula.keeps_z:
        f(np.copyto, a, z)
        z = a
    formula.value(f, c.ops, z, a, c.scratch(a))
    if x.d is not None and y.d is not None:
        if y is not x:
            b(np.copyto, x.d, y.d)
        # δ_z = δ_a ∘ f'(z)
        formula.slope(b, c.ops, z, a, x.d.reshape(-1), c.scratch(a), c.scratch(a, 1))
    return y


def _gelu(c: Chain, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """z Φ(z), and δ ∘ (Φ(z) + z φ(z)): Φ is kept, for it costs more than all the rest."""
    o, y = c.ops, c.node(shape, x.n, x.layout, x.d is not None)
    z, a = x.x.reshape(-1), y.x.reshape(-1)
    cdf = o.empty(len(z))
    emit_normal_cdf(f, o, z, cdf)
    f(np.multiply, z, cdf, a)
    if x.d is not None and y.d is not None:
        slope = c.scratch(z)
        b(np.multiply, z, z, slope)
        b(np.multiply, slope, o.constant(-0.5), slope)
        b(np.exp, slope, slope)
        b(np.multiply, slope, o.constant(INVERSE_SQRT_2PI), slope)
        b(np.multiply, slope, z, slope)
        b(np.add, slope, cdf, slope)
        b(np.multiply, y.d.reshape(-1), slope, x.d.reshape(-1))
    return y


def _dropout(c: Chain, layer: Dropout, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    mask = next(c.masks)
    laid = c.ops.array(np.moveaxis(mask, 0, -1) if x.layout == LAST else mask)
    y = c.node(shape, x.n, x.layout, x.d is not None)
    f(np.multiply, x.x, laid, y.x)
    if x.d is not None:
        b(np.multiply, y.d, laid, x.d)
    return y


def _flatten(c: Chain, layer: Flatten, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    return x.seen_as(shape)


def _positions(c: Chain, layer: Positions, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    table, axis = (theta.arrays[0], 0) if x.layout == FIRST else (theta.arrays[0][..., None], -1)
    y = c.node(shape, x.n, x.layout)
    f(np.add, x.x, table, y.x)
    if c.weights:
        b(np.add.reduce, y.d, axis=axis, out=theta.gradients[0])  # ∂L/∂P = Σ_n δ
    if x.d is not None:
        b(np.copyto, x.d, y.d)
    return y


def _layer_norm(c: Chain, layer: LayerNorm, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    # x̂ = (x - mean) / √(variance + ε),  y = γ x̂ + β
    gain, bias = theta.arrays
    y = c.node(shape, x.n, x.layout)
    rows, out, d = _rows(x.x), _rows(y.x), shape[-1]
    normal, mean, scale = c.ops.empty(*rows.shape), c.ops.empty(len(rows), 1), c.ops.empty(len(rows), 1)
    share, epsilon = c.ops.constant(1.0 / d), c.ops.constant(EPSILON)
    f(np.add.reduce, rows, axis=1, keepdims=True, out=mean)
    f(np.multiply, mean, share, mean)
    f(np.subtract, rows, mean, normal)
    f(np.vecdot, normal, normal, scale[:, 0])
    f(np.multiply, scale, share, scale)
    f(np.add, scale, epsilon, scale)
    f(np.sqrt, scale, scale)
    f(np.reciprocal, scale, scale)
    f(np.multiply, normal, scale, normal)
    f(np.multiply, normal, gain, out)
    f(np.add, out, bias, out)
    if not c.training:
        return y
    dy, product = _rows(y.d), c.scratch(rows)
    if c.weights:
        b(np.multiply, dy, normal, product)
        b(np.dot, c.ones(len(rows)), product, theta.gradients[0])  # ∂L/∂γ = Σ δ ∘ x̂
        b(np.dot, c.ones(len(rows)), dy, theta.gradients[1])  # ∂L/∂β = Σ δ
    if x.d is not None:
        # δ_x = (g - mean(g) - x̂ mean(g ∘ x̂)) / √(variance + ε), with g = γ ∘ δ
        dx = _rows(x.d)
        b(np.multiply, dy, gain, dx)
        b(np.vecdot, dx, normal, mean[:, 0])
        b(np.multiply, mean, share, mean)
        b(np.multiply, normal, mean, product)
        b(np.add.reduce, dx, axis=1, keepdims=True, out=mean)
        b(np.multiply, mean, share, mean)
        b(np.subtract, dx, mean, dx)
        b(np.subtract, dx, product, dx)
        b(np.multiply, dx, scale, dx)
    return y


# --- images, examples last ------------------------------------------------------------------------------------------


def _conv(c: Chain, layer: Conv2D, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """One product with all patches side by side (``im2col``): (out, c·k·k) times (c·k·k, h·w·n)."""
    (w, bias), n = theta.arrays, x.n
    channels, height, width = x.shape
    k, s, p = layer.kernel, layer.stride, layer.padding
    padded = x.x
    if p:
        padded = np.zeros((channels, height + 2 * p, width + 2 * p, n), c.ops.dtype)
        f(np.copyto, padded[:, p : p + height, p : p + width], x.x)
    patches = c.ops.empty(channels, k, k, *shape[1:], n)
    # (c, h, w, n, k, k) -> (c, k, k, h, w, n)
    windows = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::s, ::s].transpose(0, 4, 5, 1, 2, 3)
    f(np.copyto, patches, windows)
    y = c.node(shape, n, LAST)
    kernel, flat, out = w.reshape(len(w), -1), patches.reshape(-1, math.prod(shape[1:]) * n), y.x.reshape(len(w), -1)
    f(np.dot, kernel, flat, out)  # z = W patches
    f(np.add, out, bias[:, None], out)
    if not c.training:
        return y
    assert y.d is not None
    delta = y.d.reshape(len(w), -1)
    if c.weights:
        b(np.dot, delta, flat.T, theta.gradients[0].reshape(len(w), -1))  # ∂L/∂W = δ patches^T
        b(np.add.reduce, delta, axis=1, out=theta.gradients[1])
    if x.d is not None:
        b(np.dot, kernel.T, delta, flat)  # δ of every patch = W^T δ: the patches have done their work
        _add_patches(c, patches, x, layer, b)
    return y


def _add_patches(c: Chain, patches: AnyArray, x: Node, layer: Conv2D, b: Emitter) -> None:
    """δ_x: every patch's δ added where it was taken from."""
    assert x.d is not None
    k, s, p = layer.kernel, layer.stride, layer.padding
    channels, height, width = x.shape
    rows, columns = patches.shape[3:5]
    into = c.ops.empty(channels, height + 2 * p, width + 2 * p, x.n) if p else x.d
    b(into.fill, 0.0)
    for i in range(k):
        for j in range(k):
            place = into[:, i : i + s * rows : s, j : j + s * columns : s]
            b(np.add, place, patches[:, i, j], place)
    if p:
        b(np.copyto, x.d, into[:, p : p + height, p : p + width])


def _pool(c: Chain, layer: Pool2D, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    return (_mean_pool if layer.how == "mean" else _max_pool)(c, layer, x, shape, f, b)


def _places(layer: Pool2D, a: AnyArray, shape: Shape) -> Iterator[AnyArray]:
    """For each place in a window, what lies there in all windows: (c, rows, columns, n)."""
    s, (_, rows, columns) = layer.step, shape
    for i in range(layer.window):
        for j in range(layer.window):
            yield a[:, i : i + s * rows : s, j : j + s * columns : s]


def _mean_pool(c: Chain, layer: Pool2D, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    y = c.node(shape, x.n, LAST, x.d is not None)
    share = c.ops.constant(1.0 / layer.window**2)
    first, *others = _places(layer, x.x, shape)
    f(np.copyto, y.x, first)
    for place in others:
        f(np.add, y.x, place, y.x)
    f(np.multiply, y.x, share, y.x)
    if x.d is not None:
        part = c.scratch(y.x)
        b(np.multiply, y.d, share, part)
        b(x.d.fill, 0.0)
        for place in _places(layer, x.d, shape):
            b(np.add, place, part, place)
    return y


def _max_pool(c: Chain, layer: Pool2D, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """δ goes to the first of the largest."""
    y = c.node(shape, x.n, LAST, x.d is not None)
    which, larger = np.empty(y.x.shape, np.int16), np.empty(y.x.shape, bool)
    first, *others = _places(layer, x.x, shape)
    f(np.copyto, y.x, first)
    if x.d is not None:
        f(which.fill, 0)
    for number, place in enumerate(others, start=1):
        if x.d is not None:
            f(np.greater, place, y.x, larger)
            f(np.copyto, which, np.int16(number), where=larger)
        f(np.maximum, y.x, place, out=y.x)
    if x.d is not None:
        part = c.scratch(y.x)
        b(x.d.fill, 0.0)
        for number, place in enumerate(_places(layer, x.d, shape)):
            b(np.equal, which, np.int16(number), larger)
            b(np.multiply, y.d, larger, part)
            b(np.add, place, part, place)
    return y


# --- sequences --------------------------------------------------------------------------------------------------------


def _embedding(c: Chain, layer: Embedding, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    y = c.node(shape, x.n, c.token_layout)
    tokens, table = c.tokens, theta.arrays[0]
    rows = y.x.reshape(-1, layer.width) if c.token_layout == FIRST else c.ops.empty(x.n * shape[0], layer.width)
    f(np.take, table, tokens.reshape(-1), axis=0, out=rows, mode="clip")
    if c.token_layout == LAST:
        f(np.copyto, y.x, rows.reshape(x.n, *shape).transpose(1, 2, 0))
    if c.training and c.weights:
        assert y.d is not None
        delta = y.d.reshape(-1, layer.width) if c.token_layout == FIRST else c.scratch(rows)
        if c.token_layout == LAST:
            b(np.copyto, delta.reshape(x.n, *shape), y.d.transpose(2, 0, 1))
        b(_sum_by_token, tokens, delta, theta.gradients[0])
    return y


def _sum_by_token(tokens: AnyArray, delta: AnyArray, out: AnyArray) -> None:
    """∂L/∂E: the δ of every token, summed.  Equal tokens are brought side by side first: ``np.add.at`` is far slower."""
    flat = tokens.reshape(-1)
    order = flat.argsort(kind="stable")
    there, starts = np.unique(flat[order], return_index=True)
    out.fill(0.0)
    out[there] = np.add.reduceat(delta[order], starts, axis=0)


def _recurrent(c: Chain, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    return CELLS[layer.cell](c, layer, theta, x, shape, f, b)


class _Steps:
    """What all cells share: (T, features, n) in, states (T + 1, units, n) with zeros first, x Wx + biases in one go."""

    def __init__(self, c: Chain, layer: Recurrent, theta: Theta, x: Node, f: Emitter, biases: AnyArray) -> None:
        self.c, self.x, self.theta = c, x, theta
        self.steps, self.units, self.n = x.shape[0], layer.units, x.n
        self.columns = GATES[layer.cell] * layer.units
        self.wx, self.wh = theta.arrays[0], theta.arrays[1]
        self.z = c.ops.empty(self.steps, self.columns, self.n)
        self.h = np.zeros((self.steps + 1, self.units, self.n), c.ops.dtype)
        self.part = c.ops.empty(self.columns, self.n)
        f(np.matmul, self.wx.T, x.x, self.z)
        f(np.add, self.z, biases[:, None], self.z)

    def output(self) -> Node:
        """The states as a node: copied, for the cell needs its own, and one row more."""
        y = self.c.node((self.steps, self.units), self.n, LAST)
        return y

    def gradients(self, dx_side: AnyArray, dh_side: AnyArray, b: Emitter) -> None:
        """∂L/∂Wx, ∂L/∂Wh, ∂L/∂bx, ∂L/∂bh from δ of x Wx + bx and of h Wh + bh, (T, columns, n) each."""
        wx, wh, bx, bh = self.theta.gradients
        if self.c.weights:
            _gradient_over_steps(self.c, self.x.x, dx_side, wx, bx, b)
            same = dx_side is dh_side
            _gradient_over_steps(self.c, self.h[:-1], dh_side, wh, None if same else bh, b)
            if same:
                b(np.copyto, bh, bx)
        if self.x.d is not None:
            b(np.matmul, self.wx, dx_side, self.x.d)


def _rnn(c: Chain, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    # h_t = tanh(x_t Wx + bx + h_{t-1} Wh + bh)
    biases = c.ops.empty(layer.units)
    f(np.add, theta.arrays[2], theta.arrays[3], biases)
    s = _Steps(c, layer, theta, x, f, biases)
    for t in range(s.steps):
        if t:
            f(np.dot, s.wh.T, s.h[t], s.part)
            f(np.add, s.z[t], s.part, s.z[t])
        f(np.tanh, s.z[t], s.h[t + 1])
    y = s.output()
    f(np.copyto, y.x, s.h[1:])
    if y.d is not None:
        dz, dh = s.z, c.ops.empty(s.units, s.n)  # z has done its work
        slopes = c.ops.empty(s.steps, s.units, s.n)
        b(np.multiply, s.h[1:], s.h[1:], slopes)  # 1 - h²
        b(np.subtract, c.ops.constant(1.0), slopes, slopes)
        for t in reversed(range(s.steps)):
            arrived = y.d[t]
            if t < s.steps - 1:
                b(np.dot, s.wh, dz[t + 1], dh)  # δ_h,t = δ from above + Wh δ_z,t+1
                b(np.add, dh, arrived, dh)
                arrived = dh
            b(np.multiply, arrived, slopes[t], dz[t])
        s.gradients(dz, dz, b)
    return y


def _lstm(c: Chain, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    # c_t = σ(f) c_{t-1} + σ(i) tanh(g),  h_t = σ(o) tanh(c_t);  σ(z) = tanh(z / 2) / 2 + 1 / 2: one tanh for all gates
    u = layer.units
    half, shift = np.full((4 * u, 1), 0.5, c.ops.dtype), np.full((4 * u, 1), 0.5, c.ops.dtype)
    half[2 * u : 3 * u], shift[2 * u : 3 * u] = 1.0, 0.0
    biases = c.ops.empty(4 * u)
    f(np.add, theta.arrays[2], theta.arrays[3], biases)
    s = _Steps(c, layer, theta, x, f, biases)
    f(np.multiply, s.z, half, s.z)
    halved = c.ops.empty(*s.wh.shape)  # so that h's product needs no halving at every step
    f(np.multiply, s.wh, half[:, 0], halved)
    cells, tanh_c, part = np.zeros_like(s.h), c.ops.empty(s.steps, u, s.n), c.ops.empty(u, s.n)
    for t in range(s.steps):
        a = s.z[t]
        if t:
            f(np.dot, halved.T, s.h[t], s.part)
            f(np.add, a, s.part, a)
        f(np.tanh, a, a)
        f(np.multiply, a, half, a)
        f(np.add, a, shift, a)
        f(np.multiply, a[u : 2 * u], cells[t], cells[t + 1])
        f(np.multiply, a[:u], a[2 * u : 3 * u], part)
        f(np.add, cells[t + 1], part, cells[t + 1])
        f(np.tanh, cells[t + 1], tanh_c[t])
        f(np.multiply, a[3 * u :], tanh_c[t], s.h[t + 1])
    y = s.output()
    f(np.copyto, y.x, s.h[1:])
    if y.d is not None:
        dz = _lstm_slopes(c, s, cells, tanh_c, b)
        _lstm_backward(c, s, y.d, dz, tanh_c, b)
        s.gradients(dz, dz, b)
    return y


def _lstm_slopes(c: Chain, s: _Steps, cells: AnyArray, tanh_c: AnyArray, b: Emitter) -> AnyArray:
    """What δ_c (gates i, f, g) and δ_h (gate o) are to be multiplied by, for all steps at once: (T, 4·units, n).

    i: g σ', f: c_{t-1} σ', g: i tanh', o: tanh(c_t) σ'.  Then tanh_c becomes o (1 - tanh²(c_t)), what δ_h gives to δ_c.
    """
    u, slopes = s.units, c.ops.empty(s.steps, 4 * s.units, s.n)
    i, _, g, o = (s.z[:, k * u : (k + 1) * u] for k in range(4))
    one = c.ops.constant(1.0)
    b(np.multiply, s.z, s.z, slopes)
    b(np.subtract, s.z[:, : 2 * u], slopes[:, : 2 * u], slopes[:, : 2 * u])  # σ' = σ - σ²
    b(np.subtract, one, slopes[:, 2 * u : 3 * u], slopes[:, 2 * u : 3 * u])  # tanh' = 1 - tanh²
    b(np.subtract, o, slopes[:, 3 * u :], slopes[:, 3 * u :])
    for k, factor in enumerate((g, cells[:-1], i, tanh_c)):
        part = slopes[:, k * u : (k + 1) * u]
        b(np.multiply, part, factor, part)
    b(np.multiply, tanh_c, tanh_c, tanh_c)
    b(np.subtract, one, tanh_c, tanh_c)
    b(np.multiply, tanh_c, o, tanh_c)
    return slopes


def _lstm_backward(c: Chain, s: _Steps, d: AnyArray, dz: AnyArray, through: AnyArray, b: Emitter) -> None:
    """δ_z in place of its slopes, from the last step to the first."""
    u = s.units
    dh, dc, part = c.ops.empty(u, s.n), c.ops.empty(u, s.n), c.ops.empty(u, s.n)
    forget = s.z[:, u : 2 * u]
    for t in reversed(range(s.steps)):
        arrived = d[t]
        if t < s.steps - 1:
            b(np.dot, s.wh, dz[t + 1], dh)  # δ_h,t = δ from above + Wh δ_z,t+1
            b(np.add, dh, arrived, dh)
            b(np.multiply, dc, forget[t + 1], dc)  # δ_c,t = f_{t+1} δ_c,t+1 + …
            b(np.multiply, dh, through[t], part)
            b(np.add, dc, part, dc)
            arrived = dh
        else:
            b(np.multiply, arrived, through[t], dc)
        three = dz[t, : 3 * u].reshape(3, u, s.n)
        b(np.multiply, three, dc, three)
        b(np.multiply, dz[t, 3 * u :], arrived, dz[t, 3 * u :])


def _gru(c: Chain, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    # r, z = σ(…),  n = tanh(a_n + r b_n),  h_t = n + z (h_{t-1} - n), with a = x Wx + bx, b = h_{t-1} Wh + bh
    u = layer.units
    half = c.ops.constant(0.5)
    s = _Steps(c, layer, theta, x, f, theta.arrays[2])
    hidden = c.ops.empty(s.steps, 3 * u, s.n)  # b
    gates, new, part = c.ops.empty(s.steps, 2 * u, s.n), c.ops.empty(s.steps, u, s.n), c.ops.empty(u, s.n)
    bh = theta.arrays[3][:, None]
    for t in range(s.steps):
        f(np.dot, s.wh.T, s.h[t], hidden[t])
        f(np.add, hidden[t], bh, hidden[t])
        f(np.add, s.z[t, : 2 * u], hidden[t, : 2 * u], gates[t])
        for operation, second in ((np.multiply, half), (np.tanh, None), (np.multiply, half), (np.add, half)):
            f(operation, gates[t], *(() if second is None else (second,)), gates[t])
        f(np.multiply, gates[t, :u], hidden[t, 2 * u :], new[t])
        f(np.add, new[t], s.z[t, 2 * u :], new[t])
        f(np.tanh, new[t], new[t])
        f(np.subtract, s.h[t], new[t], part)
        f(np.multiply, gates[t, u:], part, part)
        f(np.add, new[t], part, s.h[t + 1])
    y = s.output()
    f(np.copyto, y.x, s.h[1:])
    if y.d is not None:
        _gru_backward(c, s, y.d, hidden, gates, new, b)
    return y


def _gru_backward(
    c: Chain, s: _Steps, d: AnyArray, hidden: AnyArray, gates: AnyArray, new: AnyArray, b: Emitter
) -> None:
    u, one = s.units, c.ops.constant(1.0)
    r, z = gates[:, :u], gates[:, u:]
    da, db = c.ops.empty(s.steps, 3 * u, s.n), c.ops.empty(s.steps, 3 * u, s.n)
    # for all steps at once what δ is to be multiplied by: of δ_n, r: b_n σ'; of δ_h, z: (h_{t-1} - n) σ', n: (1 - z) tanh'
    b(np.multiply, gates, gates, da[:, : 2 * u])
    b(np.subtract, gates, da[:, : 2 * u], da[:, : 2 * u])
    b(np.multiply, da[:, :u], hidden[:, 2 * u :], da[:, :u])
    keep = c.ops.empty(s.steps, u, s.n)
    b(np.subtract, s.h[:-1], new, keep)
    b(np.multiply, da[:, u : 2 * u], keep, da[:, u : 2 * u])
    b(np.multiply, new, new, keep)
    b(np.subtract, one, keep, keep)
    b(np.multiply, keep, z, da[:, 2 * u :])
    b(np.subtract, keep, da[:, 2 * u :], da[:, 2 * u :])
    dh, back = c.ops.empty(u, s.n), c.ops.empty(u, s.n)
    for t in reversed(range(s.steps)):
        arrived = d[t]
        if t < s.steps - 1:
            b(np.dot, s.wh, db[t + 1], back)  # δ_h,t = δ from above + z_{t+1} δ_h,t+1 + Wh δ_b,t+1
            b(np.multiply, dh, z[t + 1], dh)
            b(np.add, dh, back, dh)
            b(np.add, dh, arrived, dh)
        else:
            b(np.copyto, dh, arrived)
        two = da[t, u:].reshape(2, u, s.n)
        b(np.multiply, two, dh, two)  # δ_z and δ_n
        b(np.multiply, da[t, :u], da[t, 2 * u :], da[t, :u])  # δ_r
        b(np.copyto, db[t, : 2 * u], da[t, : 2 * u])
        b(np.multiply, da[t, 2 * u :], r[t], db[t, 2 * u :])
    s.gradients(da, db, b)


CELLS: dict[str, Callable[..., Node]] = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}


def _attention(c: Chain, layer: Attention, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """Q, K, V = x W + b;  P = softmax(Q K^T / √d_h);  y = (P V) Wo + bo, heads side by side."""
    n, (s, d), heads = x.n, shape, layer.heads
    w, bias, wo, bo = theta.arrays
    y = c.node(shape, n, FIRST)
    scale = c.ops.constant(1.0 / math.sqrt(d // heads))
    three, joined = c.ops.empty(n * s, 3 * d), c.ops.empty(n * s, d)
    d_three, d_joined = (c.ops.empty(*a.shape) if c.training else None for a in (three, joined))
    _rows_product(
        c, (w, bias), theta.gradients[:2], _rows(x.x), three, _rows(x.d), d_three, f, backward_in := Emitter([])
    )
    q, k, v = _by_head(three, n, s, 3, heads)
    weights, mixed = c.ops.empty(n, heads, s, s), c.ops.empty(n, heads, s, d // heads)
    peak = c.ops.empty(n, heads, s, 1)
    f(np.multiply, q, scale, q)  # d numbers for a position, where scores would be s
    f(np.matmul, q, k.swapaxes(2, 3), weights)
    if layer.causal:
        f(np.add, weights, np.triu(np.full((s, s), -np.inf, c.ops.dtype), 1), weights)
    f(np.maximum.reduce, weights, axis=-1, keepdims=True, out=peak)
    f(np.subtract, weights, peak, weights)
    f(np.exp, weights, weights)
    f(np.add.reduce, weights, axis=-1, keepdims=True, out=peak)
    f(np.divide, weights, peak, weights)
    f(np.matmul, weights, v, mixed)
    f(np.copyto, _by_head(joined, n, s, 1, heads)[0], mixed)
    _rows_product(c, (wo, bo), theta.gradients[2:], joined, _rows(y.x), d_joined, _rows(y.d), f, b)
    if d_three is not None and d_joined is not None:
        dq, dk, dv = _by_head(d_three, n, s, 3, heads)
        d_mixed, d_weights = _by_head(d_joined, n, s, 1, heads)[0], c.ops.empty(*weights.shape)
        b(np.matmul, weights.swapaxes(2, 3), d_mixed, mixed2 := c.ops.empty(*mixed.shape))  # δ_V = P^T δ
        b(np.copyto, dv, mixed2)
        b(np.matmul, d_mixed, v.swapaxes(2, 3), d_weights)  # δ_P = δ V^T
        b(np.vecdot, d_mixed, mixed, peak[..., 0])  # Σ_k P ∘ δ_P of a row is Σ_d δ ∘ (P V)
        b(np.subtract, d_weights, peak, d_weights)  # δ_S = P ∘ (δ_P - Σ_k P ∘ δ_P)
        b(np.multiply, d_weights, weights, d_weights)
        b(np.matmul, d_weights, k, mixed2)  # δ_Q = δ_S K / √d_h
        b(np.multiply, mixed2, scale, dq)
        b(np.matmul, d_weights.swapaxes(2, 3), q, mixed2)  # δ_K = δ_S^T Q / √d_h, and Q is scaled already
        b(np.copyto, dk, mixed2)
        b.calls.extend(backward_in.calls)
    return y


def _by_head(rows: AnyArray, n: int, s: int, parts: int, heads: int) -> AnyArray:
    """(n·s, parts·d) seen as (parts, n, heads, s, d / heads)."""
    seen: AnyArray = rows.reshape(n, s, parts, heads, -1).transpose(2, 0, 3, 1, 4)
    return seen


KINDS: dict[type[Layer], Callable[..., Node]] = {
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
    Dropout: _dropout,
}
#: Where a kind wants its input to lie; the others take it as it comes.
LAYOUTS: dict[type[Layer], str] = {
    Conv2D: LAST,
    Pool2D: LAST,
    Recurrent: LAST,
    LayerNorm: FIRST,
    Attention: FIRST,
}
