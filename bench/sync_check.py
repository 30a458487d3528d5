"""Does ``synchronize`` wait?  Asked before anything is timed: a device that answers early would be measured as fast.

Results cannot be read before they are there.  So after some steps and a ``synchronize``, reading them must take no longer
than reading results that were given all the time they need; what is left over is work ``synchronize`` did not wait for.
Both are first reads: libraries keep what they have handed over once, and a second read is no measure of the first.
"""

from __future__ import annotations

import math
import time
from typing import Any

#: Steps are repeated until they take about this long, at most so often.
LEAST_S, MOST_STEPS = 0.005, 200
#: Larger leftovers than this share of all the work are no noise, if they show in every try.
LEFT_OVER, TRIES, MOST_TRIES = 0.2, 3, 12


def left_over(instance: Any) -> float:
    """Share of a few steps' work that is still to be done when ``synchronize`` returns: the least of some tries, more of
    them while it looks as if it did not wait.
    """
    whole = _seconds(lambda: (instance.step(), instance.synchronize(), _read(instance)))
    steps = min(MOST_STEPS, max(1, math.ceil(LEAST_S / max(whole, 1e-7))))
    least = math.inf
    for number in range(MOST_TRIES):
        least = min(least, _try(instance, steps, whole))
        if number + 1 >= TRIES and least <= LEFT_OVER:
            break
    return least


def _try(instance: Any, steps: int, whole: float) -> float:
    instance.step()
    instance.synchronize()
    time.sleep(max(0.001, 2 * whole))
    settled = _seconds(lambda: _read(instance))
    worked = _seconds(lambda: ([instance.step() for _ in range(steps)], instance.synchronize()))
    late = max(0.0, _seconds(lambda: _read(instance)) - settled)
    return late / (worked + late)


def _read(instance: Any) -> object:
    return instance.parameters(), instance.loss_value()


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
