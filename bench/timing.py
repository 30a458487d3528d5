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
BLOCK_S = 0.004
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
        settled = _warm_up(block, reference, iterations, seconds)
        return _rounds(block, reference, iterations, seconds, len(calls), settled)
    finally:
        gc.enable()


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


def _warm_up(block: Block, reference: Kernels, iterations: int, seconds: float) -> bool:
    """Run blocks until the medians of two successive groups agree within ``STEADY``; False if time ran out before."""
    deadline = time.perf_counter() + seconds
    before: float | None = None
    group: list[float] = []
    size = WARMUP_GROUP
    while True:
        spent = sum(block(iterations))
        group.append(spent / reference["product"]())
        size = 1 if spent > LONG_S else WARMUP_GROUP
        if len(group) >= size:
            median = statistics.median(group)
            if before is not None and abs(median / before - 1) < STEADY:
                return True
            before, group = median, []
        if time.perf_counter() > deadline and before is not None:
            return False


def _suspended() -> float:
    # the boot clock runs on while the machine sleeps, the monotonic one stands still
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _rounds(
    block: Block, reference: Kernels, iterations: int, seconds: float, width: int, settled: bool
) -> list[Rounds]:
    samples: list[list[float]] = [[] for _ in range(width)]
    references: dict[str, list[float]] = {name: [] for name in reference}
    kept = 0
    dropped = 0
    deadline = time.perf_counter() + seconds
    before = {name: kernel() for name, kernel in reference.items()}
    while kept < MIN_ROUNDS or (time.perf_counter() < deadline and kept < MAX_ROUNDS):
        asleep = _suspended()
        spent = block(iterations)
        after = {name: kernel() for name, kernel in reference.items()}
        if abs(_suspended() - asleep) > JUMP_S or min(spent) <= 0:
            dropped += 1
            if dropped > MAX_ROUNDS:
                raise RuntimeError("the clock jumps in every round: nothing can be timed here")
        else:
            for sample, s in zip(samples, spent, strict=True):
                sample.append(s)
            for name, times in references.items():
                times.append((before[name] + after[name]) / 2)
            kept += 1
        before = after
    return [Rounds(tuple(sample), references, iterations, settled, dropped) for sample in samples]
