"""Losses on the linear output y (n, classes) against targets t of the same shape: value and derivative by y.

Written over an array namespace like the activations; ``n`` examples are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Formula = Callable[..., Any]


@dataclass(frozen=True)
class Loss:
    """``value(xp, y, t)`` is a scalar; ``delta(xp, y, t)`` is its derivative by y, shape of y."""

    name: str
    value: Formula
    delta: Formula


def _mse(xp: Any, y: Any, t: Any) -> Any:
    # L = 1/(n d) Σ (y - t)²
    return xp.mean((y - t) ** 2)


def _mse_delta(xp: Any, y: Any, t: Any) -> Any:
    return (y - t) * (2.0 / (t.shape[0] * t.shape[1]))


def _log_softmax(xp: Any, y: Any) -> Any:
    # log softmax(y) = (y - max y) - log Σ exp(y - max y), which cannot overflow
    shifted = y - xp.max(y, axis=1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))


def _cross_entropy(xp: Any, y: Any, t: Any) -> Any:
    # L = -1/n Σ t · log softmax(y)
    return -xp.sum(t * _log_softmax(xp, y)) / t.shape[0]


def _cross_entropy_delta(xp: Any, y: Any, t: Any) -> Any:
    return (xp.exp(_log_softmax(xp, y)) - t) / t.shape[0]


LOSSES = {
    "mse": Loss("mse", _mse, _mse_delta),
    "cross_entropy": Loss("cross_entropy", _cross_entropy, _cross_entropy_delta),
}
