"""What the article says of cost, as data: for every phase the exponents of n, m and p that it claims."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A declared hypothesis: cost of ``phase`` grows as n^n · m^m · p^p."""

    phase: str
    statement: str
    law: str
    exponents: dict[str, float]


CLAIMS = {
    claim.phase: claim
    for claim in (
        Claim("step", "one step of gradient descent costs O(n·m·p)", "n·m·p", {"n": 1, "m": 1, "p": 1}),
        Claim("forward", "forward propagation costs O(m·p) for each example", "n·m·p", {"n": 1, "m": 1, "p": 1}),
        Claim("loss", "the error costs O(n)", "n", {"n": 1, "m": 0, "p": 0}),
        Claim("backward", "backward propagation costs O(m·p) for each example", "n·m·p", {"n": 1, "m": 1, "p": 1}),
        Claim("update", "the update costs O(m), whatever n", "m", {"n": 0, "m": 1, "p": 0}),
    )
}

#: How far an exponent may be from the claimed one and still be called equal to it.
BAND = 0.1
