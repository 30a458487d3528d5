"""How narrow every cell's interval is so far, to send further passes where they are needed.  Only to plan with: the
report makes its own intervals from the files.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bench import estimate

Key = tuple[str, str]

#: A cell's own variance is hardly known after three passes: that of its implementation counts as so many degrees more.
PRIOR_DEGREES = 4
#: About t at so many degrees of freedom; a plan needs no better.
T = 2.3


class Precision:
    """Half-widths, relative to the time, of the jobs measured so far."""

    def __init__(self) -> None:
        self._logs: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def learn(self, key: Key, phases: dict[str, Any]) -> None:
        """Take in one pass of a job."""
        for phase, result in phases.items():
            self._logs[key][phase].append(estimate.log_time(result["seconds"], result["reference_s"]))

    def half_width(self, key: Key) -> float:
        """Of the widest phase of a job; infinite where there is one pass or none."""
        phases = self._logs.get(key, {})
        if not phases or min(map(len, phases.values())) < 2:
            return math.inf
        prior = self._usual_variance(key[0])
        return max(_half_width(logs, prior) for logs in phases.values())

    def widest(self, keys: Sequence[Key], target: float) -> list[Key]:
        """Those wider than ``target``, widest first."""
        return sorted((key for key in keys if self.half_width(key) > target), key=self.half_width, reverse=True)

    def _usual_variance(self, setting: str) -> float:
        variances = [
            statistics.variance(logs)
            for key, phases in self._logs.items()
            if key[0] == setting
            for logs in phases.values()
            if len(logs) > 1
        ]
        return statistics.median(variances)


def _half_width(logs: list[float], prior: float) -> float:
    degrees = len(logs) - 1
    variance = (degrees * statistics.variance(logs) + PRIOR_DEGREES * prior) / (degrees + PRIOR_DEGREES)
    return T * math.sqrt(variance / len(logs))
