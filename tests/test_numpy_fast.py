"""The fast NumPy implementation keeps its promise: nothing the size of an array is allocated in a step."""

from __future__ import annotations

import tracemalloc

import pytest

from impls import activations
from impls.interface import Network
from impls.numpy_fast import NumpyFast
from impls.problem import make_problem
from impls.straight_line import block_sizes


def allocated(instance: NumpyFast) -> tuple[int, int]:
    """Bytes that steps take beyond what is held: at most, and what is left of them."""
    instance.step()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(3):
            instance.step()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before, after - before


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", [*activations.PLAIN_NAMES, "horner-5"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_allocates_no_array(activation: str, loss: str, dtype: str) -> None:
    n = 1200  # three blocks of 400: a layer's activations are 76,800 bytes in float32
    instance = NumpyFast(make_problem(Network((64, 48, 48, 10), activation, loss), n), dtype=dtype)
    most, left = allocated(instance)
    # where a row is spread over a block (cross entropy), a ufunc takes a buffer of its own, at most 8,192 elements
    allowed = 2048 + (8192 * instance.theta.flat.itemsize if loss == "cross_entropy" else 0)
    assert most < allowed < 48 * 400 * instance.theta.flat.itemsize
    assert left < 1024


def test_blocks_are_even_and_complete() -> None:
    for n in (1, 511, 512, 513, 1200, 4096):
        sizes = block_sizes(n, 512)
        assert sum(sizes) == n
        assert max(sizes) <= 512
        assert max(sizes) - min(sizes) <= 1
