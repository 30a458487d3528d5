"""The formulas for operations equal what the counting implementation counts, and what libraries count."""

from __future__ import annotations

import pytest

from impls import activations, counts
from impls.interface import Network
from impls.losses import LOSSES
from impls.problem import make_problem
from impls.python_scalars import PythonScalars

NETWORKS = ((3, 2), (5, 7, 6, 4), (2, 3, 3, 3, 1), (4, 1, 5))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*activations.PLAIN_NAMES, "horner-1", "horner-2", "horner-9"])
@pytest.mark.parametrize("layers", NETWORKS, ids=str)
@pytest.mark.parametrize("n", [1, 4])
def test_formulas_equal_the_count(layers: tuple[int, ...], activation: str, loss: str, n: int) -> None:
    network = Network(layers, activation, loss)
    counted = PythonScalars(make_problem(network, n), counting=True)
    counted.step()
    formulas = counts.operations(network, n)
    assert {phase: counted.tally.total(phase) for phase in formulas} == {
        phase: sum(kinds.values()) for phase, kinds in formulas.items()
    }


def test_counting_does_not_change_the_numbers() -> None:
    problem = make_problem(Network((5, 7, 6, 4), "gelu", "cross_entropy"), 3)
    plain, counted = PythonScalars(problem), PythonScalars(problem, counting=True)
    plain.step()
    counted.step()
    assert plain.loss_value() == counted.loss_value()


def test_sizes_by_hand() -> None:
    network = Network((64, 128, 128, 10))
    assert network.weights == 64 * 128 + 128 * 128 + 128 * 10
    assert network.m == network.weights + 128 + 128 + 10
    assert network.u == 256
    assert (network.width, network.depth) == (128, 3)
    # 2·n·weights forward; backward the same again, and once more without the first layer
    assert counts.product_operations(network, 7) == 2 * 7 * (2 * network.weights + network.weights - 64 * 128)


def test_products_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from impls.torch_nn import TorchNN

    network = Network((12, 8, 9, 4))
    implementation = TorchNN(make_problem(network, 6))
    with FlopCounterMode(display=False) as counter:
        implementation.step()
    assert counter.get_total_flops() == counts.product_operations(network, 6)
    assert torch.get_num_threads() >= 1


def test_products_agree_with_xla() -> None:
    pytest.importorskip("jax")
    from impls.jax_jit import JaxJit

    # identity: XLA's count has no elementwise work to disagree about but bias, loss and update
    network = Network((64, 128, 128, 32), "identity")
    implementation = JaxJit(make_problem(network, 256))
    analysis = implementation._compiled.step.lower(implementation.theta, implementation.x, implementation.t).compile()
    flops = dict(analysis.cost_analysis() or {})["flops"]
    assert flops == pytest.approx(counts.product_operations(network, 256), rel=0.05)
