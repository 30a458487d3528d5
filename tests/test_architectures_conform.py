"""Architectures in every library: what each makes of them is what the forward-only reference says, and what they cost
is what is counted; wrong mathematics is caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from impls import activations, registry
from impls.architectures import conformance, layers
from impls.architectures.layers import (
    Activation,
    Architecture,
    Attention,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
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
from impls.registry import Entry
from tests.test_conformance import available

ENTRIES = [entry for entry in registry.ENTRIES if entry.architectures]

MLP = (Dense(9), Activation("tanh"), Dropout(0.2), Dense(3))
CNN = (
    *(Conv2D(4, 3, 1, 1), Activation("relu"), Pool2D("max", 3, 2)),
    *(Conv2D(3, 2, 2, 1), Activation("softplus"), Pool2D("mean", 2, 1), Flatten(), Dropout(0.3), Dense(4)),
)
#: Windows side by side that leave a rest, and images through all that lays them out anew; what comes out is one too.
TILES = (
    *(Conv2D(3, 3, 1, 1), Residual((Conv2D(3, 3, 1, 1), Activation("tanh"))), Pool2D("max", 2)),
    *(Dropout(0.3), Conv2D(4, 2, 1, 1), Pool2D("mean", 2), Activation("tanh")),
)
GPT = (
    *(Embedding(9, 8), Positions(), Residual((LayerNorm(), Attention(2), Dropout(0.2)))),
    *(Residual((LayerNorm(), Dense(12), Activation("gelu"), Dense(8))), LayerNorm(), Dense(9)),
)


OBJECTIVES: dict[str, Objective] = {
    "mlp": Supervised(Architecture((5,), MLP, "cross_entropy")),
    "cnn": Supervised(Architecture((2, 11, 9), CNN, "cross_entropy")),
    "images": Supervised(Architecture((2, 7, 9), TILES)),
    "rnn": Supervised(Architecture((5, 4), (Recurrent("rnn", 6), Flatten(), Dense(3)), "policy_gradient")),
    # below these a layer whose gradient goes through them
    "lstm": Supervised(Architecture((5, 3), (Dense(4), Recurrent("lstm", 6)))),
    "gru": Supervised(Architecture((5, 3), (Dense(4), Recurrent("gru", 6)))),
    "transformer": Supervised(Architecture((6,), GPT, "token_cross_entropy", 9)),
    "dqn": TemporalDifference(Architecture((5,), MLP), discount=0.9),
    "gan": Adversarial(
        Architecture((3,), (Dense(6), Activation("tanh"), Dropout(0.3), Dense(4))),
        Architecture((4,), (Dense(6), Activation("leaky_relu"), Dropout(0.3), Dense(1))),
    ),
}
#: First layers whose input wants no gradient, and a discriminator of all that costs less while it stands still.
GAN_OF_SEQUENCES = Adversarial(
    Architecture((4, 3), (Recurrent("gru", 4), Dense(6))),
    Architecture((4, 6), (Attention(2, causal=False), Recurrent("rnn", 3), Flatten(), Dense(1))),
)
PHASED = [name for name, objective in OBJECTIVES.items() if len(objective.stages) == 1]


def problem_of(
    name: str, n: int = 5, optimizer: str = "gradient-descent", seed: int = 0, rate: float = 0.1
) -> ArchitectureProblem:
    """At a rate that moves far, so that nothing hides in the parameters' rounding."""
    return make_problem(OBJECTIVES[name], n, seed, learning_rate=rate, optimizer=optimizer)


def run_phases(instance: Any) -> None:
    """Up to the gradients."""
    for phase in (instance.forward, instance.loss, instance.backward):
        phase()
    instance.synchronize()


@pytest.fixture(params=ENTRIES, ids=lambda e: str(e.name))
def entry(request: pytest.FixtureRequest) -> Entry:
    """Each that builds architectures."""
    return available(request.param)


@pytest.fixture(autouse=True, scope="module")
def share() -> Iterator[None]:
    """JAX compiles each function once for all tests of this file: it takes a second for many of them."""
    if registry.find("jax").missing():
        yield
        return
    from impls.architectures import jax_layers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_layers, "compiled", lru_cache(maxsize=None)(jax_layers.compiled.__wrapped__))
        yield


def cheap(entry: Entry, name: str) -> None:
    """Skip what would be compiled for long only to do once more what another test does."""
    if entry.name == "jax" and name not in ("dqn", "gan"):
        pytest.skip("what is written once for every n, dtype and activation takes seconds to compile for each")


# --- right ----------------------------------------------------------------------------------------------------------


def test_every_kind_is_covered() -> None:
    assert {kind for objective in OBJECTIVES.values() for kind in objective.kinds} == set(layers.KINDS)
    assert all(not e.cannot_build(objective) for e in ENTRIES for objective in OBJECTIVES.values())


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_conforms(entry: Entry, name: str, n: int) -> None:
    if n == 1:
        cheap(entry, name)
    problem = problem_of(name, n)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_conforms_with_every_optimizer(entry: Entry, optimizer: str) -> None:
    tiny = Adversarial(Architecture((3,), (Dense(2),)), Architecture((2,), (Dense(1),)))  # one for each of two
    problem = make_problem(tiny, 5, learning_rate=0.1, optimizer=optimizer)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_conforms_in_float32(entry: Entry, name: str) -> None:
    cheap(entry, name)
    problem = problem_of(name)
    conformance.check(entry.prepare(problem), problem, "float32")


def test_gradients_that_are_rounding_are_no_mismatch(entry: Entry) -> None:
    """Of the keys' bias: a softmax is the same whatever is added to all its scores, so it is 0 but for rounding."""
    architecture = Architecture((5, 6), (Attention(2, causal=False), Flatten(), Dense(3)), "cross_entropy")
    problem = make_problem(Supervised(architecture), 5, optimizer="adam")
    conformance.check(entry.prepare(problem), problem, "float32")


def test_every_activation(entry: Entry) -> None:
    cheap(entry, "activations")
    names = (*activations.PLAIN_NAMES, "horner-3")
    layers = tuple(layer for name in names for layer in (Dense(4), Activation(name)))
    problem = make_problem(Supervised(Architecture((5,), layers)), 4, learning_rate=0.1)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("name", PHASED)
def test_phases_equal_the_step(entry: Entry, name: str) -> None:
    problem = problem_of(name)
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
    for _ in range(2):
        now = replace(problem, target=problem.parameters, parameters=tuple(instance.parameters()))
        conformance.check(instance, now, "float64")


def test_only_temporal_differences_have_a_target(entry: Entry) -> None:
    problem = problem_of("rnn")
    instance: Any = entry.prepare(problem, dtype="float64")
    instance.renew_target()
    conformance.check(instance, problem, "float64")


def test_an_absent_device_is_told(entry: Entry) -> None:
    if len(entry.devices) == 1:
        pytest.skip(f"{entry.name} has no other device")
    with pytest.raises(UserError, match=r"device '\w+:7' is absent"):
        entry.prepare(problem_of("rnn"), device=f"{entry.devices[-1]}:7")


# --- what they cost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("objective", [*OBJECTIVES.values(), GAN_OF_SEQUENCES], ids=[*OBJECTIVES, "gan of sequences"])
def test_products_agree_with_torch(objective: Objective, n: int) -> None:
    """As torch counts mm, addmm, bmm, convolution and convolution_backward: with the plain formula for attention and in
    float64, since neither the CPU's fused attention nor oneDNN's LSTM (float32) is among what it counts.
    """
    entry = available(registry.find("torch"))
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    problem = make_problem(objective, n)
    instance = entry.prepare(problem, dtype="float64")
    conformance.check(instance, problem, "float64")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        instance.step()
    assert counter.get_total_flops() == 2 * n * objective.count().products


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture((8, 12, 12), (Conv2D(16), Conv2D(16, 3, 2), Flatten(), Dense(32))),
        Architecture((32, 64), (Attention(4), Dense(64))),
    ],
    ids=lambda architecture: "-".join(architecture.kinds),
)
def test_products_agree_with_xla(architecture: Architecture) -> None:
    """Where elementwise work is little.  XLA counts no products with the zeros of a padding, and a loop's body once."""
    problem = make_problem(Supervised(architecture), 32)
    instance: Any = available(registry.find("jax")).prepare(problem)
    analysis = instance._compiled.step.lower(*instance._arguments()).compile().cost_analysis()
    assert analysis["flops"] == pytest.approx(2 * problem.n * problem.objective.count().products, rel=0.05)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_preparing_again_compiles_nothing(name: str) -> None:
    entry = available(registry.find("jax"))
    import jax

    compiled: list[str] = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    def work(seed: int) -> None:
        problem = problem_of(name, seed=seed)
        instance: Any = entry.prepare(problem, dtype="float64")
        conformance.check(instance, problem, "float64")
        instance.renew_target()
        instance.step()
        instance.peak_bytes()
        instance.synchronize()

    work(seed=0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        work(seed=1)
        assert compiled == []
        jax.jit(lambda x: x + len(name))(0.0)  # it does listen
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_timed_step_of_adversaries_tells_no_gradients() -> None:
    """To hand them out takes time that no user would spend."""
    instance: Any = available(registry.find("jax")).prepare(problem_of("gan"), dtype="float64")
    instance.step()
    assert instance.gradients() == []
    conformance.check(instance, replace(problem_of("gan"), parameters=tuple(instance.parameters())), "float64")
    assert instance.keep_gradients is False


def test_jax_tells_its_memory() -> None:
    """At least what it holds: parameters once, since they are donated, the batch and the outputs."""
    problem = problem_of("lstm")
    instance: Any = available(registry.find("jax")).prepare(problem, dtype="float64")
    instance.step()
    held = 8 * (problem.objective.m + sum(array.size for array in problem.arrays.values()))
    assert held < instance.peak_bytes() < 20 * held


# --- the check is checked: each of these is caught ------------------------------------------------------------------


def torch_errors() -> dict[str, tuple[str, Callable[[Any], object]]]:
    """Of each error the objective, and what makes an instance wrong."""
    import torch
    from torch import nn

    def swap_gates(instance: Any) -> None:
        with torch.no_grad():
            for p in instance.models[0][1].cell.parameters():
                i, f, g, o = p.chunk(4)
                p.copy_(torch.cat([f, i, g, o]))

    def in_place_of(index: int, function: Callable[[Any, Any], Any]) -> Callable[[Any], None]:
        def plant(instance: Any) -> None:
            right = instance.models[0][index]

            class Wrong(nn.Module):
                def __init__(self) -> None:
                    super().__init__()
                    self.inner = right

                def forward(self, x: Any) -> Any:
                    return function(self.inner, x)

            instance.models[0][index] = Wrong()

        return plant

    def flipped(conv: Any, x: Any) -> Any:
        return nn.functional.conv2d(x, conv.weight.flip(2, 3), conv.bias, padding=1)

    def truncated(cell: Any, x: Any) -> Any:
        before = cell.cell(x[:, :3])
        after = cell.cell(x[:, 3:], before[1].detach())
        return torch.cat([before[0], after[0]], 1)

    def without_mask(instance: Any) -> None:
        inner = instance.models[0][2].inner[1]
        inner.causal, inner.mask = False, None

    def polluted(instance: Any) -> None:
        # D goes on asking for gradients in the generator's turn, and they are added to its own
        instance.models[1].requires_grad_ = lambda wanted: None

    return {
        "swapped gates": ("lstm", swap_gates),
        "a convolution that flips": ("cnn", in_place_of(0, flipped)),
        "a truncated recurrence": ("rnn", in_place_of(0, truncated)),
        "every position sees all": ("transformer", without_mask),
        "no dropout": ("dqn", lambda instance: instance.models[0][2].mask.fill_(1.0)),
        "another Q⁻": ("dqn", lambda instance: instance.renew_target()),
        "gradients of the other stage": ("gan", polluted),
    }


def test_wrong_mathematics_is_caught_in_torch() -> None:
    entry = available(registry.find("torch"))
    for error, (name, plant) in torch_errors().items():
        problem = problem_of(name)
        instance = entry.prepare(problem, dtype="float64")
        plant(instance)
        with pytest.raises(Mismatch):
            conformance.check(instance, problem, "float64")
            pytest.fail(f"{error} went unnoticed")


def test_a_softmax_with_a_missing_term_is_caught_in_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value is right; the gradient takes the sum of exponentials for a constant."""
    entry = available(registry.find("jax"))
    import jax

    right = jax.nn.softmax

    def wrong(scores: Any, axis: int) -> Any:
        return jax.numpy.exp(scores - jax.lax.stop_gradient(jax.nn.logsumexp(scores, axis=axis, keepdims=True)))

    x = np.arange(3.0)
    np.testing.assert_allclose(wrong(x, 0), right(x, 0))
    monkeypatch.setattr(jax.nn, "softmax", wrong)
    problem = make_problem(Supervised(Architecture((4, 6), (Attention(2),))), 3, learning_rate=0.1)
    with pytest.raises(Mismatch, match="gradient of array 0"):
        conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


def test_a_truncated_recurrence_is_caught_in_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = available(registry.find("jax"))
    import jax

    from impls.architectures import jax_layers

    right = jax_layers.CELLS["rnn"]

    def wrong(state: Any, a: Any, b: Any) -> Any:
        return right(state, a, jax.lax.stop_gradient(b))

    monkeypatch.setitem(jax_layers.CELLS, "rnn", wrong)
    problem = make_problem(Supervised(Architecture((4, 3), (Recurrent("rnn", 3),))), 3, learning_rate=0.1)
    with pytest.raises(Mismatch, match="gradient of array 0"):
        conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_pool_that_hands_back_too_much_is_caught_in_jax(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The value is right; the gradient of windows side by side is a thousandth too large."""
    entry = available(registry.find("jax"))
    import jax

    from impls.architectures import jax_layers

    right = jax_layers._tiled

    def wrong(layer: Any, x: Any) -> Any:
        y = right(layer, x)
        return 1.001 * y - 0.001 * jax.lax.stop_gradient(y)

    monkeypatch.setattr(jax_layers, "_tiled", wrong)
    layers = (Conv2D(2, 3), Pool2D(how, 2))
    problem = make_problem(Supervised(Architecture((1, 6, 6), layers)), 3, learning_rate=0.1)
    with pytest.raises(Mismatch, match="gradient of array 0"):
        conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")
