"""Runs side by side, the history's page, and opening a page: in Chromium where it is there."""

from __future__ import annotations

import json
import math
import os
import re
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import backprop_bench
from analysis import history_page
from analysis.page import compare
from backprop_files import UserError
from tests import browser, planted, planted_history
from tests.browser import Browser
from tests.test_page import HOSTILE, TICKS

needs_chromium = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "-")
needs_axe = pytest.mark.skipif(not browser.AXE.exists(), reason=f"no axe-core: {browser.INSTALL_AXE}")
ARTEFACTS = Path(__file__).parent.parent / ".page-check"
SLOWER = 1.25


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser() as found:
        yield found


# --- runs side by side ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same sweep twice, the second a quarter slower, on another machine with another library."""
    folder = tmp_path_factory.mktemp("runs")
    first = planted.write(folder / "old.json", planted.entries(planted.additive, seed=1, peak_bytes=planted.arrays))
    slower = planted.entries(lambda f: SLOWER * planted.additive(f), seed=2, peak_bytes=planted.arrays)
    second = planted.write(folder / "new.json", slower)
    document = json.loads(second.read_text())
    document["machine_info"] |= {"cpu_model": HOSTILE[0], "libraries": {"numpy": "3"}}
    document["commit_info"] = {"id": "abcdef0123456789", "dirty": True}
    second.write_text(json.dumps(document))
    return [first, second]


@pytest.fixture(scope="module")
def compared(two_runs: list[Path]) -> Path:
    return compare.write_comparison(two_runs, two_runs[0].parent)


def test_ratios_of_planted_runs_are_the_planted_ones(two_runs: list[Path]) -> None:
    (row,) = compare.summary(compare.sides(two_runs))
    found = row["ratios"]["new"]
    assert found["interval"].value == pytest.approx(SLOWER, rel=0.01)
    assert found["interval"].low < SLOWER < found["interval"].high
    assert found["cells"] > 30


def test_what_differs_between_runs_is_marked(two_runs: list[Path]) -> None:
    rows = {row["fact"]: row for row in compare.facts(compare.sides(two_runs))}
    assert rows["libraries"]["values"] == ["numpy 2", "numpy 3"]
    assert rows["libraries"]["differs"]
    assert rows["commit"]["values"] == ["–", "abcdef012345, tree not clean"]
    assert not rows["profile"]["differs"]


def test_names_of_runs_are_as_long_as_they_must_be(tmp_path: Path) -> None:
    assert compare.names([tmp_path / "a" / "x", tmp_path / "b" / "y"]) == ["x", "y"]
    assert compare.names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert compare.names([tmp_path / "a", tmp_path / "a"]) == ["1: a", "2: a"]


def test_one_run_is_none_to_compare(two_runs: list[Path]) -> None:
    with pytest.raises(UserError, match="takes two runs or more"):
        compare.sides(two_runs[:1])


def test_a_single_cell_has_a_ratio_without_an_interval() -> None:
    assert math.isnan(compare.mean_ratio(np.array([0.1])).low)
    assert compare.mean_ratio(np.array([0.1])).value == pytest.approx(math.exp(0.1))


COMPARED = """
const place = document.getElementById('compare-chart');
return place.chart.view.data('cells').map((p) => [p.y, p.low, p.high, p.series, p.x]);
"""


@needs_chromium
def test_the_page_of_two_runs_shows_ratios_and_restores_a_view(compared: Path, window: Browser) -> None:
    window.complaints(), window.requests()
    window.open(compared)
    points = window.run(COMPARED)
    assert {point[3] for point in points} == {"new"}
    inside = [low <= SLOWER <= high for _, low, high, _, _ in points]
    assert sum(inside) >= 0.8 * len(inside)
    for control, value in {
        "choose-measure": "time", "choose-kind": "raw", "choose-axis": "width", "choose-y": "linear"
    }.items():  # fmt: skip
        window.open(compared)
        before = window.run("return location.hash")
        window.set(control, value)
        shown, address = window.run(COMPARED), window.run("return location.hash")
        assert address != before
        window.open(compared, address)
        assert window.run(COMPARED) == shown, control
    assert HOSTILE[0] in window.run("return document.querySelector('main table').textContent")
    assert not window.complaints()
    assert not window.requests()
    for width in (360, 1280, 1920):
        window.look(width, scheme="dark" if width == 1280 else "light")
        window.open(compared)
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        window.picture(ARTEFACTS / f"compare-{width}.png")
    window.look(1280)


WITHOUT_BYTES = """
const data = pageData();
data.runs.forEach((run) => run.peak_bytes.fill(null));
const asks = compareAsks(data);
const values = {measure: ['ratio', 'time', 'memory'], series: ['0'], axis: ['examples'], phase: ['step'], optimizer: []};
const found = (given) => offered(cellsOf(given), state, compareAsks(given), values).measure;
const nearest = nearestChanges(cellsOf(data), {...state, measure: 'memory'}, asks, values);
return [[...found(pageData())], [...found(data)], nearest];
"""


@needs_chromium
def test_a_comparison_offers_what_its_runs_have(compared: Path, window: Browser) -> None:
    window.open(compared)
    every, without, instead = window.run(WITHOUT_BYTES)
    assert every == ["ratio", "time", "memory"]
    assert without == ["ratio", "time"]
    assert instead == {"measure": "ratio"}


@needs_chromium
def test_ticks_of_a_comparison_have_units(compared: Path, window: Browser) -> None:
    window.open(compared, "#measure=time")
    found = window.run(TICKS, "#compare-chart")
    assert sum(bool(re.fullmatch(r"[\d.]+ (s|ms|µs)", text)) for text in found) >= 2
    window.open(compared, "#measure=memory")
    assert sum(bool(re.fullmatch(r"[\d.]+ (B|kB|MB)", text)) for text in window.run(TICKS, "#compare-chart")) >= 2


@needs_chromium
@needs_axe
def test_axe_finds_no_serious_fault_in_a_comparison(compared: Path, window: Browser) -> None:
    window.open(compared)
    assert not window.faults()


# --- the history ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    planted_history.database(folder / "history.db", rows=12 * 100, commits=100)
    return history_page.write_page(folder / "history.db", folder / "history.html", "https://example.org/a/b")


CARDS = "return [...document.querySelectorAll('.card')].map((card) => card.id)"
DRAWN = """
const place = [...document.querySelectorAll('.card .chart')].find((one) => one.chart);
return [place.series.n, place.chart.view.data('cells').length, place.series.v.filter((v) => v !== null).length];
"""


@needs_chromium
def test_the_history_draws_filters_and_opens_commits(history: Path, window: Browser) -> None:
    window.complaints(), window.requests()
    window.open(history)
    window.later("setTimeout(done, 300)")
    window.ready()
    every = window.run(CARDS)
    _, drawn, values = window.run(DRAWN)
    assert drawn == values > 0
    window.set("filter-steps", "1")
    stepped, address = window.run(CARDS), window.run("return location.hash")
    assert 0 < len(stepped) < len(every)
    assert address == "#steps=1"
    window.open(history, address)
    assert window.run(CARDS) == stepped
    window.run(
        "window.went = []; window.open = (url) => { window.went.push(url); };"
        "const p = document.querySelector('.card .chart'); p.focus({focusVisible: true});"
    )
    window.later("setTimeout(done, 300)")
    window.ready()
    window.press("ArrowRight", "ArrowRight", "Enter")
    (went,) = window.run("return window.went")
    assert re.fullmatch(r"https://example\.org/a/b/commit/[0-9a-f]+", went)
    assert not window.complaints()
    assert not window.requests()
    for width in (360, 1280, 1920):
        window.look(width, scheme="dark" if width == 1280 else "light")
        window.open(history)
        window.later("setTimeout(done, 300)")
        window.ready()
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        window.picture(ARTEFACTS / f"history-{width}.png", whole=False)
    window.look(1280)


ORDERED = """
const one = (id, impl, kind) => ({id, impl, kind, phase: 'step', axis: '', m: 0, cell: '', steps: []});
const series = [one(1, 'a', 'time'), one(2, 'b', 'time'), one(3, 'a', 'memory'), one(4, 'b', 'exponents'),
  one(5, 'a', 'exponents'), one(6, 'a', 'time')];
const chosen = {kind: 'time+exponents', impl: '', phase: '', axis: '', m: '', cell: '', steps: '0'};
return chosenSeries({series}, chosen).map((found) => found.id);
"""


@needs_chromium
def test_exponents_stand_beside_the_times_of_their_implementation(history: Path, window: Browser) -> None:
    window.open(history)
    assert window.run(ORDERED) == [5, 1, 6, 4, 2]


@needs_chromium
@needs_axe
def test_axe_finds_no_serious_fault_in_a_history(history: Path, window: Browser) -> None:
    window.open(history)
    assert not window.faults()


# --- opening --------------------------------------------------------------------------------------------------------


def test_open_finds_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def show(address: str, *_: Any) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no report under reports/"):
        backprop_bench.open_(None)
    for i, name in enumerate(("old", "new")):
        page = tmp_path / "reports" / name / "report.html"
        page.parent.mkdir(parents=True)
        page.write_text("")
        os.utime(page, (i, i))
    call = CliRunner().invoke(backprop_bench.app, ["open"])
    assert call.exit_code == 0, call.output
    assert opened[-1].endswith("/reports/new/report.html")
    backprop_bench.open_(Path("reports/old"))
    assert opened[-1].endswith("/reports/old/report.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="'backprop-bench report empty' writes it"):
        backprop_bench.open_(Path("empty"))


def test_where_no_browser_opens_the_address_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda *_: False)
    (tmp_path / "report.html").write_text("")
    backprop_bench.open_(tmp_path)
    assert "no browser could be opened" in capsys.readouterr().out
