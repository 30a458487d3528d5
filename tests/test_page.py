"""The page of a run in Chromium: it is still, private, accessible, and says the same as the command line."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import cells as cell_table
from analysis import load, predict, report, verdicts, words
from analysis.page import bundle, data, write
from analysis.page.fastest import ratio
from analysis.pictures import Picture
from analysis.predict import Series
from analysis.statistics import Interval
from tests import browser, planted
from tests.browser import Browser

needs_chromium = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "-")
#: Pictures of the page are left here for whoever wants to look at them.
ARTEFACTS = Path(__file__).parent.parent / ".page-check"
IMPLS = {"numpy": planted.calls, "torch": planted.additive}


def benchmarks() -> list[dict[str, Any]]:
    """Two implementations; one has every phase, and updates by another optimizer."""
    found = [
        entry
        for seed, (impl, law) in enumerate(IMPLS.items())
        for entry in planted.entries(law, seed=seed, impl=impl, peak_bytes=planted.arrays)
    ]
    plain = replace(planted.RANGE, joint=6, heldout=0)
    found += planted.entries(lambda f: 1e-6 + 1e-9 * f["m"], seed=7, phase="update", chosen=plain)
    found += planted.entries(lambda f: 2e-6 + 3e-9 * f["m"], seed=8, phase="update", optimizer="adam", chosen=plain)
    found += planted.entries(lambda f: 1e-6 + 1e-7 * f["n"], seed=9, phase="loss")
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.write(tmp_path_factory.mktemp("page") / "x.json", benchmarks())


@pytest.fixture(scope="module")
def page(source: Path) -> Path:
    return page_alone(source, source.parent)


@pytest.fixture(scope="module")
def window(page: Path) -> Iterator[Browser]:
    with Browser() as found:
        found.open(page)
        yield found


@pytest.fixture
def opened(window: Browser, page: Path) -> Browser:
    window.look(1280)
    window.open(page)
    return window


def block(page: Path) -> dict[str, Any]:
    """The data that a page holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


# --- what the page holds, without a browser -------------------------------------------------------------------------


def test_the_data_are_the_cell_table(source: Path, page: Path) -> None:
    found = block(page)
    cells, lists = found["cells"], found["lists"]
    held = {}
    for i, place in enumerate(cells["series"]):
        named = (lists[k][cells[k][i]] for k in ("layers", "activation", "phase", "optimizer"))
        numbers = tuple(cells[k][i] for k in ("time_s", "ci_low_s", "ci_high_s", "passes"))
        held[found["series"][place]["name"], *named, cells["n"][i]] = numbers
    table = cell_table.table(load.load([source]).entries)
    assert len(held) == len(table)
    for _, row in table.iterrows():
        told = held[tuple(row[["series", "layers", "activation", "phase", "optimizer", "n"]])]
        assert told == pytest.approx(tuple(row[["time_s", "ci_low_s", "ci_high_s", "passes"]]), rel=1e-4)


def test_rounds_are_kept_in_time_order_to_a_tenth_of_a_per_mille(source: Path, page: Path) -> None:
    run = load.load([source])
    found = block(page)
    cells = found["cells"]
    at = next(i for i, n in enumerate(cells["n"]) if n == 64 and found["lists"]["phase"][cells["phase"][i]] == "step")
    passes, raw, _ = found["rounds"]["cells"][at]
    assert [count for _, _, count, _ in passes] == [8, 8, 8]
    layers = found["lists"]["layers"][cells["layers"][at]]
    activation = found["lists"]["activation"][cells["activation"][at]]
    rows = run.entries.query("phase == 'step' and impl == 'numpy' and n == 64").sort_values("pass")
    rows = rows[(rows["layers"] == layers) & (rows["activation"] == activation)]
    low, high = found["log_ratio"]
    steps = np.frombuffer(base64.b64decode(raw), "<u2")
    times = cells["raw_s"][at] * np.exp(low + (high - low) * steps / 65535)
    assert times == pytest.approx(np.concatenate(list(rows["seconds"])), rel=2e-4)


HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "a\u2028b\u2029c",
    "\u202eabc\u200f",
    "x" * 10_000,
    "<!--<script>",
]


def test_figures_that_do_not_fit_stay_files() -> None:
    drawn = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="%s"/></svg>'
    small, large = (Picture(key, key, "", drawn % (b"M" * size)) for key, size in (("a", 100), ("b", 3000)))
    assert write.within([small, large, small], 1000) == ([small, small], [large])


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_page_is_only_data(text: str) -> None:
    written = bundle.safe_json({"name": text})
    assert json.loads(written) == {"name": text}
    assert not set("<>&\u2028\u2029") & set(written)


def test_the_scripts_cannot_end_their_element() -> None:
    for text in (bundle.library(), bundle.script("report")):
        assert not re.search(r"<(/script|script|!--)", text, re.IGNORECASE)


def test_an_update_by_another_optimizer_takes_the_place_of_the_usual_one(source: Path) -> None:
    series = predict.series(load.load([source]), "numpy")
    layers, n = (64, 300, 300, 10), 200
    usual, adam = (predict.predict(series, layers, n, "horner-4", name) for name in ("", "adam"))
    m = 64 * 300 + 300 + 300 * 300 + 300 + 3000 + 10
    assert adam.time_s.value - usual.time_s.value == pytest.approx(1e-6 + 2e-9 * m, rel=0.05)
    assert adam.time_s.low < adam.time_s.value < adam.time_s.high
    assert adam.memory_bytes.value - usual.memory_bytes.value == pytest.approx(2 * 4 * m)  # two moments, float32
    with pytest.raises(Exception, match="no law of the update by 'rmsprop'; it has adam, gradient-descent"):
        predict.predict(series, layers, n, "horner-4", "rmsprop")


def test_an_epoch_is_its_steps_the_last_one_smaller(source: Path) -> None:
    series = predict.series(load.load([source]), "torch")
    layers = (64, 100, 100, 10)
    step, rest = (predict.predict(series, layers, n, "horner-4").time_s for n in (256, 88))
    found = predict.epoch(series, layers, 256, "horner-4", 600)
    assert found.value == pytest.approx(2 * step.value + rest.value)
    assert found.high == pytest.approx(2 * step.high + rest.high)
    assert predict.epoch(series, layers, 256, "horner-4", 88).value == pytest.approx(rest.value)
    with pytest.raises(Exception, match="--rows is a positive whole number"):
        predict.epoch(series, layers, 256, "horner-4", 0)


# --- the page in Chromium -------------------------------------------------------------------------------------------


EVALUATES = """
const script = document.createElement('script');
script.textContent = "setTimeout(() => { try { Function('1')(); } catch { window.refused = true; } })";
document.body.append(script);
setTimeout(done, 50);
"""


@needs_chromium
def test_nothing_is_asked_for_and_nothing_complains(window: Browser, page: Path) -> None:
    window.complaints(), window.requests()
    window.open(page, "#axis=width&measure=memory")
    window.later(EVALUATES)
    assert window.run("return window.refused"), "the page's policy lets text be evaluated"
    said = [line for line in window.complaints() if "eval" not in line]
    assert not said
    assert not window.requests()


@needs_chromium
def test_a_request_would_be_counted(window: Browser, page: Path, tmp_path: Path) -> None:
    """The check itself: a page that asks for something is caught."""
    planted_fault = tmp_path / "asks.html"
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    planted_fault.write_text(text.replace("</main>", '<img alt="" src="http://example.com/x.png"></main>'))
    window.requests()
    window.open(planted_fault)
    assert window.requests() == ["http://example.com/x.png"]
    window.complaints()


CHANGES = {
    "choose-axis": ("width", "spec.layer[0].encoding.x.title"),
    "choose-phase": ("update", "points"),
    "choose-measure": ("memory", "points"),
    "choose-kind": ("raw", "points"),
    "choose-optimizer": ("adam", "points"),
    "choose-x": ("linear", "x"),
    "choose-y": ("linear", "y"),
    "choose-bands": ("0", "laws"),
}
SHOWN = """
const place = document.getElementById('explore-chart');
const spec = place.drawn.specification;
return {points: place.chart.view.data('cells').map((p) => [p.id, p.x, p.y]), laws: spec.layer.length,
  x: place.chart.view.scale('x').type, y: place.chart.view.scale('y').type, spec: spec.layer[0].encoding.x.title,
  series: [...new Set(place.chart.view.data('cells').map((p) => p.series))]};
"""


@needs_chromium
def test_every_control_changes_what_it_should_and_the_address_restores_it(opened: Browser, page: Path) -> None:
    for control, (value, what) in CHANGES.items():
        opened.open(page, "#phase=update" if control == "choose-optimizer" else "")
        before = opened.run(SHOWN)
        opened.set(control, value)
        after = opened.run(SHOWN)
        key = what.split(".")[0]
        assert after[key] != before[key], control
        address = opened.run("return location.hash")
        assert address != "#"
        opened.open(page, address)
        assert opened.run(SHOWN) == after, control


@needs_chromium
def test_a_series_is_hidden_and_the_back_button_shows_it_again(opened: Browser) -> None:
    before = opened.run(SHOWN)
    assert set(before["series"]) == set(IMPLS)
    opened.run("document.querySelector('#choose-series input').click()")
    opened.ready()
    assert opened.run(SHOWN)["series"] == ["torch"]
    opened.driver.back()
    opened.ready()
    assert opened.run(SHOWN) == before


FIRST_POINT = """
const place = document.getElementById('explore-chart');
place.scrollIntoView({block: 'center', behavior: 'instant'});
const [x, y] = pixelOf(place.chart.view, place.points[0]);
const box = place.getBoundingClientRect();
return [box.left + x, box.top + y, place.points[0].id];
"""


@needs_chromium
def test_points_are_the_cells_and_a_pick_shows_the_rounds(opened: Browser, page: Path) -> None:
    opened.run("document.getElementById('explore-chart').focus()")
    opened.press("ArrowRight", "ArrowRight", "Enter")
    opened.ready()
    cells = block(page)["cells"]
    at = int(opened.run("return state.cell"))
    tip, said = opened.run(
        "return [document.getElementById('tip').innerText, document.getElementById('said').innerText]"
    )
    assert f"passes: {cells['passes'][at]}" in tip
    assert "regime" in tip
    assert said.startswith("numpy: ")
    rounds = opened.run(
        "return document.getElementById('cell-chart').chart.view.data('rounds').map((r) => [r.x, r.pass])"
    )
    assert [x for x, _ in rounds] == list(range(1, 25))
    assert [number for _, number in rounds] == ["1"] * 8 + ["2"] * 8 + ["3"] * 8
    opened.press("Escape")
    box = opened.run(FIRST_POINT)
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        opened.command("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
    opened.ready()
    assert int(opened.run("return state.cell")) == box[2]


@needs_chromium
def test_a_picked_point_leads_to_its_rounds_and_escape_back_to_it(opened: Browser) -> None:
    opened.run("document.getElementById('explore-chart').focus()")
    opened.press("ArrowRight", "ArrowRight", "Enter")
    opened.ready()
    top, bottom = opened.run(
        "const box = document.getElementById('cell').getBoundingClientRect(); return [box.top, box.bottom]"
    )
    assert 0 <= top < bottom <= opened.run("return innerHeight") + 1
    assert opened.run("return document.activeElement.id") == "cell-name"
    picked = opened.run("return state.cell")
    opened.press("Escape")
    assert opened.run("return [document.getElementById('cell').hidden, document.activeElement.id, state.cell]") == [
        True, "explore-chart", "",
    ]  # fmt: skip
    opened.press("Enter")  # the point is still the one that is lit
    assert opened.run("return state.cell") == picked


PARTS = {
    "#axis=width": ("explore", "explore-title"),
    "#n=128": ("ask", "ask-title"),
    "#axis=width&batch=128": ("calculate", "calculate-title"),  # what was chosen last
    "#batch=128&cell=3": ("cell", "cell-name"),
}
SEEN = """
const box = document.getElementById(arguments[0]).getBoundingClientRect();
return [document.activeElement.id, box.top >= -1 && box.top < innerHeight / 2 + 1, scrollY];
"""


@needs_chromium
@pytest.mark.parametrize("address", PARTS)
def test_a_sent_view_opens_at_its_part(address: str, opened: Browser, page: Path) -> None:
    part, head = PARTS[address]
    opened.open(page, address)
    focused, in_view, scrolled = opened.run(SEEN, part)
    assert focused == head
    assert in_view
    assert scrolled > 0


@needs_chromium
def test_a_view_opens_at_what_was_chosen_last_and_without_one_at_the_top(opened: Browser, page: Path) -> None:
    assert opened.run("return [scrollY, document.activeElement === document.body]") == [0, True]
    opened.set("calculate-batch", "128")
    opened.set("choose-axis", "width")
    opened.set("calculate-batch", "100")
    address = opened.run("return location.hash")
    opened.open(page, address)
    assert opened.run("return document.activeElement.id") == "calculate-title"


OFFERED = """
const rows = cellsOf(pageData());
const options = [...document.querySelectorAll('#explore .controls select option')].filter((one) => !one.selected);
const name = (option) => option.closest('select').id.replace('choose-', '');
const draws = (option) => shownRows(rows, {...state, [name(option)]: option.value}).length > 0;
return options.map((one) => [name(one), one.value, !one.disabled, draws(one)]);
"""


@needs_chromium
def test_choices_that_draw_nothing_are_greyed_and_no_others(opened: Browser, page: Path) -> None:
    greyed = set()
    for view in ("", "#phase=update", "#measure=memory", "#phase=loss&axis=width", "#optimizer=adam&phase=update"):
        opened.open(page, view)
        for name, value, offered, draws in opened.run(OFFERED):
            assert offered == draws, (view, name, value)
            greyed |= set() if offered else {(view, name, value)}
        assert opened.run("return document.getElementById('explore-grey').checkVisibility()")
    assert {("#phase=update", "measure", "memory"), ("", "optimizer", "adam")} <= greyed


@needs_chromium
def test_an_empty_view_says_so_and_offers_the_nearest(opened: Browser, page: Path) -> None:
    opened.open(page, "#optimizer=adam&measure=memory&phase=update")
    told, hidden = opened.run(
        "return [document.getElementById('explore-empty').innerText, document.getElementById('explore-view').hidden]"
    )
    assert told.startswith("Nothing to draw: no cell of this run has all of axis examples, optimizer adam, memory")
    assert hidden
    assert "Show time instead" in told
    opened.run("document.querySelector('#explore-empty button').click()")
    opened.ready()
    assert opened.run("return [state.optimizer, state.phase, state.measure]") == ["adam", "update", "time"]
    assert len(opened.run(SHOWN)["points"]) > 0
    opened.open(page, "#hide=0,1")
    assert "the implementations that have such cells are hidden" in opened.run(
        "return document.getElementById('explore-empty').innerText"
    )
    opened.run("document.querySelector('#explore-empty button').click()")
    opened.ready()
    assert set(opened.run(SHOWN)["series"]) == set(IMPLS)


TICKS = """
const texts = [...document.querySelectorAll(arguments[0] + ' svg .role-axis-label text')];
return texts.map((one) => one.textContent.replace('\u00a0', ' ')).filter(Boolean);
"""


@needs_chromium
def test_ticks_have_units_that_people_read(opened: Browser, page: Path) -> None:
    forms = {
        "#measure=time": r"[\d.]+ (s|ms|µs|ns)",
        "#measure=time&y=linear": r"([\d.]+ (s|ms|µs|ns))|0",
        "#measure=memory": r"[\d.]+ (B|kB|MB|GB)",
        "#measure=share": r"[\d.]+ %",
        "#cell=3": r"[\d.]+ (s|ms|µs|ns)",
    }
    count = r"[\d.]+[kM]?"
    for view, form in forms.items():
        opened.open(page, view)
        found = opened.run(TICKS, "#cell-chart" if "cell" in view else "#explore-chart")
        with_unit = [text for text in found if re.fullmatch(form, text)]
        assert len(with_unit) >= 2, (view, found)
        assert len(set(with_unit)) == len(with_unit), (view, found)
        assert all(re.fullmatch(f"{form}|{count}", text) for text in found), (view, found)


@needs_chromium
def test_why_a_share_may_exceed_the_ceiling_is_told_where_it_does(opened: Browser, page: Path) -> None:
    opened.open(page, "#measure=share")
    told = (
        "return [document.getElementById('explore-told').innerText, cellTold(rows[0], {y: 1.2}, 'share').flat().join()]"
    )
    usual = opened.run(f"const rows = cellsOf(pageData()); {told}")
    assert "Above 100 %" not in usual[0]  # the planted ceiling is far above the planted times
    opened.run("shownRows(cellsOf(pageData()), state)")
    points = "shownRows(cellsOf(pageData()), state).map((point) => ({...point, y: 3 * point.y + 1}))"
    assert "Above 100 %: the ceiling is the best rate of one square product" in opened.run(
        f"return exploreTold({points}, state)"
    )
    assert "above 100 %,faster than the product" in usual[1]


WRONG = {
    ("calculate-batch", "1000000000000"): "Examples n in a step: a whole number from 1 to 100,000,000.",
    ("calculate-batch", "0"): "Examples n in a step: a whole number from 1 to 100,000,000.",
    ("calculate-batch", "2.5"): "Examples n in a step: a whole number from 1 to 100,000,000.",
    ("calculate-layers", "64-x-10"): "Layers: 2 to 100 positive whole numbers",
    ("calculate-layers", "64-0-10"): "Layers: 2 to 100 positive whole numbers",
    ("calculate-layers", "64--128"): "",
    ("calculate-layers", "64-1000000000000-10"): "Layers: at most 1,000,000 units each, not 1,000,000,000,000.",
    ("calculate-layers", "1000000-1000000-1000000"): "Layers: at most 1,000,000,000,000 weights in all",
    ("ask-width", "1000000000000"): "Width of the hidden layers: a whole number from 1 to 100,000.",
}


@needs_chromium
@pytest.mark.parametrize("control, value", WRONG)
def test_absurd_sizes_are_refused_in_a_sentence(control: str, value: str, opened: Browser, page: Path) -> None:
    before = opened.run("return [location.hash, document.getElementById('calculate-rows-told').innerText]")
    opened.set(control, value)
    told = opened.run(
        "const told = document.getElementById(arguments[0]).closest('.controls').querySelector('.wrong');"
        "return told.hidden ? '' : told.innerText",
        control,
    )
    assert told.startswith(WRONG[control, value])
    assert bool(told) == bool(WRONG[control, value])
    if told:
        after = opened.run("return [location.hash, document.getElementById('calculate-rows-told').innerText]")
        assert after == before
        assert (
            opened.run("return document.getElementById(arguments[0]).getAttribute('aria-invalid')", control) == "true"
        )
        name = {"calculate-batch": "batch", "calculate-layers": "layers", "ask-width": "width"}[control]
        opened.open(page, f"#{name}={value}")  # nor by an address
        assert opened.run("return state[arguments[0]] === usualState[arguments[0]]", name)


@needs_chromium
def test_what_was_not_measured_is_warned_of_with_how_far_beyond_it_lies(opened: Browser) -> None:
    opened.set("calculate-batch", "409600")
    unmeasured = opened.run("return document.querySelectorAll('#calculate-activation optgroup')[1].children[0].value")
    opened.set("calculate-activation", unmeasured)
    told = opened.run("return document.getElementById('calculate-warnings').innerText")
    assert re.match(r"\w+ and \w+ are extrapolated: n = 409,600 is 100\.0 times the largest measured", told)
    p = 4 * int(unmeasured.removeprefix("horner-"))
    assert f"{unmeasured} was not measured: its p = {p} is priced by the laws; p from 4 to 256 was." in told
    values = opened.run("return [...document.getElementById('calculate-activation').options].map((one) => one.value)")
    assert len(values) == len(set(values))
    assert {f"horner-{k}" for k in range(1, 65)} <= set(values)


def random_questions(count: int) -> list[tuple[list[int], int, str, str]]:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        hidden = rng.integers(0, 5)
        layers = [int(10 ** rng.uniform(0, 3.7)) for _ in range(hidden + 2)]
        n = int(10 ** rng.uniform(0, 5))
        found.append((layers, n, f"horner-{rng.integers(1, 65)}", ["", "adam"][int(rng.integers(2))]))
    return found


def told_by_python(series: Series, layers: list[int], n: int, activation: str, optimizer: str) -> list[float]:
    found = predict.predict(series, layers, n, activation, optimizer)
    whole = predict.epoch(series, layers, n, activation, 60_000, optimizer)
    intervals = (found.time_s, found.memory_bytes, whole)
    ends = [value for i in intervals for value in (i.value, i.low, i.high)]
    return [*ends, *found.floors_s.values(), found.p]


ASKED = """
const data = pageData(); const place = data.series.findIndex((one) => one.name === arguments[1]);
return arguments[0].map(([layers, n, activation, optimizer]) => {
  const f = predictStep(data, data.models[place], layers, n, activation, optimizer);
  const e = predictEpoch(data, data.models[place], layers, n, activation, optimizer, 60000);
  const ends = [f.time, f.memory, e].flatMap((i) => [i.value, i.low, i.high]);
  return [[...ends, ...Object.values(f.floors), f.p], f.binding, f.beyond];
});
"""


@needs_chromium
def test_the_calculator_equals_predict(opened: Browser, source: Path) -> None:
    run = load.load([source])
    for impl in IMPLS:
        series = predict.series(run, impl)
        questions = [q for q in random_questions(150) if impl == "numpy" or not q[3]]
        for question, (numbers, binding, beyond) in zip(questions, opened.run(ASKED, questions, impl), strict=True):
            expected = predict.predict(series, *question)
            assert numbers == pytest.approx(told_by_python(series, *question), rel=1e-9), question
            assert binding == expected.binding
            assert tuple(beyond) == expected.beyond


EVALUATED = """
const known = (sizes) => Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, size ?? NaN]));
return arguments[1].map((sizes) => evaluate(arguments[0], known(sizes))).map((v) => (Number.isNaN(v) ? null : v));
"""


@needs_chromium
def test_laws_of_ones_own_are_calculated_too(tmp_path: Path, window: Browser) -> None:
    """Every function that an expression may use, in Python and in the page."""
    from analysis import expressions

    texts = [
        "log(n)·log2(m) - sqrt(p)", "ceil(n/512)^2", "mod(n, 7) + mod(-n, 5)", "min(n, m)/max(p, 3)", "-n + +2.5",
        "beyond(4*m, L2)", "reaches(n, 64)", "loose(n, 8)", "n·(inputs + outputs)/units", "L3·itemsize",
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    names = [name for name in expressions.VARIABLES if name not in ("L3",)]
    for text in texts:
        expression = expressions.parse(text, "test")
        sizes = {name: rng.integers(1, 3000, 40).astype(float) for name in names} | {"L3": np.full(40, np.nan)}
        expected = expression(sizes)
        rows = [{name: None if np.isnan(v[i]) else float(v[i]) for name, v in sizes.items()} for i in range(40)]
        found = window.run(EVALUATED, expression.tree, rows)
        assert [np.nan if v is None else v for v in found] == pytest.approx(
            expected.tolist(), rel=1e-12, nan_ok=True
        ), text


@needs_chromium
def test_bands_in_the_page_are_those_of_the_law(opened: Browser, source: Path, page: Path) -> None:
    """What was computed when the page was written, and what its calculator says of the same cells."""
    series = predict.series(load.load([source]), "numpy")
    found = block(page)
    cells = found["cells"]
    checked = 0
    for i, row in enumerate(
        zip(cells["layers"], cells["activation"], cells["n"], cells["phase"], cells["series"], strict=True)
    ):
        layers, activation, n = found["lists"]["layers"][row[0]], found["lists"]["activation"][row[1]], row[2]
        if found["lists"]["phase"][row[3]] != "step" or found["series"][row[4]]["name"] != "numpy" or i % 5:
            continue
        expected = predict.predict(series, [int(u) for u in layers.split("-")], n, activation)
        assert [cells[k][i] for k in ("law_s", "law_low_s", "law_high_s")] == pytest.approx(
            [expected.time_s.value, expected.time_s.low, expected.time_s.high], rel=1e-4
        )
        checked += 1
    assert checked > 5


@needs_chromium
def test_the_three_questions_are_answered(opened: Browser, source: Path) -> None:
    opened.set("ask-n", "64")
    opened.set("ask-width", "256")
    run = load.load([source])
    times = {i: predict.predict(predict.series(run, i), (64, 256, 256, 10), 64, "horner-4").time_s.value for i in IMPLS}
    fastest = min(times, key=lambda impl: times[impl])
    told = opened.run("return document.getElementById('fastest-told').innerText")
    assert told.startswith(f"Fastest for n = 64, layers 64-256-256-10, horner-4: {fastest}, ")
    assert words.seconds(times[fastest]) in told.replace("\u00a0", " ")
    grown = opened.run("return document.getElementById('growth-told').innerText")
    assert grown.startswith("No for numpy: the update phase does not grow with n.")
    cells = run.entries[(run.entries["impl"] == "numpy") & (run.entries["phase"] == "update")]
    lines = cells[cells["axis"].str.contains("examples")].groupby(["layers", "activation"])
    longest = max((line for _, line in lines), key=lambda line: line["n"].nunique())
    for n in (longest["n"].min(), longest["n"].max()):
        assert f"at n = {n:,}" in grown
    assert f"times as long for {longest['n'].max() / longest['n'].min():,.0f} times the n, the same within" in grown
    opened.set("ask-by", "m")
    assert "Yes for numpy" in opened.run("return document.getElementById('growth-told').innerText")


@needs_chromium
def test_ratios_in_the_page_are_those_of_python(opened: Browser) -> None:
    """Both are told from the same two intervals, here asymmetric ones, and one of them is wide."""
    a, b = {"time_s": 3.0, "ci_low_s": 2.5, "ci_high_s": 4.0}, {"time_s": 2.0, "ci_low_s": 1.9, "ci_high_s": 2.2}
    given = [dict(zip(("value", "low", "high"), one.values(), strict=True)) for one in (a, b)]
    found = opened.run("return ratioOf(...arguments[0])", given)
    expected = ratio(pd.Series(a), pd.Series(b))
    assert [found["value"], found["low"], found["high"]] == pytest.approx([expected.value, expected.low, expected.high])
    half = np.hypot(np.log(4.0 / 2.5), np.log(2.2 / 1.9)) / 2
    assert found["high"] / found["value"] == pytest.approx(np.exp(half))


GROWING = """
const shared = {series: 'A', phase: 'step', optimizer: 'gd', layers: '4-8-2', activation: 'tanh', axes: ['examples']};
const row = (n, peak_bytes) => ({...shared, n, time_s: 1, ci_low_s: 0.9, ci_high_s: 1.1, peak_bytes});
const open = {phase: 'memory', optimizer: 'gd', series: 0, exponents: {n: {grows: 'cannot tell', told: 'cannot tell: too few'}}};
const data = {series: [{name: 'A'}], optimizer: 'gd', verdicts: [open]};
return growthTold(data, [row(1, 1000), row(100, 5000)], 'memory', 'n');
"""


@needs_chromium
def test_memory_grows_as_measured_where_no_power_can_be_told(opened: Browser) -> None:
    told = opened.run(GROWING)
    assert (
        told["head"]
        == "Yes, as measured, though as no one power of n: memory grows, A 5 times as much for 100 times the n."
    )
    assert "1 kB at n = 1, 5 kB at n = 100, 5 times as much" in told["list"][0].replace("\u00a0", " ")


CROSSING = """
const ends = (v) => [0.99 * v, 1.01 * v];
const shared = {phase: 'step', optimizer: 'gd', layers: '4-8-2', activation: 'tanh', depth: 2, width: 8};
const row = (place, n, t) => ({...shared, place, n, time_s: t, ci_low_s: ends(t)[0], ci_high_s: ends(t)[1]});
const rows = [1, 10, 100, 1000].flatMap((n) => [row(0, n, 10 + n), row(1, n, 30 + 0.5 * n)]);
const data = {series: [{name: 'A'}, {name: 'B'}], models: [null, null], optimizer: 'gd'};
const base = {inputs: 4, outputs: 2, width: 8, depth: 2, n: 10, activation: 'tanh'};
return [overtakeTold(data, rows, 1, 0, base, 'n'), overtakeTold(data, rows, 0, 0, base, 'n')];
"""


@needs_chromium
def test_where_one_overtakes_another_is_told_with_the_cells_between_which_it_lies(opened: Browser) -> None:
    """10 + n against 30 + n/2 cross at n = 40."""
    told, same = opened.run(CROSSING)
    assert told[0] == "Measured: B overtakes A between n = 10 and n = 100."
    assert "100: B 1.38 times as fast" in told[1]
    assert same == ["Choose two different implementations."]


@needs_chromium
def test_hostile_names_are_text(tmp_path: Path, window: Browser) -> None:
    found = benchmarks()
    names = {"numpy": HOSTILE[0] + HOSTILE[1] + HOSTILE[2] + HOSTILE[3], "torch": HOSTILE[4]}
    for entry in found:
        info = entry["extra_info"]
        info["impl"] = names[info["impl"]]
        info["activation"] = f"{info['activation']}<img src=x onerror=alert(1)>"
    path = planted.write(tmp_path / "x.json", found, notes=[HOSTILE[0]], left_out=[])
    page = page_alone(path, tmp_path)
    window.complaints()
    window.open(page, "#" + "<script>alert(1)</script>&axis=%3Cimg%3E&cell=999999&n=x&layers=" + "9" * 400)
    assert not window.complaints()
    assert window.run("return [...document.querySelectorAll('.verdicts strong')].map((e) => e.textContent)") == sorted(
        names.values()
    )
    assert window.run("return document.querySelectorAll('main img').length") == 0
    assert window.run("return document.querySelector('#choose-series .name').textContent") in names.values()
    assert window.run("return document.documentElement.scrollWidth <= innerWidth")


def page_alone(path: Path, folder: Path) -> Path:
    """A page without its figures."""
    run = load.load([path])
    table = cell_table.table(run.entries)
    material = report._material(run.entries, table, verdicts.judge(run.entries, table))
    write.write_report_page(folder / "report.html", run, material, report._context(run, material, [], [], []))
    return folder / "report.html"


@needs_chromium
@pytest.mark.parametrize("keep", [1, 3])
def test_tiny_runs_have_a_page(keep: int, tmp_path: Path, window: Browser) -> None:
    found = planted.entries(planted.additive, seed=1, passes=1)[:keep]
    window.complaints()
    window.open(page_alone(planted.write(tmp_path / "x.json", found), tmp_path))
    assert not window.complaints()
    assert len(window.run(SHOWN)["points"]) >= 1


def csv_of(window: Browser, selector: str) -> tuple[list[str], list[dict[str, str]]]:
    """Headers and rows of the CSV that a table is copied as."""
    text = window.run("return csvOf(document.querySelector(arguments[0]))", selector)
    found = csv.DictReader(io.StringIO(text, newline=""))
    return list(found.fieldnames or ()), list(found)


@needs_chromium
def test_tables_copy_as_csv_with_numbers_in_columns_of_their_own(opened: Browser, source: Path, page: Path) -> None:
    header, rows = csv_of(opened, "#verdict > .scroll table")
    assert header[:5] == ["implementation", "verdict", "n", "n, low", "n, high"]
    assert [row["implementation"] for row in rows] == list(IMPLS)
    entries = load.load([source]).entries
    judged = {v.impl: v for v in verdicts.judge(entries, cell_table.table(entries)) if v.phase == "step"}
    for row in rows:
        exponent = judged[row["implementation"]].exponents["n"]
        found = [float(row[name]) for name in ("n", "n, low", "n, high")]
        assert found == pytest.approx([exponent.value, exponent.ci_low, exponent.ci_high], abs=0.005)
        winner = judged[row["implementation"]].choice.winner
        assert winner
        assert float(row["its error, sizes fitted (share of 1)"]) == pytest.approx(
            winner.crossvalidated_median, rel=1e-4
        )
    count = opened.run(
        "return [document.querySelectorAll('main table').length, document.querySelectorAll('button.csv').length]"
    )
    assert count[0] == count[1]
    opened.run("document.getElementById('explore-table').open = true")
    opened.later("setTimeout(done, 100)")
    header, rows = csv_of(opened, "#explore-rows table")
    points, cells = opened.run(SHOWN)["points"], block(page)["cells"]
    times = [[cells[k][at] for k in ("n", "time_s", "ci_low_s", "ci_high_s")] for at, _, _ in points]
    named = ("n", "time (s)", "95 % interval, low (s)", "95 % interval, high (s)")
    assert [[float(row[name]) for name in named] for row in rows] == times


PLANTED_TABLE = """
const table = tableOf({caption: 'c', columns: ['a', 'b', 'words', 'm'], rows: [
  ['x, "y"', numberOf(0.0012, secondsText, 0.0011, 0.0013), make('span', {}, 'half of ', numberOf(0.5, percentText)), '12,345'],
  ['z', '–', 'none', '7'],
]});
document.body.append(table);
const found = [csvOf(table), table.rows[1].cells[1].innerText];
table.remove();
return found;
"""


@needs_chromium
def test_csv_keeps_words_and_leaves_unknown_numbers_empty(opened: Browser) -> None:
    text, shown = opened.run(PLANTED_TABLE)
    assert shown.replace("\u00a0", " ") == "1.2 ms [1.1 ms, 1.3 ms]"  # what people read stays as it was
    assert text.splitlines() == [
        'a,b (s),"b, low (s)","b, high (s)",words,"words, value (share of 1)",m',
        '"x, ""y""",0.0012,0.0011,0.0013,half of 50 %,0.5,12345',
        "z,,,,none,,7",
    ]


def test_a_number_in_words_is_text_in_markdown_and_a_number_in_html() -> None:
    found = words.interval(Interval(0.0012, 0.0011, 0.0013), words.seconds)
    assert f"took {found}" == "took 1.2 ms [1.1 ms, 1.3 ms]"
    plain = "{% autoescape false %}{{ found }}{% endautoescape %}"
    assert words.environment().from_string(plain).render(found=found) == found
    html = words.environment().from_string("{{ found }}{{ hostile|named('\"') }}")
    written = html.render(found=found, hostile=words.Number("<b>", 1, "<"))
    assert written == (
        '<data value="0.0012" data-low="0.0011" data-high="0.0013" data-unit="s">1.2 ms '
        '<span class="interval">[1.1 ms, 1.3 ms]</span></data>'
        '<data value="1" data-unit="&lt;" data-name="&#34;">&lt;b&gt;</data>'
    )


FOCUSED = """
const e = document.activeElement;
return e === document.body ? null : [e.id || e.textContent.slice(0, 40), getComputedStyle(e).outlineStyle];
"""
REACHABLE = """
const all = [...document.querySelectorAll('select, input, button, [tabindex="0"], summary, a[href]')];
return all.filter((e) => e.checkVisibility()).map((e) => e.id || e.textContent.slice(0, 40));
"""


@needs_chromium
def test_the_keyboard_alone_reaches_every_control(opened: Browser) -> None:
    opened.run("document.querySelectorAll('details').forEach((one) => { one.open = true; }); document.body.focus()")
    reached = set()
    for _ in range(250):
        opened.press("Tab")
        found = opened.run(FOCUSED)
        if found is None:
            break
        assert found[1] != "none", f"no visible focus: {found[0]}"
        reached.add(found[0])
    wanted = opened.run(REACHABLE)
    assert set(wanted) <= reached


@needs_chromium
@pytest.mark.skipif(not browser.AXE.exists(), reason=f"no axe-core: {browser.INSTALL_AXE}")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme: str, opened: Browser, page: Path) -> None:
    opened.look(1280, scheme=scheme)
    opened.open(page, "#cell=3")
    opened.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert not opened.faults()


@needs_chromium
@pytest.mark.skipif(not browser.AXE.exists(), reason=f"no axe-core: {browser.INSTALL_AXE}")
def test_axe_would_find_a_planted_fault(opened: Browser) -> None:
    opened.run("document.querySelector('main').append(document.createElement('input'))")
    assert any(line.startswith("label") for line in opened.faults())


FITS = """
const place = document.getElementById('explore-chart');
return place.querySelector('svg').clientWidth <= place.clientWidth + 1;
"""


@needs_chromium
def test_it_fits_a_phone_a_laptop_and_a_projector(window: Browser, page: Path) -> None:
    for width in (360, 1280, 1920):
        for scheme in ("light", "dark"):
            window.look(width, scheme=scheme)
            window.open(page, "#cell=3")
            assert window.run("return document.documentElement.scrollWidth <= innerWidth"), width
            assert window.run(FITS), width
            window.picture(ARTEFACTS / f"report-{width}-{scheme}.png")
    printed = window.print(ARTEFACTS / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    window.look(1280)


def test_numbers_of_the_model_are_exact(source: Path) -> None:
    series = predict.series(load.load([source]), "numpy")
    told = data.model(series)
    assert told["step"]["coefficients"] == list(series.time.final.coefficients if series.time.final else ())
    assert json.loads(json.dumps(told["seen"])) == told["seen"]
