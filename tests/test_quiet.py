"""Quiet moments are told from disturbed ones by the telltale kernel; a disturbed cell is visited again."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from bench import timing, visits
from bench.cells import Point
from bench.quiet import FIRST_LOOK, Quiet
from bench.timing import PATIENCE, Loop
from bench.visits import LEAST_QUIET, MOST, Task
from impls.interface import Network
from tests.test_timing import Clock, nothing


def telltale(level: float = 1e-5) -> dict[str, Any]:
    return {"objects": lambda times: level, "product": lambda times: 1e-5}


def test_half_as_long_again_is_disturbed_and_a_tenth_is_not() -> None:
    quiet = Quiet(telltale())
    assert quiet.sees({"objects": 1.1e-5, "product": 1e-5})
    assert not quiet.sees({"objects": 1.6e-5, "product": 1e-5})


def test_without_a_telltale_all_is_quiet() -> None:
    quiet = Quiet({})
    assert quiet.sees({"product": 1.0})
    assert quiet.sees({"product": 2.0})


def test_a_process_that_starts_amid_a_disturbance_learns_better() -> None:
    quiet = Quiet(telltale(1.7e-5))
    assert quiet.sees({"objects": 1.7e-5, "product": 1e-5})
    for _ in range(2 * FIRST_LOOK):
        quiet.sees({"objects": 1e-5, "product": 1e-5})
    assert not quiet.sees({"objects": 1.7e-5, "product": 1e-5})


def test_a_slower_clock_is_no_disturbance() -> None:
    assert Quiet(telltale()).sees({"objects": 1.6e-5, "product": 1.6e-5})


def test_what_an_earlier_process_knew_is_not_forgotten() -> None:
    assert not Quiet(telltale(1.7e-5), known=1e-5).sees({"objects": 1.7e-5, "product": 1e-5})


def _loop(clock: Clock, disturbed: bool) -> Loop:
    def objects(times: int) -> float:
        clock.now += 1e-5
        return 2e-5 if disturbed else 1e-5

    def product(times: int) -> float:
        clock.now += 1e-5
        return 1e-5

    quiet = Quiet(telltale())
    return Loop([clock.work(1e-4)], nothing, {"product": product, "objects": objects}, quiet)


def test_a_visit_waits_for_quiet_rounds_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("bench.timing.time.perf_counter", clock)
    monkeypatch.setattr(timing, "_suspended", lambda: 0.0)
    (calm,) = _loop(clock, disturbed=False).visit(0.03)
    (busy,) = _loop(clock, disturbed=True).visit(0.03)
    assert calm.quiet == len(calm.seconds)
    assert busy.quiet == 0
    assert len(busy.seconds) == pytest.approx(PATIENCE * len(calm.seconds), rel=0.2)


class FakeWorker:
    """Answers visits with three rounds, quiet only from a task's tenth visit on."""

    def __init__(self) -> None:
        self.visits = [0, 0]

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if request["op"] == "release":
            return {"quiet_level": 1e-5}
        if request["op"] == "prepare":
            return {"phases": {"step": {"first_call_s": 0.0, "peak_bytes": None}}, "traced_s": 0.0}
        key = request["key"]
        self.visits[key] += 1
        quiet = 3 if key == 0 or self.visits[key] > MOST else 0
        rounds = {"seconds": [1e-3] * 3, "reference_s": {}, "at_s": [0.0] * 3, "dropped": 0, "quiet": quiet}
        return {"phases": {"step": rounds}}


def test_a_disturbed_cell_is_visited_again() -> None:
    point = Point(Network((4, 3, 2)), 5, ())
    tasks = [Task(point, ("step",), 100.0), Task(point, ("step",), 100.0)]
    worker: Any = FakeWorker()
    assert visits.measure(worker, tasks, Random(0)) == 1e-5
    assert worker.visits[0] == MOST
    assert worker.visits[1] == MOST + LEAST_QUIET // 3
    assert not tasks[1].disturbed
