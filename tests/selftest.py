"""The laws and verdicts on planted truth, many seeded trials a setting: ``make selftest`` runs 500 of each.

A trial plants a law at the cells of a quick sweep, adds noise between passes, and has the analysis judge it.  Told are:
how often the true law is chosen, how often intervals cover the true exponent, how often a true hypothesis is refuted,
and how often a false one is supported.  Times are planted as normalised seconds; what a machine adds is another matter
(``make repeatability``).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from analysis import load, verdicts
from analysis.exponents import exponents
from analysis.hypotheses import declared
from analysis.verdicts import equivalent
from bench import profiles
from tests import planted

CACHES = {"L1d": "32K", "L2": "1024K", "L3": "32M"}
TRIALS = 500


@dataclass(frozen=True)
class World:
    """A planted law, the name of the declared one that is true, and the exponents of a step past overhead."""

    name: str
    seconds: Callable[[dict[str, Any]], float]
    true_law: str
    exponents: dict[str, float] = field(
        default_factory=dict
    )  # those that are plain powers; others by the noiseless fit


def _exact(f: dict[str, Any]) -> float:
    products = sum(kinds.get("product", 0) for kinds in f["operations"].values()) / 2
    return float(2e-6 + 4e-6 * f["depth"] + 3e-7 * (f["depth"] - 1) * f["p"] + 2.3e-11 * products) + float(
        f["n"] * 8e-11 * f["u"] * f["p"] + 3e-10 * f["m"]
    )


def _cliff(f: dict[str, Any]) -> float:
    """n·m·p with a step in price where the batch leaves a cache: 1.6 times beyond 512 examples."""
    return float(5e-6 + 2e-12 * f["n"] * f["m"] * f["p"] * (1.6 if f["n"] > 512 else 1.0))


NMP = {"n": 1.0, "m": 1.0, "p": 1.0, "m_depth": 1.0, "m_width": 1.0}
WORLDS = {
    world.name: world
    for world in (
        World("n·m·p", planted.nmp, "n·m·p", NMP),
        World("n·m", planted.nm, "n·m", NMP | {"p": 0.0}),
        World("additive", planted.additive, "additive", {"n": 1.0}),
        World("additive with calls", planted.calls, "additive with calls", {"n": 1.0}),
        World("exact products with calls", _exact, "exact products with calls", {"n": 1.0}),
        World("n·m·p with a cliff", _cliff, "", {"p": 1.0, "m": 1.0, "m_depth": 1.0, "m_width": 1.0}),
    )
}


@dataclass(frozen=True)
class Setting:
    """Noise of a cell in a pass (log), what passes share along size (log per e-fold), wild passes, and passes."""

    world: str
    noise: float
    passes: int = 3
    tilt: float = 0.0
    wild: float = 0.0  # share of cells and passes that a disturbance makes 1.3 to 3 times as long

    @property
    def label(self) -> str:
        """For the table."""
        extra = (f", passes tilt {self.tilt:.0%}" if self.tilt else "") + (
            f", {self.wild:.0%} wild" if self.wild else ""
        )
        return f"{self.world}, noise {self.noise:.0%}, {self.passes} passes{extra}"


SETTINGS = (
    *(Setting(world, noise) for world in WORLDS for noise in (0.01, 0.03, 0.10)),
    *(Setting(world, 0.03, passes=5) for world in ("n·m·p", "additive")),
    *(Setting(world, 0.03, tilt=0.01) for world in ("n·m·p", "additive")),
    *(Setting(world, 0.03, wild=0.03) for world in ("n·m·p", "n·m", "additive", "additive with calls")),
)


def base(world: World) -> pd.DataFrame:
    """The cells of a quick sweep, one row each, with the planted seconds as ``time_s``."""
    benchmarks = planted.entries(world.seconds, seed=0, passes=1, noise=planted.Noise(0.0, 0.0), rounds=1)
    rows = [load._row("planted", entry) | load.cache_bytes(CACHES) for entry in benchmarks]
    frame = pd.DataFrame(rows)
    return frame.assign(time_s=frame["raw_s"]).drop(columns=["seconds", "references"])


def plant(cells: pd.DataFrame, setting: Setting, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Entries (a row a cell and pass) and cells (a row a cell) of one trial."""
    count = len(cells)
    size = np.log(cells["operations_total"].to_numpy(float))
    logs = np.log(cells["time_s"].to_numpy(float))[:, None] + setting.noise * rng.standard_normal(
        (count, setting.passes)
    )
    logs += setting.tilt * (size - size.mean())[:, None] * rng.standard_normal(setting.passes)
    wild = rng.random((count, setting.passes)) < setting.wild
    logs += wild * np.log(rng.uniform(1.3, 3.0, (count, setting.passes)))
    passes = [cells.assign(**{"pass": k + 1, "time_s": np.exp(logs[:, k])}) for k in range(setting.passes)]
    # the cell table takes the geometric mean over passes
    return pd.concat(passes, ignore_index=True), cells.assign(time_s=np.exp(logs.mean(axis=1)))


@dataclass
class Tally:
    """What came of the trials of one setting."""

    trials: int = 0
    chosen: int = 0
    covered: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0] for name in ("n", "m", "p")})
    refuted: list[int] = field(
        default_factory=lambda: [0, 0]
    )  # exponents of the true law called refuted, of all judged
    supported: dict[str, int] = field(default_factory=dict)  # by false law
    winners: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> Tally:
        """Join two tallies."""
        self.trials += other.trials
        self.chosen += other.chosen
        for name, (hit, of) in other.covered.items():
            self.covered[name] = [self.covered[name][0] + hit, self.covered[name][1] + of]
        self.refuted = [a + b for a, b in zip(self.refuted, other.refuted, strict=True)]
        for mine, theirs in ((self.supported, other.supported), (self.winners, other.winners)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        return self


def truth(cells: pd.DataFrame, world: World) -> dict[str, float]:
    """True exponents: plain powers as planted; where growth is none, what the estimator makes of it without noise."""
    found = exponents(cells.assign(**{"pass": 1}), {})
    return {name: world.exponents.get(name, found[name].value or np.nan) for name in found}


def false_laws(cells: pd.DataFrame) -> set[str]:
    """Declared laws that a world without noise does not support.  A law that holds the true one as a special case, or
    that cannot be told from it at these cells, is not false.
    """
    entries = pd.concat([cells.assign(**{"pass": number}) for number in (1, 2, 3)], ignore_index=True)
    (verdict,) = verdicts.judge(entries, cells, declared(), resamples=0)
    return {judged.fit.law.name for judged in verdict.laws if judged.word != "supported"}


def run(setting: Setting, trials: int, seed: int) -> Tally:
    """Judge so many trials of a setting."""
    world, laws, tally = WORLDS[setting.world], declared(), Tally()
    cells = base(world)
    true, false = truth(cells, world), false_laws(cells)
    rng = np.random.default_rng([seed, abs(hash_of(setting.label))])
    for _ in range(trials):
        entries, table = plant(cells, setting, rng)
        (verdict,) = verdicts.judge(entries, table, laws, resamples=0)
        tally.trials += 1
        winner = verdict.choice.winner.law.name if verdict.choice.winner else "none"
        tally.chosen += winner == world.true_law
        tally.winners[winner] = tally.winners.get(winner, 0) + 1
        for name in tally.covered:
            found = verdict.exponents[name]
            if found.ci_low is not None and found.ci_high is not None and np.isfinite(true[name]):
                tally.covered[name][0] += found.ci_low <= true[name] <= found.ci_high
                tally.covered[name][1] += 1
                tally.refuted[0] += equivalent(found, true[name]) == "refuted"
                tally.refuted[1] += 1
        for judged in verdict.laws:
            name = judged.fit.law.name
            if judged.word == "supported" and name in false:
                tally.supported[name] = tally.supported.get(name, 0) + 1
        if verdict.word == "supported" and any(world.exponents.get(k) != 1.0 for k in "nmp"):
            tally.supported["n·m·p (verdict)"] = tally.supported.get("n·m·p (verdict)", 0) + 1
    return tally


def hash_of(text: str) -> int:
    """The same in every process, unlike ``hash``."""
    return int.from_bytes(text.encode()[-8:], "little") + sum(map(ord, text))


def _part(job: tuple[Setting, int, int]) -> Tally:
    return run(*job)


def run_all(settings: Sequence[Setting], trials: int, workers: int) -> dict[Setting, Tally]:
    """Every setting, its trials shared among processes."""
    jobs = [(setting, trials // workers, seed) for setting in settings for seed in range(workers)]
    found: dict[Setting, Tally] = {setting: Tally() for setting in settings}
    with ProcessPoolExecutor(workers) as pool:
        for (setting, _, _), tally in zip(jobs, pool.map(_part, jobs), strict=True):
            found[setting].add(tally)
    return found


def row(setting: Setting, tally: Tally) -> str:
    """A line of the table."""
    cover = " | ".join("–" if not of else f"{hit / of:.1%}" for hit, of in tally.covered.values())
    false = ", ".join(f"{name} {count / tally.trials:.1%}" for name, count in sorted(tally.supported.items())) or "none"
    chosen = f"{tally.chosen / tally.trials:.1%}" if WORLDS[setting.world].true_law else "–"
    wrong = f"{tally.refuted[0] / tally.refuted[1]:.1%}" if tally.refuted[1] else "–"
    return f"| {setting.label} | {chosen} | {cover} | {wrong} | {false} |"


def fitting_s() -> tuple[int, float]:
    """Cells of a full run, and seconds that fitting, judging and 1,000 draws of it take on one core."""
    benchmarks = planted.entries(
        planted.calls, seed=0, passes=5, rounds=1, chosen=replace(profiles._FULL, functions=())
    )
    rows = [load._row("planted", entry) | load.cache_bytes(CACHES) for entry in benchmarks]
    frame = pd.DataFrame(rows).drop(columns=["seconds", "references"])
    frame["time_s"] = frame["raw_s"]
    copies = [
        frame.assign(impl=impl, phase=phase, peak_bytes=8 * frame["m"] + 12 * frame["n"] * frame["units"])
        for impl in ("a", "b", "c", "d")
        for phase in ("step", "forward", "backward", "update")
    ]
    entries = pd.concat(copies, ignore_index=True)
    table = entries[entries["pass"] == 1]
    started = time.monotonic()
    verdicts.judge(entries, table)
    return len(table), time.monotonic() - started


def main(
    trials: Annotated[int, typer.Option(help="of every setting")] = TRIALS,
    workers: Annotated[int, typer.Option(help="processes")] = os.cpu_count() or 1,
    only: Annotated[str, typer.Option(help="settings whose label holds this")] = "",
) -> None:
    """Print the table of all settings."""
    started = time.monotonic()
    settings = [setting for setting in SETTINGS if only in setting.label]
    print(
        "| planted | true law chosen | n covered | m covered | p covered | true exponent refuted | false laws supported |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found = run_all(settings, trials, workers)
    for setting, tally in found.items():
        print(row(setting, tally))
    count, seconds = fitting_s()
    print(f"\nFitting and judging {count:,} cells × 5 passes with 1,000 draws took {seconds:.1f} s on one core.")
    print(f"\n{sum(t.trials for t in found.values()):,} trials in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
