"""Device events beside the wall clock, on fake clocks: nothing here needs a GPU or depends on how fast anything is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bench import device_clock, timing, visits
from bench.device_watch import State
from bench.timing import MOST_THROTTLED, Loop

LAUNCH_S, WAIT_S, EVENT_S = 1e-5, 5e-5, 0.0


class Device:
    """Work is handed out at a launch's cost and done in its own time, in order; ``synchronize`` waits for it."""

    def __init__(self) -> None:
        self.host = 100.0
        self.free_at = 0.0  # when the device has done all it was handed
        self.marks: list[float] = []

    def now(self) -> float:
        return self.host

    def kernel(self, seconds: float) -> Callable[[], None]:
        def launch() -> None:
            self.host += LAUNCH_S
            self.free_at = max(self.free_at, self.host) + seconds

        return launch

    def synchronize(self) -> None:
        self.host = max(self.host, self.free_at) + WAIT_S

    def mark(self) -> None:
        self.free_at = max(self.free_at, self.host)
        self.marks = [*self.marks[-1:], self.free_at]

    def elapsed_s(self) -> float:
        assert self.host >= self.marks[1], "asked before the device had got there"
        return self.marks[1] - self.marks[0]

    def reference(self, times: int) -> float:
        self.host += times * 1e-4
        return 1e-4


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    fake = Device()
    monkeypatch.setattr("bench.timing.time.perf_counter", fake.now)
    monkeypatch.setattr(timing, "_suspended", lambda: 0.0)
    return fake


def loop(device: Device, *calls: Callable[[], None], watch: Any = None) -> Loop:
    return Loop(calls, device.synchronize, {"product": device.reference}, clock=device, watch=watch)


def test_a_block_is_timed_by_both_clocks(device: Device) -> None:
    (rounds,) = loop(device, device.kernel(1e-4)).visit(0.05)
    assert rounds.device_s is not None
    assert len(rounds.device_s) == len(rounds.seconds)
    k = rounds.iterations
    assert k > 10
    assert rounds.device_s == pytest.approx(
        [1e-4 + LAUNCH_S / k] * len(rounds.seconds)
    )  # it waits for the first launch
    assert rounds.seconds == pytest.approx([1e-4 + (LAUNCH_S + WAIT_S) / k] * len(rounds.seconds))


def test_where_launches_take_longer_than_the_work_both_clocks_show_launches(device: Device) -> None:
    (rounds,) = loop(device, device.kernel(1e-6)).visit(0.05)
    assert rounds.device_s is not None
    assert rounds.device_s[0] == pytest.approx(LAUNCH_S, rel=0.01)
    assert rounds.seconds[0] == pytest.approx(LAUNCH_S, rel=0.05)


def test_phases_have_a_device_time_each_and_the_wait_is_the_walls_alone(device: Device) -> None:
    forward, backward = loop(device, device.kernel(1e-4), device.kernel(3e-4)).visit(0.05)
    assert forward.device_s is not None
    assert backward.device_s is not None
    assert forward.device_s[0] == pytest.approx(1e-4 + LAUNCH_S)
    assert backward.device_s[0] == pytest.approx(3e-4 + LAUNCH_S)
    assert forward.seconds[0] == pytest.approx(1e-4 + LAUNCH_S + WAIT_S)
    assert backward.seconds[0] == pytest.approx(3e-4 + LAUNCH_S + WAIT_S)


def test_without_events_there_is_no_device_time(device: Device) -> None:
    (rounds,) = Loop([device.kernel(1e-4)], device.synchronize, {"product": device.reference}).visit(0.05)
    assert rounds.device_s is None
    assert rounds.clock_hz is None
    assert rounds.throttled == rounds.throttled_kept == 0


# --- clock, temperature, throttling beside the rounds -----------------------------------------------------------------


class Watch:
    """States by turns; the last one for ever."""

    def __init__(self, *states: State) -> None:
        self.states = list(states)

    def sample(self) -> State:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


COOL, HOT = State(1.98e9, 60.0), State(1.2e9, 88.0, throttled=True)


def test_throttled_rounds_are_dropped_and_counted(device: Device) -> None:
    (rounds,) = loop(device, device.kernel(1e-4), watch=Watch(HOT, COOL, HOT, COOL)).visit(0.05)
    assert rounds.throttled == 2
    assert rounds.throttled_kept == 0
    assert rounds.clock_hz == pytest.approx([1.98e9] * len(rounds.seconds))
    assert rounds.temperature_c == 60.0


def test_a_device_that_always_throttles_is_measured_all_the_same(device: Device) -> None:
    (rounds,) = loop(device, device.kernel(1e-4), watch=Watch(HOT)).visit(0.05)
    assert rounds.throttled == MOST_THROTTLED
    assert rounds.throttled_kept == len(rounds.seconds) > 1
    assert rounds.temperature_c == 88.0


def test_a_clock_that_is_told_for_some_rounds_alone_is_told_for_none(device: Device) -> None:
    (rounds,) = loop(device, device.kernel(1e-4), watch=Watch(*[State()] * 9, COOL)).visit(0.05)
    assert rounds.clock_hz is None


def test_visits_join_what_the_device_told() -> None:
    def visit(device_s: list[float] | None, celsius: float | None, throttled: int) -> dict[str, Any]:
        told = {"device_s": device_s, "clock_hz": device_s and [1e9], "temperature_c": celsius, "throttled": throttled}
        return {"seconds": [1.0], "at_s": [0.0], "dropped": 0, "quiet": 1, "reference_s": {"product": [1.0]}} | told

    known = visit([0.5], 60.0, 1)
    visits.join(known, visit([0.6], 70.0, 2))
    assert known["device_s"] == [0.5, 0.6]
    assert known["clock_hz"] == [1e9, 1e9]
    assert (known["temperature_c"], known["throttled"]) == (70.0, 3)
    visits.join(known, visit(None, None, 0))  # one a round, or nothing at all
    assert known["device_s"] is None
    assert known["temperature_c"] == 70.0


def test_visits_of_a_checkout_that_knows_no_devices_join_as_before() -> None:
    old: dict[str, Any] = {"seconds": [1.0], "at_s": [0.0], "dropped": 0, "quiet": 1, "reference_s": {"product": [1.0]}}
    known = old | {"seconds": [1.0]}
    visits.join(known, {**old, "seconds": [2.0]})
    assert known["seconds"] == [1.0, 2.0]
    assert known["device_s"] is None


# --- torch's events ---------------------------------------------------------------------------------------------------


def test_only_torch_on_cuda_has_events() -> None:
    assert device_clock.clock_for("cpu", "torch") is None
    assert device_clock.clock_for("gpu", "jax") is None


def test_torchs_events_are_recorded_in_the_devices_stream_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    made: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing
            made.append(self)

        def record(self, stream: Any) -> None:
            self.at = stream.tick()

        def elapsed_time(self, later: Event) -> float:
            return float(later.at - self.at)  # milliseconds

    ticks = iter((1.0, 3.0, 10.0))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        torch.cuda,
        "current_stream",
        lambda device: SimpleNamespace(tick=lambda: next(ticks)) if device.index == 1 else None,
    )
    clock = device_clock.clock_for("cuda:1", "torch")
    assert clock is not None
    clock.mark()
    clock.mark()
    assert clock.elapsed_s() == pytest.approx(2e-3)
    clock.mark()
    assert clock.elapsed_s() == pytest.approx(7e-3)
    assert len(made) == 2


def test_torchs_events_agree_with_the_wall_clock_on_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible here: torch's events need one")
    import time

    clock = device_clock.clock_for("cuda", "torch")
    assert clock is not None
    a = torch.randn(4096, 4096, device="cuda")
    torch.mm(a, a)
    torch.cuda.synchronize()
    start = time.perf_counter()
    clock.mark()
    for _ in range(20):
        torch.mm(a, a)
    clock.mark()
    torch.cuda.synchronize()
    assert clock.elapsed_s() == pytest.approx(time.perf_counter() - start, rel=0.1)
