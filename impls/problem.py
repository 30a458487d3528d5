"""Seeded problems as float64 NumPy arrays: synthetic rows drawn like the digits, or the digits themselves."""

from __future__ import annotations

from functools import cache

import numpy as np

from backprop_files import UserError
from impls import activations, optimizers
from impls.interface import Array, Network, Problem
from impls.losses import LOSSES
from impls.names import nearest

DATA = ("synthetic", "digits")
#: scikit-learn's bundled digits: rows and features.
DIGITS_ROWS, DIGITS_FEATURES, DIGITS_CLASSES = 1797, 64, 10
#: Standard deviation of the inputs; keeps pre-activations of order 1/2.
INPUT_SCALE = 0.5


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
    data: str = "synthetic",
    learning_rate: float | None = None,
    optimizer: str = optimizers.USUAL,
) -> Problem:
    """Make the problem of ``n`` examples.  The same arguments give the same arrays, bit for bit, whatever the optimizer,
    whose own learning rate is taken unless one is given.

    Raises UserError for an impossible network, an unknown optimizer or data set, or digits for a network that is not
    64-…-10.
    """
    validate(network)
    rate = optimizers.find(optimizer).learning_rate if learning_rate is None else learning_rate
    if n < 1:
        raise UserError(f"n = {n}: a step needs at least one example")
    rng = np.random.default_rng([seed, n, *network.layers])
    inputs, labels = _batch(network, n, data, rng)
    targets = np.eye(network.layers[-1])[labels]
    return Problem(network, inputs, targets, initial_parameters(network, rng), rate, optimizer)


def initial_parameters(network: Network, rng: np.random.Generator) -> tuple[Array, ...]:
    """Weights of variance 1/fan_in, which carry a signal of order 1/2 through any depth, and small biases."""
    parameters: list[Array] = []
    for fan_in, fan_out in network.shapes:
        parameters += [rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in), 0.1 * rng.standard_normal(fan_out)]
    return tuple(parameters)


def _batch(network: Network, n: int, data: str, rng: np.random.Generator) -> tuple[Array, np.ndarray]:
    if data == "synthetic":
        # drawn like the digits: centred, the same scale, classes uniform
        inputs = INPUT_SCALE * rng.standard_normal((n, network.layers[0]))
        return inputs, rng.integers(network.layers[-1], size=n)
    if data == "digits":
        if (network.layers[0], network.layers[-1]) != (DIGITS_FEATURES, DIGITS_CLASSES):
            raise UserError(f"digits have 64 features and 10 classes; the network has layers {network.layers}")
        inputs, labels = digits()
        rows = np.arange(n) % DIGITS_ROWS  # beyond 1,797 the rows repeat
        return inputs[rows], labels[rows]
    raise UserError(nearest("data set", data, DATA))


@cache
def digits() -> tuple[Array, np.ndarray]:
    """scikit-learn's bundled digits, centred and scaled: inputs (1797, 64), labels (1797,), in a fixed random order.

    Raises UserError where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("data 'digits' come with scikit-learn: pip install -c constraints.txt -e '.[peers]'") from error
    bundle = load_digits()
    order = np.random.default_rng(0).permutation(DIGITS_ROWS)
    pixels = bundle.data[order].astype(np.float64)
    return INPUT_SCALE * (pixels - pixels.mean()) / pixels.std(), bundle.target[order]
