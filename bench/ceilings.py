"""What nothing can beat, measured in every pass beside the cells: matrix-product rate, memory bandwidth, call floor."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import machine
from bench.reference_kernel import torch_products
from impls import dtypes

#: Side of the square product: large enough to reach the machine's best rate, small enough to take some milliseconds.
SIDE = 1024
#: Bytes copied; with the copy, several times a last-level cache.
COPIED_BYTES = 1 << 25
#: The same on an accelerator, where it is large enough for the rate that its makers tell.  A smaller one, halved until
#: both fit into this share of the memory that is free, where there is less of it.
DEVICE_SIDE, DEVICE_COPIED_BYTES, DEVICE_MEMORY_SHARE = 8192, 1 << 30, 0.5
#: The best of all within so many seconds: the first ones find the device asleep, at a fraction of its clock.
DEVICE_SECONDS = 0.3


def measure(device: str, dtype: str) -> dict[str, float | None]:
    """``ceiling_flops`` (best of every library already imported) and ``bandwidth_bytes_per_s`` (read plus written).

    On an accelerator they are measured there, by the library that drives it: of ``dtype``, which is float32 without TF32,
    ``tf32``, ``bfloat16``, ``float16`` or float64.  None where no library here can.
    """
    if device == "cpu":
        return {"ceiling_flops": _cpu_products(dtype), "bandwidth_bytes_per_s": _cpu_bandwidth()}
    side, copied = _sizes(device, dtype)
    library = library_of(device)
    if library == "torch":
        found = _rates(side, copied, _torch_product(device, dtype, side), _torch_copy(device, copied))
        sys.modules["torch"].cuda.empty_cache()  # the cells' memory, and what others see of it
        return found
    if library == "jax":
        return _rates(side, copied, _jax_product(device, dtype, side), _jax_copy(device, copied))
    return {"ceiling_flops": None, "bandwidth_bytes_per_s": None}


def library_of(device: str) -> str:
    """Which loaded library drives this accelerator: ``cuda`` is torch's name for it, ``gpu`` JAX's; empty if none does."""
    library = {"cuda": "torch", "gpu": "jax"}.get(device.partition(":")[0], "")
    return library if library in sys.modules else ""


def _sizes(device: str, dtype: str) -> tuple[int, int]:
    """Side of the product and bytes of the copy that fit: three matrices, and a copy beside its source."""
    card = machine.card_of(device)
    room = DEVICE_MEMORY_SHARE * (card.free_bytes if card and card.free_bytes else math.inf)
    side, copied = DEVICE_SIDE, DEVICE_COPIED_BYTES
    while 3 * dtypes.find(dtype).stored_itemsize * side**2 > room and side > SIDE:
        side //= 2
    while 2 * copied > room and copied > COPIED_BYTES:
        copied //= 2
    return side, copied


def _rates(
    side: int, copied: int, product: Callable[[], object], copy: Callable[[], object]
) -> dict[str, float | None]:
    return {
        "ceiling_flops": 2.0 * side**3 / _fastest(product, seconds=DEVICE_SECONDS),
        "bandwidth_bytes_per_s": 2.0 * copied / _fastest(copy, seconds=DEVICE_SECONDS),
    }


def _fastest(work: Callable[[], object], repeats: int = 4, seconds: float = 0.0) -> float:
    work()
    times: list[float] = []
    while len(times) < repeats or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def call_floor(calls: int = 2000, device: str = "cpu") -> float:
    """Seconds of the smallest call into the library that is loaded: what a step of k calls cannot go below, times k.

    On an accelerator that is a launch, one after the other, with one wait for them all.
    """
    call, wait = _smallest_launch(device) if device != "cpu" else (_smallest_call(), lambda: None)

    def many() -> None:
        for _ in range(calls):
            call()
        wait()

    return _fastest(many) / calls


def _smallest_launch(device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A call that has the device do next to nothing, and the wait for it."""
    if library_of(device) == "torch":
        torch: Any = sys.modules["torch"]
        x = torch.ones(1, device=device)
        return lambda: torch.add(x, x, out=x), lambda: torch.cuda.synchronize(device)
    if library_of(device) == "jax":
        jax: Any = sys.modules["jax"]
        held, launch = [jax.device_put(jax.numpy.ones(1), _jax_device(device))], jax.jit(lambda v: v + 1)

        def call() -> None:
            held[0] = launch(held[0])

        return call, lambda: held[0].block_until_ready()
    return _smallest_call(), lambda: None


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


def _cpu_products(dtype: str) -> float | None:
    import numpy as np

    a = np.full((SIDE, SIDE), 0.01, dtypes.find(dtype).stored)
    times = []
    if not dtypes.find(dtype).mixed:  # NumPy has no BLAS for them, or no such numbers at all
        out = np.empty_like(a)
        times.append(_fastest(lambda: np.dot(a, a, out)))
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        x = torch.from_numpy(a).to(getattr(torch, dtypes.find(dtype).computed))
        y = torch.empty_like(x)
        times.append(_fastest(lambda: torch.mm(x, x, out=y)))
    if "jax" in sys.modules:
        jax: Any = sys.modules["jax"]
        z = jax.numpy.asarray(a, getattr(jax.numpy, dtypes.find(dtype).computed))
        product = jax.jit(jax.numpy.matmul)
        times.append(_fastest(lambda: product(z, z).block_until_ready()))
    return 2.0 * SIDE**3 / min(times) if times else None


def _cpu_bandwidth() -> float:
    return 2.0 * COPIED_BYTES / _fastest(copy_between(COPIED_BYTES), repeats=2)


def copy_between(size: int) -> Callable[[], object]:
    """A copy of ``size`` bytes, as a call: it moves twice as many."""
    import numpy as np

    source = np.zeros(size, np.uint8)
    source[:] = 1  # make the pages real
    target = np.ones_like(source)
    return lambda: np.copyto(target, source)


def _torch_product(device: str, dtype: str, side: int) -> Callable[[], object]:
    """A product of random numbers: with equal ones fewer bits change in the multipliers, which leaves power to spare."""
    import torch

    kind = getattr(torch, dtypes.find(dtype).computed if dtype != "tf32" else "float32")
    a = torch.randn((side, side), device=device, dtype=torch.float32).to(kind)
    out = torch.empty_like(a)

    def product() -> None:
        with torch_products(tf32=dtype == "tf32"):
            torch.mm(a, a, out=out)
        torch.cuda.synchronize(device)

    return product


def _torch_copy(device: str, size: int) -> Callable[[], object]:
    import torch

    source = torch.ones(size, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize(device)

    return copy


def _jax_device(device: str) -> Any:
    from impls.jax_jit import resolve

    return resolve(device)


#: JAX's words for the precision of a product of float32's; of others there is but one.
JAX_PRECISION = {"float32": "highest", "tf32": "tensorfloat32"}


def _jax_product(device: str, dtype: str, side: int) -> Callable[[], object]:
    """As ``_torch_product``; the precision is an argument of the product, so that no flag is touched."""
    import jax

    kind = dtypes.find(dtype).computed if dtype != "tf32" else "float32"
    a = jax.device_put(jax.random.normal(jax.random.key(0), (side, side), "float32").astype(kind), _jax_device(device))
    product = jax.jit(lambda a: jax.numpy.matmul(a, a, precision=JAX_PRECISION.get(dtype)))
    return lambda: product(a).block_until_ready()


def _jax_copy(device: str, size: int) -> Callable[[], object]:
    """A sum with 1: a copy that a compiler cannot leave out."""
    import jax

    source = jax.device_put(jax.numpy.ones(size // 4, "float32"), _jax_device(device))
    copy = jax.jit(lambda a: a + 1)
    return lambda: copy(source).block_until_ready()
