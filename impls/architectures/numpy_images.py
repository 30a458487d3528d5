"""Convolution and pooling in NumPy by hand, examples last; source of the backward pass: LeCun et al. (1998)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from impls.architectures.layers import Conv2D, Pool2D, Shape
from impls.architectures.numpy_nodes import LAST, Emitter, Node, Theta, Workspace
from impls.interface import AnyArray


def conv(c: Workspace, layer: Conv2D, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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


def _add_patches(c: Workspace, patches: AnyArray, x: Node, layer: Conv2D, b: Emitter) -> None:
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


def pool(c: Workspace, layer: Pool2D, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    return (_mean_pool if layer.how == "mean" else _max_pool)(c, layer, x, shape, f, b)


def _places(layer: Pool2D, a: AnyArray, shape: Shape) -> Iterator[AnyArray]:
    """For each place in a window, what lies there in all windows: (c, rows, columns, n)."""
    s, (_, rows, columns) = layer.step, shape
    for i in range(layer.window):
        for j in range(layer.window):
            yield a[:, i : i + s * rows : s, j : j + s * columns : s]


def _mean_pool(c: Workspace, layer: Pool2D, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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


def _max_pool(c: Workspace, layer: Pool2D, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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
