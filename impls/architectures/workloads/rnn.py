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
        Axis("examples", "n", (4, 64, 96, 128, 256), (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256), "n"),
        Axis("units", "units", (16, 96, 128, 192, 256), (16, 32, 48, 64, 96, 128, 192, 256), "m", 1.0, {"n": 96}),
        Axis("steps", "T", (4, 32, 64, 96, 128), (1, 2, 4, 8, 16, 32, 64, 96, 128, 160), "T", 1.0, {"n": 64}),
    ),
    law=("1", "T", "n·T·weights", "n·kept", "n·kept·beyond(n·kept·itemsize, L2)"),
    memory_law=("1", "m", "n·kept"),
    statement="every step calls anew and uses every weight for every example; what layers put out is written and read",
    heldout=(
        {"n": 128, "T": 128},
        {"n": 160, "units": 256},
        {"T": 160, "units": 256},
    ),
    plain="n·m·T",
    variables=variables,
)
