"""How fast the page of a large run is: first chart, controls, long tasks, size; beside its targets.  ``make page-check``.

The run is planted: 2,000 cells with rounds, of several implementations, and behind it an experiment over ranks by two
libraries, written to ``.page-check/``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis import cells as cell_table
from analysis import load, report, verdicts
from analysis.experiments import section
from analysis.experiments.report import ToldSection
from analysis.page import write
from analysis.pictures import picture
from tests import browser, planted, planted_parallel
from tests.browser import Browser

CELLS = 2000
FOLDER = Path(".page-check")
IMPLS = ("numpy", "torch", "jax", "autograd", "sklearn", "torch-manual")
PHASES = ("step", "forward", "loss", "backward", "update")
#: A sweep of the full profile's shape.
FULL = replace(planted.RANGE, joint=38, heldout=10)
#: Controls that a person may move, and to what.
MOVES = (
    ("choose-axis", "all"), ("choose-y", "linear"), ("choose-x", "linear"), ("choose-measure", "share"),
    ("choose-kind", "raw"), ("choose-axis", "joint"), ("choose-phase", "backward"), ("choose-kind", "normalised"),
    ("choose-measure", "time"), ("choose-axis", "examples"), ("choose-bands", "0"), ("choose-bands", "1"),
    ("ask-n", "100"), ("ask-width", "200"), ("ask-a", "2"), ("ask-along", "width"), ("ask-phase", "loss"),
    ("calculate-layers", "784-512-512-10"), ("calculate-batch", "128"),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure of the page, its target, and whether it is a wide miss: beyond twice the target."""

    name: str
    value: float
    target: float | None
    unit: str

    @property
    def missed(self) -> bool:
        return self.target is not None and self.value > 2 * self.target

    def __str__(self) -> str:
        told = f"{self.name:<46}{self.value:>10.4g} {self.unit}"
        if self.target is None:
            return told
        word = "reached" if self.value <= self.target else "MISSED WIDELY" if self.missed else "missed"
        return f"{told:<64} target {self.target:g} {self.unit}: {word}"


def large_run() -> Path:
    """A planted run of about ``CELLS`` cells, three passes of eight rounds each."""
    found: list[dict[str, Any]] = []
    for i, (impl, phase) in enumerate((impl, phase) for phase in PHASES for impl in IMPLS):
        law = planted.calls if i % 2 else planted.additive
        found += planted.entries(law, seed=i, impl=impl, phase=phase, chosen=FULL, peak_bytes=planted.arrays)
    FOLDER.mkdir(exist_ok=True)
    return planted.write(FOLDER / "large.json", found)


def experiment() -> ToldSection:
    """Two libraries over 1, 2 and 4 ranks."""
    found = planted_parallel.found()
    rows = [*found.rows, *planted_parallel.rows(seed=1, impl="jax-sharded")]
    found = replace(found, rows=rows, settings={"impls": ["torch-ddp", "jax-sharded"]})
    made = section(found)
    pictures = [picture(d.figure, d.key, d.title, d.caption, FOLDER / "figures") for d in made.figures]
    return ToldSection(made, pictures, found)


def written(source: Path) -> tuple[Path, list[Figure]]:
    """The page, how long it took beside reading and fitting, and its size."""
    start = time.perf_counter()
    run = load.load([source])
    table = cell_table.table(run.entries)
    material = report._material(run.entries, table, verdicts.judge(run.entries, table))
    pictures, absent = report._draw(material, FOLDER / "figures")
    told = [experiment()]
    analysed = time.perf_counter()
    page = FOLDER / "large.html"
    write.write_report_page(page, run, material, report._context(run, material, pictures, absent, told))
    ended = time.perf_counter()
    return page, [
        Figure("cells", len(table), None, ""),
        Figure("reading, fitting and drawing before the page", analysed - start, None, "s"),
        Figure("page written", ended - analysed, 10.0, "s"),
        Figure("size", page.stat().st_size / 2**20, 6.0, "MiB"),
    ]


OBSERVE = """
window.longest = 0;
const seen = (list) => { window.longest = Math.max(window.longest, ...list.getEntries().map((e) => e.duration)); };
new PerformanceObserver(seen).observe({type: 'longtask', buffered: true});
"""
#: From the change until the chart stands and a frame has been drawn.
TIMED = """
const [id, value] = arguments;
const control = document.getElementById(id);
const start = performance.now();
const drawn = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
const wait = () => (isQuiet() ? drawn() : setTimeout(wait, 1));
if (control.type === 'checkbox') control.click();
else { control.value = value; control.dispatchEvent(new Event('change', {bubbles: true})); }
wait();
"""


#: From an arrow key on a figure's chart until its point is lit and a frame has been drawn.
WALKED = """
const room = document.querySelectorAll('[data-chart] .chart')[arguments[0]];
const start = performance.now();
room.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
room.chart.view.runAsync().then(() => requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))));
"""


def opened(page: Path) -> list[Figure]:
    """What Chromium tells: the middle of three openings, and the slowest control of them."""
    with Browser() as window:
        window.command("Page.enable")
        window.command("Page.addScriptToEvaluateOnNewDocument", source=OBSERVE)
        openings, slowest = [], []
        for _ in range(3):
            window.open(page)
            openings.append(
                window.run(
                    "return [performance.getEntriesByName('first chart')[0].startTime,"
                    " performance.getEntriesByName('first-contentful-paint')[0].startTime, window.longest]"
                )
            )
        for control, value in MOVES:
            slowest.append((window.later(TIMED, control, value), control, value))
        charts = window.run("return document.querySelectorAll('[data-chart] .chart').length")
        walked = [window.later(WALKED, i) for i in range(charts)]
        complaints, requests = window.complaints(), window.requests()
    first, paint, longest = (sorted(column)[1] for column in zip(*openings, strict=True))
    for took, control, value in sorted(slowest, reverse=True)[:3]:
        print(f"  {control} to {value}: {took:.0f} ms")
    return [
        Figure("first chart after opening", first / 1000, 1.5, "s"),
        Figure("first contentful paint", paint / 1000, None, "s"),
        Figure("longest task while opening", longest, None, "ms"),
        Figure("slowest control", max(slowest)[0], 150.0, "ms"),
        Figure(f"slowest step within {charts} charts of figures", max(walked), 150.0, "ms"),
        Figure("complaints in the console", len(complaints), 0.0, ""),
        Figure("requests that would leave the page", len(requests), 0.0, ""),
    ]


def main() -> None:
    """Print figures beside targets; exit with 1 where one is missed widely."""
    if browser.missing():
        sys.exit(f"page-check needs Chromium: {browser.missing()}")
    page, found = written(large_run())
    found += opened(page)
    print(*found, sep="\n")
    sys.exit(1 if any(figure.missed for figure in found) else 0)


if __name__ == "__main__":
    main()
