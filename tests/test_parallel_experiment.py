"""The experiment ``parallel``: its points and tasks, its rows from real ranks, and rounds in lockstep on planted clocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from backprop_bench import app
from backprop_files import ON_REQUEST, UserError
from bench import lockstep, ranks, reference_kernel
from bench.experiments import PROFILES, Settings, find, parallel, run
from bench.lockstep import Lockstep, Timed
from bench.rank_worker import Desk, Progress
from impls import registry
from impls.conformance import Mismatch
from impls.interface import Network

EXPERIMENT = find("parallel")


# --- points and tasks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_strong_keeps_the_rows_and_weak_those_of_each_rank(profile: str) -> None:
    on = {k: parallel.points(profile, k) for k in (1, 2, 4)}
    for scaled in parallel.SCALED[profile]:
        for k, points in on.items():
            of_network = [p for p in points if p.network == scaled.network]
            assert [p.n for p in of_network if "strong" in p.scaling.split(",")] == [scaled.strong]
            assert [p.n for p in of_network if "weak" in p.scaling.split(",")] == [scaled.weak * k]
    for points in on.values():
        assert len({(p.network, p.n) for p in points}) == len(points)  # none is measured twice


def test_the_laws_terms_can_be_told_apart() -> None:
    points = [p for k in (1, 2) for p in parallel.points("quick", k)]
    networks = [p.network for p in points]
    assert len({p.n for p in points}) >= 5
    assert len({n.m for n in networks}) >= 4
    assert len({n.activation for n in networks}) >= 2


def test_ranks_to_be_compared_are_launched_one_after_the_other() -> None:
    tasks = EXPERIMENT.tasks(Settings("quick", impls=("torch-ddp", "jax-sharded"), ranks=(1, 2)))
    assert [task.key for task in tasks[:4]] == [
        "torch-ddp/ranks1/pass1",
        "jax-sharded/ranks1/pass1",
        "torch-ddp/ranks2/pass1",
        "jax-sharded/ranks2/pass1",
    ]
    assert len(tasks) == 4 * parallel.PASSES["quick"]
    assert all(task.arguments["cores"] <= task.arguments["ranks"] for task in tasks)


def test_where_ranks_will_share_cores_two_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(cores: int, *k: int) -> list[str]:
        monkeypatch.setattr(ranks, "usual_cores", lambda: tuple(range(cores)))
        tasks = EXPERIMENT.tasks(Settings("quick", impls=("torch-ddp",), ranks=k))
        assert all(task.arguments["crowded"] == ("on1" in task.key) for task in tasks)
        assert all(task.arguments["cores"] == (1 if "on1" in task.key else min(task.arguments["ranks"], cores)) for task in tasks)  # fmt: skip # noqa: E501
        return [task.key.split("/")[1] for task in tasks if task.pass_number == 1]

    assert keys(2, 1, 2, 4) == ["ranks1", "ranks2", "ranks2on1", "ranks4"]
    assert keys(4, 1, 2, 4) == ["ranks1", "ranks2", "ranks4"]
    assert keys(2, 1, 2) == ["ranks1", "ranks2"]
    assert keys(1, 1, 2, 4) == ["ranks1", "ranks2", "ranks4"]


@pytest.mark.parametrize("profile", PROFILES)
def test_shares_on_one_core_are_those_that_one_rank_has_alone(profile: str) -> None:
    single = {(p.network, p.n) for p in parallel.points(profile, 1)}
    crowded = parallel.points(profile, 2, crowded=True)
    assert sum((p.network, p.n // 2) in single for p in crowded) >= len(parallel.SCALED[profile])
    assert {(p.network, p.n) for p in crowded} >= set(parallel.MODEL[profile])  # whose steps are talk
    assert {(p.network, p.n) for p in crowded} <= {(p.network, p.n) for p in parallel.points(profile, 2)}


def test_its_own_implementations_are_the_usual_ones_and_others_keep_theirs() -> None:
    unnamed = Settings("smoke", impls=())
    asked = run.asked_of(EXPERIMENT, unnamed).impls
    assert set(asked) <= {"torch-ddp", "jax-sharded"}
    assert not set(run.asked_of(find("epochs"), unnamed).impls) & {"torch-ddp", "jax-sharded"}
    assert run.asked_of(EXPERIMENT, Settings(impls=("torch-ddp",))).impls == ("torch-ddp",)
    assert "parallel" in ON_REQUEST


def test_what_is_not_data_parallel_is_one_line() -> None:
    with pytest.raises(UserError, match=r"'numpy' is not data parallel: .* use torch-ddp, jax-sharded"):
        run.plan_of([EXPERIMENT], Settings("smoke", impls=("numpy",)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["parallel", "--ranks", "1,two"], "give numbers of processes with commas"),
        (["parallel", "--ranks", "0"], "give numbers of processes with commas"),
        (["epochs", "--ranks", "2"], "an experiment that was not named: parallel"),
    ],
)
def test_bad_ranks_are_one_line(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["experiment", *arguments])
    assert isinstance(result.exception, UserError)
    assert told in str(result.exception)


# --- real ranks -------------------------------------------------------------------------------------------------------


def test_a_small_run_leaves_the_rows_that_the_analysis_reads(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    settings = Settings("smoke", impls=("torch-ddp",), ranks=(2,))
    failed = run.run([EXPERIMENT], settings, tmp_path, False, Console(quiet=True))
    assert not failed
    record = run.Record(tmp_path, EXPERIMENT, settings)
    record.resume()
    (task,) = record.document["tasks"]
    assert task["key"] == "torch-ddp/ranks2/pass1"
    assert task["arguments"]["backend"] == "gloo"
    rows = task["rows"]
    sums = [row for row in rows if row["kind"] == "all_reduce"]
    steps = [row for row in rows if row["kind"] == "step"]
    assert sorted(row["bytes"] for row in sums) == sorted(parallel.SIZES["smoke"])
    points = parallel.points("smoke", 2)
    assert len(steps) == len(parallel.VARIANTS) * len(points)
    assert {row["scaling"] for row in steps} == {point.scaling for point in points}
    for row in rows:
        assert row["ranks"] == 2
        assert len(row["seconds"]) >= parallel.ROUNDS["smoke"] and min(row["seconds"]) > 0
        assert all(len(beside) == len(row["seconds"]) for beside in row["reference_s"].values())
        assert 0 <= row["quiet"] <= len(row["seconds"])
    assert {(row["variant"], row["messages"]) for row in steps} == {("step", 1), ("in_turn", 1), ("alone", 0)}
    for row in steps:
        network = Network(tuple(row["layers"]), row["activation"], row["loss"])
        assert (row["m"], row["u"], row["gradient_bytes"]) == (network.m, network.u, 4 * network.m)
        assert 0 < row["gradient_error"] < 1e-4


def test_a_mismatch_names_rank_and_point_and_nothing_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(*_: object) -> float:
        raise Mismatch("gradient differs")

    monkeypatch.setattr(parallel, "held", wrong)
    desk = Desk(registry.find("numpy"), 1, 2, "cpu", "float32", 0, Progress(tmp_path, 1))
    untouched: Any = None  # a Lockstep would be asked for rounds
    with pytest.raises(Mismatch, match="rank 1 of 2 at 5-7-4 tanh n=6: gradient differs"):
        parallel._of_point(desk, untouched, parallel.Point("strong", (5, 7, 4), "tanh", "mse", 6), 4)


# --- lockstep ---------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = self.used = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter

    def process_time(self) -> float:
        return self.used

    def takes(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call


def planted(monkeypatch: pytest.MonkeyPatch, other: Callable[[float], float]) -> tuple[Clock, Lockstep]:
    """Rank 0 of two; the other takes what ``other`` makes of rank 0's time."""
    clock = Clock()
    monkeypatch.setattr(lockstep, "time", clock)
    kernels = {"product": lambda times: 1e-4, "objects": lambda times: 2e-4}
    monkeypatch.setattr(reference_kernel, "make", lambda *_: kernels)

    def gather(numbers: Sequence[float]) -> Any:
        return np.array([numbers, [*numbers[:-1], other(numbers[-1])]])  # how long it took comes last

    return clock, Lockstep(0, gather, lambda where: None)


def test_the_slowest_rank_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, together = planted(monkeypatch, lambda own: 3 * own)
    timed = {name: Timed(clock.takes(s), lambda: None) for name, s in (("short", 1e-4), ("long", 0.05))}
    found = together.time(timed, 5)
    assert found["short"].seconds == pytest.approx([3e-4] * 5)
    assert found["long"].seconds == pytest.approx([0.15] * 5)
    # about 6 ms a round, by the slowest rank
    assert (found["short"].iterations, found["long"].iterations) == (20, 1)
    assert all(kept.settled and kept.quiet == 5 for kept in found.values())
    assert found["long"].reference_s == {"product": [1e-4] * 5, "objects": [2e-4] * 5}


def test_of_ranks_on_one_core_the_round_lasts_from_the_first_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, _ = planted(monkeypatch, lambda own: own)
    clock.now = 6.999

    def after_each_other(numbers: Sequence[float]) -> Any:
        """The other rank sets off when this one is done, in the next second of the clock."""
        if len(numbers) == 1:
            return np.array([numbers, numbers])
        seconds, rest, took = numbers
        return np.array([numbers, [*divmod(seconds + rest + took, 1.0), took]], np.float32)

    for cores, longer in (((0,), 2), ((), 1)):
        together = Lockstep(0, after_each_other, lambda where: None, cores)
        round_s = together._round("step", Timed(clock.takes(0.004), lambda: None), 5, "round 1")
        assert round_s == pytest.approx(longer * 0.004, rel=1e-4)


def test_rounds_are_longer_where_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, together = planted(monkeypatch, lambda own: own)
    longer = Lockstep(0, together._gather, lambda where: None, (), lockstep.SHARED_ROUND_S)
    calls = {"step": Timed(clock.takes(1e-3), lambda: None)}
    assert together.time(calls, 4)["step"].iterations == 6
    assert longer.time(calls, 4)["step"].iterations == 20


@pytest.mark.parametrize(("foreign", "share"), [(0, 0.0), (5, 0.05), (40, 0.4)])
def test_what_others_take_of_the_cores_leaves_no_round_quiet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, foreign: int, share: float
) -> None:
    """Two ranks on two cores, a quarter of a second each within half a second, of ticks of 10 ms; others on one of them."""
    monkeypatch.setattr(lockstep, "STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    clock, together = planted(monkeypatch, lambda own: own)
    together._cores = (0, 3)

    def busy(zero: int, three: int) -> None:
        lines = f"cpu 9 9 9 9\ncpu0 {zero} 0 0 900 0 7 7 0\ncpu1 99 9 9 9 0 0 0 0\ncpu3 {three} 1 2 9 0 0 0 0\n"
        (tmp_path / "stat").write_text(lines)

    busy(100, 200)
    before = together._used()
    busy(100 + 25, 200 + 25 + foreign)
    clock.now += 0.5
    clock.used += 0.25
    assert together._others(before) == pytest.approx(share)
    monkeypatch.setattr(together, "_others", lambda before: share)
    (kept,) = together.time({"step": Timed(clock.takes(1e-3), lambda: None)}, 4).values()
    assert (kept.others, kept.quiet >= 4) == (share, share <= 0.2)


def test_what_never_becomes_steady_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, together = planted(monkeypatch, lambda own: own)
    grows = 0.02

    def call() -> None:
        nonlocal grows
        grows *= 1.2
        clock.now += grows

    (found,) = together.time({"growing": Timed(call, lambda: None)}, 4).values()
    assert not found.settled


def test_a_disturbed_moment_is_not_quiet_and_is_waited_for() -> None:
    calm, disturbed = {"product": 1.0, "objects": 2.0}, {"product": 1.0, "objects": 2.5}
    assert lockstep._quiet([calm, disturbed, calm], 1) == [True, False, True]
    # what one call leaves in the caches is no disturbance behind the next
    assert lockstep._quiet([calm, disturbed, calm, disturbed], 2) == [True] * 4
    assert lockstep._quiet([{}, {}], 1) == [True, True]  # other ranks have no kernels
