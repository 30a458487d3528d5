"""What runs on a worker's machine beside Dask: tells what can be measured there, and measures one job.

A process of its own, since measuring moves the harness off the cores that measure, which must not stick to a thread of
Dask's, and since it may crash.  It reads one JSON request from standard input and writes JSON lines; the last has ``"end"``.
It ends, and the process that measures with it, when its standard input closes: whoever asked is gone.

Requests: ``{"op": "survey" | "measure" | "clean", "schema_version", "run", "settings", "files", "job"}``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any

from backprop_files import SCHEMA_VERSION, UserError
from bench.fleet import scratch, survey
from bench.plan import Job, Plan, Settings
from bench.process import CellFailed, WorkerFailed
from bench.recorder import Enough, Heritage, LeftOut, Recorder

Tell = Callable[[dict[str, Any]], None]
#: Seconds for what is running to be ended in order, and between two words on what is measured.
PATIENCE_S, AT_S = 5.0, 3.0


def main() -> None:
    """Answer the one request."""
    signal.signal(signal.SIGTERM, _end)
    request = json.loads(sys.stdin.readline() or "{}")
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever else is printed is no answer
        threading.Thread(target=_end_with_whoever_asked, args=(sys.stdin,), daemon=True).start()
        tell = _teller(answers)
        tell({"end": True, **answer(request, tell)})
    os._exit(0)  # all is said and tidied up; taking libraries down in order would take a fifth of a second a job


def answer(request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Do what is asked; returns the last line, which has ``"refused"`` where it cannot be done."""
    if request.get("schema_version") != SCHEMA_VERSION:
        return {"schema_version": SCHEMA_VERSION, "refused": f"it has schema {SCHEMA_VERSION}"}
    folder = scratch.Folder(str(request["run"]))
    if request["op"] == "clean":
        folder.remove()
        return {"schema_version": SCHEMA_VERSION}
    try:
        folder.keep(request.get("files", []))
        settings = settings_of(request["settings"], folder)
        with alone_here(tell):
            do = _survey if request["op"] == "survey" else _measure
            return {"schema_version": SCHEMA_VERSION, **do(request, settings, folder, tell)}
    except UserError as error:
        return {"schema_version": SCHEMA_VERSION, "refused": str(error)}


def settings_of(told: dict[str, Any], folder: scratch.Folder) -> Settings:
    """Settings from JSON, files that came with them where they lie now."""
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    given["own"] = tuple(map(folder.located, given["own"]))
    return Settings(**given | {"data": folder.located(given["data"])})


@contextlib.contextmanager
def alone_here(tell: Tell) -> Iterator[None]:
    """Nothing else of this user's fleets is measured on this machine meanwhile; the lock goes with the process."""
    with scratch.lock_file().open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tell({"at": "waits for another measurement on this machine"})
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _survey(request: dict[str, Any], settings: Settings, folder: scratch.Folder, tell: Tell) -> dict[str, Any]:
    return survey.survey(settings)


def _measure(request: dict[str, Any], settings: Settings, folder: scratch.Folder, tell: Tell) -> dict[str, Any]:
    asked = request["job"]
    began = time.monotonic()
    planned = part(settings, asked)
    recorder = Recorder(planned, heritage=Heritage(folder.compiled, folder.lessons(), folder.checked(asked["impl"])))
    recorder.watch = _seldom(tell)
    post = Post(recorder, tell)
    try:
        recorder.open()
        folder.note_checked(asked["impl"])
        measure(recorder, set(asked["cells"]), post)
    finally:
        recorder.close()
    post.send()
    folder.learn(recorder.learned())
    return {"wall_s": time.monotonic() - began, "notes": recorder.notes}


def _seldom(tell: Tell) -> Callable[[Job], None]:
    """Tells what is measured, but not at every visit: words cost time beside what is measured."""
    last = -math.inf

    def watch(job: Job) -> None:
        nonlocal last
        if time.monotonic() - last > AT_S:
            last = time.monotonic()
            tell({"at": job.point.label})

    return watch


def part(settings: Settings, asked: dict[str, Any]) -> Plan:
    """The plan of one implementation in one pass, with the points of the cells that are asked for."""
    impl, number = asked["impl"], asked["pass"]
    whole = survey.plan_of(settings, impl, max(number, settings.passes))
    wanted = set(asked["cells"])
    jobs = [job for job in whole.jobs if job.pass_number == number and any(cell.label in wanted for cell in job.cells)]
    return replace(whole, settings=replace(whole.settings, budget_s=asked["share_s"]), passes=number, jobs=jobs)


class Post:
    """Cells on their way back, sent together once a group of them is measured."""

    def __init__(self, recorder: Recorder, tell: Tell) -> None:
        self._recorder, self._tell = recorder, tell
        self._cells: list[dict[str, Any]] = []
        self._settled: list[str] = []
        self._told = [len(recorder.left_out), len(recorder.failed)]  # rows of the plan were told by the survey

    def put(self, name: str, group: str, seconds: list[float], extra_info: dict[str, Any]) -> None:
        """A cell that was measured."""
        self._cells.append({"cell": name, "group": group, "seconds": seconds, "extra_info": extra_info})

    def settle(self, name: str) -> None:
        """A cell that was not, and will not be."""
        self._settled.append(name)

    def send(self) -> None:
        """All there is, with the reasons of what was not measured."""
        if not self._cells and not self._settled:
            return
        recorder = self._recorder
        rows = recorder.left_out[self._told[0] :], recorder.failed[self._told[1] :]
        self._told = [len(recorder.left_out), len(recorder.failed)]
        line = {"cells": self._cells, "settled": self._settled, "left_out": rows[0], "failed": rows[1]}
        self._tell({"schema_version": SCHEMA_VERSION, **line})
        self._cells, self._settled = [], []


def measure(recorder: Recorder, wanted: set[str], post: Post) -> None:
    """Every wanted cell, measured or settled; group by group, as they are measured."""
    jobs = recorder.plan.jobs
    recorder.expect(jobs)
    for job in jobs:
        if not recorder.at_hand(job):
            post.send()
        _record(recorder, job, wanted, post)
    known = {cell.label for job in jobs for cell in job.cells}
    for name in wanted - known:  # it could be, when it was asked; memory may have become scarce
        recorder.left_out.append(_no_more(recorder.plan, name))
        post.settle(name)


def _record(recorder: Recorder, job: Job, wanted: set[str], post: Post) -> None:
    for cell in job.cells:
        if cell.label not in wanted:
            continue
        try:
            measured = recorder.measure(job, cell)
        except (Enough, LeftOut, CellFailed, WorkerFailed):  # the recorder keeps the reason
            post.settle(cell.label)
        else:
            post.put(cell.label, job.point.label, measured.seconds, measured.extra_info)


def _no_more(planned: Plan, name: str) -> dict[str, Any]:
    row = next((row for row in planned.left_out if row["cell"] in name), None)
    impl = name.split(" ", 1)[0]
    return {"impl": impl, "cell": name, "reason": row["reason"] if row else "its worker cannot measure it any more"}


def _teller(answers: IO[str]) -> Tell:
    def tell(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
        answers.flush()

    return tell


def _end_with_whoever_asked(asked: IO[str]) -> None:
    """Standard input ends when the Dask worker does, or when it calls the job off."""
    asked.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(1)


def _end(*_: object) -> None:
    """As Ctrl-C: the process that measures is ended, its folder removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
