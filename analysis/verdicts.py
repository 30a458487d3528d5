"""Three-way verdicts: supported, refuted, inconclusive, always with the interval they rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from analysis import laws
from analysis.claims import BAND, CLAIMS, HELDOUT_BAND, Claim
from analysis.exponents import Exponent, exponents
from analysis.hypotheses import Law, declared
from analysis.launch import Launch, launch, told
from analysis.laws import DRAWS, LEAST_HELDOUT, LawFit
from analysis.load import GROUP, on_accelerator, usual_optimizer
from analysis.normalise import kept
from analysis.statistics import Interval

#: Past launching few cells may be left an eighth as large as those that judge; with fewer than this, fits see larger ones.
LEAST_ARITHMETIC = 20
#: Past launching no law is chosen by fewer cells than this: a simpler one would win for want of evidence.
LEAST_FOR_LAW = 10

Word = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class LawVerdict:
    """What the measurements say of one law: its predicted exponents against the measured ones, and held-out cells."""

    fit: LawFit
    word: Word
    reason: str
    predicted: dict[str, float]  # by exponent: declared by the law, or what its fit makes of the same cells


@dataclass(frozen=True)
class Verdict:
    """What one implementation's phase says of the article's claim, and of every declared law."""

    impl: str
    device: str
    dtype: str
    phase: str
    optimizer: str
    claim: Claim
    word: Word
    reason: str
    exponents: dict[str, Exponent]
    choice: laws.Choice
    laws: tuple[LawVerdict, ...]
    claimed: dict[str, float]  # by exponent: what the claim says, or its law's fit where it leaves that open
    launch: Launch | None = None  # on an accelerator


def judge(
    entries: pd.DataFrame, cells: pd.DataFrame, hypotheses: Sequence[Law] | None = None, resamples: int = DRAWS
) -> list[Verdict]:
    """A verdict for every group of the run, in the order of the cell table; memory is judged as a phase of its own.  Beside
    the usual optimizer others are judged by their update alone: of whole steps they have one cell or two.

    ``resamples`` is how often the winning law's coefficients are drawn anew for their intervals.
    """
    hypotheses = declared() if hypotheses is None else hypotheses
    entries, cells = pd.concat([kept(entries), memory(entries)]), pd.concat([cells, memory(cells)])
    own, how = usual_optimizer(entries), (hypotheses, resamples)
    by_group = dict(list(cells.groupby(GROUP, sort=False)))
    return [
        _judge((str(key[0]), str(key[1]), str(key[2]), str(key[3]), str(key[4])), rows, by_group[key], *how)
        for key, rows in entries.groupby(GROUP, sort=True)
        if str(key[3]) in CLAIMS and (key[4] == own or key[3] == "update")
    ]


def memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Steps as cells of the phase ``memory``: their time is their peak in bytes, the same in every pass."""
    steps = rows[rows["phase"] == "step"]
    peak = pd.to_numeric(steps["peak_bytes"])
    steps = steps[peak > 0].assign(phase="memory", time_s=peak[peak > 0])
    return (
        steps.assign(**{"pass": 1}).drop_duplicates([*GROUP, "layers", "activation", "n"]) if "pass" in rows else steps
    )


def _judge(
    key: tuple[str, str, str, str, str],
    entries: pd.DataFrame,
    cells: pd.DataFrame,
    hypotheses: Sequence[Law],
    resamples: int,
) -> Verdict:
    claim = CLAIMS[key[3]]
    launched = launch(entries, claim.exponents) if on_accelerator(key[1]) and key[3] != "memory" else None
    found = exponents(entries, dict(claim.exponents), launched.arithmetic if launched else None)
    if launched:
        cells = cells[launched.arithmetic(cells)]
    choice = _past_launching(cells, key[3], hypotheses) if launched else laws.choose(cells, key[3], hypotheses)
    choice = laws.with_draws(choice, entries, cells, resamples)
    if launched and np.isfinite(launched.seconds.value):
        choice = replace(choice, floor=launched.seconds.value)
    judged = tuple(judge_law(fit, found) for fit in choice.fits)
    own = next((verdict for verdict in judged if verdict.fit.law.name == claim.law), None)
    claimed = dict(claim.exponents) | (
        {} if own is None else {k: own.predicted[k] for k in "nmp" if k in own.predicted}
    )
    words = {name: equivalent(found[name], claimed[name]) for name in "nmp" if name in claimed}
    word = overall(list(words.values())) if words else "inconclusive"
    reason = explain(claim, claimed, found, words, word) + (f" {told(launched)}" if launched else "")
    return Verdict(*key, claim, word, reason, found, choice, judged, claimed, launched)


def _past_launching(cells: pd.DataFrame, phase: str, hypotheses: Sequence[Law]) -> laws.Choice:
    """The choice of a law among the cells of the arithmetic regime, where there are enough to choose by."""
    enough = len(laws.split(cells).seen) >= LEAST_ARITHMETIC
    factor = laws.HELDOUT_FACTOR if enough else 1.0
    count = len(laws.split(cells, factor).seen)
    if count < LEAST_FOR_LAW:
        return laws.Choice((), None, f"only {count} cells in the arithmetic regime, too few to choose a law by")
    return laws.choose(cells, phase, hypotheses, factor)


def judge_law(fit: LawFit, found: dict[str, Exponent]) -> LawVerdict:
    """A law is supported where every exponent lies within ±0.1 of what it says and it predicts the held-out cells; one that
    fails refutes it.  What it leaves open of an exponent is what its fit, put through the same estimator, comes to.
    """
    predicted: dict[str, float] = {}
    words: dict[str, Word] = {}
    for name in ("n", "m_depth", "m_width", "m", "p"):
        says, exponent = fit.law.exponents.get(name[0]), found[name]
        value = exponent.of(fit.predict) if says is None else says
        if value is None:
            continue
        predicted[name] = value
        if name != "m" and exponent.value is not None:
            words[f"exponent of {name}"] = (
                equivalent(exponent, says) if says is not None else within(exponent.against(fit.predict), 0.0)
            )
    if fit.heldout_cells >= LEAST_HELDOUT:
        words["held-out cells"] = predicts(fit)
    word = overall(list(words.values())) if words else "inconclusive"
    against = [what for what, found_word in words.items() if found_word == word]
    reason = f"{word} by {', '.join(against)}" if words else "inconclusive, because no exponent could be estimated"
    return LawVerdict(fit, word, reason, predicted)


def predicts(fit: LawFit) -> Word:
    """Whether a law predicts its held-out cells."""
    if fit.heldout_p90 <= HELDOUT_BAND:
        return "supported"
    return "refuted" if fit.heldout_median > HELDOUT_BAND else "inconclusive"


def equivalent(exponent: Exponent, claimed: float) -> Word:
    """Equivalence by interval: inside claimed ± 0.1 supported, outside refuted, else inconclusive."""
    if exponent.ci_low is None or exponent.ci_high is None:
        return "inconclusive"
    return within(Interval(exponent.value or 0.0, exponent.ci_low, exponent.ci_high), claimed)


def within(found: Interval | None, claimed: float) -> Word:
    """The same of an interval that may be unknown."""
    if found is None or math.isnan(found.low):
        return "inconclusive"
    if claimed - BAND <= found.low and found.high <= claimed + BAND:
        return "supported"
    return "refuted" if found.high < claimed - BAND or found.low > claimed + BAND else "inconclusive"


def overall(words: list[Word]) -> Word:
    """One refuted exponent refutes the product; all must be supported to support it."""
    if "refuted" in words:
        return "refuted"
    return "supported" if all(word == "supported" for word in words) else "inconclusive"


def explain(
    claim: Claim, claimed: dict[str, float], found: dict[str, Exponent], words: dict[str, Word], word: Word
) -> str:
    """The verdict in a plain sentence with its numbers."""
    if not words:
        return f"Inconclusive, because the law {claim.law} could not be fitted."
    cost = "Memory" if claim.phase == "memory" else "Cost"
    sentence = f"{cost} grows as {', '.join(_told(name, found[name]) for name in words)}. "
    against = [name for name in words if words[name] == "refuted"]
    unsure = [name for name in words if words[name] == "inconclusive"]
    if word == "supported":
        return sentence + f"All are within ±{BAND} of the claim: growth as {claim.law} is supported."
    if word == "inconclusive":
        return sentence + f"Inconclusive, because {_doubt(unsure[0], found[unsure[0]], claimed[unsure[0]])}."
    faster = [name for name in against if (found[name].value or 0) > claimed[name]]
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
    told = (
        f"{name}^{exponent.value:.2f}{interval} for {name} from {exponent.range_low:,.0f} to {exponent.range_high:,.0f}"
    )
    if exponent.steps:
        told += f" (with a step in cost near {' and '.join(f'{x:,.0f}' for x, _ in exponent.steps)})"
    return told


def _doubt(name: str, exponent: Exponent, claimed: float) -> str:
    if exponent.ci_low is None or exponent.ci_high is None:
        return f"{name} has no {'interval' if exponent.value is not None else 'estimate'}: {exponent.reason}"
    edges = [claimed - BAND, claimed + BAND]
    crossed = " and ".join(f"{edge:.2g}" for edge in edges if exponent.ci_low < edge < exponent.ci_high)
    return f"the interval of {name} reaches across {crossed}"
