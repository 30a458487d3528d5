"""Rounds: blocks of calls between two looks at the clock, with reference kernels timed before and after each."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.reference_kernel import Kernels

Call = Callable[[], object]

#: A block is this long, so that a reference time is never further away than half of it (longer steps: one a block).
BLOCK_S = 0.003
#: Warm-up ends when the medians of two successive groups of blocks differ by less than this.
STEADY = 0.05
WARMUP_GROUP = 3
#: A step as long as this is warm after a few: its groups are single steps.
LONG_S = 0.02
MIN_ROUNDS, MAX_ROUNDS = 3, 60
#: A block during which the machine slept, or the clock jumped, is dropped.
JUMP_S = 0.001


@dataclass(frozen=True)
class Rounds:
    """Raw samples of one cell in one pass; estimates are made elsewhere."""

    seconds: tuple[float, ...]  # per iteration, one a round
    reference_s: dict[str, list[float]]  # by kernel, beside each round
    at_s: tuple[float, ...]  # when each round began, from the start of measuring
    iterations: int  # in each round
    settled: bool
    dropped: int


def measure(calls: Sequence[Call], synchronize: Call, reference: Kernels, seconds: float) -> list[Rounds]:
    """Time ``calls``, done one after the other, for about ``seconds``: one ``Rounds`` for each of them.

    A single call (a whole step) is repeated without synchronising inside a block, as a training loop would; several
    calls (the phases) are synchronised one by one, so that asynchronous work is charged to the phase that ordered it.
    """
    block = _make_block(calls, synchronize)
    gc.disable()
    try:
        iterations = _iterations(block)
        taken = _take(block, reference, iterations, seconds)
    finally:
        gc.enable()
    kept = taken.rounds[taken.warm :]
    return [
        Rounds(
            seconds=tuple(round_.spent[i] for round_ in kept),
            reference_s={name: [round_.reference_s[name] for round_ in kept] for name in reference},
            at_s=tuple(round_.at_s for round_ in kept),
            iterations=iterations,
            settled=taken.settled,
            dropped=taken.dropped,
        )
        for i in range(len(calls))
    ]


Block = Callable[[int], list[float]]


def _make_block(calls: Sequence[Call], synchronize: Call) -> Block:
    clock = time.perf_counter
    if len(calls) == 1:
        (call,) = calls

        def whole(iterations: int) -> list[float]:
            start = clock()
            for _ in range(iterations):
                call()
            synchronize()
            return [(clock() - start) / iterations]

        return whole

    def one_by_one(iterations: int) -> list[float]:
        spent = [0.0] * len(calls)
        for _ in range(iterations):
            for i, call in enumerate(calls):
                start = clock()
                call()
                synchronize()
                spent[i] += clock() - start
        return [s / iterations for s in spent]

    return one_by_one


def _iterations(block: Block) -> int:
    """As many as fill a block; judged by the faster of two tries, the second after a first warm-up."""
    once = min(sum(block(1)) for _ in range(2))
    if once > BLOCK_S:
        return 1
    guess = max(1, min(10_000, round(BLOCK_S / 2 / max(once, 1e-7))))
    return max(1, min(20_000, round(BLOCK_S / max(min(once, sum(block(guess))), 1e-7))))


@dataclass(frozen=True)
class _Round:
    """Seconds of each call, the reference times beside them, and when it began."""

    spent: list[float]
    reference_s: dict[str, float]
    at_s: float


@dataclass
class _Taken:
    """Rounds as they are taken."""

    rounds: list[_Round]
    warm: int = 0  # how many at the start are warm-up
    settled: bool = False
    dropped: int = 0

    @property
    def kept(self) -> int:
        return len(self.rounds) - self.warm

    def drop(self) -> None:
        """Count a round that was thrown away."""
        self.dropped += 1
        if self.dropped > MAX_ROUNDS:
            raise RuntimeError("the clock jumps in every round: nothing can be timed here")

    def judge(self) -> None:
        """Steady once the medians of two successive groups of blocks agree; the second group is kept."""
        size = 1 if sum(self.rounds[-1].spent) > LONG_S else WARMUP_GROUP
        fresh = self.rounds[self.warm :]
        if len(fresh) < 2 * size:
            return
        ratios = [sum(round_.spent) / round_.reference_s["product"] for round_ in fresh]
        before, after = statistics.median(ratios[:size]), statistics.median(ratios[size : 2 * size])
        self.settled = abs(after / before - 1) < STEADY
        self.warm += size


def _suspended() -> float:
    # the boot clock runs on while the machine sleeps, the monotonic one stands still
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _take(block: Block, reference: Kernels, iterations: int, seconds: float) -> _Taken:
    """Take rounds until steady, at most for ``seconds``, and from there on for ``seconds``."""
    taken = _Taken([])
    clock = time.perf_counter
    start, deadline = clock(), None
    before = {name: kernel() for name, kernel in reference.items()}
    while True:
        asleep, began = _suspended(), clock()
        spent = block(iterations)
        after = {name: kernel() for name, kernel in reference.items()}
        if abs(_suspended() - asleep) > JUMP_S or min(spent) <= 0:
            taken.drop()
        else:
            beside = {name: (before[name] + after[name]) / 2 for name in before}
            taken.rounds.append(_Round(spent, beside, began - start))
            if deadline is None:
                taken.judge()
                if taken.settled or clock() > start + seconds:
                    deadline = clock() + seconds
            if deadline and taken.kept >= MIN_ROUNDS and (clock() > deadline or taken.kept >= MAX_ROUNDS):
                return taken
        before = after
