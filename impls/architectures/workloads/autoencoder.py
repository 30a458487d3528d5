"""An autoencoder: a fully connected network that gives back its input through a layer of few units."""

from __future__ import annotations

from collections.abc import Mapping

from impls.architectures.layers import Architecture
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import DENSE_LAW, DENSE_MEMORY, Axis, Sizes, Workload, perceptron


def objective(sizes: Sizes) -> Objective:
    """Inputs - width … width - code - width … width - inputs, with ``hidden`` layers of tanh on either side of the code."""
    side = [sizes["width"]] * sizes["hidden"]
    units = (*side, sizes["code"], *side, sizes["inputs"])
    return Supervised(Architecture((sizes["inputs"],), perceptron(units, "tanh"), "mse"))


def variables(sizes: Sizes) -> Mapping[str, int]:
    """Weight layers, and units with an activation."""
    return {"depth": 2 * sizes["hidden"] + 2, "u": 2 * sizes["width"] * sizes["hidden"] + sizes["code"]}


WORKLOAD = Workload(
    "autoencoder",
    "a fully connected encoder and decoder",
    middle={"n": 256, "width": 256, "hidden": 1, "code": 16, "inputs": 256},
    objective=objective,
    axes=(
        Axis(
            "examples",
            "n",
            (16, 192, 256, 512, 768, 1024),
            (1, 4, 16, 64, 128, 192, 256, 384, 512, 768, 1024, 2048),
            "n",
        ),
        # with two layers a side, as elsewhere each of m, products and units would be a sum of the others
        Axis(
            "width",
            "width",
            (32, 96, 192, 256, 384, 512),
            (16, 32, 64, 96, 128, 192, 256, 384, 512),
            "m",
            1.0,
            {"n": 448, "hidden": 2},
        ),
        Axis("depth", "hidden", (1, 2, 3, 4, 5), (1, 2, 3, 4, 5), "m", 1.0, {"n": 512}),
    ),
    law=DENSE_LAW,
    memory_law=DENSE_MEMORY,
    statement="products once for each weight, an activation once for each unit, an update once for each parameter",
    heldout=(
        {"n": 2048, "width": 512},
        {"n": 640, "width": 512, "hidden": 2},
        {"n": 1024, "hidden": 4},
    ),
    variables=variables,
)
