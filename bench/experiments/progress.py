"""Cost against progress: batch, mini-batch and stochastic gradient descent, plain and adaptive, tuned alike.

What progress a step makes is mathematics, the same in every library but for rounding; what it costs is not.  So each is
measured where it shows best: a run goes through its epochs and is looked at again and again, also within an epoch; and
beside it whole epochs are timed in rounds, as a sweep times its cells.  Seconds to a level are epochs × seconds per epoch.
The run's own clock, which bears the many short pieces, is kept as a check.

Every optimizer gets its learning rate in the same way, anew for each seed: from a grid, by the loss on the validation rows.
So what tuning leaves to chance differs between seeds and shows in the intervals.  The test rows have no part in it.  NumPy
alone does that, since the curves of all libraries coincide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backprop_files import UserError
from bench.experiments import Experiment, Row, Settings, Task
from bench.experiments.training import Look, Schedule, check_batch, float64, losses, train, trainer_of, warm_up
from bench.experiments.workbench import Workbench, rounds_row
from impls import datasets, optimizers, reference
from impls.datasets import Dataset, Parts
from impls.interface import AnyArray, Array, Network, Problem
from impls.losses import LOSSES
from impls.problem import initial_parameters

#: Neighbouring rates of a grid are so far apart; it has so many, and grows by so many more on either side.
FACTOR, GRID, MOST_MORE = 3.0, 5, 5
#: The middle of the grid, by optimizer, for batch, mini-batch and stochastic descent.
CENTRES = {
    "gradient-descent": (0.3, 0.2, 0.01),
    "momentum": (0.2, 0.03, 0.001),
    "nesterov": (0.2, 0.03, 0.001),
    "adagrad": (0.1, 0.1, 0.06),
    "rmsprop": (0.003, 0.005, 0.002),
    "adam": (0.01, 0.01, 0.001),
}
VARIANTS = ("batch", "mini-batch", "stochastic")
MINI_BATCH = 32
#: Units of the hidden layer; fewer for the few rows of diabetes.
HIDDEN, HIDDEN_OF = 64, {"diabetes": 32}
#: Looks are so far apart, one step after the other growing by this: progress is quick at first.
SPACING = 1.2
#: An epoch is looked at within up to so many times; below half of that equal pieces, which compile once, are not sought.
MOST_PIECES = 20
#: Whole epochs are timed for so long; one that takes longer is timed once.
COST_S = 0.03
#: The seeds of tries lie so far from those of runs: no rate is chosen by the very run it is then shown with.
TRIES = 1_000_000


@dataclass(frozen=True)
class Plan:
    """The size of the experiment: epochs of a run and of a try in the grid, by variant; seeds, spread over processes."""

    epochs: tuple[int, int, int]
    tries: tuple[int, int, int]
    seeds: int
    passes: int
    optimizers: tuple[str, ...] = optimizers.NAMES
    grid: int = GRID


PLANS = {
    "smoke": Plan((20, 3, 1), (10, 2, 1), 2, 1, ("gradient-descent", "adam"), 3),
    "quick": Plan((200, 15, 3), (60, 8, 2), 3, 1),
    "full": Plan((600, 40, 8), (200, 15, 3), 8, 4),
}


def tasks(settings: Settings) -> list[Task]:
    """Tuning first.  Raises UserError for data that cannot be used."""
    plan = PLANS[settings.profile]
    cells = [
        {"data": data, "variant": variant, "optimizer": optimizer, "batch": batch, "split": settings.seed}
        for data in data_of(settings)
        for variant, batch in batches(datasets.split(datasets.find(data), settings.seed).train.n).items()
        for optimizer in plan.optimizers
    ]
    tuning = {_name(cell): _tuning(cell, settings, plan) for cell in cells}
    runs = [
        _run(cell, settings, plan, impl, pass_number, tuning[_name(cell)].key)
        for pass_number in range(1, plan.passes + 1)
        for impl in settings.impls
        for cell in cells
    ]
    return [*tuning.values(), *runs]


def data_of(settings: Settings) -> tuple[str, ...]:
    """Classes and numbers, unless the user has data of another kind."""
    usual = Settings().data
    with_numbers = settings.data == usual and settings.profile != "smoke"
    return (usual, "diabetes") if with_numbers else (settings.data,)


def batches(n: int) -> dict[str, int]:
    """The size of a batch by variant: of few rows a mini-batch is half."""
    return dict(zip(VARIANTS, (n, min(MINI_BATCH, max(1, n // 2)), 1), strict=True))


def _name(cell: Mapping[str, Any]) -> str:
    return f"{datasets.find(cell['data']).name} {cell['variant']} {cell['optimizer']}"


def _tuning(cell: Mapping[str, Any], settings: Settings, plan: Plan) -> Task:
    which = VARIANTS.index(cell["variant"])
    centre = CENTRES[cell["optimizer"]][which]
    seeds = [settings.seed + i for i in range(plan.seeds)]
    grid = {"rates": [centre * FACTOR**k for k in _around(plan.grid)], "seeds": seeds, "epochs": plan.tries[which]}
    return Task(f"rates: {_name(cell)}", "numpy", {**cell, **grid, "tuning": True}, timeout_s=3600.0, device="cpu")


def _around(count: int) -> range:
    return range(-(count // 2), count - count // 2)


def _run(cell: Mapping[str, Any], settings: Settings, plan: Plan, impl: str, pass_number: int, needs: str) -> Task:
    epochs = plan.epochs[VARIANTS.index(cell["variant"])]
    seeds = [settings.seed + i for i in range(pass_number - 1, plan.seeds, plan.passes)]
    arguments = {**cell, "seeds": seeds, "epochs": epochs, "tuning": False}
    key = f"{_name(cell)}, seed {'+'.join(map(str, seeds))}, {impl}"
    return Task(key, impl, arguments, pass_number, timeout_s=3600.0, needs=(needs,))


def measure(bench: Workbench, arguments: Mapping[str, Any]) -> list[Row]:
    """The rows of one task."""
    parts = datasets.split(datasets.find(arguments["data"]), arguments["split"])
    check_batch(arguments["batch"], parts.train.n)
    if arguments["tuning"]:
        return tune(bench, parts, arguments)
    rates = {row["seed"]: row["rate"] for row in arguments["found"] if row["chosen"]}
    return [run(bench, parts, arguments, rates[seed], seed) for seed in arguments["seeds"]]


def network_of(dataset: Dataset) -> Network:
    """One hidden layer of tanh between the data's features and outputs, and the loss of their kind."""
    return Network((dataset.features, HIDDEN_OF.get(dataset.name, HIDDEN), dataset.outputs), "tanh", dataset.loss)


def problem_of(part: Dataset, seed: int, rate: float, optimizer: str) -> Problem:
    """To learn these rows; the seed is that of the parameters."""
    network = network_of(part)
    parameters = initial_parameters(network, np.random.default_rng([seed, *network.layers]))
    return Problem(network, part.inputs, part.targets, parameters, rate, optimizer)


def schedule_of(n: int, batch: int, epochs: int, seed: int) -> Schedule:
    """Pieces of an epoch, and looks that lie close at first and ever further apart."""
    whole = n // batch
    most = min(MOST_PIECES, whole)
    pieces = next((k for k in range(most, most // 2, -1) if whole % k == 0), most)
    return Schedule(batch, epochs, seed, looks(epochs * pieces), pieces)


def looks(last: int) -> tuple[int, ...]:
    """1, 2, 3, … and then each ``SPACING`` times the one before, up to ``last``."""
    found = [1]
    while found[-1] < last:
        found.append(min(last, max(found[-1] + 1, round(SPACING * found[-1]))))
    return tuple(found)


# --- tuning ---------------------------------------------------------------------------------------------------------


def tune(bench: Workbench, parts: Parts, arguments: Mapping[str, Any]) -> list[Row]:
    """Rows of every rate that was tried, by rate and seed; ``chosen`` marks the best one for each seed.

    While a seed's best rate lies on the edge of the grid, the grid grows there.  Raises UserError where every rate diverges.
    """
    seeds = arguments["seeds"]
    tried: dict[float, list[Row]] = {}
    wanted = set(arguments["rates"])
    for _ in range(MOST_MORE + 1):
        tried |= {rate: [_try(bench, parts, arguments, rate, seed) for seed in seeds] for rate in wanted}
        scores = [{rate: _score(rows[i]) for rate, rows in tried.items()} for i in range(len(seeds))]
        wanted = {beyond for one in scores if (beyond := beyond_edge(one)) is not None}
        if not wanted:
            break
    best = [min(one, key=lambda rate: (one[rate], rate)) for one in scores]
    if not all(math.isfinite(one[rate]) for one, rate in zip(scores, best, strict=True)):
        raise UserError(f"every learning rate from {min(tried):.2g} to {max(tried):.2g} diverges")
    return [row | {"chosen": rate == best[i]} for rate in sorted(tried) for i, row in enumerate(tried[rate])]


def beyond_edge(scores: Mapping[float, float]) -> float | None:
    """The rate to try next: beyond the best where that is the largest or the smallest; None where it is within."""
    best = min(scores, key=lambda rate: (scores[rate], rate))  # where all diverge, the smallest
    if best == min(scores):
        return best / FACTOR
    return best * FACTOR if best == max(scores) else None


def _score(row: Row) -> float:
    return math.inf if row["score"] is None else float(row["score"])


def _try(bench: Workbench, parts: Parts, arguments: Mapping[str, Any], rate: float, seed: int) -> Row:
    """How a rate does for a seed, by the loss on the validation rows."""
    problem = problem_of(parts.train, seed + TRIES, rate, arguments["optimizer"])
    schedule = schedule_of(problem.n, arguments["batch"], arguments["epochs"], seed + TRIES)
    validation = losses(problem_of(parts.validation, seed, rate, arguments["optimizer"]))
    curve = train(bench, problem, schedule, validation, enough=lambda seen: False)
    diverged_at = curve[-1]["diverged_at"]
    found = None
    if diverged_at is None:
        found = mean_over_log([row["epoch"] for row in curve[1:]], [row["loss"] for row in curve[1:]])
    return {"rate": rate, "seed": seed, "score": found, "diverged_at": diverged_at}


def mean_over_log(epochs: Sequence[float], values: Sequence[float]) -> float:
    """∫ value d(log epoch) / ∫ d(log epoch), straight from look to look: a factor of time counts alike, early or late."""
    if len(values) == 1:
        return values[0]
    widths = np.diff(np.log(epochs))
    return float(np.add(values[1:], values[:-1]) / 2 @ widths / widths.sum())


# --- runs -----------------------------------------------------------------------------------------------------------


def run(bench: Workbench, parts: Parts, arguments: Mapping[str, Any], rate: float, seed: int) -> Row:
    """One run: its curves, look by look, and rounds of whole epochs (``seconds`` of one)."""
    problem = problem_of(parts.train, seed, rate, arguments["optimizer"])
    schedule = schedule_of(problem.n, arguments["batch"], arguments["epochs"], seed)
    curve = train(bench, problem, schedule, progress(parts), enough=lambda seen: False)
    seen = {key: [_short(row[key]) for row in curve] for key in ("epoch", "loss", "test_loss", "test_score")}
    return {
        "seed": seed,
        "rate": rate,
        "n": problem.n,
        "layers": list(problem.network.layers),
        "kind": parts.train.kind,
        "name": parts.train.name,
        "steps": [row["steps"] for row in curve],
        "clocked_s": [_short(row["seconds"]) for row in curve],
        "diverged_at": curve[-1]["diverged_at"],
        **seen,
        **cost(bench, problem, schedule),
    }


def _short(value: float | None) -> float | None:
    """Eight digits: what float32 can tell, and shorter."""
    return None if value is None else float(f"{value:.8g}")


def progress(parts: Parts) -> Look:
    """The loss on the rows trained on, as ``loss``, and on the test rows the loss and the accuracy, or R²."""
    network = network_of(parts.train)
    value = LOSSES[network.loss].value

    def look(parameters: Sequence[AnyArray]) -> dict[str, float]:
        theta = float64(parameters)
        trained, tested = (reference.outputs(network, theta, part.inputs) for part in (parts.train, parts.test))
        return {
            "loss": float(value(reference.XP, trained, parts.train.targets)),
            "test_loss": float(value(reference.XP, tested, parts.test.targets)),
            "test_score": skill(tested, parts.test),
        }

    return look


def skill(outputs: Array, part: Dataset) -> float:
    """The share of rows whose class is right; R² = 1 - Σ (y - t)² / Σ (t - mean t)² of numbers."""
    if part.labels is not None:
        return float(np.mean(outputs.argmax(axis=1) == part.labels))
    spread = float(np.sum((part.targets - part.targets.mean(axis=0)) ** 2))
    return 1.0 - float(np.sum((outputs - part.targets) ** 2)) / spread if spread else math.nan


def cost(bench: Workbench, problem: Problem, schedule: Schedule) -> Row:
    """Rounds of a whole epoch at one go, as a user would hand it over: how far training has come does not change its cost."""
    warm_up(bench, problem, Schedule(schedule.batch, 1))
    trainer = trainer_of(bench, problem)
    epoch = partial(trainer.epoch, schedule.order(problem.n, 1), schedule.batch)
    once = bench.once(epoch, trainer.synchronize)
    if once["seconds"] > COST_S:  # thousands of steps already
        return once
    return rounds_row(bench.time(epoch, trainer.synchronize, COST_S))


EXPERIMENT = Experiment(
    name="progress",
    claim="stochastic and mini-batch descent and adaptive methods trade cost for progress",
    summary="digits and diabetes, six optimizers tuned alike: loss and accuracy by epoch and by second, time to a level",
    tasks=tasks,
    measure=measure,
    uses_data=True,
)
