"""Mixed precision: who keeps what in which dtype, how near to float64 that stays, and that wrong gradients do not hide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from impls import derivatives, dtypes, optimizers, reference, registry
from impls.architectures.problem import make_problem as make_architecture_problem
from impls.conformance import (
    STEPS,
    Expected,
    Mismatch,
    bold_problem,
    check_epochs,
    check_phases,
    check_step,
    check_steps,
)
from impls.interface import AnyArray, Backprop, Network, Problem
from impls.problem import make_problem
from impls.registry import Entry
from tests.architecture_problems import PROBLEMS
from tests.test_conformance import Wrong, available

#: Both on the CPU too, in every library that casts; torch.compile, which takes its time, has a test of its own.
ON_CPU = ("bfloat16", "float16")
ENTRIES = [e for e in registry.ENTRIES if "cpu" in e.devices and set(ON_CPU) <= set(e.dtypes) and "smoke" in e.sweeps]

mixed = pytest.mark.parametrize("dtype", ON_CPU)
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)


# --- the table ------------------------------------------------------------------------------------------------------


def test_no_library_is_imported_for_names() -> None:
    code = "import sys; from impls import dtypes; print([m for m in ('numpy', 'torch', 'jax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_table() -> None:
    assert registry.DTYPES == dtypes.NAMES == ("float32", "float64", "tf32", "bfloat16", "float16")
    assert dtypes.PLAIN == ("float32", "float64")
    assert dtypes.MIXED == ("tf32", "bfloat16", "float16")
    assert {name: dtypes.find(name).stored_itemsize for name in dtypes.NAMES} == dict(
        zip(dtypes.NAMES, (4, 8, 4, 4, 4), strict=True)
    )
    assert all(dtypes.find(name).stored == "float32" for name in dtypes.MIXED)
    for name in dtypes.PLAIN:
        assert dtypes.find(name).epsilon == np.finfo(name).eps
        assert dtypes.find(name).itemsize == np.dtype(name).itemsize
    assert dtypes.find("float16").epsilon == np.finfo("float16").eps


def test_an_unknown_dtype_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown dtype 'bfloat61': did you mean 'bfloat16'"):
        dtypes.find("bfloat61")


def test_what_is_asked_of_a_device() -> None:
    told = dtypes.lacking("tf32", (7, 0), "cuda:0", "Tesla V100")
    assert told == "dtype 'tf32' needs compute capability 8.0 or newer: cuda:0 is a Tesla V100 with 7.0"
    assert dtypes.lacking("tf32", (8, 0), "cuda:0", "A100") is None
    assert dtypes.lacking("bfloat16", (7, 5), "cuda:0", "T4")
    assert dtypes.lacking("float16", (7, 0), "cuda:0", "V100") is None


def test_dtypes_by_device() -> None:
    torch = registry.find("torch")
    assert torch.dtypes_on("cpu") == ("float32", "float64", "bfloat16", "float16")
    assert torch.dtypes_on("cuda:1") == (*torch.dtypes, "tf32")
    assert registry.find("torch-manual").dtypes_on("cuda") == ("float32", "float64", "tf32")
    assert registry.find("numpy").dtypes_on("cpu") == dtypes.PLAIN
    for entry in registry.ENTRIES:
        assert not any(dtypes.find(name).accelerators_only for name in entry.dtypes)
        assert not entry.accelerator_dtypes or entry.devices != ("cpu",)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("n", "outputs"), [(1, 4), (11, 4), (256, 10), (8192, 10), (8192, 8192), (10**6, 10)])
def test_a_scaled_loss_keeps_gradients_within_float16(loss: str, n: int, outputs: int) -> None:
    scale = dtypes.loss_scale(loss, n, outputs)
    assert scale >= 1
    assert np.log2(scale) % 1 == 0  # nothing is rounded by it
    delta = scale / (n * outputs if loss == "mse" else n)
    assert delta >= 1 / 32  # far above the smallest normal number, 6e-5
    assert delta <= 1 / 4 or scale == 1
    assert delta * n * 0.3 < 65504 or n > 10**5


# --- implementations on the CPU -------------------------------------------------------------------------------------


@mixed
@every_entry
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "softplus", "horner-4"])
def test_agrees_with_the_reference(entry: Entry, activation: str, loss: str, dtype: str) -> None:
    problem = make_problem(Network((64, 48, 48, 10), activation, loss), 40, seed=3, learning_rate=1.0)
    expected = Expected.of(problem, dtype)
    by_phase, stepped = (available(entry).prepare(problem, dtype=dtype) for _ in range(2))
    check_phases(by_phase, expected)
    by_phase.update()
    by_phase.synchronize()
    expected.check_step(by_phase.parameters())
    check_step(stepped, expected)
    for arrays in (stepped.parameters(), by_phase.gradients()):
        assert {array.dtype for array in arrays} == {np.dtype("float32")}


@mixed
@every_entry
@pytest.mark.parametrize("layers", [(64, *[32] * 32, 10), (64, *[64] * 8, 10)], ids=["deep", "8 layers"])
@pytest.mark.parametrize("activation", ["horner-1", "relu"])
def test_depth_does_not_break_it(entry: Entry, activation: str, layers: tuple[int, ...], dtype: str) -> None:
    problem = make_problem(Network(layers, activation), 64, seed=3, learning_rate=1.0)
    check_phases(available(entry).prepare(problem, dtype=dtype), Expected.of(problem, dtype))


@every_entry
def test_gradients_that_vanish_in_float16_are_judged_beside_the_others(entry: Entry) -> None:
    problem = make_problem(Network((64, *[64] * 8, 10), "sigmoid", "cross_entropy"), 64, seed=3)
    check_phases(available(entry).prepare(problem, dtype="float16"), Expected.of(problem, "float16"))


@mixed
@every_entry
@pytest.mark.parametrize("n", [1, 4096])
def test_one_example_and_many(entry: Entry, n: int, dtype: str) -> None:
    """One has a gradient that torch's own start of the scale would make infinite; many are summed."""
    problem = make_problem(Network((64, 32, 10), "tanh"), n, seed=3, learning_rate=1.0)
    check_phases(available(entry).prepare(problem, dtype=dtype), Expected.of(problem, dtype))
    check_step(entry.prepare(problem, dtype=dtype), Expected.of(problem, dtype))


@mixed
@every_entry
@pytest.mark.parametrize("optimizer", optimizers.NAMES)
def test_ten_steps_by_every_optimizer(entry: Entry, optimizer: str, dtype: str) -> None:
    problem = bold_problem(optimizer, "tanh", "mse", 3)
    expected = Expected.of(problem, dtype)
    instance = available(entry).prepare(problem, dtype=dtype)
    check_step(instance, expected)
    for _ in range(STEPS - 1):
        instance.step()
    expected.check_steps(instance.parameters())


@mixed
@every_entry
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_gradients_that_are_rounding_are_no_mismatch(entry: Entry, optimizer: str, dtype: str) -> None:
    """What moves as far whatever its gradient, in a network of many gradients near zero."""
    network = Network((64, 128, 128, 10), "horner-4")
    problem = make_problem(network, 64, seed=3, optimizer=optimizer)
    check_step(available(entry).prepare(problem, dtype=dtype), Expected.of(problem, dtype))


@mixed
@every_entry
def test_epochs(entry: Entry, dtype: str) -> None:
    problem = bold_problem("momentum", "tanh", "mse", 3)
    trainer: Any = available(entry).prepare(problem, dtype=dtype)
    check_epochs(trainer, Expected.of(problem, dtype))


@pytest.mark.parametrize("dtype", ON_CPU)
def test_torch_compile_once(dtype: str) -> None:
    entry = available(registry.find("torch-compile"))
    problem = make_problem(Network((5, 7, 6, 4)), 11, seed=3, learning_rate=1.0)
    check_step(entry.prepare(problem, dtype=dtype), Expected.of(problem, dtype))


@every_entry
def test_products_are_computed_in_the_dtype_and_not_in_float32(entry: Entry) -> None:
    """Errors are those of few bits, not of float32: nothing is timed under a wrong name."""
    problem = make_problem(Network((64, 48, 10)), 40, seed=3)
    errors = {}
    for dtype in ("float32", *ON_CPU):
        instance = available(entry).prepare(problem, dtype=dtype)
        for phase in (instance.forward, instance.loss, instance.backward):
            phase()
        errors[dtype] = Expected.of(problem, dtype).check_gradients(instance.gradients())
    assert errors["float32"] < 1e-5
    assert 1e-4 < errors["float16"] < 3e-3
    assert 1e-3 < errors["bfloat16"] < 3e-2


def test_infinite_gradients_skip_a_step_and_halve_the_scale() -> None:
    """As users of ``GradScaler`` know it."""
    torch = pytest.importorskip("torch")
    instance: Any = available(registry.find("torch")).prepare(make_problem(Network((5, 7, 4)), 9), dtype="float16")
    before, scale = instance.parameters(), 2.0**30
    instance.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    instance.step()
    for now, then in zip(instance.parameters(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert instance.scaler.get_scale() == scale / 2


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch", "torch-manual", "jax"])
def test_tf32_is_for_accelerators(name: str) -> None:
    problem = make_problem(Network((5, 7, 4)), 9)
    with pytest.raises(UserError, match="dtype 'tf32' is one of accelerators: the CPU has none"):
        available(registry.find(name)).prepare(problem, dtype="tf32")


@mixed
def test_what_casts_nothing_says_so(dtype: str) -> None:
    problem = make_problem(Network((5, 7, 4)), 9)
    with pytest.raises(UserError, match=f"torch-manual: no dtype '{dtype}'; it computes in float32, float64, on acc"):
        available(registry.find("torch-manual")).prepare(problem, dtype=dtype)
    objective, n = next(iter(PROBLEMS.values()))
    for name in ("torch", "jax"):
        with pytest.raises(UserError, match=f"architectures by {name}: no dtype '{dtype}'"):
            available(registry.find(name)).prepare(make_architecture_problem(objective, n), dtype=dtype)
        with pytest.raises(UserError, match=f"derivatives by {name}: no dtype '{dtype}'"):
            derivatives.prepare(name, problem, dtype=dtype)


# --- the checker is checked -----------------------------------------------------------------------------------------

SPOILT: dict[str, Callable[[list[AnyArray]], list[AnyArray]]] = {
    "a factor of 2 is missing": lambda g: [x / 2 for x in g],
    "a factor of n too many": lambda g: [9 * x for x in g],
    "a layer without its term": lambda g: [*g[:2], np.zeros_like(g[2]), *g[3:]],
    "a bias without its term": lambda g: [*g[:3], np.zeros_like(g[3]), *g[4:]],
    "a slope forgotten": lambda g: [1.3 * g[0], 1.3 * g[1], *g[2:]],
    "wrong by a twentieth": lambda g: [1.05 * x for x in g],
    "transposed weight": lambda g: [*g[:2], g[2].T.copy(), *g[3:]],
    "wrong sign": lambda g: [-x for x in g],
    "not a number": lambda g: [*g[:2], np.full_like(g[2], np.nan), *g[3:]],
    "infinite": lambda g: [*g[:2], np.full_like(g[2], np.inf), *g[3:]],
}


def rounded(problem: Problem, dtype: str, spoil: Callable[[list[AnyArray]], list[AnyArray]] = list) -> Backprop:
    """The reference's gradients rounded to the dtype's bits, then spoilt."""
    step = dtypes.find(dtype).epsilon

    def coarse(x: AnyArray) -> AnyArray:
        spacing = step * 2.0 ** np.floor(np.log2(np.maximum(np.abs(x), 1e-300)))
        return np.asarray(np.round(x / spacing) * spacing)

    made: Backprop = Wrong(lambda g: spoil([coarse(x) for x in g]), problem, "float32")
    return made


@pytest.mark.parametrize("dtype", dtypes.MIXED)
@pytest.mark.parametrize("what", SPOILT)
def test_wrong_gradients_are_caught(what: str, dtype: str) -> None:
    problem = make_problem(Network((5, 6, 6, 4)), 9, seed=2, learning_rate=1.0)
    expected = Expected.of(problem, dtype)
    check_phases(rounded(problem, dtype), expected)
    check_step(rounded(problem, dtype), expected)
    wrong = rounded(problem, dtype, SPOILT[what])
    with pytest.raises(Mismatch, match="gradient"):
        check_phases(wrong, expected)
    if what != "a bias without its term":  # a small share of the whole step: caught by phases, where there are any
        with pytest.raises(Mismatch, match="step"):
            check_step(wrong, expected)


@mixed
@pytest.mark.parametrize("what", ["a factor of 2 is missing", "a layer without its term", "wrong sign"])
def test_wrong_gradients_are_caught_across_kinks_too(what: str, dtype: str) -> None:
    problem = make_problem(Network((64, 48, 48, 10), "relu"), 40, seed=2, learning_rate=1.0)
    with pytest.raises(Mismatch, match="gradient"):
        check_phases(rounded(problem, dtype, SPOILT[what]), Expected.of(problem, dtype))


@pytest.mark.parametrize("dtype", dtypes.MIXED)
def test_a_wrong_loss_is_caught(dtype: str) -> None:
    problem = make_problem(Network((5, 6, 4)), 9)
    expected = Expected.of(problem, dtype)
    with pytest.raises(Mismatch, match="loss"):
        expected.check_loss(1.05 * reference.loss(problem))
    with pytest.raises(Mismatch, match="loss"):
        expected.check_loss(float("nan"))


@pytest.mark.parametrize("dtype", dtypes.MIXED)
def test_steps_the_wrong_way_are_caught(dtype: str) -> None:
    problem = bold_problem("momentum", "tanh", "mse", 3)
    with pytest.raises(Mismatch, match="what 10 steps moved"):
        check_steps(rounded(problem, dtype), Expected.of(problem, dtype))  # gradient descent instead
