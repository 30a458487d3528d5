"""Correct before fast: does an implementation compute what the float64 NumPy reference says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from impls import dtypes, optimizers, reference
from impls.derivatives import flat
from impls.interface import AnyArray, Array, Backprop, Network, Problem, Trains
from impls.problem import make_problem

STEPS = 10
#: Times an optimizer's usual learning rate: then ten steps move a small network so far that no rounding hides an error.
BOLD = 1000.0
#: Where moves do not shrink with gradients, a gradient may be off by this share of the tolerance times its array's root
#: mean square: most of those that are so near zero are rounding, and so is then their whole move.
NEAR_ZERO = 0.1
#: The same where products have few bits: so that none of a gradient's own rounding may be the whole move.
NEAR_ZERO_MIXED = 1.0
#: Where products have few bits, an array of gradients that vanish beside the others is judged by this share of their root
#: mean square: float16 has no numbers for them.
VANISHING = 1e-2
#: Activations with a kink at 0: rounding of z to the other side of it turns a whole slope.
KINKED = ("relu", "leaky_relu")


def bold_problem(optimizer: str, activation: str, loss: str, seed: int) -> Problem:
    """A small problem at a learning rate so bold that several steps hide nothing in rounding."""
    rate = BOLD * optimizers.find(optimizer).learning_rate
    return make_problem(Network((5, 7, 6, 4), activation, loss), 9, seed, learning_rate=rate, optimizer=optimizer)


class Mismatch(Exception):
    """An implementation does not compute what the reference says."""


#: Central differences of smooth losses: relative error from curvature, and what rounding adds to each in units of
#: ε (1 + L) / h.  Steps across kinks (relu) have no bound: ε^(1/3) is 0.005 in float32.
CENTRAL_TOLERANCE = {"float64": 1e-6, "float32": 1e-2}
CENTRAL_ROUNDINGS = 4.0


@dataclass(frozen=True, eq=False)
class Expected:
    """What the reference says of a problem at its starting parameters."""

    problem: Problem
    loss: float
    gradients: list[Array]
    dtype: str

    @property
    def tolerance(self) -> float:
        """Largest error of a loss, a gradient or a step, but for ``turned_slopes``."""
        return self._kind.tolerance

    @property
    def epsilon(self) -> float:
        """Rounding unit of the dtype that parameters are kept in."""
        return float(np.finfo(self._kind.stored).eps)

    @property
    def turned_slopes(self) -> float:
        """What rounding across kinks may add to the error of gradients where products have few bits.

        A share of about ε of a layer's units lies so near the kink, and a turned slope is an error as large as itself: the
        root of the share, all hidden layers together, and that of one unit.  Measured in float16
        under 32 hidden layers: 0.30 of 0.35.
        """
        network, kind = self.problem.network, self._kind
        if not kind.mixed or network.activation not in KINKED or network.u == 0:
            return 0.0
        hidden = network.depth - 1
        one = 1 / (self.problem.n * min(network.layers[1:-1]))
        return float(np.sqrt(3 * kind.epsilon * hidden) + np.sqrt(2 * one))

    @property
    def _kind(self) -> dtypes.Dtype:
        return dtypes.find(self.dtype)

    @classmethod
    def of(cls, problem: Problem, dtype: str) -> Expected:
        """Compute the reference's loss and gradients for a problem."""
        loss, gradients = reference.loss_and_gradients(problem)
        return cls(problem, loss, gradients, dtype)

    def check_loss(self, value: float) -> float:
        """Relative error of the loss.  Raises Mismatch."""
        return self._judge("loss", abs(value - self.loss) / max(abs(self.loss), 1e-30))

    def check_gradients(self, found: Sequence[AnyArray]) -> float:
        """Largest relative error over the gradient arrays and their whole.  Raises Mismatch."""
        check_shapes("gradients", self.gradients, found)
        whole = relative_norm(_flat(found), _flat(self.gradients))
        # a bias gradient is far smaller than the rest: judged array by array, a missing one cannot hide
        least = VANISHING * rms(_flat(self.gradients)) if self._kind.mixed else 0.0
        parts = [relative_norm(f, g, least * np.sqrt(g.size)) for f, g in zip(found, self.gradients, strict=True)]
        error = float(np.max([whole, *parts]))  # keeps NaN, unlike max()
        return self._judge("gradient", error, self.tolerance + self.turned_slopes)

    def check_derivatives(self, found: AnyArray, start: int, central: bool = False) -> float:
        """Relative error of the derivatives by parameters from ``start`` on; what rounding does to the losses of central
        differences is allowed for.  Raises Mismatch.
        """
        wanted = flat(self.gradients)[start : start + len(found)]
        if np.shape(found) != wanted.shape:
            raise Mismatch(f"derivatives have shape {np.shape(found)}, expected {wanted.shape}")
        if not central:
            return self._judge("forward-mode derivative", relative_norm(found, wanted))
        # a loss is wrong by some ε (1 + L), their difference is divided by 2h = 2 ε^(1/3)
        rounding = CENTRAL_ROUNDINGS * self.epsilon ** (2 / 3) * (1 + abs(self.loss)) * np.sqrt(len(found))
        excess = np.maximum(np.linalg.norm(np.asarray(found, float) - wanted) - rounding, 0.0)  # keeps NaN
        scale = max(float(np.linalg.norm(wanted)), 1e-300)
        return self._judge("central difference", float(excess) / scale, CENTRAL_TOLERANCE[self.dtype])

    def check_step(self, after: Sequence[AnyArray]) -> float:
        """How far the parameters after one step of the problem's optimizer are from the reference's, relative to the move.
        Raises Mismatch.

        Rounding of θ itself may hide that much of the small move, and of gradients near zero (``NEAR_ZERO``): both are
        allowed for.
        """
        check_shapes("parameters", self.gradients, after)
        before = _flat(self.problem.parameters)
        move = _flat(reference.first_move(self.problem, self.gradients))
        off = np.abs(_flat(after) - (before - move))
        off = np.maximum(off - self._slack(move), 0.0)  # keeps NaN
        rounding = 2 * self.epsilon * np.linalg.norm(before)
        excess = float(np.maximum(np.linalg.norm(off) - rounding, 0.0))
        error = excess / max(float(np.linalg.norm(move)), 1e-300)
        return self._judge("step", error, self.tolerance + self.turned_slopes)

    def check_steps(self, after: Sequence[AnyArray], steps: int = STEPS) -> float:
        """How far the parameters after several steps are from the reference's, relative to all they moved.

        For small problems at a bold learning rate, whose moves rounding of θ cannot hide.  Raises Mismatch.
        """
        return self._check_moved(after, reference.after_steps(self.problem, steps), steps, f"what {steps} steps moved")

    def _check_moved(self, after: Sequence[AnyArray], expected: Sequence[Array], steps: int, what: str) -> float:
        check_shapes("parameters", self.gradients, after)
        before, wanted = _flat(self.problem.parameters), _flat(expected)
        rounding = 2 * steps * self.epsilon * np.linalg.norm(before)
        excess = float(np.maximum(np.linalg.norm(_flat(after) - wanted) - rounding, 0.0))
        moved = max(float(np.linalg.norm(wanted - before)), 1e-300)
        return self._judge(what, excess / moved, self._kind.steps_tolerance + self.turned_slopes)

    def check_epochs(self, after: Sequence[AnyArray], orders: Sequence[NDArray[np.intp]], batch: int) -> float:
        """The same of epochs in these orders, a step for each ``batch`` examples.  Raises Mismatch."""
        steps = len(orders) * -(-self.problem.n // batch)
        wanted = reference.after_epochs(self.problem, orders, batch)
        return self._check_moved(after, wanted, steps, f"what {len(orders)} epochs in batches of {batch} moved")

    def _slack(self, move: AnyArray) -> AnyArray | float:
        """What rounding of gradients may do to each parameter's move, where that does not shrink with the gradient."""
        if not optimizers.find(self.problem.optimizer).normalises:
            return 0.0
        share = (NEAR_ZERO_MIXED if self._kind.mixed else NEAR_ZERO) * self.tolerance
        near = [share * rms(g) for g in self.gradients]
        ends = [
            _flat(reference.first_move(self.problem, [g + sign * d for g, d in zip(self.gradients, near, strict=True)]))
            for sign in (1, -1)
        ]
        widest: AnyArray = np.maximum(*(np.abs(end - move) for end in ends))
        return widest

    def _judge(self, what: str, error: float, allowed: float | None = None) -> float:
        allowed = self.tolerance if allowed is None else allowed
        if not error <= allowed:  # NaN is a mismatch too
            network, optimizer = self.problem.network, self.problem.optimizer
            raise Mismatch(
                f"{what} differs from the float64 reference by {error:.2g} (relative norm), "
                f"allowed {allowed:g}, for layers {'-'.join(map(str, network.layers))}, "
                f"{network.activation}, {network.loss}, "
                + (f"{optimizer}, " if optimizer != optimizers.USUAL else "")
                + f"n={self.problem.n}"
            )
        return error


def check_phases(implementation: Backprop, expected: Expected) -> None:
    """Forward, loss and backward from the start, no update.  Raises Mismatch."""
    implementation.forward()
    implementation.loss()
    implementation.backward()
    implementation.synchronize()
    expected.check_loss(implementation.loss_value())
    expected.check_gradients(implementation.gradients())


def check_step(implementation: Backprop, expected: Expected) -> None:
    """One step from the start.  Raises Mismatch."""
    implementation.step()
    implementation.synchronize()
    expected.check_loss(implementation.loss_value())
    expected.check_step(implementation.parameters())


def check_steps(implementation: Backprop, expected: Expected, steps: int = STEPS) -> None:
    """Several steps from the start: what an optimizer keeps from step to step shows only then.  Raises Mismatch."""
    for _ in range(steps):
        implementation.step()
    implementation.synchronize()
    expected.check_steps(implementation.parameters(), steps)


#: Of the check below: epochs, and examples in a batch.
EPOCH_ORDERS, EPOCH_BATCH = 2, 4


def check_epochs(implementation: Trains, expected: Expected, batch: int = EPOCH_BATCH) -> None:
    """Two epochs in shuffled orders: every example must meet its own target, once, with its share.  Raises Mismatch."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(expected.problem.n) for _ in range(EPOCH_ORDERS)]
    for order in orders:
        implementation.epoch(order, batch)
    implementation.synchronize()
    expected.check_epochs(implementation.parameters(), orders, batch)


def relative_norm(found: AnyArray, expected: AnyArray, least: float = 0.0) -> float:
    """‖found - expected‖ / ‖expected‖, the latter at ``least`` this."""
    difference = float(np.linalg.norm(np.asarray(found, float) - expected))
    scale = max(float(np.linalg.norm(expected)), least)
    return difference / scale if scale else difference


def rms(array: AnyArray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(array**2)))


def check_shapes(what: str, expected: Sequence[AnyArray], found: Sequence[AnyArray]) -> None:
    """Raise Mismatch unless both hold arrays of the same shapes."""
    wanted, got = [a.shape for a in expected], [np.shape(a) for a in found]
    if wanted != got:
        raise Mismatch(f"{what} have shapes {got}, expected {wanted}")


def _flat(arrays: Sequence[AnyArray]) -> AnyArray:
    return flat([np.asarray(a, float) for a in arrays])
