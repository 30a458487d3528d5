"""A simple recurrent network that predicts the next token of a text: each weight is used once for every step."""

from __future__ import annotations

from collections.abc import Mapping

from impls.architectures.layers import Architecture, Dense, Embedding, Recurrent
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import Axis, Sizes, Workload


def objective(sizes: Sizes) -> Objective:
    """Tokens (T,) - embedding - tanh cell over T steps - dense to the vocabulary at each of them."""
    layers = (
        Embedding(sizes["vocabulary"], sizes["width"]),
        Recurrent("rnn", sizes["units"]),
        Dense(sizes["vocabulary"]),
    )
    return Supervised(Architecture((sizes["T"],), layers, "token_cross_entropy", sizes["vocabulary"]))


def variables(sizes: Sizes) -> Mapping[str, int]:
    """Steps, units of the cell, and the weights that multiply: embeddings are looked up."""
    units = sizes["units"]
    weights = units * (sizes["width"] + units) + units * sizes["vocabulary"]
    return {"T": sizes["T"], "u": units, "weights": weights}


WORKLOAD = Workload(
    "rnn",
    "a simple recurrent network, next-token loss",
    middle={"n": 32, "T": 32, "units": 128, "width": 32, "vocabulary": 64},
    objective=objective,
    axes=(
        Axis(
            "examples",
            "n",
            (4, 60, 96, 132, 200, 280, 388),
            (1, 4, 12, 36, 60, 96, 132, 200, 280, 388),
            "n",
            1.0,
            {"T": 16},
        ),
        Axis(
            "units",
            "units",
            (16, 72, 100, 140, 200, 260),
            (8, 16, 36, 52, 72, 100, 140, 200, 260),
            "m",
            None,
            {"n": 136, "T": 16},
        ),
        Axis(
            "steps",
            "T",
            (1, 8, 20, 28, 44, 60, 92, 124),
            (1, 4, 8, 12, 20, 28, 36, 44, 60, 76, 92, 124),
            "T",
            1.0,
            {"n": 16},
        ),
    ),
    law=("1", "T", "n·T·weights", "n·kept", "n·kept·beyond(n·kept·itemsize, L2)"),
    memory_law=("1", "m", "n·kept"),
    statement="every step calls anew and uses every weight for every example; what layers put out is written and read",
    heldout=(
        {"n": 104, "units": 248},
        {"n": 28, "T": 118, "units": 248},
        {"n": 56, "T": 60, "units": 248},
    ),
    plain="n·m·T",
    variables=variables,
)
