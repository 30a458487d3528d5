"""One number from a cell's rounds, to plan with: the report makes its own from the files, by the same rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

#: Of a cell's rounds, and of the reference's, the quiet ones are compared: their lower decile.
QUIET = 0.1


def weight(products: int, seconds: Sequence[float], ceiling_flops: float) -> float:
    """Share of the matrix-product ceiling that a cell reaches, at most 1."""
    return min(1.0, products / float(np.median(seconds)) / ceiling_flops) if ceiling_flops else 0.0


def log_time(seconds: Sequence[float], references: Mapping[str, Sequence[float]], share: float) -> float:
    """Log of the quiet time over the quiet reference; on an accelerator there is only the product."""
    shares = {"product": share, "objects": 1 - share} if "objects" in references else {"product": 1.0}
    return quiet(seconds) - sum(part * quiet(references[kernel]) for kernel, part in shares.items())


def quiet(seconds: Sequence[float]) -> float:
    """Log of the lower decile."""
    return math.log(float(np.quantile(seconds, QUIET)))
