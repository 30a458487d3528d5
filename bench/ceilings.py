"""What nothing can beat, measured in every pass beside the cells: matrix-product rate, memory bandwidth, call floor."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

#: Side of the square product: large enough to reach the machine's best rate, small enough to take some milliseconds.
SIDE = 1024
#: Bytes copied; with the copy, several times a last-level cache.
COPIED_BYTES = 1 << 25


def measure(device: str, dtype: str) -> dict[str, float | None]:
    """``ceiling_flops`` (best of every library already imported) and ``bandwidth_bytes_per_s`` (read plus written).

    On an accelerator they are measured there, by the library that drives it.
    """
    if device == "cpu":
        return {"ceiling_flops": _cpu_products(dtype), "bandwidth_bytes_per_s": _cpu_bandwidth()}
    if "torch" in sys.modules:
        return _torch_ceilings(device, dtype)
    return {"ceiling_flops": None, "bandwidth_bytes_per_s": None}


def _fastest(work: Callable[[], object], repeats: int = 4) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def call_floor(calls: int = 2000) -> float:
    """Seconds of the smallest call into the library that is loaded: what a step of k calls cannot go below, times k."""
    call = _smallest_call()

    def many() -> None:
        for _ in range(calls):
            call()

    return _fastest(many) / calls


def _smallest_call() -> Callable[[], object]:
    import numpy as np

    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        x = torch.ones(1)
        return lambda: torch.add(x, x, out=x)
    if "jax" in sys.modules:
        jax: Any = sys.modules["jax"]
        y, same = jax.numpy.ones(1), jax.jit(lambda v: v)
        return lambda: same(y)
    a = np.ones(1)
    return lambda: np.add(a, a, a)


def _cpu_products(dtype: str) -> float:
    import numpy as np

    a = np.full((SIDE, SIDE), 0.01, dtype)
    out = np.empty_like(a)
    times = [_fastest(lambda: np.dot(a, a, out))]
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        x = torch.from_numpy(a)
        y = torch.empty_like(x)
        times.append(_fastest(lambda: torch.mm(x, x, out=y)))
    if "jax" in sys.modules:
        jax: Any = sys.modules["jax"]
        z, product = jax.numpy.asarray(a), jax.jit(jax.numpy.matmul)
        times.append(_fastest(lambda: product(z, z).block_until_ready()))
    return 2.0 * SIDE**3 / min(times)


def _cpu_bandwidth() -> float:
    return 2.0 * COPIED_BYTES / _fastest(copy_between(COPIED_BYTES), repeats=2)


def copy_between(size: int) -> Callable[[], object]:
    """A copy of ``size`` bytes, as a call: it moves twice as many."""
    import numpy as np

    source = np.zeros(size, np.uint8)
    source[:] = 1  # make the pages real
    target = np.ones_like(source)
    return lambda: np.copyto(target, source)


def _torch_ceilings(device: str, dtype: str) -> dict[str, float | None]:
    import torch

    side = 8192
    a = torch.full((side, side), 0.01, device=device, dtype=getattr(torch, dtype))
    out = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, a, out=out)
        torch.cuda.synchronize(device)

    def copy() -> None:
        out.copy_(a)
        torch.cuda.synchronize(device)

    moved = 2.0 * a.numel() * a.element_size()
    return {"ceiling_flops": 2.0 * side**3 / _fastest(product), "bandwidth_bytes_per_s": moved / _fastest(copy)}
