"""Does ``synchronize`` wait?  Asked before anything is timed: a device that answers early would be measured as fast.

Results cannot be read before they are there.  So after some steps and a ``synchronize``, reading them must take no
longer than reading them again; what is left over is work that ``synchronize`` did not wait for.
"""

from __future__ import annotations

import math
import time
from typing import Any

#: Steps are repeated until they take about this long, at most so often.
LEAST_S, MOST_STEPS = 0.005, 200
#: Larger leftovers than this share of all the work are no noise, if they show in every try.
LEFT_OVER, TRIES = 0.2, 3


def left_over(instance: Any) -> float:
    """Share of a few steps' work that is still to be done when ``synchronize`` returns: the least of some tries."""
    whole = _seconds(lambda: (instance.step(), instance.synchronize(), _read(instance)))
    steps = min(MOST_STEPS, max(1, math.ceil(LEAST_S / max(whole, 1e-7))))
    return min(_try(instance, steps) for _ in range(TRIES))


def _try(instance: Any, steps: int) -> float:
    worked = _seconds(lambda: ([instance.step() for _ in range(steps)], instance.synchronize()))
    first, again = _seconds(lambda: _read(instance)), _seconds(lambda: _read(instance))
    late = max(0.0, first - again)
    return late / (worked + late)


def _read(instance: Any) -> object:
    return instance.parameters(), instance.loss_value()


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
