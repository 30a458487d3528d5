"""Steps, spikes, drift and the end of a history, on planted ones; and that the check of the detector fails without it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis import changepoints
from analysis.changepoints import LEAST_COMMITS, Changes, detect
from analysis.statistics import Floats, Interval
from tests import history_check, planted_history
from tests.history_check import Told
from tests.planted_history import Planted

TRIALS = 60


def noise(count: int = 300, sigma: float = 0.015, seed: int = 0) -> Floats:
    return sigma * np.random.default_rng(seed).standard_normal(count)


def stepped(*levels: tuple[int, float], sigma: float = 0.015, seed: int = 0) -> Floats:
    """Runs of (commits, level)."""
    y = np.concatenate([np.full(count, level) for count, level in levels])
    return y + noise(len(y), sigma, seed)


def finds_planted_steps(rule: history_check.Rule) -> bool:
    """What the detector promises of steps of 10 % and more: 95 % found, 95 % of those told planted."""
    scores = [history_check.score(rule, TRIALS, drift, 0.2) for drift in ("none", "straight")]
    return all(score.recall(True) >= 0.95 and score.precision(True) >= 0.95 for score in scores)


def test_planted_steps_are_found_where_they_are() -> None:
    assert finds_planted_steps(history_check.ours)


def nothing(planted: Planted) -> list[Told]:
    return []


def everything_ten_late(planted: Planted) -> list[Told]:
    return [Told(t.at + 10, t.size, t.before, t.after) for t in history_check.ours(planted)]


def wrong_direction(planted: Planted) -> list[Told]:
    return [
        Told(t.at, Interval(-t.size.value, -t.size.high, -t.size.low), t.before, t.after)
        for t in history_check.ours(planted)
    ]


@pytest.mark.parametrize(
    "rule",
    [nothing, everything_ten_late, wrong_direction, history_check.neighbours(1.1)],
    ids=lambda rule: rule.__name__,
)
def test_the_check_fails_for_detectors_that_are_wrong(rule: history_check.Rule) -> None:
    assert not finds_planted_steps(rule)


def test_a_detector_that_is_switched_off_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changepoints, "detect", lambda values, positions=None: Changes())
    assert not finds_planted_steps(history_check.ours)


@pytest.mark.parametrize(("drift", "most"), [("none", 0.02), ("straight", 0.05), ("waves", 0.12)])
def test_histories_without_steps_have_none(drift: str, most: float) -> None:
    assert history_check.alarms(history_check.ours, TRIALS, drift, 0.2) <= most


def test_intervals_hold_the_size_and_ranges_the_place() -> None:
    score = history_check.score(history_check.ours, 2 * TRIALS, "straight", 0.2)
    count = sum(score.found.values())
    assert score.covered / count >= 0.92
    assert score.within / count >= 0.92


def test_a_step_between_two_commits() -> None:
    (step,) = detect(stepped((50, 0.0), (50, math.log(1.2)))).steps
    assert (step.before, step.at, step.after) == (49, 50, 50)
    assert step.size.low <= math.log(1.2) <= step.size.high
    assert step.size.high - step.size.low < 0.06


def test_a_small_step_has_a_wide_range() -> None:
    (step,) = detect(stepped((50, 0.0), (50, 0.035), sigma=0.015, seed=3)).steps
    assert step.before < 49 or step.after > 50
    assert step.before < 50 <= step.after


def test_up_and_down_again() -> None:
    found = detect(stepped((60, 0.0), (30, 0.1), (60, 0.0)))
    assert [step.at for step in found.steps] == [60, 90]
    assert [np.sign(step.size.value) for step in found.steps] == [1, -1]


@pytest.mark.parametrize("length", range(1, LEAST_COMMITS))
def test_a_short_excursion_is_a_spike(length: int) -> None:
    y = noise()
    y[100 : 100 + length] += 0.2
    found = detect(y)
    assert found.steps == ()
    assert found.spikes == tuple(range(100, 100 + length))
    assert found.watched is None


@pytest.mark.parametrize(("place", "at"), [(45, 50), (49, 50), (50, 51), (54, 50)])
def test_spikes_at_the_edge_of_a_step_do_not_move_it(place: int, at: int) -> None:
    y = stepped((50, 0.0), (50, 0.15))
    y[place] += 0.4
    found = detect(y)
    assert [step.at for step in found.steps] == [at]  # the first commit of the new level that is no spike
    assert found.steps[0].before < 50 <= found.steps[0].after
    assert found.spikes == (place,)


@pytest.mark.parametrize("count", range(1, LEAST_COMMITS))
def test_a_new_level_at_the_end_is_watched(count: int) -> None:
    y = stepped((100, 0.0), (count, 0.15))
    found = detect(y)
    assert found.steps == ()
    assert found.watched is not None
    assert found.watched.since == 100
    assert found.watched.size.low < 0.15 < found.watched.size.high


def test_with_enough_commits_it_is_a_step() -> None:
    found = detect(stepped((100, 0.0), (LEAST_COMMITS, 0.15)))
    assert [step.at for step in found.steps] == [100]
    assert found.watched is None


@pytest.mark.parametrize("sign", [-1, 1])
def test_slow_drift_is_told_as_drift(sign: int) -> None:
    found = detect(noise() + sign * np.linspace(0.0, 0.12, 300))
    assert found.steps == ()
    assert found.drift is not None
    assert found.drift.low <= sign * 0.12 <= found.drift.high


def test_a_step_within_drift() -> None:
    found = detect(stepped((150, 0.0), (150, 0.1)) + np.linspace(0.0, 0.1, 300))
    assert [step.at for step in found.steps] == [150]
    assert found.drift is not None
    assert found.steps[0].size.low <= 0.1 <= found.steps[0].size.high


def test_a_level_that_changed_while_nothing_was_measured() -> None:
    places = np.concatenate([np.arange(60), np.arange(90, 150)])
    found = detect(stepped((60, 0.0), (60, 0.1)), places.astype(float))
    assert [(step.before, step.at, step.after) for step in found.steps] == [(59, 60, 60)]


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_too_few_commits_have_no_steps(count: int) -> None:
    found = detect(np.where(np.arange(count) < count // 2, 0.0, 1.0))
    assert found.steps == ()
    assert found.watched is None


def test_short_histories_see_large_steps() -> None:
    assert [step.at for step in detect(stepped((6, 0.0), (6, 0.3))).steps] == [6]


def test_numbers_without_noise() -> None:
    assert detect(np.ones(40)).steps == ()
    (step,) = detect(np.log(np.repeat([1000.0, 1030.0], 20))).steps
    assert step.at == 20
    assert step.size.value == pytest.approx(math.log(1.03))
    found = detect(np.log(np.concatenate([np.full(20, 1000.0), [1500.0], np.full(20, 1000.0)])))
    assert found.spikes == (20,)


def test_correlated_noise_is_no_step() -> None:
    assert history_check.alarms(history_check.ours, TRIALS, "none", 0.4) <= 0.05


def test_the_same_history_is_judged_alike() -> None:
    planted = planted_history.series(np.random.default_rng(5), steps=2, drift="waves")
    first, second = detect(planted.y), detect(planted.y)
    assert first.steps == second.steps
    assert first.line == second.line
