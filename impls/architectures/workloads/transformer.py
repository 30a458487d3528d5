"""A small GPT that predicts the next token of a text: weights are used at every position, and positions meet in pairs."""

from __future__ import annotations

from collections.abc import Mapping

from impls.architectures.layers import (
    Activation,
    Architecture,
    Attention,
    Dense,
    Embedding,
    Layer,
    LayerNorm,
    Positions,
    Residual,
)
from impls.architectures.problem import Objective, Supervised
from impls.architectures.workloads import Axis, Sizes, Workload


def block(d: int, heads: int) -> tuple[Layer, ...]:
    """Pre-norm: x + attention(norm(x)), then x + two dense layers, four times as wide between, of norm(x) (GPT-2)."""
    return (
        Residual((LayerNorm(), Attention(heads))),
        Residual((LayerNorm(), Dense(4 * d), Activation("gelu"), Dense(d))),
    )


def objective(sizes: Sizes) -> Objective:
    """Tokens (s,) - embedding + learned positions - blocks - norm - dense to the vocabulary."""
    d, vocabulary = sizes["d"], sizes["vocabulary"]
    layers = (
        Embedding(vocabulary, d),
        Positions(),
        *(block(d, sizes["heads"]) * sizes["blocks"]),
        LayerNorm(),
        Dense(vocabulary),
    )
    return Supervised(Architecture((sizes["s"],), layers, "token_cross_entropy", vocabulary))


def variables(sizes: Sizes) -> Mapping[str, int]:
    """Positions, width, heads, blocks, and the weights that multiply: learned positions are added, embeddings looked up."""
    d, blocks = sizes["d"], sizes["blocks"]
    weights = 12 * d**2 * blocks + d * sizes["vocabulary"]
    return {"s": sizes["s"], "d": d, "heads": sizes["heads"], "blocks": blocks, "weights": weights}


WORKLOAD = Workload(
    "transformer",
    "a small GPT, next-token loss",
    middle={"n": 4, "s": 64, "d": 64, "heads": 4, "blocks": 2, "vocabulary": 64},
    objective=objective,
    axes=(
        Axis("examples", "n", (1, 8, 12, 16, 32), (1, 2, 4, 8, 12, 16, 32), "n"),
        Axis("width", "d", (16, 48, 64, 96, 128), (16, 32, 48, 64, 96, 128), "m", 1.0, {"n": 12}),
        Axis("blocks", "blocks", (1, 2, 3, 5), (1, 2, 3, 4, 5, 6), "m", 1.0, {"n": 12}),
        Axis("heads", "heads", (1, 16), (1, 2, 4, 8, 16, 32), "heads", None),
        # one narrow block, where pairs of positions soon outweigh the weights
        Axis(
            "positions",
            "s",
            (128, 512, 768, 1024, 2048),
            (64, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 1280, 2048),
            "s",
            None,
            {"n": 1, "d": 32, "heads": 2, "blocks": 1},
        ),
    ),
    law=(
        "1",
        "blocks",
        "n·s·weights",
        "n·kept",
        "n·blocks·s^2·d",
        "n·blocks·heads·s^2",
        "n·blocks·heads·s^2·beyond(n·heads·s^2·itemsize, L2)",
    ),
    memory_law=("1", "m", "n·kept", "n·blocks·heads·s^2"),
    statement="products once for each weight and position, and in every block for each pair of positions: their products, "
    "and a softmax of every head",
    heldout=(
        {"n": 20, "d": 128},
        {"n": 12, "s": 256},
        {"n": 3, "s": 1536, "d": 32, "heads": 2, "blocks": 1},
    ),
    plain="n·m·s",
    variables=variables,
)
