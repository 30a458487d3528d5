"""Several copies of one prepared problem, taken in turn, so that a small cell does not live in an accelerator's cache.

A training loop brings new examples with every step, and a cache of 50 MB would keep a small problem whole: its second
step would find in the cache what no user's step finds there.  So a block of steps goes through copies, which lie at other
addresses and have parameters of their own, until all together are several times the cache.  Of the smallest cells that
takes more copies than is sensible; there launches are what is measured, not bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

#: All copies together are at least so many times the cache, where ``MOST`` copies reach that.
TIMES_CACHE, MOST = 3, 16
#: A cache to reckon with where nobody tells its size: the largest of any device of its day.
UNKNOWN_CACHE_BYTES = 128 << 20
#: Share of the device's free memory for a cell's copies; preparing them stops after so long.
MEMORY_SHARE, PREPARE_S = 0.05, 0.5


def sets_for(device: str, bytes_of_one: int, cache_bytes: int | None, free_bytes: int | None) -> int:
    """How many copies a block goes through, each of which touches so many bytes; 1 on the CPU, whose caches hold what its
    users' caches hold.
    """
    if device == "cpu" or bytes_of_one <= 0:
        return 1
    wanted = math.ceil(TIMES_CACHE * (cache_bytes or UNKNOWN_CACHE_BYTES) / bytes_of_one)
    affordable = MOST if free_bytes is None else int(MEMORY_SHARE * free_bytes / bytes_of_one)
    return max(1, min(MOST, wanted, affordable))


def copies(first: Any, count: int, make: Callable[[], Any]) -> list[Any]:
    """``first`` and copies of it, ``count`` in all; fewer where making them takes too long."""
    found, deadline = [first], time.monotonic() + PREPARE_S
    while len(found) < count and time.monotonic() < deadline:
        found.append(make())
        found[-1].step()  # its first step allocates, captures, compiles
        found[-1].synchronize()
    return found


class Rotation:
    """Copies of a problem, ready to be called in turn."""

    def __init__(self, instances: Sequence[Any]) -> None:
        self.instances = tuple(instances)
        self._last = self.instances[0]

    def call(self, name: str) -> Callable[[], object]:
        """The method of that name, of one copy after the other; of a single one, the method itself."""
        if len(self.instances) == 1:
            method: Callable[[], object] = getattr(self.instances[0], name)
            return method
        turns = cycle([(instance, getattr(instance, name)) for instance in self.instances])

        def rotating() -> object:
            self._last, method = next(turns)
            return method()

        return rotating

    @property
    def waiting(self) -> Callable[[], object]:
        """A call that waits for the copy that was called last: a device does what it is handed in order."""
        if len(self.instances) == 1:
            synchronize: Callable[[], object] = self.instances[0].synchronize
            return synchronize
        return lambda: self._last.synchronize()
