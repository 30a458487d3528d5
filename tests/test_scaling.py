"""Growth compared on planted comparisons: what is worse growth, and what only looks like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis import comparison
from analysis.comparison import Comparison
from tests import planted_comparison as planted

OVERHEAD_S = 2e-5


def share_fixed(found: Mapping[str, Any]) -> float:
    return OVERHEAD_S / planted.seconds(found)


def judged(directory: Path, change: Any, sessions: int = 9, noise: float = 0.008) -> Comparison:
    planted.write(directory, change, sessions, noise)
    return comparison.compare(directory, 0.05)


def larger(found: Comparison) -> set[str]:
    return {change.name for change in found.changes if change.larger}


def cubic(found: Mapping[str, Any]) -> float:
    """A term of the width's cube, 8 % at the largest width."""
    return 1 + 0.08 * float(found["width"] / 128) ** 3


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("nothing", lambda f: 1.0),
        ("all of it by 3 %", lambda f: 1.03),
        ("cheaper overhead", lambda f: 1 - 0.25 * share_fixed(f)),
        ("dearer overhead, within the allowance", lambda f: 1 + 0.04 * share_fixed(f)),
        ("cheaper growth", lambda f: 1 - 0.2 * (1 - share_fixed(f))),
    ],
)
def test_what_is_no_worse_growth(tmp_path: Path, what: str, change: Any) -> None:
    assert larger(judged(tmp_path, change)) == set(), what


def test_a_term_that_shows_at_large_width_only(tmp_path: Path) -> None:
    found = judged(tmp_path, cubic)
    assert larger(found) == {"m along width"}
    assert found.outcome == "slower"
    assert any("growth is dearer in m along width" in reason for reason in found.reasons)


def test_growth_is_told_even_where_no_cell_is_slower_than_allowed(tmp_path: Path) -> None:
    found = judged(tmp_path, lambda f: 1 + 0.045 * (f["width"] / 128) ** 3, sessions=21, noise=0.006)
    assert "slower" not in {ratio.word for ratio in found.cells}
    assert larger(found) == {"m along width"}
    assert found.exit_code == 1


def test_what_grows_is_dearer(tmp_path: Path) -> None:
    found = judged(tmp_path, lambda f: 1 + 0.15 * (1 - share_fixed(f)))
    change = next(change for change in found.changes if change.name == "m along width")
    assert change.larger
    assert change.price.low < 1.15 < change.price.high


def test_without_noise_between_sessions_the_change_of_the_exponent_is_what_was_planted(tmp_path: Path) -> None:
    def steeper(found: Mapping[str, Any]) -> float:
        rest = 1 - share_fixed(found)
        return float(share_fixed(found) + rest * (found["m"] / 5000) ** 0.05)

    found = judged(tmp_path, steeper, sessions=6, noise=1e-4)
    change = next(change for change in found.changes if change.name == "m along width")
    assert change.difference.value == pytest.approx(0.05, abs=0.015)


def test_overhead_and_coefficients_are_compared(tmp_path: Path) -> None:
    found = judged(tmp_path, lambda f: 1 + 0.2 * share_fixed(f), noise=0.004)
    overhead = next(row for row in found.quantities if row.name.startswith("fixed overhead"))
    assert overhead.ratio.low < 1.2 < overhead.ratio.high
    assert overhead.word == "slower"
    prices = [row for row in found.quantities if "coefficient of n" in row.name and row.ratio.value > 0]
    assert prices
    assert all(row.word != "slower" for row in prices)
