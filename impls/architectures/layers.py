"""Layer kinds as data, and the architectures they make up: every library builds the same thing from them.

Shapes are those of one example: ``(features,)``, an image ``(channels, height, width)``, a sequence ``(T, features)``, or
tokens ``(T,)``.  Layers that act on features (dense, normalisation, attention) act on the last axis, position by position.
A kind says what it makes of a shape, which parameters it has, and what it costs one example; the mathematics of it stands
in ``reference``.  Nothing here computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from backprop_files import UserError
from impls import activations
from impls.names import nearest

Shape = tuple[int, ...]


class Unfit(Exception):
    """A layer cannot follow on this shape; the message says what it needs."""


@dataclass(frozen=True)
class Parameter:
    """One array of a layer: its shape, and the fan-in that its start is scaled by; 0 for a bias, which starts small."""

    name: str
    shape: Shape
    fan_in: int = 0
    start: float = 0.0  # the middle of its start: 1 for a gain

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layer:
    """One layer.  ``kind`` is its name in specifications and capabilities."""

    kind: ClassVar[str]

    def output(self, shape: Shape) -> Shape:
        """The shape it makes of ``shape``.  Raises Unfit."""
        return shape

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        """Its arrays, in the order of ``ArchitectureProblem.parameters``."""
        return ()

    def multiply_adds(self, shape: Shape) -> int:
        """Of a weight with a number, for one example, forward.  Backward there are twice as many, or as many where its input
        needs no gradient.
        """
        return 0

    def products_without_weights(self, shape: Shape) -> int:
        """Multiply-adds of activations with activations, for one example, forward; backward there are twice as many."""
        return 0

    def evaluations(self, shape: Shape) -> int:
        """Nonlinear functions evaluated for one example, forward: units of an activation, gates, exponentials of a softmax."""
        return 0

    def positions(self, shape: Shape) -> int:
        """How often each of its weights is used for one example."""
        return 1

    def calls(self, shape: Shape) -> int:
        """Times it has to be gone through one after the other: steps of a recurrence."""
        return 1


def _features(shape: Shape) -> int:
    if not shape:
        raise Unfit("needs an input with a last axis")
    return shape[-1]


def _rows(shape: Shape) -> int:
    return math.prod(shape[:-1])


@dataclass(frozen=True)
class Dense(Layer):
    """z = x W + b on the last axis; W (fan_in, units), b (units)."""

    kind = "dense"
    units: int

    def output(self, shape: Shape) -> Shape:
        if self.units < 1:
            raise Unfit(f"has {self.units} units; give 1 or more")
        if len(shape) == 3:
            raise Unfit("needs features or a sequence, not an image: put Flatten() between them")
        return (*shape[:-1], self.units)

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        fan_in = _features(shape)
        return Parameter("W", (fan_in, self.units), fan_in), Parameter("b", (self.units,))

    def multiply_adds(self, shape: Shape) -> int:
        return _rows(shape) * _features(shape) * self.units

    def positions(self, shape: Shape) -> int:
        return _rows(shape)


@dataclass(frozen=True)
class Activation(Layer):
    """f(z), elementwise, by a name of ``impls.activations``."""

    kind = "activation"
    name: str

    def output(self, shape: Shape) -> Shape:
        activations.find(self.name)
        return shape

    def evaluations(self, shape: Shape) -> int:
        return math.prod(shape)


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise Unfit("needs an image (channels, height, width)")
    channels, height, width = shape
    return channels, height, width


def _slid(size: int, kernel: int, stride: int, padding: int) -> int:
    """Places of a kernel along an axis: ⌊(size + 2 padding - kernel) / stride⌋ + 1."""
    if kernel < 1 or stride < 1 or padding < 0:
        raise Unfit(f"has kernel {kernel}, stride {stride}, padding {padding}: give kernel and stride 1 or more")
    if kernel > size + 2 * padding:
        padded = f", {size + 2 * padding} with its padding" if padding else ""
        raise Unfit(f"has a kernel of {kernel}, larger than its input of {size}{padded}")
    return (size + 2 * padding - kernel) // stride + 1


@dataclass(frozen=True)
class Conv2D(Layer):
    """z_o = Σ_c Σ_ij W_o,c,i,j x_c(· stride + i, · stride + j) + b_o, zeros beyond the edges (a cross-correlation, as all
    libraries have it); W (channels, in channels, kernel, kernel), b (channels).
    """

    kind = "conv2d"
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0

    def output(self, shape: Shape) -> Shape:
        _, height, width = _image(shape)
        if self.channels < 1:
            raise Unfit(f"has {self.channels} channels; give 1 or more")
        if self.padding >= self.kernel:
            raise Unfit(
                f"has padding {self.padding}, and a kernel of {self.kernel} that would see nothing but zeros there"
            )
        return (self.channels, *(_slid(size, self.kernel, self.stride, self.padding) for size in (height, width)))

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        below, _, _ = _image(shape)
        kernel = (self.channels, below, self.kernel, self.kernel)
        return Parameter("W", kernel, below * self.kernel**2), Parameter("b", (self.channels,))

    def multiply_adds(self, shape: Shape) -> int:
        return self.positions(shape) * self.channels * _image(shape)[0] * self.kernel**2

    def positions(self, shape: Shape) -> int:
        return math.prod(self.output(shape)[1:])


@dataclass(frozen=True)
class Pool2D(Layer):
    """The largest (``max``) or the mean (``mean``) of windows; ``stride`` 0 is the window's own size."""

    kind = "pool2d"
    how: str = "max"
    window: int = 2
    stride: int = 0

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.stride or self.window

    def output(self, shape: Shape) -> Shape:
        if self.how not in ("max", "mean"):
            raise Unfit(nearest("pooling", self.how, ("max", "mean")))
        channels, height, width = _image(shape)
        return (channels, *(_slid(size, self.window, self.step, 0) for size in (height, width)))


@dataclass(frozen=True)
class Flatten(Layer):
    """An image or a sequence as features, last axis fastest."""

    kind = "flatten"

    def output(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


#: Gates of each recurrent cell: how many blocks its matrices have.
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Recurrent(Layer):
    """A cell over T steps from a state of zeros; the states of all steps come out, (T, units).

    Wx (features, gates·units), Wh (units, gates·units), bx and bh (gates·units): both biases, as cuDNN and torch have them.
    Blocks lie side by side: ``rnn`` h, ``lstm`` i, f, g, o, ``gru`` r, z, n.  Formulas: ``reference``.
    """

    kind = "recurrent"
    cell: str
    units: int

    def output(self, shape: Shape) -> Shape:
        if self.cell not in GATES:
            raise Unfit(nearest("cell", self.cell, tuple(GATES)))
        if len(shape) != 2:
            raise Unfit("needs a sequence (T, features)")
        if self.units < 1:
            raise Unfit(f"has {self.units} units; give 1 or more")
        return (shape[0], self.units)

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        columns = GATES[self.cell] * self.units
        return (
            Parameter("Wx", (shape[1], columns), shape[1]),
            Parameter("Wh", (self.units, columns), self.units),
            Parameter("bx", (columns,)),
            Parameter("bh", (columns,)),
        )

    def multiply_adds(self, shape: Shape) -> int:
        return shape[0] * GATES[self.cell] * self.units * (shape[1] + self.units)

    def evaluations(self, shape: Shape) -> int:
        # lstm: tanh of the cell's state, beside its four gates
        return shape[0] * self.units * (GATES[self.cell] + (self.cell == "lstm"))

    def positions(self, shape: Shape) -> int:
        return shape[0]

    def calls(self, shape: Shape) -> int:
        return shape[0]


@dataclass(frozen=True)
class Embedding(Layer):
    """Tokens (T,) become rows of E (vocabulary, width)."""

    kind = "embedding"
    vocabulary: int
    width: int

    def output(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise Unfit("needs tokens (T,)")
        if self.vocabulary < 1 or self.width < 1:
            raise Unfit(f"has {self.vocabulary} tokens of width {self.width}; give 1 or more of both")
        return (shape[0], self.width)

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        return (Parameter("E", (self.vocabulary, self.width), 1),)

    def positions(self, shape: Shape) -> int:
        return 0  # looked up, not multiplied


@dataclass(frozen=True)
class Positions(Layer):
    """x + P, with a learned row of P (T, features) for every position."""

    kind = "positions"

    def output(self, shape: Shape) -> Shape:
        if len(shape) != 2:
            raise Unfit("needs a sequence (T, features)")
        return shape

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        return (Parameter("P", shape, 1),)

    def positions(self, shape: Shape) -> int:
        return 0  # added, not multiplied


#: Of layer normalisation, as torch has it.
EPSILON = 1e-5


@dataclass(frozen=True)
class LayerNorm(Layer):
    """γ (x - mean) / √(variance + ε) + β over the last axis (Ba, Kiros & Hinton 2016)."""

    kind = "layer_norm"

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        size = (_features(shape),)
        return Parameter("gain", size, start=1.0), Parameter("bias", size)

    def positions(self, shape: Shape) -> int:
        return 0  # elementwise


@dataclass(frozen=True)
class Attention(Layer):
    """Multi-head self-attention (Vaswani et al. 2017): W (d, 3 d) and b (3 d) to queries, keys and values, Wo (d, d) and
    bo (d) out of the heads; ``causal``: no position sees a later one.
    """

    kind = "attention"
    heads: int
    causal: bool = True

    def output(self, shape: Shape) -> Shape:
        if len(shape) != 2:
            raise Unfit("needs a sequence (T, features)")
        if self.heads < 1 or shape[1] % self.heads:
            raise Unfit(f"has {self.heads} heads, which the width {shape[1]} does not divide by")
        return shape

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        d = shape[1]
        return (
            Parameter("W", (d, 3 * d), d),
            Parameter("b", (3 * d,)),
            Parameter("Wo", (d, d), d),
            Parameter("bo", (d,)),
        )

    def multiply_adds(self, shape: Shape) -> int:
        return 4 * shape[0] * shape[1] ** 2

    def products_without_weights(self, shape: Shape) -> int:
        return 2 * shape[0] ** 2 * shape[1]  # Q K^T and A V, the masked half too, as libraries compute it

    def evaluations(self, shape: Shape) -> int:
        return self.heads * shape[0] ** 2

    def positions(self, shape: Shape) -> int:
        return shape[0]


@dataclass(frozen=True)
class Dropout(Layer):
    """x ∘ mask / (1 - rate); masks are part of the problem, drawn from its seed, the same in every library and step."""

    kind = "dropout"
    rate: float

    def output(self, shape: Shape) -> Shape:
        if not 0 <= self.rate < 1:
            raise Unfit(f"has rate {self.rate:g}; give 0 or more, and less than 1")
        return shape


@dataclass(frozen=True)
class Residual(Layer):
    """x + what ``layers`` make of x."""

    kind = "residual"
    layers: tuple[Layer, ...]

    def output(self, shape: Shape) -> Shape:
        end = output(self.layers, shape)
        if end != shape:
            raise Unfit(f"makes {end} of {shape}, which cannot be added")
        return shape

    def parameters(self, shape: Shape) -> tuple[Parameter, ...]:
        return tuple(p for layer, below, _ in walk(self.layers, shape) for p in layer.parameters(below))


#: Names of all kinds above.
KINDS = tuple(layer.kind for layer in Layer.__subclasses__())


def walk(layers: tuple[Layer, ...], shape: Shape) -> Iterator[tuple[Layer, Shape, Shape]]:
    """Each layer with the shapes before and after it.  Raises UserError that names the two layers that do not fit."""
    before = "the input"
    for layer in layers:
        try:
            after = layer.output(shape)
        except Unfit as reason:
            raise UserError(f"{told(layer)} after {before} of shape {shape}: {told(layer)} {reason}") from reason
        yield layer, shape, after
        before, shape = told(layer), after


def output(layers: tuple[Layer, ...], shape: Shape) -> Shape:
    """What comes out of the last of ``layers``.  Raises UserError."""
    return [shape, *(after for _, _, after in walk(layers, shape))][-1]


def told(layer: Layer) -> str:
    """A layer as people write it: ``Conv2D(channels=8, kernel=3, …)``."""
    return f"{type(layer).__name__}(…)" if isinstance(layer, Residual) else repr(layer)


#: What an architecture's outputs are held against; formulas: ``reference``.
LOSSES = ("mse", "cross_entropy", "token_cross_entropy", "policy_gradient")


@dataclass(frozen=True)
class Architecture:
    """A network as data: the shape of one example, its layers, and the loss on what comes out.

    ``vocabulary`` is above 0 where the input is tokens.
    """

    inputs: Shape
    layers: tuple[Layer, ...]
    loss: str = "mse"
    vocabulary: int = 0

    def walk(self) -> Iterator[tuple[Layer, Shape, Shape]]:
        """Each layer with the shapes before and after it; of a residual connection the layers within, one by one."""
        yield from _inner(self.layers, self.inputs)

    @property
    def outputs(self) -> Shape:
        """Of one example."""
        return output(self.layers, self.inputs)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All arrays, in order."""
        return tuple(p for layer, before, _ in walk(self.layers, self.inputs) for p in layer.parameters(before))

    @property
    def m(self) -> int:
        """Weights and biases."""
        return sum(p.size for p in self.parameters)

    @property
    def dropouts(self) -> int:
        """Layers that want a mask."""
        return sum(isinstance(layer, Dropout) for layer, _, _ in self.walk())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of layers it has, each once."""
        found = [layer.kind for layer, _, _ in self.walk()]
        if any(isinstance(layer, Residual) for layer in self.layers):
            found.append(Residual.kind)
        return tuple(dict.fromkeys(found))


def _inner(layers: tuple[Layer, ...], shape: Shape) -> Iterator[tuple[Layer, Shape, Shape]]:
    for layer, before, after in walk(layers, shape):
        if isinstance(layer, Residual):
            yield from _inner(layer.layers, before)
        else:
            yield layer, before, after


def validate(architecture: Architecture) -> None:
    """Raise UserError for one that cannot be built."""
    if not architecture.inputs or min(architecture.inputs) < 1:
        what = (
            "a sequence of length" if architecture.vocabulary or len(architecture.inputs) == 2 else "an input of shape"
        )
        size = architecture.inputs[0] if what.endswith("length") and architecture.inputs else architecture.inputs
        raise UserError(f"{what} {size}: give 1 or more")
    if not architecture.layers:
        raise UserError("an architecture needs at least one layer")
    if bool(architecture.vocabulary) != isinstance(architecture.layers[0], Embedding):
        raise UserError("tokens go through Embedding first, and nothing else does")
    if architecture.loss not in LOSSES:
        raise UserError(nearest("loss", architecture.loss, LOSSES))
    outputs = architecture.outputs
    wanted = 2 if architecture.loss == "token_cross_entropy" else 1
    if architecture.loss != "mse" and len(outputs) != wanted:
        what = ("(classes,)", "(T, classes)")[wanted - 1]
        raise UserError(f"loss '{architecture.loss}' wants {what}, and the last layer puts out {outputs}")


# --- what a step costs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Exact counts for one example, forward; and in products, backward too."""

    multiply_adds: int  # of weights
    without_weights: int  # multiply-adds of activations with each other
    evaluations: int  # of nonlinear functions
    products: int  # multiply-adds forward and backward: the first layer's input needs no gradient
    calls: int  # layers one after the other, a recurrence's steps each by itself

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


def count(architecture: Architecture, frozen: bool = False) -> Counts:
    """Of one example.  Forward and backward, a weight's multiply-add is done three times, forward, for the input's gradient
    and for the weight's; the second falls away below the first layer with parameters, and for a recurrence's first state.
    So is a product of activations.  ``frozen``: its weights want no gradient, and its input does.
    """
    found = Counts(0, 0, 0, 0, 0)
    first = not frozen
    for layer, shape, _ in architecture.walk():
        weights, others = layer.multiply_adds(shape), layer.products_without_weights(shape)
        products = (2 if frozen else 3) * weights + 3 * others
        if first and layer.parameters(shape):
            products -= _input_gradient(layer, shape)
            first = False
        if isinstance(layer, Recurrent):  # the state of zeros that it starts from needs no gradient
            products -= GATES[layer.cell] * layer.units**2
        found += Counts(weights, others, layer.evaluations(shape), products, layer.calls(shape))
    return found


def _input_gradient(layer: Layer, shape: Shape) -> int:
    """Multiply-adds that a layer's own input's gradient would take."""
    if isinstance(layer, Recurrent):  # the later states' gradients are needed all the same
        return shape[0] * GATES[layer.cell] * layer.units * shape[1]
    if isinstance(layer, Attention):  # so are those of what comes out of the heads
        return 3 * shape[0] * shape[1] ** 2
    return layer.multiply_adds(shape)
