"""Words of messages: a name nobody knows, and counts."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that ``name`` is no ``kind``, which known one is nearest, and which there are."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}': {hint}known: {', '.join(names)}"


def counted(count: int, what: str) -> str:
    """``1 class``, ``1,797 rows``."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"
