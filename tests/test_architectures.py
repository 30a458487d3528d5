"""Architectures as data, their forward-only reference, and NumPy's layers by hand: wrong backward formulas are caught."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from impls import registry
from impls.architectures import conformance, numpy_chain, numpy_images, reference
from impls.architectures.layers import (
    Activation,
    Architecture,
    Attention,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    Pool2D,
    Recurrent,
    Residual,
    Shape,
)
from impls.architectures.problem import Adversarial, Supervised, make_problem
from impls.conformance import Mismatch
from tests.test_architectures_conform import OBJECTIVES, problem_of

# --- the reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_complex_step_is_the_slope_of_central_differences(name: str) -> None:
    problem, rng, h = problem_of(name), np.random.default_rng(0), 1e-5
    for number, stage in enumerate(problem.objective.stages):
        for i in range(stage.start, stage.stop):
            v = rng.standard_normal(problem.parameters[i].shape)
            ends = []
            for sign in (1, -1):
                theta = list(problem.parameters)
                theta[i] = theta[i] + sign * h * v
                ends.append(reference.stage_loss(problem, number, theta))
            slope = (ends[0] - ends[1]) / (2 * h)
            exact = reference.derivative(problem, number, problem.parameters, {i: v})
            assert exact == pytest.approx(slope, rel=1e-5, abs=1e-8)


# --- all libraries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "lstm", "transformer"])  # JAX compiles each for seconds
def test_libraries_agree_on_every_gradient(name: str) -> None:
    entries = [entry for entry in registry.ENTRIES if entry.architectures and not entry.missing()]
    found: list[list[Any]] = []
    for entry in entries:
        instance: Any = entry.prepare(problem_of(name), dtype="float64")
        for phase in (instance.forward, instance.loss, instance.backward):
            phase()
        instance.synchronize()
        found.append(instance.gradients())
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert np.linalg.norm(one - two) <= 1e-9 * max(np.linalg.norm(two), 1e-3 * np.sqrt(two.size))


# --- planted errors -------------------------------------------------------------------------------------------------


def _dropped(monkeypatch: pytest.MonkeyPatch, kind: str, unwanted: Callable[[partial[Any]], bool]) -> None:
    """Leave calls out of a kind's backward list."""
    made = numpy_chain.KINDS[getattr(numpy_chain, kind)]

    def build(c: Any, layer: Layer, theta: Any, x: Any, shape: Shape, f: Any, b: Any) -> Any:
        node = made(c, layer, theta, x, shape, f, b)
        kept = [call for call in b.calls if not unwanted(call)]
        assert len(kept) < len(b.calls)
        b.calls[:] = kept
        return node

    monkeypatch.setitem(numpy_chain.KINDS, getattr(numpy_chain, kind), build)


def _subtracts_row_sums(call: partial[Any]) -> bool:
    """δ_P - Σ_k P ∘ δ_P: the only difference with something broadcast along the last axis of four."""
    return call.func is np.subtract and call.args[1].ndim == 4 and call.args[1].shape[-1] == 1


def _bias_of_convolution(call: partial[Any]) -> bool:
    return call.func == np.add.reduce


def _means(call: partial[Any]) -> bool:
    """x̂ mean(g ∘ x̂), subtracted last."""
    return call.func is np.subtract and call.args[1].shape[1] > 1


def _from_later_steps(call: partial[Any]) -> bool:
    """What a step gets from the step after it: truncated to one step, a recurrence learns nothing over time."""
    return call.func is np.add and len(call.args) == 3 and call.args[0] is call.args[2]


@pytest.mark.parametrize(
    ("kind", "unwanted", "name"),
    [
        ("Attention", _subtracts_row_sums, "transformer"),
        ("Conv2D", _bias_of_convolution, "cnn"),
        ("LayerNorm", _means, "transformer"),
        ("Recurrent", _from_later_steps, "rnn"),
    ],
)
def test_a_missing_term_is_caught(
    kind: str, unwanted: Callable[[partial[Any]], bool], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _dropped(monkeypatch, kind, unwanted)
    _caught(name)


def test_a_convolution_without_flip_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = numpy_images._add_patches
    monkeypatch.setattr(numpy_images, "_add_patches", lambda c, patches, *rest: right(c, patches[:, ::-1, ::-1], *rest))
    _caught("cnn")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_truncated_recurrence_is_caught(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hidden product of the backward pass is told by its matrix, (units, gates·units)."""
    _dropped(
        monkeypatch,
        "Recurrent",
        lambda call: (
            call.func is np.dot and call.args[0].shape[0] * {"lstm": 4, "gru": 3}[cell] == call.args[0].shape[1]
        ),
    )
    _caught(cell)


def _caught(name: str) -> None:
    problem = problem_of(name)
    with pytest.raises(Mismatch):
        conformance.check(registry.find("numpy").prepare(problem, dtype="float64"), problem, "float64")


# --- NumPy's memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_allocates_next_to_nothing(name: str) -> None:
    """But what ufuncs buffer where operands are broadcast, 8,192 numbers of each; and the order of an embedding's tokens."""
    n = 1024
    problem = problem_of(name, n=n)
    instance = registry.find("numpy").prepare(problem, dtype="float64")
    instance.step()
    tracemalloc.start()
    instance.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tokens = n * 6 if name in ("lstm", "transformer") else 0
    allowed = 3 * 8 * 8192 + 4096 + 8 * (8 + 4) * tokens  # rows of an embedding of 8, and their order
    values = 8 * n * sum(kept(architecture) for architecture in problem.objective.architectures)
    assert peak < allowed
    assert tokens or name in ("dqn", "gan") or allowed < values


def kept(architecture: Architecture) -> int:
    """Numbers that layers put out for an example."""
    return sum(math.prod(after) for _, _, after in architecture.walk())


# --- bad specifications ---------------------------------------------------------------------------------------------

IMAGE, SEQUENCE = (1, 8, 8), (5, 6)


@pytest.mark.parametrize(
    ("inputs", "layers", "loss", "vocabulary", "told"),
    [
        (IMAGE, (Conv2D(4), Dense(3)), "mse", 0, r"Dense\(units=3\) after Conv2D.*of shape \(4, 6, 6\).*Flatten"),
        (IMAGE, (Conv2D(4, kernel=9),), "mse", 0, "kernel of 9, larger than its input of 8"),
        (IMAGE, (Conv2D(4, stride=0),), "mse", 0, "stride 0"),
        (IMAGE, (Pool2D("median"),), "mse", 0, "unknown pooling 'median'"),
        (IMAGE, (Pool2D("max", 9),), "mse", 0, "larger than its input of 8"),
        (SEQUENCE, (Attention(4),), "mse", 0, "4 heads, which the width 6 does not divide by"),
        (SEQUENCE, (Conv2D(4),), "mse", 0, "needs an image"),
        (SEQUENCE, (Recurrent("elman", 4),), "mse", 0, "unknown cell 'elman'"),
        (SEQUENCE, (Flatten(), Recurrent("rnn", 4)), "mse", 0, r"after Flatten\(\) of shape \(30,\)"),
        (SEQUENCE, (Residual((Dense(4),)),), "mse", 0, r"makes \(5, 4\) of \(5, 6\)"),
        (SEQUENCE, (Dropout(1.0),), "mse", 0, "rate 1"),
        (SEQUENCE, (Dense(4),), "cross_entropy", 0, r"wants \(classes,\).*\(5, 4\)"),
        (SEQUENCE, (Dense(4),), "hinge", 0, "unknown loss 'hinge'"),
        (SEQUENCE, (), "mse", 0, "at least one layer"),
        (SEQUENCE, (Dense(0),), "mse", 0, "0 units"),
        (SEQUENCE, (Activation("tanj"),), "mse", 0, "did you mean 'tanh'"),
        ((0, 6), (Dense(4),), "mse", 0, "a sequence of length 0"),
        ((0,), (Embedding(5, 3),), "mse", 5, "a sequence of length 0"),
        ((4,), (Dense(3),), "mse", 5, "tokens go through Embedding first"),
        ((4,), (Embedding(5, 3), Dense(5)), "cross_entropy", 5, r"wants \(classes,\)"),
    ],
)
def test_what_cannot_be_built_is_told(
    inputs: Shape, layers: tuple[Layer, ...], loss: str, vocabulary: int, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        make_problem(Supervised(Architecture(inputs, layers, loss, vocabulary)), 3)


def test_adversaries_that_do_not_fit_are_told() -> None:
    generator, discriminator = Architecture((3,), (Dense(2),)), Architecture((2,), (Dense(1),))
    with pytest.raises(UserError, match=r"puts out \(2,\), and the discriminator takes \(3,\)"):
        make_problem(Adversarial(generator, generator), 3)
    with pytest.raises(UserError, match="one logit"):
        make_problem(Adversarial(discriminator, Architecture((1,), (Dense(2),))), 3)


def test_no_example_is_no_step() -> None:
    with pytest.raises(UserError, match="n = 0"):
        problem_of("dqn", n=0)


def test_who_builds_none_says_so() -> None:
    entry = registry.find("python")
    assert entry.cannot_build(OBJECTIVES["dqn"]) == "python builds fully connected networks alone"
    with pytest.raises(UserError, match="fully connected networks alone"):
        entry.prepare(problem_of("dqn"))
