"""How well steps are found in planted histories, beside rules that compare neighbours; and how long a large file takes.

``make history-check``.  300 commits, noise of 1 to 2 % a commit, 0 to 3 steps of 3 to 30 % up or down, 20 commits apart and
15 from the ends at the least, six spikes of 10 to 50 %, 15 single commits and 3 to 12 in a row not measured; and each kind
of drift (``tests.planted_history``).  A step counts as found where one is told within three commits measured, in its
direction; each counts once.  Prints Markdown tables.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from analysis import changepoints
from analysis.statistics import Interval
from tests import planted_history
from tests.planted_history import DRIFTS, Planted

#: Commits measured between a planted step and the one told.
NEAR = 3

CORRELATIONS = (0.0, 0.3)
ROWS = 100_000


@dataclass(frozen=True)
class Told:
    """A step as some rule tells it: position, size (log), and where it must lie."""

    at: int
    size: Interval
    before: int
    after: int


Rule = Callable[[Planted], list[Told]]


def ours(planted: Planted) -> list[Told]:
    """The detector of the history."""
    found = changepoints.detect(planted.y, planted.places.astype(float))
    return [Told(step.at, step.size, step.before, step.after) for step in found.steps]


def neighbours(factor: float) -> Rule:
    """An alert where a value is ``factor`` times the one before, or the one before that times the value.

    What github-action-benchmark's ``alert-threshold`` does, which asks for 200 % by default, but in both directions.
    """

    def rule(planted: Planted) -> list[Told]:
        changes = np.diff(planted.y)
        places = np.flatnonzero(np.abs(changes) > math.log(factor)) + 1
        return [Told(int(i), Interval(float(changes[i - 1]), math.nan, math.nan), int(i) - 1, int(i)) for i in places]

    return rule


@dataclass
class Score:
    """Counts over many histories."""

    planted: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})  # by whether large
    found: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    told: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})  # by the size told
    right: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    covered: int = 0
    within: int = 0

    def add(self, planted: Planted, told: list[Told]) -> None:
        """One history."""
        pairs = matched(planted.steps, told)
        for number, (place, size) in enumerate(planted.steps):
            large = abs(math.expm1(size)) >= 0.1
            self.planted[large] += 1
            if number in pairs:
                step = told[pairs[number]]
                self.found[large] += 1
                self.covered += step.size.low <= size <= step.size.high
                self.within += step.before < place <= step.after
        for number, step in enumerate(told):
            large = abs(math.expm1(step.size.value)) >= 0.1
            self.told[large] += 1
            self.right[large] += number in pairs.values()

    def recall(self, large: bool) -> float:
        """Share of planted steps that are told."""
        return self.found[large] / max(self.planted[large], 1)

    def precision(self, large: bool) -> float:
        """Share of told steps that were planted."""
        return self.right[large] / max(self.told[large], 1)


def matched(steps: Iterable[tuple[int, float]], told: list[Told]) -> dict[int, int]:
    """Planted step by number -> the nearest told one of its direction that is near and not taken."""
    pairs: dict[int, int] = {}
    for number, (place, size) in enumerate(steps):
        near = [
            (abs(step.at - place), i)
            for i, step in enumerate(told)
            if abs(step.at - place) <= NEAR and step.size.value * size > 0 and i not in pairs.values()
        ]
        if near:
            pairs[number] = min(near)[1]
    return pairs


def score(rule: Rule, trials: int, drift: str, correlation: float, seed: int = 1) -> Score:
    """A rule on ``trials`` histories; every rule is handed the same ones."""
    rng = np.random.default_rng(seed)
    found = Score()
    for _ in range(trials):
        planted = planted_history.series(rng, drift=drift, correlation=correlation)
        found.add(planted, rule(planted))
    return found


def alarms(rule: Rule, trials: int, drift: str, correlation: float, seed: int = 2) -> float:
    """Share of histories without a step in which one is told."""
    rng = np.random.default_rng(seed)
    histories = (planted_history.series(rng, steps=0, drift=drift, correlation=correlation) for _ in range(trials))
    return float(np.mean([bool(rule(planted)) for planted in histories]))


def detection(trials: int) -> None:
    """The table of rules and kinds of history."""
    print(f"\n{trials} histories with 0 to 3 steps and {trials} without a row\n")
    print(
        "| rule | drift | φ | recall ≥ 10 % | precision ≥ 10 % | recall 3–10 % | precision < 10 % | alarms without steps |"
        " size in interval | place in range | ms |"
    )
    print("| --- |" * 1 + " --- |" * 10)
    for drift in DRIFTS:
        for correlation in CORRELATIONS:
            _row("history", ours, trials, drift, correlation)
    for factor in (1.1, 1.5):
        _row(f"{factor} × the one before", neighbours(factor), trials, "none", 0.0)


def _row(name: str, rule: Rule, trials: int, drift: str, correlation: float) -> None:
    began = time.perf_counter()
    found = score(rule, trials, drift, correlation)
    taken = (time.perf_counter() - began) / trials
    false = alarms(rule, trials, drift, correlation)
    count = max(sum(found.found.values()), 1)
    shares = [found.recall(True), found.precision(True), found.recall(False), found.precision(False), false]
    told = [f"{share:.1%}" for share in shares]
    told += [f"{found.covered / count:.0%}", f"{found.within / count:.0%}"] if rule is ours else ["–", "–"]
    print(f"| {name} | {drift} | {correlation:g} | {' | '.join(told)} | {1e3 * taken:.1f} |", flush=True)


def large_file(rows: int) -> None:
    """Wall time of the command line on a file with so many rows, each command in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        db, page = Path(folder) / "history.db", Path(folder) / "history.html"
        planted_history.database(db, rows=rows)
        print(f"\n{rows:,} rows, {rows // 300} series of 300 commits, {db.stat().st_size / 1e6:.1f} MB\n")
        print("| command | s |\n| --- | --- |")
        commands = {
            "page, nothing found before": ("page", "--out", str(page)),
            "page again": ("page", "--out", str(page)),
            "show": ("show",),
            "show --impl numpy --phase step": ("show", "--impl", "numpy", "--phase", "step"),
            "export --format csv": ("export", "--out", str(Path(folder) / "x.csv")),
        }
        for name, arguments in commands.items():
            print(f"| {name} | {timed(db, *arguments):.2f} |", flush=True)
        print(f"\npage: {page.stat().st_size / 1e6:.1f} MB")


def timed(db: Path, command: str, *arguments: str) -> float:
    """Seconds of one command in a fresh process."""
    began = time.perf_counter()
    whole = [sys.executable, "-m", "backprop_bench", "history", command, "--db", str(db), *arguments]
    subprocess.run(whole, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    return time.perf_counter() - began


def main(
    trials: Annotated[int, typer.Option(help="histories a row")] = 500,
    rows: Annotated[int, typer.Option(help="numbers in the large file")] = ROWS,
) -> None:
    """Print both tables."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # what is told is told of one core
    detection(trials)
    large_file(rows)


if __name__ == "__main__":
    typer.run(main)
