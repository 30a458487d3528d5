"""Ratios cell by cell on planted sessions: coverage, errors over all looks, words, and what disturbs."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import ratios
from analysis.statistics import Estimate, Interval, discoveries
from bench.duel import LOOKS
from tests.planted_comparison import rows

ALLOW = 0.05


def test_a_disturbance_that_hits_both_of_a_pair_does_not_move_the_ratio() -> None:
    rng = np.random.default_rng(0)
    bouts = np.where(rng.random(16) < 0.4, 2.0, 1.0)
    base = 1e-4 * bouts * np.exp(rng.normal(0, 0.002, 16))
    head = 1.1e-4 * bouts * np.exp(rng.normal(0, 0.002, 16))
    assert ratios.session_ratio(base, head) == pytest.approx(np.log(1.1), abs=0.003)


def test_a_disturbance_that_hits_one_of_a_pair_is_cut_off() -> None:
    base, head = np.full(16, 1e-4), np.full(16, 1e-4)
    head[:3] *= 3
    base[5:7] *= 2
    assert ratios.session_ratio(base, head) == pytest.approx(0.0, abs=1e-12)


def test_intervals_cover() -> None:
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(100):
        spreads = 0.02 * np.exp(rng.normal(0, 0.4, 12))
        found = ratios.ratios(rows(rng.normal(0.03, spreads[:, None], (12, 5))), ALLOW, (1,), error=0.05)
        inside += [r.interval.low <= np.exp(0.03) <= r.interval.high for r in found]
    assert 0.93 <= np.mean(inside) <= 0.975


def ever_wrong(true: float, looks: tuple[int, ...], error: float, wrong: str, trials: int = 120) -> float:
    """Share of cells that are called ``wrong`` at any look."""
    rng = np.random.default_rng(2)
    bad = 0
    for _ in range(trials):
        logs = rng.normal(np.log1p(true), 0.02, (8, looks[-1]))
        called = np.zeros(8, bool)
        for look in looks:
            found = ratios.ratios(rows(logs[:, :look]), ALLOW, looks, error)
            called |= [r.cleared if wrong == "cleared" else r.word == wrong for r in found]
        bad += int(called.sum())
    return bad / (8 * trials)


def test_all_looks_together_clear_a_cell_at_the_allowance_as_rarely_as_one_may() -> None:
    assert ever_wrong(ALLOW, LOOKS[:5], ratios.ERROR_OF_LOOK, "cleared") <= 0.03


def test_looking_again_and_again_without_correction_is_seen_to_be_wrong() -> None:
    assert ever_wrong(ALLOW, LOOKS[:5], 0.05, "cleared") > 0.045


def test_nothing_is_accused_where_nothing_changed() -> None:
    assert ever_wrong(0.0, LOOKS[:4], ratios.ERROR_OF_LOOK, "slower", trials=80) == 0.0


@pytest.mark.parametrize(
    ("true", "noise", "word"),
    [
        (0.12, 0.01, "slower"),
        (-0.12, 0.01, "faster"),
        (0.0, 0.01, "same"),
        (0.05, 0.01, "cannot tell"),
        (0.0, 0.3, "cannot tell"),
    ],
)
def test_words(true: float, noise: float, word: str) -> None:
    logs = np.random.default_rng(3).normal(np.log1p(true), noise, (6, 9))
    assert {r.word for r in ratios.ratios(rows(logs), ALLOW, LOOKS)} == {word}


def test_a_cell_that_may_be_faster_is_cleared_though_it_has_no_word() -> None:
    logs = np.random.default_rng(4).normal(-0.045, 0.01, (6, 9))
    found = ratios.ratios(rows(logs), ALLOW, LOOKS)
    assert all(r.cleared for r in found)
    assert "cannot tell" in {r.word for r in found}


def test_one_wild_session_does_not_accuse() -> None:
    logs = np.random.default_rng(5).normal(0.0, 0.01, (8, 6))
    logs[2, 3] = np.log(2.0)
    found = {r.cell: r for r in ratios.ratios(rows(logs), ALLOW, LOOKS)}
    assert found["cell 2"].word in ("same", "cannot tell")
    assert found["cell 2"].interval.value < 1.02


def test_false_discoveries_stay_at_their_rate() -> None:
    rng = np.random.default_rng(6)
    shares = []
    for _ in range(300):
        p = np.concatenate([rng.random(40), rng.random(10) * 1e-4])
        found = discoveries(p, 0.05)
        shares.append(found[:40].sum() / max(found.sum(), 1))
        assert found[40:].all()
    assert np.mean(shares) <= 0.055


def test_more_sessions_are_told_where_they_would_help() -> None:
    near = Estimate(0.02, 0.02, 20)
    found = ratios.Ratio("c", near, Interval(1.02, 0.97, 1.07), 4, "cannot tell", False, 1.0, 1.0)
    needed = ratios.more_sessions(found, ALLOW)
    assert needed is not None and 4 < needed < 100
    on_it = Estimate(float(np.log1p(ALLOW)), 0.01, 20)
    found = ratios.Ratio("c", on_it, Interval(1.05, 1.02, 1.08), 4, "cannot tell", False, 1.0, 1.0)
    assert ratios.more_sessions(found, ALLOW) is None


def test_the_number_of_sessions_told_suffices() -> None:
    """Of cells that were told so many, at least two in three are cleared with as many."""
    rng = np.random.default_rng(7)
    good = []
    for _ in range(30):
        first = ratios.ratios(rows(rng.normal(0.0, 0.035, (8, 4))), ALLOW, LOOKS)
        asked = [ratios.more_sessions(r, ALLOW) for r in first if not r.cleared]
        for needed in filter(None, asked):
            again = ratios.ratios(rows(rng.normal(0.0, 0.035, (8, min(needed, 200)))), ALLOW, LOOKS)
            good.append(np.mean([r.cleared for r in again]))
    assert np.mean(good) > 0.67


@pytest.mark.parametrize("count", [4, 9, 21])
def test_a_cell_that_always_scatters_widely_keeps_its_interval(count: int) -> None:
    """Eleven cells that repeat to a per cent, and one to ten: its sessions are no wild ones."""
    rng = np.random.default_rng(8)
    outside = []
    for _ in range(150):
        logs = rng.normal(0.0, 0.01, (12, count))
        logs[5] *= 10
        found = {r.cell: r for r in ratios.ratios(rows(logs), ALLOW, LOOKS)}
        outside.append(not found["cell 5"].interval.low <= 1 <= found["cell 5"].interval.high)
    assert np.mean(outside) <= 0.12


def test_nobody_is_accused_by_so_few_sessions_as_the_first_look_has() -> None:
    logs = np.random.default_rng(9).normal(0.3, 0.001, (6, LOOKS[0]))
    assert {r.word for r in ratios.ratios(rows(logs), ALLOW, LOOKS)} == {"cannot tell"}
    assert not any(r.cleared for r in ratios.ratios(rows(logs[:, :3] - 0.3), ALLOW, LOOKS))
