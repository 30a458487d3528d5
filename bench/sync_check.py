"""Does ``synchronize`` wait?  Asked before anything is timed: a device that answers early would be measured as fast.

Results cannot be read before they are there.  So after some steps and a ``synchronize``, reading them must take no longer
than reading results that were given all the time they need; what is left over is work ``synchronize`` did not wait for.
Both are first reads: libraries keep what they have handed over once, and a second read is no measure of the first.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

#: Steps are repeated until they take about this long, at most so often.
LEAST_S, MOST_STEPS = 0.005, 200
#: Larger leftovers than this share of all the work are no noise, if they show in most of so many tries.
LEFT_OVER, TRIES = 0.2, 7


def left_over(instance: Any) -> float:
    """Share of a few steps' work that is still to be done when ``synchronize`` returns: the median of some tries, since
    what disturbs the machine may make either read look long.
    """
    whole = _seconds(lambda: (instance.step(), instance.synchronize(), _read(instance)))
    steps = min(MOST_STEPS, max(1, math.ceil(LEAST_S / max(whole, 1e-7))))
    tries = [_try(instance, steps, whole) for _ in range(TRIES)]
    settled = min(settled for settled, _, _ in tries)
    late = [(max(0.0, first - settled), worked) for _, worked, first in tries]
    return statistics.median(left / (worked + left) for left, worked in late)


def _try(instance: Any, steps: int, whole: float) -> tuple[float, float, float]:
    """Seconds to read what had all the time it needs, of the steps with their ``synchronize``, and to read right after."""
    instance.step()
    instance.synchronize()
    time.sleep(max(0.001, 2 * whole))
    settled = _seconds(lambda: _read(instance))
    worked = _seconds(lambda: ([instance.step() for _ in range(steps)], instance.synchronize()))
    return settled, worked, _seconds(lambda: _read(instance))


def _read(instance: Any) -> object:
    return instance.parameters(), instance.loss_value()


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
