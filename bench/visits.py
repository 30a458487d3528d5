"""Several cells in one worker, each visited several times in turn.

What disturbs a shared machine lasts from a tenth of a second to seconds.  Rounds in one stretch share it, rounds spread
over several visits do not: cells repeat better for the same time (docs/measuring.md has the figures).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bench.cells import Point
from bench.process import CellFailed, WorkerFailed, WorkerProcess

#: Visits to a cell at most; with little time fewer of them, so that none is shorter than the other figure.
MOST, LEAST_S = 8, 0.025
#: A cell with fewer quiet rounds, or fewer than half of its rounds quiet, is visited again, at most so often; all that
#: takes at most this share of the time asked for.
LEAST_QUIET, MOST_AGAIN, SHARE_AGAIN = 6, 8, 0.6


@dataclass
class Task:
    """A point with its phases, the seconds each of its loops is timed in all; then what came of it."""

    point: Point
    phases: Sequence[str]
    seconds: float
    patience_s: float = 300.0
    trace: bool = False  # its memory: bytes are exact, once is enough
    input_sets: int = 1  # copies of the problem that a block of steps goes through
    wall_s: float = 0.0
    traced_s: float = 0.0
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # by phase
    error: CellFailed | WorkerFailed | None = None

    @property
    def visits(self) -> int:
        """How often it is visited."""
        return max(1, min(MOST, int(self.seconds / LEAST_S)))

    @property
    def disturbed(self) -> bool:
        """Whether it lacks quiet rounds."""
        counts = [(rounds["quiet"], len(rounds["seconds"])) for rounds in self.results.values()]
        return any(quiet < min(LEAST_QUIET, count / 2) for quiet, count in counts)


def measure(
    worker: WorkerProcess, tasks: Sequence[Task], rng: Random, watch: Callable[[int], None] = lambda i: None
) -> float | None:
    """Prepare and visit ``tasks`` one by one, then visit them again and again in shuffled order; those that were
    disturbed more often.  Returns the quiet level of the process (``bench.quiet``).

    A task that fails keeps its error, and the others go on; if the process dies, tasks keep the visits they had, and
    those without one keep the error.  ``watch`` is told the task at hand.
    """
    quiet_level: float | None = None
    try:
        for number in range(MOST):
            due = [i for i, task in enumerate(tasks) if not task.error and number < task.visits]
            for i in due if number == 0 else rng.sample(due, len(due)):
                watch(i)
                _visit(worker, i, tasks[i], number)
        _visit_again(worker, tasks, rng, watch)
        quiet_level = worker.ask({"op": "release"}, 60.0)["quiet_level"]
    except WorkerFailed as error:
        for task in tasks:
            if not task.results:
                task.error = task.error or error
    return quiet_level


def _visit_again(worker: WorkerProcess, tasks: Sequence[Task], rng: Random, watch: Callable[[int], None]) -> None:
    deadline = time.monotonic() + SHARE_AGAIN * sum(task.seconds for task in tasks)
    for number in range(MOST, MOST + MOST_AGAIN):
        due = [i for i, task in enumerate(tasks) if not task.error and task.disturbed]
        for i in rng.sample(due, len(due)):
            if time.monotonic() > deadline:
                return
            watch(i)
            _visit(worker, i, tasks[i], number)


def _visit(worker: WorkerProcess, i: int, task: Task, number: int) -> None:
    """One visit; raises WorkerFailed."""
    start = time.monotonic()
    share = task.seconds / task.visits
    try:
        if number == 0:
            prepared = worker.ask(preparation(i, task.point, task.phases, task.trace, task.input_sets), task.patience_s)
            first, task.traced_s = prepared["phases"], prepared["traced_s"]
        visited = worker.ask({"op": "visit", "key": i, "seconds": share, "patience_s": task.seconds}, task.patience_s)[
            "phases"
        ]
    except (CellFailed, WorkerFailed) as error:
        task.results, task.error = {}, error
        if isinstance(error, WorkerFailed):
            raise
        return
    finally:
        task.wall_s += time.monotonic() - start
    if number == 0:
        task.results = {phase: first[phase] | rounds for phase, rounds in visited.items()}
    else:
        for phase, rounds in visited.items():
            join(task.results[phase], rounds)


def preparation(key: int, point: Point, phases: Sequence[str], trace: bool, input_sets: int = 1) -> dict[str, Any]:
    """The request that has a worker prepare a point under ``key``."""
    network = point.network
    return {
        "op": "prepare",
        "key": key,
        "layers": network.layers,
        "activation": network.activation,
        "loss": network.loss,
        "optimizer": point.optimizer,
        "n": point.n,
        "phases": list(phases),
        "trace": trace,
        "input_sets": input_sets,
    }


def join(known: dict[str, Any], rounds: dict[str, Any]) -> None:
    """Add the rounds of a further visit, or turn, to those known."""
    known["seconds"] += rounds["seconds"]
    known["at_s"] += rounds["at_s"]
    known["dropped"] += rounds["dropped"]
    known["quiet"] += rounds["quiet"]
    for count in ("throttled", "throttled_kept"):
        known[count] = known.get(count, 0) + rounds.get(count, 0)
    for series in ("device_s", "clock_hz"):  # one a round, or nothing at all
        both = known.get(series), rounds.get(series)
        known[series] = [*both[0], *both[1]] if both[0] and both[1] else None
    celsius = [state["temperature_c"] for state in (known, rounds) if state.get("temperature_c") is not None]
    known["temperature_c"] = max(celsius, default=None)
    for kernel, times in known["reference_s"].items():
        times += rounds["reference_s"][kernel]
