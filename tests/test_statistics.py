"""Intervals over passes and cells, the growth of one axis and its steps, on planted numbers."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import growth
from analysis.statistics import Spread, gradient, tamed, two_way_interval


def coverage(cells: int, passes: int, *, line: float, noise: float, tilt: float, trials: int = 600) -> float:
    """Share of trials in which the interval of a slope holds the true one.

    ``line`` is the deviation of a cell in every pass alike, ``noise`` that of a cell in a pass, ``tilt`` of a pass's slope.
    """
    rng = np.random.default_rng([cells, passes, int(1e3 * line), int(1e3 * tilt)])
    x = np.linspace(0, 4, cells)
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    hits = 0
    for _ in range(trials):
        logs = x[:, None] * (1 + tilt * rng.standard_normal(passes)) + 0.1 * rng.standard_normal(passes)
        logs += line * rng.standard_normal((cells, 1)) + noise * rng.standard_normal((cells, passes))
        means = logs.mean(axis=1)
        slope = float(weights @ means)
        residuals = means - means.mean() - slope * centred
        about = Spread(float(residuals @ residuals) / (cells - 2), cells - 2)
        found = two_way_interval(slope, weights, logs, about)
        hits += found.low <= 1.0 <= found.high
    return hits / trials


@pytest.mark.parametrize(("cells", "passes"), [(4, 3), (7, 3), (12, 3), (6, 5)])
@pytest.mark.parametrize(("line", "tilt"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.03), (0.03, 0.02)])
def test_intervals_hold_whichever_of_cells_and_passes_differ(cells: int, passes: int, line: float, tilt: float) -> None:
    """600 trials: 2 % is more than two standard errors of the coverage."""
    found = coverage(cells, passes, line=line, noise=0.03, tilt=tilt)
    assert 0.90 <= found <= 0.99, found


def test_forgetting_the_passes_would_be_seen() -> None:
    """The check itself: the line's interval alone covers far less where passes differ in slope."""
    rng = np.random.default_rng(1)
    x = np.linspace(-2, 2, 8)
    weights = x / (x @ x)
    hits = 0
    for _ in range(300):
        logs = x[:, None] * (1 + 0.05 * rng.standard_normal(3)) + 0.01 * rng.standard_normal((8, 3))
        slope = float(weights @ logs.mean(axis=1))
        residuals = logs.mean(axis=1) - logs.mean() - slope * x
        half = 2.447 * np.sqrt(residuals @ residuals / 6 * (weights @ weights))
        hits += abs(slope - 1) <= half
    assert hits / 300 < 0.6


def test_one_pass_needs_more_than_three_cells() -> None:
    logs = np.arange(3.0)[:, None]
    assert np.isnan(two_way_interval(1.0, np.array([-0.5, 0.0, 0.5]), logs, Spread(0.1, 1)).low)


def test_a_wild_pass_is_pulled_in_and_the_others_are_left_alone() -> None:
    logs = 0.01 * np.random.default_rng(0).standard_normal((20, 5))
    wild = logs.copy()
    wild[3, 2] += 1.0
    found = tamed(wild)
    assert abs(found[3, 2]) < 0.1
    others = np.ones(wild.shape, bool)
    others[3] = False
    assert np.allclose(found[others], logs[others], atol=0.02)


def test_gradient_is_that_of_a_known_function() -> None:
    at = np.array([0.3, -1.2, 2.0])
    assert gradient(lambda v: float(np.sin(v[0]) + v[1] * v[2]), at) == pytest.approx(
        [np.cos(0.3), 2.0, -1.2], rel=1e-6
    )


def test_steps_are_found_and_not_made_up() -> None:
    rng = np.random.default_rng(5)
    x = np.log(np.geomspace(1, 4096, 13))
    straight = [growth.steps(x, x + 0.02 * rng.standard_normal(13), 0.02) for _ in range(100)]
    assert sum(map(bool, straight)) <= 5
    found = [growth.steps(x, x + 0.4 * (x > 4) + 0.02 * rng.standard_normal(13), 0.02) for _ in range(100)]
    assert sum(len(places) == 1 and abs(places[0] - 4) < 0.7 for places in found) >= 95


def test_a_small_step_is_none() -> None:
    x = np.log(np.geomspace(1, 4096, 13))
    assert growth.steps(x, x + 0.05 * (x > 4), 0.0) == ()
