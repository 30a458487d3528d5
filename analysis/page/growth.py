"""Whether a cost grows with n, m or p, in plain words: what its exponent's interval says."""

from __future__ import annotations

from typing import Literal

from analysis.claims import BAND
from analysis.exponents import Exponent

Word = Literal["grows", "does not grow", "cannot tell"]


def word(exponent: Exponent) -> Word:
    """An interval within 0 ± 0.1 says no, one beyond 0.1 yes."""
    if exponent.ci_low is None or exponent.ci_high is None:
        return "cannot tell"
    if exponent.ci_low > BAND:
        return "grows"
    return "does not grow" if exponent.ci_high <= BAND else "cannot tell"


def told(name: str, exponent: Exponent) -> str:
    """The same with its numbers."""
    if exponent.value is None:
        return f"cannot tell: {exponent.reason}"
    if exponent.ci_low is None or exponent.ci_high is None:
        return f"cannot tell: {name}^{exponent.value:.2f} without an interval ({exponent.reason})"
    numbers = f"{name}^{_two(exponent.value)} [{_two(exponent.ci_low)}, {_two(exponent.ci_high)}]"
    numbers += f" for {name} from {exponent.range_low:,.0f} to {exponent.range_high:,.0f}"
    match word(exponent):
        case "grows":
            return f"grows with {name}, as {numbers}"
        case "does not grow":
            return (
                f"does not grow with {name}: {numbers}, {'within' if exponent.ci_low >= -BAND else 'below'} 0 ± {BAND}"
            )
    return f"cannot tell: {numbers} reaches across {BAND}"


def _two(value: float) -> str:
    """Two decimals, and no minus before nothing."""
    return f"{value:.2f}".replace("-0.00", "0.00")
