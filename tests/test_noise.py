"""The smallest change told apart, against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.noise import smallest_change


@pytest.mark.parametrize("passes", [3, 10])
def test_half_of_changes_of_that_size_are_seen(passes: int) -> None:
    rng = np.random.default_rng(0)
    change = np.log1p(smallest_change(0.02, passes))
    a = 0.02 * rng.standard_normal((4000, passes))
    b = 0.02 * rng.standard_normal((4000, passes))
    seen = (stats.ttest_ind(a, b + change, axis=1).pvalue < 0.05).mean()
    false = (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert 0.4 < seen < 0.65  # at the threshold itself about half
    assert false == pytest.approx(0.05, abs=0.01)
