"""Exact peak bytes of one prepared problem over a step, as told by whoever hands out its memory.

Resident memory tells nothing of small cells and jumps by whole arenas, but allocators know every byte: NumPy's buffers
are reported to ``tracemalloc``, torch's tensors to its profiler or counted by the CUDA device.  XLA plans the buffers of
a compiled step beforehand; an implementation hands that on as ``peak_bytes``.

Arrays are what is counted, in every library, and Python's objects only where numbers are such or nothing is known of
the implementation.  What is traced is an instance of its own, and its second step: the first one leaves what every later
one finds, such as gradients.  What a constructor needs for a moment does not count.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from operator import itemgetter
from typing import Any, NamedTuple

from impls.interface import TellsMemory
from impls.registry import Entry

Make = Callable[[], Any]


class Peak(NamedTuple):
    """Peak bytes and who told them; None where nobody can tell."""

    peak_bytes: int | None = None
    memory_from: str | None = None


def peak(entry: Entry, device: str, instance: Any, make: Make) -> Peak:
    """Peak bytes of a step of ``instance``, which stays as it is: ``make`` makes another like it, to be traced."""
    own = not entry.requires  # it may use whatever is loaded here
    libraries = sys.modules if own else entry.requires
    if isinstance(instance, TellsMemory):
        return Peak(instance.peak_bytes(), "XLA" if "jax" in libraries else "itself")
    if device.startswith("cuda"):
        return Peak(_on_cuda(make, device), "device counter")
    if "jax" in libraries:
        return Peak()  # nobody but XLA sees its buffers
    if own and "torch" in libraries:
        return Peak(_in_torch(make) + _in_python(make, objects=True), "torch profiler, tracemalloc")
    if "torch" in libraries:
        return Peak(_in_torch(make), "torch profiler")
    return Peak(_in_python(make, objects=own or entry.object_bytes > 0), "tracemalloc")


def _in_python(make: Make, objects: bool) -> int:
    """NumPy's buffers, and Python's objects if asked for."""
    with _tracing(objects):
        before = tracemalloc.get_traced_memory()[0]
        instance = _after_a_step(make)
        tracemalloc.reset_peak()
        _step(instance)
        return tracemalloc.get_traced_memory()[1] - before


@contextmanager
def _tracing(objects: bool) -> Iterator[None]:
    """``tracemalloc`` at work.  It wraps Python's allocators, while NumPy reports to it by itself: with the allocators
    put back, it hears of NumPy alone, and Python runs at full speed.
    """
    gc.collect()  # empties the free lists, whose objects would not be seen to be taken
    plain = [_Allocator.get(domain) for domain in _Allocator.DOMAINS]
    tracemalloc.start()
    try:
        if not objects:
            for domain, allocator in zip(_Allocator.DOMAINS, plain, strict=True):
                ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(allocator))
        yield
    finally:
        tracemalloc.stop()


class _Allocator(ctypes.Structure):
    """``PyMemAllocatorEx`` of Python's C interface; there is one for raw memory, one for memory, one for objects."""

    DOMAINS = range(3)
    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")]

    @classmethod
    def get(cls, domain: int) -> _Allocator:
        allocator = cls()
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(allocator))
        return allocator


def _in_torch(make: Make) -> int:
    """Tensors on the CPU.  torch's summary of a profile hides what came and went within an operation; the events that
    it is made from do not.  Of DDP's buckets, gloo's thread frees some 30 bytes, now and then unseen: they count then.
    """
    import torch

    mark = "the step that counts"
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        instance = _after_a_step(make)
        with torch.autograd.profiler.record_function(mark):
            _step(instance)
    assert profile.kineto_results is not None
    events = profile.kineto_results.events()
    began = next(event.start_ns() for event in events if event.name() == mark)
    changes = sorted(((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"), key=itemgetter(0))
    before = sum(change for at, change in changes if at < began)
    return int(max(accumulate((change for at, change in changes if at >= began), initial=before)))


def _on_cuda(make: Make, device: str) -> int:
    import torch

    before = torch.cuda.memory_allocated(device)
    instance = _after_a_step(make)
    torch.cuda.reset_peak_memory_stats(device)
    _step(instance)
    return torch.cuda.max_memory_allocated(device) - before


def _after_a_step(make: Make) -> Any:
    instance = make()
    _step(instance)
    return instance


def _step(instance: Any) -> None:
    instance.step()
    instance.synchronize()
