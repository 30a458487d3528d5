"""Two sides measured in one run: a fresh process of each at a time, alternating in rounds of a few milliseconds.

Both processes are pinned to the same cores and only one of them works at any moment, so that whatever disturbs the machine
disturbs both sides alike; each round has the reference kernels on either side of it.  What is left differs from process to
process (memory layout above all, up to 2x for identical code): a *session* is one pair of processes, and intervals come
from how sessions differ.  Who starts first, who is prepared first, who begins, the order of cells, hash seeds and the
stack's place are all drawn anew for every session.

``DIR/base`` and ``DIR/head`` are run directories of pytest-benchmark documents, a session a pass; the n-th round of a
cell on one side was taken next to the n-th on the other.  ``DIR/duel.json`` says what was compared and what failed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from backprop_files import SCHEMA_VERSION, UserError, write_json
from bench import documents, machine, process
from bench.cells import Cell, bytes_estimate, measured
from bench.plan import Settings
from bench.process import CellFailed, Home, WorkerFailed, WorkerProcess
from bench.sides import Described, Side, refuse_foreign
from bench.visits import join, preparation
from impls.names import nearest

#: Sessions after which it is judged which cells need more; the first look is never the last for an accusation.
LOOKS = (4, 6, 9, 14, 21, 32, 48)
#: Rounds of a cell in a session on either side: at most so many, at least so many, and in between as time allows.  Sessions
#: differ more than rounds do: twice as many rounds narrow intervals by a tenth.
MOST_ROUNDS, LEAST_ROUNDS, CELL_S = 16, 6, 0.2
#: Cells that are prepared together need at most this share of the memory that is free.
MEMORY_SHARE = 0.25

Judge = Callable[[int], Collection[str]]


@dataclass
class Duel:
    """What is compared, and what came of it so far."""

    sides: tuple[Side, Side]
    described: tuple[Described, Described]
    settings: Settings
    out: Path
    patterns: tuple[str, ...] = ()
    cpus: list[int] | None = None  # that measure; None: the last this process may use
    tell: Callable[[str], None] = lambda text: None
    failed: list[dict[str, Any]] = field(default_factory=list)
    sessions: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        base, head = (self._chosen(described) for described in self.described)
        self.vanished = {
            label: self.described[1].why_not(cell)
            for label, cell in base.items()
            if label not in self.described[1].cells
        }
        self.new = [label for label in head if label not in self.described[0].cells]
        self.cells = {label: (base[label], head[label]) for label in base if label in head}
        self._levels: dict[str, float] = {}  # quiet level by implementation
        self._ceilings: dict[tuple[str, str], dict[str, Any]] = {}
        self._broken: set[str] = set()  # cells that failed are not tried again
        self._machine = [documents.machine_info(described.facts) for described in self.described]
        process.check_threads(self.settings.threads)
        self._cpus = self.cpus or process.pick_cpus(self.settings.threads)
        if self.described[0].absent or not base:
            raise UserError(self._no_cells())
        for pattern in self.patterns:
            if not any(_fits(label, pattern) for label in base):
                raise UserError(self._fits_none(pattern))

    def _chosen(self, described: Described) -> dict[str, Cell]:
        if not self.patterns:
            return described.cells
        return {label: cell for label, cell in described.cells.items() if any(_fits(label, p) for p in self.patterns)}

    def _no_cells(self) -> str:
        base = self.described[0]
        if base.absent:
            return f"base, {self.sides[0].told}: {nearest('implementation', base.absent[0], base.known)}"
        return self._fits_none(",".join(self.patterns))

    def _fits_none(self, pattern: str) -> str:
        cells = self.described[0].cells
        return f"--cells {pattern}: fits none of {len(cells)} cells, such as {'; '.join(itertools.islice(cells, 3))}"

    def measure(self, judge: Judge, deadline: float) -> None:
        """Sessions until ``judge`` (given the number of the look) names no more cells, or the time is over.

        Raises KeyboardInterrupt with everything finished on disk, UserError if a side does not even start.
        """
        self.write()
        warning = process.keep_off(self._cpus)
        if warning:
            self.tell(warning)
        doubtful: Collection[str] = self.cells
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="backprop-bench-") as scratch:
            for number in range(1, LOOKS[-1] + 1):
                self._session(number, [label for label in self.cells if label in doubtful], Path(scratch))
                self.sessions, self.seconds = number, time.monotonic() - start
                if number in LOOKS:
                    if len(self._broken) == len(self.cells):
                        break
                    doubtful = set(judge(LOOKS.index(number))) - self._broken
                    self.tell(f"after {number} sessions: {len(doubtful)} of {len(self.cells)} cells are in doubt")
                    if not doubtful:
                        break
                if time.monotonic() > deadline and number >= LOOKS[:2][-1]:
                    break
            self.write()
        self._refuse_broken_base()

    def _refuse_broken_base(self) -> None:
        """All of BASE failing leaves nothing to compare with, however it fails."""
        broken = {row["cell"]: row["reason"] for row in self.failed if row["side"] == self.sides[0].name}
        if self.cells and len(broken) == len(self.cells):
            cell, reason = next(iter(broken.items()))
            raise UserError(f"base, {self.sides[0].told}, cannot be measured: {cell}: {reason}")

    def write(self) -> None:
        """``duel.json``: all that the data files do not say."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "base": {"told": self.sides[0].told, "commit": dict(self.sides[0].commit)},
            "head": {"told": self.sides[1].told, "commit": dict(self.sides[1].commit)},
            "cells": list(self.cells),
            "vanished": self.vanished,
            "left_out": self.described[0].left_out,
            "new": self.new,
            "failed": self.failed,
            "looks": list(LOOKS),
            "sessions": self.sessions,
            "seconds": self.seconds,
        }
        write_json(self.out / "duel.json", content)

    def _session(self, number: int, labels: Sequence[str], scratch: Path) -> None:
        rng = Random(f"{self.settings.seed}/{number}")
        by_setting: dict[str, list[str]] = {}
        for label in labels:
            if label in self._broken:
                continue
            by_setting.setdefault(self.cells[label][0].setting.label, []).append(label)
        for setting in rng.sample(list(by_setting), len(by_setting)):
            self.tell(f"session {number} · {setting} · {len(by_setting[setting])} cells")
            self._pair(number, setting, by_setting[setting], rng, scratch)

    def _pair(self, number: int, setting: str, labels: list[str], rng: Random, scratch: Path) -> None:
        """One fresh process of each side, over all cells of one setting."""
        with contextlib.ExitStack() as stack:
            try:
                workers = self._start(setting, labels, rng, scratch, stack)
            except _SideFailed as failure:
                if failure.side == 0 and number == 1:  # there is nothing to compare with
                    told = f"base, {self.sides[0].told}, cannot be measured"
                    raise UserError(f"{told}: {setting}: {failure}") from failure
                self._fail(labels, failure)
                return
            found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
            try:
                for group in self._groups(labels):
                    self._measure_group(number, group, workers, rng, found)
                    self._release(setting, workers)
            except _SideFailed as failure:
                self._fail([label for label in labels if label not in found[1]], failure)
        if found[0]:
            self._keep(number, setting, found)

    def _fail(self, labels: Collection[str], failure: _SideFailed) -> None:
        self._broken |= set(labels)
        self.failed += [
            {"cell": label, "side": self.sides[failure.side].name, "reason": str(failure)} for label in labels
        ]

    def _start(
        self, setting: str, labels: Sequence[str], rng: Random, scratch: Path, stack: contextlib.ExitStack
    ) -> tuple[WorkerProcess, WorkerProcess]:
        workers: dict[int, WorkerProcess] = {}
        for i in rng.sample((0, 1), 2):
            side = self.sides[i]
            variables = {
                "PYTHONHASHSEED": str(rng.randrange(1 << 32)),
                "BACKPROP_BENCH_PADDING": "x" * rng.randrange(4096),
                "PYTHONPATH": os.pathsep.join(map(str, side.paths)),
            }
            worker = WorkerProcess(
                self.cells[labels[0]][i].setting,
                self._cpus,
                scratch / f"{side.name}-compiled",
                scratch / f"{side.name}-{setting}.log",
                Home(side.python, side.home, variables),
            )
            stack.callback(worker.stop)
            known = (side.name, setting) in self._ceilings
            try:
                started = worker.start(
                    self.settings.data, self.settings.seed, quiet_level=self._levels.get(setting), ceilings=not known
                )
            except (CellFailed, WorkerFailed) as error:
                raise _SideFailed(i, str(error)) from error
            if not known:
                refuse_foreign(side, self._ask(i, worker, {"op": "files"})["files"])
                self._ceilings[side.name, setting] = started["ceilings"]
            workers[i] = worker
        return workers[0], workers[1]

    def _groups(self, labels: Sequence[str]) -> Iterator[list[str]]:
        """Cells that fit into memory together, twice."""
        free = MEMORY_SHARE * machine.memory_bytes()["available"]
        group: list[str] = []
        held = 0
        for label in labels:
            needed = 2 * bytes_estimate(self.cells[label][0].setting, self.cells[label][0].point)
            if group and held + needed > free > 0:
                yield group
                group, held = [], 0
            group.append(label)
            held += needed
        if group:
            yield group

    def _measure_group(
        self,
        number: int,
        group: list[str],
        workers: tuple[WorkerProcess, WorkerProcess],
        rng: Random,
        found: tuple[dict[str, Any], dict[str, Any]],
    ) -> None:
        points: dict[str, list[str]] = {}
        for label in group:
            points.setdefault(self.cells[label][0].point.label, []).append(label)
        ready: list[tuple[int, list[str], tuple[dict[str, Any], ...]]] = []
        for key, labels in enumerate(points.values()):
            try:
                ready.append((key, labels, self._prepare(key, labels, workers, rng, trace=number == 1)))
            except _CellFailed as failure:
                self._fail(labels, failure)
        for key, labels, first in rng.sample(ready, len(ready)):
            try:
                rounds = self._alternate(key, workers, rng)
            except _CellFailed as failure:
                self._fail(labels, failure)
                continue
            for i in (0, 1):
                for label in labels:
                    phase = self.cells[label][i].phase
                    found[i][label] = first[i][phase] | rounds[i][phase]

    def _release(self, setting: str, workers: Sequence[WorkerProcess]) -> None:
        """Let all points go, and keep BASE's quiet level for the processes to come."""
        level, _ = [self._ask(i, worker, {"op": "release"})["quiet_level"] for i, worker in enumerate(workers)]
        if level:
            self._levels[setting] = min(level, self._levels.get(setting, level))

    def _prepare(
        self, key: int, labels: Sequence[str], workers: Sequence[WorkerProcess], rng: Random, trace: bool
    ) -> tuple[dict[str, Any], ...]:
        """Both sides, in random order; each is held against its own reference before anything is timed."""
        found: dict[int, dict[str, Any]] = {}
        for i in rng.sample((0, 1), 2):
            cells = [self.cells[label][i] for label in labels]
            request = preparation(key, cells[0].point, [cell.phase for cell in cells], trace)
            found[i] = self._ask(i, workers[i], request)["phases"]
        return found[0], found[1]

    def _alternate(
        self, key: int, workers: Sequence[WorkerProcess], rng: Random
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Rounds of one point, ABBA: drift within four rounds cancels."""
        found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        first = rng.randrange(2)
        start = time.monotonic()
        for number in range(MOST_ROUNDS + 1):
            if number == 1:
                start = time.monotonic()  # the first turn warmed up
            if number > LEAST_ROUNDS and time.monotonic() - start > 2 * CELL_S:
                break
            for i in (first, 1 - first) if number % 2 else (1 - first, first):
                turn = self._ask(i, workers[i], {"op": "turn", "key": key, "patience_s": CELL_S})["phases"]
                for phase, rounds in turn.items() if number else ():
                    if phase in found[i]:
                        join(found[i][phase], rounds)
                    else:
                        found[i][phase] = rounds
        return found

    def _ask(self, i: int, worker: WorkerProcess, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return worker.ask(request, 300.0)
        except CellFailed as error:
            raise _CellFailed(i, str(error)) from error
        except WorkerFailed as error:
            raise _SideFailed(i, str(error)) from error

    def _keep(self, number: int, setting: str, found: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        """One document a side, whole, before the next pair starts."""
        for i, side in enumerate(self.sides):
            entries = [
                documents.entry(f"{label} pass={number}", self.cells[label][i].point.label, rounds["seconds"], info)
                for label, rounds in found[i].items()
                for info in [self._info(number, self.cells[label][i], self._ceilings[side.name, setting], rounds)]
            ]
            ours = {"run": {"side": side.name, "told": side.told, "seed": self.settings.seed, "passes": number}}
            document = documents.document(entries, self._machine[i], side.commit, ours)
            write_json(self.out / side.name / "data" / f"{setting.replace(' ', '-')}-pass{number}.json", document)
        self.write()

    def _info(self, number: int, cell: Cell, ceilings: Mapping[str, Any], rounds: Mapping[str, Any]) -> dict[str, Any]:
        info = measured(cell, self.settings.data, self.settings.seed, number, ceilings, rounds)
        wall_s = sum(rounds["seconds"]) * rounds["iterations"]
        return info | {"wall_s": wall_s, "machine_state": machine.state(self._cpus)}


def refuse_used(directory: Path) -> None:
    """Raise UserError where a comparison or a run is kept already, or nothing can be written."""
    if (directory / "duel.json").exists() or any(directory.glob("**/data/*.json")):
        raise UserError(f"{directory}: holds measurements already; choose another --out, or --from to judge them")


class _SideFailed(Exception):
    """A process is gone: nothing more comes from this pair."""

    def __init__(self, side: int, reason: str) -> None:
        super().__init__(reason)
        self.side = side


class _CellFailed(_SideFailed):
    """The process lives, one point of it does not."""


def _fits(label: str, pattern: str) -> bool:
    """A pattern with wildcards must fit the whole label, another one stand in it."""
    return fnmatch.fnmatchcase(label, pattern) if any(c in pattern for c in "*?[") else pattern in label
