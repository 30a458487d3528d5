"""An architecture in NumPy by hand, forward and backward, compiled into a list of calls whose operands are fixed buffers.

A layer reads a ``Node`` and makes the next.  Nodes lie in memory in one of two ways: examples *last*, (*shape, n), in which
features, images and the steps of a recurrence are contiguous blocks; or examples *first*, (n, *shape), in which a position's
features are, as attention and normalisation want them.  Where two layers differ a copy stands between them.

Here δ of a node is ∂L/∂(its values).  Sources: Rumelhart, Hinton & Williams (1986) for products and activations, LeCun et al.
(1998) for convolutions, Werbos (1990) for recurrences, Ba et al. (2016) and Vaswani et al. (2017) as ``layers`` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from impls.architectures.layers import (
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
from impls.architectures.numpy_dense import activation, dense, dropout, flatten
from impls.architectures.numpy_images import conv, pool
from impls.architectures.numpy_nodes import FIRST, LAST, Call, Emitter, Node, Theta, Workspace
from impls.architectures.numpy_recurrent import recurrent
from impls.architectures.numpy_sequences import attention, embedding, layer_norm, positions
from impls.interface import AnyArray
from impls.numpy_fast import NumpyOperations

KINDS: dict[type[Layer], Callable[..., Node]] = {
    Dense: dense,
    Activation: activation,
    Conv2D: conv,
    Pool2D: pool,
    Flatten: flatten,
    Recurrent: recurrent,
    Embedding: embedding,
    Positions: positions,
    LayerNorm: layer_norm,
    Attention: attention,
    Dropout: dropout,
}
#: Where a kind wants its input to lie; the others take it as it comes.
LAYOUTS: dict[type[Layer], str] = {
    Conv2D: LAST,
    Pool2D: LAST,
    Recurrent: LAST,
    LayerNorm: FIRST,
    Attention: FIRST,
}


class Chain(Workspace):
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
        super().__init__(ops, n, masks, weights, training=backward)
        self.forward: list[Call] = []
        self._backward: list[list[Call]] = []  # of each layer, in forward order
        self._theta, self._gradient, self._at = theta, gradient, 0
        if architecture.vocabulary:
            self.tokens = np.zeros((n, *architecture.inputs), np.intp)
            kinds = [type(layer) for layer, _, _ in architecture.walk()]
            # where tokens are to go: to a recurrence, or to attention
            self.token_layout = next((LAYOUTS[kind] for kind in kinds if kind in LAYOUTS), FIRST)
            self.input = Node(ops, architecture.inputs, n, FIRST, False)  # stands for the tokens
        else:
            self.input = Node(ops, architecture.inputs, n, self._first_layout(architecture), wants)
        self.input.shared = True
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
            if inner.d is not None:  # None where nothing below learns
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
