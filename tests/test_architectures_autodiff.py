"""Architectures in PyTorch and JAX: what autograd makes of them is what the forward-only reference says, and what they cost
is what is counted; wrong mathematics is caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from impls import activations, registry
from impls.architectures import conformance
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
    LayerNorm,
    Pool2D,
    Positions,
    Recurrent,
    Residual,
)
from impls.architectures.problem import (
    Adversarial,
    ArchitectureProblem,
    Objective,
    Supervised,
    TemporalDifference,
    make_problem,
)
from impls.conformance import Mismatch
from impls.optimizers import NAMES as OPTIMIZERS
from impls.registry import LAYER_KINDS, Entry
from tests.test_conformance import available

ENTRIES = [registry.find(name) for name in ("torch", "jax")]

MLP = (Dense(7), Activation("tanh"), Dense(3))
CNN = (
    *(Conv2D(4, 3, 1, 1), Activation("relu"), Pool2D("max", 3, 2)),
    *(Conv2D(3, 2, 2, 1), Activation("softplus"), Pool2D("mean", 2, 1)),
    *(Residual((Conv2D(3, 3, 1, 1), Activation("silu"))), Flatten(), Dropout(0.3), Dense(4)),
)


def block(heads: int, causal: bool) -> tuple[Layer, ...]:
    """As of GPT: what is normalised is added."""
    inner = (LayerNorm(), Dense(12), Activation("gelu"), Dense(8), Dropout(0.2))
    return Residual((LayerNorm(), Attention(heads, causal), Dropout(0.2))), Residual(inner)


def sequence(cell: str) -> Supervised:
    """Two layers of a cell, every step's output held against a target."""
    return Supervised(Architecture((5, 3), (Recurrent(cell, 4), Recurrent(cell, 6), Dense(2))))


def text(*inner: Layer) -> Supervised:
    """Tokens in, the next ones out."""
    return Supervised(Architecture((6,), (Embedding(9, 8), *inner, Dense(9)), "token_cross_entropy", 9))


OBJECTIVES: dict[str, Objective] = {
    "mlp": Supervised(Architecture((5,), MLP, "cross_entropy")),
    "policy-gradient": Supervised(Architecture((5,), MLP, "policy_gradient")),
    "cnn": Supervised(Architecture((2, 11, 9), CNN, "cross_entropy")),
    **{cell: sequence(cell) for cell in ("rnn", "lstm", "gru")},
    "text": text(Recurrent("lstm", 5)),
    "transformer": text(Positions(), *block(2, causal=True), *block(4, causal=True), LayerNorm()),
    "encoder": Supervised(
        Architecture(
            (5, 8), (Attention(2, causal=False), *block(1, causal=False), Flatten(), Dense(3)), "cross_entropy"
        )
    ),
    "dqn": TemporalDifference(Architecture((2, 11, 9), CNN), discount=0.9),
    "gan": Adversarial(
        Architecture((3,), (Dense(6), Activation("tanh"), Dropout(0.3), Dense(4))),
        Architecture((4,), (Dense(6), Activation("leaky_relu"), Dropout(0.3), Dense(1))),
    ),
    # a discriminator of all that costs something else where its weights want no gradient
    "gan-of-sequences": Adversarial(
        Architecture((4, 3), (Recurrent("gru", 4), Dense(6))),
        Architecture((4, 6), (Attention(2), Recurrent("rnn", 3), Flatten(), Dense(1))),
    ),
}
#: One of each class.
STEPS = ("transformer", "dqn", "gan")


def problem_of(
    name: str, n: int = 5, optimizer: str = "gradient-descent", seed: int = 0, rate: float = 0.1
) -> ArchitectureProblem:
    """At a rate that moves far, so that nothing hides in the parameters' rounding."""
    return make_problem(OBJECTIVES[name], n, seed, learning_rate=rate, optimizer=optimizer)


def single(name: str) -> bool:
    """Whether its step has phases."""
    return len(OBJECTIVES[name].stages) == 1


def run_phases(instance: Any) -> None:
    """Up to the gradients."""
    for phase in (instance.forward, instance.loss, instance.backward):
        phase()
    instance.synchronize()


@pytest.fixture(params=ENTRIES, ids=lambda e: str(e.name))
def entry(request: pytest.FixtureRequest) -> Entry:
    """Each of the two."""
    return available(request.param)


# --- right ----------------------------------------------------------------------------------------------------------


def test_every_kind_is_covered() -> None:
    assert {kind for objective in OBJECTIVES.values() for kind in objective.kinds} == set(LAYER_KINDS)
    assert all(not e.cannot_build(objective) for e in ENTRIES for objective in OBJECTIVES.values())


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_conforms(entry: Entry, name: str, n: int) -> None:
    problem = problem_of(name, n)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", STEPS)
def test_conforms_with_every_optimizer(entry: Entry, name: str, optimizer: str) -> None:
    problem = problem_of(name, optimizer=optimizer)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_conforms_in_float32(entry: Entry, name: str) -> None:
    problem = problem_of(name)
    conformance.check(entry.prepare(problem), problem, "float32")


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_gradients_that_are_rounding_are_no_mismatch(entry: Entry, optimizer: str) -> None:
    """Of the keys' bias: a softmax is the same whatever is added to all its scores, so it is 0 but for rounding."""
    problem = make_problem(OBJECTIVES["transformer"], 5, optimizer=optimizer)
    conformance.check(entry.prepare(problem), problem, "float32")


@pytest.mark.parametrize("name", [*activations.PLAIN_NAMES, "horner-3"])
def test_every_activation(entry: Entry, name: str) -> None:
    problem = make_problem(Supervised(Architecture((5,), (Dense(6), Activation(name), Dense(3)))), 4, learning_rate=0.1)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if single(name)])
def test_phases_equal_the_step(entry: Entry, name: str) -> None:
    problem = problem_of(name, optimizer="momentum")
    stepped, phased = (entry.prepare(problem, dtype="float64") for _ in range(2))
    for _ in range(2):
        stepped.step()
        run_phases(phased)
        phased.update()
    assert phased.loss_value() == pytest.approx(stepped.loss_value(), rel=1e-12)
    for one, other in zip(phased.parameters(), stepped.parameters(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_problems_are_left_as_they_are(entry: Entry, name: str) -> None:
    problem = problem_of(name)
    instance = entry.prepare(problem, dtype="float64")
    for one, other in zip(instance.parameters(), problem.parameters, strict=True):
        np.testing.assert_array_equal(one, other)  # given back as they came
    instance.step()
    instance.synchronize()
    fresh = problem_of(name)
    for one, other in zip((*problem.parameters, *problem.target), (*fresh.parameters, *fresh.target), strict=True):
        np.testing.assert_array_equal(one, other)
    for key, array in problem.arrays.items():
        np.testing.assert_array_equal(array, fresh.arrays[key])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_another_batch_is_held(entry: Entry, name: str) -> None:
    problem, other = problem_of(name), problem_of(name, seed=1)
    instance: Any = entry.prepare(problem, dtype="float64")
    instance.hold(other.arrays)
    conformance.check(instance, replace(problem, arrays=other.arrays), "float64")


def test_a_renewed_target_is_a_copy(entry: Entry) -> None:
    problem = problem_of("dqn")
    instance: Any = entry.prepare(problem, dtype="float64")
    instance.renew_target()
    # first it is Q where it starts, and then it stands still while Q moves on
    for theta in (problem.parameters, None):
        now = replace(problem, target=problem.parameters, parameters=theta or tuple(instance.parameters()))
        conformance.check(instance, now, "float64")


def test_only_temporal_differences_have_a_target(entry: Entry) -> None:
    problem = problem_of("mlp")
    instance: Any = entry.prepare(problem, dtype="float64")
    instance.renew_target()
    conformance.check(instance, problem, "float64")


def test_an_absent_device_is_told(entry: Entry) -> None:
    with pytest.raises(UserError, match="device '.*:7' is absent"):
        entry.prepare(problem_of("mlp"), device=f"{entry.devices[-1]}:7")


# --- what they cost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_products_agree_with_torch(name: str, n: int) -> None:
    """torch counts mm, addmm, bmm, convolution and convolution_backward: with the plain formula for attention and in
    float64, since neither the CPU's fused attention nor oneDNN's LSTM (float32) is among what it counts.
    """
    pytest.importorskip("torch")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    problem = problem_of(name, n)
    instance = available(registry.find("torch")).prepare(problem, dtype="float64")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        instance.step()
    assert counter.get_total_flops() == 2 * n * problem.objective.count().products
