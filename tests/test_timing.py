"""The structure of rounds, on a fake clock: no test here depends on how fast anything is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import timing
from bench.timing import MAX_ROUNDS, Loop


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr("bench.timing.time.perf_counter", fake)
    monkeypatch.setattr(timing, "_suspended", lambda: 0.0)
    return fake


def kernels(clock: Clock) -> dict[str, Callable[[int], float]]:
    def kernel(seconds: float) -> Callable[[int], float]:
        def run(times: int) -> float:
            clock.now += times * seconds
            return seconds

        return run

    return {"product": kernel(1e-4), "objects": kernel(2e-4)}


def nothing() -> None:
    """A device that is always done."""


def test_a_step_is_timed_per_iteration(clock: Clock) -> None:
    (rounds,) = Loop([clock.work(1e-5)], nothing, kernels(clock)).visit(0.05)
    assert rounds.seconds == pytest.approx([1e-5] * len(rounds.seconds))
    assert rounds.iterations == pytest.approx(timing.BLOCK_S / 1e-5, rel=0.01)
    assert rounds.settled
    assert 1 < len(rounds.seconds) <= MAX_ROUNDS
    assert {name: len(times) for name, times in rounds.reference_s.items()} == {
        "product": len(rounds.seconds),
        "objects": len(rounds.seconds),
    }


def test_phases_are_told_apart_and_synchronised_one_by_one(clock: Clock) -> None:
    pending = [0.0]

    def order(seconds: float) -> Callable[[], None]:
        def call() -> None:
            pending[0] += seconds  # asynchronous: handed out, not done

        return call

    def synchronize() -> None:
        clock.now += pending[0]
        pending[0] = 0.0

    forward, backward = Loop([order(1e-4), order(3e-4)], synchronize, kernels(clock)).visit(0.05)
    assert forward.seconds[0] == pytest.approx(1e-4)
    assert backward.seconds[0] == pytest.approx(3e-4)


def test_asynchronous_steps_are_waited_for(clock: Clock) -> None:
    pending = [0.0]

    def step() -> None:
        pending[0] += 1e-3

    def synchronize() -> None:
        clock.now += pending[0]
        pending[0] = 0.0

    (rounds,) = Loop([step], synchronize, kernels(clock)).visit(0.05)
    assert rounds.seconds[0] == pytest.approx(1e-3)


def test_a_long_step_gets_a_round_at_every_visit_and_no_warm_up_at_the_later_ones(clock: Clock) -> None:
    calls = [0]

    def step() -> None:
        calls[0] += 1
        clock.now += 5.0

    loop = Loop([step], nothing, kernels(clock))
    (rounds,) = loop.visit(0.01)
    assert len(rounds.seconds) == rounds.iterations == 1
    before = calls[0]
    assert len(loop.visit(0.01)[0].seconds) == 1
    assert calls[0] == before + 1


def test_a_later_visit_throws_its_first_block_away(clock: Clock) -> None:
    cost = [1e-4]

    def step() -> None:
        clock.now += cost[0]
        cost[0] = 1e-4

    loop = Loop([step], nothing, kernels(clock))
    (first,) = loop.visit(0.05)
    clock.now += 1.0  # other cells are visited, and leave the caches theirs
    cost[0] = 1e-2
    (second,) = loop.visit(0.05)
    assert second.seconds == pytest.approx([1e-4] * len(second.seconds))
    assert second.at_s[0] > first.at_s[-1] + 1.0


def test_a_long_block_sees_more_of_the_reference(clock: Clock) -> None:
    asked: list[int] = []

    def kernel(times: int) -> float:
        asked.append(times)
        return 1e-4

    Loop([clock.work(0.05)], nothing, {"product": kernel}).visit(0.01)
    assert set(asked) == {round(0.05 / timing.SAMPLE_EVERY_S)}


def test_warm_up_is_thrown_away(clock: Clock) -> None:
    cost = [64e-4]

    def cooling() -> None:
        clock.now += cost[0]
        cost[0] = max(1e-4, cost[0] * 0.9)

    (rounds,) = Loop([cooling], nothing, kernels(clock)).visit(1.0)
    assert rounds.settled
    assert max(rounds.seconds) < 1.1e-4


def test_a_cell_that_never_settles_is_marked(clock: Clock) -> None:
    cost = [1e-3]

    def growing() -> None:
        clock.now += cost[0]
        cost[0] *= 1.05

    (rounds,) = Loop([growing], nothing, kernels(clock)).visit(0.05)
    assert not rounds.settled


def test_rounds_across_a_jump_of_the_clock_are_dropped(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0]

    def suspended() -> float:
        looks[0] += 1
        return 5.0 if looks[0] >= 8 else 0.0  # the machine slept once, between the 7th and the 8th look

    monkeypatch.setattr(timing, "_suspended", suspended)
    (rounds,) = Loop([clock.work(1e-4)], nothing, kernels(clock)).visit(0.05)
    assert rounds.dropped == 1


def test_a_clock_that_always_jumps_is_an_error(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0.0]

    def suspended() -> float:
        looks[0] += 1
        return looks[0]

    monkeypatch.setattr(timing, "_suspended", suspended)
    with pytest.raises(RuntimeError, match="clock jumps"):
        Loop([clock.work(1e-4)], nothing, kernels(clock)).visit(0.05)
