"""Figures as data and figures inlined: what the page shows is what the file shows, in colours that follow light and dark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import charts, inline
from analysis.charts import Axis, Chart, Line, Panel, Row
from analysis.experiments import Drawn, Section, report, section
from analysis.experiments.report import ToldSection
from analysis.pictures import Picture, picture
from analysis.report import write_report
from backprop_files import SCHEMA_VERSION
from tests import browser, planted, planted_parallel
from tests.browser import Browser

needs_chromium = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "-")
needs_axe = pytest.mark.skipif(not browser.AXE.exists(), reason=f"no axe-core: {browser.INSTALL_AXE}")
ARTEFACTS = Path(__file__).parent.parent / ".page-check"

LINE = Line(
    "a", [1, 2, 4], [3.0, 2.0, 1.5], low=[np.nan, 1.9, 1.4], high=[np.nan, 2.1, 1.6], hollow=[False, True, False]
)
LAW = Line("a", [1, 2, 4], [3.1, 2.1, 1.4], "dashed", "law")
CHART = Chart(
    Axis("ranks", log=True, marks={1: "1", 2: "2", 4: "4"}),
    [Row(Axis("a step", "ms", log=True), [Panel("left", [LINE, LAW]), Panel("right", [replace(LINE, name="b")])])],
    hollow="not fitted",
)


# --- as data and as a file ------------------------------------------------------------------------------------------


def test_the_file_shows_what_the_data_say() -> None:
    found = charts.document(CHART)
    left, right = charts.drawn(CHART).axes
    for axes, panel in zip((left, right), found["rows"][0]["panels"], strict=True):
        drawn = axes.get_lines()[0]
        assert list(np.asarray(drawn.get_xdata())) == panel["lines"][0]["x"]
        assert list(np.asarray(drawn.get_ydata())) == panel["lines"][0]["y"]
        assert axes.get_title() == panel["title"]
    assert left.get_xscale() == left.get_yscale() == "log"
    assert (left.get_xlabel(), left.get_ylabel()) == ("ranks", "a step, ms")
    assert found["rows"][0]["panels"][0]["lines"][0]["low"] == [None, 1.9, 1.4]
    json.dumps(found, allow_nan=False)


def test_names_keep_their_colours_and_beyond_eight_their_markers_move() -> None:
    lines = [Line(f"n{i}", [1], [1]) for i in range(10)]
    chart = Chart(Axis("x"), [Row(Axis("y"), [Panel("", lines[::-1])])], [line.name for line in lines])
    looks = {one["name"]: (one["colour"], one["marker"]) for one in charts.document(chart)["names"]}
    assert (looks["n0"], looks["n7"], looks["n8"]) == ((0, 0), (7, 7), (0, 1))
    assert len(set(looks.values())) == 10


# --- inlined --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "seen"),
    [
        ("#000000", "var(--ink)"),
        ("#ffffff", "var(--paper)"),
        ("#0072b2", "var(--series-0)"),
        ("#808080", "color-mix(in srgb, var(--ink) 50%, var(--paper))"),
        ("#440000", "color-mix(in oklab, var(--ink) var(--lift), #440000)"),
    ],
)
def test_colours_are_those_of_the_page(told: str, seen: str) -> None:
    assert inline.colour(told) == seen


def test_a_tint_is_itself_on_white() -> None:
    """share·base + (1 − share)·white."""
    for told in ("#bfe3d0", "#f3d9a4", "#80b8d8"):
        found = re.search(r"#(\w{6})\) (\d+)%", inline.colour(told))
        assert found
        base = np.array([int(found[1][i : i + 2], 16) for i in (0, 2, 4)])
        share = int(found[2]) / 100
        wanted = [int(told[i : i + 2], 16) for i in (1, 3, 5)]
        assert share * base + (1 - share) * 255 == pytest.approx(wanted, abs=3)


def test_two_inlined_figures_share_no_name_and_hold_nothing_that_runs(tmp_path: Path) -> None:
    figures = []
    for key in ("one", "two"):
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1, 2], [3, 4], "o-", label="<script>alert(1)</script>")
        axes.legend()
        figures.append(picture(figure, key, "A title", 'a "caption" & <more>', tmp_path))
    names = [set(re.findall(r'\bid="([^"]+)"', one.inline)) for one in figures]
    assert names[0] and not names[0] & names[1]
    for one, known in zip(figures, names, strict=True):
        links = set(re.findall(r'(?:href="|url\()#([\w.-]+)', one.inline))
        assert links and links <= known
        assert not re.search(r"<(script|style|metadata|!--|a )|javascript:|\son\w+=", one.inline)
        assert 'aria-label="A title. a &quot;caption&quot; &amp; &lt;more&gt;"' in one.inline
    assert b"#ffffff" in figures[0].svg and "#ffffff" not in figures[0].inline  # the file stays white


def test_names_would_collide_without_their_key(tmp_path: Path) -> None:
    """The check itself."""
    figure = Figure()
    figure.subplots().plot([1, 2], "o")
    same = [Picture("same", "A", "", picture(figure, "x", "", "", tmp_path).svg).inline for _ in range(2)]
    assert set(re.findall(r'\bid="([^"]+)"', same[0])) & set(re.findall(r'\bid="([^"]+)"', same[1]))


# --- beside a sweep -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"cpu_model": "A", "libraries": {"torch": "2"}}, ""),
        ({"cpu_model": "B", "libraries": {"torch": "2"}}, "on another machine than the sweep, which ran on B"),
        ({"cpu_model": "A", "libraries": {"torch": "3"}}, "with other libraries than the sweep: torch 2, not 3"),
    ],
)
def test_another_machine_or_library_than_the_sweeps_is_told(sweep: dict[str, Any], said: str) -> None:
    found = replace(planted_parallel.found(), machine={"cpu_model": "A", "libraries": {"torch": "2"}})
    (told,) = report.beside([ToldSection(Section("parallel", "P", ""), [], found)], [sweep])
    assert (said in told.elsewhere) if said else told.elsewhere == ""


def test_an_experiment_stands_behind_a_sweep_with_its_own_claims(tmp_path: Path) -> None:
    sweep = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=1)[:9])
    tasks = [
        {"impl": row["impl"], "pass": row["pass"], "key": row["key"], "arguments": {}, "rows": [row]}
        for row in planted_parallel.rows(passes=1, ranks=(1, 2))
    ]
    document = {
        "schema_version": SCHEMA_VERSION, "experiment": "parallel", "settings": {"impls": ["torch-ddp"]}, "tasks": tasks,
        "machine_info": {"cpu_model": "Another"}, "datetime": "2026-02-03T04:05:06", "failed": [],
    }  # fmt: skip
    (tmp_path / "run" / "experiments").mkdir(parents=True)
    (tmp_path / "run" / "experiments" / "parallel.json").write_text(json.dumps(document))
    page = write_report([sweep, tmp_path / "run"], tmp_path / "out").read_text()
    assert '<a href="#experiment-parallel">Data parallel</a>' in page
    captions = re.findall(r"<caption><strong>([^<]*)</strong>, measured (at [\d-]+ [\d:]+) on ([^.]*)\.", page)
    assert [caption[0] for caption in captions] == ["Of the sweep", "Data parallel: a step over several ranks"]
    assert captions[1][1:] == ("at 2026-02-03 04:05", "Another")
    assert "Measured on another machine than the sweep, which ran on planted" in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data and "parallel-strong" in json.loads(data[1])["charts"]
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


# --- in Chromium ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a planted experiment, as ``report`` writes it."""
    out = tmp_path_factory.mktemp("charts")
    found = planted_parallel.found()
    made = section(found)
    figures: list[Drawn] = [*made.figures, Drawn("small", "A small chart", "Two panels.", CHART)]
    pictures = [picture(one.figure, one.key, one.title, one.caption, out / "figures") for one in figures]
    return report.write_page([ToldSection(made, pictures, found)], out)


@pytest.fixture(scope="module")
def window(page: Path) -> Iterator[Browser]:
    with Browser() as found:
        found.open(page)
        yield found


SMALL = """
const rooms = [...document.querySelectorAll('#small .chart')];
return rooms.map((room) => room.chart.view.data('cells').map((p) => [p.x, p.y, p.low, p.hollow, p.series]));
"""


@needs_chromium
def test_every_figure_of_the_page_is_drawn_from_its_data(window: Browser) -> None:
    left, right = window.run(SMALL)
    assert [point[:4] for point in left] == [[1, 3, None, False], [2, 2, 1.9, True], [4, 1.5, 1.4, False]]
    assert {point[4] for point in left} == {"a"} and {point[4] for point in right} == {"b"}
    undrawn = "return [...document.querySelectorAll('figure')].filter((f) => !f.querySelector('svg')).map((f) => f.id)"
    assert window.run(undrawn) == []
    assert not window.complaints()
    assert not window.requests()


@needs_chromium
def test_points_are_told_by_keyboard_and_as_a_table(window: Browser, page: Path) -> None:
    window.open(page)
    label = window.run(
        "const c = document.querySelector('#small .chart'); c.focus(); return c.getAttribute('aria-label')"
    )
    assert "A small chart" in label and "a 1.5\u00a0ms to 3\u00a0ms over 3 points" in label
    window.press("ArrowRight", "ArrowRight")
    said = window.run("return document.getElementById('said').textContent")
    assert said == "a: 2\u00a0ms [1.9\u00a0ms,\u00a02.1\u00a0ms]; ranks: 2; law: 2.1\u00a0ms; not fitted"
    window.run("document.querySelector('#small .points').open = true")
    window.later("setTimeout(done, 50)")
    rows = window.run("return csvOf(document.querySelector('#small .points table'))").strip().split("\r\n")
    assert rows[0] == 'panel,of,ranks,"a step, ms","a step, ms, low","a step, ms, high"'
    assert rows[1:3] == ["left,a,1,3,,", "left,a,2,2,1.9,2.1"]
    assert len(rows) == 7


@needs_chromium
def test_a_table_that_is_too_wide_says_so_and_scrolls_by_keyboard(window: Browser, page: Path) -> None:
    told = """
        const wide = [...document.querySelectorAll('.scroll')].filter((s) => s.scrollWidth > s.clientWidth + 1);
        const as_told = (s) => s.tabIndex === 0 && s.getAttribute('aria-label') && s.classList.contains('wide');
        const first = wide.length && getComputedStyle(wide[0].querySelector('tbody th')).position;
        return [wide.length, wide.filter(as_told).length, first, document.querySelectorAll('.scroll[tabindex]').length];
    """
    for width in (360, 1920):
        window.look(width)
        window.open(page)
        window.later("setTimeout(done, 100)")
        wide, as_told, first, reached = window.run(told)
        assert wide == as_told == reached
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        if width == 360:
            assert wide > 0 and first == "sticky"
            window.picture(ARTEFACTS / "experiment-360.png")
    window.look(1280)


@needs_chromium
def test_figures_follow_light_and_dark_and_paper(window: Browser, page: Path) -> None:
    seen = """
        const of = (id, name) => getComputedStyle(document.querySelector(id)).getPropertyValue(name);
        const white = document.querySelector('#parallel-shares svg path').style.fill;
        return [of('#parallel-shares svg', 'color'), of('#parallel-shares svg path', 'fill'), of('body', 'background-color')];
    """
    told = {}
    for scheme, media in (("light", ""), ("dark", ""), ("dark", "print")):
        window.look(1280, scheme=scheme, media=media)
        window.open(page)
        told[scheme, media] = window.run(seen)
    window.look(1280)
    for ink, paper, ground in told.values():
        assert paper == ground != ink
    assert told["light", ""][1] != told["dark", ""][1]
    assert told["dark", "print"][1] == "rgb(255, 255, 255)"


@needs_chromium
def test_sections_are_reached_by_links(window: Browser, page: Path) -> None:
    window.open(page)
    links = window.run("return [...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href'))")
    assert "#experiment-parallel" in links and "#parallel-efficiency" in links
    assert window.run("return arguments[0].every((to) => document.querySelector(to))", links)


@needs_chromium
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme: str, window: Browser, page: Path) -> None:
    window.look(1280, scheme=scheme)
    window.open(page)
    window.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert not window.faults()
    window.look(1280)
