"""NumPy's derivatives in three ways, on the straight lines of ``numpy_fast``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import prod

import numpy as np

from impls.derivatives import Shifts, flat
from impls.interface import AnyArray, Problem
from impls.numpy_fast import BLOCK, NumpyOperations
from impls.straight_line import Block, Emit, Lines, Parameters, Program, rows_of, run, split, views


@dataclass(frozen=True, eq=False)
class Tangents:
    """Workspace of K tangents and the line of calls that carries them to the loss.

    ``flat`` holds d[W | b] of every layer, each (fan_out, K, fan_in + 1); ``found`` (blocks, K) is what each block of
    examples adds to the derivatives.
    """

    flat: AnyArray
    found: AnyArray
    program: Program


class NumpyDerivatives(Lines):
    """Reverse mode as in a step, forward mode by hand, central differences in place."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        ops = NumpyOperations(dtype)
        super().__init__(problem.network, ops, Parameters(problem, ops, problem.network.m), problem.n, BLOCK)
        self.hold(*rows_of(problem, ops))
        self._loss = self._compile(self._emit_forward, self._emit_value)
        self._reverse = self._compile(self._emit_forward, self._emit_loss, self._emit_backward)
        # where each parameter lies in the flat buffer, and its row's width and its place in it
        self._places = self._numbered(self._laid(np.arange(problem.network.m)))
        self._widths = self._numbered([np.full(W.shape, W.shape[1]) for W in self.W])
        self._columns = self._numbered([np.broadcast_to(np.arange(W.shape[1]), W.shape) for W in self.W])
        self._shifts = Shifts.of(flat(split(ops, self.W)))
        self._tangents: dict[int, Tangents] = {}  # by their number

    def loss(self) -> None:
        """Forward and loss; layers write over what they wrote before."""
        run(self._loss)

    def reverse(self) -> None:
        """A step without its update."""
        run(self._reverse)

    def forward(self, start: int, count: int) -> None:
        """Unit tangents are set, carried through, and taken back."""
        if count not in self._tangents:
            self._tangents[count] = self._make_tangents(count)
        tangents, which = self._tangents[count], slice(start, start + count)
        # row o of layer l begins at s_l + o w in the flat buffer, and row (o, j) of its tangents at K (s_l + o w) + j w
        columns, widths = self._columns[which], self._widths[which]
        ones = count * (self._places[which] - columns) + np.arange(count) * widths + columns
        tangents.flat[ones] = 1.0
        run(tangents.program)
        tangents.flat[ones] = 0.0
        self._found = tangents.found.sum(axis=0)

    def central(self, start: int, count: int) -> None:
        """A parameter is moved up, down and back where it lies; that costs three assignments."""
        theta, program = self.theta.flat, self._loss
        up, down, apart = self._shifts.up, self._shifts.down, self._shifts.apart
        seen = np.empty((count, 2, *self.losses.shape), theta.dtype)
        for j, k in enumerate(range(start, start + count)):
            place = self._places[k]
            before = theta[place]
            for side, value in enumerate((up[k], down[k])):
                theta[place] = value
                run(program)
                seen[j, side] = self.losses
            theta[place] = before
        losses = self._loss_of(seen)
        self._found = (losses[:, 0] - losses[:, 1]) / apart[start : start + count]  # (L(θ + h) - L(θ - h)) / 2h

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""

    def value(self) -> float:
        """The loss last computed."""
        return self.loss_value()

    def gradients(self) -> list[AnyArray]:
        """Copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return split(self.ops, self.G)

    def derivatives(self) -> AnyArray:
        """Those last computed."""
        return np.array(self._found)

    def _numbered(self, arrays: list[AnyArray]) -> AnyArray:
        """Arrays that lie as [W | b] of each layer, in the order that parameters are numbered in."""
        return flat(split(self.ops, arrays))

    def _laid(self, buffer: AnyArray, count: int = 1) -> list[AnyArray]:
        """A flat buffer as [W | b] of each layer, ``count`` times side by side: (fan_out, count (fan_in + 1))."""
        shapes = [(len(W), count * W.shape[1]) for W in self.W]
        return views(buffer, shapes, list(accumulate(map(prod, shapes))))

    def _make_tangents(self, count: int) -> Tangents:
        buffer = np.zeros(count * self.theta.flat.size, self.theta.flat.dtype)
        dW = self._laid(buffer, count)
        found = np.empty((len(self.sizes), count), buffer.dtype)

        def emit(x: Emit, i: int, block: Block) -> None:
            self._emit_tangents(x, i, block, dW, found[i])

        return Tangents(buffer, found, self._compile(self._emit_forward, self._emit_loss, emit))

    def _emit_tangents(self, x: Emit, i: int, block: Block, dW: list[AnyArray], found: AnyArray) -> None:
        """All tangents of a layer lie side by side, (units, K, B), so that each of its two products is one call."""
        count, size = len(found), self.sizes[i]
        h, dh = self.x[i], None
        for layer, W in enumerate(self.W, start=1):
            units, last = len(W), layer == len(self.W)
            dz = np.zeros((units + (not last), count, size), W.dtype)  # the last row is that of h's ones: it stays 0
            # dz_l = d[W_l | b_l] [h_{l-1}; 1] + W_l dh_{l-1}
            x(np.dot, dW[layer - 1].reshape(units * count, -1), h, dz[:units].reshape(units * count, size))
            if dh is not None:
                x(self.ops.accumulate, W, dh.reshape(len(dh), -1), dz[:units].reshape(units, -1))
            if not last:
                self._emit_slope(x, block, layer, dz[:units])
            h, dh = block.h[layer], dz
        # dL_k = Σ δ dy_k, with δ = ∂L/∂y
        x(partial(np.einsum, "okb,ob->k", out=found), dh, block.d[-1])

    def _emit_slope(self, x: Emit, block: Block, layer: int, dz: AnyArray) -> None:
        # dh_l = f'(z_l) ∘ dz_l, with f'(z_l) computed once for all tangents
        slope = block.d[layer]
        scratch = [buffer[: slope.size].reshape(slope.shape) for buffer in (block.s, block.t)]
        x(slope.fill, 1.0)
        self.f.slope(x, self.ops, block.z[layer], block.h[layer][: len(slope)], slope, *scratch)
        x(np.multiply, dz, slope[:, None], dz)
