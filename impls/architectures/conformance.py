"""Correct before fast, for architectures: does an implementation compute what the forward-only reference says?

Gradients g are asked for their product with directions v drawn at random: the reference tells v·∇L exactly.  For normal v
the difference is normal with the spread ‖g - ∇L‖, so a few directions for each array tell its relative error, and a wrong one
passes only if all of them happen to miss it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from impls import optimizers
from impls.architectures import reference
from impls.architectures.problem import ArchitectureProblem
from impls.conformance import Mismatch
from impls.interface import AnyArray, Array, Backprop
from impls.reference import MOVES

#: Largest relative error: of a loss, of a gradient's array, of what a step moved.
TOLERANCE = {"float64": 1e-9, "float32": 2e-3}
#: Directions for each array.
DIRECTIONS = 2


class Feeds(Protocol):
    """What an implementation of architectures adds to ``Backprop``: another batch of the same shapes, and the copy of Q."""

    def hold(self, arrays: dict[str, AnyArray]) -> object:
        """Take these arrays in place of those of the problem, untimed; targets, masks and parameters stay."""

    def renew_target(self) -> object:
        """Q⁻ ← Q; nothing where there is no Q⁻."""


def check(implementation: Backprop, problem: ArchitectureProblem, dtype: str, seed: int = 0) -> None:
    """Phases where there are any, then a step from the start; the problem is one step on afterwards.  Raises Mismatch."""
    rng = np.random.default_rng([seed, 7])
    whole = len(problem.objective.stages) == 1
    if whole:
        for phase in (implementation.forward, implementation.loss, implementation.backward):
            phase()
        check_loss(implementation.loss_value(), problem, 0, problem.parameters, dtype)
        check_gradients(implementation.gradients(), problem, 0, problem.parameters, dtype, rng)
    check_step(implementation, problem, dtype, rng)


def check_step(
    implementation: Backprop, problem: ArchitectureProblem, dtype: str, rng: np.random.Generator
) -> list[Array]:
    """One step from the start, and ``check_stepped``.  Returns the parameters expected.  Raises Mismatch."""
    implementation.step()
    implementation.synchronize()
    return check_stepped(implementation, problem, dtype, rng)


def check_stepped(
    implementation: Backprop, problem: ArchitectureProblem, dtype: str, rng: np.random.Generator, whole: bool = False
) -> list[Array]:
    """After one step from the start: every stage's gradients where its parameters then were, and where it ended.

    ``whole``: gradients are asked once for all arrays together, not for each.  Returns the parameters expected.
    Raises Mismatch.
    """
    check = check_gradient if whole else check_gradients
    found = implementation.gradients()
    theta = list(problem.parameters)
    for number, stage in enumerate(problem.objective.stages):
        check(found, problem, number, theta, dtype, rng)
        for i in range(stage.start, stage.stop):
            theta[i] = theta[i] - first_move(problem, np.asarray(found[i], np.float64))
    # ``loss_value`` tells the last stage's; there the parameters of earlier stages have moved, its own have not
    last = problem.objective.stages[-1]
    before = [*theta[: last.start], *problem.parameters[last.start : last.stop], *theta[last.stop :]]
    check_loss(implementation.loss_value(), problem, len(problem.objective.stages) - 1, before, dtype)
    _check_moved(implementation.parameters(), theta, problem, dtype)
    return theta


def first_move(problem: ArchitectureProblem, gradient: Array) -> Array:
    """η d of the optimizer's first step, for one array."""
    optimizer = optimizers.find(problem.optimizer)
    states = (np.full_like(gradient, start) for start in optimizer.starts)
    return np.asarray(problem.learning_rate * MOVES[problem.optimizer](optimizer, 1, gradient, *states)[0])


def check_loss(
    value: float, problem: ArchitectureProblem, stage: int, parameters: Sequence[Array], dtype: str
) -> float:
    """Relative error of a stage's loss.  Raises Mismatch."""
    wanted = float(reference.stage_loss(problem, stage, parameters))
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


def check_gradient(
    found: Sequence[AnyArray],
    problem: ArchitectureProblem,
    stage: int,
    parameters: Sequence[Array],
    dtype: str,
    rng: np.random.Generator,
) -> float:
    """Relative error of a stage's gradient as one vector, along one direction: for the price of one forward pass where there
    are many arrays.  An array that is small beside the others may hide in it.  Raises Mismatch.
    """
    chosen = problem.objective.stages[stage]
    g = {i: np.asarray(found[i], np.float64) for i in range(chosen.start, chosen.stop)}
    v = {i: rng.standard_normal(part.shape) for i, part in g.items()}
    exact = reference.derivative(problem, stage, parameters, dict(v))
    norm = float(np.sqrt(sum(float((part**2).sum()) for part in g.values())))
    error = abs(sum(float((g[i] * v[i]).sum()) for i in g) - exact) / max(norm, abs(exact), 1e-300)
    return _judge("gradient", error, problem, dtype)


def _check_moved(found: Sequence[AnyArray], wanted: Sequence[Array], problem: ArchitectureProblem, dtype: str) -> float:
    """Parameters after a step, relative to the move; what rounding does to θ itself is allowed for.  Raises Mismatch."""
    flat_found, flat_wanted, before = (_flat(arrays) for arrays in (found, wanted, problem.parameters))
    if flat_found.shape != flat_wanted.shape:
        raise Mismatch(f"{flat_found.size} parameters came back, expected {flat_wanted.size}")
    rounding = 2 * float(np.finfo(dtype).eps) * float(np.linalg.norm(before))
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
