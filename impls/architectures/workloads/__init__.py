"""Workloads: what is trained out there, each as data in one file of its own.

A workload says which architectures it is made of at given sizes, along which axes its sizes are swept, and the law it
predicts for its time and memory.  Files are found by ``NAMES``; nothing else names a workload.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from backprop_files import UserError
from impls.architectures.problem import Objective
from impls.names import nearest

NAMES = ("mlp", "autoencoder", "cnn", "rnn", "lstm", "transformer", "gan", "dqn", "policy_gradient")

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Axis:
    """One of a workload's sizes, swept while the others stay in the middle.

    ``size`` is a key of ``Workload.middle``.  ``variable`` is what the exponent of time is fitted in, an expression that may
    name what ``Workload.law`` may; ``exponent`` is what the law predicts past overhead.
    """

    name: str
    size: str
    quick: tuple[int, ...]
    full: tuple[int, ...]
    variable: str
    exponent: float = 1.0


@dataclass(frozen=True)
class Workload:
    """One kind of training, as data.

    ``objective(sizes)`` builds it.  ``middle`` are the usual sizes, ``n`` the examples among them.  ``variables(sizes)`` are
    what laws may name beside n and m (``positions``, ``T``, …).  ``law`` are the terms of its time, fitted with coefficients that
    cannot be negative, ``memory_law`` those of its bytes; ``statement`` is the law in words.
    """

    name: str
    summary: str
    middle: Sizes
    objective: Callable[[Sizes], Objective]
    axes: tuple[Axis, ...]
    law: tuple[str, ...]
    memory_law: tuple[str, ...]
    statement: str
    variables: Callable[[Sizes], Mapping[str, int]] = field(default=lambda sizes: {})

    def at(self, **sizes: int) -> dict[str, int]:
        """The middle sizes, but for those given.  Raises UserError for an unknown one."""
        for name in sizes:
            if name not in self.middle:
                raise UserError(nearest(f"size of {self.name}", name, tuple(self.middle)))
        return {**self.middle, **sizes}


def find(name: str) -> Workload:
    """The workload of that name.  Raises UserError for an unknown one, with the nearest known one."""
    if name not in NAMES:
        raise UserError(nearest("architecture", name, NAMES))
    found: Workload = importlib.import_module(f"impls.architectures.workloads.{name}").WORKLOAD
    return found
