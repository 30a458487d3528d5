"""What workers answer is checked as files are; nothing of it is unpickled; what travels to them is whole."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analysis.load
from backprop_files import SCHEMA_VERSION, UserError
from bench import documents
from bench.fleet import guard, load, messages, scratch
from bench.fleet.connection import Where
from bench.fleet.dispatcher import Flight, Job, Worker
from bench.fleet.messages import BadAnswer, Requests
from bench.plan import Settings

GOOD = load.cell("numpy", 2)
NAME = GOOD["cell"]
OWN = Path(__file__).parent / "own_implementations"


def flight() -> Flight:
    cells = frozenset({NAME, "numpy cpu float32 other step"})
    return Flight("numpy-pass2-1", Job("numpy", 2, cells), Worker("w", "m", {"numpy": cells}), set(cells))


def line(**changes: Any) -> str:
    """A line of one cell; keys changed, of its ``extra_info`` where they start with ``info_``."""
    told = copy.deepcopy(GOOD)
    for key, value in changes.items():
        (told["extra_info"] if key.startswith("info_") else told)[key.removeprefix("info_")] = value
    return json.dumps({"schema_version": SCHEMA_VERSION, "cells": [told], "settled": [], "left_out": [], "failed": []})


def read(text: str) -> list[messages.Cell]:
    return messages.cells(messages.parse(text), flight(), threads=1)


def test_a_valid_cell_is_taken_as_it_is() -> None:
    (cell,) = read(line())
    assert (cell.name, cell.seconds) == (NAME, GOOD["seconds"])
    assert messages.name_of(cell.extra_info) == NAME


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "no JSON"),
        (line()[:-9], "no JSON"),
        (line(seconds=[float("nan")]), "NaN is not allowed"),
        (line(seconds=[float("inf")]), "Infinity is not allowed"),
        (line().replace("0.001,", "1e999,", 1), "not finite"),
        (line().replace("0.001,", f"1{'0' * 400},", 1), "more than 20 digits"),
        (line(seconds=[]), "has no times"),
        (line(seconds=[-1.0] * 8), "not positive"),
        (line(seconds=[0]), "not positive"),
        (line(seconds=["1"]), "not positive"),
        (line(seconds=[True]), "not positive"),
        (line(seconds=None), "not positive"),
        (line(info_reference_s={"product": [1e-4]}), "one time a round"),
        (line(info_reference_s=[]), "no object"),
        (line(info_n=0), "must be positive"),
        (line(info_n="64"), "no int"),
        (line(info_n=True), "no int"),
        (line(info_layers="64"), "no list"),
        (line(info_n=65), "of another cell"),
        (line(info_impl="torch"), "of another cell"),
        (line(info_threads=2), "of another cell"),
        (line(**{"info_pass": 1}), "of another cell"),
        (line(cell="numpy cpu float32 foreign step"), "was not asked for"),
        (line(cell="numpy cpu float32 other step"), "of another cell"),
        (line(cell=3), "without a name"),
        (line(info_schema_version=99), "schema 99"),
        (line(extra_info={}), "misses schema_version"),
        (line(extra_info=None), "no 'extra_info'"),
        (line(seconds=[1e308] * 8), "beyond any clock"),
        (line(seconds=[1e-320] * 8), "beyond any clock"),
        (line(info_layers=[64]), "two or more positive sizes"),
        (line(info_layers=[64, "10"]), "two or more positive sizes"),
        (line(info_operations={"forward": {"product": "many"}}), "no counts"),
        (line(info_operations={"forward": 3}), "no counts"),
        (line(info_device_s=["1"]), "device_s has times"),
        (line(info_clock_hz=[-1.0]), "clock_hz has times"),
        (line(info_throttled_rounds=-1), "no count"),
        (line(cell="\x1b]0;title\x07"), r"^cell '\]0;title' was not asked for"),
        (line(info_impl="\x1b[2J" + "x" * 9999), "of another cell"),
        (line().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 7', 1), "schema 7, this version"),
        (line().replace('"cells": [', '"cells": [null, '), "without a name"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(BadAnswer, match=words) as error:
        read(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


SURVEY = load.survey(["numpy", "torch"], "node-1")


def test_a_survey_tells_what_can_be_measured_there() -> None:
    found = messages.survey(SURVEY)
    assert found.node == "node-1"
    assert found.impls["numpy"].cells == {NAME}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.update(schema_version=2), "schema 2"),
        (lambda told: told["machine"].pop("node"), "does not name its machine"),
        (lambda told: told.update(impls=[]), "'impls' is no object"),
        (lambda told: told["impls"]["numpy"].update(cells=[["x"]]), "cannot be read"),
        (lambda told: told["impls"]["numpy"].update(cells=[]), "no usable cells"),
        (lambda told: told["impls"]["numpy"].update(label="torch cpu float32"), "no usable cells"),
        (lambda told: told["impls"]["numpy"].update(cold=[-1, 3]), "below 0"),
        (lambda told: told["impls"]["numpy"].update(cold=["nan", 3]), "below 0, or beyond"),
        (lambda told: told["impls"]["numpy"].update(cell_s="inf"), "below 0, or beyond"),
        (lambda told: told["impls"]["numpy"].update(warm=[1.0, "9" * 5000]), "cannot be read"),
        (lambda told: told["impls"]["numpy"].update(cells=[["x\x1b[2J", ["step"]]]), "no usable cells"),
        (lambda told: told["machine"].update(node="a\nb"), "does not name its machine"),
        (lambda told: told["machine"].update(libraries=["numpy"]), "'libraries' is no object"),
        (lambda told: told.update(left_out="much"), "no list"),
    ],
)
def test_a_survey_that_is_none_is_refused(change: Callable[[dict[str, Any]], Any], words: str) -> None:
    told = copy.deepcopy(SURVEY)
    change(told)
    with pytest.raises(BadAnswer, match=words):
        messages.survey(told)


def test_a_survey_of_more_cells_than_there_can_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_CELLS", 0)
    with pytest.raises(BadAnswer, match="no usable cells"):
        messages.survey(SURVEY)


def test_what_a_terminal_would_obey_becomes_a_blank() -> None:
    hostile = "a\x1b[2Jb\r\nc\x9b0md\u202ee"
    assert messages.text(hostile) == "a [2Jb c 0md e"
    assert messages.texts([hostile, 3]) == ["a [2Jb c 0md e", "3"]
    (row,) = messages.rows([{"impl": hostile, "cell": hostile, "reason": hostile, "pass": True}])
    assert set(row.values()) == {"a [2Jb c 0md e"}


def test_what_is_taken_from_a_worker_a_report_can_be_made_of(tmp_path: Path) -> None:
    """Whatever passes here is read there: one check for both."""
    (cell,) = read(line())
    entry = documents.entry(f"{cell.name} pass=2", cell.group, cell.seconds, cell.extra_info)
    extra = {"schema_version": SCHEMA_VERSION, "run": {}, "left_out": [], "failed": [], "notes": []}
    (tmp_path / "a.json").write_text(json.dumps(documents.document([entry], SURVEY["machine"], {}, extra)))
    assert len(analysis.load.load([tmp_path / "a.json"]).entries) == 1


def test_reasons_are_text_of_bounded_length() -> None:
    (row,) = messages.rows([{"impl": "numpy", "cell": "c", "reason": "x" * 9999, "pass": 1, "more": {}}])
    assert row == {"impl": "numpy", "cell": "c", "reason": "x" * messages.MOST_TEXT, "pass": 1}
    assert messages.settled({"settled": [NAME, "foreign"]}, flight()) == [NAME]


# --- nothing is unpickled -------------------------------------------------------------------------------------------

LOADED: list[str] = []


class Hostile:
    """Whoever loads a pickle of it calls ``note``."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return note, ("loaded",)


def note(text: str) -> None:
    LOADED.append(text)


def test_while_the_guard_stands_no_pickle_that_names_anything_is_loaded() -> None:
    data = pickle.dumps(Hostile())
    LOADED.clear()
    with guard.nothing_unpickled():
        with pytest.raises(guard.Refused, match="note"):
            pickle.loads(data)
        with pytest.raises(guard.Refused):
            pickle._loads(data)  # type: ignore[attr-defined]  # the same in Python's own code
        with pytest.raises(guard.Refused):
            pickle.loads(b"cbuiltins\neval\n(V1+1\ntR.")
        with pytest.raises(guard.Refused):
            pickle.loads(b"cos\nsystem\n(Vtrue\ntR.")
        with pytest.raises(guard.Refused):
            pickle.loads(pickle.dumps(ModuleNotFoundError))
        assert pickle.loads(pickle.dumps({"a": [1, 2.5, "x"]})) == {"a": [1, 2.5, "x"]}, "plain data name nothing"
    assert not LOADED
    assert f"{__name__}.note" in guard.refused()
    pickle.loads(data)
    assert LOADED == ["loaded"], "without the guard it does harm: the test would see it"


def test_the_guard_stands_until_the_last_who_asked_for_it_is_gone() -> None:
    with guard.nothing_unpickled():
        with guard.nothing_unpickled():
            pass
        with pytest.raises(guard.Refused):
            pickle.loads(pickle.dumps(Hostile()))


# --- what travels ---------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_files_travel_with_their_digest_and_lie_where_settings_say(home: Path) -> None:
    rows = home / "rows.csv"
    rows.write_text("1,2\n")
    settings = Settings(own=(f"{OWN / 'good.py'}:Good",), data=str(rows))
    requests = Requests.of(settings, "ab" * 8)
    folder = scratch.Folder(requests.run)
    folder.keep(requests.files)
    (own,), data = requests.settings["own"], requests.settings["data"]
    assert str(OWN) not in json.dumps(requests.settings), "paths of this machine do not travel"
    placed = folder.located(own)
    assert placed.endswith("good.py:Good")
    assert Path(placed.removesuffix(":Good")).read_bytes() == (OWN / "good.py").read_bytes()
    assert Path(folder.located(data)).read_text() == "1,2\n"
    folder.remove()
    with pytest.raises(UserError, match="not on this machine any more"):
        folder.located(data)


def test_a_precision_is_the_clients_affair() -> None:
    """Further passes are jobs like others: a worker that planned some of its own would measure them twice."""
    assert Requests.of(Settings(precision=0.1), "ab" * 8).settings["precision"] is None


def test_a_file_that_is_too_large_or_absent_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_BYTES", 3)
    (home / "rows.csv").write_text("1,2\n")
    with pytest.raises(UserError, match=r"rows\.csv: 0 MiB, .* travel to workers at most"):
        Requests.of(Settings(data=str(home / "rows.csv")), "ab" * 8)
    with pytest.raises(UserError, match=r"gone\.py: cannot be read"):
        Requests.of(Settings(own=("gone.py:X",)), "ab" * 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../evil.py"}, "no plain name"),
        ({"name": ".hidden"}, "no plain name"),
        ({"sha256": "../../x"}, "no plain name"),
        ({"sha256": "0" * 64}, "did not arrive whole"),
        ({"data": base64.b64encode(zlib.compress(b"x" * 50)).decode()}, "did not arrive whole"),
    ],
)
def test_a_file_lands_nowhere_else_and_not_half(home: Path, change: dict[str, str], words: str) -> None:
    (home / "rows.csv").write_text("1,2\n")
    (file,) = Requests.of(Settings(data=str(home / "rows.csv")), "ab" * 8).files
    with pytest.raises(UserError, match=words):
        scratch.Folder("ab" * 8).keep([file | change])
    assert [path.name for path in home.rglob("*.*") if path.is_file()] == ["rows.csv"]


def test_a_bomb_is_not_unpacked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MOST_BYTES", 1000)
    bomb = base64.b64encode(zlib.compress(b"0" * 50_000_000)).decode()
    with pytest.raises(UserError, match="did not arrive whole"):
        scratch.Folder("ab" * 8).keep([{"sha256": "0" * 64, "name": "x.csv", "data": bomb}])


def test_a_folder_that_others_can_write_to_is_not_used(home: Path) -> None:
    scratch.home().chmod(0o777)
    with pytest.raises(UserError, match="others may write there"):
        scratch.home()
    with pytest.raises(UserError, match="no name of a run"):
        scratch.Folder("../x")


def test_what_jobs_learned_adds_up(home: Path) -> None:
    folder = scratch.Folder("ab" * 8)
    folder.keep(())
    folder.learn({"numpy cpu float32": {"startup_s": 1.0, "overhead_s": {"a": 0.1}, "quiet_level": 2.0}})
    folder.learn({"numpy cpu float32": {"startup_s": 1.5, "overhead_s": {"b": 0.2}}})
    assert folder.lessons() == {
        "numpy cpu float32": {"startup_s": 1.5, "overhead_s": {"a": 0.1, "b": 0.2}, "quiet_level": 2.0}
    }


# --- where to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Where("tcp://h:1", Path("s.json")), "give one of them"),
        (Where("nonsense"), "give tcp://HOST:PORT"),
        (Where("ftp://h:1"), "give tcp://HOST:PORT"),
        (Where("tls://h:1"), "needs --tls-ca, --tls-cert and --tls-key"),
        (Where("tls://h:1", tls_ca=Path(__file__)), "give all three"),
        (Where("tcp://h:1", None, Path(__file__), Path(__file__), Path(__file__)), "are for a scheduler at tls://"),
        (Where("tls://h:1", None, Path("gone.pem"), Path("gone.pem"), Path("gone.pem")), r"gone\.pem: no such file"),
        (Where(scheduler_file=Path("gone.json")), r"gone\.json: cannot be read"),
        (Where(scheduler_file=Path(__file__)), "names no 'address'"),
    ],
)
def test_a_scheduler_that_is_named_wrongly_is_one_line(where: Where, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        _ = where.address
    assert "\n" not in str(error.value)
