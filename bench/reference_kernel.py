"""Small fixed pieces of work, timed right beside the rounds, that divide out the machine's changing speed.

Two of them on the CPU, because a machine's speed is not one number: ``product``, a matrix product in cache, follows
cells that compute; ``objects``, a round trip through JSON, follows cells that are all call overhead, since it does
what libraries do between two products: allocate, hash, branch, follow pointers.  Both are recorded; the analysis weighs
them for each cell.  Each is done twice and the second timed: cold, the product took 1.3 times as long after a large cell
as after a small one (warm: 1.02), and large cells looked faster than the ceiling.

The other candidates were tried and left out; docs/measuring.md has the figures, and ``--kernels`` times them all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

#: Each does its work so many times and returns the mean seconds.
Kernels = Mapping[str, Callable[[int], float]]

#: What is timed unless a run asks for others.
USUAL = ("product", "objects")


def make(device: str, library: str, names: Sequence[str] = USUAL) -> Kernels:
    """Functions by name that do their work on ``device`` as often as told and return the mean seconds, synchronised.

    On the CPU they are ``CANDIDATES``; on an accelerator there is only a product, of float32 without TF32 whatever the
    cell's dtype, by ``library`` (``torch``, ``jax``).
    """
    if device == "cpu":
        return {name: _timed(CANDIDATES[name]()) for name in names}
    return {"product": _timed(_torch_product(device) if library == "torch" else _jax_product(device))}


def _timed(work: Callable[[], object]) -> Callable[[int], float]:
    clock = time.perf_counter

    def reference(times: int = 1) -> float:
        work()  # the cell just measured has emptied the caches: a cold kernel tells of the cell, not of the machine
        start = clock()
        for _ in range(times):
            work()
        return (clock() - start) / times

    reference(10)
    return reference


def _product() -> Callable[[], object]:
    import numpy as np

    a = np.full((160, 160), 0.01, np.float32)
    out = np.empty_like(a)
    return lambda: np.dot(a, a, out)


def _objects() -> Callable[[], object]:
    tree = {str(i): [i, float(i), {"a": str(i)}] for i in range(30)}
    return lambda: json.loads(json.dumps(tree))


def _interpreter() -> Callable[[], object]:
    def loop() -> None:
        total = 0
        for i in range(3_000):
            total += i * i

    return loop


def _calls() -> Callable[[], object]:
    import numpy as np

    add, a = np.add, np.ones(8, np.float32)
    out = np.empty_like(a)

    def calls() -> None:
        for _ in range(300):
            add(a, a, out)

    return calls


def _elementwise() -> Callable[[], object]:
    import numpy as np

    a = np.linspace(-2, 2, 1 << 16, dtype=np.float32)
    out = np.empty_like(a)
    return lambda: np.tanh(a, out)


def _copy() -> Callable[[], object]:
    import numpy as np

    a = np.ones(1 << 18, np.float32)
    out = np.empty_like(a)
    return lambda: np.copyto(out, a)


#: Makers of kernels, each about 0.1 ms long.
CANDIDATES: dict[str, Callable[[], Callable[[], object]]] = {
    "product": _product,
    "objects": _objects,
    "interpreter": _interpreter,
    "calls": _calls,
    "elementwise": _elementwise,
    "copy": _copy,
}


def _torch_product(device: str) -> Callable[[], object]:
    import torch

    a = torch.full((1024, 1024), 0.01, device=device)
    out = torch.empty_like(a)

    def work() -> None:
        with torch_products(tf32=False):
            torch.mm(a, a, out=out)
        torch.cuda.synchronize(device)

    return work


@contextmanager
def torch_products(tf32: bool) -> Iterator[None]:
    """float32's products in TF32, or not, whatever the cells measured beside ask for; theirs again afterwards."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _jax_product(device: str) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    from impls.jax_jit import resolve

    place: Any = resolve(device)
    a = jax.device_put(jnp.full((1024, 1024), 0.01, jnp.float32), place)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    return lambda: jax.block_until_ready(product(a))  # type: ignore[no-untyped-call]
