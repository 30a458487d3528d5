"""Embedding, positions, layer normalisation and attention in NumPy by hand."""

from __future__ import annotations

import math

import numpy as np

from impls.architectures.layers import EPSILON, Attention, Embedding, LayerNorm, Positions, Shape
from impls.architectures.numpy_dense import rows_of, rows_product
from impls.architectures.numpy_nodes import FIRST, LAST, Emitter, Node, Theta, Workspace
from impls.interface import AnyArray


def embedding(c: Workspace, layer: Embedding, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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


def positions(c: Workspace, layer: Positions, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    table, axis = (theta.arrays[0], 0) if x.layout == FIRST else (theta.arrays[0][..., None], -1)
    y = c.node(shape, x.n, x.layout)
    f(np.add, x.x, table, y.x)
    if c.weights:
        b(np.add.reduce, y.d, axis=axis, out=theta.gradients[0])  # ∂L/∂P = Σ_n δ
    if x.d is not None:
        b(np.copyto, x.d, y.d)
    return y


def layer_norm(c: Workspace, layer: LayerNorm, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    # x̂ = (x - mean) / √(variance + ε),  y = γ x̂ + β
    gain, bias = theta.arrays
    y = c.node(shape, x.n, x.layout)
    rows, out, d = rows_of(x.x), rows_of(y.x), shape[-1]
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
    dy, product = rows_of(y.d), c.scratch(rows)
    if c.weights:
        b(np.multiply, dy, normal, product)
        b(np.dot, c.ones(len(rows)), product, theta.gradients[0])  # ∂L/∂γ = Σ δ ∘ x̂
        b(np.dot, c.ones(len(rows)), dy, theta.gradients[1])  # ∂L/∂β = Σ δ
    if x.d is not None:
        # δ_x = (g - mean(g) - x̂ mean(g ∘ x̂)) / √(variance + ε), with g = γ ∘ δ
        dx = rows_of(x.d)
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


def attention(c: Workspace, layer: Attention, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """Q, K, V = x W + b;  P = softmax(Q K^T / √d_h);  y = (P V) Wo + bo, heads side by side."""
    n, (s, d), heads = x.n, shape, layer.heads
    w, bias, wo, bo = theta.arrays
    y = c.node(shape, n, FIRST)
    scale = c.ops.constant(1.0 / math.sqrt(d // heads))
    three, joined = c.ops.empty(n * s, 3 * d), c.ops.empty(n * s, d)
    d_three, d_joined = (c.ops.empty(*a.shape) if c.training else None for a in (three, joined))
    rows_product(
        c, (w, bias), theta.gradients[:2], rows_of(x.x), three, rows_of(x.d), d_three, f, backward_in := Emitter([])
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
    rows_product(c, (wo, bo), theta.gradients[2:], joined, rows_of(y.x), d_joined, rows_of(y.d), f, b)
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
