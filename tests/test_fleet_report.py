"""The report of several machines and classes: its pages, and what scripts may rely on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from analysis import fleet, load
from analysis.report import write_report
from analysis.statistics import Interval
from tests import planted
from tests.planted import Host
from tests.test_machines import EPYC, EVIL, SMALL, XEON

NUMBER = {"type": ["number", "null"]}
INTERVAL = {
    "type": "object",
    "required": ["value", "ci_low", "ci_high"],
    "properties": dict.fromkeys(("value", "ci_low", "ci_high"), NUMBER),
    "additionalProperties": False,
}
WORD = {"enum": ["supported", "refuted", "inconclusive"]}
MACHINE = {
    "type": "object",
    "required": ["machine", "machine_class", "device", "passes", "cells", "word", "sentence"],
    "properties": {
        "machine": {"type": "string"},
        "machine_class": {"type": "string", "pattern": "^[a-z0-9-]+$"},
        "device": {"type": "string"},
        "passes": {"type": "integer", "minimum": 1},
        "cells": {"type": "integer", "minimum": 1},
        **dict.fromkeys(("ceiling_flops", "bandwidth_bytes_per_s", "reference_s"), NUMBER),
        **dict.fromkeys(("normalised_ratio", "overall_ratio"), INTERVAL),
        "word": {"enum": ["disagrees", "slower overall", "faster overall", "agrees", "cannot tell", "alone"]},
        "sentence": {"type": "string"},
    },
    "additionalProperties": False,
}
#: What ``fits.json`` holds beside what it holds of one machine.
SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["schema_version", "run", "fits", "machine_classes", "machines"],
    "properties": {
        "fits": {"type": "array", "items": {"required": ["impl", "phase", "verdict", "exponents", "laws"]}},
        "machine_classes": {
            "type": "array",
            "minItems": 1,
            "items": {
                "required": ["slug", "id", "name", "facts"],
                "properties": {"slug": {"type": "string", "pattern": "^[a-z0-9-]+$"}, "facts": {"type": "object"}},
                "additionalProperties": {"type": "string"},
            },
        },
        "machines": {"type": "array", "items": MACHINE},
    },
}
SEVERAL: dict[str, Any] = {
    "required": ["joint", "joint_unit"],
    "properties": {
        "fits": {"items": {"required": ["machine_class"]}},
        "joint": {
            "type": "array",
            "minItems": 1,
            "items": {
                "required": ["impl", "device", "dtype", "phase", "machines", "verdict", "exponents", "winning_law"],
                "properties": {
                    "verdict": WORD,
                    "costs": {"items": {"required": ["unit"], "properties": {"references": INTERVAL}}},
                    "classes": {
                        "items": {
                            "required": ["machine_class", "cells", "word", "left_out_median", "joint_median"],
                            "properties": {"word": WORD, "left_out_median": NUMBER},
                        }
                    },
                },
            },
        },
    },
}
HOSTS = [
    Host("node1", (1, 2), facts=EPYC),
    Host("node2", (3, 4), slower=1.3, facts=EPYC),
    Host("node3", (5, 6), odd=1.25, facts=EPYC),
    Host("node4", (7, 8), facts=EPYC),
    Host(EVIL, (9, 10), slower=2.0, facts=XEON | {"cpu_model": EVIL}),
]


class Page(HTMLParser):
    """Tags, headings and links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.titles: list[str] = []
        self._heading = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._heading = tag in ("h1", "h2", "h3")
        self.links += [str(value) for key, value in attrs if key == "href"]

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.titles.append(data)
            self._heading = False


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    planted.fleet(folder, HOSTS, planted.additive, seed=1, process=0.005, chosen=SMALL)
    failed = [{"impl": EVIL[:40], "cell": EVIL[:40], "reason": "its worker died"}]
    planted.write(folder / "data" / "failed.json", [], failed=failed)
    return write_report([folder], folder / "out").parent


@pytest.fixture(scope="module")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    planted.fleet(folder, HOSTS[:4], planted.additive, seed=1, process=0.005, chosen=SMALL)
    return write_report([folder], folder / "out").parent


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "fits.json").read_text(), parse_constant=lambda _: pytest.fail("NaN"))
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_class_has_its_own_report_linked_from_the_page(several: Path) -> None:
    links = [link for link in Page(several / "report.html").links if link.startswith("classes/")]
    assert len(links) == 2
    for link in links:
        own = (several / link).parent
        names = {path.name for path in own.iterdir()}
        assert names == {"report.html", "report.md", "cells.csv", "fits.json", "figures"}
        assert own.resolve().is_relative_to(several.resolve())
        assert f"({link.replace('.html', '.md')})" in (several / "report.md").read_text()
    assert {path.name for path in several.iterdir()} == {
        "report.html", "report.md", "cells.csv", "fits.json", "figures", "classes",
    }  # fmt: skip


def test_the_page_tells_classes_joint_law_and_machines(several: Path) -> None:
    titles = Page(several / "report.html").titles
    assert titles[0] == "Does a step of backpropagation cost n·m·p on every machine?"
    assert {"Classes", "Verdicts, class by class", "One law for all classes", "Machines"} <= set(titles)
    text = (several / "report.md").read_text()
    assert "5 machines of 2 classes measured this sweep" in text
    assert "Growth in proportion to n·m·p is refuted on every class for numpy cpu float32" in text
    assert "one law holds for all of them" in text
    assert "2 machines stand out from their classes" in text
    assert "its worker died" in text
    assert "its worker died" in (several / "report.html").read_text()


def test_fits_json_keeps_its_contract_and_adds_to_it(several: Path, one_class: Path) -> None:
    whole, single = document(several), document(one_class)
    jsonschema.validate(whole, SCHEMA)
    jsonschema.validate(whole, SEVERAL)
    jsonschema.validate(single, SCHEMA)
    assert "joint" not in single
    slugs = {known["slug"] for known in whole["machine_classes"]}
    assert {fit["machine_class"] for fit in whole["fits"]} == slugs
    assert {machine["machine_class"] for machine in whole["machines"]} == slugs
    broken = json.loads(json.dumps(whole))
    broken["machines"][0]["word"] = "odd"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_cells_csv_tells_class_and_machines(several: Path, one_class: Path) -> None:
    found = rows(several)
    by_class = {row["machine_class"]: row["machines"] for row in found}
    assert set(by_class) == {known["slug"] for known in document(several)["machine_classes"]}
    assert by_class[next(slug for slug in by_class if slug.startswith("epyc"))] == "node1, node2, node3, node4"
    assert len(found) == 2 * len(rows(one_class))
    assert {row["machines"] for row in rows(one_class)} == {"node1, node2, node3, node4"}


def test_machines_of_one_class_get_a_section_in_the_usual_report(one_class: Path) -> None:
    titles = Page(one_class / "report.html").titles
    assert titles[0] == "Does a step of backpropagation cost n·m·p?"
    assert {"Machines", "Machines against their class"} <= set(titles)
    words = {machine["machine"]: machine["word"] for machine in document(one_class)["machines"]}
    assert words == {"node1": "agrees", "node2": "slower overall", "node3": "disagrees", "node4": "agrees"}
    assert not (one_class / "classes").exists()


def test_one_machine_is_reported_as_ever(tmp_path: Path) -> None:
    """Byte for byte, whatever it is called: neither section nor keys nor columns are added."""
    pages = []
    for name in ("", "node1"):
        benchmarks = planted.entries(planted.additive, seed=3, chosen=SMALL)
        content = planted.document(benchmarks)
        content["machine_info"] |= {"node": name} if name else {}
        folder = tmp_path / f"in-{name}"
        folder.mkdir()
        (folder / "x.json").write_text(json.dumps(content))
        out = write_report([folder / "x.json"], tmp_path / f"out-{name}").parent
        pages.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert pages[0] == pages[1]
    assert set(document(out)) == {"schema_version", "run", "fits"}
    assert not {"machine_class", "machines"} & set(rows(out)[0])
    assert "Machines" not in Page(out / "report.html").titles


def test_the_sentences_name_who_disagrees_and_how(several: Path) -> None:
    run = load.load([several.parent])
    told = fleet.named(fleet.machine_rows(run))
    assert len(told) == 2
    slow, odd = sorted(told)
    assert slow.startswith("node2 is 1.3")
    assert "in seconds, not in normalised time: everything there runs at another speed" in slow
    assert "matrix ceiling 0.77 of theirs, memory bandwidth 0.77" in slow
    assert odd.startswith("node3 is 1.2")
    assert "times slower than the 3 others of its class, in normalised time (matrix ceiling 1.00 of theirs)" in odd


def test_of_two_machines_both_are_named_in_one_sentence(tmp_path: Path) -> None:
    hosts = [Host("a", (1, 2, 3), facts=EPYC), Host("b", (4, 5, 6), odd=1.3, facts=EPYC)]
    planted.fleet(tmp_path, hosts, planted.additive, seed=2, impls=("numpy", "torch"), process=0.005, chosen=SMALL)
    found = fleet.machine_rows(load.load([tmp_path]))
    assert [row.word for row in found] == ["disagrees", "disagrees"]
    (sentence,) = fleet.named(found)
    assert sentence.startswith("b is 1.29 [1.29, 1.30] times slower than a, in normalised time")
    assert sentence.endswith("of two machines nobody can tell which is odd")


def test_a_class_of_which_half_disagree_falls_apart(tmp_path: Path) -> None:
    factors = (1.0, 1.0, 1.5, 2.0)
    hosts = [Host(f"m{i}", (2 * i + 1, 2 * i + 2), odd=f, facts=EPYC) for i, f in enumerate(factors)]
    planted.fleet(tmp_path, hosts, planted.additive, seed=2, impls=("numpy", "torch"), process=0.005, chosen=SMALL)
    told = fleet.named(fleet.machine_rows(load.load([tmp_path])))
    assert told[-1] == "2 of the 4 machines disagree: this class falls apart, no single machine is odd"


def test_hostile_names_are_text(several: Path) -> None:
    for path in [*several.rglob("*.html"), *several.rglob("*.md"), *several.rglob("*.svg")]:
        text = path.read_text().replace('<script>\n"use strict"', "").replace("<script>(() =>", "")  # the page's own
        assert "<script>" not in text, path
    assert "é" * 100 not in (several / "report.html").read_text()
    assert Page(several / "report.html").tags.count("script") == 1
    assert all(not link.startswith(("..", "/")) for link in Page(several / "report.html").links)


def test_without_reference_kernels_machines_are_compared_in_seconds(tmp_path: Path) -> None:
    hosts = [replace(host, facts=EPYC) for host in HOSTS[:3]]
    planted.fleet(tmp_path, hosts, planted.additive, seed=2, chosen=SMALL)
    for path in (tmp_path / "data").iterdir():
        content = json.loads(path.read_text())
        for benchmark in content["benchmarks"]:
            benchmark["extra_info"]["reference_s"] = {}
        path.write_text(json.dumps(content))
    found = fleet.machine_rows(load.load([tmp_path]))
    assert {row.normalised.word for row in found} == {"cannot tell"}
    assert all("no reference kernel" in row.normalised.why for row in found)
    write_report([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(("machines", "looks"), [(1, 0), (2, 2), (3, 6), (8, 16)])
def test_every_machine_is_looked_at_twice_but_two_are_one_ratio(machines: int, looks: int) -> None:
    assert fleet._looks(machines) == looks


def test_what_is_faster_is_told_by_the_inverse_ends_in_order() -> None:
    assert fleet._factor(Interval(0.8, 0.75, 0.85)) == "1.25 [1.18, 1.33] times faster"
    assert fleet._factor(Interval(1.25, 1.2, 1.3)) == "1.25 [1.20, 1.30] times slower"
