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


#: Scores worked on at a time, so that they stay in cache between the calls that go over them.
SCORES = 1 << 16


def attention(c: Workspace, layer: Attention, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    """Q, K, V = x W + b;  P = softmax(Q K^T / √d_h);  y = (P V) Wo + bo, heads side by side."""
    n, (s, d) = x.n, shape
    w, bias, wo, bo = theta.arrays
    y, inner = c.node(shape, n, FIRST), Emitter([])
    three, joined = c.ops.empty(n * s, 3 * d), c.ops.empty(n * s, d)
    d_three, d_joined = (c.ops.empty(*a.shape) if c.training else None for a in (three, joined))
    rows_product(c, (w, bias), theta.gradients[:2], rows_of(x.x), three, rows_of(x.d), d_three, f, inner)
    heads = _Heads(c, layer, three, joined, n, s)
    heads.forward(f)
    rows_product(c, (wo, bo), theta.gradients[2:], joined, rows_of(y.x), d_joined, rows_of(y.d), f, b)
    if d_three is not None and d_joined is not None:
        heads.backward(b, d_three, d_joined)
    b.calls.extend(inner.calls)
    return y


class _Heads:
    """O = P V of every head, a few examples at a time.

    The softmax is not divided by its sums: with E = e^(S - max) and r = 1 / Σ_keys E, P = r E, and O = r (E V) has d / heads
    numbers to multiply for each position where P has as many as there are positions.
    """

    def __init__(self, c: Workspace, layer: Attention, three: AnyArray, joined: AnyArray, n: int, s: int) -> None:
        self.ops, heads, d = c.ops, layer.heads, joined.shape[1]
        self.heads, self.shape = heads, (n, s)
        self.scale = c.ops.constant(1.0 / math.sqrt(d // heads))
        self.q, self.k, self.v = _by_head(three, n, s, 3, heads)
        self.out = _by_head(joined, n, s, 1, heads)[0]
        self.mixed, self.e = c.ops.empty(n, heads, s, d // heads), c.ops.empty(n, heads, s, s)
        self.r = c.ops.empty(n, heads, s, 1)
        self.later = np.triu(np.full((s, s), -np.inf, c.ops.dtype), 1) if layer.causal else None
        size = max(1, SCORES // (heads * s * s))
        self.parts = [slice(start, start + size) for start in range(0, n, size)]
        self.first = slice(0, min(size, n))

    def forward(self, f: Emitter) -> None:
        f(np.multiply, self.q, self.scale, self.q)  # d numbers for a position, where scores would be s
        for part in self.parts:
            e, r, mixed = self.e[part], self.r[part], self.mixed[part]
            f(np.matmul, self.q[part], self.k[part].swapaxes(2, 3), e)
            if self.later is not None:
                f(np.add, e, self.later, e)
            f(np.maximum.reduce, e, axis=-1, keepdims=True, out=r)
            f(np.subtract, e, r, e)
            f(np.exp, e, e)
            f(np.add.reduce, e, axis=-1, keepdims=True, out=r)
            f(np.reciprocal, r, r)
            f(np.matmul, e, self.v[part], mixed)
            f(np.multiply, mixed, r, mixed)
        f(np.copyto, self.out, self.mixed)

    def backward(self, b: Emitter, d_three: AnyArray, d_joined: AnyArray) -> None:
        """With δ' = r ∂L/∂O:  ∂L/∂V = E^T δ',  ∂L/∂S = E ∘ (δ' V^T - Σ_features δ' ∘ O),  ∂L/∂Q = ∂L/∂S K / √d_h, and
        ∂L/∂K = (∂L/∂S)^T Q / √d_h, Q being scaled already (the sum is that of P ∘ ∂L/∂P: Dao et al. 2022).
        """
        n, s = self.shape
        d_out, (dq, dk, dv) = _by_head(d_joined, n, s, 1, self.heads)[0], _by_head(d_three, n, s, 3, self.heads)
        d_mixed, part_of = self.ops.empty(*self.mixed.shape), self.ops.empty(*self.mixed.shape)
        ds = self.ops.empty(*self.e[self.first].shape)
        b(np.multiply, d_out, self.r, d_mixed)
        b(np.vecdot, d_mixed, self.mixed, self.r[..., 0])
        for part in self.parts:
            e, d, back = self.e[part], d_mixed[part], part_of[part]
            scores = ds[: len(e)]
            b(np.matmul, e.swapaxes(2, 3), d, back)
            b(np.copyto, dv[part], back)
            b(np.matmul, d, self.v[part].swapaxes(2, 3), scores)
            b(np.subtract, scores, self.r[part], scores)
            b(np.multiply, scores, e, scores)
            b(np.matmul, scores, self.k[part], back)
            b(np.multiply, back, self.scale, dq[part])
            b(np.matmul, scores.swapaxes(2, 3), self.q[part], back)
            b(np.copyto, dk[part], back)


def _by_head(rows: AnyArray, n: int, s: int, parts: int, heads: int) -> AnyArray:
    """(n·s, parts·d) seen as (parts, n, heads, s, d / heads)."""
    seen: AnyArray = rows.reshape(n, s, parts, heads, -1).transpose(2, 0, 3, 1, 4)
    return seen
