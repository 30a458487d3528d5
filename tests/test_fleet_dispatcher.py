"""The dispatcher of a fleet, without Dask: whatever workers do, every cell ends exactly once, with a reason if unmeasured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from bench.fleet import dispatcher as subject
from bench.fleet import shares
from bench.fleet.dispatcher import Dispatcher, Flight, Job, Worker
from bench.fleet.shares import Need

CELLS = {impl: frozenset(f"{impl} cpu float32 {i} step" for i in range(count)) for impl, count in
         (("numpy", 5), ("torch", 7), ("jax", 3))}  # fmt: skip


def jobs(passes: int = 2, cells: dict[str, frozenset[str]] | None = None) -> list[Job]:
    return [
        Job(impl, number, found, order)
        for number in range(1, passes + 1)
        for order, (impl, found) in enumerate((cells or CELLS).items())
    ]


def worker(name: str = "w", machine: str = "a", able: dict[str, frozenset[str]] | None = None) -> Worker:
    return Worker(name, machine, CELLS if able is None else able)


def filled(*workers: Worker, passes: int = 2) -> Dispatcher:
    found = Dispatcher()
    found.add(jobs(passes))
    for one in workers:
        found.join(one)
    return found


def do_all(fleet: Dispatcher, flight: Flight) -> None:
    for cell in sorted(flight.job.cells):
        assert fleet.deliver(flight.token, cell)
    fleet.end(flight.token)


def test_a_machine_measures_one_job_at_a_time_however_many_workers_it_has() -> None:
    fleet = filled(worker("w1", "a"), worker("w2", "a"), worker("w3", "b"))
    first = list(fleet.assign())
    assert sorted(flight.worker.machine for flight in first) == ["a", "b"]
    assert not list(fleet.assign())
    do_all(fleet, first[0])
    assert [flight.worker.machine for flight in fleet.assign()] == [first[0].worker.machine]


def test_the_earlier_pass_goes_first_and_machines_take_turns_at_implementations() -> None:
    fleet = filled(worker("w1", "a"), passes=2)
    order = []
    while not fleet.over:
        (flight,) = fleet.assign()
        order.append((flight.job.number, flight.job.impl))
        do_all(fleet, flight)
    assert order == [(number, impl) for number in (1, 2) for impl in CELLS]
    two = filled(worker("w1", "a"), worker("w2", "b"), passes=2)
    seen: Counter[tuple[str, str]] = Counter()
    while not two.over:
        for flight in list(two.assign()):
            seen[flight.worker.machine, flight.job.impl] += 1
            do_all(two, flight)
    assert set(seen.values()) == {1}, "each machine has each implementation once in two passes"


def test_a_worker_that_dies_loses_only_what_had_not_come() -> None:
    fleet = filled(worker("w1", "a"), worker("w2", "b"))
    first, _ = fleet.assign()
    came = sorted(first.job.cells)[:2]
    for cell in came:
        assert fleet.deliver(first.token, cell)
    assert fleet.leave(first.worker.name, "it died") is first
    assert not fleet.deliver(first.token, sorted(first.job.cells)[2]), "nothing is heard of the dead"
    again = next(job for job in fleet.waiting() if job.attempts)
    assert again.cells == first.job.cells - set(came)
    assert (again.impl, again.number) == (first.job.impl, first.job.number)


def test_a_job_that_every_worker_dies_of_is_given_up_with_its_reasons() -> None:
    fleet = Dispatcher()
    fleet.add([Job("numpy", 1, CELLS["numpy"])])
    for i in range(subject.MOST_ATTEMPTS):
        fleet.join(worker(f"w{i}", "a"))
        (flight,) = fleet.assign()
        fleet.leave(flight.worker.name, f"w{i} died")
    (gone,) = fleet.given_up
    assert gone.cells == CELLS["numpy"]
    assert "w0 died; w1 died; w2 died" in gone.reason
    assert fleet.over and fleet.settled == len(CELLS["numpy"])


def test_cells_that_never_came_are_asked_for_again_although_the_job_said_it_was_done() -> None:
    fleet = filled(worker())
    (flight,) = fleet.assign()
    cell = min(flight.job.cells)
    fleet.deliver(flight.token, cell)
    fleet.end(flight.token)
    assert next(job for job in fleet.waiting() if job.attempts).cells == flight.job.cells - {cell}


def test_a_cell_counts_once_and_only_where_it_was_asked_for() -> None:
    fleet = filled(worker())
    (flight,) = fleet.assign()
    cell = min(flight.job.cells)
    assert fleet.deliver(flight.token, cell)
    assert not fleet.deliver(flight.token, cell)
    assert not fleet.settle(flight.token, cell)
    assert not fleet.deliver(flight.token, "torch cpu float32 other step")
    assert not fleet.deliver("another", cell)
    assert fleet.delivered == 1


def test_a_worker_that_fails_job_after_job_gets_no_more_and_others_do_its_work() -> None:
    fleet = filled(worker("bad", "a"))
    for _ in range(subject.MOST_STRIKES):
        (flight,) = fleet.assign()
        fleet.end(flight.token, "its agent crashed")
    assert fleet.barred == {"bad": "its agent crashed"}
    assert not list(fleet.assign())
    fleet.join(worker("bad", "a"))
    assert not list(fleet.assign()), "barred it stays"
    fleet.join(worker("good", "b"))
    while flights := list(fleet.assign()):
        for flight in flights:
            do_all(fleet, flight)
    assert fleet.over
    assert fleet.delivered == 2 * sum(map(len, CELLS.values()))


def test_only_failures_in_a_row_count_and_cells_that_never_come_are_one() -> None:
    fleet = filled(worker(), passes=3)
    for failure in ("it crashed", "it crashed", None, "it crashed", "it crashed"):
        (flight,) = fleet.assign()
        if failure is None:
            do_all(fleet, flight)
        else:
            fleet.end(flight.token, failure)
    assert not fleet.barred
    (flight,) = fleet.assign()
    fleet.end(flight.token)
    assert fleet.barred == {"w": "some of its cells never came"}


def test_an_earlier_pass_goes_before_what_the_machine_did_less_often() -> None:
    fleet = filled(worker(able={"numpy": CELLS["numpy"]}))
    while flights := list(fleet.assign()):
        do_all(fleet, flights[0])
    fleet.join(worker("w2"))
    fleet.add([Job("numpy", 1, CELLS["numpy"])])
    fleet.abandon([job for job in fleet.waiting() if job.impl != "numpy" and job.number == 1], "not now")
    (flight,) = fleet.assign()
    assert (flight.job.impl, flight.job.number) == ("numpy", 1), "although it did numpy twice, and the others never"


def test_within_a_pass_the_shuffled_order_holds() -> None:
    fleet = Dispatcher()
    fleet.add([Job(impl, 1, found, -order) for order, (impl, found) in enumerate(CELLS.items())])
    fleet.join(worker())
    done = []
    while flights := list(fleet.assign()):
        done.append(flights[0].job.impl)
        do_all(fleet, flights[0])
    assert done == [*reversed(CELLS)]


def test_what_failed_is_tried_again_before_later_passes() -> None:
    fleet = filled(worker(able={"numpy": CELLS["numpy"]}), passes=3)
    (flight,) = fleet.assign()
    fleet.end(flight.token, "it crashed")
    (again,) = fleet.assign()
    assert again.job.number == 1 and again.job.attempts == ("it crashed",)


def test_jobs_go_where_the_library_is_and_are_stranded_where_it_is_nowhere() -> None:
    fleet = filled(worker("w1", "a", {"numpy": CELLS["numpy"]}), worker("w2", "b", {"torch": CELLS["torch"]}))
    while flights := list(fleet.assign()):
        for flight in flights:
            assert flight.job.impl in flight.worker.able
            do_all(fleet, flight)
    left = fleet.stranded()
    assert {job.impl for job in left} == {"jax"} and len(left) == 2
    fleet.abandon(left, "no worker has jax")
    assert fleet.over
    assert {gone.reason for gone in fleet.given_up} == {"no worker has jax"}


def test_who_can_do_all_of_a_job_gets_it_and_who_cannot_waits() -> None:
    small = frozenset(sorted(CELLS["torch"])[:3])
    fleet = Dispatcher()
    fleet.add([Job("torch", 1, CELLS["torch"])])
    fleet.join(worker("small", "a", {"torch": small}))
    fleet.join(worker("large", "b", {"torch": CELLS["torch"]}))
    (flight,) = fleet.assign()
    assert flight.worker.name == "large"
    fleet.leave("large", "it died")
    (flight,) = fleet.assign()
    assert flight.job.cells == small, "where the ablest is gone, the others do what they can"
    assert [job.cells for job in fleet.waiting()] == [CELLS["torch"] - small]


def test_a_job_for_one_class_of_machines_goes_to_no_other() -> None:
    fleet = Dispatcher()
    fleet.add([replace(job, kind="new") for job in jobs(passes=1)])
    fleet.join(replace(worker("w1", "a"), kind="old"))
    assert not list(fleet.assign())
    assert len(fleet.stranded()) == len(CELLS), "nobody here can do them"
    fleet.join(replace(worker("w2", "b"), kind="new"))
    assert fleet.kinds() == Counter(old=1, new=1)
    (flight,) = fleet.assign()
    assert flight.worker.name == "w2" and not fleet.stranded()
    fleet.leave("w2", "it died")
    assert next(job for job in fleet.waiting() if job.attempts).kind == "new", "nor does what it left behind"
    assert not list(fleet.assign())


@dataclass
class Chaos:
    """A fleet whose workers deliver, fail, lie, die and come back at random."""

    rng: Random
    fleet: Dispatcher = field(default_factory=Dispatcher)
    ends: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    born: int = 0

    def run(self) -> None:
        rng, fleet = self.rng, self.fleet
        fleet.add(jobs(4))
        for _ in range(rng.randint(1, 5)):
            self.join()
        for _ in range(5000):
            list(fleet.assign())
            assert len({flight.worker.machine for flight in fleet.flights.values()}) == len(fleet.flights)
            if fleet.over:
                return
            self.step()
            self.count_given_up()
            assert fleet.total == 4 * sum(map(len, CELLS.values()))
        raise AssertionError("it never ends")

    def join(self) -> None:
        able = {impl: frozenset(self.rng.sample(sorted(found), self.rng.choice((len(found), self.rng.randint(1, 2)))))
                for impl, found in CELLS.items() if self.rng.random() < 0.8}  # fmt: skip
        self.born += 1
        self.fleet.join(Worker(f"w{self.born}", f"m{self.rng.randint(1, 4)}", able))

    def step(self) -> None:
        rng, fleet = self.rng, self.fleet
        if not fleet.flights:
            self.join()
            if not fleet.workers or rng.random() < 0.1:
                fleet.abandon(fleet.stranded(), "nobody can")
            return
        flight = rng.choice(list(fleet.flights.values()))
        what = rng.random()
        if what < 0.6:
            self.answer(flight, rng.choice(sorted(CELLS[rng.choice(list(CELLS))])))
            if flight.missing:
                self.answer(flight, rng.choice(sorted(flight.missing)))
        elif what < 0.75:
            fleet.end(flight.token, rng.choice(("", "", "crashed")))
        elif what < 0.85:
            fleet.leave(flight.worker.name, "died")
        elif what < 0.9:
            self.join()

    def answer(self, flight: Flight, cell: str) -> None:
        take = self.fleet.deliver if self.rng.random() < 0.9 else self.fleet.settle
        if take(flight.token, cell):
            self.ends[flight.job.impl, flight.job.number, cell] += 1

    def count_given_up(self) -> None:
        for gone in self.fleet.given_up:
            assert gone.reason
            self.ends.update((gone.job.impl, gone.job.number, cell) for cell in gone.cells)
        self.fleet.given_up.clear()


WANTED = {(impl, number, cell) for impl, found in CELLS.items() for number in range(1, 5) for cell in found}


@pytest.mark.parametrize("seed", range(60))
def test_every_cell_ends_exactly_once_whatever_happens(seed: int) -> None:
    chaos = Chaos(Random(seed))
    chaos.run()
    assert chaos.ends == Counter(dict.fromkeys(WANTED, 1))
    assert chaos.fleet.delivered + chaos.fleet.settled == len(WANTED)


@pytest.mark.parametrize("error", ["not put back", "put back whole", "counted twice"])
def test_the_check_finds_planted_errors(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatcher that loses a dead worker's job, asks for what had come, or takes a cell twice does not pass."""
    land = Dispatcher._land

    def lose(self: Dispatcher, flight: Flight, failure: str) -> None:
        if error == "not put back":
            flight.missing.clear()
        else:
            flight.missing |= flight.job.cells
        land(self, flight, failure)

    if error == "counted twice":
        monkeypatch.setattr(Dispatcher, "_strike_off", lambda self, token, cell: token in self.flights)
    else:
        monkeypatch.setattr(Dispatcher, "_land", lose)
    found = 0
    for seed in range(8):
        chaos = Chaos(Random(seed))
        try:
            chaos.run()
            found += chaos.ends != Counter(dict.fromkeys(WANTED, 1))
        except AssertionError:
            found += 1
    assert found == 8


# --- shares of the budget -------------------------------------------------------------------------------------------

NEEDS = [Need(4.0, 20, 0.1), Need(1.0, 10, 0.1), Need(9.0, 40, 0.1)]


def spread(pool: float, needs: list[Need] = NEEDS) -> list[float]:
    """Shares given one after the other, each out of what is left."""
    given = []
    for i, need in enumerate(needs):
        overhead, _, timed = shares.total(needs[i:])
        given.append(shares.share_s(need, pool, overhead, timed))
        pool = max(0.0, pool - given[-1])
    return given


def test_with_time_enough_every_job_gets_at_least_what_it_wants() -> None:
    wants = [need.seconds for need in NEEDS]
    assert all(got >= want for got, want in zip(spread(2 * sum(wants)), wants, strict=True))
    assert spread(sum(wants)) == pytest.approx(wants)


def test_with_too_little_time_loops_are_cut_alike_and_overheads_are_paid() -> None:
    pool = sum(need.overhead_s for need in NEEDS) + 0.25 * sum(need.loops * need.cell_s for need in NEEDS)
    cut = [(got - need.overhead_s) / (need.loops * need.cell_s) for got, need in zip(spread(pool), NEEDS, strict=True)]
    assert cut == pytest.approx([0.25] * 3)
    assert sum(spread(pool)) == pytest.approx(pool)


def test_machines_share_the_clock_and_jobs_in_flight_keep_what_they_were_promised() -> None:
    assert shares.pool_s(10.0, 3, 12.0) == 18.0
    assert shares.pool_s(1.0, 3, 12.0) == 0.0
    assert spread(0.0) == [shares.LEAST_S] * 3
    assert Need(4.0, 20, 0.1).scaled(0.5) == Need(2.0, 10.0, 0.1)
