"""Files from elsewhere: what is whole and ours is read, everything else is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import cells, load
from backprop_files import UserError
from tests import planted
from tests.planted import Noise

Spoil = Callable[[dict[str, Any]], Any]


def entry(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["benchmarks"][3]
    return found


def info(**changes: Any) -> Spoil:
    return lambda d: entry(d)["extra_info"].update(changes)


def data(*values: Any) -> Spoil:
    return lambda d: entry(d)["stats"].update(data=list(values))


BAD: dict[str, tuple[Spoil, str]] = {
    "negative time": (data(1.0, -1.0), "benchmark 4: stats.data has times that are not positive"),
    "zero time": (data(0.0), "not positive"),
    "text for a time": (data("fast"), "not positive"),
    "no stats": (lambda d: entry(d).pop("stats"), "benchmark 4: has no 'stats'"),
    "no extra_info": (lambda d: entry(d).pop("extra_info"), "has no 'extra_info'"),
    "a key missing": (lambda d: entry(d)["extra_info"].pop("threads"), "misses threads"),
    "n of a wrong type": (info(n="many"), "n is 'many', which is no int"),
    "n is zero": (info(n=0), "n is 0; it must be positive"),
    "p below zero": (info(p=-1), "must not be negative"),
    "layers of one": (info(layers=[3]), "two or more positive sizes"),
    "reference is no object": (info(reference_s=[1.0]), "reference_s is no object"),
    "reference negative": (info(reference_s={"product": [-1.0]}), "reference_s.product"),
    "no counts": (info(operations={}), "operations have no counts|benchmark 4"),
    "another schema": (lambda d: d["backprop_bench"].update(schema_version=99), "has schema 99"),
    "another tool": (lambda d: d.pop("backprop_bench"), "comes from another tool"),
    "no list": (lambda d: d.update(benchmarks={}), "not a pytest-benchmark file"),
    "nothing measured": (lambda d: d.update(benchmarks=[]), "no benchmark in it"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_content_is_one_line_that_names_the_file(what: str, tmp_path: Path) -> None:
    spoil, words = BAD[what]
    document = planted.document(planted.entries(planted.additive, seed=1, passes=1))
    if what == "no counts":
        entry(document)["extra_info"]["phase"] = "forward"
    spoil(document)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=words) as caught:
        load.load([path])
    assert "spoilt.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("   \n", "is empty"),
        ('{"benchmarks": [{"stats', "is not whole JSON"),
        ("[1, 2]", "not a pytest-benchmark file"),
        ('{"benchmarks": [{"stats": {"data": [NaN]}}]}', "NaN is not allowed"),
        ('{"benchmarks": [{"stats": {"data": [Infinity]}}]}', "Infinity is not allowed"),
    ],
)
def test_text_that_is_no_file_of_ours(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load.load([path])
    assert "odd.json" in str(caught.value)


def test_absent_paths_and_empty_directories(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        load.load([tmp_path / "none.json"])
    with pytest.raises(UserError, match="is it a run directory"):
        load.load([tmp_path])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load.load([tmp_path / "binary.json"])


def test_machines_and_versions_are_not_mixed(tmp_path: Path) -> None:
    benchmarks = planted.entries(planted.additive, seed=1, passes=2)
    one = planted.write(tmp_path / "one.json", benchmarks[: len(benchmarks) // 2])
    document = planted.document(benchmarks[len(benchmarks) // 2 :])
    document["machine_info"]["libraries"] = {"numpy": "3"}
    two = tmp_path / "two.json"
    two.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"different machines: libraries is .*'2'.* and .*'3'"):
        load.load([one, two])


def test_a_run_that_was_cut_short_is_read_with_a_note(tmp_path: Path) -> None:
    benchmarks = planted.entries(planted.additive, seed=1, passes=2)
    (tmp_path / "data" / "cells").mkdir(parents=True)
    planted.write(tmp_path / "data" / "numpy-pass1.json", benchmarks[: len(benchmarks) // 2])
    loose = benchmarks[len(benchmarks) // 2 :]
    planted.write(tmp_path / "data" / "cells" / "x.json", [*loose[:3], benchmarks[0]])  # one stands twice, the same
    (tmp_path / "data" / "cells" / ".y.json.abc.part").write_text('{"benchm')
    run = load.load([tmp_path])
    assert len(run.entries) == len(benchmarks) // 2 + 3
    assert any("cut short" in note for note in run.notes)


def test_two_runs_in_one_are_refused(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        planted.write(tmp_path / f"{name}.json", planted.entries(planted.additive, seed=seed, passes=1))
    with pytest.raises(UserError, match="stands twice with different times"):
        load.load([tmp_path / "a.json", tmp_path / "b.json"])


def test_normalising_removes_a_drift_that_the_reference_shares(tmp_path: Path) -> None:
    noise = Noise(between=0.005, within=0.005, drift=0.15)
    path = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=3, passes=4, noise=noise))
    entries = load.load([path]).entries
    spread = entries.assign(raw=np.log(entries["raw_s"]), normal=np.log(entries["time_s"]))
    by_cell = spread.groupby(["layers", "activation", "n"])[["raw", "normal"]].std().median()
    assert by_cell["raw"] > 0.1
    assert by_cell["normal"] < 0.01


def test_a_file_without_single_rounds_uses_its_median(tmp_path: Path) -> None:
    benchmarks = planted.entries(planted.additive, seed=3, passes=2)
    for benchmark in benchmarks:
        benchmark["stats"].pop("data")
    table = cells.table(load.load([planted.write(tmp_path / "x.json", benchmarks)]).entries)
    assert table["time_s"].to_numpy() == pytest.approx(table["raw_s"].to_numpy())
