"""Values between layers in NumPy's memory, and what kinds of layers are compiled with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from impls.architectures.layers import Shape
from impls.interface import AnyArray
from impls.numpy_fast import NumpyOperations

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


class Emitter:
    """Appends calls."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls

    def __call__(self, function: Callable[..., object], *operands: Any, **more: Any) -> None:
        self.calls.append(partial(function, *operands, **more))


class Workspace:
    """What a kind is compiled with: operations, buffers, and what backward is to give.

    ``weights`` says whether it gives the parameters' gradients, ``training`` whether there is a backward at all.
    """

    tokens: AnyArray  # (n, T), where the input is tokens
    token_layout: str  # of what they become

    def __init__(
        self, ops: NumpyOperations, n: int, masks: Sequence[AnyArray] = (), weights: bool = True, training: bool = True
    ) -> None:
        self.ops, self.n, self.weights, self.training = ops, n, weights, training
        self.masks = iter(masks)
        self._scratch: dict[tuple[int, int], AnyArray] = {}
        self._ones: dict[int, AnyArray] = {}

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
