"""Peak memory: what is counted is what the shapes say, to the byte."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from bench import memory
from bench.cells import Point, Setting, bytes_estimate
from bench.worker import Worker
from impls import registry
from impls.interface import Network, Problem
from impls.optimizers import NAMES, OPTIMIZERS, USUAL
from impls.problem import make_problem
from impls.registry import Entry
from impls.straight_line import block_sizes
from tests.test_conformance import available

SHAPES = ((64, 128, 128, 10), (64, 256, 10), (20, 96, 160, 96, 30))
ENTRIES = [entry for entry in registry.ENTRIES if entry.cost.first_call_s < 1]  # others compile for half a minute


def measured(
    entry: Entry, network: Network, n: int, dtype: str = "", wrap: type | None = None, optimizer: str = USUAL
) -> memory.Peak:
    """Peak of a step of an entry as the harness finds it; of ``wrap`` in its place."""
    problem = make_problem(network, n, optimizer=optimizer)
    dtype = dtype or entry.dtypes[0]

    def make() -> Any:
        return wrap(problem, dtype=dtype) if wrap else entry.prepare(problem, dtype=dtype)

    instance = make()
    instance.step()
    instance.synchronize()
    return memory.peak(entry, "cpu", instance, make)


def bytes_of(
    entry: Entry, network: Network, n: int, dtype: str = "", wrap: type | None = None, optimizer: str = USUAL
) -> int:
    """Its bytes, which must be there."""
    found = measured(entry, network, n, dtype, wrap, optimizer).peak_bytes
    assert found is not None
    return found


def able(entry: Entry, layers: tuple[int, ...], activation: str = "tanh") -> Network:
    """The network, or a skip where the entry is missing or cannot build it."""
    network = Network(layers, activation)
    if available(entry).cannot(network):
        pytest.skip(str(entry.cannot(network)))
    return network


# --- by hand: numbers held by tanh and mse, from shapes alone ---------------------------------------------------------


def straight_line(layers: tuple[int, ...], n: int) -> int:
    """Every array of ``straight_line.py`` in turn."""
    _, *inner, last = layers
    batch = n * (2 * (layers[0] + 1) + last)  # inputs with their ones, in two layouts, and targets
    values = sum(units + 1 for units in inner) + last  # what goes into each layer, with its ones, and the outputs
    sizes = block_sizes(n, 512)
    workspaces = sum(set(sizes)) * (values + sum(layers[1:]) + max(layers[1:]))  # values, δ, scratch
    numbers = len(sizes) * (2 + 1 + len(inner))  # two sums of the loss, its scale, a 1.0 for each hidden layer
    return 2 * Network(layers).m + batch + workspaces + numbers


def eager_torch(layers: tuple[int, ...], n: int) -> int:
    """The largest moment: forward or backward, at one of the hidden layers."""
    _, *inner, last = layers
    network = Network(layers)
    held = (
        network.m + n * (layers[0] + last) + n * last
    )  # the loss is one number in the storage of all it is the mean of
    above = [sum((fan_in + 1) * fan_out for fan_in, fan_out in network.shapes[k:]) for k in range(1, network.depth)]
    moments = []
    for so_far, width, gradients in zip(accumulate(inner), inner, above, strict=True):
        moments += [
            network.m + n * (so_far + width),  # forward: the last step's gradients, activations so far, the z at hand
            gradients + n * (so_far + 2 * width) + 1,  # backward: δ before and after f', and the 1.0 it all starts from
        ]
    return held + max(moments)


BY_HAND = {
    "numpy": straight_line,
    "torch-manual": lambda layers, n: straight_line(layers, n) + 1,  # torch.dot copies its result to out=
    "torch": eager_torch,
}


@pytest.mark.parametrize("layers", SHAPES, ids=str)
@pytest.mark.parametrize("n", [1, 64, 512, 1100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BY_HAND)
def test_equals_what_is_computed_by_hand(name: str, dtype: str, n: int, layers: tuple[int, ...]) -> None:
    found = bytes_of(available(registry.find(name)), Network(layers), n, dtype)
    assert found == BY_HAND[name](layers, n) * np.dtype(dtype).itemsize


# --- every implementation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_a_small_cell_is_more_than_its_parameters_and_batch(entry: Entry) -> None:
    network = able(entry, (5, 7, 4))
    least = network.m + 3 * (5 + 4)
    found = measured(entry, network, 3)
    assert found.memory_from
    assert found.peak_bytes is not None
    assert found.peak_bytes >= least * np.dtype(entry.dtypes[0]).itemsize


@pytest.mark.parametrize("activation", ["tanh", "horner-6"])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_grows_linearly_with_the_examples(entry: Entry, activation: str) -> None:
    network = able(entry, (64, 32, 32, 10), activation)
    unit = 8 if entry.slow else 128
    first, second, third = (bytes_of(entry, network, times * unit) for times in (1, 2, 3))
    # lists make room for more than they hold; of sharded rows XLA plans some buffers otherwise from size to size
    rough = 0.05 if entry.object_bytes else 0.02 if entry.launched_by == "processes" else 1e-3
    assert second - first == pytest.approx(third - second, rel=rough)
    assert second > first


@pytest.mark.parametrize("entry", [e for e in ENTRIES if not e.object_bytes], ids=lambda e: e.name)
def test_is_the_same_every_time(entry: Entry) -> None:
    network = able(entry, (64, 32, 32, 10))
    unseen = 64 if entry.launched_by else 0  # another thread may free a few bytes of a collective's
    assert bytes_of(entry, network, 20) == pytest.approx(bytes_of(entry, network, 20), rel=0, abs=unseen)


@pytest.mark.parametrize("name", ["numpy", "torch-manual", "torch"])
def test_an_array_too_many_is_seen_with_its_exact_size(name: str) -> None:
    entry = available(registry.find(name))
    extra = 123_456

    def spare() -> object:
        if name == "numpy":
            return np.empty(extra, np.uint8)
        torch = pytest.importorskip("torch")
        return torch.empty(extra, dtype=torch.uint8)

    class Greedy(entry.load()):  # type: ignore[misc]  # a class known at run time only
        def step(self) -> None:
            held = spare()
            super().step()
            del held

    network = Network(SHAPES[0])
    assert bytes_of(entry, network, 64, wrap=Greedy) == bytes_of(entry, network, 64) + extra


#: What the estimate made beforehand must cover: many parameters, many examples, depth, wide ends, many intermediates.
DEMANDING = [
    ((64, 300, 300, 10), "tanh", 2),
    ((64, 32, 32, 10), "gelu", 500),
    ((64, *[16] * 20, 10), "horner-4", 64),
    ((200, 16, 10), "tanh", 200),
    ((16, 16, 200), "relu", 200),
    ((64, 64, 10), "softplus", 400),
    ((64, 48, 48, 10), "horner-32", 100),
]


@pytest.mark.parametrize(("layers", "activation", "n"), DEMANDING, ids=str)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_stays_below_the_estimate_made_beforehand(
    entry: Entry, layers: tuple[int, ...], activation: str, n: int
) -> None:
    for loss in entry.losses:
        network = replace(able(entry, layers, activation), loss=loss)
        point = Point(network, max(1, n // 16) if entry.slow else n, ())
        for dtype in entry.dtypes:
            found = bytes_of(entry, network, point.n, dtype)
            assert found <= 1.1 * bytes_estimate(Setting(entry, "cpu", dtype, 1), point), (loss, dtype)


@pytest.mark.parametrize("optimizer", NAMES[1:])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_what_an_optimizer_keeps_is_counted(entry: Entry, optimizer: str) -> None:
    """Its states add to the peak: to the byte where every array is by hand, and never less."""
    network = able(entry, (64, 128, 128, 10))
    if entry.cannot(network, optimizer):
        pytest.skip(str(entry.cannot(network, optimizer)))
    states = OPTIMIZERS[optimizer].states * network.m * np.dtype(entry.dtypes[0]).itemsize
    n = 2 if entry.slow else 64
    plain, found = (bytes_of(entry, network, n, optimizer=name) for name in (USUAL, optimizer))
    assert found - plain >= states * (0.99 if not entry.peer else 0)
    point = Point(network, n, (), optimizer=optimizer)
    assert found <= 1.1 * bytes_estimate(Setting(entry, "cpu", entry.dtypes[0], 1), point)
    if entry.name == "numpy":  # beside them one block of scratch, all parameters here, and the constants of the rule
        scratch = network.m * 4
        assert states + scratch <= found - plain <= states + scratch + 64


def test_an_implementation_may_tell_its_memory_itself() -> None:
    entry = registry.find("numpy")

    class Knows(entry.load()):  # type: ignore[misc]
        def peak_bytes(self) -> int:
            return 42

    assert measured(entry, Network((5, 7, 4)), 3, wrap=Knows) == (42, "itself")


def test_what_only_the_library_could_tell_is_not_guessed() -> None:
    entry = Entry("mine", "", "JAX without peak_bytes", requires=("jax",))
    numpy: type = registry.find("numpy").load()
    assert measured(entry, Network((5, 7, 4)), 3, wrap=numpy) == (None, None)


def test_python_objects_count_where_numbers_are_objects() -> None:
    network = Network((5, 7, 4))
    assert bytes_of(registry.find("python"), network, 3) > 24 * (2 * network.m + 3 * (5 + 4))  # a float takes 24 bytes


# --- in the worker ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_nothing_is_traced_any_more_once_a_cell_is_prepared(entry: Entry) -> None:
    network = able(entry, (5, 7, 4))
    start = {"impl": entry.name, "device": "cpu", "dtype": entry.dtypes[0], "threads": 1, "data": "synthetic"}
    worker = Worker(start | {"seed": 0, "kernels": ["product"]})
    request = {"op": "prepare", "key": 0, "layers": network.layers, "activation": network.activation}
    request |= {"loss": "mse", "n": 3, "phases": ["step"]}
    traced = worker.answer(request | {"trace": True})
    assert not tracemalloc.is_tracing()
    assert traced["phases"]["step"]["peak_bytes"] > 0
    # its parameters are those after the one step it was checked by: what was traced was another instance
    once = entry.prepare(_problem(network), dtype=entry.dtypes[0])
    once.step()
    for found, expected in zip(worker.prepared[0].rotation.instances[0].parameters(), once.parameters(), strict=True):
        np.testing.assert_array_equal(found, expected)
    again = worker.answer(request | {"trace": False})
    assert again["phases"]["step"]["peak_bytes"] is None  # later passes do not trace


def _problem(network: Network) -> Problem:
    return make_problem(network, 3, seed=0)
