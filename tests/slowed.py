"""An implementation that does more work than it should: what seeded regressions are made of (``tests.gate_check``).

``BACKPROP_BENCH_SLOWED`` is JSON, ``{"numpy": {"64-32-10 horner-4 n=64": 0.1}}``: at that point every step of that
implementation computes a tanh besides, over so many numbers that it takes 1.1 times as long.  How many that is the first
process finds out; it leaves them in the folder ``BACKPROP_BENCH_CALIBRATED`` for those after it, since a change of the code
is the same amount of work in every process.  Where nothing is named, the step is the implementation's own, untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
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
        share = json.loads(os.environ.get("BACKPROP_BENCH_SLOWED", "{}")).get(self.name, {}).get(key, 0.0)
        elements = _elements(f"{self.name} {key}", share, lambda: own.prepare(problem, device, dtype, threads))
        self.step = _slow_step(self._inner.step, Extra(elements)) if elements else self._inner.step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _slow_step(step: Callable[[], object], extra: Extra) -> Callable[[], None]:
    def slow() -> None:
        step()
        extra()

    return slow


def _elements(name: str, share: float, make: Callable[[], Any]) -> int:
    """As found before, or found now on an instance of its own, which takes steps."""
    if not share:
        return 0
    known = Path(os.environ["BACKPROP_BENCH_CALIBRATED"]) / hashlib.sha256(name.encode()).hexdigest()[:16]
    if not known.exists():
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(str(Calibration(make()).elements(share)))
    return int(known.read_text())


class Calibration:
    """Finds how much extra work makes a step so much longer, in place: beside the step's own work, caches and all."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._iterations = 1
        self._iterations = max(1, round(0.003 / min(self._seconds(instance.step) for _ in range(5))))

    def elements(self, share: float) -> int:
        """By the secant rule, thrice."""
        found = share * self._seconds(self._instance.step) / 5e-10
        for _ in range(3):
            if found < 1:
                return 0
            excess = self._excess(round(found))
            found *= min(4.0, max(0.0, share / excess)) if excess > 0 else 2.0
        return round(found)

    def _excess(self, elements: int) -> float:
        step, slow = self._instance.step, _slow_step(self._instance.step, Extra(elements))
        times = [(self._seconds(step), self._seconds(slow)) for _ in range(40)]
        return float(np.median([slow_s / own_s for own_s, slow_s in times])) - 1

    def _seconds(self, call: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(self._iterations):
            call()
        self._instance.synchronize()
        return (time.perf_counter() - start) / self._iterations


class Numpy(Slowed):
    """``numpy``."""

    name = "numpy"


class Torch(Slowed):
    """``torch``."""

    name = "torch"


class Jax(Slowed):
    """``jax``."""

    name = "jax"
