"""Small fixed pieces of work, timed right beside the rounds, that divide out the machine's changing speed.

Two of them on the CPU, because a machine's speed is not one number: ``product``, a matrix product in cache, follows
cells that compute; ``interpreter``, a plain Python loop, follows cells that are all call overhead.  Both are recorded;
the analysis weighs them for each cell.  Each is done twice and the second timed: cold, the product took 1.3 times as
long after a large cell as after a small one (warm: 1.02), and large cells looked faster than the ceiling.  A pass over
memory was tried and left out: its own spread was 25 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

Kernels = Mapping[str, Callable[[], float]]

#: Side of the square product (float32) and turns of the loop: about 0.1 ms each.
PRODUCT, TURNS = 160, 3_000


def make(device: str, library: str) -> Kernels:
    """Functions by name that do their work once on ``device`` and return the seconds it took, synchronised.

    On the CPU the product is NumPy's; on an accelerator there is only a product, by ``library`` (``torch``, ``jax``).
    """
    if device == "cpu":
        return {"product": _timed(_numpy_product()), "interpreter": _timed(_loop)}
    return {"product": _timed(_torch_product(device) if library == "torch" else _jax_product(device))}


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    clock = time.perf_counter

    def reference() -> float:
        work()  # the cell just measured has emptied the caches: a cold kernel tells of the cell, not of the machine
        start = clock()
        work()
        return clock() - start

    for _ in range(10):
        reference()
    return reference


def _loop() -> None:
    total = 0
    for i in range(TURNS):
        total += i * i


def _numpy_product() -> Callable[[], object]:
    import numpy as np

    a = np.full((PRODUCT, PRODUCT), 0.01, np.float32)
    out = np.empty_like(a)
    return lambda: np.dot(a, a, out)


def _torch_product(device: str) -> Callable[[], object]:
    import torch

    a = torch.full((1024, 1024), 0.01, device=device)
    out = torch.empty_like(a)

    def work() -> None:
        torch.mm(a, a, out=out)
        torch.cuda.synchronize(device)

    return work


def _jax_product(device: str) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    from impls.jax_jit import resolve

    place: Any = resolve(device)
    a = jax.device_put(jnp.full((1024, 1024), 0.01, jnp.float32), place)
    product = jax.jit(lambda a: a @ a)
    return lambda: jax.block_until_ready(product(a))  # type: ignore[no-untyped-call]
