"""Deep Q-learning: a fully connected network by the temporal difference, against a copy of itself that stands still."""

from __future__ import annotations

from impls.architectures.layers import Architecture
from impls.architectures.problem import Objective, TemporalDifference
from impls.architectures.workloads import DENSE_LAW, DENSE_MEMORY, Axis, Sizes, Workload, of_dense, perceptron


def objective(sizes: Sizes) -> Objective:
    """Q: inputs - width … width - actions, with ``hidden`` layers of relu.  The usual sizes are those of ``Catch``."""
    units = (*[sizes["width"]] * sizes["hidden"], sizes["actions"])
    return TemporalDifference(Architecture((sizes["inputs"],), perceptron(units, "relu")))


WORKLOAD = Workload(
    "dqn",
    "deep Q-learning with a target network",
    middle={"n": 128, "width": 256, "hidden": 2, "inputs": 50, "actions": 3},
    objective=objective,
    axes=(
        Axis("examples", "n", (8, 256, 384, 512, 768, 1024), (1, 4, 8, 16, 32, 64, 128, 256, 384, 512, 768, 1024), "n"),
        Axis(
            "width",
            "width",
            (32, 128, 192, 256, 384, 512),
            (16, 32, 64, 96, 128, 192, 256, 384, 512),
            "m",
            1.0,
            {"n": 384},
        ),
        Axis("depth", "hidden", (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6), "m", 1.0, {"n": 384}),
    ),
    law=DENSE_LAW,
    memory_law=DENSE_MEMORY,
    statement="a weight is used once for each example, forward and backward, and its copy once more forward",
    heldout=(
        {"n": 768, "width": 512},
        {"n": 1024, "hidden": 4},
        {"n": 768, "hidden": 6},
    ),
    variables=of_dense,
)
