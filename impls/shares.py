"""Which rows of a batch are whose."""

from __future__ import annotations


def share(n: int, ranks: int, rank: int) -> slice:
    """The rows of a rank: all ranks together have every row once, and no two differ by more than one row."""
    return slice(n * rank // ranks, n * (rank + 1) // ranks)
