"""Rounds: blocks of calls between two looks at the clock, with reference kernels timed before and after each."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bench.device_clock import DeviceClock
from bench.device_watch import State
from bench.quiet import Quiet
from bench.reference_kernel import Kernels

Call = Callable[[], object]

#: A block is this long, so that a reference time is never further away than half of it (longer steps: one a block).
BLOCK_S = 0.003
#: Warm-up ends when the medians of two successive groups of blocks differ by less than this.
STEADY = 0.05
WARMUP_GROUP = 3
#: A step as long as this is warm after a few: its groups are single steps.
LONG_S = 0.02
#: Rounds in one visit at most.
MAX_ROUNDS = 40
#: A visit lasts at most so many times as long as asked for, while it waits for quiet rounds.
PATIENCE = 2.5
#: The reference is sampled once for so many seconds of a block, at most so often on either side.
SAMPLE_EVERY_S, MOST_SAMPLES = 0.005, 20
#: A block during which the machine slept, or the clock jumped, is dropped.
JUMP_S = 0.001
#: Rounds of a visit dropped at most because the device throttled: one that always does is measured all the same.
MOST_THROTTLED = 5


class Watch(Protocol):
    """Tells of the device what may spoil a round (``bench.device_watch``)."""

    def sample(self) -> State: ...


@dataclass(frozen=True)
class Rounds:
    """Raw samples of one call in one visit; estimates are made elsewhere."""

    seconds: tuple[float, ...]  # per iteration, one a round
    reference_s: dict[str, list[float]]  # by kernel, beside each round
    at_s: tuple[float, ...]  # when each round began, from the start of the first visit
    iterations: int  # in each round
    settled: bool
    dropped: int
    quiet: int  # how many of them nothing disturbed
    device_s: tuple[float, ...] | None = None  # as ``seconds``, between two events on the device; None without events
    clock_hz: tuple[float, ...] | None = None  # of the device, just after each round; None where nobody watches it
    temperature_c: float | None = None  # the highest seen
    throttled: int = 0  # dropped because the device throttled
    throttled_kept: int = 0  # kept although it did, since it would not stop


class Loop:
    """Calls timed one after the other, over several visits.

    A single call (a whole step) is repeated without synchronising inside a block, as a training loop would; several
    calls (the phases) are synchronised one by one, so that asynchronous work is charged to the phase that ordered it.
    On an accelerator its own ``clock`` runs beside the wall's, and a ``watch`` sees whether it throttles.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        synchronize: Call,
        reference: Kernels,
        quiet: Quiet | None = None,
        clock: DeviceClock | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._count = len(calls)
        self._block = _make_block(calls, synchronize, clock)
        self._reference = reference
        self._quiet = quiet or Quiet({})
        self._watch = watch
        self._iterations = 0  # until the first visit
        self._samples = 1
        self._long = False
        self._settled = False
        self._start = 0.0

    def visit(self, seconds: float, patience_s: float = 0.0) -> list[Rounds]:
        """Take quiet rounds for about ``seconds``; the first visit warms up before that, for ``patience_s`` at most.

        Returns one ``Rounds`` for each of the calls.
        """
        gc.disable()
        try:
            first = not self._iterations
            if first:
                self._prepare()
            series = self._series()
            if first:
                kept = self._settle(series, time.perf_counter() + max(seconds, patience_s))
            else:
                kept = []
                if not self._long:
                    series.next()  # the caches are still another cell's
            began = kept[0].began if kept else time.perf_counter()
            while not kept or (_lacks(kept, seconds, time.perf_counter() - began) and len(kept) < MAX_ROUNDS):
                kept.append(series.next())
        finally:
            gc.enable()
        return [self._rounds(i, kept, series) for i in range(self._count)]

    def turn(self, patience_s: float) -> list[Rounds]:
        """Take one round, quiet or not, after an untimed call: another process has had the core since the last turn.

        The first turn warms up before that, for ``patience_s`` at most.  Returns one ``Rounds`` for each of the calls.
        """
        gc.disable()
        try:
            first = not self._iterations
            if first:
                self._prepare()
            else:
                self._block(1)
            series = self._series()
            if first:
                self._settle(series, time.perf_counter() + patience_s)
            kept = [series.next()]
        finally:
            gc.enable()
        return [self._rounds(i, kept, series) for i in range(self._count)]

    def _series(self) -> _Series:
        return _Series(self._block, self._reference, self._quiet, self._iterations, self._samples, self._watch)

    def _prepare(self) -> None:
        self._start = time.perf_counter()
        self._iterations, block_s = _iterations(self._block)
        self._long = block_s > LONG_S
        # a long block sees the machine's mean speed over its length: so must its reference
        self._samples = max(1, min(MOST_SAMPLES, round(block_s / SAMPLE_EVERY_S)))

    def _settle(self, series: _Series, limit: float) -> list[_Round]:
        """Steady once the medians of two successive groups of blocks agree; the second group is kept."""
        size = 1 if self._long else WARMUP_GROUP
        after = [series.next() for _ in range(size)]
        while True:
            before, after = after, [series.next() for _ in range(size)]
            self._settled = abs(_usual(after) / _usual(before) - 1) < STEADY
            if self._settled or time.perf_counter() > limit:
                return after

    def _rounds(self, i: int, kept: Sequence[_Round], series: _Series) -> Rounds:
        clocks = [round_.state.clock_hz for round_ in kept if round_.state.clock_hz is not None]
        celsius = [round_.state.temperature_c for round_ in kept if round_.state.temperature_c is not None]
        on_device = [round_.spent.device[i] for round_ in kept if round_.spent.device is not None]
        return Rounds(
            seconds=tuple(round_.spent.wall[i] for round_ in kept),
            reference_s={name: [round_.reference_s[name] for round_ in kept] for name in self._reference},
            at_s=tuple(round_.began - self._start for round_ in kept),
            iterations=self._iterations,
            settled=self._settled,
            dropped=series.dropped,
            quiet=sum(round_.quiet for round_ in kept),
            device_s=tuple(on_device) or None,
            clock_hz=tuple(clocks) if len(clocks) == len(kept) else None,
            temperature_c=max(celsius, default=None),
            throttled=series.throttled,
            throttled_kept=sum(round_.state.throttled for round_ in kept),
        )


class Spent(NamedTuple):
    """Seconds of each call: by the wall's clock, and by the device's where it has one."""

    wall: list[float]
    device: list[float] | None


Block = Callable[[int], Spent]


def _make_block(calls: Sequence[Call], synchronize: Call, device: DeviceClock | None) -> Block:
    if device:
        return _by_both_clocks(calls, synchronize, device)
    by_wall = _by_the_wall(calls, synchronize)
    return lambda iterations: Spent(by_wall(iterations), None)


def _by_the_wall(calls: Sequence[Call], synchronize: Call) -> Callable[[int], list[float]]:
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


def _by_both_clocks(calls: Sequence[Call], synchronize: Call, device: DeviceClock) -> Block:
    """The same with the device's marks within the wall's time; kept apart, since on a CPU they would cost what they tell."""
    clock, mark, elapsed_s = time.perf_counter, device.mark, device.elapsed_s

    def timed(call: Call, iterations: int) -> tuple[float, float]:
        start = clock()
        mark()
        for _ in range(iterations):
            call()
        mark()
        synchronize()
        return clock() - start, elapsed_s()

    def block(iterations: int) -> Spent:
        if len(calls) == 1:
            wall, on_device = timed(calls[0], iterations)
            return Spent([wall / iterations], [on_device / iterations])
        sums = [[0.0, 0.0] for _ in calls]
        for _ in range(iterations):
            for total, call in zip(sums, calls, strict=True):
                wall, on_device = timed(call, 1)
                total[0] += wall
                total[1] += on_device
        return Spent([wall / iterations for wall, _ in sums], [seconds / iterations for _, seconds in sums])

    return block


def _iterations(block: Block) -> tuple[int, float]:
    """As many as fill a block, and how long that takes; judged by the faster of two tries, after a first warm-up."""
    once = min(sum(block(1).wall) for _ in range(2))
    if once > BLOCK_S:
        return 1, once
    guess = max(1, min(10_000, round(BLOCK_S / 2 / max(once, 1e-7))))
    return max(1, min(20_000, round(BLOCK_S / max(min(once, sum(block(guess).wall)), 1e-7)))), BLOCK_S


@dataclass(frozen=True)
class _Round:
    """Seconds of each call, the reference times beside them, when it began, and the device's state after it."""

    spent: Spent
    reference_s: dict[str, float]
    began: float
    took_s: float  # with the reference behind it
    quiet: bool
    state: State


def _lacks(kept: Sequence[_Round], seconds: float, elapsed: float) -> bool:
    """Whether a visit goes on: it has not its time in quiet rounds yet, and has not waited too long for them."""
    return elapsed < PATIENCE * seconds and sum(round_.took_s for round_ in kept if round_.quiet) < seconds


def _usual(rounds: Sequence[_Round]) -> float:
    return statistics.median(sum(round_.spent.wall) / round_.reference_s["product"] for round_ in rounds)


class _Series:
    """Rounds one after the other, each between two samples of the reference."""

    def __init__(
        self,
        block: Block,
        reference: Kernels,
        quiet: Quiet,
        iterations: int,
        samples: int,
        watch: Watch | None = None,
    ) -> None:
        self.dropped = self.throttled = 0
        self._watch = watch
        self._block = block
        self._reference = reference
        self._iterations = iterations
        self._samples = samples
        self._quiet = quiet
        self._before = self._sample()

    def next(self) -> _Round:
        """A round during which the machine neither slept nor turned its clock back, nor the device throttled."""
        while True:
            (before, calm), asleep, began = self._before, _suspended(), time.perf_counter()
            spent = self._block(self._iterations)
            state = self._watch.sample() if self._watch else State()
            after, still = self._before = self._sample()
            if abs(_suspended() - asleep) > JUMP_S or min(spent.wall) <= 0:
                self.dropped += 1
            elif state.throttled and self.throttled < MOST_THROTTLED:
                self.throttled += 1
            else:
                beside = {name: (before[name] + after[name]) / 2 for name in before}
                return _Round(spent, beside, began, time.perf_counter() - began, calm and still, state)
            if self.dropped > MAX_ROUNDS:
                raise RuntimeError("the clock jumps in every round: nothing can be timed here")

    def _sample(self) -> tuple[dict[str, float], bool]:
        found = {name: kernel(self._samples) for name, kernel in self._reference.items()}
        return found, self._quiet.sees(found)


def _suspended() -> float:
    # the boot clock runs on while the machine sleeps, the monotonic one stands still
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
