"""Correct before fast, for architectures: does an implementation compute what the forward-only reference says?

Gradients g are asked for their product with directions v drawn at random: the reference tells v·∇L exactly.  For normal v
the difference is normal with the spread ‖g - ∇L‖, so a few directions for each array tell its relative error, and a wrong one
passes only if all of them happen to miss it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from impls import dtypes, optimizers
from impls.architectures import reference
from impls.architectures.problem import ArchitectureProblem
from impls.conformance import Mismatch
from impls.interface import AnyArray, Array, Backprop
from impls.reference import MOVES

#: Largest relative error: of a loss, of a gradient's array, of what a step moved.
TOLERANCE = {"float64": 1e-9, "float32": 2e-3, "tf32": 5e-2}
#: Directions for each array.
DIRECTIONS = 2


class Feeds(Protocol):
    """What an implementation of architectures adds to ``Backprop``: another batch of the same shapes, and the copy of Q.

    An objective with several stages has no phases; ``gradients`` then gives what the last step has used
    (``KeepsGradients``: only if it was asked to).
    """

    def hold(self, arrays: dict[str, AnyArray]) -> object:
        """Take these arrays in place of those of the problem, untimed; targets, masks and parameters stay."""

    def renew_target(self) -> object:
        """Q⁻ ← Q; nothing where there is no Q⁻."""


@runtime_checkable
class KeepsGradients(Protocol):
    """What an implementation adds whose step of several stages would take longer if it told its gradients."""

    keep_gradients: bool  # False unless a step is to be checked


def check(implementation: Backprop, problem: ArchitectureProblem, dtype: str, seed: int = 0) -> None:
    """Phases where there are any, then a step from the start; the problem is one step on afterwards.  Raises Mismatch."""
    rng = np.random.default_rng([seed, 7])
    if len(problem.objective.stages) > 1:
        if isinstance(implementation, KeepsGradients):
            implementation.keep_gradients = True
        implementation.step()
        implementation.synchronize()
        if isinstance(implementation, KeepsGradients):
            implementation.keep_gradients = False
        _check_after(implementation, implementation.gradients(), problem, dtype, rng)
        return
    for phase in (implementation.forward, implementation.loss, implementation.backward):
        phase()
    check_loss(implementation.loss_value(), problem, 0, problem.parameters, dtype)
    gradients = implementation.gradients()
    implementation.step()
    implementation.synchronize()
    _check_after(implementation, gradients, problem, dtype, rng)


def _check_after(
    implementation: Backprop,
    gradients: Sequence[AnyArray],
    problem: ArchitectureProblem,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    """A step from the start: every stage's gradients where the parameters then were, where it ended, and its last loss."""
    theta = list(problem.parameters)
    loss = np.nan
    for number, stage in enumerate(problem.objective.stages):
        loss = float(reference.stage_loss(problem, number, theta))
        check_gradients(gradients, problem, number, theta, dtype, rng)
        for i in range(stage.start, stage.stop):
            theta[i] = theta[i] - first_move(problem, np.asarray(gradients[i], np.float64))
    _judge_loss(implementation.loss_value(), loss, problem, dtype)
    _check_moved(implementation.parameters(), theta, problem, dtype)


#: How many times the length of its move the direction that a step is asked along leans to where it went.
LEAN = 3.0


def check_descent(implementation: Backprop, problem: ArchitectureProblem, dtype: str, rng: np.random.Generator) -> None:
    """After one step of gradient descent from the start: its losses, and that it went by -η ∇L, along one direction.

    Asks the implementation for no gradient, and the reference for one forward pass a stage, so that large problems can be
    held too.  The direction is normal, which tells errors of any kind, and leans to where the step went, which tells one
    that is too long or too short whatever was drawn.  What rounding does to θ is allowed for; an array that is small beside
    the others may hide.  Raises Mismatch.
    """
    stored = dtypes.find(dtype).stored
    found = [np.asarray(p, np.float64) for p in implementation.parameters()]
    theta: list[Array] = [np.asarray(p.astype(stored), np.float64) for p in problem.parameters]  # as it was handed over
    loss = np.nan
    for number, stage in enumerate(problem.objective.stages):
        own = range(stage.start, stage.stop)
        moves = {i: found[i] - theta[i] for i in own}
        length = float(np.linalg.norm(_flat(list(moves.values()))))
        v = {i: rng.standard_normal(theta[i].shape) + LEAN * moves[i] / max(length, 1e-300) for i in own}
        # L(θ + i h v) = L + i h v·∇L
        value = reference.stage_loss(
            problem, number, [p + 1j * reference.H * v[i] if i in v else p for i, p in enumerate(theta)]
        )
        loss, exact = float(np.real(value)), -problem.learning_rate * float(np.imag(value)) / reference.H
        moved = sum(float((moves[i] * v[i]).sum()) for i in own)
        # what moved is rounded by at most ε/2 of each number, by some 0.2 ε ‖θ‖ along v: five times that is allowed
        rounding = float(np.finfo(stored).eps) * float(np.linalg.norm(_flat([theta[i][moves[i] != 0] for i in own])))
        excess = float(np.maximum(abs(moved - exact) - rounding, 0.0))  # keeps NaN
        _judge(f"move of the {stage.name} parameters", excess / (length or max(abs(exact), 1e-300)), problem, dtype)
        for i in own:
            theta[i] = found[i]
    _judge_loss(implementation.loss_value(), loss, problem, dtype)


def check_last_loss(implementation: Backprop, problem: ArchitectureProblem, dtype: str) -> float:
    """After one step from the start: relative error of its last stage's loss, where parameters then were.  Raises Mismatch."""
    last = problem.objective.stages[-1]
    now = implementation.parameters()
    theta = [
        p if last.start <= i < last.stop else np.asarray(now[i], np.float64) for i, p in enumerate(problem.parameters)
    ]
    return check_loss(implementation.loss_value(), problem, len(problem.objective.stages) - 1, theta, dtype)


def first_move(problem: ArchitectureProblem, gradient: Array) -> Array:
    """η d of the optimizer's first step, for one array."""
    optimizer = optimizers.find(problem.optimizer)
    states = (np.full_like(gradient, start) for start in optimizer.starts)
    return np.asarray(problem.learning_rate * MOVES[problem.optimizer](optimizer, 1, gradient, *states)[0])


def check_loss(
    value: float, problem: ArchitectureProblem, stage: int, parameters: Sequence[Array], dtype: str
) -> float:
    """Relative error of a stage's loss.  Raises Mismatch."""
    return _judge_loss(value, float(reference.stage_loss(problem, stage, parameters)), problem, dtype)


def _judge_loss(value: float, wanted: float, problem: ArchitectureProblem, dtype: str) -> float:
    return _judge("loss", abs(value - wanted) / max(abs(wanted), 1e-2), problem, dtype)


def check_gradients(
    found: Sequence[AnyArray],
    problem: ArchitectureProblem,
    stage: int,
    parameters: Sequence[Array],
    dtype: str,
    rng: np.random.Generator,
    directions: int = DIRECTIONS,
) -> float:
    """Largest relative error over the arrays that a stage moves.  Raises Mismatch."""
    chosen = problem.objective.stages[stage]
    wanted = [p.shape for p in problem.objective.parameters]
    if [np.shape(g) for g in found] != wanted:
        raise Mismatch(f"gradients have shapes {[np.shape(g) for g in found]}, expected {wanted}")
    names = [p.name for p in problem.objective.parameters]
    size = float(np.sqrt(sum(float((np.asarray(g, float) ** 2).mean()) for g in found[chosen.start : chosen.stop])))
    worst = 0.0
    for i in range(chosen.start, chosen.stop):
        g = np.asarray(found[i], np.float64)
        for _ in range(directions):
            v = rng.standard_normal(g.shape)
            exact = reference.derivative(problem, stage, parameters, {i: v})
            # an array whose gradient is all but 0 is judged by the others' size
            scale = max(float(np.linalg.norm(g)), abs(exact), 1e-3 * size * np.sqrt(g.size), 1e-300)
            error = abs(float((g * v).sum()) - exact) / scale
            worst = max(worst, _judge(f"gradient of array {i} ({names[i]})", error, problem, dtype))
    return worst


def _check_moved(found: Sequence[AnyArray], wanted: Sequence[Array], problem: ArchitectureProblem, dtype: str) -> float:
    """Parameters after a step, relative to the move; what rounding does to θ itself is allowed for.  Raises Mismatch."""
    flat_found, flat_wanted, before = (_flat(arrays) for arrays in (found, wanted, problem.parameters))
    if flat_found.shape != flat_wanted.shape:
        raise Mismatch(f"{flat_found.size} parameters came back, expected {flat_wanted.size}")
    rounding = 2 * float(np.finfo(dtypes.find(dtype).stored).eps) * float(np.linalg.norm(before))
    excess = float(np.maximum(np.linalg.norm(flat_found - flat_wanted) - rounding, 0.0))  # keeps NaN
    moved = max(float(np.linalg.norm(flat_wanted - before)), 1e-300)
    return _judge("step", excess / moved, problem, dtype)


def _flat(arrays: Sequence[AnyArray]) -> Array:
    return np.concatenate([np.ravel(a) for a in arrays]).astype(np.float64)


def _judge(what: str, error: float, problem: ArchitectureProblem, dtype: str) -> float:
    if not error <= TOLERANCE[dtype]:  # NaN is a mismatch too
        kinds = ", ".join(problem.objective.kinds)
        raise Mismatch(
            f"{what} differs from the float64 reference by {error:.2g} (relative norm), allowed {TOLERANCE[dtype]:g}, "
            f"for {type(problem.objective).__name__} of {kinds}, m={problem.objective.m}, n={problem.n}"
        )
    return error
