"""Backpropagation compiled by hand into a straight line of library calls.

When a problem is prepared, its network is unrolled once into lists of calls whose operands are fixed buffers; a step
then runs down the list: no allocation, no branch, no attribute look-up.  NumPy (``numpy_fast``) and torch without
autograd (``torch_manual``) share the program and bring only their ``Operations``.

Layout, chosen for speed:

* arrays are (features, examples): a layer's inputs are a contiguous (fan_in + 1, B) block whose last row is ones, and
  its weights and biases one (fan_out, fan_in + 1) matrix ``[W | b]``.  The bias costs no call of its own, forward
  (``z = [W | b] [h; 1]``) or backward (``∂L/∂[W | b] = δ [h; 1]^T``), and elementwise calls see contiguous memory;
* parameters and gradients are views of one flat buffer each, so an update is one call (gradient descent), or a few for
  each block of the buffer that fits into a cache (``in_place_updates``);
* a step goes through the examples in blocks whose activations stay near the cache; gradients accumulate (beta = 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from impls import activations, optimizers
from impls.activations import INVERSE_SQRT_2PI, LEAK, SQRT_HALF
from impls.in_place_updates import Update
from impls.interface import AnyArray, Network, Problem

Tensor = Any
Call = Callable[[], object]
Program = list[Call]


class Operations(ABC):
    """What a library brings.  Every function writes into its last argument; operands may be 0-d constants."""

    @abstractmethod
    def empty(self, *shape: int) -> Tensor: ...
    @abstractmethod
    def array(self, values: AnyArray) -> Tensor: ...
    @abstractmethod
    def constant(self, value: float) -> Tensor: ...
    @abstractmethod
    def numpy(self, tensor: Tensor) -> AnyArray: ...
    @abstractmethod
    def taken(self, rows: Tensor, order: AnyArray) -> Tensor: ...  # rows in this order

    # elementwise, as NumPy names them; typed Any because ufuncs, functions and methods all serve
    multiply: Any
    add: Any
    subtract: Any
    divide: Any
    maximum: Any
    tanh: Any
    exp: Any
    log: Any
    log1p: Any
    expm1: Any
    erf: Any
    absolute: Any
    negative: Any
    sign: Any
    product: Any  # product(a, b, out): out = a b
    strided_product: Any  # the same where a is a view whose rows do not lie side by side
    accumulate: Any  # accumulate(a, b, out): out += a b
    inner: Any  # inner(a, b, out): out = Σ a b over flat arrays, out 0-d
    total: Any  # total(a, out): out = Σ a over a flat array, out 0-d
    column_sum: Any  # column_sum(a, out): (rows, B) -> (B,)
    column_max: Any
    sqrt: Any
    add_number: Any  # add_number(c, out): out += c, c a number
    add_scaled: Any  # add_scaled(c, a, out): out += c a over flat arrays, c a number
    add_squared: Any  # add_squared(c, a, out, s): out += c a², with s for scratch
    add_quotient: Any  # add_quotient(c, a, b, out): out += c a / b; b may be overwritten


# --- activations in place -------------------------------------------------------------------------------------------
# value(x, ops, z, a, s) writes f(z) to a; slope(x, ops, z, a, delta, s, t) does delta *= f'(z); x emits a call;
# s and t are scratch of the same shape.  Where `keeps_z` is false, a is z's own memory.

Emit = Callable[..., None]


@dataclass(frozen=True)
class InPlace:
    """One activation without allocation."""

    value: Callable[[Emit, Operations, Tensor, Tensor, Tensor], None]
    slope: Callable[[Emit, Operations, Tensor, Tensor, Tensor, Tensor, Tensor], None]
    keeps_z: bool = False


def _identity_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    pass


def _identity_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    pass


def _relu_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    x(o.maximum, z, o.constant(0.0), a)


def _relu_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    x(o.sign, a, s)  # a ≥ 0, so sign(a) is 1 where z > 0 and 0 elsewhere
    x(o.multiply, d, s, d)


def _leaky_relu_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    x(o.multiply, z, o.constant(LEAK), s)
    x(o.maximum, z, s, a)


def _leaky_relu_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    x(o.sign, a, s)
    x(o.maximum, s, o.constant(LEAK), s)
    x(o.multiply, d, s, d)


def _emit_sigmoid(x: Emit, o: Operations, z: Tensor, out: Tensor) -> None:
    # σ(z) = tanh(z / 2) / 2 + 1 / 2
    x(o.multiply, z, o.constant(0.5), out)
    x(o.tanh, out, out)
    x(o.multiply, out, o.constant(0.5), out)
    x(o.add, out, o.constant(0.5), out)


def _sigmoid_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    _emit_sigmoid(x, o, z, a)


def _sigmoid_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    x(o.subtract, o.constant(1.0), a, s)  # a (1 - a)
    x(o.multiply, s, a, s)
    x(o.multiply, d, s, d)


def _tanh_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    x(o.tanh, z, a)


def _tanh_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    x(o.multiply, a, a, s)  # 1 - a²
    x(o.subtract, o.constant(1.0), s, s)
    x(o.multiply, d, s, d)


def _softplus_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    x(o.absolute, z, s)  # max(z, 0) + log(1 + e^-|z|)
    x(o.negative, s, s)
    x(o.exp, s, s)
    x(o.log1p, s, s)
    x(o.maximum, z, o.constant(0.0), a)
    x(o.add, a, s, a)


def _softplus_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    x(o.negative, a, s)  # σ(z) = 1 - e^-a
    x(o.expm1, s, s)
    x(o.negative, s, s)
    x(o.multiply, d, s, d)


def emit_normal_cdf(x: Emit, o: Operations, z: Tensor, out: Tensor) -> None:
    x(o.multiply, z, o.constant(SQRT_HALF), out)
    x(o.erf, out, out)
    x(o.add, out, o.constant(1.0), out)
    x(o.multiply, out, o.constant(0.5), out)


def _gelu_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    emit_normal_cdf(x, o, z, s)
    x(o.multiply, z, s, a)


def _gelu_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    emit_normal_cdf(x, o, z, s)  # Φ(z) + z φ(z)
    x(o.multiply, z, z, t)
    x(o.multiply, t, o.constant(-0.5), t)
    x(o.exp, t, t)
    x(o.multiply, t, o.constant(INVERSE_SQRT_2PI), t)
    x(o.multiply, t, z, t)
    x(o.add, s, t, s)
    x(o.multiply, d, s, d)


def _silu_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
    _emit_sigmoid(x, o, z, s)
    x(o.multiply, z, s, a)


def _silu_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
    _emit_sigmoid(x, o, z, s)  # σ + a (1 - σ)
    x(o.subtract, o.constant(1.0), s, t)
    x(o.multiply, t, a, t)
    x(o.add, s, t, s)
    x(o.multiply, d, s, d)


def _emit_polynomial(x: Emit, o: Operations, coefficients: list[float], z: Tensor, y: Tensor, out: Tensor) -> None:
    # Horner: out = (c_K y + c_{K-1}) y + …, y = z / 16.  A constant (degree 0) is written by 0·y + c_0.
    x(o.multiply, z, o.constant(1 / activations.HORNER_RADIUS), y)
    lead, rest = (coefficients[-1], coefficients[-2::-1]) if len(coefficients) > 1 else (0.0, coefficients)
    x(o.multiply, y, o.constant(lead), out)
    x(o.add, out, o.constant(rest[0]), out)
    for coefficient in rest[1:]:
        x(o.multiply, out, y, out)
        x(o.add, out, o.constant(coefficient), out)


def _horner(degree: int) -> InPlace:
    value, derivative = activations.horner_coefficients(degree)

    def emit_value(x: Emit, o: Operations, z: Tensor, a: Tensor, s: Tensor) -> None:
        _emit_polynomial(x, o, value, z, s, a)

    def emit_slope(x: Emit, o: Operations, z: Tensor, a: Tensor, d: Tensor, s: Tensor, t: Tensor) -> None:
        _emit_polynomial(x, o, derivative, z, s, t)
        x(o.multiply, d, t, d)

    return InPlace(emit_value, emit_slope, keeps_z=True)


IN_PLACE = {
    "identity": InPlace(_identity_value, _identity_slope),
    "relu": InPlace(_relu_value, _relu_slope),
    "leaky_relu": InPlace(_leaky_relu_value, _leaky_relu_slope),
    "sigmoid": InPlace(_sigmoid_value, _sigmoid_slope),
    "tanh": InPlace(_tanh_value, _tanh_slope),
    "softplus": InPlace(_softplus_value, _softplus_slope, keeps_z=True),
    "gelu": InPlace(_gelu_value, _gelu_slope, keeps_z=True),
    "silu": InPlace(_silu_value, _silu_slope, keeps_z=True),
}


def in_place(name: str) -> InPlace:
    """The in-place activation of that name; raises UserError for an unknown one."""
    degree = activations.horner_degree(name)
    if degree:
        return _horner(degree)
    return IN_PLACE[activations.find(name).name]


# --- buffers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Buffers for B examples: per layer l, inputs ``h[l]`` (layers[l] + 1, B) and δ ``d[l]`` (layers[l], B)."""

    h: list[Tensor]
    z: list[Tensor]  # z[l] is what layer l - 1 put out; the memory of h[l] unless the activation needs z later
    d: list[Tensor]
    s: Tensor  # two scratch buffers, flat
    t: Tensor
    columns: Tensor  # (2, B): column maxima and sums of cross entropy


def _make_block(network: Network, ops: Operations, keeps_z: bool, size: int) -> Block:
    h: list[Tensor] = [None]
    z: list[Tensor] = [None]
    d: list[Tensor] = [None]
    last = network.depth
    for layer, units in enumerate(network.layers[1:], start=1):
        ones = int(layer < last)
        buffer = ops.empty(units + ones, size)
        if ones:
            buffer[units:] = 1.0
        h.append(buffer)
        z.append(ops.empty(units, size) if keeps_z and ones else buffer[:units])
        d.append(ops.empty(units, size))
    widest = max(network.layers[1:])
    return Block(h, z, d, ops.empty(widest * size), ops.empty(widest * size), ops.empty(2, size))


def block_sizes(n: int, limit: int) -> list[int]:
    """Sizes of nearly equal blocks of at most ``limit`` that add up to ``n``."""
    count = -(-n // limit)
    return [n // count + (i < n % count) for i in range(count)]


Emitter = Callable[[Emit, int, Block], None]


class Parameters:
    """Weights and biases as views of one flat buffer, their gradients likewise, and the update of the one by the other."""

    def __init__(self, problem: Problem, ops: Operations, update_block: int) -> None:
        shapes = [(fan_out, fan_in + 1) for fan_in, fan_out in problem.network.shapes]
        ends = list(accumulate(rows * columns for rows, columns in shapes))
        self.flat, self.flat_gradient = ops.empty(ends[-1]), ops.empty(ends[-1])
        self.W = views(self.flat, shapes, ends)
        self.G = views(self.flat_gradient, shapes, ends)
        for view, w, b in zip(self.W, problem.parameters[0::2], problem.parameters[1::2], strict=True):
            view[:] = ops.array(np.vstack([w, b]).T)
        rate, name = problem.learning_rate, problem.optimizer
        self.update: Call
        if name == optimizers.USUAL:  # θ ← θ - η ∂L/∂θ, one call, in one pass over memory
            self.update = partial(ops.add_scaled, -rate, self.flat_gradient, self.flat)
        else:
            self.update = Update(ops, name, rate, self.flat, self.flat_gradient, update_block)


class Lines:
    """The straight lines of calls for ``n`` examples: one for the step, and one for each phase.

    ``block`` is the largest number of examples worked on at a time within a step.  Lines of several n may share parameters.
    """

    def __init__(self, network: Network, ops: Operations, theta: Parameters, n: int, block: int) -> None:
        self.network, self.ops, self.theta, self.n = network, ops, theta, n
        self.f = in_place(network.activation)
        self.W, self.G = theta.W, theta.G
        self.sizes = block_sizes(n, block)
        starts = [0, *accumulate(self.sizes)]
        self.slices = [slice(a, b) for a, b in pairwise(starts)]
        inputs, outputs = network.layers[0], network.layers[-1]
        self.x = [ops.empty(inputs + 1, size) for size in self.sizes]
        self.x_transposed = [ops.empty(size, inputs + 1) for size in self.sizes]  # a gradient's product is fast in it
        self.t = [ops.empty(outputs, size) for size in self.sizes]
        self.losses = ops.empty(2, len(self.sizes))
        self.losses[:] = 0.0
        gradients = self._compile(self._emit_forward, self._emit_loss, self._emit_backward)
        self._program = [*gradients, theta.update]
        self._phases: dict[str, Program] = {}

    def hold(self, examples: Tensor, targets: Tensor) -> None:
        """Copy ``examples`` (n, inputs + 1), whose last column is ones, and ``targets`` (n, outputs) to where they are used."""
        for rows, x, x_transposed, t in zip(self.slices, self.x, self.x_transposed, self.t, strict=True):
            x_transposed[:] = examples[rows]
            x[:] = x_transposed.T
            t[:] = targets[rows].T

    # --- programs

    def _compile(self, *emitters: Emitter) -> Program:
        """Block after block through one workspace per block size."""
        workspaces = {size: self._block(size) for size in set(self.sizes)}
        program: Program = []
        for i, size in enumerate(self.sizes):
            for emit in emitters:
                emit(_appender(program), i, workspaces[size])
        return program

    def _phase(self, name: str) -> Program:
        """Phases run over all examples, so every block keeps buffers of its own; made at the first call."""
        if not self._phases:
            blocks = [self._block(size) for size in self.sizes]
            emitters = {"forward": self._emit_forward, "loss": self._emit_loss, "backward": self._emit_backward}
            for phase, emit in emitters.items():
                program: Program = []
                self._phases[phase] = program
                for i, block in enumerate(blocks):
                    emit(_appender(program), i, block)
        return self._phases[name]

    def _block(self, size: int) -> Block:
        return _make_block(self.network, self.ops, self.f.keeps_z, size)

    def _emit_forward(self, x: Emit, i: int, block: Block) -> None:
        h = self.x[i]
        last = len(self.W)
        for layer, W in enumerate(self.W, start=1):
            z = block.z[layer]
            x(self.ops.product, W, h, z)  # z_l = [W_l | b_l] [h_{l-1}; 1]
            h = block.h[layer]
            if layer < last:
                self.f.value(x, self.ops, z, h[: len(z)], _like(block.s, z))  # h_l = f(z_l)

    def _emit_loss(self, x: Emit, i: int, block: Block) -> None:
        self._emit_value(x, i, block)
        self._emit_delta(x, i, block)

    def _emit_value(self, x: Emit, i: int, block: Block) -> None:
        emit = {"mse": self._emit_mse, "cross_entropy": self._emit_cross_entropy}[self.network.loss]
        emit(x, i, block)

    def _emit_delta(self, x: Emit, i: int, block: Block) -> None:
        """δ of the output layer, from what the loss has left there."""
        emit = {"mse": self._emit_mse_delta, "cross_entropy": self._emit_cross_entropy_delta}[self.network.loss]
        emit(x, i, block)

    def _emit_mse(self, x: Emit, i: int, block: Block) -> None:
        o, d = self.ops, block.d[-1]
        x(o.subtract, block.h[-1], self.t[i], d)
        flat = d.reshape(-1)
        x(o.inner, flat, flat, self.losses[0, i : i + 1].reshape(()))  # Σ (y - t)²

    def _emit_mse_delta(self, x: Emit, i: int, block: Block) -> None:
        o, d = self.ops, block.d[-1]
        x(o.multiply, d, o.constant(2.0 / (self.n * self.network.layers[-1])), d)

    def _emit_cross_entropy(self, x: Emit, i: int, block: Block) -> None:
        # loss = Σ log Σ e^(y - max y) - Σ t (y - max y)
        # a broadcast into its own operand would make NumPy copy, so buffers take turns
        o, y, d = self.ops, block.h[-1], block.d[-1]
        peak, total, shifted = block.columns[0], block.columns[1], _like(block.s, y)
        x(o.column_max, y, peak)
        x(o.subtract, y, peak, shifted)
        x(o.exp, shifted, d)
        x(o.column_sum, d, total)
        x(o.log, total, peak)
        x(o.total, peak, self.losses[0, i : i + 1].reshape(()))
        x(o.inner, self.t[i].reshape(-1), shifted.reshape(-1), self.losses[1, i : i + 1].reshape(()))

    def _emit_cross_entropy_delta(self, x: Emit, i: int, block: Block) -> None:
        # δ = (softmax(y) - t) / n;  d holds e^(y - max y)
        o, y, d = self.ops, block.h[-1], block.d[-1]
        x(o.divide, d, block.columns[1], y)
        x(o.subtract, y, self.t[i], d)
        x(o.multiply, d, o.constant(1.0 / self.n), d)

    def _emit_backward(self, x: Emit, i: int, block: Block) -> None:
        o = self.ops
        gather = o.accumulate if i else o.product  # the first block overwrites what the last step left
        for layer in range(len(self.W), 0, -1):
            d = block.d[layer]
            below = block.h[layer - 1]
            below_transposed = below.T if layer > 1 else self.x_transposed[i]
            x(gather, d, below_transposed, self.G[layer - 1])  # ∂L/∂[W_l | b_l] = δ_l [h_{l-1}; 1]^T
            if layer > 1:
                units = len(block.d[layer - 1])
                x(o.strided_product, self.W[layer - 1][:, :units].T, d, block.d[layer - 1])
                z, s, t = block.z[layer - 1], _like(block.s, block.d[layer - 1]), _like(block.t, block.d[layer - 1])
                # δ_{l-1} = (W_l^T δ_l) ∘ f'(z_{l-1})
                self.f.slope(x, o, z, below[:units], block.d[layer - 1], s, t)

    def step(self) -> None:
        """All four phases, block by block."""
        for call in self._program:
            call()

    def loss_value(self) -> float:
        """The loss last computed."""
        return float(self._loss_of(self.ops.numpy(self.losses)))

    def _loss_of(self, sums: AnyArray) -> AnyArray:
        """The loss from what ``losses`` has held, shape (…, 2, blocks)."""
        parts = sums.astype(np.float64).sum(axis=-1)
        outputs = self.network.layers[-1] if self.network.loss == "mse" else 1
        return np.asarray((parts[..., 0] - parts[..., 1]) / (self.n * outputs))


class StraightLine(Lines):
    """A prepared problem: its parameters, and the lines of all its examples.

    ``block`` is the largest number of examples worked on at a time within a step, ``update_block`` that of parameters.
    """

    def __init__(self, problem: Problem, ops: Operations, block: int, update_block: int) -> None:
        super().__init__(problem.network, ops, Parameters(problem, ops, update_block), problem.n, block)
        self.problem = problem
        self.block = block
        self.hold(*self._rows())
        self._held: tuple[Tensor, Tensor] | None = None  # what epochs draw from, made with the first
        self._batches: dict[int, Lines] = {}  # by their examples

    def _rows(self) -> tuple[Tensor, Tensor]:
        return rows_of(self.problem, self.ops)

    # --- the protocol

    def forward(self) -> None:
        """z_l = W_l h_{l-1} + b_l,  h_l = f(z_l)."""
        run(self._phase("forward"))

    def loss(self) -> None:
        """The loss, and δ of the output layer."""
        run(self._phase("loss"))

    def backward(self) -> None:
        """All gradients."""
        run(self._phase("backward"))

    def update(self) -> None:
        """What the optimizer does to θ."""
        self.theta.update()

    def epoch(self, order: AnyArray, batch: int) -> None:
        """Rows are gathered once; then each batch is copied to where the lines of its size use it."""
        self._held = self._held or self._rows()
        examples, targets = (self.ops.taken(rows, order) for rows in self._held)
        for start in range(0, len(order), batch):
            lines = self._lines_of(min(batch, len(order) - start))
            lines.hold(examples[start : start + batch], targets[start : start + batch])
            lines.step()

    def _lines_of(self, size: int) -> Lines:
        if size not in self._batches:
            self._batches[size] = Lines(self.network, self.ops, self.theta, size, self.block)
        return self._batches[size]

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return split(self.ops, self.W)

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``."""
        return split(self.ops, self.G)


def rows_of(problem: Problem, ops: Operations) -> tuple[Tensor, Tensor]:
    """Examples (n, inputs + 1), whose last column is ones, and targets (n, outputs), a row each."""
    return ops.array(np.hstack([problem.inputs, np.ones((problem.n, 1))])), ops.array(problem.targets)


def split(ops: Operations, tensors: list[Tensor]) -> list[AnyArray]:
    """Every layer's [W | b] as NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
    arrays = [ops.numpy(tensor) for tensor in tensors]
    return [part.copy() for array in arrays for part in (array[:, :-1].T, array[:, -1])]


def run(program: Program) -> None:
    for call in program:
        call()


def _appender(program: Program) -> Emit:
    def emit(function: Callable[..., object], *operands: Tensor) -> None:
        program.append(partial(function, *operands))

    return emit


def views(flat: Tensor, shapes: list[tuple[int, int]], ends: list[int]) -> list[Tensor]:
    return [
        flat[end - rows * columns : end].reshape(rows, columns)
        for (rows, columns), end in zip(shapes, ends, strict=True)
    ]


def _like(scratch: Tensor, tensor: Tensor) -> Tensor:
    rows, columns = tensor.shape
    return scratch[: rows * columns].reshape(rows, columns)
