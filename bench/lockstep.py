"""Rounds of several ranks together: all set off at once, and the slowest rank's time counts.

Rank 0 says how often a call is done in a round, and whether there is another; it tells the others between rounds.  It
alone times the reference kernels, while they wait.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import reference_kernel
from bench.quiet import Quiet

#: A round is about so long, many times what ranks take to set off together; of longer calls there is one a round.
ROUND_S = 0.01
MOST_ITERATIONS = 2_000
#: Warm-up ends when the medians of two successive groups of so many rounds agree, and after so many groups in any case.
WARMUP_GROUP, WARMUP_GROUPS = 2, 5
STEADY = 0.05
#: At most so many times as many rounds as asked for, while too few are quiet.
PATIENCE = 2.0


@dataclass(frozen=True)
class Timed:
    """A call to be timed: what is done again and again, and what waits until it is done."""

    call: Callable[[], object]
    synchronize: Callable[[], object]


@dataclass
class Rounds:
    """Of one call: seconds of one iteration by the slowest rank, one a round, and the kernels beside each."""

    iterations: int = 1
    settled: bool = False
    quiet: int = 0
    seconds: list[float] = field(default_factory=list)
    reference_s: dict[str, list[float]] = field(default_factory=dict)


class Lockstep:
    """The rounds of a launch.  ``gather`` gives every process all processes' numbers: the ranks' only talk beside what is
    timed, and their barrier.  ``at`` is told where the rank is, before it waits for others.
    """

    def __init__(self, rank: int, gather: Callable[[Sequence[float]], Any], at: Callable[[str], object]) -> None:
        self._gather, self._at = gather, at
        self._kernels = reference_kernel.make("cpu", "") if rank == 0 else {}
        self._quiet = Quiet(self._kernels)

    def time(self, calls: Mapping[str, Timed], rounds: int) -> dict[str, Rounds]:
        """``rounds`` of each call that nothing disturbs, if there are as many; the calls take turns, so that what changes
        in time meets all of them alike.
        """
        found = {name: Rounds() for name in calls}
        gc.disable()
        try:
            for name, timed in calls.items():
                found[name].iterations = self._fitting(name, timed)
            settled = self._settled(calls, found)
            self._take(calls, found, rounds)
        finally:
            gc.enable()
        for kept in found.values():
            kept.settled = settled
        return found

    def _agreed(self, number: float, where: str) -> float:
        """Rank 0's number, on all ranks: nobody goes on before everybody is here."""
        self._at(where)
        return float(self._gather([number])[0, 0])

    def _round(self, name: str, timed: Timed, iterations: int, where: str) -> float:
        """Seconds of one iteration, by the slowest rank."""
        iterations = int(self._agreed(iterations, f"{where} of {name}"))
        start = time.perf_counter()
        for _ in range(iterations):
            timed.call()
        timed.synchronize()
        elapsed = time.perf_counter() - start
        return float(self._gather([elapsed])[:, 0].max()) / iterations

    def _fitting(self, name: str, timed: Timed) -> int:
        """Iterations that fill a round, by the fastest of a few tries; the first call of all is not among them."""
        self._round(name, timed, 1, "the first call")
        once = min(self._round(name, timed, 1, "warm-up") for _ in range(2))
        once = min(once, self._round(name, timed, _iterations(2 * once), "warm-up"))
        return int(self._agreed(_iterations(once), f"warm-up of {name}"))  # the slowest rank's time is the same on all

    def _settled(self, calls: Mapping[str, Timed], found: Mapping[str, Rounds]) -> bool:
        before: dict[str, float] = {}
        for group in range(1, WARMUP_GROUPS + 1):
            now = {name: self._usual(name, calls[name], found[name].iterations, group) for name in calls}
            if before and all(abs(now[name] / before[name] - 1) < STEADY for name in calls):
                return True  # all ranks know the same numbers, so all of them come to the same end
            before = now
        return False

    def _usual(self, name: str, timed: Timed, iterations: int, group: int) -> float:
        where = f"warm-up {group}"
        return statistics.median(self._round(name, timed, iterations, where) for _ in range(WARMUP_GROUP))

    def _take(self, calls: Mapping[str, Timed], found: Mapping[str, Rounds], rounds: int) -> None:
        before = self._sample()
        for number in range(1, int(PATIENCE * rounds) + 1):
            for name, timed in calls.items():
                kept = found[name]
                kept.seconds.append(self._round(name, timed, kept.iterations, f"round {number}"))
                after = self._sample()
                kept.quiet += before[1] and after[1]
                for kernel, seconds in after[0].items():
                    kept.reference_s.setdefault(kernel, []).append((before[0][kernel] + seconds) / 2)
                before = after
            enough = number >= rounds and all(kept.quiet >= rounds for kept in found.values())
            if self._agreed(enough, f"the end of round {number}"):  # rank 0 alone knows what was quiet
                return

    def _sample(self) -> tuple[dict[str, float], bool]:
        """The kernels' seconds, and whether nothing disturbs; rank 0's alone."""
        sample = {name: kernel(1) for name, kernel in self._kernels.items()}
        return sample, self._quiet.sees(sample)


def _iterations(once_s: float) -> int:
    return max(1, min(MOST_ITERATIONS, round(ROUND_S / max(once_s, 1e-7))))
