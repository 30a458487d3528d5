"""Small problems of architectures that between them have every kind of layer, every loss and every objective."""

from __future__ import annotations

from impls.architectures.layers import (
    Activation,
    Architecture,
    Attention,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    Pool2D,
    Positions,
    Recurrent,
    Residual,
    Shape,
)
from impls.architectures.problem import Adversarial, Objective, Supervised, TemporalDifference

IMAGE = (2, 7, 6)
SEQUENCE = (5, 6)


def supervised(inputs: Shape, *layers: Layer, loss: str = "mse", vocabulary: int = 0) -> Supervised:
    """Layers on an input, with a loss."""
    return Supervised(Architecture(inputs, layers, loss, vocabulary))


def tokens(*layers: Layer, vocabulary: int = 7, width: int = 6, steps: int = 5) -> Supervised:
    """Layers on embedded tokens, and the next token's loss."""
    return supervised(
        (steps,),
        Embedding(vocabulary, width),
        *layers,
        Dense(vocabulary),
        loss="token_cross_entropy",
        vocabulary=vocabulary,
    )


def mlp(inputs: int, outputs: int, *between: Layer) -> Architecture:
    """A hidden layer of five."""
    return Architecture((inputs,), (Dense(5), Activation("tanh"), *between, Dense(outputs)))


TANH, GELU, SOFTPLUS = Activation("tanh"), Activation("gelu"), Activation("softplus")

#: Objective and n by name; what is between two smooth layers is itself smooth, so that central differences hold.
PROBLEMS: dict[str, tuple[Objective, int]] = {
    "dense": (supervised((6,), Dense(5), TANH, Dense(4)), 9),
    "dense alone": (supervised((6,), Dense(4)), 1),
    "cross entropy": (supervised((6,), Dense(5), GELU, Dense(4), loss="cross_entropy"), 9),
    "policy gradient": (supervised((6,), Dense(5), TANH, Dense(4), loss="policy_gradient"), 9),
    "two activations": (supervised((6,), Dense(5), SOFTPLUS, TANH, Dense(4), Activation("sigmoid")), 3),
    "activation first": (supervised((6,), TANH, Dense(4)), 3),
    "conv": (supervised(IMAGE, Conv2D(3, 3), TANH, Conv2D(4, 2), Flatten(), Dense(3)), 4),
    "conv strided and padded": (supervised(IMAGE, Conv2D(3, 3, 2, 1), TANH, Conv2D(4, 3, 2, 2)), 3),
    "conv of padding after dense input": (supervised(IMAGE, Conv2D(3, 2, 1, 1), Conv2D(2, 1), Conv2D(2, 4, 3, 3)), 1),
    "max pooling": (
        supervised(IMAGE, Conv2D(3, 2), Pool2D("max", 2), TANH, Flatten(), Dense(3), loss="cross_entropy"),
        4,
    ),
    "max pooling, overlapping": (supervised(IMAGE, Conv2D(2, 1), Pool2D("max", 3, 2), Conv2D(2, 2)), 3),
    "max pooling, apart": (supervised(IMAGE, Conv2D(2, 1), Pool2D("max", 2, 3)), 3),
    "mean pooling": (supervised(IMAGE, Conv2D(3, 2), Pool2D("mean", 3, 1), TANH, Flatten(), Dense(3)), 4),
    "mean pooling, apart": (supervised(IMAGE, Pool2D("mean", 2, 3), Conv2D(2, 2), Pool2D("max", 1)), 2),
    "rnn": (supervised(SEQUENCE, Recurrent("rnn", 4), Dense(3)), 3),
    "lstm": (supervised(SEQUENCE, Recurrent("lstm", 4)), 3),
    "gru": (supervised(SEQUENCE, Recurrent("gru", 4), Flatten(), Dense(2)), 3),
    "cells stacked": (
        tokens(Recurrent("lstm", 4), TANH, Recurrent("gru", 3), Recurrent("rnn", 5), Dropout(0.3)),
        4,
    ),
    "a cell, one step, one example": (tokens(Recurrent("lstm", 4), steps=1), 1),
    "embedding": (tokens(TANH), 3),
    "embedding of many tokens": (tokens(TANH, vocabulary=600, steps=3), 3),
    "positions": (tokens(Positions(), GELU), 3),
    "positions in rows": (tokens(Positions(), Recurrent("rnn", 4)), 3),
    "layer norm": (supervised((6,), Dense(5), LayerNorm(), TANH, Dense(4)), 9),
    "layer norm first": (supervised(SEQUENCE, LayerNorm(), Flatten(), Dense(2)), 3),
    "layer norm of an image": (supervised(IMAGE, Conv2D(2, 2), LayerNorm(), Conv2D(2, 2)), 3),
    "layer norm between cells": (tokens(Recurrent("rnn", 4), LayerNorm(), Recurrent("rnn", 4)), 3),
    "attention": (supervised(SEQUENCE, Attention(2)), 3),
    "attention to all": (supervised(SEQUENCE, Dense(8), Attention(4, causal=False), TANH, Dense(2)), 3),
    "attention, one position": (tokens(Attention(3), steps=1), 2),
    "transformer": (
        tokens(
            Positions(),
            Residual((LayerNorm(), Attention(2))),
            Residual((LayerNorm(), Dense(9), GELU, Dropout(0.2), Dense(6))),
            LayerNorm(),
        ),
        3,
    ),
    "attention after a cell": (tokens(Recurrent("gru", 6), Residual((Attention(2),)), Recurrent("rnn", 4)), 3),
    "dropout": (supervised((6,), Dropout(0.2), Dense(5), TANH, Dropout(0.5), Dense(4), Dropout(0.1)), 9),
    "residual": (supervised((6,), Dense(5), Residual((TANH, Dense(5), TANH)), Dense(4)), 9),
    "residual first": (supervised((6,), Residual((Dense(6),)), Dense(4)), 4),
    "residual without parameters": (supervised((6,), Dense(5), Residual((TANH,)), Residual((Flatten(),))), 4),
    "residual of the input": (supervised((6,), Residual((TANH, Residual((GELU,)))), Dense(4)), 4),
    "residual within residual": (
        supervised((6,), Dense(5), Residual((Dropout(0.5), Residual((Dense(5), TANH)), TANH)), TANH),
        4,
    ),
    "residual of an image": (
        supervised(IMAGE, Conv2D(3, 3, 1, 1), TANH, Residual((Conv2D(3, 3, 1, 1), TANH, Dropout(0.5))), Flatten()),
        3,
    ),
    "residual of cells": (tokens(Residual((Recurrent("lstm", 6),)), Residual((Recurrent("rnn", 6), TANH))), 3),
    "sequence flattened and back": (
        supervised(SEQUENCE, Attention(2), Flatten(), Dense(5), LayerNorm(), Dense(2), loss="cross_entropy"),
        3,
    ),
    "temporal difference": (TemporalDifference(mlp(4, 3)), 9),
    "temporal difference of images": (
        TemporalDifference(Architecture(IMAGE, (Conv2D(3, 3), TANH, Flatten(), Dense(3))), discount=0.8),
        5,
    ),
    "temporal difference of sequences": (
        TemporalDifference(Architecture(SEQUENCE, (Recurrent("lstm", 3), Dropout(0.5), Flatten(), Dense(2)))),
        4,
    ),
    "adversarial": (Adversarial(mlp(2, 3), mlp(3, 1, Dropout(0.4))), 9),
    "adversarial images": (
        Adversarial(
            Architecture((1, 5, 5), (Conv2D(2, 3, 1, 1), TANH, Dropout(0.5))),
            Architecture((2, 5, 5), (Conv2D(3, 3), TANH, Pool2D("mean", 2), Flatten(), Dense(1))),
        ),
        4,
    ),
    "adversarial sequences": (
        Adversarial(
            Architecture(SEQUENCE, (Residual((Attention(2),)), LayerNorm())),
            Architecture(SEQUENCE, (Recurrent("gru", 3), Flatten(), Dense(1))),
        ),
        4,
    ),
}
