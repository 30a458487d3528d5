"""Training runs: an implementation goes through its epochs on the clock, and stands still while it is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backprop_files import UserError
from bench.experiments.workbench import Workbench
from impls import conformance, optimizers, reference
from impls.interface import AnyArray, Array, Network, Problem, Trains
from impls.losses import LOSSES
from impls.problem import make_problem

#: A loss that is so many times that of the start, or no number, has diverged.
DIVERGED = 100.0

#: What is looked at after an epoch: parameters in, numbers out; ``loss`` must be among them.
Look = Callable[[Sequence[AnyArray]], Mapping[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How a problem is gone through: examples in a batch, epochs at most, the seed of their orders, when to look.

    ``looks`` are epochs after which it is looked at (0 is the start); none: after every one.
    """

    batch: int
    epochs: int
    seed: int = 0
    looks: tuple[int, ...] = ()

    def order(self, n: int, epoch: int) -> NDArray[np.intp]:
        """The order of the examples in an epoch: the same in every library."""
        return np.random.default_rng([self.seed, n, epoch]).permutation(n)


def trainer_of(bench: Workbench, problem: Problem) -> Trains:
    """The implementation on a problem that it goes through in batches.

    Raises UserError for one that cannot, Mismatch for one whose epochs on a small problem are not the reference's.
    """
    network = problem.network
    if reason := bench.entry.cannot(network, problem.optimizer):
        raise UserError(reason)
    kind = (network.activation, network.loss, problem.optimizer)
    if kind not in bench.held:  # once in a process, before anything is timed
        _check_epochs(bench, *kind)
        bench.held.add(kind)
    return _trainer(bench, problem)


def _trainer(bench: Workbench, problem: Problem) -> Trains:
    found = bench.prepare(problem)
    if not isinstance(found, Trains):
        raise UserError(f"{bench.entry.name} has no 'epoch': see the Trains protocol in impls/interface.py")
    return found


def _check_epochs(bench: Workbench, activation: str, loss: str, optimizer: str) -> None:
    rate = conformance.BOLD * optimizers.find(optimizer).learning_rate
    network = Network((5, 7, 6, 4), activation, loss)
    problem = make_problem(network, 9, bench.seed, learning_rate=rate, optimizer=optimizer)
    conformance.check_epochs(_trainer(bench, problem), conformance.Expected.of(problem, bench.dtype))


def check_batch(batch: int, n: int) -> None:
    """Raise UserError for a batch that cannot be drawn."""
    if not 1 <= batch <= n:
        raise UserError(f"batch size {batch}: give 1 to {n}, the number of training examples")


def train(
    bench: Workbench, problem: Problem, schedule: Schedule, look: Look, enough: Callable[[Mapping[str, float]], bool]
) -> list[dict[str, Any]]:
    """Train until ``enough`` says so of a look, or the epochs are done.

    Returns a row for each look: ``epoch``, ``steps``, ``seconds`` since the start (training alone: looks are not timed), the
    kernels' ``reference_s`` beside the epochs since the last look, and what was seen.  A run that diverges ends with a row
    whose ``diverged_at`` is the step after which parameters or loss were no longer finite, or the loss beyond ``DIVERGED``
    times the start's; its other numbers are None where they are no numbers.
    """
    check_batch(schedule.batch, problem.n)
    trainer = trainer_of(bench, problem)
    warm_up(bench, problem, schedule.batch)
    rows = [_row(0, schedule, problem.n, 0.0, look(trainer.parameters()), {})]
    limit = DIVERGED * max(rows[0]["loss"], 1e-12)
    spent, beside = 0.0, []
    for epoch in range(1, schedule.epochs + 1):
        order = schedule.order(problem.n, epoch)
        timed = bench.once(partial(trainer.epoch, order, schedule.batch), trainer.synchronize)
        spent += timed["seconds"]
        beside.append(timed["reference_s"])
        if schedule.looks and epoch not in schedule.looks and epoch != schedule.epochs:
            continue
        seen = look(trainer.parameters())
        rows.append(_row(epoch, schedule, problem.n, spent, seen, _mean(beside)))
        beside = []
        if not seen["loss"] <= limit:  # NaN too
            rows[-1]["diverged_at"] = _step_of_divergence(bench, problem, schedule, epoch, look, limit)
            break
        if enough(seen):
            break
    return rows


def warm_up(bench: Workbench, problem: Problem, batch: int) -> None:
    """An epoch on another instance: what compiles has compiled by then, which is no epoch's cost."""
    other = trainer_of(bench, problem)
    other.epoch(np.arange(problem.n), batch)
    other.synchronize()


def losses(problem: Problem) -> Look:
    """The loss over a problem's examples by the float64 reference, as ``loss``."""
    value = LOSSES[problem.network.loss].value

    def look(parameters: Sequence[AnyArray]) -> dict[str, float]:
        with np.errstate(all="ignore"):  # parameters that diverged may give anything
            y = reference.outputs(problem.network, _float64(parameters), problem.inputs)
            return {"loss": float(value(reference.XP, y, problem.targets))}

    return look


def _float64(parameters: Sequence[AnyArray]) -> list[Array]:
    return [np.asarray(p, np.float64) for p in parameters]


def _row(
    epoch: int, schedule: Schedule, n: int, spent: float, seen: Mapping[str, float], beside: Mapping[str, float]
) -> dict[str, Any]:
    finite = {key: value if math.isfinite(value) else None for key, value in seen.items()}
    steps = epoch * -(-n // schedule.batch)
    return {
        "epoch": epoch,
        "steps": steps,
        "seconds": spent,
        "reference_s": dict(beside),
        "diverged_at": None,
        **finite,
    }


def _mean(beside: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([times[name] for times in beside])) for name in beside[0]}


def _step_of_divergence(
    bench: Workbench, problem: Problem, schedule: Schedule, last: int, look: Look, limit: float
) -> int:
    """The run once more, its last looked-at stretch step by step: the number of the step that did it."""
    before = max((epoch for epoch in schedule.looks if epoch < last), default=0) if schedule.looks else last - 1
    trainer = trainer_of(bench, problem)
    for epoch in range(1, before + 1):
        trainer.epoch(schedule.order(problem.n, epoch), schedule.batch)
    step = before * -(-problem.n // schedule.batch)
    for rows in _batches(problem.n, schedule, before + 1, last):
        trainer.epoch(rows, schedule.batch)
        step += 1
        if not look(trainer.parameters())["loss"] <= limit:
            return step
    return step


def _batches(n: int, schedule: Schedule, first: int, last: int) -> Iterator[NDArray[np.intp]]:
    for epoch in range(first, last + 1):
        order = schedule.order(n, epoch)
        for start in range(0, n, schedule.batch):
            yield order[start : start + schedule.batch]
