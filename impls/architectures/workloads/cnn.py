"""A convolutional classifier: each weight of a convolution is used once for every position of its output."""

from __future__ import annotations

import math
from collections.abc import Mapping

from impls.architectures.layers import Activation, Architecture, Conv2D, Dense, Flatten, Pool2D
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import Axis, Sizes, Workload

#: Means that are left of every channel, along either side: the classifier is the same however large the image.
GRID = 2


def objective(sizes: Sizes) -> Objective:
    """Two convolutions that keep the size, each with relu and pooling, then a dense layer on 2 × 2 means of each channel."""
    channels, kernel, side = sizes["channels"], sizes["kernel"], sizes["side"]
    layers = (
        Conv2D(channels, kernel, padding=kernel // 2),
        Activation("relu"),
        Pool2D("max", 2),
        Conv2D(2 * channels, kernel, padding=kernel // 2),
        Activation("relu"),
        Pool2D("mean", side // 2 // GRID),
        Flatten(),
        Dense(sizes["outputs"]),
    )
    return Supervised(Architecture((sizes["inputs"], side, side), layers, "cross_entropy"))


def variables(sizes: Sizes) -> Mapping[str, int]:
    """Positions of the first convolution, the second has a quarter; and numbers in the patches that kernels see."""
    (architecture,) = objective(sizes).architectures
    patches = [
        layer.positions(before) * before[0] * layer.kernel**2
        for layer, before, _ in architecture.walk()
        if isinstance(layer, Conv2D)
    ]
    return {"positions": math.prod(architecture.inputs[1:]), "patches": sum(patches)}


WORKLOAD = Workload(
    "cnn",
    "a convolutional classifier of images",
    middle={"n": 32, "side": 16, "channels": 16, "kernel": 3, "inputs": 3, "outputs": 10},
    objective=objective,
    axes=(
        Axis("examples", "n", (4, 64, 96, 128, 192, 256), (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256), "n"),
        Axis("channels", "channels", (16, 32, 48, 64), (16, 32, 48, 64), "m", None, {"n": 40}),
        Axis(
            "positions",
            "side",
            (4, 8, 16, 20, 24, 28, 32, 40),
            (4, 8, 12, 16, 20, 24, 28, 32, 36, 40),
            "positions",
            1.0,
            {"n": 48},
        ),
        Axis("kernel", "kernel", (3, 5, 7), (1, 3, 5, 7), "multiply_adds", None, {"n": 48}),
    ),
    law=("1", "n·products", "n·patches", "n·kept", "n·kept·beyond(n·kept·itemsize, L2)"),
    memory_law=("1", "m", "n·kept", "n·patches"),
    statement="products once for each weight and position of its layer, patches laid out, and units gone through",
    heldout=(
        {"n": 72, "channels": 64},
        {"n": 46, "side": 24, "channels": 48},
        {"n": 35, "side": 28, "channels": 48},
        {"n": 96, "side": 28, "kernel": 5},
    ),
    plain="n·m·positions",
    variables=variables,
)
