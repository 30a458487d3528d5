"""Who measures what next: a state machine that knows neither Dask nor clocks.

A *job* is an implementation in one pass, with the cells that are still wanted.  A *worker* is on a machine and can measure some
cells of some implementations.  A machine measures one job at a time, however many workers it has: nothing else may
be measured beside it.  Every wanted cell ends exactly once: delivered, or settled with a reason.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

#: A job that as many workers died of, or could not do, is given up.
MOST_ATTEMPTS = 3
#: A worker that failed so many jobs in a row gets no more.
MOST_STRIKES = 3

Cells = frozenset[str]


@dataclass(frozen=True)
class Job:
    """Cells of one implementation to be measured in one pass, in one process on one machine."""

    impl: str
    number: int  # of the pass
    cells: Cells
    order: int = 0  # among those of a pass
    kind: str = ""  # of the machines that it is for; empty: any
    attempts: tuple[str, ...] = ()  # why each earlier one came to nothing


@dataclass(frozen=True)
class Worker:
    """Where jobs can be sent."""

    name: str
    machine: str
    able: Mapping[str, Cells]  # by implementation
    kind: str = ""  # the class of its machine


@dataclass
class Flight:
    """A job on its way, or under way."""

    token: str
    job: Job  # with the cells that this worker can measure
    worker: Worker
    missing: set[str]  # cells that did not come back yet
    share_s: float | None = None
    began_s: float = 0.0


@dataclass(frozen=True)
class GivenUp:
    """Cells that nobody will measure, and why."""

    job: Job
    cells: Cells
    reason: str


@dataclass
class Dispatcher:
    """Jobs waiting and in flight, workers, and what came of it all so far."""

    workers: dict[str, Worker] = field(default_factory=dict)
    flights: dict[str, Flight] = field(default_factory=dict)  # by token
    delivered: int = 0
    settled: int = 0
    given_up: list[GivenUp] = field(default_factory=list)  # not yet told
    barred: dict[str, str] = field(default_factory=dict)  # workers that failed too often, and why

    def __post_init__(self) -> None:
        self._waiting: dict[str, deque[Job]] = {}
        self.waiting_cells: Counter[tuple[str, bool]] = Counter()  # by implementation, and whether in the first pass
        self._idle: set[str] = set()  # machines
        self._on_machine: dict[str, dict[str, Worker]] = {}
        self._done: Counter[tuple[str, str]] = Counter()  # jobs by machine and implementation
        self._strikes: Counter[str] = Counter()
        self._most: dict[tuple[str, Cells, str], int] = {}  # of these cells, how many the ablest worker can measure
        self._serial = 0

    # --- jobs and workers come and go ---------------------------------------------------------------------------

    def add(self, jobs: Iterable[Job]) -> None:
        """More to do."""
        for job in jobs:
            if job.cells:
                self._waiting.setdefault(job.impl, deque()).append(job)
                self._count_waiting(job, len(job.cells))

    def join(self, worker: Worker) -> None:
        """A worker more.  One that was barred stays so."""
        if worker.name in self.barred or worker.name in self.workers:
            return
        self.workers[worker.name] = worker
        self._on_machine.setdefault(worker.machine, {})[worker.name] = worker
        self._most.clear()
        if not self._busy(worker.machine):
            self._idle.add(worker.machine)

    def leave(self, name: str, reason: str) -> Flight | None:
        """A worker less; the job it was at goes back to the front, without the cells that had come."""
        worker = self.workers.pop(name, None)
        if worker is None:
            return None
        beside = self._on_machine[worker.machine]
        del beside[name]
        self._most.clear()
        flight = next((f for f in self.flights.values() if f.worker is worker), None)
        if flight:
            self._land(flight, reason)
        if not beside:
            self._idle.discard(worker.machine)
            del self._on_machine[worker.machine]
        return flight

    # --- who does what ------------------------------------------------------------------------------------------

    def assign(self) -> Iterator[Flight]:
        """A job for every idle machine that some waiting job suits."""
        for machine in sorted(self._idle) if self.waits else ():
            for worker in self._on_machine[machine].values():
                if job := self._next_for(worker):
                    yield self._send(job, worker)
                    break

    def _next_for(self, worker: Worker) -> Job | None:
        """The earliest pass first; in it what this machine did least often, so that every machine gets some of everything."""
        found: list[tuple[tuple[int, int, int], Job]] = []
        for impl in worker.able:
            job = next((job for job in self._waiting.get(impl, ()) if self._suits(job, worker)), None)
            if job:
                found.append(((job.number, self._done[worker.machine, impl], job.order), job))
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _suits(self, job: Job, worker: Worker) -> bool:
        """Whether the worker can do of the job what anybody can: a pass of an implementation is one process, if it can be."""
        can = self._count(job, worker)
        return can > 0 and can == self._most_of(job)

    def _count(self, job: Job, worker: Worker) -> int:
        if job.kind not in ("", worker.kind):
            return 0
        able = worker.able.get(job.impl, frozenset())
        return len(job.cells) if job.cells is able else len(job.cells & able)

    def _most_of(self, job: Job) -> int:
        key = job.impl, job.cells, job.kind
        if key not in self._most:
            self._most[key] = max((self._count(job, worker) for worker in self.workers.values()), default=0)
        return self._most[key]

    def _send(self, job: Job, worker: Worker) -> Flight:
        waiting = self._waiting[job.impl]
        waiting.remove(job)  # the first, or nearly
        able = worker.able[job.impl]
        rest = job.cells - able
        if rest:
            waiting.appendleft(replace(job, cells=rest))
        part = replace(job, cells=job.cells & able) if rest else job
        self._count_waiting(part, -len(part.cells))
        self._serial += 1
        flight = Flight(f"{job.impl}-pass{job.number}-{self._serial}", part, worker, set(part.cells))
        self.flights[flight.token] = flight
        self._idle.discard(worker.machine)
        return flight

    # --- what comes back ----------------------------------------------------------------------------------------

    def deliver(self, token: str, cell: str) -> bool:
        """A cell was measured; false where it was not asked for there, or had come already."""
        if not self._strike_off(token, cell):
            return False
        self.delivered += 1
        return True

    def settle(self, token: str, cell: str) -> bool:
        """A cell will not be measured, for a reason that its worker told; false as in ``deliver``."""
        if not self._strike_off(token, cell):
            return False
        self.settled += 1
        return True

    def _strike_off(self, token: str, cell: str) -> bool:
        flight = self.flights.get(token)
        if flight is None or cell not in flight.missing:
            return False
        flight.missing.remove(cell)
        return True

    def end(self, token: str, failure: str = "") -> Flight | None:
        """A job came to its end.  What is still missing is asked for again; of whom failed too often nothing is asked."""
        flight = self.flights.get(token)
        if flight is None:
            return None
        name = flight.worker.name
        failed = failure or ("some of its cells never came" if flight.missing else "")
        self._strikes[name] = self._strikes[name] + 1 if failed else 0
        self._land(flight, failed)
        if self._strikes[name] >= MOST_STRIKES and name in self.workers:
            self.barred[name] = failed
            self.leave(name, failed)
        return flight

    def _land(self, flight: Flight, failure: str) -> None:
        job, machine = flight.job, flight.worker.machine
        del self.flights[flight.token]
        self._done[machine, job.impl] += 1
        if machine in self._on_machine:
            self._idle.add(machine)
        if not flight.missing:
            return
        attempts = (*job.attempts, failure)
        again = replace(job, cells=frozenset(flight.missing), attempts=attempts)
        if len(attempts) >= MOST_ATTEMPTS:
            self._give_up(again, f"given up after {len(attempts)} attempts: {'; '.join(dict.fromkeys(attempts))}")
            return
        self._waiting.setdefault(job.impl, deque()).appendleft(again)
        self._count_waiting(again, len(again.cells))

    def _give_up(self, job: Job, reason: str) -> None:
        self.given_up.append(GivenUp(job, job.cells, reason))
        self.settled += len(job.cells)

    def stranded(self) -> list[Job]:
        """Jobs that wait although no worker here can do any of their cells."""
        return [job for job in self.waiting() if not self._most_of(job)]

    def abandon(self, jobs: Collection[Job], reason: str) -> None:
        """Give up jobs that wait."""
        for job in jobs:
            self._waiting[job.impl].remove(job)
            self._count_waiting(job, -len(job.cells))
            self._give_up(job, reason)

    # --- how far it is ------------------------------------------------------------------------------------------

    def waiting(self) -> Iterator[Job]:
        """All that wait."""
        for jobs in self._waiting.values():
            yield from jobs

    @property
    def waits(self) -> bool:
        """Whether any job waits."""
        return any(self.waiting_cells.values())

    @property
    def over(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self.flights and not self.waits

    @property
    def total(self) -> int:
        """Cells of all jobs there ever were."""
        missing = sum(len(flight.missing) for flight in self.flights.values())
        return self.delivered + self.settled + self.waiting_cells.total() + missing

    @property
    def machines(self) -> int:
        """Machines that measure."""
        return len(self._on_machine)

    def kinds(self) -> Counter[str]:
        """How many machines of each class there are."""
        return Counter(next(iter(workers.values())).kind for workers in self._on_machine.values())

    def _count_waiting(self, job: Job, count: int) -> None:
        self.waiting_cells[job.impl, job.number == 1] += count

    def did(self, machine: str, impl: str) -> bool:
        """Whether a machine has been at an implementation before."""
        return self._done[machine, impl] > 0

    def _busy(self, machine: str) -> bool:
        return any(flight.worker.machine == machine for flight in self.flights.values())
