"""The repeatability table and the comparison of kernels, on planted noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import load, repeatability
from tests import planted
from tests.planted import Noise


def entries(tmp_path: Path, **noise: float) -> Any:
    benchmarks = planted.entries(planted.additive, seed=6, passes=20, noise=Noise(**noise))
    return load.load([planted.write(tmp_path / "x.json", benchmarks)]).entries


def test_spreads_are_those_planted(tmp_path: Path) -> None:
    found = repeatability.table(entries(tmp_path, between=0.02, within=0.0, drift=0.1))
    assert found["normal"].median() == pytest.approx(0.02, rel=0.15)
    assert found["raw"].median() == pytest.approx(np.hypot(0.1, 0.02), rel=0.15)
    assert set(found["passes"]) == {20}


def test_the_kernel_that_shares_the_drift_is_best(tmp_path: Path) -> None:
    rows = entries(tmp_path, between=0.005, within=0.0, drift=0.1)
    rng = np.random.default_rng(1)
    for references in rows["references"]:
        references["random"] = np.exp(rng.standard_normal()) * np.ones_like(references["product"])
    found = repeatability.comparison(rows)
    assert list(found.index) == ["objects", "none", "random"]
    assert found["all"]["objects"] < 0.01
    assert repeatability.draw(rows).axes


def test_what_the_harness_adds(tmp_path: Path) -> None:
    rows = entries(tmp_path)
    rows["started_at"] = np.arange(len(rows), dtype=float)
    measured = rows["seconds"].map(np.sum)
    assert repeatability.harness_share(rows.assign(wall_s=1.5 * measured)) == pytest.approx(0.5)


def test_memory_is_held_against_its_estimate(tmp_path: Path) -> None:
    rows = entries(tmp_path)
    assert np.isnan(repeatability.memory_share(rows))
    assert repeatability.memory_share(rows.assign(peak_bytes=rows["estimated_bytes"] * 0.4)) == pytest.approx(0.4)
