"""A generative adversarial network on points of the plane: two fully connected networks, trained in turns."""

from __future__ import annotations

from collections.abc import Mapping

from impls.architectures.layers import Architecture
from impls.architectures.problem import Adversarial, Objective
from impls.architectures.workloads import DENSE_LAW, DENSE_MEMORY, Axis, Sizes, Workload, perceptron


def objective(sizes: Sizes) -> Objective:
    """Generator noise - width … width - 2, discriminator 2 - width … width - 1, both with ``hidden`` layers of relu."""
    side = [sizes["width"]] * sizes["hidden"]
    generator = Architecture((sizes["noise"],), perceptron((*side, sizes["outputs"]), "relu"))
    discriminator = Architecture((sizes["outputs"],), perceptron((*side, 1), "relu"))
    return Adversarial(generator, discriminator)


def variables(sizes: Sizes) -> Mapping[str, int]:
    """Weight layers and units with an activation, of both."""
    return {"depth": 2 * sizes["hidden"] + 2, "u": 2 * sizes["width"] * sizes["hidden"]}


WORKLOAD = Workload(
    "gan",
    "generator and discriminator, trained in turns",
    middle={"n": 256, "width": 128, "hidden": 2, "noise": 8, "outputs": 2},
    objective=objective,
    axes=(
        Axis(
            "examples",
            "n",
            (16, 640, 1024, 1536, 2048, 3072),
            (1, 4, 16, 64, 128, 256, 512, 640, 1024, 1536, 2048, 3072),
            "n",
        ),
        Axis(
            "width",
            "width",
            (16, 96, 112, 128, 192, 256),
            (16, 32, 48, 64, 96, 112, 128, 192, 256),
            "m",
            1.0,
            {"n": 960},
        ),
        Axis("depth", "hidden", (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6), "m", 1.0, {"n": 928}),
    ),
    law=DENSE_LAW,
    memory_law=DENSE_MEMORY,
    statement="a generator's weight is used once for each example, a discriminator's three times: for what is real, for what "
    "is not, and to teach the generator",
    heldout=(
        {"n": 1664, "width": 256},
        {"n": 2560, "hidden": 4},
        {"n": 576, "width": 256, "hidden": 4},
    ),
    variables=variables,
)
