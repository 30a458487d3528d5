"""Three-way verdicts: supported, refuted, inconclusive, always with the interval they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis import laws
from analysis.claims import BAND, CLAIMS, Claim
from analysis.exponents import Exponent, exponents
from analysis.load import GROUP

Word = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What one implementation's phase says of the article's claim."""

    impl: str
    device: str
    dtype: str
    phase: str
    claim: Claim
    word: Word
    reason: str
    exponents: dict[str, Exponent]
    choice: laws.Choice


def judge(entries: pd.DataFrame, cells: pd.DataFrame) -> list[Verdict]:
    """A verdict for every group of the run, in the order of the cell table."""
    by_group = dict(list(cells.groupby(GROUP, sort=False)))
    return [
        _judge((str(key[0]), str(key[1]), str(key[2]), str(key[3])), rows, by_group[key])
        for key, rows in entries.groupby(GROUP, sort=True)
        if str(key[3]) in CLAIMS
    ]


def _judge(key: tuple[str, str, str, str], entries: pd.DataFrame, cells: pd.DataFrame) -> Verdict:
    claim = CLAIMS[key[3]]
    found = exponents(entries, claim.exponents)
    words = {name: equivalent(found[name], claimed) for name, claimed in claim.exponents.items()}
    word = overall(list(words.values()))
    return Verdict(*key, claim, word, explain(claim, found, words, word), found, laws.choose(cells, key[3]))


def equivalent(exponent: Exponent, claimed: float) -> Word:
    """Equivalence by interval: inside claimed ± 0.1 supported, outside refuted, else inconclusive."""
    if exponent.ci_low is None or exponent.ci_high is None:
        return "inconclusive"
    if claimed - BAND <= exponent.ci_low and exponent.ci_high <= claimed + BAND:
        return "supported"
    if exponent.ci_high < claimed - BAND or exponent.ci_low > claimed + BAND:
        return "refuted"
    return "inconclusive"


def overall(words: list[Word]) -> Word:
    """One refuted exponent refutes the product; all must be supported to support it."""
    if "refuted" in words:
        return "refuted"
    return "supported" if all(word == "supported" for word in words) else "inconclusive"


def explain(claim: Claim, found: dict[str, Exponent], words: dict[str, Word], word: Word) -> str:
    """The verdict in a plain sentence with its numbers."""
    told = [_told(name, found[name]) for name in claim.exponents]
    sentence = f"Cost grows as {', '.join(told)}. "
    against = [name for name in words if words[name] == "refuted"]
    unsure = [name for name in words if words[name] == "inconclusive"]
    if word == "supported":
        return sentence + f"All are within ±{BAND} of the claim: growth as {claim.law} is supported."
    if word == "inconclusive":
        return sentence + f"Inconclusive, because {_doubt(unsure[0], found[unsure[0]], claim)}."
    faster = [name for name in against if (found[name].value or 0) > claim.exponents[name]]
    named = " and ".join(against)
    if faster:
        bound = (
            f"in {' and '.join(faster)} it grows faster than claimed, so the upper bound O({claim.law}) fails too here"
        )
    else:
        bound = f"it grows more slowly than claimed, so O({claim.law}) remains a valid but loose upper bound here"
    return sentence + f"Growth as {claim.law} is refuted by {named}: {bound}."


def _told(name: str, exponent: Exponent) -> str:
    if exponent.value is None:
        return f"{name}^? ({exponent.reason})"
    interval = "" if exponent.ci_low is None else f" [{exponent.ci_low:.2f}, {exponent.ci_high:.2f}]"
    return (
        f"{name}^{exponent.value:.2f}{interval} for {name} from {exponent.range_low:,.0f} to {exponent.range_high:,.0f}"
    )


def _doubt(name: str, exponent: Exponent, claim: Claim) -> str:
    if exponent.ci_low is None or exponent.ci_high is None:
        return f"{name} has no {'interval' if exponent.value is not None else 'estimate'}: {exponent.reason}"
    edges = [claim.exponents[name] - BAND, claim.exponents[name] + BAND]
    crossed = " and ".join(f"{edge:g}" for edge in edges if exponent.ci_low < edge < exponent.ci_high)
    return f"the interval of {name} reaches across {crossed}"
