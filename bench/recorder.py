"""Runs a plan, job by job, in worker processes; hands measured rounds to pytest-benchmark; keeps what failed."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from backprop_files import UserError
from bench import machine, process, visits
from bench.cells import Cell, Setting, bytes_estimate, input_sets, measured
from bench.plan import Budget, Job, Plan, Room
from bench.precision import Precision
from bench.process import CellFailed, WorkerFailed, WorkerProcess
from bench.visits import Task

#: Jobs that are visited in turn: at most so many, in at most this share of the memory that is free.
GROUP_JOBS, GROUP_MEMORY = 12, 0.25


class Enough(Exception):
    """The cell is as precise as was asked for, or others need the time more."""


class LeftOut(Exception):
    """The budget gave this cell up."""


@dataclass(frozen=True)
class Measured:
    """One cell in one pass: rounds for pytest-benchmark's statistics, and its ``extra_info``."""

    seconds: list[float]
    extra_info: dict[str, Any]


@dataclass(frozen=True)
class Heritage:
    """What a recorder of part of a run has from those before it on the same machine."""

    compiled: Path  # where compiled code lies, and stays
    lessons: dict[str, dict[str, Any]]  # as ``Recorder.learned`` told them
    checked: bool  # whether the user's own implementations were held to the reference


@dataclass
class Recorder:
    """The state of a run.  One worker is alive at a time."""

    plan: Plan
    notes: list[str] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    watch: Callable[[Job], None] = lambda job: None
    heritage: Heritage | None = None

    def __post_init__(self) -> None:
        process.check_threads(self.plan.settings.threads)
        self.notes += self.plan.notes
        self.left_out += self.plan.left_out
        self._cpus = process.pick_cpus(self.plan.settings.threads)
        self._scratch = Path(tempfile.mkdtemp(prefix="backprop-bench-"))
        self._compiled = self.heritage.compiled if self.heritage else self._scratch / "compiled"
        self._worker: WorkerProcess | None = None
        self._worker_key: tuple[int, str] | None = None
        self._dead: dict[tuple[int, str], str] = {}
        self._pending = list(self.plan.jobs)
        self._done: dict[int, dict[str, Any]] = {}  # id of a job: answers by phase
        self._hold: dict[str, Any] = {}
        # of each setting, the lowest level any of its processes saw
        self._quiet_level: dict[str, float] = {
            label: told["quiet_level"] for label, told in self._lessons.items() if told.get("quiet_level")
        }
        self._budget: Budget | None = None
        self._precision = Precision()
        self._chosen: tuple[int, set[tuple[str, str]]] = (0, set())  # of a further pass: its number, and its jobs

    @property
    def _lessons(self) -> dict[str, dict[str, Any]]:
        return self.heritage.lessons if self.heritage else {}

    def open(self) -> None:
        """Move the harness off the cores that measure, and check the user's own implementations."""
        warning = process.keep_off(self._cpus)
        if warning:
            self.notes.append(warning)
        for setting in {job.setting.label: job.setting for job in self.plan.jobs}.values():
            if setting.entry.summary == "your own" and not (self.heritage and self.heritage.checked):
                self._check_own(setting)
        self._budget = Budget(self.plan)
        self._budget.recall(self._lessons)
        if self.heritage:
            self._budget.cold = not {job.setting.label for job in self.plan.jobs} <= self._lessons.keys()
            return
        needed = self._budget.needed_for_one_pass()
        if self.plan.budget_s is not None and needed > self.plan.budget_s:
            self.notes.append(
                f"a budget of {self.plan.budget_s:g} s is too small for one pass, which needs about {needed:.0f} s: "
                "the largest cells are left out"
            )

    def close(self) -> None:
        """End the worker, drop compiled code."""
        if self._worker:
            self._worker.stop()
            self._worker = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def learned(self) -> dict[str, dict[str, Any]]:
        """Lessons for a later recorder on this machine."""
        told = {} if self._budget is None else self._budget.lessons
        for label, level in self._quiet_level.items():
            told.setdefault(label, {})["quiet_level"] = level
        return told

    def at_hand(self, job: Job) -> bool:
        """Whether a job is measured, so that its cells cost no time to ask for."""
        return id(job) in self._done

    def expect(self, jobs: Collection[Job]) -> None:
        """Which of the plan's jobs will be asked for; those in reach of each other are measured together."""
        wanted = {id(job) for job in jobs}
        self._pending = [job for job in self.plan.jobs if id(job) in wanted]

    def measure(self, job: Job, cell: Cell) -> Measured:
        """Rounds of one cell.  Jobs of one worker are measured in groups, at the first that is asked for.

        Raises Enough, LeftOut, CellFailed or WorkerFailed.
        """
        if id(job) not in self._done:
            self._done = {}
            self._measure_group(job)
        result = self._done[id(job)][cell.phase]
        if isinstance(result, Exception):
            raise result
        return self._measured(job, cell, result)

    def _measure_group(self, first: Job) -> None:
        """Answers by phase for a group of jobs; an exception in place of an answer is raised for every phase."""
        tasks: dict[int, tuple[Job, Task]] = {}
        for job, task in self._group(first):
            if isinstance(task, Task):
                tasks[id(job)] = job, task
            else:
                self._fail(job, task)
        if not tasks:
            return
        jobs = [job for job, _ in tasks.values()]
        asked = [task for _, task in tasks.values()]
        try:
            worker = self._worker_for(jobs[0])
        except WorkerFailed as error:
            for job in jobs:
                self._fail(job, error)
            return
        rng = Random(f"{self.plan.settings.seed}/{first.pass_number}/{'/'.join(first.key)}")
        quiet_level = visits.measure(worker, asked, rng, lambda i: self.watch(jobs[i]))
        if quiet_level:
            label = first.setting.label
            self._quiet_level[label] = min(quiet_level, self._quiet_level.get(label, quiet_level))
        self._hold["machine_state"] = machine.state(self._cpus)
        for job, task in tasks.values():
            self._learn(job, task)

    def _group(self, first: Job) -> Iterator[tuple[Job, Task | Enough | LeftOut]]:
        """The jobs that follow in the same worker, each with its task or the reason why there is none."""
        now = time.monotonic()
        room = Room.on(first.setting.device).device_bytes
        free = GROUP_MEMORY * (room or math.inf)
        start = next(i for i, job in enumerate(self._pending) if job is first)
        count = 0
        for job in self._pending[start:]:
            free -= bytes_estimate(job.setting, job.point)
            together = (job.pass_number, job.setting) == (first.pass_number, first.setting)
            if job is not first and (not together or count == GROUP_JOBS or free < 0):
                return
            try:
                seconds = self._seconds_for(job, now)
            except (Enough, LeftOut) as reason:
                yield job, reason
                continue
            assert self._budget is not None
            now = self._budget.end_of(job, seconds, now)
            count += 1
            cache_bytes = (machine.accelerator_of(job.setting.device) or {}).get("l2_bytes")
            sets = input_sets(job.setting, job.point, cache_bytes, room or None)
            yield job, Task(job.point, job.phases, seconds, _patience_s(job), job.pass_number == 1, sets)

    def _fail(self, job: Job, error: Exception) -> None:
        self._done[id(job)] = dict.fromkeys(job.phases, error)
        if isinstance(error, Enough):
            return
        row = {
            "impl": job.setting.entry.name,
            "cell": job.point.label,
            "pass": job.pass_number,
            "reason": str(error),
        }
        (self.left_out if isinstance(error, LeftOut) else self.failed).append(row)

    def _learn(self, job: Job, task: Task) -> None:
        """Keep what came of a task, for the record and for the plan."""
        assert self._budget is not None
        if isinstance(task.error, WorkerFailed):
            self._bury(job, str(task.error))
        if task.error:
            self._fail(job, task.error)
            return
        self._throttled(job, task)
        once_s = task.traced_s + sum(result["first_call_s"] for result in task.results.values())
        self._precision.learn(job.key, task.results)
        self._budget.spent(job, task.wall_s, once_s, task.seconds)
        wall_s = task.wall_s / len(task.results)
        self._done[id(job)] = {phase: result | {"wall_s": wall_s} for phase, result in task.results.items()}

    def _throttled(self, job: Job, task: Task) -> None:
        """Say once a process that its device would not stop throttling."""
        kept = sum(result.get("throttled_kept", 0) for result in task.results.values())
        told = (
            f"{job.setting.label}, pass {job.pass_number}: the device throttled (heat, or its power supply) and would not "
            "stop: such rounds were kept; cool it, or expect slower and wider results"
        )
        if kept and told not in self.notes:
            self.notes.append(told)

    def _seconds_for(self, job: Job, now: float) -> float:
        """Seconds to time each loop of a job that begins at ``now``.  Raises LeftOut or Enough."""
        assert self._budget is not None
        if job.pass_number > self.plan.passes:
            if job.key not in self._chosen_in(job.pass_number):
                raise Enough
            return self._budget.cell_s
        seconds = self._budget.seconds_for(job, now)
        if seconds is None:
            raise LeftOut("the time budget was spent on smaller cells")
        return seconds

    def _chosen_in(self, number: int) -> set[tuple[str, str]]:
        """The jobs of a further pass: those wider than asked for, widest first, as far as the time reaches."""
        assert self._budget is not None
        if self._chosen[0] != number:
            jobs = {job.key: job for job in self.plan.jobs if job.pass_number == number}
            wide = self._precision.widest(list(jobs), self.plan.settings.precision or 0.0)
            chosen = self._budget.affordable([jobs[key] for key in wide], time.monotonic())
            self._chosen = number, {job.key for job in chosen}
        return self._chosen[1]

    def _worker_for(self, job: Job) -> WorkerProcess:
        """The worker of this pass and implementation; a fresh process if the last one was another's."""
        key = (job.pass_number, job.setting.label)
        if key in self._dead:
            raise WorkerFailed(self._dead[key])
        if self._worker_key != key or self._worker is None:
            self._start(job, key)
        assert self._worker is not None
        return self._worker

    def _start(self, job: Job, key: tuple[int, str]) -> None:
        if self._worker:
            self._worker.stop()
        log = self._scratch / f"{job.setting.entry.name}-pass{job.pass_number}.log"
        start = time.monotonic()
        self._worker, self._worker_key = WorkerProcess(job.setting, self._cpus, self._compiled, log), key
        try:
            settings, quiet_level = self.plan.settings, self._quiet_level.get(job.setting.label)
            self._hold = self._worker.start(settings.data, settings.seed, settings.kernels, quiet_level)
        except (CellFailed, WorkerFailed) as error:
            self._bury(job, str(error))
            raise WorkerFailed(str(error)) from error
        assert self._budget is not None
        self._budget.started(job.setting, time.monotonic() - start)

    def _bury(self, job: Job, reason: str) -> None:
        """The rest of this pass's cells of the implementation fail with the same reason; others go on."""
        self._dead[job.pass_number, job.setting.label] = reason
        if self._worker:
            self._worker.stop()
        self._worker = None

    def _check_own(self, setting: Setting) -> None:
        """The user's own implementation must agree with the reference before anything is timed."""
        worker = WorkerProcess(setting, self._cpus, None, self._scratch / f"{setting.entry.name}-check.log")
        try:
            worker.start(self.plan.settings.data, self.plan.settings.seed)
            worker.ask({"op": "check"}, timeout_s=120.0)
        except (CellFailed, WorkerFailed) as error:
            raise UserError(f"own implementation '{setting.entry.target}': {error}") from error
        finally:
            worker.stop()

    def _measured(self, job: Job, cell: Cell, result: dict[str, Any]) -> Measured:
        settings, hold = self.plan.settings, self._hold
        info = measured(cell, settings.data, settings.seed, job.pass_number, hold["ceilings"], result)
        around = {"wall_s": result["wall_s"], "machine_state": hold["machine_state"]}
        seen = hold["threads_seen"] if cell.phase == job.phases[0] else None
        return Measured(list(result["seconds"]), info | around | {"threads_seen": seen})


def _patience_s(job: Job) -> float:
    """How long an answer may take before the worker is given up for hung."""
    from bench.plan import DEVICE_PARAMETER_S, step_estimate_s

    made = 0.0 if job.setting.device == "cpu" else DEVICE_PARAMETER_S * job.point.network.m
    return (
        60.0
        + 20 * made
        + 10 * job.setting.entry.cost.first_call_s * len(job.phases)
        + 200 * step_estimate_s(job.setting, job.point)
    )


@contextlib.contextmanager
def recording(recorder: Recorder) -> Any:
    """Open and close a recorder."""
    try:
        recorder.open()
        yield recorder
    finally:
        recorder.close()
