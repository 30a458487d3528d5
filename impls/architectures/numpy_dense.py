"""Dense layers and what is elementwise, in NumPy by hand.

kind(workspace, layer, theta, x, shape, f, b): f and b emit the calls forward and backward; the node made is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from impls.activations import INVERSE_SQRT_2PI
from impls.architectures.layers import Activation, Dense, Dropout, Flatten, Shape
from impls.architectures.numpy_gelu import emit_gelu
from impls.architectures.numpy_nodes import LAST, Emitter, Node, Theta, Workspace
from impls.interface import AnyArray
from impls.numpy_fast import NumpyOperations
from impls.straight_line import emit_normal_cdf, in_place


def dense(c: Workspace, layer: Dense, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    y = c.node(shape, x.n, x.layout)
    if len(shape) == 1:
        _dense_columns(c, theta, x, y, f, b)
    elif x.layout == LAST:
        _dense_steps(c, theta, x, y, f, b)
    else:
        _dense_rows(c, theta, x, y, f, b)
    return y


def _dense_columns(c: Workspace, theta: Theta, x: Node, y: Node, f: Emitter, b: Emitter) -> None:
    """Features with examples last: W and b lie one after the other, [W; b] (fan_in + 1, units)."""
    whole, gradient = (flat.reshape(len(x.rows), -1) for flat in (theta.flat, theta.flat_gradient))
    f(np.dot, whole.T, x.rows, y.x)  # z = [W; b]^T [x; 1]
    if c.weights:
        b(np.dot, x.rows, _transposed(y.d), gradient)  # ∂L/∂[W; b] = [x; 1] δ^T
    if x.d is not None:
        b(np.dot, theta.arrays[0], y.d, x.d)  # δ_x = W δ


def _dense_steps(c: Workspace, theta: Theta, x: Node, y: Node, f: Emitter, b: Emitter) -> None:
    """A sequence (T, features, n): a product for each step."""
    (w, bias), gradients = theta.arrays, theta.gradients
    f(np.matmul, w.T, x.x, y.x)
    f(np.add, y.x, bias[:, None], y.x)
    if c.weights:
        gradient_over_steps(c, x.x, y.d, gradients[0], gradients[1], b)
    if x.d is not None:
        b(np.matmul, w, y.d, x.d)


def gradient_over_steps(
    c: Workspace, x: AnyArray, d: AnyArray | None, w: AnyArray, bias: AnyArray | None, b: Emitter
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


def _dense_rows(c: Workspace, theta: Theta, x: Node, y: Node, f: Emitter, b: Emitter) -> None:
    """A sequence with examples first: positions are rows."""
    rows_product(c, theta.arrays, theta.gradients, rows_of(x.x), rows_of(y.x), rows_of(x.d), rows_of(y.d), f, b)


def rows_of(a: AnyArray | None) -> Any:
    return None if a is None else a.reshape(-1, a.shape[-1])


def rows_product(
    c: Workspace,
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


def activation(c: Workspace, layer: Activation, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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
    y.shared = True  # its slope is told from it
    if x.d is not None and y.d is not None:
        if y is not x:
            b(np.copyto, x.d, y.d)
        # δ_z = δ_a ∘ f'(z)
        formula.slope(b, c.ops, z, a, x.d.reshape(-1), c.scratch(a), c.scratch(a, 1))
    return y


def _gelu(c: Workspace, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """The value z Φ(z), and δ ∘ (Φ(z) + z φ(z)), whose second factor is made on the way forward."""
    o, y = c.ops, c.node(shape, x.n, x.layout, x.d is not None)
    z, a = x.x.reshape(-1), y.x.reshape(-1)
    slope = z
    if x.shared:
        slope = o.empty(len(z))
        f(np.copyto, slope, z)
    if o.dtype == np.float32:
        emit_gelu(f, o, slope, a, c.scratch(a))
    else:
        _emit_exact_gelu(f, o, slope, a, c.scratch(a))
    if x.d is not None and y.d is not None:
        b(np.multiply, y.d.reshape(-1), slope, x.d.reshape(-1))
    return y


def _emit_exact_gelu(f: Emitter, o: NumpyOperations, z: AnyArray, a: AnyArray, cdf: AnyArray) -> None:
    """As ``numpy_gelu`` in either precision, by an error function that takes its time: z makes room for the slope."""
    emit_normal_cdf(f, o, z, cdf)
    f(np.multiply, z, cdf, a)
    density = o.empty(len(z))
    f(np.multiply, z, z, density)
    f(np.multiply, density, o.constant(-0.5), density)
    f(np.exp, density, density)
    f(np.multiply, density, o.constant(INVERSE_SQRT_2PI), density)
    f(np.multiply, z, density, z)
    f(np.add, z, cdf, z)


def dropout(c: Workspace, layer: Dropout, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    mask = next(c.masks)
    laid = c.ops.array(np.moveaxis(mask, 0, -1) if x.layout == LAST else mask)
    y = c.node(shape, x.n, x.layout, x.d is not None)
    f(np.multiply, x.x, laid, y.x)
    if x.d is not None:
        b(np.multiply, y.d, laid, x.d)
    return y


def flatten(c: Workspace, layer: Flatten, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    return x.seen_as(shape)
