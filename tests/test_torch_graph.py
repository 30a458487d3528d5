"""The captured step: what makes it capturable is tested without a device, the capture itself where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backprop_files import UserError
from impls import dtypes, registry
from impls.conformance import STEPS, Expected, bold_problem, check_step, check_steps
from impls.interface import Network, Problem, TellsMemory, Trains, Transfers
from impls.optimizers import NAMES
from impls.problem import make_problem

torch = pytest.importorskip("torch")

from impls import torch_graph  # noqa: E402  # needs torch
from impls.torch_device import FixedScaler  # noqa: E402
from impls.torch_nn import TorchNN  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: torch sees none here")
ENTRY = registry.find("torch-graph")


def test_it_is_declared_for_cuda_and_whole_steps_alone() -> None:
    assert ENTRY.devices == ("cuda",)
    assert ENTRY.phases == ("step",)
    assert ENTRY.load() is torch_graph.TorchGraph
    assert issubclass(ENTRY.load(), TellsMemory)
    assert not issubclass(ENTRY.load(), Trains)  # a batch of another size would need another graph


def test_on_the_cpu_it_says_what_it_needs() -> None:
    problem = make_problem(Network((5, 7, 4)), 9)
    with pytest.raises(UserError, match="torch-graph captures a CUDA graph: it has no device 'cpu'"):
        ENTRY.prepare(problem, "cpu")


# --- without a device -----------------------------------------------------------------------------------------------


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU takes steps with optimizers made capturable as a CUDA device would: their check of the device is left out."""
    from torch.optim import adam, rmsprop

    for module in (adam, rmsprop):
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *a, **k: ["cpu", "cuda"])
    yield


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("optimizer", NAMES)
def test_steps_of_warming_up_leave_no_trace(captures: None, optimizer: str, dtype: str) -> None:
    problem = bold_problem(optimizer, "tanh", "mse", 3)
    eager = TorchNN(problem, dtype=dtype)
    torch_graph.make_capturable(eager)
    places = [p.data_ptr() for p in eager.model.parameters()]
    for _ in range(torch_graph.WARM_UPS):
        eager.step()
    torch_graph.rewind(eager, problem)
    assert [p.data_ptr() for p in eager.model.parameters()] == places  # a graph writes where it has written
    expected = Expected.of(problem, dtype)
    check_step(eager, expected)
    torch_graph.rewind(eager, problem)
    check_steps(eager, expected)


@pytest.mark.parametrize("optimizer", NAMES)
def test_steps_leave_states_where_they_are(captures: None, optimizer: str) -> None:
    problem = bold_problem(optimizer, "tanh", "mse", 3)
    eager = TorchNN(problem)
    torch_graph.make_capturable(eager)
    eager.step()
    torch_graph.rewind(eager, problem)
    states = places_of(eager)
    eager.step()
    assert places_of(eager) == states  # what a graph was captured with is what every replay finds


def places_of(eager: TorchNN) -> list[int]:
    """Where the optimizer's states lie."""
    return [t.data_ptr() for state in eager.optimizer.state.values() for t in state.values() if t is not None]


@pytest.mark.parametrize("optimizer", NAMES)
def test_counts_of_steps_lie_where_the_parameters_do(optimizer: str) -> None:
    """Adagrad knows no such thing, and needs none: its step size does not decay."""
    eager = TorchNN(bold_problem(optimizer, "tanh", "mse", 3))
    torch_graph.make_capturable(eager)
    groups = eager.optimizer.param_groups
    assert all(group.get("capturable", True) for group in groups)
    assert all(group.get("lr_decay", 0) == 0 for group in groups)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("n", [1, 11, 512])
def test_a_fixed_scale_does_what_gradscaler_does(loss: str, n: int) -> None:
    problem = make_problem(Network((64, 32, 10), loss=loss), n, seed=3, learning_rate=1.0)
    eager = TorchNN(problem, dtype="float16")
    torch_graph.make_capturable(eager)
    assert isinstance(eager.scaler, FixedScaler)
    assert eager.scaler.factor == dtypes.loss_scale(loss, n, 10)
    check_step(eager, Expected.of(problem, "float16"))


def test_other_dtypes_are_not_scaled() -> None:
    eager = TorchNN(make_problem(Network((5, 7, 4)), 9), dtype="bfloat16")
    torch_graph.make_capturable(eager)
    assert not isinstance(eager.scaler, FixedScaler)


# --- on a device ----------------------------------------------------------------------------------------------------


def problems() -> list[Problem]:
    """Every optimizer, and both losses."""
    return [bold_problem(name, "tanh", "mse", 3) for name in NAMES] + [bold_problem("adam", "gelu", "cross_entropy", 3)]


@needs_cuda
@pytest.mark.parametrize("dtype", registry.DTYPES)
@pytest.mark.parametrize("problem", problems(), ids=lambda p: f"{p.optimizer}-{p.network.loss}")
def test_replays_agree_with_the_reference(problem: Problem, dtype: str) -> None:
    expected = Expected.of(problem, dtype)
    graph: Any = ENTRY.prepare(problem, "cuda", dtype)
    check_step(graph, expected)
    for _ in range(STEPS - 1):
        graph.step()
    graph.synchronize()
    expected.check_steps(graph.parameters())


@needs_cuda
def test_a_replay_reads_what_was_transferred() -> None:
    problem = make_problem(Network((5, 7, 4)), 9, seed=1, learning_rate=1.0)
    graph: Any = ENTRY.prepare(problem, "cuda")
    is_transfers = isinstance(graph, Transfers)
    assert is_transfers
    graph.transfer(False)
    graph._eager.inputs.zero_()
    graph.transfer(True)
    check_step(graph, Expected.of(problem, "float32"))


@needs_cuda
def test_its_peak_is_at_least_what_it_holds() -> None:
    problem = make_problem(Network((64, 256, 256, 10)), 512)
    graph: Any = ENTRY.prepare(problem, "cuda")
    assert graph.peak_bytes() >= 4 * (2 * problem.network.m + problem.n * (64 + 2 * 256 + 2 * 10))
