"""How the time of a run is shared among the jobs of a fleet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: Of seconds beside the timed ones that a job needs at the least.
LEAST_S = 1.0


@dataclass(frozen=True)
class Need:
    """What a job takes: seconds beside the timed ones, timed loops, and seconds that each of them wants."""

    overhead_s: float
    loops: float
    cell_s: float

    @property
    def seconds(self) -> float:
        """All it wants."""
        return self.overhead_s + self.loops * self.cell_s

    def scaled(self, share: float) -> Need:
        """Of so many of its cells."""
        return Need(self.overhead_s * share, self.loops * share, self.cell_s)


def total(needs: Iterable[Need]) -> tuple[float, float, float]:
    """Sums of overheads, loops and timed seconds."""
    overhead = loops = timed = 0.0
    for need in needs:
        overhead += need.overhead_s
        loops += need.loops
        timed += need.loops * need.cell_s
    return overhead, loops, timed


def pool_s(left_s: float, machines: int, promised_s: float) -> float:
    """Machine-seconds that are left for jobs which wait: all machines until the end, less what jobs in flight were given."""
    return max(0.0, left_s * machines - promised_s)


def share_s(need: Need, pool: float, overhead_s: float, timed_s: float) -> float:
    """Seconds for a job whose own need is part of the sums of all that wait, out of ``pool`` machine-seconds.

    All loops are timed for the same share of what they want, beside overheads that must be paid anyway; where there
    is more than enough, what is over is shared too, since estimates may be short.
    """
    if pool <= overhead_s + timed_s:
        timed_share = max(0.0, pool - overhead_s) / timed_s if timed_s else 0.0
        paid_share = min(1.0, pool / overhead_s) if overhead_s else 1.0
        # overhead + loops * cell_s * (pool - all overheads) / (all timed seconds)
        return max(LEAST_S, need.overhead_s * paid_share + need.loops * need.cell_s * timed_share)
    return need.seconds * pool / (overhead_s + timed_s)
