"""The history: adding, order, joining, machine classes, the file's safety, the page, and the command line."""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
import os
import re
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import history, history_page, history_record, history_store, machines
from analysis.history_record import PRODUCTS, Commit, Group, Point
from analysis.page import bundle
from analysis.statistics import Interval
from backprop_files import UserError
from bench.profiles import Range
from tests import planted, planted_history
from tests.test_cli import call, refused

SMALL = Range(
    256,
    128,
    2,
    4,
    (16, 64, 256, 1024, 4096),
    (1, 2, 4),
    (32, 64, 128, 256),
    (1, 4, 16, 64),
    joint=4,
    heldout=3,
    functions=(),
)
STEP = Group("numpy", "cpu", "float32", 1, "step")
COMMIT = {"id": "a" * 40, "time": "2026-03-01T12:00:00+02:00", "branch": "main", "dirty": False, "project": "planted"}


def point(
    value: float, cell: str = "64-10 tanh n=64", group: Group = STEP, quantity: str = "time", **changed: Any
) -> Point:
    interval = Interval(value, value * 0.98, value * 1.02)
    return replace(
        Point(group, quantity, PRODUCTS, "examples", cell, interval, 3, value * 1e-4, value * 1e-4), **changed
    )


def fill(db: Path, values: list[float], **changed: Any) -> Path:
    """One cell over many commits."""
    for number, value in enumerate(values):
        history.add(db, planted_history.record(number, (point(value),), **changed))
    return db


def levels(*runs: tuple[int, float]) -> list[float]:
    rng = np.random.default_rng(0)
    return [level * math.exp(0.01 * rng.standard_normal()) for count, level in runs for _ in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as pytest-benchmark writes it, with a commit."""
    path = tmp_path_factory.mktemp("run") / "x.json"
    entries = planted.entries(planted.additive, seed=1, chosen=SMALL, rounds=5, peak_bytes=planted.arrays)
    path.write_text(json.dumps(planted.document(entries) | {"commit_info": COMMIT}))
    return path


@pytest.fixture
def stepped(tmp_path: Path) -> Path:
    return fill(tmp_path / "h.db", levels((20, 1.0), (20, 1.2)))


# --- a run as a record ----------------------------------------------------------------------------------------------


def test_a_run_becomes_cells_and_scaling(run: Path) -> None:
    record = history_record.record(run)
    assert record.commit == Commit("a" * 40, "2026-03-01T10:00:00Z", "main", False, "planted")
    assert record.libraries == {"numpy": "2"}
    by = {
        quantity: [p for p in record.points if p.quantity == quantity]
        for quantity in {p.quantity for p in record.points}
    }
    assert {
        "time",
        "peak memory",
        "winning law",
        "exponent of n",
        "exponent of m",
        "fixed overhead",
        "reference kernel",
    } <= set(by)
    for cell in by["time"]:
        assert cell.unit == PRODUCTS
        assert cell.interval.low < cell.interval.value < cell.interval.high
        assert cell.time_s == pytest.approx(cell.interval.value * 1e-4)  # the planted product takes 0.1 ms
        assert cell.passes == 3
    (n,) = (p for p in by["exponent of n"] if p.group.phase == "step")
    assert n.interval.value == pytest.approx(1.0, abs=0.1)
    (fixed,) = (p for p in by["fixed overhead"] if p.group.phase == "step")
    m = next(
        e["extra_info"]["m"] for e in json.loads(run.read_text())["benchmarks"] if "examples" in e["extra_info"]["axis"]
    )
    assert (
        fixed.interval.low <= (2e-5 + 1e-9 * m) / 1e-4 <= fixed.interval.high
    )  # along n: the update does not grow either
    assert {p.unit for p in by["fixed overhead"] if p.group.phase == "memory"} <= {"bytes"}
    assert all(p.text for p in by["winning law"])
    assert all(
        math.isnan(p.interval.value) or p.interval.value > 0 for p in record.points if "exponent" not in p.quantity
    )


@pytest.mark.parametrize(
    ("info", "options", "words"),
    [
        ({}, {}, ("does not tell its commit", "--commit")),
        ({"id": "unversioned", "time": None}, {}, ("does not tell its commit",)),
        ({}, {"commit_id": "abc"}, ("when abc was committed", "--commit-time")),
        (COMMIT, {"commit_id": "abc"}, ("when abc was committed",)),
        ({}, {"commit_id": "abc", "commit_time": "yesterday"}, ("'yesterday' is no time",)),
    ],
)
def test_a_run_without_commit_is_refused(
    info: dict[str, Any], options: dict[str, str], words: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "y.json"
    path.write_text(json.dumps(json.loads(run.read_text()) | {"commit_info": info}))
    with pytest.raises(UserError) as caught:
        history_record.record(path, **options)
    assert all(word in str(caught.value) for word in (str(path), *words))
    assert "\n" not in str(caught.value)


def test_a_commit_can_be_given(run: Path) -> None:
    record = history_record.record(run, "abc", "2026-01-01T00:00:00")
    assert record.commit == Commit("abc", "2026-01-01T00:00:00Z", "main", False, "planted")


def test_files_of_several_commits_need_one_to_be_named(run: Path, tmp_path: Path) -> None:
    whole = json.loads(run.read_text())
    parts = [[e for e in whole["benchmarks"] if (e["extra_info"]["pass"] == 1) is first] for first in (True, False)]
    for i, part in enumerate(parts):
        info = COMMIT | {"id": str(i) * 40}
        (tmp_path / f"{i}.json").write_text(json.dumps(whole | {"benchmarks": part, "commit_info": info}))
    with pytest.raises(UserError, match="several commits"):
        history_record.record(tmp_path)
    assert history_record.record(tmp_path, "1" * 40, "2026-01-01T00:00:00Z").commit.id == "1" * 40


def test_the_digest_is_of_measurements_and_not_of_files(run: Path, tmp_path: Path) -> None:
    whole = json.loads(run.read_text())
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        part = [e for e in whole["benchmarks"] if e["extra_info"]["pass"] == number]
        (tmp_path / "data" / f"numpy-pass{number}.json").write_text(json.dumps(whole | {"benchmarks": part}))
    assert history_record.record(tmp_path).digest == history_record.record(run).digest


def test_machine_classes() -> None:
    facts = {
        "cpu_model": "A",
        "cpu": {"count": 2},
        "affinity": [0, 1],
        "memory_bytes": 25 << 30,
        "system": "Linux",
        "machine": "x",
    }
    same = machines.machine_class(facts | {"memory_bytes": (25 << 30) + 4096, "release": "6.1", "node": "other"})
    assert machines.machine_class(facts) == same
    assert machines.machine_name(same) == "A, 2 cores, 25 GiB, Linux x"
    for change in (
        {"cpu_model": "B"},
        {"affinity": [0]},
        {"memory_bytes": 8 << 30},
        {"machine": "y"},
        {"accelerators": ["H"]},
    ):
        assert machines.machine_class(facts | change) != same
    machines.machine_name(machines.machine_class({}))


# --- adding and reading ---------------------------------------------------------------------------------------------


def test_the_same_run_twice_is_said_and_not_kept(tmp_path: Path) -> None:
    db, record = tmp_path / "h.db", planted_history.record(0, (point(1.0),))
    assert "added" in history.add(db, record)
    before = db.read_bytes()
    assert "in already" in history.add(db, record)
    assert db.read_bytes() == before
    other = replace(record, commit=replace(record.commit, id="other"))
    with pytest.raises(UserError, match="in already, as one of commit"):
        history.add(db, other)


def test_commits_stand_in_the_order_of_their_time(tmp_path: Path) -> None:
    for number in (3, 0, 2, 1):
        history.add(tmp_path / "h.db", planted_history.record(number, (point(1.0 + number),)))
    found = history.read(tmp_path / "h.db")
    (machine,) = found.machines.values()
    assert [commit.time for commit in machine.commits] == sorted(commit.time for commit in machine.commits)
    (series,) = found.series
    assert found.found[series.id]["value"] == 4.0
    assert found.found[series.id]["change"] == pytest.approx(1 / 3)


def test_a_step_is_told_with_its_commits_size_and_versions(tmp_path: Path) -> None:
    for number, value in enumerate(levels((20, 1.0), (20, 1.2))):
        libraries = {"numpy": "2.4.5" if number < 20 else "2.4.6"}
        history.add(tmp_path / "h.db", planted_history.record(number, (point(value),), libraries=libraries))
    found = history.read(tmp_path / "h.db")
    (series,) = found.series
    (step,) = found.found[series.id]["steps"]
    assert (step["last"]["commit"][:7], step["first"]["commit"][:7]) == ("0000013", "0000014")
    assert step["low"] <= 0.2 <= step["high"]
    assert step["versions"] == ["numpy 2.4.5 → 2.4.6"]
    assert "numpy 2.4.5 → 2.4.6" in history.told(series, found.found[series.id])


def test_commits_that_others_measured_widen_the_range(tmp_path: Path) -> None:
    other = point(1.0, group=Group("torch", "cpu", "float32", 1, "step"))
    for number, value in enumerate(levels((20, 1.0), (20, 1.2))):
        points = (other,) if 18 <= number < 22 else (point(value), other)
        history.add(tmp_path / "h.db", planted_history.record(number, points))
    found = history.read(tmp_path / "h.db")
    (step,) = found.found[found.series[0].id]["steps"]
    assert (step["last"]["commit"][:7], step["first"]["commit"][:7]) == ("0000011", "0000016")
    assert step["unmeasured"] == 4


def test_several_runs_of_a_commit_are_one_point(tmp_path: Path) -> None:
    db = tmp_path / "h.db"
    history.add(db, planted_history.record(0, (point(1.0, passes=1),)))
    history.add(db, planted_history.record(0, (point(1.1, passes=3),), digest="again"))
    found = history.read(db)
    (series,) = found.series
    assert found.found[series.id]["commits"] == 1
    assert found.found[series.id]["value"] == pytest.approx(1.1**0.75)
    (machine,) = found.machines.values()
    assert machine.commits[0].runs == 2


def test_runs_that_differ_widen_the_interval() -> None:
    ends = (np.array([0.99, 1.0]), np.array([1.01, 1.02]))
    alike = history.combined(np.array([1.0, 1.01]), *ends, np.array([1.0, 1.0]), True)
    apart = history.combined(
        np.array([1.0, 1.2]), np.array([0.99, 1.19]), np.array([1.01, 1.21]), np.array([1.0, 1.0]), True
    )
    assert alike[2] / alike[1] < 1.02
    assert apart[2] / apart[1] > 1.1


def test_a_tree_that_was_not_clean_is_a_point_of_its_own(tmp_path: Path) -> None:
    db, clean = tmp_path / "h.db", planted_history.record(0, (point(1.0),))
    history.add(db, clean)
    history.add(db, replace(clean, digest="dirty", commit=replace(clean.commit, dirty=True)))
    (machine,) = history.read(db).machines.values()
    assert [commit.short for commit in machine.commits] == ["0000000abc", "0000000abc+"]


def test_machine_classes_are_never_joined(tmp_path: Path) -> None:
    db = fill(tmp_path / "h.db", levels((20, 1.0)))
    big = planted_history.MACHINE | {"cores": 64}
    for number, value in enumerate(levels((20, 0.5)), start=20):
        history.add(db, planted_history.record(number, (point(value),), machine=big, machine_name="big"))
    found = history.read(db)
    assert len(found.series) == len(found.machines) == 2
    assert not any(found.found[one.id]["steps"] for one in found.series)
    (note,) = history.notes(found, found.series)
    assert "2 machine classes" in note
    assert len(history.select(found, machine="big")) == 1
    shown = call("history", "show", "--db", str(db)).stdout
    assert "2 machine classes" in shown
    assert "big" in shown
    history_page.write_page(db, tmp_path / "page.html")
    assert "2 machine classes" in (tmp_path / "page.html").read_text()


def test_a_law_that_changes_is_told(tmp_path: Path) -> None:
    for number, law in enumerate(["additive"] * 3 + ["n·m"] * 3):
        told = Point(STEP, "winning law", "", "", "", Interval(math.nan, math.nan, math.nan), 3, text=law)
        history.add(tmp_path / "h.db", planted_history.record(number, (told,)))
    found = history.read(tmp_path / "h.db")
    (series,) = found.series
    what = found.found[series.id]
    assert what["text"] == "n·m"
    assert [(s["from"], s["to"], s["at"]) for s in what["switches"]] == [("additive", "n·m", 3)]
    assert "from “additive” to “n·m”" in history.told(series, what)


def test_exponents_change_by_differences(tmp_path: Path) -> None:
    for number, value in enumerate([1.0] * 12 + [1.25] * 12):
        exponent = point(value + 0.001 * (number % 3), quantity="exponent of n", unit="", cell="")
        history.add(tmp_path / "h.db", planted_history.record(number, (exponent,)))
    found = history.read(tmp_path / "h.db")
    (step,) = found.found[found.series[0].id]["steps"]
    assert step["value"] == pytest.approx(0.25, abs=0.01)
    assert "+0.25" in history.told(found.series[0], found.found[found.series[0].id])


def test_what_was_found_is_kept_until_runs_are_added(stepped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = history.read(stepped)
    monkeypatch.setattr(history, "changes", lambda *_: pytest.fail("found anew"))
    assert history.read(stepped).found == first.found
    monkeypatch.undo()
    history.add(stepped, planted_history.record(40, (point(1.2),)))
    again = history.read(stepped)
    assert again.found[1]["commits"] == 41
    monkeypatch.setattr(history, "DETECTOR", history.DETECTOR + 1)
    monkeypatch.setattr(history, "changes", lambda *_: {"anew": 1})
    assert history.read(stepped).found == {1: {"anew": 1}}


# --- the file -------------------------------------------------------------------------------------------------------


def test_one_file_is_left(stepped: Path) -> None:
    history.read(stepped)
    assert [path.name for path in stepped.parent.iterdir()] == [stepped.name]


def _write(db: str, first: int) -> None:
    for number in range(first, first + 25):
        history.add(Path(db), planted_history.record(number, tuple(point(1.0, cell=f"n={i}") for i in range(20))))


def test_two_writers_both_get_in(tmp_path: Path) -> None:
    db = tmp_path / "h.db"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(db), first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    (machine,) = history.read(db).machines.values()
    assert len(machine.commits) == 50
    with history_store.reading(db) as connection:
        assert connection.execute("SELECT count(*) FROM points").fetchone() == (1000,)
    assert [path.name for path in tmp_path.iterdir()] == ["h.db"]


def _die(db: str) -> None:
    with history_store.writing(Path(db)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # changed pages go to disk at once
        connection.execute("DELETE FROM points")
        connection.executemany(
            "INSERT INTO points (series, run, passes, text) VALUES (1, 1 + ?, 1, ?)",
            [(i, "x" * 900) for i in range(40)],
        )
        os._exit(1)


def test_a_writer_that_is_killed_leaves_what_was_there(stepped: Path) -> None:
    before = history.read(stepped).found
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(str(stepped),))
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert history.read(stepped).found == before
    history.add(stepped, planted_history.record(99, (point(1.0),)))


def _text(path: Path) -> None:
    path.write_text("commit,value\n" * 50)


def _foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE points (series INTEGER, run INTEGER)")
    connection.commit()
    connection.close()


def _newer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:64] = struct.pack(">I", history_store.SCHEMA_VERSION + 1)
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scrambled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096 + 100, len(data), 512):
        data[at : at + 64] = bytes(255 - b for b in data[at : at + 64])
    path.write_bytes(data)


def _trigger(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER quiet AFTER INSERT ON runs BEGIN DELETE FROM points; END")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_text, "no SQLite database"),
        (_foreign, "another application"),
        (_newer, "schema 2, this version reads 1"),
        (_cut, "damaged"),
        (_scrambled, "damaged"),
        (_trigger, "other tables"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_file_that_is_no_whole_history_is_refused_and_untouched(
    spoil: Callable[[Path], None], words: str, stepped: Path
) -> None:
    spoil(stepped)
    before = stepped.read_bytes()
    attempts: list[Callable[[], Any]] = [
        lambda: history.add(stepped, planted_history.record(99, (point(1.0),))),
        lambda: history.read(stepped),
        lambda: history.export(stepped, "csv"),
        lambda: history_page.write_page(stepped, stepped.with_name("page.html")),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match=words) as caught:
            attempt()
        assert str(stepped) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert stepped.read_bytes() == before
    assert [path.name for path in stepped.parent.iterdir()] == [stepped.name]


def test_every_damaged_byte_is_refused_or_harmless(stepped: Path) -> None:
    """Nothing but a UserError comes of a file with some bytes changed, wherever they are, and reading changes none."""
    whole, rng = stepped.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(whole)
        at = int(rng.integers(0, len(data) - 8))
        data[at : at + 8] = rng.bytes(8)
        stepped.write_bytes(data)
        for attempt in (lambda: history.export(stepped, "csv"), lambda: history.read(stepped)):
            try:
                attempt()
            except UserError as error:
                assert "\n" not in str(error)
                assert stepped.read_bytes() == bytes(data)


def test_an_empty_file_begins_a_history(tmp_path: Path) -> None:
    db = tmp_path / "h.db"
    db.touch()
    with pytest.raises(UserError, match="is empty"):
        history.read(db)
    assert db.stat().st_size == 0
    fill(db, [1.0])
    assert len(history.read(db).series) == 1


def test_no_file_and_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such history"):
        history.read(tmp_path / "absent.db")
    with history_store.writing(tmp_path / "h.db"):
        pass
    found = history.read(tmp_path / "h.db")
    with pytest.raises(UserError, match="no run yet"):
        history.select(found)


def test_a_file_that_cannot_be_written_can_be_read(stepped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        raise UserError(f"{path}: attempt to write a readonly database")

    monkeypatch.setattr(history_store, "writing", refuse)
    assert history.read(stepped).found[1]["steps"]


# --- choosing and telling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"impl": "numpi"}, "unknown impl 'numpi': did you mean 'numpy'?"),
        ({"phase": "stp"}, "unknown phase 'stp': did you mean 'step'?"),
        ({"cell": "64-1O"}, "unknown cell '64-1O': did you mean '64-10 tanh n=64'?"),
        ({"quantity": "tiem"}, "unknown quantity 'tiem': did you mean 'time'?"),
        ({"machine": "moon"}, "unknown machine 'moon': known: "),
    ],
)
def test_unknown_names_are_told_with_the_nearest(options: dict[str, str], words: str, stepped: Path) -> None:
    with pytest.raises(UserError) as caught:
        history.select(history.read(stepped), **options)
    assert words in str(caught.value)


def test_series_with_steps_come_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        points = tuple(
            point((1.2 if cell == "b" and number >= 20 else 1.0) * math.exp(0.01 * rng.standard_normal()), cell=cell)
            for cell in ("a", "b", "c")
        )
        history.add(tmp_path / "h.db", planted_history.record(number, points))
    found = history.read(tmp_path / "h.db")
    assert history.ranked(found, found.series)[0].cell == "b"


def test_the_long_table_has_stable_columns(stepped: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(history.export(stepped, "csv"))))
    assert tuple(rows[0]) == history.COLUMNS
    assert len(rows) == 40
    assert float(rows[0]["value"]) == pytest.approx(float(rows[0]["time_s"]) * 1e4)
    plain = json.loads(history.export(stepped, "json"))
    assert [row["commit"] for row in plain] == [row["commit"] for row in rows]
    assert plain[0]["libraries"] == {"numpy": "2.4.5"}
    with pytest.raises(UserError, match="choose csv or json"):
        history.export(stepped, "xml")


# --- the page -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements, what they would load, and the data within."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.data = ""
        self._within = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [str(found[key]) for key in ("src", "href") if key in found]
        self.handlers += [key for key in found if key.startswith("on")]
        self._within = found.get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._within = False

    def handle_data(self, data: str) -> None:
        if self._within:
            self.data += data


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&amp;{{ 7*7 }}"


def test_the_page_escapes_whatever_stands_in_the_file(tmp_path: Path) -> None:
    evil = Group(EVIL, EVIL, EVIL, 1, EVIL)
    for number, value in enumerate(levels((20, 1.0), (20, 1.3))):
        record = planted_history.record(number, (point(value, cell=EVIL, group=evil),), machine_name=EVIL)
        commit = replace(record.commit, id=f"{number:02d}{EVIL}", branch=EVIL)
        record = replace(record, commit=commit, libraries={EVIL: "1" if number < 20 else EVIL})
        history.add(tmp_path / "h.db", record)
    text = history_page.write_page(tmp_path / "h.db", tmp_path / "page.html", "https://example.org/a/b").read_text()
    page = Page(text)
    assert page.tags.count("script") == 3  # data, library, ours
    assert "img" not in page.tags
    assert page.handlers == []
    assert json.loads(page.data)["series"][0]["impl"] == EVIL
    assert all(link.startswith("#") for link in page.links)  # no address is made of an id like that
    assert "{{ 7*7 }}" in page.data


def test_the_page_is_self_contained_and_holds_every_series(stepped: Path) -> None:
    out = history_page.write_page(stepped, stepped.with_name("page.html"), "https://example.org/a/b.git")
    page = Page(out.read_text())
    assert {tag for tag in page.tags if tag in ("link", "iframe", "object", "img")} == set()
    commits = "https://example.org/a/b/commit/"
    assert all(link.startswith((commits, "#")) for link in page.links)
    data = json.loads(page.data)
    assert data["url"] == commits + "{id}"
    (series,) = data["series"]
    assert len(series["v"]) == len(series["e"]) == series["n"] == 40
    assert [step["at"] for step in series["steps"]] == [20]
    assert len(data["machines"][0]["commits"]) == 40
    ours = out.read_text().replace(bundle.library(), "")  # the library names its schemas by their addresses
    assert not re.search(r"https?://(?!example\.org)", ours)


@pytest.mark.parametrize(
    ("remote", "pattern"),
    [
        ("git@github.com:owner/name.git", "https://github.com/owner/name/commit/{id}"),
        ("ssh://git@gitlab.example.org:2222/group/name.git", "https://gitlab.example.org/group/name/-/commit/{id}"),
        ("https://user:secret@bitbucket.org/owner/name", "https://bitbucket.org/owner/name/commits/{id}"),
        ("https://example.org:8443/owner/name.git", "https://example.org:8443/owner/name/commit/{id}"),
        ("/srv/git/name.git", ""),
        ("file:///srv/git/name.git", ""),
    ],
)
def test_git_remotes_as_addresses(remote: str, pattern: str) -> None:
    assert history_page.browsable(remote) == pattern


@pytest.mark.parametrize("url", ["javascript:alert(1)", "example.org/a", "file:///etc", "https://"])
def test_addresses_that_are_none(url: str, stepped: Path) -> None:
    with pytest.raises(UserError, match="--repo-url"):
        history_page.write_page(stepped, stepped.with_name("page.html"), url)
    assert history_page.commit_pattern("https://x.org/view?c={id}") == "https://x.org/view?c={id}"


# --- the command line -----------------------------------------------------------------------------------------------


def test_add_show_export_and_page(run: Path, tmp_path: Path) -> None:
    db = tmp_path / "h.db"
    added = call("history", "add", str(run), "--db", str(db))
    assert added.returncode == 0, added.stderr
    assert "added commit aaaaaaaaaa" in added.stdout
    again = call("history", "add", str(run), "--db", str(db))
    assert again.returncode == 0
    assert "nothing was added" in again.stdout
    shown = call("history", "show", "--db", str(db), "--quantity", "exponents")
    assert shown.returncode == 0, shown.stderr
    assert "exponent of n" in shown.stdout
    found = json.loads(call("history", "show", "--db", str(db), "--limit", "0", "--json").stdout)
    assert {"time", "exponent of n", "winning law", "peak memory"} <= {one["quantity"] for one in found["series"]}
    exported = call("history", "export", "--db", str(db), "--format", "json")
    assert len(json.loads(exported.stdout)) == len(found["series"])
    page = call("history", "page", "--db", str(db), "--out", str(tmp_path / "p" / "page.html"))
    assert page.returncode == 0, page.stderr
    assert (tmp_path / "p" / "page.html").stat().st_size < 2 << 20
    refused(call("history", "show", "--db", str(db), "--impl", "numpi"), "numpi", "did you mean 'numpy'")
    refused(call("history", "show", "--db", str(tmp_path / "absent.db")), "no such history")
    refused(call("history", "add", str(tmp_path / "nothing"), "--db", str(tmp_path / "new.db")), "nothing")
    refused(call("history", "add", str(run), "--db", str(tmp_path)), "is a directory")
    assert not (tmp_path / "new.db").exists()
