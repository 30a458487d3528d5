"""Training runs: an implementation goes through its epochs on the clock, and stands still while it is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backprop_files import UserError
from bench.experiments.workbench import Workbench
from impls import conformance, reference
from impls.interface import AnyArray, Array, Problem, Trains

#: A loss that is so many times that of the start, or no number, has diverged.
DIVERGED = 100.0

#: What is looked at after an epoch: parameters in, numbers out; ``loss`` must be among them.
Look = Callable[[Sequence[AnyArray]], Mapping[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How a problem is gone through: examples in a batch, epochs at most, the seed of their orders, when to look.

    An epoch is handed over in ``pieces``, whole batches each, so that it can be looked at within; at most as many as there
    are whole batches.  ``looks`` are the pieces after which it is looked at, counted from the start (0 is the start); none:
    after every one.  With one piece, the usual, they count epochs.
    """

    batch: int
    epochs: int
    seed: int = 0
    looks: tuple[int, ...] = ()
    pieces: int = 1

    def order(self, n: int, epoch: int) -> NDArray[np.intp]:
        """The order of the examples in an epoch: the same in every library."""
        return np.random.default_rng([self.seed, n, epoch]).permutation(n)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Pieces done before and after each stretch between two looks."""
        last = self.epochs * self.pieces
        ends = sorted({look for look in self.looks if 0 < look < last} | {last}) if self.looks else range(1, last + 1)
        yield from pairwise([0, *ends])

    def rows(self, n: int, before: int, after: int) -> Iterator[NDArray[np.intp]]:
        """The examples of each piece of a stretch, in order; an epoch's last piece takes what is left."""
        size = self._steps_in_piece(n) * self.batch
        for piece in range(before, after):
            epoch, i = divmod(piece, self.pieces)
            order = self.order(n, epoch + 1)
            yield order[i * size : (i + 1) * size if i < self.pieces - 1 else len(order)]

    def steps(self, n: int, pieces: int) -> int:
        """Steps taken in so many pieces."""
        epochs, rest = divmod(pieces, self.pieces)
        return epochs * -(-n // self.batch) + rest * self._steps_in_piece(n)

    def _steps_in_piece(self, n: int) -> int:
        return max(1, n // self.batch // self.pieces)


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
    problem = conformance.bold_problem(optimizer, activation, loss, bench.seed)
    conformance.check_epochs(_trainer(bench, problem), conformance.Expected.of(problem, bench.dtype))


def check_batch(batch: int, n: int) -> None:
    """Raise UserError for a batch that cannot be drawn."""
    if not 1 <= batch <= n:
        raise UserError(f"batch size {batch}: give 1 to {n}, the number of training examples")


@np.errstate(all="ignore")  # a run that diverges may overflow on its way
def train(
    bench: Workbench, problem: Problem, schedule: Schedule, look: Look, enough: Callable[[Mapping[str, float]], bool]
) -> list[dict[str, Any]]:
    """Train until ``enough`` says so of a look, or the epochs are done.

    Returns a row for each look: ``epoch``, ``steps``, ``seconds`` since the start (training alone: looks are not timed), the
    kernels' ``reference_s`` around what came since the last look, and what was seen.  A run that diverges ends with a row
    whose ``diverged_at`` is the step after which parameters or loss were no longer finite, or the loss beyond ``DIVERGED``
    times the start's; its other numbers are None where they are no numbers.
    """
    check_batch(schedule.batch, problem.n)
    trainer = trainer_of(bench, problem)
    warm_up(bench, problem, schedule)
    rows = [_row(0, schedule, problem.n, 0.0, look(trainer.parameters()), {})]
    limit = DIVERGED * max(rows[0]["loss"], 1e-12)
    spent = 0.0
    for before, after in schedule.stretches():
        pieces = list(schedule.rows(problem.n, before, after))
        timed = bench.once(partial(_go_through, trainer, pieces, schedule.batch), trainer.synchronize)
        spent += timed["seconds"]
        seen = look(trainer.parameters())
        rows.append(_row(after, schedule, problem.n, spent, seen, timed["reference_s"]))
        if not seen["loss"] <= limit:  # NaN too
            rows[-1]["diverged_at"] = _step_of_divergence(bench, problem, schedule, (before, after), look, limit)
            break
        if enough(seen):
            break
    return rows


def warm_up(bench: Workbench, problem: Problem, schedule: Schedule) -> None:
    """The first and the last piece of an epoch on another instance, for the others are like the first: what compiles has
    compiled by then, which is no epoch's cost.
    """
    other = trainer_of(bench, problem)
    for piece in {0, schedule.pieces - 1}:
        _go_through(other, schedule.rows(problem.n, piece, piece + 1), schedule.batch)
    other.synchronize()


def _go_through(trainer: Trains, pieces: Iterable[NDArray[np.intp]], batch: int) -> None:
    for rows in pieces:
        trainer.epoch(rows, batch)


def losses(problem: Problem) -> Look:
    """The loss over a problem's examples by the float64 reference, as ``loss``."""

    def look(parameters: Sequence[AnyArray]) -> dict[str, float]:
        with np.errstate(all="ignore"):  # parameters that diverged may give anything
            return {"loss": reference.loss(problem, float64(parameters))}

    return look


def float64(parameters: Sequence[AnyArray]) -> list[Array]:
    """Parameters as the reference computes with them."""
    return [np.asarray(p, np.float64) for p in parameters]


def _row(
    pieces: int, schedule: Schedule, n: int, spent: float, seen: Mapping[str, float], beside: Mapping[str, float]
) -> dict[str, Any]:
    finite = {key: value if math.isfinite(value) else None for key, value in seen.items()}
    return {
        "epoch": pieces / schedule.pieces if schedule.pieces > 1 else pieces,
        "steps": schedule.steps(n, pieces),
        "seconds": spent,
        "reference_s": dict(beside),
        "diverged_at": None,
        **finite,
    }


def _step_of_divergence(
    bench: Workbench, problem: Problem, schedule: Schedule, stretch: tuple[int, int], look: Look, limit: float
) -> int:
    """The run once more, its last stretch step by step: the number of the step that did it."""
    before, after = stretch
    trainer = trainer_of(bench, problem)
    _go_through(trainer, schedule.rows(problem.n, 0, before), schedule.batch)
    step = schedule.steps(problem.n, before)
    for piece in schedule.rows(problem.n, before, after):
        for start in range(0, len(piece), schedule.batch):
            trainer.epoch(piece[start : start + schedule.batch], schedule.batch)
            step += 1
            if not look(trainer.parameters())["loss"] <= limit:
                return step
    return step
