"""A sweep by a fleet: jobs go out, finished cells go to disk at once, and one bar shows how far it is."""

from __future__ import annotations

import math
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from pytest_benchmark.utils import get_commit_info
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from backprop_files import SCHEMA_VERSION, UserError, check_cell
from bench import documents, plan, profiles
from bench.cells import data_label
from bench.fleet import messages, shares, survey
from bench.fleet.connection import RESOURCE, Connection, Heard, Lost, Where
from bench.fleet.dispatcher import Dispatcher, Flight, Job, Worker
from bench.fleet.messages import BadAnswer, Implementation, Requests, Survey
from bench.fleet.shares import Need
from bench.plan import Settings
from bench.precision import Precision
from bench.progress_bar import progress_bar
from bench.run import SOME_FAILED, claimed
from bench.store import Store
from impls import registry

#: How often the scheduler is asked who is there, beside what it tells by itself; how long a loop waits for news.
LOOK_S, NEWS_S = 5.0, 0.5
#: Seconds in which others may come where no worker can be used, in which workers end what they are at and tidy up, and
#: that the slower of several surveys are waited for.
GRACE_S, TIDY_S, SURVEYS_S = 3.0, 8.0, 30.0


#: Bytes of surveys, and of the files that they bring, which are on their way at once.
ON_THE_WAY_BYTES = 128 << 20


class Interrupted(Exception):
    """The run cannot go on; what was finished is kept."""


#: The class of each of several machines, from what they tell of themselves.
Grouped = Callable[[Sequence[dict[str, Any]]], list[str]]


def all_alike(machines: Sequence[dict[str, Any]]) -> list[str]:
    """Every machine of one class."""
    return [""] * len(machines)


def sweep(
    settings: Settings, out: Path, resume: bool, console: Console, where: Where, grouped: Grouped = all_alike
) -> int:
    """Measure into ``out`` by the workers of a scheduler; returns the exit code (0, or 3 where cells failed).  A precision that
    is asked for is one of each class of machines, ``grouped`` as reports group them.

    Raises UserError for bad settings, a scheduler that cannot be used, no usable worker, a directory in use; Interrupted
    where the fleet is gone, or Ctrl-C was pressed.
    """
    plan.check(settings)
    if not 0 <= where.wait_s < math.inf:
        raise UserError(f"--wait {where.wait_s:g}: give seconds, 0 or more")
    registry.select(settings.impls)
    run = secrets.token_hex(8)
    requests = Requests.of(settings, run)
    with Connection(where, run) as connection, progress_bar(console) as progress:
        fleet = Fleet(settings, connection, requests, where.wait_s, progress, grouped)
        try:
            fleet.gather_workers()
            with claimed(settings, out, resume):
                fleet.measure_into(Store(out))
        finally:
            fleet.leave()
    return SOME_FAILED if fleet.failed else 0


@dataclass
class Fleet:
    """The state of a run: what is known of workers, and what came of it so far."""

    settings: Settings
    connection: Connection
    requests: Requests
    wait_s: float
    progress: Progress
    grouped: Grouped = all_alike
    left_out: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher()
        self.surveys: dict[str, Survey] = {}  # by worker
        self._profile = profiles.find(self.settings.profile)
        self._passes = self.settings.passes or self._profile.passes
        self._budget_s = survey.plan_budget_s(self.settings)
        self._deadline = math.inf
        self._surveying: dict[str, str] = {}  # token: worker
        self._unusable: dict[str, str] = {}  # worker: why
        self._known: dict[str, set[str]] = defaultdict(set)  # cells that were planned, by implementation
        self._whole: dict[str, Implementation] = {}  # the first survey's of each
        self._interned: dict[Any, Any] = {}  # what many workers have alike is kept once
        self._finished: dict[tuple[str, int], set[str]] = {}
        self._loose: dict[str, list[Path]] = defaultdict(list)  # by token
        self._at: dict[str, str] = {}  # by token: what it measures
        self._kinds: dict[str, dict[str, Any]] = {}  # a machine of each class
        self._precision: dict[str, Precision] = defaultdict(Precision)  # by class
        self._further = 0  # rounds of passes beyond those asked for
        self._number = self._passes  # of the last pass
        self._serial = 0
        self._looked = -math.inf
        self._reasons: dict[str, list[dict[str, Any]]] = {}  # by machine, why it cannot measure something
        self._differences: set[str] = set()  # of libraries, that were told
        self._commit: dict[str, Any] = {}
        self._store: Store | None = None
        self._last: Path | None = None
        self._task = self.progress.add_task("looks for workers", total=None, budget_s=self._budget_s)

    # --- who is there -------------------------------------------------------------------------------------------

    def gather_workers(self) -> None:
        """Wait for usable workers.  Raises UserError where there are none, and says why."""
        start = time.monotonic()
        try:
            while True:
                self._look()
                for heard in self.connection.heard(NEWS_S):
                    self._take(heard)
                waited = time.monotonic() - start
                if self.dispatcher.workers and (not self._surveying or waited > SURVEYS_S):
                    return
                told = (
                    f"asks {len(self._surveying)} workers what they can measure"
                    if self._surveying
                    else "looks for workers"
                )
                self.progress.update(self._task, description=told)
                self._refuse_if_hopeless(waited)
        except Lost as error:
            raise UserError(str(error)) from error

    def _refuse_if_hopeless(self, waited: float) -> None:
        if self._surveying or self.dispatcher.workers:
            return
        if self._unusable and waited > min(GRACE_S, self.wait_s):
            name, reason = next(iter(self._unusable.items()))
            more = f" ({len(self._unusable) - 1} more cannot be used either)" if len(self._unusable) > 1 else ""
            raise UserError(f"no worker of {self.connection.address} can be used: {name}: {reason}{more}")
        if waited > self.wait_s:
            raise UserError(
                f"scheduler {self.connection.address}: no worker came within {self.wait_s:g} s; start some with "
                f"'dask worker {self.connection.address} --nthreads 1 --resources {RESOURCE}=1', or give a longer --wait"
            )

    def _look(self) -> None:
        """Ask who is there: survey those that are new, miss those that are gone."""
        self.connection.check()
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        there = self.connection.workers()
        for name in [*self.surveys, *self._surveying.values(), *self._unusable]:
            if name not in there:
                self._miss(name)
        asked = set(self._surveying.values())
        for name, resources in there.items():
            if name in self.surveys or name in self._unusable or name in asked:
                continue
            if resources.get(RESOURCE, 0) < 1:
                told = f"offers no resource '{RESOURCE}'; start it with --nthreads 1 --resources {RESOURCE}=1"
                self._unusable[name] = told
            elif not self._surveying or (len(self._surveying) + 1) * len(self.requests.survey) <= ON_THE_WAY_BYTES:
                self._survey(name)

    def _survey(self, name: str) -> None:
        """Ask a worker what it is and what it can measure."""
        self._serial += 1
        token = f"survey-{self._serial}"
        self._surveying[token] = name
        self.connection.submit(token, name, self.requests.survey)

    def _miss(self, name: str) -> None:
        self._unusable.pop(name, None)
        for token in [token for token, worker in self._surveying.items() if worker == name]:
            del self._surveying[token]
            self.connection.drop(token)
        if self.surveys.pop(name, None) is None:
            return
        flight = self.dispatcher.leave(name, f"its worker {name} died or left")
        if flight:
            self._landed(flight)
            self._note(f"worker {name} died or left in {flight.token}; {len(flight.missing)} cells are measured anew")

    def _surveyed(self, name: str, answer: Mapping[str, Any]) -> None:
        try:
            found = self._usable(messages.survey(answer))
        except BadAnswer as error:
            self._refuse(name, str(error))
            return
        able = {impl: told.cells for impl, told in found.impls.items()}
        self.surveys[name] = found
        self._surveys_left_out(found)
        for impl, told in found.impls.items():
            self._whole.setdefault(impl, told)
        if self._store:
            self._plan(found)
        self.dispatcher.join(Worker(name, found.node, able, self._kind(found.machine)))
        self._tell_differences(found)

    def _kind(self, machine: dict[str, Any]) -> str:
        """The class of a machine."""
        kind = self.grouped([*self._kinds.values(), machine])[-1]
        self._kinds.setdefault(kind, machine)
        return kind

    def _usable(self, found: Survey) -> Survey:
        """Raises BadAnswer where it is not; what other workers told alike is kept once."""
        ours = survey.versions()
        for what, version in ours.items():
            if (there := found.versions.get(what)) != version:
                raise BadAnswer(f"{what} is {there} there and {version} here: they must agree")
        asked = {*registry.names(), *(target.rpartition(":")[2] for target in self.settings.own)}
        if unknown := found.impls.keys() - asked:
            raise BadAnswer(f"implementation '{min(unknown)[:80]}' was not asked for")
        if not found.impls:
            reasons = dict.fromkeys(str(row["reason"]) for row in found.left_out)
            self._surveys_left_out(found)
            raise BadAnswer(f"can measure nothing of what is asked: {'; '.join(reasons) or 'nothing matches'}")
        alike = frozenset(found.impls.items())
        return replace(found, impls=self._interned.setdefault(alike, found.impls))

    def _refuse(self, name: str, reason: str) -> None:
        self._unusable[name] = reason
        self._note(f"worker {name} is left out: {reason}")

    def _tell_differences(self, found: Survey) -> None:
        """Libraries may differ; then the machines are of different classes.  Told once of many machines that differ alike."""
        first = next(iter(self.surveys.values()))  # a note for every pair would be too many
        mine, theirs = (survey_of.machine["libraries"] for survey_of in (found, first))
        unlike = [lib for lib in {**mine, **theirs} if mine.get(lib) != theirs.get(lib)]
        told = messages.text(", ".join(f"{lib} {mine.get(lib)} and {theirs.get(lib)}" for lib in unlike[:4]))
        if told and told not in self._differences:
            self._differences.add(told)
            self._note(f"libraries differ between {found.node} and {first.node}: {told}")

    # --- what is to be done -------------------------------------------------------------------------------------

    def open(self, store: Store) -> None:
        """Plan what the directory does not have yet; from now on time counts."""
        self._store = store
        for name in store.finished():
            base, _, number = name.rpartition(" pass=")
            self._finished.setdefault((base.split(" ", 1)[0], int(number)), set()).add(base)
            self._number = max(self._number, int(number))
        if self.settings.precision is not None:
            for machine, entry in store.entries():
                name, seconds = str(entry["params"]["cell"]).rpartition(" pass=")[0], entry["stats"].get("data")
                check_cell(f"{store.data}: {name}", entry["extra_info"], seconds)
                self._learn(self._kind(machine), name, seconds, entry["extra_info"])
        for found in self.surveys.values():
            self._plan(found)
        self._commit = get_commit_info()  # type: ignore[no-untyped-call]
        self._deadline = math.inf if self._budget_s is None else time.monotonic() + self._budget_s

    def _plan(self, found: Survey) -> None:
        """Jobs for whatever this worker can measure and none before it could."""
        new = {impl: told.cells - self._known[impl] for impl, told in found.impls.items()}
        new = {impl: cells for impl, cells in new.items() if cells}
        for impl, cells in new.items():
            self._known[impl] |= cells
        for number in range(1, self._passes + 1):
            self.dispatcher.add(self._jobs(number, new))

    def _jobs(self, number: int, cells: Mapping[str, frozenset[str]]) -> list[Job]:
        """One for each implementation, in shuffled order, without what is finished."""
        names = Random(f"{self.settings.seed}/{number}").sample(sorted(cells), len(cells))
        wanted = {impl: cells[impl] - self._finished.get((impl, number), set()) for impl in names}
        return [  # where nothing is finished the set is the survey's own, kept once
            Job(impl, number, cells[impl] if len(wanted[impl]) == len(cells[impl]) else wanted[impl], i)
            for i, impl in enumerate(names)
        ]

    def measure_into(self, store: Store) -> None:
        """All that the store lacks.  Raises Interrupted, with everything finished on disk."""
        self.open(store)
        try:
            self.measure()
        except (Lost, KeyboardInterrupt) as error:
            raise Interrupted(str(error) or "interrupted") from error
        finally:
            self.close()

    def measure(self) -> None:
        """Send jobs and keep what comes, until nothing is left.  Raises Lost or Interrupted."""
        alone_since = time.monotonic()
        while not self.dispatcher.over or self._add_further():
            self._look()
            for flight in self.dispatcher.assign():  # one by one: each share counts on those that still wait
                self._send(flight)
            for heard in self.connection.heard(NEWS_S):
                self._take(heard)
            self._tell_progress()
            if self.dispatcher.flights or self._surveying or self.dispatcher.over:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self.wait_s:
                self._abandon()

    def _abandon(self) -> None:
        """Nobody is at work, and nobody came who could be."""
        stranded = self.dispatcher.stranded()
        if not self.dispatcher.workers:
            raise Interrupted(f"no worker is left, and none came within {self.wait_s:g} s")
        self.dispatcher.abandon(
            stranded, f"no worker that can measure it is left, and none came within {self.wait_s:g} s"
        )
        self._tell_given_up()

    def _add_further(self) -> bool:
        """A further pass of each class over cells whose intervals are wider than asked for, as far as the time reaches."""
        if self.settings.precision is None or self._further >= plan.MOST_EXTRA_PASSES:
            return False
        self._further += 1
        for kind, machines in sorted(self.dispatcher.kinds().items()):
            if chosen := self._widest(kind, machines, self.settings.precision):
                self._number += 1
                self.dispatcher.add(replace(job, kind=kind) for job in self._jobs(self._number, chosen))
        return self.dispatcher.waits

    def _widest(self, kind: str, machines: int, target: float) -> dict[str, frozenset[str]]:
        """Cells of a class, by implementation, that are wider than the target: the widest, as many as there is time for."""
        able: dict[str, frozenset[str]] = defaultdict(frozenset)
        for worker in self.dispatcher.workers.values():
            for impl, cells in worker.able.items() if worker.kind == kind else ():
                able[impl] |= cells
        points: dict[tuple[str, str], set[str]] = defaultdict(set)
        for impl, cells in able.items():
            for cell in cells:
                points[_key(self._whole[impl].label, cell)].add(cell)
        left = shares.pool_s(self._deadline - time.monotonic(), machines, 0.0)
        chosen: dict[str, frozenset[str]] = defaultdict(frozenset)
        for key in self._precision[kind].widest(list(points), target):
            impl = key[0].split(" ", 1)[0]
            left -= self._need(impl, len(points[key]), cold=False).seconds
            if left < 0:
                break
            chosen[impl] |= points[key]
        return dict(chosen)

    # --- a job goes out -----------------------------------------------------------------------------------------

    def _send(self, flight: Flight) -> None:
        flight.began_s = time.monotonic()
        flight.share_s = self._share(flight)
        self.connection.submit(flight.token, flight.worker.name, self.requests.measure(flight))

    def _share(self, flight: Flight) -> float | None:
        """Seconds of the run's budget for a job that begins now; None where there is no budget."""
        if self._budget_s is None:
            return None
        now, job = time.monotonic(), flight.job
        left = self._deadline - now
        others = [f for f in self.dispatcher.flights.values() if f is not flight and f.share_s is not None]
        promised = sum(max(0.0, f.began_s + (f.share_s or 0.0) - now) for f in others)
        own = self._need(job.impl, len(job.cells), not self.dispatcher.did(flight.worker.machine, job.impl))
        waiting = [self._need(impl, n, first) for (impl, first), n in self.dispatcher.waiting_cells.items() if n]
        overhead, _, timed = shares.total([own, *waiting])
        pool = shares.pool_s(left, self.dispatcher.machines, promised)
        return min(shares.share_s(own, pool, overhead, timed), max(left, shares.LEAST_S))

    def _need(self, impl: str, cells: int, cold: bool) -> Need:
        whole = self._whole[impl]
        overhead_s, loops = whole.cold if cold else whole.warm
        return Need(overhead_s, loops, whole.cell_s).scaled(cells / len(whole.cells))

    # --- what comes back ----------------------------------------------------------------------------------------

    def _take(self, heard: Heard) -> None:
        if heard.kind == "workers":
            self._looked = -math.inf
        elif heard.token in self._surveying:
            self._take_survey(heard)
        elif heard.token in self.dispatcher.flights:
            self._take_of_flight(heard)

    def _take_survey(self, heard: Heard) -> None:
        name = self._surveying[heard.token]
        try:
            answer = messages.parse(heard.text) if heard.kind == "line" else {"end": True, "crashed": heard.text}
        except BadAnswer as error:
            answer = {"end": True, "crashed": str(error)}
        if "end" not in answer:  # it waits for the machine
            return
        del self._surveying[heard.token]
        self.connection.drop(heard.token)
        self._looked = min(self._looked, time.monotonic() - LOOK_S + NEWS_S)  # others may wait to be asked
        if reason := _reason(answer):
            self._refuse(name, reason)
        else:
            self._surveyed(name, answer)

    def _take_of_flight(self, heard: Heard) -> None:
        flight = self.dispatcher.flights[heard.token]
        try:
            answer = messages.parse(heard.text) if heard.kind == "line" else {"end": True, "crashed": heard.text}
            if "cells" in answer:
                self._keep(flight, answer)
        except BadAnswer as error:
            answer = {"end": True, "crashed": f"what it answered cannot be used: {error}"}
        if "at" in answer:
            self._at[heard.token] = messages.text(answer["at"])[:80]
        if "end" in answer:
            self._ended(flight, answer)

    def _keep(self, flight: Flight, answer: Mapping[str, Any]) -> None:
        """Cells to disk, at once; each counts once."""
        found = messages.cells(answer, flight, self.settings.threads)
        settled = messages.settled(answer, flight)
        rows = messages.rows(answer.get("left_out")), messages.rows(answer.get("failed"))
        fresh = [cell for cell in found if self.dispatcher.deliver(flight.token, cell.name)]
        for name in settled:
            self.dispatcher.settle(flight.token, name)
        self.left_out += rows[0]
        self.failed += rows[1]
        number = flight.job.number
        if self.settings.precision is not None:
            for cell in fresh:
                self._learn(flight.worker.kind, cell.name, cell.seconds, cell.extra_info)
        if fresh and self._store:
            entries = [
                documents.entry(f"{cell.name} pass={number}", cell.group, cell.seconds, cell.extra_info)
                for cell in fresh
            ]
            loose = self._loose[flight.token]
            machine = self.surveys[flight.worker.name].machine
            document = documents.document(entries, machine, self._commit, self._extra([], [], []))
            loose.append(self._store.keep(f"{flight.token} {len(loose)}", document))

    def _learn(self, kind: str, name: str, seconds: list[float], info: Mapping[str, Any]) -> None:
        """A cell's pass, for how precise its class knows it."""
        if "product" in info["reference_s"]:
            key = _key(f"{info['impl']} {info['device']} {info['dtype']}", name)
            told = {"seconds": seconds, "reference_s": info["reference_s"]}
            self._precision[kind].learn(key, {str(info["phase"]): told})

    def _ended(self, flight: Flight, answer: Mapping[str, Any]) -> None:
        reason = _reason(answer)
        name = flight.worker.name
        if reason.startswith("own implementation"):  # it is wrong wherever it is measured
            raise UserError(reason)
        self.dispatcher.end(flight.token, f"{name}: {reason}" if reason else "")
        for note in messages.texts(answer.get("notes")):
            self._note(f"{self.surveys[name].node}: {note}", quietly=True)
        if flight.missing:
            told = reason or "some of its cells never came"
            self._note(f"worker {name}: {flight.token}: {told}; {len(flight.missing)} cells are measured anew")
        self._landed(flight)
        if name in self.dispatcher.barred:
            self._refuse(name, f"failed too often: {self.dispatcher.barred[name]}")
            del self.surveys[name]

    def _landed(self, flight: Flight) -> None:
        """A job is over, one way or the other: what came of it becomes one file."""
        self.connection.drop(flight.token)
        self._at.pop(flight.token, None)
        if (loose := self._loose.pop(flight.token, None)) and self._store:
            self._last = self._store.merge(self._extra([], [], []), loose)[-1]
        self._tell_given_up()

    def _tell_given_up(self) -> None:
        for gone in self.dispatcher.given_up:
            label = self._whole[gone.job.impl].label
            for cell in sorted(gone.cells):
                row = {"impl": gone.job.impl, "cell": cell.removeprefix(f"{label} "), "pass": gone.job.number}
                # a further pass that cannot be had is no failure: the cell is measured, if not as precisely as asked
                (self.failed if gone.job.number <= self._passes else self.left_out).append(
                    {**row, "reason": gone.reason}
                )
        self.dispatcher.given_up.clear()

    # --- what is said and written -------------------------------------------------------------------------------

    def _note(self, text: str, quietly: bool = False) -> None:
        """Into the files, and on the terminal."""
        text = messages.text(text, 4 * messages.MOST_TEXT)
        if text in self.notes:
            return
        self.notes.append(text)
        if not quietly:
            self.progress.console.print(f"note: {escape(text)}", soft_wrap=True, highlight=False, style="dim")

    def _tell_progress(self) -> None:
        dispatcher = self.dispatcher
        running = [
            f"{flight.worker.machine}: {flight.job.impl} pass {flight.job.number} {self._at.get(token, '')}".strip()
            for token, flight in list(dispatcher.flights.items())[:2]
        ]
        more = len(dispatcher.flights) - len(running)
        told = f"{len(dispatcher.flights)} of {dispatcher.machines} machines · {' · '.join(running)}"
        self.progress.update(
            self._task,
            total=dispatcher.total,
            completed=dispatcher.delivered + dispatcher.settled,
            description=escape(told + (f" · {more} more" if more > 0 else "")),
        )

    def close(self) -> None:
        """Put whatever is left to say into a file."""
        assert self._store is not None
        extra = self._extra(self._unable() + self.left_out, self.failed, self.notes)
        gathered = self._store.merge(extra)
        if self._last and not gathered:
            Store.say(self._last, extra)
        if not self._last and not gathered:  # there is no file that could tell
            for reason in dict.fromkeys(str(row["reason"]) for row in self.failed):
                self._note(reason)

    def leave(self) -> None:
        """Call off what is under way; a worker of each machine removes the run's folder there."""
        for token in [*self.dispatcher.flights, *self._surveying]:
            self.connection.drop(token)
        names = {found.node: name for name, found in self.surveys.items()}
        waiting = set()
        try:
            self.connection.check()
            for i, name in enumerate(names.values()):
                waiting.add(f"clean-{i}")
                self.connection.submit(f"clean-{i}", name, self.requests.clean())
        except Lost:
            return
        deadline = time.monotonic() + TIDY_S
        while waiting and time.monotonic() < deadline:
            waiting -= {heard.token for heard in self.connection.heard(0.2) if heard.kind == "end"}

    def _surveys_left_out(self, found: Survey) -> None:
        self._reasons.setdefault(found.node, found.left_out)

    def _unable(self) -> list[dict[str, Any]]:
        """Cells that no worker can measure, with the reason of one that said so."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in (row for found in self._reasons.values() for row in found):
            impl, point = str(row["impl"]), str(row["cell"])
            known = self._known.get(impl, set())
            covered = bool(known) if point == "all" else any(f" {point} " in cell for cell in known)
            if not covered:
                rows.setdefault((impl, point), row)
        return list(rows.values())

    def _extra(
        self, left_out: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]], notes: Sequence[str]
    ) -> dict[str, Any]:
        """Our top-level object of a file."""
        settings = self.settings
        run = {
            "profile": self._profile.name,
            "impls": sorted(self._known),
            "device": settings.device,
            "dtype": settings.dtype or "float32 where the implementation has it",
            "threads": settings.threads,
            "phases": list(settings.phases),
            "optimizers": list(settings.optimizers or self._profile.optimizers),
            "data": data_label(settings.data),
            "passes": self._passes,
            "seed": settings.seed,
            "budget_s": self._budget_s,
            "cell_s": settings.cell_s if settings.cell_s is not None else self._profile.cell_s,
            "precision": settings.precision,
        }
        told = {"left_out": list(left_out), "failed": list(failed), "notes": list(notes)}
        return {"schema_version": SCHEMA_VERSION, "run": run, **told}


def _key(label: str, cell: str) -> tuple[str, str]:
    """Setting and point of a cell, without its phase."""
    return label, cell.removeprefix(f"{label} ").rpartition(" ")[0]


def _reason(answer: Mapping[str, Any]) -> str:
    """Why a task came to nothing; empty where it did not."""
    crashed, refused = answer.get("crashed"), answer.get("refused")
    if isinstance(crashed, str):
        return _told_of_crash(crashed)
    if isinstance(refused, str):
        return messages.text(refused)
    return ""


def _told_of_crash(text: str) -> str:
    if "No module named 'bench" in text:
        return "backprop-bench is not installed there, or another version of it: No module named 'bench.fleet'"
    return messages.text(text) or "it ended without an answer"
