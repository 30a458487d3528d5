"""All gradients of a loss in three ways, to compare what they cost: the types, and which library does it where.

The chain rule can be gone through from the loss back to the parameters (reverse mode: backpropagation), which gives all m
derivatives in one pass, or from a parameter on to the loss (forward mode), which gives one; central differences ask for
the loss on either side of a parameter's value.  A new library is one file and one line of ``TARGETS``.

Source: Griewank & Walther, *Evaluating Derivatives* (2008), ch. 3; Baydin et al. (2018), *JMLR* 18:153.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backprop_files import UserError
from impls.interface import AnyArray, Array, Problem
from impls.names import nearest

#: By implementation: ``module:Class``, imported when it is asked for.
TARGETS = {
    "numpy": "impls.numpy_derivatives:NumpyDerivatives",
    "torch": "impls.torch_derivatives:TorchDerivatives",
    "jax": "impls.jax_derivatives:JaxDerivatives",
}


class Derivatives(Protocol):
    """One prepared problem on one device, whose parameters stay where they are: nothing is updated.

    Built as ``Class(problem, device=..., dtype=..., threads=...)``, untimed.  Calls may be asynchronous.  Parameters are
    numbered as ``Problem.parameters`` lie one after the other, each array row by row.
    """

    def loss(self) -> object:
        """Compute the loss alone; nothing is kept for a backward pass."""

    def reverse(self) -> object:
        """Compute the loss and all its derivatives as the library does it best."""

    def forward(self, start: int, count: int) -> object:
        """Compute ∂L/∂θ_k for ``count`` parameters from ``start`` on, all of them in one pass, by forward mode.

        Tangents are dense, as the library's own forward mode has them: that they are unit vectors is not made use of.
        """

    def central(self, start: int, count: int) -> object:
        """Compute the same by central differences, two losses for each parameter, at the steps of ``Shifts``."""

    def synchronize(self) -> object:
        """Return when all work handed out so far is done."""

    def value(self) -> float:
        """The loss that the last ``loss`` or ``reverse`` computed."""

    def gradients(self) -> list[AnyArray]:
        """What the last ``reverse`` computed, as NumPy copies in the order and the shapes of ``Problem.parameters``."""

    def derivatives(self) -> AnyArray:
        """What the last ``forward`` or ``central`` computed, shape (count,)."""


def prepare(name: str, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> Derivatives:
    """The derivatives of a problem by the implementation of that name.  Raises UserError where it has none."""
    if name not in TARGETS:
        raise UserError(nearest("implementation with derivatives", name, TARGETS))
    module, _, class_name = TARGETS[name].partition(":")
    made: Derivatives = getattr(importlib.import_module(module), class_name)(
        problem, device=device, dtype=dtype, threads=threads
    )
    return made


def flat(arrays: Sequence[AnyArray]) -> AnyArray:
    """Arrays one after the other, each row by row: the order that parameters are numbered in."""
    return np.concatenate([np.ravel(array) for array in arrays])


@dataclass(frozen=True, eq=False)
class Shifts:
    """Either side of every parameter, (m,) in the dtype computed in, and how far apart they are, (m,) in float64."""

    up: AnyArray
    down: AnyArray
    apart: Array

    @classmethod
    def of(cls, theta: AnyArray) -> Shifts:
        """θ ± h with h = ε^(1/3) max(1, |θ|), where rounding and curvature are wrong by about as much.

        Source: Press et al., *Numerical Recipes*, 3rd ed., § 5.7.
        """
        h = np.cbrt(np.finfo(theta.dtype).eps) * np.maximum(1, np.abs(theta))
        up, down = theta + h, theta - h  # rounded: the distance is that of the rounded ones
        return cls(up, down, up.astype(np.float64) - down.astype(np.float64))
