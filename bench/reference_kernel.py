"""A small fixed piece of work, timed right beside the rounds, that divides out the machine's changing speed.

It mixes what a step is made of: a matrix product in cache, an elementwise transcendental, and a pass over memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Sides of the square product, elements of the transcendental, elements copied (float32).
PRODUCT, ELEMENTS, COPIED = 160, 16_384, 131_072


def make(device: str, library: str) -> Callable[[], float]:
    """A function that does the work once on ``device`` and returns the seconds it took, synchronised.

    On the CPU it is NumPy's; on an accelerator it is that of ``library`` (``torch`` or ``jax``).
    """
    if device == "cpu":
        return _numpy_kernel()
    return _torch_kernel(device) if library == "torch" else _jax_kernel(device)


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    clock = time.perf_counter

    def reference() -> float:
        start = clock()
        work()
        return clock() - start

    for _ in range(10):
        reference()
    return reference


def _numpy_kernel() -> Callable[[], float]:
    import numpy as np

    a = np.full((PRODUCT, PRODUCT), 0.01, np.float32)
    b = np.empty_like(a)
    z = np.linspace(-3, 3, ELEMENTS, dtype=np.float32)
    h = np.empty_like(z)
    source = np.ones(COPIED, np.float32)
    target = np.empty_like(source)

    def work() -> None:
        np.dot(a, a, b)
        np.tanh(z, h)
        np.copyto(target, source)
        np.dot(a, a, b)

    return _timed(work)


def _torch_kernel(device: str) -> Callable[[], float]:
    import torch

    a = torch.full((1024, 1024), 0.01, device=device)
    z = torch.linspace(-3, 3, 1 << 20, device=device)
    b, h = torch.empty_like(a), torch.empty_like(z)

    def work() -> None:
        torch.mm(a, a, out=b)
        torch.tanh(z, out=h)
        torch.cuda.synchronize(device)

    return _timed(work)


def _jax_kernel(device: str) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp

    from impls.jax_jit import resolve

    place: Any = resolve(device)
    a = jax.device_put(jnp.full((1024, 1024), 0.01, jnp.float32), place)
    z = jax.device_put(jnp.linspace(-3, 3, 1 << 20, dtype=jnp.float32), place)
    both = jax.jit(lambda a, z: (a @ a, jnp.tanh(z)))
    return _timed(lambda: jax.block_until_ready(both(a, z)))  # type: ignore[no-untyped-call]
