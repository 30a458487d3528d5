"""The client of a fleet against workers that stutter, lose, lie and die; no Dask, no clock, nothing measured."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import backprop_bench
from backprop_files import UserError
from bench import plan
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


def go(
    fake: Fake, out: Path, settings: Settings = SETTINGS, grouped: subject.Grouped = subject.all_alike
) -> subject.Fleet:
    """A whole run."""
    requests = Requests.of(settings, "ab" * 8)
    with progress_bar(Console(quiet=True)) as progress:
        fleet = subject.Fleet(settings, fake, requests, 0.0, progress, grouped)  # type: ignore[arg-type]
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


def test_workers_are_asked_one_after_the_other_where_they_are_sent_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or five hundred copies of a data file would lie in the client's memory."""
    monkeypatch.setattr(subject, "ON_THE_WAY_BYTES", 1)
    monkeypatch.setattr(subject, "LOOK_S", 0.0)
    fake = Fake(3)
    at_once = []

    def twist(worker: str, token: str, lines: Lines) -> Lines:
        if token.startswith("survey"):
            at_once.append(sum(heard.token.startswith("survey") and heard.kind == "line" for heard in fake._heard))
        return lines

    fake._twist = twist
    go(fake, tmp_path)
    assert {worker for worker, _ in fake.asked} == set(fake.there) and at_once == [0] * 3
    assert cells(tmp_path) == WANTED


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


def test_where_nothing_can_be_measured_the_reason_is_told_and_the_exit_code_is_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake(4, lambda worker, token, lines: [{"end": True, "crashed": "no luck"}] if measures(token) else lines)
    monkeypatch.setattr(subject, "Connection", lambda where, run: contextlib.nullcontext(fake))
    asked = ["run", "--profile", "smoke", "--impls", "numpy", "--passes", "1", "--scheduler", "tcp://h:1"]
    done = CliRunner().invoke(backprop_bench.app, [*asked, "--wait", "0", "--out", str(tmp_path / "run")])
    assert done.exit_code == 3, done.output
    told = " ".join((done.output + capsys.readouterr().out).split())
    assert "given up after 3 attempts" in told and "no cell could be measured, so there is no report" in told


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


# --- a precision that is asked for -----------------------------------------------------------------------------------

PRECISE = Settings(profile="smoke", impls=("numpy",), passes=4, budget_s=1e6, precision=0.01)


def by_name(machines: Sequence[dict[str, Any]]) -> list[str]:
    """Every machine of a class of its own."""
    return [str(machine["node"]) for machine in machines]


def times(factor: Callable[[int], float]) -> Twist:
    """Times of w1 by so much longer, by how many jobs it has done."""
    done: Counter[str] = Counter()

    def twist(worker: str, token: str, lines: Lines) -> Lines:
        if worker != "tcp://w1:1" or not measures(token):
            return lines
        done[worker] += 1
        (cell,) = lines[0]["cells"]
        longer = [factor(done[worker]) * second for second in cell["seconds"]]
        return [{**lines[0], "cells": [{**cell, "seconds": longer}]}, *lines[1:]]

    return twist


def nodes_by_pass(out: Path) -> dict[int, str]:
    documents = [json.loads(path.read_text()) for path in out.glob("data/*.json")]
    return {doc["benchmarks"][0]["extra_info"]["pass"]: doc["machine_info"]["node"] for doc in documents}


def test_what_classes_differ_by_is_no_spread_and_asks_for_no_further_pass(tmp_path: Path) -> None:
    go(Fake(2, times(lambda job: 3.0)), tmp_path / "by-class", PRECISE, by_name)
    assert set(nodes_by_pass(tmp_path / "by-class")) == {1, 2, 3, 4}
    go(Fake(2, times(lambda job: 3.0)), tmp_path / "alike", PRECISE)
    assert max(nodes_by_pass(tmp_path / "alike")) > 4, "of machines that are alike it is spread"


def test_further_passes_go_to_the_class_that_needs_them_until_it_is_precise(tmp_path: Path) -> None:
    noisy = times(lambda job: 1.5 if job == 1 else 1.0)
    go(Fake(2, noisy), tmp_path, PRECISE, by_name)
    found = nodes_by_pass(tmp_path)
    assert {found[number] for number in (1, 2, 3, 4)} == {"w0:1", "w1:1"}
    assert {node for number, node in found.items() if number > 4} == {"w1:1"}
    assert len(found) == 4 + plan.MOST_EXTRA_PASSES


def test_a_run_that_is_precise_enough_is_not_measured_anew_when_it_is_resumed(tmp_path: Path) -> None:
    go(Fake(1), tmp_path, PRECISE, by_name)
    again = Fake(1)
    go(again, tmp_path, PRECISE, by_name)
    assert not again.asked
    narrower = Fake(1, lambda worker, token, lines: lines)
    spread = replace(PRECISE, passes=1)
    go(narrower, tmp_path / "one", spread, by_name)
    assert len(narrower.asked) == 2, "one pass tells nothing of its spread"


def test_a_further_pass_that_cannot_be_had_is_no_failure(tmp_path: Path) -> None:
    class Leaving(Fake):
        """Its second worker leaves once the passes that were asked for are measured."""

        def submit(self, token: str, worker: str, request: str) -> None:
            super().submit(token, worker, request)
            if len(self.asked) == 4:
                self.there.pop("tcp://w1:1", None)
                self._heard.append(Heard("workers"))

    fleet = go(Leaving(2, times(float)), tmp_path, PRECISE, by_name)
    assert set(nodes_by_pass(tmp_path)) >= {1, 2, 3, 4}
    assert not fleet.failed
