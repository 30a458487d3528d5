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
        Axis("examples", "n", (1, 3, 5, 7, 9, 12), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12), "n", 1.0, {"d": 96}),
        Axis("width", "d", (16, 60, 92, 108, 124), (16, 32, 48, 60, 76, 92, 108, 124), "m", None, {"n": 36, "s": 16}),
        Axis("blocks", "blocks", (1, 2, 3, 4, 6, 8), (1, 2, 3, 4, 5, 6, 8), "blocks", 1.0, {"n": 5}),
        Axis("heads", "heads", (1, 16), (1, 2, 4, 8, 16, 32), "heads", None),
        # one narrow block, where pairs of positions soon outweigh the weights
        Axis(
            "positions",
            "s",
            (96, 224, 352, 480, 544, 608, 736, 864),
            (96, 160, 224, 288, 352, 416, 480, 544, 608, 672, 736, 800, 864),
            "s",
            None,
            {"n": 1, "d": 32, "heads": 2, "blocks": 1},
        ),
        # a wider one tells products of pairs from their softmax
        Axis(
            "wide positions",
            "s",
            (288, 576),
            (96, 192, 288, 384, 480, 576),
            "s",
            None,
            {"n": 1, "d": 96, "heads": 2, "blocks": 1},
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
        {"n": 10, "d": 140},
        {"n": 7, "d": 140, "blocks": 3},
        {"n": 1, "s": 736, "d": 140, "heads": 2, "blocks": 1},
    ),
    plain="n·m·s",
    variables=variables,
)
