"""An implementation that does more work than it should: what seeded regressions are made of (``tests.gate_check``).

``BACKPROP_BENCH_SLOWED`` is JSON, ``{"numpy": {"64-32-10 horner-4 n=64": 5000}}``: elements of a tanh that every step of that
implementation computes besides, at that point.  Where nothing is named, the step is the implementation's own, untouched.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from impls import registry
from impls.interface import Problem


def point_key(layers: tuple[int, ...], activation: str, n: int) -> str:
    """How a point is named in the variable."""
    return f"{'-'.join(map(str, layers))} {activation} n={n}"


class Extra:
    """A tanh over so many numbers."""

    def __init__(self, elements: int) -> None:
        self._numbers = np.linspace(-2, 2, elements, dtype=np.float32)
        self._out = np.empty_like(self._numbers)

    def __call__(self) -> None:
        np.tanh(self._numbers, self._out)


class Slowed:
    """Wraps a registered implementation; subclasses say which."""

    name = ""

    def __init__(self, problem: Problem, device: str, dtype: str, threads: int) -> None:
        own = registry.find(f"whole-{self.name}")
        self._inner: Any = own.prepare(problem, device, dtype, threads)
        key = point_key(problem.network.layers, problem.network.activation, problem.n)
        elements = json.loads(os.environ.get("BACKPROP_BENCH_SLOWED", "{}")).get(self.name, {}).get(key, 0)
        self.step = self._slow_step(Extra(elements)) if elements else self._inner.step

    def _slow_step(self, extra: Extra) -> Any:
        step = self._inner.step

        def slow() -> None:
            step()
            extra()

        return slow

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Numpy(Slowed):
    """``numpy``."""

    name = "numpy"


class Torch(Slowed):
    """``torch``."""

    name = "torch"


class Jax(Slowed):
    """``jax``."""

    name = "jax"
