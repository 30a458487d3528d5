"""One number from a cell's rounds, to plan with: the report makes its own from the files, by the same rule
(``analysis.normalise``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

#: A cell is told by its fastest rounds: one in five, three at most.
ONE_IN, MOST = 5, 3


def log_time(seconds: Sequence[float], references: Mapping[str, Sequence[float]]) -> float:
    """Log of the quiet time over the quiet product kernel's."""
    return quiet(seconds) - quiet(references["product"])


def quiet(seconds: Sequence[float]) -> float:
    """Mean log of the fastest rounds: what disturbs only ever slows."""
    count = max(1, min(MOST, len(seconds) // ONE_IN))
    return float(np.log(np.sort(seconds)[:count]).mean())
