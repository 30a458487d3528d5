"""Recurrent cells in NumPy by hand: backpropagation through time (Werbos 1990)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from impls.architectures.layers import GATES, Recurrent, Shape
from impls.architectures.numpy_dense import gradient_over_steps
from impls.architectures.numpy_nodes import LAST, Emitter, Node, Theta, Workspace
from impls.interface import AnyArray


class _Steps:
    """What all cells share: (T, features, n) in, states (T + 1, units, n) with zeros first, x Wx + biases in one go."""

    def __init__(self, c: Workspace, layer: Recurrent, theta: Theta, x: Node, f: Emitter, biases: AnyArray) -> None:
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
        return self.c.node((self.steps, self.units), self.n, LAST)

    def gradients(self, dx_side: AnyArray, dh_side: AnyArray, b: Emitter) -> None:
        """∂L/∂Wx, ∂L/∂Wh, ∂L/∂bx, ∂L/∂bh from δ of x Wx + bx and of h Wh + bh, (T, columns, n) each."""
        wx, wh, bx, bh = self.theta.gradients
        if self.c.weights:
            gradient_over_steps(self.c, self.x.x, dx_side, wx, bx, b)
            same = dx_side is dh_side
            gradient_over_steps(self.c, self.h[:-1], dh_side, wh, None if same else bh, b)
            if same:
                b(np.copyto, bh, bx)
        if self.x.d is not None:
            b(np.matmul, self.wx, dx_side, self.x.d)


def recurrent(c: Workspace, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
    return CELLS[layer.cell](c, layer, theta, x, shape, f, b)


def _rnn(c: Workspace, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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


def _lstm(c: Workspace, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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


def _lstm_slopes(c: Workspace, s: _Steps, cells: AnyArray, tanh_c: AnyArray, b: Emitter) -> AnyArray:
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


def _lstm_backward(c: Workspace, s: _Steps, d: AnyArray, dz: AnyArray, through: AnyArray, b: Emitter) -> None:
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


def _gru(c: Workspace, layer: Recurrent, theta: Theta, x: Node, shape: Shape, f: Emitter, b: Emitter) -> Node:
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
    c: Workspace, s: _Steps, d: AnyArray, hidden: AnyArray, gates: AnyArray, new: AnyArray, b: Emitter
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
