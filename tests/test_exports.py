"""Exports against the formats as their services publish them, and plain ``pytest-benchmark compare`` on our files."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from analysis import cells, exports, load
from backprop_files import UserError
from tests import planted
from tests.test_cli import ROOT, call, refused

#: Written from the README of benchmark-action/github-action-benchmark ("custom benchmarks": name, unit and value, optional
#: range and extra), and from its src/extractRangeInfo.ts: a range that is no ± and number is not converted with its value.
GAB_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "array",
    "minItems": 1,  # src/extract.ts: "No benchmark result was found"
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string", "minLength": 1},
            "value": {"type": "number", "exclusiveMinimum": 0},  # it divides by the previous value
            "range": {"type": "string", "pattern": r"^(\+-|±)\s*[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?$"},
            "extra": {"type": "string"},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}
#: The schema that bencher.dev/docs/reference/bencher-metric-format publishes (https://bencher.dev/bmf.json), and closed: the
#: lengths of names and slugs are from "Order of Precedence" there, the form of a slug is slugify's.
BMF_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"minLength": 1, "maxLength": 1024},
    "patternProperties": {
        ".+": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"maxLength": 64, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
            "patternProperties": {
                ".+": {
                    "type": "object",
                    "properties": {
                        "value": {"type": "number"},
                        "lower_value": {"type": "number"},
                        "upper_value": {"type": "number"},
                    },
                    "required": ["value"],
                    "additionalProperties": False,
                }
            },
        }
    },
}


def complaints(format_name: str, text: str) -> list[str]:
    """What a service would stumble over in an export; independent of the code that writes it."""
    document = json.loads(text, object_pairs_hook=_no_name_twice, parse_constant=lambda name: {"no number": name})
    schema = {"gab": GAB_SCHEMA, "bmf": BMF_SCHEMA}[format_name]
    validator = jsonschema.Draft7Validator(schema)
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    return found or (_gab_names(document) if format_name == "gab" else _bmf_order(document))


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), "an object has a name twice"
    return dict(pairs)


def _gab_names(document: list[dict[str, Any]]) -> list[str]:
    """Entries are found again by name alone."""
    names = [entry["name"] for entry in document]
    return [f"{name}: stands twice" for name in set(names) if names.count(name) > 1]


def _bmf_order(document: dict[str, Any]) -> list[str]:
    return [
        f"{name} {measure}: {ends}"
        for name, measures in document.items()
        for measure, ends in measures.items()
        if not ends.get("lower_value", ends["value"]) <= ends["value"] <= ends.get("upper_value", ends["value"])
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two implementations, steps and one other phase, memory told by one of them."""
    found = [
        *planted.entries(planted.additive, seed=1, peak_bytes=planted.arrays),
        *planted.entries(planted.additive, seed=1, phase="update", peak_bytes=planted.arrays),
        *planted.entries(planted.calls, seed=2, impl="torch"),
    ]
    return planted.write(tmp_path_factory.mktemp("run") / "x.json", found)


@pytest.mark.parametrize("format_name", exports.FORMATS)
@pytest.mark.parametrize("passes", [1, 3])
def test_exports_are_what_the_services_publish(format_name: str, passes: int, tmp_path: Path) -> None:
    few = planted.entries(planted.additive, seed=1, passes=passes, peak_bytes=planted.arrays)
    text = exports.export(planted.write(tmp_path / "x.json", few), format_name)
    assert complaints(format_name, text) == []
    assert ("lower_value" in text or "range" in text) is (passes > 1)  # one pass tells no interval


def test_values_are_those_of_the_cell_table(run: Path) -> None:
    table = cells.table(load.load([run]).entries)
    times = {exports.name_of(row): row for _, row in table.iterrows()}
    gab = {entry["name"]: entry for entry in json.loads(exports.export(run, "gab"))}
    bmf = json.loads(exports.export(run, "bmf"))
    assert set(bmf) == set(times)
    assert set(gab) == {*times, *(f"{name} peak memory" for name in bmf if "peak-memory" in bmf[name])}
    for name, row in times.items():
        latency = bmf[name]["latency"]
        for key, column in (("value", "time_s"), ("lower_value", "ci_low_s"), ("upper_value", "ci_high_s")):
            assert latency[key] == pytest.approx(1e9 * row[column], rel=1e-5)
        assert gab[name]["value"] == pytest.approx(1e3 * row["time_s"], rel=1e-5)
        half = float(gab[name]["range"].removeprefix("± "))
        assert half == pytest.approx(500 * (row["ci_high_s"] - row["ci_low_s"]), rel=1e-5)
        assert "3 passes, 24 rounds" in gab[name]["extra"]


def test_memory_is_told_once_a_step_and_where_it_is_known(run: Path) -> None:
    found = json.loads(exports.export(run, "bmf"))
    told = {name: measures["peak-memory"]["value"] for name, measures in found.items() if "peak-memory" in measures}
    assert {name.split()[0] for name in told} == {"numpy"}
    assert {name.split()[-1] for name in told} == {"step"}
    table = cells.table(load.load([run]).entries)
    expected = {exports.name_of(row): row["peak_bytes"] for _, row in table.iterrows()}
    assert all(value == expected[name] for name, value in told.items())


def test_names_do_not_depend_on_what_else_a_run_holds(run: Path, tmp_path: Path) -> None:
    alone = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=9, passes=2))
    names = set(json.loads(exports.export(alone, "bmf")))
    assert names < set(json.loads(exports.export(run, "bmf")))
    assert "numpy cpu float32 64-128-128-10 horner-1 mse n=256 step" in names


def test_cells_that_differ_in_what_is_usual_have_names_of_their_own(tmp_path: Path) -> None:
    one = planted.entries(planted.additive, seed=1, passes=2)
    several = planted.entries(planted.additive, seed=2, passes=2)
    for entry in several:
        entry["extra_info"]["threads"] = 2
    text = exports.export(planted.write(tmp_path / "x.json", [*one, *several]), "gab")
    assert complaints("gab", text) == []
    assert sum(entry["name"].endswith(" threads=2") for entry in json.loads(text)) == len(one) // 2


def _planted_error(change: Callable[[Any], None]) -> Callable[[str], str]:
    def applied(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return applied


GAB_ERRORS = {
    "a number as text": lambda d: d[0].update(value=str(d[0]["value"])),
    "no unit": lambda d: d[0].pop("unit"),
    "a unit in the range": lambda d: d[0].update(range="± 1.2 ms"),
    "a range without ±": lambda d: d[0].update(range="1.2 to 1.3"),
    "two cells of one name": lambda d: d[1].update(name=d[0]["name"]),
    "not a number": lambda d: d[0].update(value=math.nan),
    "a time of nothing": lambda d: d[0].update(value=0),
    "nothing at all": lambda d: d.clear(),
}
BMF_ERRORS = {
    "no value": lambda d: _latency(d).pop("value"),
    "ends the wrong way round": lambda d: _latency(d).update(lower_value=2 * _latency(d)["value"]),
    "an end that is null": lambda d: _latency(d).update(upper_value=None),
    "a measure that is no slug": lambda d: next(iter(d.values())).update({"Peak Memory": {"value": 1.0}}),
    "a name too long": lambda d: d.update({"x" * 1025: {"latency": {"value": 1.0}}}),
    "a benchmark without measures": lambda d: d.update(bare={}),
    "nothing at all": lambda d: d.clear(),
}


def _latency(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(document.values()))["latency"]
    return found


@pytest.mark.parametrize(
    ("format_name", "error"),
    [*(("gab", error) for error in GAB_ERRORS), *(("bmf", error) for error in BMF_ERRORS)],
)
def test_the_check_sees_planted_errors(format_name: str, error: str, run: Path) -> None:
    change = {"gab": GAB_ERRORS, "bmf": BMF_ERRORS}[format_name][error]
    assert complaints(format_name, _planted_error(change)(exports.export(run, format_name)))


def test_a_name_too_long_for_bencher_is_refused(tmp_path: Path) -> None:
    deep = planted.entries(planted.additive, seed=1, passes=1)[:1]
    info = deep[0]["extra_info"]
    info["layers"] = [64, *[512] * 300, 10]
    path = planted.write(tmp_path / "x.json", deep)
    with pytest.raises(UserError, match="at most 1024 bytes"):
        exports.export(path, "bmf")
    assert complaints("gab", exports.export(path, "gab")) == []


def test_the_command_line_writes_a_file_or_standard_output(run: Path, tmp_path: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    printed = call("export", str(run), "--format", "gab", env=ascii_only)
    assert printed.returncode == 0, printed.stderr
    assert complaints("gab", printed.stdout) == []
    done = call("export", str(run), "--format", "gab", "--out", str(tmp_path / "new" / "gab.json"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "gab.json").read_text() == printed.stdout
    assert done.stdout == ""


def test_what_cannot_be_exported(run: Path, tmp_path: Path) -> None:
    empty = planted.write(tmp_path / "empty.json", [])
    (tmp_path / "none").mkdir()
    (tmp_path / "file").write_text("")
    for format_name in exports.FORMATS:
        refused(call("export", str(empty), "--format", format_name), "empty.json", "no benchmark in it")
    refused(call("export", str(tmp_path / "none"), "--format", "gab"), "is it a run directory?")
    refused(call("export", str(run), "--format", "bfm"), "unknown format 'bfm'", "did you mean 'bmf'")
    refused(call("export", str(run), "--format", "gab", "--out", str(tmp_path / "file" / "x")), "cannot write")
    assert list(tmp_path.glob("*.part")) == []


# --- pytest-benchmark's own tools -----------------------------------------------------------------------------------


def compared(target: Path, *arguments: str) -> list[dict[str, str]]:
    """Rows of ``pytest-benchmark compare`` as its own CSV."""
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *arguments, "--csv", str(target / "rows")]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with (target / "rows.csv").open() as file:
        return list(csv.DictReader(file))


def test_pytest_benchmark_compares_two_runs(tmp_path: Path) -> None:
    options = ["--profile", "smoke", "--impls", "numpy", "--phases", "step", "--passes", "1", "--cell-seconds", "0.02"]
    runs = [tmp_path / "before", tmp_path / "after"]
    for directory in runs:
        done = call("run", *options, "--budget", "20", "--out", str(directory))
        assert done.returncode == 0, done.stderr
    files = [str(path) for directory in runs for path in sorted(directory.glob("data/*.json"))]
    rows = compared(tmp_path, *files, "--group-by", "fullname", "--columns", "min,median,rounds,iterations")
    documents = [json.loads(Path(path).read_text()) for path in files]
    medians = sorted(entry["stats"]["median"] for document in documents for entry in document["benchmarks"])
    assert sorted(float(row["median"]) for row in rows) == pytest.approx(medians)
    names = [row["name"] for row in rows]
    assert {names.count(name) for name in names} == {2}  # what is compared by name is found in both
    for directory in runs:
        for format_name in exports.FORMATS:
            assert complaints(format_name, exports.export(directory, format_name)) == []


def test_cells_keep_their_names_however_deep_the_network() -> None:
    command = [sys.executable, "-m", "pytest", "--benchmark-only", "--collect-only", "-q", "-p", "no:cacheprovider"]
    options = ["--profile", "full", "--impls", "numpy"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)
    names = re.findall(r"test_cell\[(.*)\]", done.stdout)
    assert max(map(len, names)) > 100
    assert all(name.startswith("numpy cpu float32 ") and re.search(r" pass=\d+$", name) for name in names)
