"""Large batches of repeated examples, so that the float64 reference on the CPU can hold what a device computes in no time.

A step of an accelerator's largest cells would keep one core busy for minutes.  But losses and gradients are means over the
examples of a batch, so those of a batch in which few examples stand again and again follow exactly from those few.  The
whole cell is held to the reference all the same, at its full size.  On the CPU every example is another.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from impls import counts, reference
from impls.conformance import Expected
from impls.interface import Network, Problem

#: Operations that the reference may do for one cell of an accelerator: about a tenth of a second.
OPERATIONS = 3e9


def distinct(network: Network, n: int, device: str) -> int:
    """How many of ``n`` examples are different ones: all of them, unless an accelerator's cell is too large for that."""
    if device == "cpu":
        return n
    return max(1, min(n, int(OPERATIONS / counts.total(network, 1))))


def problem(few: Problem, n: int) -> Problem:
    """The same with ``n`` examples: those of ``few`` in turn."""
    if n == few.n:
        return few
    rows = np.arange(n) % few.n
    return replace(few, inputs=few.inputs[rows], targets=few.targets[rows])


def expected(few: Problem, whole: Problem, dtype: str) -> Expected:
    """What the reference says of ``whole``, computed from ``few``.

    mean = (q d L(all d) + r L(first r)) / n, with n = q d + r
    """
    if whole.n == few.n:
        return Expected.of(whole, dtype)
    loss, gradients = reference.loss_and_gradients(few)
    rest = whole.n % few.n
    if rest:
        head = replace(few, inputs=few.inputs[:rest], targets=few.targets[:rest])
        share = rest / whole.n
        head_loss, head_gradients = reference.loss_and_gradients(head)
        loss = (1 - share) * loss + share * head_loss
        gradients = [(1 - share) * g + share * h for g, h in zip(gradients, head_gradients, strict=True)]
    return Expected(whole, loss, gradients, dtype)
