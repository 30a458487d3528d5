"""The report from files alone: contract, escaping, tiny and odd runs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis import figures
from analysis.page import write
from analysis.report import write_report
from backprop_files import UserError
from tests import planted
from tests.planted import Noise


class Links(HTMLParser):
    """Collects what a page would load, and the tags it has."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.loads += [str(found[key]) for key in ("src", "href") if key in found]
        if tag == "svg":
            self.alts.append(str(found.get("aria-label")))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    two = [
        *planted.entries(planted.additive, seed=1, peak_bytes=planted.arrays),
        *planted.entries(planted.calls, seed=2, impl="torch"),
        *(e for phase in ("forward", "loss", "backward", "update") for e in phase_entries(phase)),
    ]
    path = planted.write(folder / "x.json", two, notes=["rows repeat"], failed=[failure("jax", "killed by SIGKILL")])
    write_report([path], folder / "out")
    return folder / "out"


def phase_entries(phase: str) -> list[dict[str, Any]]:
    laws = {"loss": lambda f: 1e-6 + 1e-7 * f["n"], "update": lambda f: 1e-6 + 1e-9 * f["m"]}
    return planted.entries(laws.get(phase, planted.additive), seed=3, phase=phase)


def failure(impl: str, reason: str) -> dict[str, str]:
    return {"impl": impl, "cell": "64-10 tanh", "reason": reason}


def test_all_files_are_there(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {"report.html", "report.md", "cells.csv", "fits.json", "figures"}
    figures = {path.name for path in (written / "figures").iterdir()}
    keys = {"time", "exponents", "laws", "regimes", "memory", "ceiling", "fastest", "phases", "decisive", "timeline"}
    assert figures == {f"{key}.{kind}" for key in keys for kind in ("svg", "png")}
    assert sum(path.stat().st_size for path in written.rglob("*") if path.is_file()) < 4 << 20


def test_the_same_files_give_the_same_report(tmp_path: Path) -> None:
    source = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=3))
    pages = [write_report([source], tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_the_page_is_self_contained_and_described(written: Path) -> None:
    page = (written / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in links.loads)
    assert links.tags.count("script") == 3  # data, library, ours
    drawn_in_page = len(write.DRAWN_IN_PAGE)
    assert (
        len(links.alts) == len(figures.DRAWINGS) - 1 - drawn_in_page
    )  # where an accelerator wins is for runs with one
    assert all(len(alt) > 80 for alt in links.alts)
    assert "rows repeat" in page
    assert "killed by SIGKILL" in page


def test_fits_json_keeps_its_contract(written: Path) -> None:
    document = json.loads((written / "fits.json").read_text(), parse_constant=lambda _: pytest.fail("not strict JSON"))
    assert document["schema_version"] == 1
    assert {(fit["impl"], fit["phase"]) for fit in document["fits"]} == {
        ("torch", "step"),
        *(("numpy", phase) for phase in ("step", "forward", "loss", "backward", "update", "memory")),
    }
    for fit in document["fits"]:
        assert {"impl", "device", "dtype", "phase", "verdict", "reason", "exponents", "winning_law", "laws"} <= set(fit)
        assert fit["verdict"] in ("supported", "refuted", "inconclusive")
        for name in ("n", "m", "p"):
            assert {"value", "ci_low", "ci_high", "range_low", "range_high"} <= set(fit["exponents"][name])
        for law in fit["laws"]:
            assert {"name", "terms", "coefficients", "heldout_median", "heldout_p90"} <= set(law)
            assert len(law["terms"]) == len(law["coefficients"])
    verdicts = {fit["phase"]: fit["verdict"] for fit in document["fits"] if fit["impl"] == "numpy"}
    assert verdicts["loss"] == "supported"
    assert verdicts["update"] == "supported"
    assert verdicts["step"] == "refuted"


def test_cells_csv_has_a_row_a_cell(written: Path) -> None:
    with (written / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    document = json.loads((written.parent / "x.json").read_text())
    assert len(rows) == len(document["benchmarks"]) // 3
    columns = {
        "impl",
        "device",
        "dtype",
        "threads",
        "layers",
        "activation",
        "optimizer",
        "phase",
        "axis",
        "n",
        "m",
        "p",
    }
    columns |= {
        "u",
        "width",
        "depth",
        "time_s",
        "raw_s",
        "ci_low_s",
        "ci_high_s",
        "precision",
        "first_call_s",
        "peak_bytes",
    }
    assert columns <= set(rows[0])
    assert all(float(row["ci_low_s"]) <= float(row["time_s"]) <= float(row["ci_high_s"]) for row in rows)


def test_the_opening_says_what_the_fits_say(written: Path) -> None:
    text = (written / "report.md").read_text()
    assert "growth in proportion to n·m·p is refuted for numpy and torch" in text
    assert "| numpy | **refuted** |" in text


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    benchmarks = planted.entries(planted.additive, seed=1, passes=2)
    for benchmark in benchmarks:
        benchmark["extra_info"]["impl"] = evil
    path = planted.write(
        tmp_path / "x.json", benchmarks, notes=[evil], failed=[failure(evil, evil)], left_out=[failure(evil, evil)]
    )
    write_report([path], tmp_path / "out")
    assert evil not in (tmp_path / "out" / "report.html").read_text()
    assert evil not in (tmp_path / "out" / "report.md").read_text()
    for figure in (tmp_path / "out" / "figures").glob("*.svg"):
        assert evil not in figure.read_text()


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_tiny_runs_are_inconclusive_not_a_crash(keep: int, tmp_path: Path) -> None:
    benchmarks = planted.entries(planted.additive, seed=1, passes=1)[:keep]
    write_report([planted.write(tmp_path / "x.json", benchmarks)], tmp_path / "out")
    (fit,) = json.loads((tmp_path / "out" / "fits.json").read_text())["fits"]
    assert fit["verdict"] == "inconclusive"
    assert "because" in fit["reason"]


def test_several_dtypes_of_one_implementation_are_told_apart(tmp_path: Path) -> None:
    benchmarks = planted.entries(planted.additive, seed=1, noise=Noise(0.01))
    double = planted.entries(planted.additive, seed=2)
    for benchmark in double:
        benchmark["extra_info"]["dtype"] = "float64"
    write_report([planted.write(tmp_path / "x.json", [*benchmarks, *double])], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| numpy cpu float32 |" in text
    assert "| numpy cpu float64 |" in text


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=1, passes=1))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report([path], tmp_path / "file" / "out")


def test_drawing_needs_neither_frameworks_nor_the_other_rooms(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=1, passes=2))
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'jax', 'sklearn', 'autograd', 'impls', 'bench'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import backprop_bench\n"
        f"sys.argv = ['backprop-bench', 'report', {str(path)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "backprop_bench.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()
