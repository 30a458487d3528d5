"""How tools that exist judge the same planted data, next to ours: ``make other-tools``.

Along one axis: the rule of google/benchmark and big_O.  Over n, m and p: Extra-P 4.2.5, which needs NumPy before 2 and so an
environment of its own (``tests.extrap_runner``).  Every tool is handed the same cells of the same trials, their times
averaged over passes; held-out cells are as noisy as the rest.  Prints Markdown tables.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from analysis import cells, laws, load, verdicts
from analysis.cells import on_axis
from analysis.exponents import exponent
from analysis.hypotheses import declared
from analysis.statistics import Floats
from backprop_files import UserError
from tests import selftest
from tests.selftest import WORLDS, Setting

PLANTED = ("n·m·p", "n·m", "additive", "additive with calls")
NOISES = (0.01, 0.03, 0.10)
#: The known failings are shown over these n, in so many trials.
FAILING_N, FAILING_TRIALS = 2 ** np.arange(13), 500
PARAMETERS = ["n", "m", "p"]
#: The planted law as Extra-P could say it: one term, these powers and no logarithm.  The additive laws hold u, which on
#: these networks moves with m: no axis moves it alone, as Extra-P would need of a fourth parameter.
EXTRAP_TRUTH = {"n·m·p": {"n": 1.0, "m": 1.0, "p": 1.0}, "n·m": {"n": 1.0, "m": 1.0}}
EXTRAP_PYTHON = Path(".venv-extrap/bin/python")
RUNNER = Path(__file__).with_name("extrap_runner.py")

#: Candidate curves in the order google/benchmark tries them.
CURVES: dict[str, Callable[[Floats], Floats]] = {
    "O(1)": np.ones_like,
    "O(lg N)": np.log2,
    "O(N)": lambda n: n,
    "O(N lg N)": lambda n: n * np.log2(n),
    "O(N²)": lambda n: n**2,
    "O(N³)": lambda n: n**3,
}
_BIG_O = {
    "Constant": "O(1)",
    "Logarithmic": "O(lg N)",
    "Linear": "O(N)",
    "Linearithmic": "O(N lg N)",
    "Quadratic": "O(N²)",
    "Cubic": "O(N³)",
    "Polynomial": "power",
    "Exponential": "exponential",
}


def google(n: Floats, times: Floats) -> str:
    """The rule of google/benchmark's ``complexity.cc``: of the candidate curves g, each with one coefficient and no intercept,
    c = Σ t·g / Σ g², the one whose root mean square error over the mean time is least; the earlier where two are equal.
    """
    return min(CURVES, key=lambda name: _normalised_rms(CURVES[name](np.asarray(n, float)), times))


def _normalised_rms(curve: Floats, times: Floats) -> float:
    coefficient = float(times @ curve / (curve @ curve))
    return float(np.sqrt(np.mean((times - coefficient * curve) ** 2)) / times.mean())


def big_o(n: Floats, times: Floats, bias: float | None = None) -> str:
    """big_O's class (PyPI ``big-O``).  Its ``simplicity_bias``, 1e-6 unless given, is in squared seconds."""
    import big_o

    options = {} if bias is None else {"simplicity_bias": bias}
    best, _ = big_o.infer_big_o_class(n, times, **options)
    return _BIG_O[type(best).__name__]


def ours(entries: pd.DataFrame) -> str:
    """What our interval for the exponent of n says of 1."""
    return verdicts.equivalent(exponent(entries, "n", 1.0), 1.0)


def _rng(label: str) -> np.random.Generator:
    return np.random.default_rng([0, selftest.hash_of(label)])


def axis_trials(setting: Setting, trials: int) -> Iterator[pd.DataFrame]:
    """Entries of the examples axis of each trial."""
    base, rng = selftest.base(WORLDS[setting.world]), _rng(setting.label)
    for _ in range(trials):
        yield on_axis(selftest.plant(base, setting, rng)[0], "examples")


def failing_trials(seconds: Callable[[Floats], Floats], noise: float, trials: int) -> Iterator[pd.DataFrame]:
    """Entries of an examples axis from n = 1 to 4096 with these times, three passes."""
    n = np.tile(FAILING_N, 3)
    frame = pd.DataFrame(
        {"axis": "examples", "layers": "64-64-10", "activation": "tanh", "n": n, "m": 4810, "p": 16}
    ).assign(**{"pass": np.repeat([1, 2, 3], len(FAILING_N))})
    rng = _rng("failing")
    for _ in range(trials):
        yield frame.assign(time_s=seconds(n.astype(float)) * np.exp(noise * rng.standard_normal(len(n))))


def axis_row(label: str, trials: Iterator[pd.DataFrame]) -> str:
    """What every tool says of the trials, with shares."""
    told: tuple[Counter[str], ...] = (Counter(), Counter(), Counter(), Counter())
    for entries in trials:
        times = np.exp(np.log(entries["time_s"]).groupby(entries["n"]).mean())
        n, seconds = times.index.to_numpy(), times.to_numpy(float)
        answers = (google(n, seconds), big_o(n, seconds), big_o(n, seconds, bias=0.0), ours(entries))
        for counter, answer in zip(told, answers, strict=True):
            counter[answer] += 1
    return f"| {label} | {' | '.join(shares(counter) for counter in told)} |"


def shares(counter: Counter[str]) -> str:
    """The answers by frequency, those under 1 % left out."""
    total = counter.total()
    return ", ".join(f"{answer} {count / total:.0%}" for answer, count in counter.most_common() if count >= total / 100)


def tell_axis(trials: int) -> None:
    """Print the tables of the tools that look along one axis."""
    head = (
        "google/benchmark's rule | big_O | big_O, simplicity_bias 0 | ours: exponent of n is 1 ± 0.1 |\n"
        "| --- | --- | --- | --- | --- |"
    )
    print(f"Along the examples axis, O(N) past overhead, {trials} trials a row:\n\n| planted, noise | {head}")
    for world in PLANTED:
        for noise in NOISES:
            print(axis_row(f"{world}, {noise:.0%}", axis_trials(Setting(world, noise), trials)))
    print(f"\nKnown failings, n = 1, 2, 4 … 4096, noise 1 %, {FAILING_TRIALS} trials a row:\n\n| planted | {head}")
    overhead = failing_trials(lambda n: 1e-4 + 1e-9 * n, 0.01, FAILING_TRIALS)
    print(axis_row("100 µs + 1 ns·n: overhead dominates", overhead))
    print(axis_row("1 ns·n", failing_trials(lambda n: 1e-9 * n, 0.01, FAILING_TRIALS)))


@dataclass(frozen=True)
class Modelled:
    """Extra-P's answer: its terms (powers of each parameter and of its log2) and errors t̂/t - 1 on held-out cells."""

    terms: tuple[dict[str, tuple[float, float]], ...]
    errors: Floats

    def is_planted(self, world: str) -> bool:
        """Whether it is the planted law: a constant and its one term."""
        wanted = {name: (power, 0.0) for name, power in EXTRAP_TRUTH[world].items()}
        return self.terms == (wanted,)

    def leads(self, world: str) -> bool:
        """Whether the planted term is there and grows at least as fast as every other in each of n, m and p."""
        wanted = {name: (EXTRAP_TRUTH[world].get(name, 0.0), 0.0) for name in PARAMETERS}
        every = [{name: term.get(name, (0.0, 0.0)) for name in PARAMETERS} for term in self.terms]
        return wanted in every and all(term[name] <= wanted[name] for term in every for name in PARAMETERS)

    @property
    def form(self) -> str:
        """The model without its coefficients."""
        return " + ".join(["1", *("·".join(_factor(name, *powers) for name, powers in t.items()) for t in self.terms)])


def _factor(name: str, power: float, log_power: float) -> str:
    parts = [name if power == 1 else f"{name}^{power:.3g}"] if power else []
    if log_power:
        parts.append(f"lg {name}" if log_power == 1 else f"lg^{log_power:.3g} {name}")
    return "·".join(parts)


def extrap(python: Path, jobs: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> list[Modelled]:
    """Extra-P's models of (cells to model, held-out cells).  Raises UserError where it is not installed, or fails."""
    request = {"parameters": PARAMETERS, "jobs": [_job(*job) for job in jobs]}
    missing = f"Extra-P is not installed at {python}: run 'make other-tools', or give --extrap-python its Python"
    try:
        # isolated: no path or variable of this environment reaches the other
        done = subprocess.run([python, "-I", RUNNER], input=json.dumps(request), capture_output=True, text=True)
    except OSError as error:
        raise UserError(missing) from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:]
        known = any("No module named 'extrap'" in line for line in reason)
        raise UserError(missing if known else f"Extra-P failed: {' '.join(reason)}")
    answers = json.loads(done.stdout)
    return [_modelled(answer, beyond) for answer, (_, beyond) in zip(answers, jobs, strict=True)]


def _job(seen: pd.DataFrame, beyond: pd.DataFrame) -> dict[str, Any]:
    points = seen[[*PARAMETERS, "time_s"]].astype(float).to_numpy().tolist()
    return {"cells": points, "beyond": beyond[PARAMETERS].astype(float).to_numpy().tolist()}


def _modelled(answer: dict[str, Any], beyond: pd.DataFrame) -> Modelled:
    terms = tuple({name: (p[0], p[1]) for name, p in term.items()} for term in answer["terms"])
    return Modelled(terms, np.array(answer["predicted"]) / beyond["time_s"].to_numpy(float) - 1)


def designs(table: pd.DataFrame) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """What Extra-P is handed: the cells our laws may see, and all that are not held out.

    The former have three values of n, and Extra-P asks for five of each parameter; the latter have them, with cells up to
    the size of those held out.
    """
    parts = laws.split(table)
    usable = table[(table["axis"] != "functions") & ~table["heldout"]]
    return [(parts.seen, parts.heldout), (usable, parts.heldout)]


def our_law(table: pd.DataFrame, phase: str = "step") -> laws.LawFit | None:
    """Our law: held-out cells have no say in its choice, as they have none in Extra-P's."""
    return laws.choose(table, phase, declared()).winner


def errors(found: Sequence[Floats]) -> str:
    """Median and 90th percentile of |error|, each the median over trials."""
    sizes = [np.abs(part) for part in found]
    median = np.median([np.median(part) for part in sizes])
    return f"{median:.1%} / {np.median([np.quantile(part, 0.9) for part in sizes]):.1%}"


@dataclass(frozen=True)
class Trials:
    """Trials of one setting: our verdicts, our laws, and Extra-P's models on the same cells and
    on all that are not held out.
    """

    setting: Setting
    verdicts: list[verdicts.Verdict]
    ours: list[laws.LawFit]
    same: list[Modelled]
    more: list[Modelled]

    @property
    def row(self) -> str:
        """For the table."""
        world, known = self.setting.world, self.setting.world in EXTRAP_TRUTH
        found = [_found(part, world) if known else "–" for part in self._models]
        chosen = f"{np.mean([w.law.name == world for w in self.ours]):.0%}"
        told = [errors([m.errors for m in part]) for part in self._models]
        words = shares(Counter(v.word for v in self.verdicts))
        return (
            f"| {world}, {self.setting.noise:.0%} | {' | '.join(found)} | {chosen} | {' | '.join(told)} | "
            f"{errors([w.heldout for w in self.ours])} | {words} |"
        )

    @property
    def _models(self) -> tuple[list[Modelled], list[Modelled]]:
        return self.same, self.more


def _found(models: Sequence[Modelled], world: str) -> str:
    """Share of models that are the planted law, and share whose leading term is its."""
    return f"{np.mean([m.is_planted(world) for m in models]):.0%} / {np.mean([m.leads(world) for m in models]):.0%}"


def law_trials(python: Path, setting: Setting, trials: int) -> Trials:
    """Extra-P and our laws on the same trials."""
    base, rng, hypotheses = selftest.base(WORLDS[setting.world]), _rng(setting.label), declared()
    planted = [selftest.plant(base, setting, rng) for _ in range(trials)]
    models = extrap(python, [job for _, table in planted for job in designs(table)])
    judged = [verdicts.judge(entries, table, hypotheses, resamples=0)[0] for entries, table in planted]
    chosen = [fit for _, table in planted if (fit := our_law(table))]
    return Trials(setting, judged, chosen, models[::2], models[1::2])


def tell_laws(python: Path, trials: int) -> None:
    """Print the table of Extra-P and our laws, and the forms Extra-P gives most often."""
    print(
        f"Over n, m and p, {trials} trials a row; "
        "errors on held-out cells, median / 90th percentile; Extra-P finds the law / at least its leading term,\n"
        "held-out cells take no part in choosing ours:\n\n"
        "| planted, noise | Extra-P finds it | Extra-P, all cells | ours chooses it | Extra-P's error | Extra-P's, all cells "
        "| ours | our verdict on n·m·p |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    forms = []
    for world in PLANTED:
        for noise in NOISES:
            found = law_trials(python, Setting(world, noise), trials)
            print(found.row, flush=True)
            ((form, count),) = Counter(model.form for model in found.more).most_common(1)
            forms.append(f"| {world}, {noise:.0%} | {form} | {count / trials:.0%} |")
    print(
        "\n| planted, noise | Extra-P's most frequent form, all cells | share |\n| --- | --- | --- |", *forms, sep="\n"
    )


def tell_run(python: Path, directory: Path, impls: Sequence[str]) -> None:
    """Print the table of a measured run: steps of these implementations."""
    entries = load.load([directory]).entries
    table = cells.table(entries[(entries["phase"] == "step") & entries["impl"].isin(impls)])
    groups = {str(impl): rows for impl, rows in table.groupby("impl", sort=False)}
    models = extrap(python, [job for rows in groups.values() for job in designs(rows)])
    print(
        "| implementation | cells fitted | held out | Extra-P's error | Extra-P's, all cells | ours | our law | "
        "Extra-P's form, same cells |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for i, (impl, rows) in enumerate(groups.items()):
        winner = our_law(rows)
        told, law = (errors([winner.heldout]), winner.law.name) if winner else ("–", "none")
        same, more = models[2 * i], models[2 * i + 1]
        counts = " | ".join(str(len(part)) for part in (laws.split(rows).seen, laws.split(rows).heldout))
        print(
            f"| {impl} | {counts} | {errors([same.errors])} | {errors([more.errors])} | {told} | {law} | {same.form} |"
        )


def main(
    trials: Annotated[int, typer.Option(help="of every setting, for the tools that look along one axis")] = 200,
    extrap_trials: Annotated[int, typer.Option(help="of every setting, for Extra-P")] = 30,
    extrap_python: Annotated[Path, typer.Option(help="Python of an environment with Extra-P 4.2.5")] = EXTRAP_PYTHON,
    run: Annotated[Path | None, typer.Option(help="judge this measured run instead of planted data")] = None,
    impls: Annotated[str, typer.Option(help="implementations of the run")] = "numpy,torch,jax",
) -> None:
    """Print the tables."""
    started = time.monotonic()
    try:
        if run is not None:
            tell_run(extrap_python, run, impls.split(","))
        else:
            tell_axis(trials)
            print()
            tell_laws(extrap_python, extrap_trials)
    except UserError as error:
        print(error)
        raise typer.Exit(2) from error
    print(f"\n{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
