"""Is the machine quiet just now?

On a shared machine somebody else's work on the same physical core comes and goes in bouts of a tenth of a second to
seconds.  What is all calls and pointers then takes up to twice as long, a product a tenth longer: no reference divides
that out to a per cent.  But the reference kernels tell when it happens, and between the bouts times repeat to a per cent.  So
rounds in a disturbed moment are kept, for the record, but do not count: a visit goes on until it has enough quiet ones.
The telltale is objects over product: the core's clock moves both alike, a neighbour the one alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from bench.reference_kernel import Kernels

#: Quiet is a telltale at most so much above its quiet level, which is so low a quantile of what was seen: between cells
#: it spreads by 15 %, disturbed it takes half as long again.
TOLERANCE, LEVEL = 1.18, 0.05
#: How much of the past a process remembers, and how often it looks back.
MEMORY, RENEW_EVERY = 4000, 40
#: Kernels run again and again finds its caches warm; between cells it takes so much longer.
FIRST_LOOK, BETWEEN_CELLS = 100, 1.1


class Quiet:
    """The telltale's level when nothing disturbs, learned as a process goes on.

    ``known`` is the quiet level of an earlier process: one that starts amid a disturbance would take it for usual.
    """

    def __init__(self, kernels: Kernels, known: float | None = None) -> None:
        self._seen: deque[float] = deque(maxlen=MEMORY)
        self._known = known
        self._fresh = 0
        self.level = np.inf
        if kernels.keys() >= {"objects", "product"}:
            look = [kernels["objects"](1) / kernels["product"](1) for _ in range(FIRST_LOOK)]
            self._learn(BETWEEN_CELLS * float(np.quantile(look, LEVEL)))

    def sees(self, sample: Mapping[str, float]) -> bool:
        """Whether this sample of the kernels says that nothing disturbs; always where there is no telltale."""
        if not sample.keys() >= {"objects", "product"}:
            return True
        telltale = sample["objects"] / sample["product"]
        self._seen.append(telltale)
        self._fresh += 1
        if self._fresh >= RENEW_EVERY:
            self._fresh = 0
            self._learn(float(np.quantile(self._seen, LEVEL)))
        return telltale <= TOLERANCE * self.level

    def _learn(self, level: float) -> None:
        # processes differ by a few per cent, disturbances by half
        self.level = min(level, BETWEEN_CELLS * self._known) if self._known else level
