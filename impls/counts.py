"""Exact operation counts of a step, by phase and kind, and the bytes a step touches.

Kinds: ``product`` (matrix products, two operations per multiply-add; the bias starts the sum, so it is in there),
``bias`` (summing bias gradients), ``activation`` (f and f'), ``elementwise`` (δ ∘ f'), ``loss``, ``update`` (by optimizer).
``tests/test_counts.py`` holds the sums against the counting ``python`` implementation, scalar by scalar.
"""

from __future__ import annotations

from impls import activations, optimizers
from impls.interface import Network

#: Per example with d outputs: (operations of value and derivative per output, and once per example).
_LOSS_PER_OUTPUT = {
    "mse": 4,  # y-t, square, add, scale
    "cross_entropy": 9,  # compare, y-max, exp, add; multiply and add for t·log; divide, subtract, scale
}
#: add to the sum; cross entropy: log and subtract too, and one comparison less than outputs
_LOSS_PER_EXAMPLE = {"mse": 1, "cross_entropy": 2}
#: the final mean
_LOSS_PER_STEP = {"mse": 1, "cross_entropy": 1}


def operations(network: Network, n: int, optimizer: str = optimizers.USUAL) -> dict[str, dict[str, int]]:
    """Operations of one step on ``n`` examples: ``{phase: {kind: count}}``; the update's are by optimizer."""
    descent = optimizers.find(optimizer)
    f = activations.find(network.activation)
    inner = sum(fan_in * fan_out for fan_in, fan_out in network.shapes[1:])  # the input needs no gradient
    outputs = network.layers[-1]
    return {
        "forward": {"product": 2 * n * network.weights, "activation": n * network.u * f.value_operations},
        "loss": {
            "loss": n * outputs * _LOSS_PER_OUTPUT[network.loss]
            + n * _LOSS_PER_EXAMPLE[network.loss]
            + _LOSS_PER_STEP[network.loss]
        },
        "backward": {
            "product": 2 * n * (network.weights + inner),
            "bias": n * sum(network.layers[1:]),
            "activation": n * network.u * f.derivative_operations,
            "elementwise": n * network.u,
        },
        "update": {"update": descent.operations * network.m + descent.operations_once},
    }


def total(network: Network, n: int, phase: str | None = None, optimizer: str = optimizers.USUAL) -> int:
    """All operations of one phase, or of the step."""
    counted = operations(network, n, optimizer)
    return sum(sum(kinds.values()) for name, kinds in counted.items() if phase in (None, "step", name))


def product_operations(network: Network, n: int) -> int:
    """Operations in matrix products only: 2·n·m forward and nearly 4·n·m backward."""
    return sum(kinds.get("product", 0) for kinds in operations(network, n).values())


def bytes_estimate(network: Network, n: int, itemsize: int, optimizer: str = optimizers.USUAL) -> int:
    """Bytes that a cell needs in its process at the worst moment, beside its libraries: an upper estimate over the
    implementations, from the shapes alone.

    In float64 the problem, its gradients, and copies of parameters that are compared; in ``itemsize`` bytes a number, an
    instance that is held, and a second one that takes a step while its memory is traced; both with what their optimizer
    keeps.
    """
    inputs, outputs = network.layers[0], network.layers[-1]
    compared = 8 * (6 * network.m + n * (2 * inputs + outputs))
    # autograd frameworks keep every intermediate of an activation; twice, since a heap that they come from has holes
    intermediates = 2 * (activations.horner_degree(network.activation) or 2)
    instances = 8 * network.m + n * (5 * inputs + 10 * outputs + network.u * (intermediates + 6))
    if optimizer != optimizers.USUAL:
        # both instances' states, what an update makes beside them, and the moves that the check compares
        instances += (2 * optimizers.find(optimizer).states + 2) * network.m
        compared += 8 * 6 * network.m
    return compared + itemsize * instances
