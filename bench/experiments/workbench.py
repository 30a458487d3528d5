"""What a task finds in the process that measures it: an implementation on its device, and the clock of the sweeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.quiet import Quiet
from bench.reference_kernel import Kernels
from bench.timing import Loop, Rounds
from impls.architectures.problem import ArchitectureProblem
from impls.interface import Backprop, Problem
from impls.registry import Entry

#: A call is timed for so long where nothing else is asked for.
SECONDS = 0.1


@dataclass(frozen=True)
class Workbench:
    """One implementation, ready to be asked for anything."""

    entry: Entry
    device: str
    dtype: str
    threads: int
    seed: int
    reference: Kernels
    quiet: Quiet
    held: set[Any] = field(default_factory=set)  # what was held to the reference in this process, and need not be again

    def prepare(self, problem: Problem | ArchitectureProblem) -> Backprop:
        """The implementation on a problem: parameters, batch and workspace in place."""
        return self.entry.prepare(problem, self.device, self.dtype, self.threads)

    def time(self, call: Callable[[], object], synchronize: Callable[[], object], seconds: float = SECONDS) -> Rounds:
        """Rounds of a call that may be repeated at will, each beside the reference kernels; warm-up comes first."""
        return Loop([call], synchronize, self.reference, self.quiet).visit(seconds)[0]

    def once(self, call: Callable[[], object], synchronize: Callable[[], object]) -> dict[str, Any]:
        """Seconds of a call that changes what it works on, so that it cannot be repeated, and of the kernels around it."""
        before = {name: kernel(1) for name, kernel in self.reference.items()}
        start = time.perf_counter()
        call()
        synchronize()
        spent = time.perf_counter() - start
        after = {name: kernel(1) for name, kernel in self.reference.items()}
        return {"seconds": spent, "reference_s": {name: (before[name] + after[name]) / 2 for name in before}}


def rounds_row(rounds: Rounds) -> dict[str, Any]:
    """Rounds as a part of a row: ``seconds`` of one call, ``reference_s`` by kernel beside each, and whether quiet."""
    return {
        "seconds": list(rounds.seconds),
        "reference_s": rounds.reference_s,
        "quiet": rounds.quiet,
        "settled": rounds.settled,
    }
