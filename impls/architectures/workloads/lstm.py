"""A long short-term memory that predicts the next token of a text: each weight is used once for every step."""

from __future__ import annotations

from collections.abc import Mapping

from impls.architectures.layers import Architecture, Dense, Embedding, Recurrent
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import Axis, Sizes, Workload


def objective(sizes: Sizes) -> Objective:
    """Tokens (T,) - embedding - cell over T steps - dense to the vocabulary at each of them."""
    layers = (
        Embedding(sizes["vocabulary"], sizes["width"]),
        Recurrent("lstm", sizes["units"]),
        Dense(sizes["vocabulary"]),
    )
    return Supervised(Architecture((sizes["T"],), layers, "token_cross_entropy", sizes["vocabulary"]))


def variables(sizes: Sizes) -> Mapping[str, int]:
    """Steps, units of the cell, and the weights that multiply: embeddings are looked up."""
    units = sizes["units"]
    weights = 4 * units * (sizes["width"] + units) + units * sizes["vocabulary"]
    return {"T": sizes["T"], "u": units, "weights": weights}


WORKLOAD = Workload(
    "lstm",
    "a long short-term memory, next-token loss",
    middle={"n": 32, "T": 32, "units": 64, "width": 32, "vocabulary": 64},
    objective=objective,
    axes=(
        Axis(
            "examples",
            "n",
            (4, 40, 84, 120, 168, 240, 344),
            (1, 4, 12, 20, 40, 60, 84, 120, 168, 240, 344),
            "n",
            1.0,
            {"T": 4, "units": 160},
        ),
        Axis(
            "units",
            "units",
            (8, 52, 68, 84, 104, 124),
            (8, 12, 20, 28, 40, 52, 68, 84, 104, 124),
            "m",
            None,
            {"n": 240, "T": 8, "vocabulary": 16},
        ),
        Axis(
            "steps",
            "T",
            (1, 16, 24, 32, 40, 52, 72, 96),
            (1, 4, 8, 12, 16, 24, 32, 40, 52, 60, 72, 96),
            "T",
            1.0,
            {"n": 16, "units": 160},
        ),
    ),
    law=(
        "1",
        "T",
        "T·weights",
        "n·T·weights",
        "n·evaluations",
        "n·evaluations·beyond(n·evaluations·itemsize, L2)",
    ),
    memory_law=("1", "m", "n·kept"),
    statement="every step calls anew, reads every weight and uses it for every example; what gates put out is written and read",
    heldout=(
        {"n": 40, "units": 184},
        {"n": 15, "T": 86, "units": 184},
        {"n": 27, "T": 47, "units": 184},
    ),
    plain="n·m·T",
    variables=variables,
)
