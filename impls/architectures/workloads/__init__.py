"""Workloads: what is trained out there, each as data in one file of its own.

A workload says which architectures it is made of at given sizes, along which axes its sizes are swept, and the laws it
predicts for its time and memory.  A new one is a file here with a ``WORKLOAD``, and nothing else.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from backprop_files import UserError
from impls.architectures.layers import Activation, Dense, Layer
from impls.architectures.problem import Objective
from impls.names import nearest

_ORDER = ("mlp", "autoencoder", "cnn", "rnn", "lstm", "transformer", "gan", "dqn", "policy_gradient")


def names() -> tuple[str, ...]:
    """Those that have a file here: the usual ones in the order of reports, then others by name.  Imports none."""
    there = {module.name for module in pkgutil.iter_modules(__path__)}
    return (*(name for name in _ORDER if name in there), *sorted(there.difference(_ORDER)))


NAMES = names()
#: What laws may name that no workload knows: bytes of a number, and of the machine's caches.
MACHINE = ("itemsize", "L1", "L2", "L3")
PROFILES = ("smoke", "quick", "full")

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Law:
    """A candidate for time or memory: a sum of terms, whose coefficients are fitted and cannot be negative."""

    name: str
    statement: str
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One of a workload's sizes, swept while the others stay in the middle, or where ``base`` puts them.

    ``size`` is a key of ``Workload.middle``.  ``variable`` is what the exponent of time is fitted in, an expression that may
    name what ``Workload.law`` may; ``exponent`` is what is predicted past overhead, None where no power is: where the law's
    terms grow with different powers of what the axis moves.
    """

    name: str
    size: str
    quick: tuple[int, ...]
    full: tuple[int, ...]
    variable: str
    exponent: float | None = 1.0
    base: Sizes = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """Sizes at which a workload is measured, and the axes they lie on; those held out are never fitted, only judged by."""

    sizes: Sizes
    axes: tuple[str, ...]
    heldout: bool = False


@dataclass(frozen=True)
class Workload:
    """One kind of training, as data.

    ``objective(sizes)`` builds it.  ``middle`` are the usual sizes, ``n`` the examples among them.  ``law`` are the terms of
    its time in its own variables, ``memory_law`` those of its bytes; they may name what ``columns`` has, and ``MACHINE``.
    ``statement`` is the law in words.  ``plain`` is the short product said of it, such as n·m·T, where that is not n·m
    itself.  ``heldout`` are sizes, given by what differs from the middle, of more work than any that is fitted.
    ``variables(sizes)`` are its own.
    """

    name: str
    summary: str
    middle: Sizes
    objective: Callable[[Sizes], Objective]
    axes: tuple[Axis, ...]
    law: tuple[str, ...]
    memory_law: tuple[str, ...]
    statement: str
    heldout: tuple[Sizes, ...]
    plain: str = ""
    variables: Callable[[Sizes], Mapping[str, int]] = field(default=lambda sizes: {})

    def at(self, **sizes: int) -> dict[str, int]:
        """The middle sizes, but for those given.  Raises UserError for an unknown one."""
        for name in sizes:
            if name not in self.middle:
                raise UserError(nearest(f"size of {self.name}", name, tuple(self.middle)))
        return {**self.middle, **sizes}

    @property
    def laws(self) -> tuple[Law, ...]:
        """Candidates for its time, declared before anything is measured; its own law is the last."""
        article = Law(
            "n·m·p", "the article's; p is the same at all sizes of a workload, which leaves n·m", ("1", "n·m")
        )
        plain = Law(self.plain, "every weight is used as often for each example", ("1", self.plain))
        reuse = Law("reuse", "each use of a weight, and each other multiply-add, costs the same", ("1", "n·products"))
        own = Law("own", self.statement, self.law)
        return (article, *((plain,) if self.plain else ()), reuse, own)

    def columns(self, sizes: Sizes) -> dict[str, int]:
        """All that a law may name: n, m, exact counts of one example, numbers that its layers put out, its own variables."""
        objective = self.objective(sizes)
        common = {"n": sizes["n"], "m": objective.m, **vars(objective.count()), "kept": kept(objective)}
        return common | dict(self.variables(sizes))

    def points(self, profile: str) -> list[Point]:
        """The middle, the axes' values and, but in ``smoke``, the held-out sizes; each once.  Raises UserError."""
        if profile not in PROFILES:
            raise UserError(nearest("profile", profile, PROFILES))
        lying: dict[tuple[int, ...], list[str]] = {tuple(self.middle.values()): []}
        for axis in self.axes:
            for value in axis.full if profile == "full" else axis.quick[:1] if profile == "smoke" else axis.quick:
                sizes = self.at(**axis.base, **{axis.size: value})
                lying.setdefault(tuple(sizes.values()), []).append(axis.name)
        fitted = [Point(self._named(values), tuple(axes)) for values, axes in lying.items()]
        return fitted + [Point(self.at(**sizes), (), True) for sizes in self.heldout if profile != "smoke"]

    def _named(self, values: tuple[int, ...]) -> dict[str, int]:
        return dict(zip(self.middle, values, strict=True))


def kept(objective: Objective) -> int:
    """Numbers that all layers put out for one example: what a backward pass may want to find again."""
    return sum(math.prod(after) for architecture in objective.architectures for _, _, after in architecture.walk())


#: Terms of the time and the memory of networks of dense layers: products once for each weight, an activation for each unit,
#: an update for each parameter, and what lies beyond the second-level cache; ``depth`` and ``u`` are ``of_dense``'s.
DENSE_LAW = ("1", "depth", "n·products", "n·u", "m", "n·u·beyond(n·u·itemsize, L2)")
DENSE_MEMORY = ("1", "m", "n·kept")


def of_dense(sizes: Sizes) -> dict[str, int]:
    """Of ``hidden`` layers of one ``width``: weight layers, and units with an activation."""
    return {"depth": sizes["hidden"] + 1, "u": sizes["width"] * sizes["hidden"]}


def perceptron(units: tuple[int, ...], activation: str) -> tuple[Layer, ...]:
    """Dense layers of so many units, with the activation between them."""
    hidden = [layer for width in units[:-1] for layer in (Dense(width), Activation(activation))]
    return (*hidden, Dense(units[-1]))


def find(name: str) -> Workload:
    """The workload of that name, ``policy-gradient`` or ``policy_gradient``.  Raises UserError for an unknown one, with the
    nearest known one.
    """
    module = name.replace("-", "_")
    if module not in NAMES:
        raise UserError(nearest("architecture", name, NAMES))
    found: Workload = importlib.import_module(f"impls.architectures.workloads.{module}").WORKLOAD
    return found
