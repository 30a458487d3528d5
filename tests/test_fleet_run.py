"""The client of a fleet against workers that stutter, lose, lie and die; no Dask, no clock, nothing measured."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backprop_files import UserError
from bench.fleet import load
from bench.fleet import run as subject
from bench.fleet.connection import Heard, Lost
from bench.fleet.dispatcher import Dispatcher
from bench.fleet.messages import Requests
from bench.plan import Settings
from bench.progress_bar import progress_bar
from bench.store import Store

IMPLS = ("numpy", "python", "torch")
SETTINGS = Settings(profile="smoke", impls=IMPLS, passes=3, budget_s=1e6)
Lines = list[dict[str, Any]]
Twist = Callable[[str, str, Lines], Lines]  # worker, token, what it would say -> what it says


class Fake:
    """In place of a connection: workers that answer at once, as the simulated ones of the load test, but for a twist."""

    address = "tcp://fake:1"

    def __init__(
        self, workers: int, twist: Twist = lambda worker, token, lines: lines, lost_after: int = 10**9
    ) -> None:
        self.there = {f"tcp://w{i}:1": {"measure": 1.0} for i in range(workers)}
        self.asked: list[tuple[str, str]] = []
        self._twist, self._lost_after = twist, lost_after
        self._heard: deque[Heard] = deque()

    def check(self) -> None:
        if len(self.asked) > self._lost_after:
            raise Lost("scheduler tcp://fake:1 is gone")

    def workers(self) -> dict[str, dict[str, float]]:
        return self.there

    def submit(self, token: str, worker: str, request: str) -> None:
        asked = json.loads(request)
        if asked["op"] == "measure":
            self.asked.append((worker, token))
        lines = self._twist(worker, token, load.answers(asked, worker.removeprefix("tcp://")))
        self._heard += [Heard("line", token, json.dumps(line)) for line in lines] + [Heard("end", token)]

    def drop(self, token: str) -> None:
        pass

    def heard(self, timeout_s: float) -> Iterator[Heard]:
        for _ in range(len(self._heard)):
            yield self._heard.popleft()


def go(fake: Fake, out: Path, settings: Settings = SETTINGS) -> subject.Fleet:
    """A whole run."""
    with progress_bar(Console(quiet=True)) as progress:
        fleet = subject.Fleet(settings, fake, Requests.of(settings, "ab" * 8), 0.0, progress)  # type: ignore[arg-type]
        fleet.gather_workers()
        fleet.measure_into(Store(out))
    return fleet


def cells(out: Path) -> Counter[str]:
    paths = [*out.glob("data/*.json"), *out.glob("data/cells/*.json")]
    return Counter(entry["params"]["cell"] for path in paths for entry in json.loads(path.read_text())["benchmarks"])


WANTED = Counter(f"{load.cell(impl, 1)['cell']} pass={number}" for impl in IMPLS for number in (1, 2, 3))


def measures(token: str) -> bool:
    return "-pass" in token


def test_all_is_measured_once_and_every_file_has_its_own_machine(tmp_path: Path) -> None:
    fake = Fake(3)
    fleet = go(fake, tmp_path)
    assert cells(tmp_path) == WANTED
    where = {token.rpartition("-")[0]: worker.removeprefix("tcp://") for worker, token in fake.asked}
    for path in tmp_path.glob("data/*.json"):
        assert json.loads(path.read_text())["machine_info"]["node"] == where[path.stem]
    assert len(set(where.values())) == 3
    assert not fleet.failed and not fleet.notes


def stutter(worker: str, token: str, lines: Lines) -> Lines:
    """Says everything about its cells twice."""
    return [lines[0], *lines] if measures(token) else lines


def test_what_is_said_twice_stands_once(tmp_path: Path) -> None:
    go(Fake(2, stutter), tmp_path)
    assert cells(tmp_path) == WANTED


def test_the_check_would_see_a_cell_that_is_stored_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = Dispatcher.deliver

    def careless(self: Dispatcher, token: str, cell: str) -> bool:
        deliver(self, token, cell)
        return True

    monkeypatch.setattr(Dispatcher, "deliver", careless)
    monkeypatch.setattr(Store, "merge", lambda self, extra, only=None: list(only or ()))
    go(Fake(2, stutter), tmp_path)
    assert max(cells(tmp_path).values()) == 2


@pytest.mark.parametrize("fault", ["cells that never come", "no JSON", "another schema", "a foreign cell", "a crash"])
def test_one_bad_worker_of_two_costs_nothing_but_is_named(fault: str, tmp_path: Path) -> None:
    def twist(worker: str, token: str, lines: Lines) -> Lines:
        if worker != "tcp://w0:1" or not measures(token):
            return lines
        cell = {**lines[0]["cells"][0], "cell": "numpy cpu float32 foreign step"}
        bad: dict[str, Lines] = {
            "cells that never come": lines[1:],
            "no JSON": [["?"], lines[1]],  # type: ignore[list-item]
            "another schema": [{**lines[0], "schema_version": 7}],
            "a foreign cell": [{**lines[0], "cells": [cell]}, lines[1]],
            "a crash": [{"end": True, "crashed": "its agent ended with code -11"}],
        }
        return bad[fault]

    fleet = go(Fake(2, twist), tmp_path)
    assert cells(tmp_path) == WANTED
    nodes = {json.loads(path.read_text())["machine_info"]["node"] for path in tmp_path.glob("data/*.json")}
    assert nodes == {"w1:1"}
    told = " ".join(fleet.notes)
    words = {"cells that never come": "never came", "no JSON": "no JSON object", "another schema": "schema 7, this version",
             "a foreign cell": "was not asked for", "a crash": "code -11"}  # fmt: skip
    assert "worker tcp://w0:1" in told and words[fault] in told


def test_what_nobody_answers_is_given_up_with_the_reason(tmp_path: Path) -> None:
    def twist(worker: str, token: str, lines: Lines) -> Lines:
        return lines if not token.startswith("torch-") else [{"end": True, "crashed": f"no torch for {worker}"}]

    fleet = go(Fake(4, twist), tmp_path)
    assert {name.split()[0] for name in cells(tmp_path)} == {"numpy", "python"}
    assert {row["impl"] for row in fleet.failed} == {"torch"} and len(fleet.failed) == 3
    assert "given up after 3 attempts" in fleet.failed[0]["reason"] and "no torch for" in fleet.failed[0]["reason"]
    written = [
        row for path in tmp_path.glob("data/*.json") for row in json.loads(path.read_text())["backprop_bench"]["failed"]
    ]
    assert written == fleet.failed


def test_without_a_scheduler_what_is_finished_stays_and_only_the_rest_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(subject.Interrupted, match=r"scheduler tcp://fake:1 is gone"):
        go(Fake(1, lost_after=3), tmp_path)
    before = cells(tmp_path)
    assert 0 < len(before) < len(WANTED)
    again = Fake(2)
    go(again, tmp_path)
    assert cells(tmp_path) == WANTED
    assert len(again.asked) == len(WANTED) - len(before)


def test_a_survey_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    def twist(worker: str, token: str, lines: Lines) -> Lines:
        return (
            [{**lines[0], "versions": {**lines[0]["versions"], "python": "3.9"}}] if worker == "tcp://w0:1" else lines
        )

    fleet = go(Fake(2, twist), tmp_path)
    assert cells(tmp_path) == WANTED
    (note,) = fleet.notes
    assert note.startswith("worker tcp://w0:1 is left out: python is 3.9 there and")
    with pytest.raises(UserError, match=r"no worker .* can be used: tcp://w0:1: python is 3\.9 there"):
        go(Fake(1, twist), tmp_path / "none")


def test_libraries_that_differ_are_told(tmp_path: Path) -> None:
    def twist(worker: str, token: str, lines: Lines) -> Lines:
        machine = {"node": worker, "libraries": {"numpy": "1.0" if worker == "tcp://w0:1" else "2.0"}}
        return [{**lines[0], "machine": machine}] if token.startswith("survey") else lines

    (note,) = go(Fake(2, twist), tmp_path).notes
    assert "libraries differ" in note and "numpy" in note


def test_the_budget_is_shared_by_machines_and_never_exceeds_what_is_left(tmp_path: Path) -> None:
    shares: list[float] = []

    class Watching(Fake):
        def submit(self, token: str, worker: str, request: str) -> None:
            job = json.loads(request).get("job")
            if job:
                shares.append(job["share_s"])
            super().submit(token, worker, request)

    settings = Settings(profile="smoke", impls=IMPLS, passes=3, budget_s=18.0)
    go(Watching(2), tmp_path, settings)
    assert len(shares) == 9
    # nine jobs alike, two machines: 2 * 18 s / 9 for the first, and all that is left at most
    assert shares[0] == pytest.approx(4.0, abs=0.2)
    assert max(shares) <= 18.0
