"""What the article says of cost, sentence by sentence, as data: the law it names and the exponents that law claims."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A sentence about the cost of ``phase``: it grows by ``law``, past fixed overhead as n^n · m^m · p^p.

    An exponent left out depends on the law's coefficients and is taken from its fit.
    """

    phase: str
    statement: str
    law: str
    exponents: dict[str, float]
    experiment: str
    source: str = "the article"


_STEP = "whole steps, along n, m (by depth and by width) and p"
_ALONE = "the phase alone, along n, m (by width) and, where it sees the activation, p"

CLAIMS = {
    claim.phase: claim
    for claim in (
        Claim("step", "one step of gradient descent costs O(n·m·p)", "n·m·p", {"n": 1, "m": 1, "p": 1}, _STEP),
        Claim(
            "forward", "forward propagation costs O(m·p) for each example", "n·m·p", {"n": 1, "m": 1, "p": 1}, _ALONE
        ),
        Claim("loss", "the error costs O(n)", "n", {"n": 1, "m": 0}, _ALONE),
        Claim(
            "backward", "backward propagation costs O(m·p) for each example", "n·m·p", {"n": 1, "m": 1, "p": 1}, _ALONE
        ),
        Claim("update", "the update costs O(m), whatever n", "m", {"n": 0, "m": 1}, _ALONE),
        Claim(
            "memory",
            "a step holds some copies of the parameters, and of every layer's units for each example",
            "parameters and activations",
            {"p": 0},
            "peak bytes of a step, along n, m and p",
            "ours",
        ),
    )
}

#: How far an exponent may be from the claimed one and still be called equal to it.
BAND = 0.1
#: A law predicts held-out cells if nine in ten lie within this; it does not if half of them lie outside.
HELDOUT_BAND = 0.2
