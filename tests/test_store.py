"""Run directories: every finished cell survives, none counts twice, nothing is half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backprop_files import UserError, write_json, write_whole
from bench.plan import Settings
from bench.run import claimed
from bench.store import Store


def document(cell: str, impl: str = "numpy", number: int = 1) -> dict[str, Any]:
    entry = {"params": {"cell": cell}, "extra_info": {"impl": impl, "pass": number}, "stats": {"median": 1.0}}
    return {"machine_info": {}, "benchmarks": [entry], "backprop_bench": {"schema_version": 1}}


def cells(path: Path) -> list[str]:
    return sorted(entry["params"]["cell"] for entry in json.loads(path.read_text())["benchmarks"])


def test_finished_cells_are_found_gathered_and_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, number in (("a", 1), ("b", 1), ("c", 2)):
        store.keep(name, document(name, number=number))
    assert store.finished() == {"a", "b", "c"}
    store.merge({"schema_version": 1, "left_out": []})
    assert [path.name for path in store.paths()] == ["numpy-pass1.json", "numpy-pass2.json"]
    assert cells(tmp_path / "data" / "numpy-pass1.json") == ["a", "b"]
    later = Store(tmp_path)
    later.keep("d", document("d"))
    later.merge({"schema_version": 1})
    assert cells(tmp_path / "data" / "numpy-pass1.json") == ["a", "b", "d"]
    assert later.finished() == {"a", "b", "c", "d"}


def test_a_cut_off_file_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("a", document("a"))
    (store.cells / "torn.json").write_text('{"benchmarks": [{"par')
    assert store.finished() == {"a"}


def test_a_crash_between_gathering_and_dropping_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.keep("a", document("a"))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.merge({"schema_version": 1})
    monkeypatch.undo()
    again = Store(tmp_path)
    assert again.finished() == {"a"}
    again.merge({"schema_version": 1})
    assert cells(tmp_path / "data" / "numpy-pass1.json") == ["a"]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.json"
    write_json(target, {"old": 1})
    with pytest.raises(ValueError, match=r"Out of range|not JSON"):
        write_json(target, {"new": float("nan")})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"x\.json: No space left"):
        write_whole(target, "new")
    assert json.loads(target.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Store(tmp_path / "file")


def test_each_machine_keeps_its_own_facts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for cell, node in (("a", "one"), ("b", "two"), ("c", "one"), ("d", "../two")):
        store.keep(cell, document(cell) | {"machine_info": {"node": node}})
    store.merge({"schema_version": 1})
    found = {json.loads(path.read_text())["machine_info"]["node"]: cells(path) for path in store.paths()}
    assert found == {"one": ["a", "c"], "two": ["b"], "../two": ["d"]}
    assert all(path.parent == tmp_path / "data" for path in store.paths())
    store = Store(tmp_path)
    loose = [store.keep(cell, document(cell) | {"machine_info": {"node": "one"}}) for cell in ("e", "f")]
    store.merge({"schema_version": 1}, loose[:1])
    assert store.finished() == set("abcdef")
    assert [path for path in store.paths() if path.parent == store.cells] == loose[1:]


def test_a_second_run_leaves_the_settings_of_the_first_as_they_are(tmp_path: Path) -> None:
    """While one is at work, and before it has finished a cell."""
    first, second = Settings(seed=1), Settings(seed=2)
    refused = pytest.raises(UserError, match="another run is writing there")
    with claimed(first, tmp_path, False), refused, claimed(second, tmp_path, False):
        pass
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 1
    with claimed(first, tmp_path, True):
        pass


def test_a_resume_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume there"), claimed(Settings(), tmp_path / "no", True):
        pass
    assert not (tmp_path / "no").exists()
