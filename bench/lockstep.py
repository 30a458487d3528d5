"""Rounds of several ranks together: all set off at once, and the last to be done ends the round.

Rank 0 says how often a call is done in a round, and whether there is another; it tells the others between rounds.  It
alone times the reference kernels, while they wait.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import reference_kernel
from bench.quiet import TOLERANCE

#: A round is about so long, many times what ranks take to set off together; of longer calls there is one a round.
ROUND_S = 0.006
#: Where ranks share cores, some wait to set off while others compute already, up to 2 ms in all: a round is longer then.
SHARED_ROUND_S = 0.02
MOST_ITERATIONS = 2_000
STAT = Path("/proc/stat")
#: Warm-up ends when the medians of two successive groups of so many rounds agree, and after so many groups in any case.
WARMUP_GROUP, WARMUP_GROUPS = 2, 3
STEADY = 0.05
#: Where others take more of the cores, no round is quiet.
MOST_OTHERS = 0.2
#: At most so many times as many rounds as asked for, while too few are quiet.
PATIENCE = 1.5


@dataclass(frozen=True)
class Timed:
    """A call to be timed: what is done again and again, and what waits until it is done."""

    call: Callable[[], object]
    synchronize: Callable[[], object]


@dataclass
class Rounds:
    """Of one call: seconds of one iteration until all ranks have done it, one a round, and the kernels beside each."""

    iterations: int = 1
    settled: bool = False
    quiet: int = 0
    others: float = 0.0
    seconds: list[float] = field(default_factory=list)
    reference_s: dict[str, list[float]] = field(default_factory=dict)


class Lockstep:
    """The rounds of a launch.  ``gather`` gives every process all processes' numbers: the ranks' only talk beside what is
    timed, and their barrier.  ``at`` is told where the rank is, before it waits for others.

    ``cores`` are those of all ranks where they are all on one machine.  They have one clock then: a round lasts from when the
    first has set off, since of ranks that share a core one may set off only when the other is done.  And what others take of
    these cores can be told: a rank that waits for a core holds up all of them, by a turn of some milliseconds for every sum.
    A round takes about ``round_s``.
    """

    def __init__(
        self,
        rank: int,
        gather: Callable[[Sequence[float]], Any],
        at: Callable[[str], object],
        cores: Sequence[int] = (),
        round_s: float = ROUND_S,
    ) -> None:
        self._gather, self._at, self._cores, self._round_s = gather, at, cores, round_s
        self._kernels = reference_kernel.make("cpu", "") if rank == 0 else {}

    def time(self, calls: Mapping[str, Timed], rounds: int) -> dict[str, Rounds]:
        """``rounds`` of each call that nothing disturbs, if there are as many; the calls take turns, so that what changes
        in time meets all of them alike.
        """
        found = {name: Rounds() for name in calls}
        before = self._used()
        gc.disable()
        try:
            for name, timed in calls.items():
                found[name].iterations = self._fitting(name, timed)
            settled = self._settled(calls, found)
            self._take(calls, found, rounds)
        finally:
            gc.enable()
        others = self._others(before)
        for kept in found.values():
            kept.settled, kept.others = settled, others
            kept.quiet = kept.quiet if others <= MOST_OTHERS else 0
        return found

    def _used(self) -> tuple[float, float, float]:
        """Seconds: the clock, what all processes have taken of the cores, and this one."""
        return (time.monotonic(), busy_s(self._cores), time.process_time()) if self._cores else (0.0, 0.0, 0.0)

    def _others(self, before: tuple[float, float, float]) -> float:
        """The share of the cores that processes of others, or other machines of the host, have taken since."""
        if not self._cores:
            return 0.0
        passed, busy, own = (now - then for now, then in zip(self._used(), before, strict=True))
        ours = float(self._gather([own])[:, 0].sum())
        return max(0.0, busy - ours) / (passed * len(self._cores))

    def _agreed(self, number: float, where: str) -> float:
        """Rank 0's number, on all ranks: nobody goes on before everybody is here."""
        self._at(where)
        return float(self._gather([number])[0, 0])

    def _round(self, name: str, timed: Timed, iterations: int, where: str) -> float:
        """Seconds of one iteration, until all ranks have done it."""
        iterations = int(self._agreed(iterations, f"{where} of {name}"))
        start = time.perf_counter()
        for _ in range(iterations):
            timed.call()
        timed.synchronize()
        elapsed = time.perf_counter() - start
        # whole seconds apart from the rest: some gather in float32
        seconds, rest, took = self._gather([*divmod(start, 1.0), elapsed]).T
        began = seconds - seconds[0] + rest if self._cores else 0.0 * rest
        return float((began + took).max() - began.min()) / iterations

    def _fitting(self, name: str, timed: Timed) -> int:
        """Iterations that fill a round, by the fastest of a few tries; the first call of all is not among them."""
        self._round(name, timed, 1, "the first call")
        once = min(self._round(name, timed, 1, "warm-up") for _ in range(2))
        once = min(once, self._round(name, timed, self._iterations(2 * once), "warm-up"))
        # the slowest rank's time is the same on all
        return int(self._agreed(self._iterations(once), f"warm-up of {name}"))

    def _iterations(self, once_s: float) -> int:
        return max(1, min(MOST_ITERATIONS, round(self._round_s / max(once_s, 1e-7))))

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
        samples = [self._sample()]
        for number in range(1, int(PATIENCE * rounds) + 1):
            for name, timed in calls.items():
                found[name].seconds.append(self._round(name, timed, found[name].iterations, f"round {number}"))
                samples.append(self._sample())
            self._put_beside(samples, found)
            enough = number >= rounds and all(kept.quiet >= rounds for kept in found.values())
            if self._agreed(enough, f"the end of round {number}"):  # rank 0 alone knows what was quiet
                return

    def _sample(self) -> dict[str, float]:
        """The kernels' seconds; rank 0's alone."""
        return {name: kernel(1) for name, kernel in self._kernels.items()}

    @staticmethod
    def _put_beside(samples: Sequence[Mapping[str, float]], found: Mapping[str, Rounds]) -> None:
        """The mean of the samples before and after each round, and how many rounds lie between two quiet ones.

        Quiet is told as in ``bench.quiet``, but from what was seen behind the very same call: what that leaves in the caches
        moves the kernels too, and a launch is too short for that to even out.
        """
        calm = _quiet(samples, len(found))
        for i, kept in enumerate(found.values()):
            rounds = range(i, len(samples) - 1, len(found))
            kept.quiet = sum(calm[r] and calm[r + 1] for r in rounds)
            kept.reference_s = {
                kernel: [(samples[r][kernel] + samples[r + 1][kernel]) / 2 for r in rounds] for kernel in samples[0]
            }


def busy_s(cores: Sequence[int]) -> float:
    """What processes, and other machines of the host, have had of these cores, in seconds since the start; 0 where the system
    does not say.  Without interrupts, which are our own sockets'.
    """
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return 0.0
    own = [line for line in lines if line[0] in {f"cpu{core}" for core in cores}]
    ticks = sum(int(line[i]) for line in own for i in (1, 2, 3, 8))  # user, nice, system, steal: proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def _quiet(samples: Sequence[Mapping[str, float]], calls: int) -> list[bool]:
    """Of each sample, whether objects take about as long, in products, as they did at best behind the same call."""
    telltales = [sample["objects"] / sample["product"] if sample else 1.0 for sample in samples]
    return [telltale <= TOLERANCE * min(telltales[i % calls :: calls]) for i, telltale in enumerate(telltales)]
