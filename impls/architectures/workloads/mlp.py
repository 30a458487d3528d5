"""A fully connected classifier: the network of the sweeps, where each weight is used once for each example."""

from __future__ import annotations

from impls.architectures.layers import Architecture
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import DENSE_LAW, DENSE_MEMORY, Axis, Sizes, Workload, of_dense, perceptron


def objective(sizes: Sizes) -> Objective:
    """Inputs - width - … - width - outputs, with ``hidden`` layers of tanh."""
    units = (*[sizes["width"]] * sizes["hidden"], sizes["outputs"])
    return Supervised(Architecture((sizes["inputs"],), perceptron(units, "tanh"), "cross_entropy"))


WORKLOAD = Workload(
    "mlp",
    "a fully connected classifier",
    middle={"n": 256, "width": 256, "hidden": 2, "inputs": 64, "outputs": 10},
    objective=objective,
    axes=(
        Axis(
            "examples",
            "n",
            (16, 192, 256, 512, 768, 1024),
            (1, 4, 16, 64, 128, 192, 256, 384, 512, 768, 1024, 2048),
            "n",
        ),
        Axis(
            "width",
            "width",
            (32, 128, 192, 256, 384, 512),
            (16, 32, 64, 96, 128, 192, 256, 384, 512),
            "m",
            1.0,
            {"n": 768},
        ),
        Axis("depth", "hidden", (1, 2, 3, 4, 6), (1, 2, 3, 4, 6, 8), "m", 1.0, {"n": 512}),
    ),
    law=DENSE_LAW,
    memory_law=DENSE_MEMORY,
    statement="products once for each weight, an activation once for each unit, an update once for each parameter",
    heldout=(
        {"n": 1152, "width": 512},
        {"n": 1024, "hidden": 6},
        {"n": 512, "width": 512, "hidden": 4},
        {"n": 2048, "width": 384},
    ),
    variables=of_dense,
)
