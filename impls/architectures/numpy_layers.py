"""Architectures in NumPy by hand: a step is a list of calls on fixed buffers, compiled once (``numpy_chain``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from impls import optimizers
from impls.architectures.layers import Architecture
from impls.architectures.numpy_chain import Chain
from impls.architectures.numpy_nodes import FIRST, LAST, Call, Emitter, Node
from impls.architectures.problem import Adversarial, ArchitectureProblem, Supervised, TemporalDifference
from impls.in_place_updates import Update
from impls.interface import AnyArray
from impls.numpy_fast import UPDATE_BLOCK_BYTES, NumpyOperations


class Weights:
    """An architecture's parameters and gradients, a flat buffer each, in the problem's order; and the update."""

    def __init__(self, ops: NumpyOperations, arrays: Sequence[AnyArray], problem: ArchitectureProblem) -> None:
        self.shapes = [a.shape for a in arrays]
        self.flat = ops.array(np.concatenate([a.ravel() for a in arrays]))
        self.gradient = ops.empty(len(self.flat))
        self.gradient[:] = 0.0
        rate, name = problem.learning_rate, problem.optimizer
        self.update: Call
        if name == optimizers.USUAL:
            self.update = partial(ops.add_scaled, -rate, self.gradient, self.flat)
        else:
            block = UPDATE_BLOCK_BYTES // ops.dtype.itemsize
            self.update = Update(ops, name, rate, self.flat, self.gradient, block)

    def split(self, flat: AnyArray) -> list[AnyArray]:
        """Copies, array by array."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        return [part.reshape(shape).copy() for part, shape in zip(np.split(flat, ends[:-1]), self.shapes, strict=True)]


class NumpyLayers:
    """NumPy on the CPU, whatever the objective."""

    def __init__(
        self, problem: ArchitectureProblem, device: str = "cpu", dtype: str = "float32", threads: int = 1
    ) -> None:
        self.ops, self.problem = NumpyOperations(dtype), problem
        self.weights: list[Weights] = []
        start = 0
        for architecture in problem.objective.architectures:
            stop = start + len(architecture.parameters)
            self.weights.append(Weights(self.ops, problem.parameters[start:stop], problem))
            start = stop
        self.program = PROGRAMS[type(problem.objective)](self)
        self.hold(problem.arrays)
        self._step = [call for part in self.program.parts.values() for call in part]

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        """Another batch in place of the problem's."""
        self.program.hold(arrays)

    def renew_target(self) -> None:
        """Q⁻ ← Q."""
        self.program.renew_target()

    def forward(self) -> None:
        """The outputs."""
        _run(self.program.parts["forward"])

    def loss(self) -> None:
        """The loss, and δ of the outputs; for temporal differences Q⁻ too."""
        _run(self.program.parts["loss"])

    def backward(self) -> None:
        """All gradients."""
        _run(self.program.parts["backward"])

    def update(self) -> None:
        """What the optimizer does to θ."""
        _run(self.program.parts["update"])

    def step(self) -> None:
        """All calls, one after the other."""
        _run(self._step)

    def synchronize(self) -> None:
        """Nothing is left to wait for."""

    def parameters(self) -> list[AnyArray]:
        """Copies, in the problem's order and shapes."""
        return [array for weights in self.weights for array in weights.split(weights.flat)]

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``, of the last step or backward phase."""
        return [array for weights in self.weights for array in weights.split(weights.gradient)]

    def loss_value(self) -> float:
        """The loss last computed: of the last stage."""
        return self.program.loss_value()

    def chain(self, which: int, architecture: Architecture, **more: Any) -> Chain:
        """The calls of one of the architectures with its own parameters."""
        weights = self.weights[which]
        return Chain(self.ops, architecture, weights.flat, weights.gradient, **{"n": self.problem.n} | more)


def _run(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


class Program:
    """The calls of a step, in parts, one after the other; and the sums that its loss is made of."""

    def __init__(self, ops: NumpyOperations) -> None:
        self.parts: dict[str, list[Call]] = {name: [] for name in ("forward", "loss", "backward", "update")}
        self.sums = np.zeros(2, ops.dtype)  # the loss is their difference over ``terms``
        self.terms = 1

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        """Take a batch."""
        raise NotImplementedError

    def renew_target(self) -> None:
        """Nothing, where there is no Q⁻."""

    def loss_value(self) -> float:
        """The loss last computed."""
        return float(self.sums[0] - self.sums[1]) / self.terms

    def sum(self, i: int) -> AnyArray:
        """Where one of the sums is put."""
        return self.sums[i : i + 1].reshape(())


# --- one architecture, with a loss on its outputs -----------------------------------------------------------------------


class SupervisedProgram(Program):
    """Forward, loss, backward, update."""

    def __init__(self, whole: NumpyLayers) -> None:
        super().__init__(whole.ops)
        objective = whole.problem.objective
        assert isinstance(objective, Supervised)
        architecture = objective.architecture
        self.chain = whole.chain(0, architecture, masks=whole.problem.masks)
        self.parts["forward"] = self.chain.forward
        self.hold_targets = LOSSES[architecture.loss](self, whole.ops, self.chain.output, Emitter(self.parts["loss"]))
        self.parts["backward"] = self.chain.backward
        self.parts["update"] = [whole.weights[0].update]

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        self.chain.hold(arrays["inputs"])
        self.hold_targets(arrays["targets"])


#: What takes the targets of a batch.
Holds = Callable[[AnyArray], object]


def _mse(program: Program, ops: NumpyOperations, y: Node, x: Emitter) -> Holds:
    # L = 1/(n d) Σ (y - t)²,  δ = 2 (y - t) / (n d)
    assert y.d is not None
    targets, d = ops.empty(*y.x.shape), y.d
    program.terms = d.size
    flat = d.reshape(-1)
    x(np.subtract, y.x, targets, d)
    x(np.dot, flat, flat, program.sum(0))
    x(np.multiply, d, ops.constant(2.0 / d.size), d)
    return lambda t: targets.__setitem__(..., np.moveaxis(t, 0, -1) if y.layout == LAST else t)


def _softmax(ops: NumpyOperations, program: Program, y: AnyArray, d: AnyArray, x: Emitter) -> AnyArray:
    """Write d ← softmax(y) over the middle of three axes, y ← y - max y, ``sums[0]`` ← Σ log Σ exp; returns the log Σ exp."""
    peak, total = ops.empty(len(y), 1, y.shape[2]), ops.empty(len(y), 1, y.shape[2])
    x(np.maximum.reduce, y, axis=1, keepdims=True, out=peak)
    x(np.subtract, y, peak, y)
    x(np.exp, y, d)
    x(np.add.reduce, d, axis=1, keepdims=True, out=total)
    x(np.divide, d, total, d)
    x(np.log, total, peak)
    x(np.add.reduce, peak.reshape(-1), out=program.sum(0))
    return peak


def _weighted(program: Program, ops: NumpyOperations, y: Node, x: Emitter) -> Holds:
    # L = -1/n Σ t log softmax(y),  δ = (softmax(y) Σ t - t) / n, for rows t that need not sum to 1 (policy gradient)
    assert y.d is not None
    targets, d = ops.empty(*y.x.shape), y.d
    weights = ops.empty(y.n)  # Σ t
    program.terms = y.n
    logs = _softmax(ops, program, y.x[None], d[None], x)
    x(np.dot, logs.reshape(-1), weights, program.sum(0))  # Σ_n (Σ t) log Σ exp
    x(np.dot, targets.reshape(-1), y.x.reshape(-1), program.sum(1))
    x(np.multiply, d, weights, d)
    x(np.subtract, d, targets, d)
    x(np.multiply, d, ops.constant(1.0 / y.n), d)

    def hold(t: AnyArray) -> None:
        targets[:] = t.T
        weights[:] = t.sum(axis=1)

    return hold


def _tokens(program: Program, ops: NumpyOperations, y: Node, x: Emitter) -> Holds:
    # L = -1/(n T) Σ log softmax(y)_t,  δ = (softmax(y) - one-hot(t)) / (n T)
    assert y.d is not None
    steps, classes = y.shape
    seen = (steps, classes, y.n) if y.layout == LAST else (y.n * steps, classes, 1)
    values, d = y.x.reshape(seen), y.d.reshape(seen)
    program.terms = y.n * steps
    at, picked = np.zeros(y.n * steps, np.intp), ops.empty(y.n * steps)  # of every token, its place in the flat buffers
    _softmax(ops, program, values, d, x)
    x(np.take, values.reshape(-1), at, out=picked, mode="clip")
    x(np.add.reduce, picked, out=program.sum(1))
    flat = d.reshape(-1)
    x(np.take, flat, at, out=picked, mode="clip")
    x(np.subtract, picked, ops.constant(1.0), picked)
    x(np.put, flat, at, picked, mode="clip")
    x(np.multiply, flat, ops.constant(1.0 / program.terms), flat)

    def hold(t: AnyArray) -> None:
        if y.layout == FIRST:
            at[:] = np.arange(y.n * steps) * classes + t.reshape(-1)
        else:  # (T, classes, n)
            step, example = np.divmod(np.arange(y.n * steps), y.n)
            at[:] = (step * classes + t.T.reshape(-1)) * y.n + example

    return hold


#: Each emits the loss and δ of the outputs, and returns what takes targets.  Formulas: ``problem.Supervised``.
LOSSES: dict[str, Callable[[Program, NumpyOperations, Node, Emitter], Holds]] = {
    "mse": _mse,
    "cross_entropy": _weighted,
    "policy_gradient": _weighted,
    "token_cross_entropy": _tokens,
}


# --- temporal differences -----------------------------------------------------------------------------------------------


class TemporalDifferenceProgram(Program):
    """The same with Q⁻, which goes forward alone."""

    def __init__(self, whole: NumpyLayers) -> None:
        super().__init__(whole.ops)
        objective, ops, problem = whole.problem.objective, whole.ops, whole.problem
        assert isinstance(objective, TemporalDifference)
        self.chain = whole.chain(0, objective.architecture, masks=problem.masks)
        self.own = whole.weights[0]
        self.target = Weights(ops, problem.target, problem)
        self.after = Chain(
            ops,
            objective.architecture,
            self.target.flat,
            self.target.gradient,
            problem.n,
            problem.masks,
            weights=False,
            backward=False,
        )
        self.parts["forward"] = self.chain.forward
        self.parts["loss"] = list(self.after.forward)
        self._emit_loss(ops, objective.discount, Emitter(self.parts["loss"]))
        self.parts["backward"] = self.chain.backward
        self.parts["update"] = [self.own.update]

    def _emit_loss(self, ops: NumpyOperations, discount: float, x: Emitter) -> None:
        # L = 1/n Σ (Q_a - (r + γ c max Q⁻))²,  δ is 2/n of what is in the brackets in column a, and 0 elsewhere
        y = self.chain.output
        assert y.d is not None
        n = self.terms = y.n
        self.rewards, self.kept, self.at = ops.empty(n), ops.empty(n), np.zeros(n, np.intp)
        wanted, taken, flat = ops.empty(n), ops.empty(n), y.d.reshape(-1)
        self.discount = discount
        x(np.maximum.reduce, self.after.output.x, axis=0, out=wanted)
        x(np.multiply, wanted, self.kept, wanted)
        x(np.add, wanted, self.rewards, wanted)
        x(np.take, y.x.reshape(-1), self.at, out=taken, mode="clip")
        x(np.subtract, taken, wanted, taken)
        x(np.dot, taken, taken, self.sum(0))
        x(np.multiply, taken, ops.constant(2.0 / n), taken)
        x(flat.fill, 0.0)
        x(np.put, flat, self.at, taken, mode="clip")

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        self.chain.hold(arrays["inputs"])
        self.after.hold(arrays["next_inputs"])
        self.rewards[:] = arrays["rewards"]
        self.kept[:] = self.discount * arrays["ongoing"]  # γ c
        self.at[:] = arrays["actions"] * self.terms + np.arange(self.terms)

    def renew_target(self) -> None:
        self.target.flat[:] = self.own.flat


# --- adversaries --------------------------------------------------------------------------------------------------------


class AdversarialProgram(Program):
    """D's turn on real and made examples side by side, one batch of 2n; then G's, through D."""

    def __init__(self, whole: NumpyLayers) -> None:
        super().__init__(whole.ops)
        objective, ops, problem = whole.problem.objective, whole.ops, whole.problem
        assert isinstance(objective, Adversarial)
        n = self.n = self.terms = problem.n
        drops = objective.generator.dropouts
        masks = problem.masks[drops:]
        self.generator = whole.chain(0, objective.generator, masks=problem.masks[:drops])
        both = [np.concatenate([mask, mask]) for mask in masks]
        self.judge = whole.chain(1, objective.discriminator, n=2 * n, masks=both)
        self.critic = whole.chain(1, objective.discriminator, masks=masks, weights=False, wants=True)
        fake = self.generator.output
        first = Emitter(self.parts["forward"])
        first.calls += self.generator.forward
        first(np.copyto, _examples(self.judge.input)[n:], _examples(fake))
        first.calls += self.judge.forward
        signs = np.repeat([-1.0, 1.0], n)  # L = 1/n Σ softplus(-D(x)) + 1/n Σ softplus(D(G(z)))
        self._emit_logistic(ops, self.judge.output, signs, first)
        first.calls += [*self.judge.backward, whole.weights[1].update]
        second = Emitter(self.parts["loss"])
        second(np.copyto, _examples(self.critic.input), _examples(fake))
        second.calls += self.critic.forward
        self._emit_logistic(ops, self.critic.output, np.full(n, -1.0), second)
        second.calls += self.critic.backward
        assert self.critic.input.d is not None and fake.d is not None
        second(np.copyto, _examples(fake, "d"), _examples(self.critic.input, "d"))
        second.calls += [*self.generator.backward, whole.weights[0].update]

    def _emit_logistic(self, ops: NumpyOperations, y: Node, signs: AnyArray, x: Emitter) -> None:
        # L = 1/n Σ log(1 + e^(s y)),  δ = s σ(s y) / n;  e^-|y| cannot overflow
        logits, d = y.x.reshape(-1), _flat(y.d)
        sign, part = ops.array(signs), ops.empty(len(signs))
        x(np.multiply, logits, sign, logits)
        x(np.absolute, logits, part)
        x(np.negative, part, part)
        x(np.exp, part, part)
        x(np.log1p, part, part)
        x(np.maximum, logits, ops.constant(0.0), out=d)
        x(np.add, part, d, part)  # softplus
        x(np.add.reduce, part, out=self.sum(0))
        x(np.subtract, logits, part, d)  # log σ(z) = z - softplus(z)
        x(np.exp, d, d)
        x(np.multiply, d, ops.array(signs / self.n), d)

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        self.generator.hold(arrays["noise"])
        _examples(self.judge.input)[: self.n] = arrays["real"]


def _examples(node: Node, what: str = "x") -> AnyArray:
    """Values or δ as (n, *shape)."""
    array: AnyArray = getattr(node, what)
    return np.moveaxis(array, -1, 0) if node.layout == LAST else array


def _flat(a: AnyArray | None) -> AnyArray:
    assert a is not None
    return a.reshape(-1)


PROGRAMS: dict[type[Any], Callable[[NumpyLayers], Program]] = {
    Supervised: SupervisedProgram,
    TemporalDifference: TemporalDifferenceProgram,
    Adversarial: AdversarialProgram,
}
