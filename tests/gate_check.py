"""Does the gate cry wolf, and does it sleep?  Real gates on this machine: ``python -m tests.gate_check``.

Three kinds of trials, each with fresh processes throughout:

* A/A: both sides are this code.  Any accusation is false.
* Slowed: HEAD is a copy of this code in which one implementation is wrapped (``tests/slowed.py``) and really does more work:
  one cell by 10 %, and in another implementation by a term that grows with the cube of the width: 8 % at the largest,
  1 % at half of that.
* Beyond: one cell is slower by the allowance and 5 % more, with an allowance of 2 %.

On the A/A data two other rules are asked too: pytest-benchmark's ``--benchmark-compare-fail=mean:5%``, and asv's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from scipy import special, stats

from analysis import comparison, load, ratios
from analysis.comparison import Comparison
from backprop_files import write_json
from bench import duel, process, sides
from bench.plan import Settings
from bench.sides import Described, Side
from tests.slowed import point_key

ROOT = Path(__file__).parents[1]
IMPLEMENTATIONS = ("numpy", "torch", "jax")
CELLS = 12
ALLOW, SMALL_ALLOW = 0.05, 0.02
SLOWED_BY = 0.10
BEYOND_BY = (1 + SMALL_ALLOW) * 1.05 - 1
#: The seeded term, a share of the time at the largest width: an eighth of that at half the width, nothing further down.
TERM, POWER = 0.08, 3.0
BUDGET_S = 300.0
#: asv calls 1.1 times the time a change, where its test agrees.
ASV_FACTOR, ASV_P = 1.1, 0.002

console = Console()


@dataclass
class Trial:
    """One gate: what was seeded, what it said, how long it took."""

    kind: str
    seconds: float
    cells: int
    accused: list[str]
    unsure: int
    target: str = ""
    found: bool = False
    seeded: float = 0.0
    measured: float = 0.0
    grown: str = ""  # series with the seeded term
    grown_found: bool = False
    grown_false: int = 0
    others: dict[str, int] = field(default_factory=dict)  # accusations by other rules


def side(name: str, folder: Path, slowed: bool) -> Side:
    """The code as it stands as a side; with wrapped implementations if ``slowed``."""
    home = folder / name
    home.mkdir(parents=True)
    for link in ("bench", "backprop_files.py"):
        (home / link).symlink_to(ROOT / link)
    if slowed:
        _wrap(home / "impls")
    else:
        (home / "impls").symlink_to(ROOT / "impls")
    return Side(name, name, {"id": name, "time": None}, Path(sys.executable), home, home)


def _wrap(impls: Path) -> None:
    """A copy of the implementations as a change of the code would leave it: registered names lead to the wrappers."""
    shutil.copytree(ROOT / "impls", impls, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "slowed.py", impls / "slowed.py")
    registry = impls / "registry.py"
    text = registry.read_text()
    more = "\nENTRIES = tuple(\n    replace(entry, target=f'impls.slowed:{entry.name.title()}')"
    more += f" if entry.name in {IMPLEMENTATIONS} else entry\n    for entry in (*ENTRIES,)\n)\n"
    more += "_WHOLE = {f'whole-{entry.name}': entry for entry in WHOLE}\n"
    head, tail = text.split("\n_REQUIRED_METHODS", 1)
    tail = tail.replace(
        "    for entry in ENTRIES:\n",
        "    if name in _WHOLE:\n        return _WHOLE[name]\n    for entry in ENTRIES:\n",
        1,
    )
    registry.write_text(head + "\nWHOLE = ENTRIES\n" + more + "\n_REQUIRED_METHODS" + tail)


class Checker:
    """Runs trials into a folder; cells and targets are drawn by the seed."""

    def __init__(self, out: Path, seed: int, cpus: list[int]) -> None:
        self.out, self.cpus = out, cpus
        self.rng = Random(seed)
        self.settings = Settings(profile="smoke", impls=IMPLEMENTATIONS, phases=("step",))
        with tempfile.TemporaryDirectory() as folder:
            self.described: Described = sides.describe(side("base", Path(folder), False), self.settings)
        self.by_impl = {
            impl: [label for label, cell in self.described.cells.items() if cell.setting.entry.name == impl]
            for impl in IMPLEMENTATIONS
        }

    def draw(self, number: int) -> list[str]:
        """Twelve cells of two implementations, with the width axis of both."""
        pair = list(combinations(IMPLEMENTATIONS, 2))[number % 3]
        chosen = []
        for impl in pair:
            on_width = [c for c in self.by_impl[impl] if "width" in self.described.cells[c].point.axes]
            rest = [c for c in self.by_impl[impl] if c not in on_width]
            chosen += on_width + self.rng.sample(rest, CELLS // 2 - len(on_width))
        return chosen

    def gate(
        self,
        name: str,
        cells: Collection[str],
        allow: float,
        slowed: Mapping[str, Mapping[str, float]],
        judged: Callable[[Comparison, int], set[str]],
    ) -> tuple[Comparison, float]:
        """One gate as the command line runs it."""
        directory = self.out / name
        start = time.monotonic()
        os.environ["BACKPROP_BENCH_SLOWED"] = json.dumps(slowed)
        os.environ["BACKPROP_BENCH_CALIBRATED"] = str((self.out / f"{name}-extra").absolute())
        some = Described({label: self.described.cells[label] for label in cells}, [], [], self.described.facts)
        settings = Settings(profile="smoke", phases=("step",), seed=self.rng.randrange(1 << 30))
        with tempfile.TemporaryDirectory() as folder:
            pair = side("base", Path(folder), False), side("head", Path(folder), bool(slowed))
            asked = duel.Duel(pair, (some, some), settings, directory, cpus=self.cpus)
            judge = lambda look: judged(comparison.compare(directory, allow, whole=False), look)  # noqa: E731
            asked.measure(judge, start + BUDGET_S)
        return comparison.compare(directory, allow, whole=False), time.monotonic() - start

    def same(self, number: int) -> Trial:
        """An A/A gate."""
        cells = self.draw(number)
        found, seconds = self.gate(
            f"same-{number}", cells, ALLOW, {}, lambda c, look: comparison.doubtful(c, look, False)
        )
        return Trial(
            "same", seconds, len(found.cells), list(found.reasons) if found.outcome == "slower" else [], _unsure(found),
            others=other_rules(self.out / f"same-{number}"),
        )  # fmt: skip

    def slowed(self, number: int) -> Trial:
        """A gate with a cell that is 10 % slower, and a term that grows with the width in the other implementation."""
        cells = self.draw(number)
        impls = list(dict.fromkeys(self._impl(cell) for cell in cells))
        slow, grown = self.rng.sample(impls, 2)
        target = self.rng.choice([cell for cell in cells if self._impl(cell) == slow])
        seeded = {slow: self._extra(target, SLOWED_BY), grown: {}}
        on_width = [c for c in cells if self._impl(c) == grown and "width" in self.described.cells[c].point.axes]
        widest = max(self.described.cells[c].point.network.width for c in on_width)
        for cell in on_width:
            share = TERM * (self.described.cells[cell].point.network.width / widest) ** POWER
            seeded[grown] |= self._extra(cell, share)
        found, seconds = self.gate(
            f"slowed-{number}", cells, ALLOW, seeded, lambda c, look: comparison.doubtful(c, look, False)
        )
        ratio = next(ratio for ratio in found.cells if ratio.cell == target)
        larger = [change for change in found.changes if change.larger]
        return Trial(
            "slowed", seconds, len(found.cells),
            [r.cell for r in found.cells if r.word == "slower" and r.cell not in (target, *on_width)], _unsure(found),
            target, ratio.word == "slower", SLOWED_BY, ratio.interval.value - 1, grown,
            any(self._own(c.series, grown) and "width" in c.name for c in larger),
            sum(not (self._own(c.series, grown) and "width" in c.name) and target not in c.cells for c in larger),
        )  # fmt: skip

    def beyond(self, number: int) -> Trial:
        """A gate with an allowance of 2 % over one cell that is slower by that and 5 %; only that cell is looked at again."""
        impl = IMPLEMENTATIONS[number % 3]
        target = self.rng.choice(self.by_impl[impl])
        cells = [target, *self.rng.sample([cell for cell in self.by_impl[impl] if cell != target], 3)]
        found, seconds = self.gate(
            f"beyond-{number}", cells, SMALL_ALLOW, {impl: self._extra(target, BEYOND_BY)},
            lambda c, look: comparison.doubtful(c, look, False) & {target},
        )  # fmt: skip
        ratio = next(ratio for ratio in found.cells if ratio.cell == target)
        accused = [r.cell for r in found.cells if r.word == "slower" and r.cell != target]
        return Trial(
            "beyond", seconds, len(found.cells), accused, 0, target, ratio.word == "slower", BEYOND_BY,
            ratio.interval.value - 1,
        )  # fmt: skip

    def _impl(self, cell: str) -> str:
        return self.described.cells[cell].setting.entry.name

    def _own(self, series: str, impl: str) -> bool:
        return series.startswith(f"{impl} ")

    def _extra(self, cell: str, share: float) -> dict[str, float]:
        """The wrapper's order to make this cell's step ``1 + share`` times as long."""
        point = self.described.cells[cell].point
        return {point_key(point.network.layers, point.network.activation, point.n): share}


def _unsure(found: Comparison) -> int:
    return sum(not ratio.cleared and ratio.word != "slower" for ratio in found.cells)


def other_rules(directory: Path) -> dict[str, int]:
    """Cells that other rules accuse on the same data, one stored run of BASE against one later run of HEAD: the rounds of
    one process each; and asv's rule on two processes each, which it takes in turn.
    """
    rows = ratios.pairs(load.load([directory / "base"]).entries, load.load([directory / "head"]).entries)
    found = {"cells": 0, "mean:5%": 0, "median:10%": 0, "asv": 0}
    for _, cell in rows.groupby("cell"):
        base, head = (dict(zip(cell["pass"], cell[column], strict=True)) for column in ("seconds", "seconds_head"))
        found["cells"] += 1
        found["mean:5%"] += bool(np.mean(head[2]) > 1.05 * np.mean(base[1]))
        found["median:10%"] += bool(np.median(head[2]) > 1.10 * np.median(base[1]))
        found["asv"] += asv_accuses(np.concatenate([base[1], base[2]]), np.concatenate([head[3], head[4]]))
    return found


def asv_accuses(base: Any, head: Any) -> bool:
    """The rule of asv (``asv/commands/compare.py``, ``asv/statistics.py``): the median is 1.1 times the other's, and a
    Mann-Whitney U test at 0.002 tells the samples apart, where so many could.
    """
    if float(np.median(head)) <= ASV_FACTOR * float(np.median(base)):
        return False
    least = 1 / special.binom(len(base) + len(head), min(len(base), len(head)))
    return bool(least >= ASV_P or stats.mannwhitneyu(base, head).pvalue < ASV_P)


def summary(trials: Sequence[Trial]) -> list[str]:
    """The figures, one a line."""
    lines = []
    same = [trial for trial in trials if trial.kind == "same"]
    if same:
        cells = sum(trial.cells for trial in same)
        lines += [
            f"A/A gates: {len(same)} of {CELLS} cells; accusations: {sum(len(t.accused) for t in same)} (goal: at most 1)",
            f"  cells that cannot be told: {sum(t.unsure for t in same) / cells:.1%} (goal: at most 5 %)",
            f"  seconds a gate: median {np.median([t.seconds for t in same]):.0f}, "
            f"largest {max(t.seconds for t in same):.0f} (goal: at most 300)",
        ]
        asked = sum(t.others["cells"] for t in same)
        for rule in ("mean:5%", "median:10%", "asv"):
            accused = sum(t.others[rule] for t in same)
            gates = sum(t.others[rule] > 0 for t in same)
            lines.append(
                f"  the rule {rule} on the same data: {accused / asked:.1%} of cells, {gates} of {len(same)} gates fail"
            )
    for kind, goal in (("slowed", 0.95), ("beyond", 0.80)):
        some = [trial for trial in trials if trial.kind == kind]
        if some:
            lines += [
                f"{kind}: a cell slower by {some[0].seeded:.1%} found in {sum(t.found for t in some)} of {len(some)} "
                f"(goal: {goal:.0%}); measured {np.mean([t.measured for t in some]):.1%} on average; "
                f"others accused: {sum(len(t.accused) for t in some)}; "
                f"seconds a gate: median {np.median([t.seconds for t in some]):.0f}",
            ]
    grown = [trial for trial in trials if trial.grown]
    if grown:
        lines.append(
            f"a term of width^{POWER:g}, {TERM:.1%} at the largest width: found through growth in "
            f"{sum(t.grown_found for t in grown)} of {len(grown)} (goal: 90%); other axes accused: "
            f"{sum(t.grown_false for t in grown)}"
        )
    return lines


def main(
    same: Annotated[int, typer.Option(help="A/A gates")] = 40,
    slowed: Annotated[int, typer.Option(help="gates with a slowed cell and a seeded term")] = 20,
    beyond: Annotated[int, typer.Option(help="gates with a cell 5 % beyond an allowance of 2 %")] = 20,
    seed: Annotated[int, typer.Option(help="seed of all draws")] = 0,
    out: Annotated[Path, typer.Option(help="where measurements go")] = Path("reports/gate-check"),
) -> None:
    """Run the trials, taken in turn, and print the figures; ``trials.json`` holds each of them."""
    duel.refuse_used(out)
    cpus = process.pick_cpus(1)  # before this process moves off them
    process.keep_off(cpus)
    checker = Checker(out, seed, cpus)
    trials: list[Trial] = []
    kinds = [("same", same, checker.same), ("slowed", slowed, checker.slowed), ("beyond", beyond, checker.beyond)]
    runs = {kind: run for kind, _, run in kinds}
    for _, kind, number in sorted((i / count, kind, i) for kind, count, _ in kinds for i in range(count)):
        trial = runs[kind](number)
        trials.append(trial)
        write_json(out / "trials.json", [vars(t) for t in trials])
        told = f"found {trial.found}, {trial.measured:+.1%}" if trial.target else f"accused {trial.accused}"
        grown = f", growth in {trial.grown} {trial.grown_found}" if trial.grown else ""
        console.print(f"{kind} {number}: {trial.seconds:.0f} s, {told}{grown}, unsure {trial.unsure}", highlight=False)
    for line in summary(trials):
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
