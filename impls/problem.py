"""Seeded problems as float64 NumPy arrays: synthetic rows drawn like the digits, or the rows of a data set."""

from __future__ import annotations

import numpy as np

from backprop_files import UserError
from impls import activations, datasets, optimizers
from impls.datasets import INPUT_SCALE, Dataset
from impls.interface import Array, Network, Problem
from impls.losses import LOSSES
from impls.names import nearest

SYNTHETIC = "synthetic"


def validate(network: Network) -> None:
    """Raise UserError for a network that cannot be built."""
    activations.find(network.activation)
    if network.loss not in LOSSES:
        raise UserError(nearest("loss", network.loss, LOSSES))
    if len(network.layers) < 2 or min(network.layers) < 1:
        raise UserError(f"layers {network.layers}: give two or more positive sizes, such as 64,128,10")


def make_problem(
    network: Network,
    n: int,
    seed: int = 0,
    data: str = SYNTHETIC,
    learning_rate: float | None = None,
    optimizer: str = optimizers.USUAL,
) -> Problem:
    """Make the problem of ``n`` examples.  The same arguments give the same arrays, bit for bit, whatever the optimizer,
    whose own learning rate is taken unless one is given.

    ``data`` is ``synthetic``, a data set's name or a data file's path (``impls.datasets``); beyond its rows they repeat.
    Raises UserError for an impossible network, an unknown optimizer or data set, a data file that will not do, or data
    whose features, outputs or kind do not fit the network.
    """
    validate(network)
    rate = optimizers.find(optimizer).learning_rate if learning_rate is None else learning_rate
    if n < 1:
        raise UserError(f"n = {n}: a step needs at least one example")
    rng = np.random.default_rng([seed, n, *network.layers])
    inputs, targets = _batch(network, n, data, rng)
    return Problem(network, inputs, targets, initial_parameters(network, rng), rate, optimizer)


def initial_parameters(network: Network, rng: np.random.Generator) -> tuple[Array, ...]:
    """Weights of variance 1/fan_in, which carry a signal of order 1/2 through any depth, and small biases."""
    parameters: list[Array] = []
    for fan_in, fan_out in network.shapes:
        parameters += [rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in), 0.1 * rng.standard_normal(fan_out)]
    return tuple(parameters)


def dataset_of(data: str) -> Dataset | None:
    """The data set that ``data`` names; None for synthetic rows.  Raises UserError as ``impls.datasets.find``."""
    return None if data == SYNTHETIC else datasets.find(data, (SYNTHETIC,))


def _batch(network: Network, n: int, data: str, rng: np.random.Generator) -> tuple[Array, Array]:
    dataset = dataset_of(data)
    if dataset is None:
        # drawn like the digits: centred, the same scale, classes uniform
        inputs = INPUT_SCALE * rng.standard_normal((n, network.layers[0]))
        return inputs, np.eye(network.layers[-1])[rng.integers(network.layers[-1], size=n)]
    _check_fit(network, dataset)
    rows = np.arange(n) % dataset.n
    return dataset.inputs[rows], dataset.targets[rows]


def _check_fit(network: Network, dataset: Dataset) -> None:
    if (network.layers[0], network.layers[-1]) != (dataset.features, dataset.outputs):
        raise UserError(f"{dataset.told}; the network has layers {network.layers}")
    # classes may be told apart by mse too, on their one-hot rows
    if network.loss != dataset.loss and dataset.kind == "regression":
        raise UserError(
            f"{dataset.told}, which are numbers, no classes; the network has loss '{network.loss}', use 'mse'"
        )
