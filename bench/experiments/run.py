"""Runs an experiment's tasks in worker processes, one at a time; every task's rows are on disk before the next begins.

``DIR/experiments/<name>.json`` holds an experiment whole; a run that was cut short goes on from there.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from backprop_files import SCHEMA_VERSION, UserError, write_json
from bench import documents, machine, plan, process, ranks, snapshots
from bench.cells import Setting
from bench.experiments import PROFILES, Experiment, Settings, Site, Task
from bench.process import CellFailed, WorkerFailed, WorkerProcess
from bench.progress_bar import progress_bar
from bench.store import locked
from impls import dtypes, registry
from impls.names import nearest

#: Told the task that begins, and then that it is done.
Watch = Callable[[Task, bool], None]


class Record:
    """An experiment's file: what was asked, what is done, what failed."""

    def __init__(self, directory: Path, experiment: Experiment, settings: Settings) -> None:
        self.path = directory / "experiments" / f"{experiment.name}.json"
        self.document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "experiment": experiment.name,
            "settings": json.loads(json.dumps(_relevant(experiment, settings))),
            "machine_info": documents.machine_info(machine.facts()),
            "commit_info": snapshots.commit_of(snapshots.toplevel(needed=False), None),
            "datetime": datetime.now(UTC).isoformat(),
            "tasks": [],
            "failed": [],
        }

    def resume(self) -> None:
        """Take over what an earlier run finished.  Raises UserError if it was asked something else."""
        try:
            before = json.loads(self.path.read_text())
            asked, tasks = before["settings"], list(before["tasks"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); choose another --out") from error
        wanted = self.document["settings"]
        changed = [key for key in wanted if asked.get(key) != wanted[key]]
        if changed:
            told = ", ".join(f"{key} was {asked.get(key)!r}, is {wanted[key]!r}" for key in changed)
            raise UserError(f"{self.path}: --resume wants the same settings: {told}")
        self.document["tasks"] = tasks

    @property
    def finished(self) -> set[str]:
        """Keys of the tasks that are done."""
        return {str(task["key"]) for task in self.document["tasks"]}

    def rows_of(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of tasks that are done.  Raises CellFailed for one that is not."""
        done = {str(task["key"]): task["rows"] for task in self.document["tasks"]}
        if missing := [key for key in keys if key not in done]:
            raise CellFailed("error", f"needs '{missing[0]}', which was not measured")
        return [row for key in keys for row in done[key]]

    def keep(self, task: Task, rows: Sequence[dict[str, Any]], wall_s: float) -> None:
        """Put one finished task on disk."""
        self.document["tasks"].append(_plain(task) | {"rows": list(rows), "wall_s": wall_s})
        self.write()

    def fail(self, task: Task, reason: str) -> None:
        """Put the reason on disk; the task is done anew by a resumed run."""
        self.document["failed"].append(_plain(task) | {"reason": reason})
        self.write()

    def write(self) -> None:
        """Whole or not at all."""
        self.document["datetime"] = datetime.now(UTC).isoformat()
        write_json(self.path, self.document)


def _relevant(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    unused = {
        "data": not experiment.uses_data,
        "architectures": not experiment.uses_architectures,
        "ranks": experiment.launch is None,
    }
    return {key: value for key, value in asdict(settings).items() if not unused.get(key)}


def _plain(task: Task) -> dict[str, Any]:
    return {"key": task.key, "impl": task.impl, "pass": task.pass_number, "arguments": dict(task.arguments)}


def run(
    experiments: Sequence[Experiment], settings: Settings, out: Path, resume: bool, console: Console
) -> list[dict[str, Any]]:
    """Do all tasks of all experiments into ``out``, with a progress bar; returns those that failed, with reasons.

    Raises UserError for bad settings or a directory in use, and KeyboardInterrupt with every finished task on disk.
    """
    planned = plan_of(experiments, settings)
    records = [Record(out, experiment, asked_of(experiment, settings)) for experiment in experiments]
    for record in records:
        if resume:
            record.resume()
        elif record.path.exists():
            raise UserError(f"{record.path}: was measured already; give --resume to finish it, or another --out")
    failed: list[dict[str, Any]] = []
    with (
        locked(out),
        progress_bar(console) as progress,
        tempfile.TemporaryDirectory(prefix="backprop-bench-") as scratch,
    ):
        total = sum(len(tasks) for _, tasks in planned)
        bar = progress.add_task("starting", total=total)
        cpus, cores = process.pick_cpus(settings.threads), ranks.usual_cores()
        process.keep_off(cpus)
        for record, (experiment, tasks) in zip(records, planned, strict=True):

            def watch(task: Task, done: bool, name: str = experiment.name) -> None:
                progress.update(bar, description=f"{name} · {task.impl} · {task.key}", advance=int(done))

            due = [task for task in tasks if task.key not in record.finished]
            progress.update(bar, advance=len(tasks) - len(due))
            record.write()
            site = Site(
                asked_of(experiment, settings), cores, Path(scratch) / experiment.name, Path(scratch) / "compiled"
            )
            _Runner(experiment, site, record, cpus, Path(scratch), watch).run(due)
            failed += record.document["failed"]
    return failed


def usual_impls(experiment: Experiment) -> tuple[tuple[str, ...], dict[str, str]]:
    """Of the implementations it measures where none is named: those that can run here, and why the others cannot."""
    reasons = {name: registry.find(name).missing() for name in experiment.impls}
    ready = tuple(name for name, reason in reasons.items() if reason is None)
    return ready, {name: reason for name, reason in reasons.items() if reason}


def asked_of(experiment: Experiment, settings: Settings) -> Settings:
    """The settings, with the experiment's usual implementations where none is named."""
    return settings if settings.impls else replace(settings, impls=usual_impls(experiment)[0])


def plan_of(experiments: Sequence[Experiment], settings: Settings) -> list[tuple[Experiment, list[Task]]]:
    """Every experiment's tasks.  Raises UserError for anything that can be known to be wrong before it is measured."""
    for experiment in experiments:
        _check(asked_of(experiment, settings))
    return [(experiment, experiment.tasks(asked_of(experiment, settings))) for experiment in experiments]


def _check(settings: Settings) -> None:
    """Raise UserError for implementations that cannot run here, an unknown profile or dtype, an absent device."""
    process.check_threads(settings.threads)
    plan.check_device(settings.device)
    plan.check_dtype(settings.dtype, settings.device)
    if settings.dtype not in dtypes.PLAIN:
        raise UserError(
            f"--dtype {settings.dtype}: experiments compute in {' or '.join(dtypes.PLAIN)}; sweeps know more"
        )
    if settings.profile not in PROFILES:
        raise UserError(nearest("profile", settings.profile, PROFILES))
    if settings.seed < 0:
        raise UserError(f"seed {settings.seed}: give 0 or more")
    for entry in registry.select(settings.impls):
        if reason := entry.missing():
            raise UserError(f"implementation '{entry.name}' cannot run: {reason}")
        able = entry.dtypes_on(settings.device)
        if settings.dtype not in able:
            known = ", ".join(able)
            raise UserError(f"--dtype {settings.dtype}: implementation '{entry.name}' computes in {known} only")


class _Runner:
    """One experiment's tasks, process by process."""

    def __init__(
        self, experiment: Experiment, site: Site, record: Record, cpus: list[int], scratch: Path, watch: Watch
    ) -> None:
        self.experiment, self.site, self.settings, self.record = experiment, site, site.settings, record
        self.cpus, self.scratch, self.watch = cpus, scratch, watch
        self._levels: dict[str, float] = {}  # quiet level of every implementation's processes

    def run(self, tasks: Sequence[Task]) -> None:
        """Tasks of one process together, processes in the order of their first tasks; those with processes of their own as
        they come.
        """
        if self.experiment.launch:
            for task in tasks:
                self._launched(task, self.experiment.launch)
            return
        first: dict[tuple[int, str, str], int] = {}
        for i, task in enumerate(tasks):
            first.setdefault(_process_of(task), i)
        ordered = sorted(tasks, key=lambda task: first[_process_of(task)])
        for _, group in groupby(ordered, key=_process_of):
            self._in_one_process(list(group))

    def _launched(self, task: Task, launch: Callable[[Site, Task], list[dict[str, Any]]]) -> None:
        self.watch(task, False)
        start = time.monotonic()
        try:
            self.record.keep(task, launch(self.site, task), time.monotonic() - start)
        except (CellFailed, WorkerFailed) as error:
            self.record.fail(task, str(error))
        self.watch(task, True)

    def _in_one_process(self, tasks: list[Task]) -> None:
        worker: WorkerProcess | None = None
        try:
            for task in tasks:
                self.watch(task, False)
                start = time.monotonic()
                try:
                    request = {"op": "experiment", "name": self.experiment.name, "arguments": self._arguments(task)}
                    worker = worker or self._started(task)
                    answer = worker.ask(request, task.timeout_s)
                    if answer["quiet_level"] is not None:
                        self._levels[task.impl] = answer["quiet_level"]
                    self.record.keep(task, answer["rows"], time.monotonic() - start)
                except CellFailed as error:
                    self.record.fail(task, str(error))
                except WorkerFailed as error:  # the next task gets a process of its own
                    self.record.fail(task, str(error))
                    if worker:
                        worker.stop()
                    worker = None
                self.watch(task, True)
        finally:
            if worker:
                worker.stop()

    def _arguments(self, task: Task) -> dict[str, Any]:
        found = {"found": self.record.rows_of(task.needs)} if task.needs else {}
        return {**task.arguments, **found}

    def _started(self, task: Task) -> WorkerProcess:
        entry = _setting_of(task, self.settings)
        log = self.scratch / f"{self.experiment.name}-{task.impl.replace('/', '_')}-{task.pass_number}.log"
        worker = WorkerProcess(entry, self.cpus, self.scratch / "compiled", log)
        try:
            worker.start("synthetic", self.settings.seed, quiet_level=self._levels.get(task.impl), ceilings=False)
        except (CellFailed, WorkerFailed) as error:
            worker.stop()
            raise WorkerFailed(str(error)) from error
        return worker


def _process_of(task: Task) -> tuple[int, str, str]:
    return task.pass_number, task.impl, task.device


def _setting_of(task: Task, settings: Settings) -> Setting:
    entry, asked = registry.find(task.impl), task.device or settings.device
    device = plan.device_of(entry, asked)
    if device is None:
        raise WorkerFailed(f"{entry.name} has no device '{asked}'")
    return Setting(entry, device, settings.dtype, settings.threads)
