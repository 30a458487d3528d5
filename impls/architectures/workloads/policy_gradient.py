"""The policy gradient (REINFORCE): a fully connected network that scores actions, by the returns that followed them."""

from __future__ import annotations

from impls.architectures.layers import Architecture
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import DENSE_LAW, DENSE_MEMORY, Axis, Sizes, Workload, of_dense, perceptron


def objective(sizes: Sizes) -> Objective:
    """Inputs - width … width - actions, with ``hidden`` layers of tanh.  The usual sizes are those of ``Catch``."""
    units = (*[sizes["width"]] * sizes["hidden"], sizes["actions"])
    return Supervised(Architecture((sizes["inputs"],), perceptron(units, "tanh"), "policy_gradient"))


WORKLOAD = Workload(
    "policy_gradient",
    "REINFORCE: each action weighed by its return",
    middle={"n": 512, "width": 128, "hidden": 2, "inputs": 50, "actions": 3},
    objective=objective,
    axes=(
        Axis(
            "examples",
            "n",
            (16, 640, 1024, 1536, 2048, 2560),
            (1, 8, 16, 32, 128, 256, 512, 640, 1024, 1536, 2048, 2560, 4096),
            "n",
        ),
        Axis("width", "width", (16, 64, 96, 128, 192, 256), (16, 32, 48, 64, 96, 128, 192, 256), "m", 1.0, {"n": 1536}),
        Axis("depth", "hidden", (1, 2, 3, 4, 5, 7), (1, 2, 3, 4, 5, 6, 7, 8), "m", 1.0, {"n": 1408}),
    ),
    law=DENSE_LAW,
    memory_law=DENSE_MEMORY,
    statement="products once for each weight, an activation once for each unit, an update once for each parameter",
    heldout=(
        {"n": 3072, "width": 256},
        {"n": 4096, "hidden": 4},
        {"n": 1024, "width": 256, "hidden": 4},
    ),
    variables=of_dense,
)
