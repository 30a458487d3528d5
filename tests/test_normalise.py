"""Normalised times: what the machine did to a cell is divided out, whichever way it did it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import cells, load
from analysis.normalise import IDENTITY, kept, normalise, quiet
from tests import planted_comparison

CEILING, USUAL = 1e11, 1e-3
ROUNDS = 20


def entries(
    share: float,
    *,
    speed: np.ndarray,
    disturbed: np.ndarray,
    ceiling: float | None = CEILING,
    kernels: tuple[str, ...] = ("product", "objects"),
) -> pd.DataFrame:
    """One cell that reaches ``share`` of the ceiling, a row for each pass: the machine's ``speed`` in it, and for how large
    a part of it a neighbour makes objects take 1.7 times as long and products 1.05 times.
    """
    rng = np.random.default_rng(3)
    identity = dict.fromkeys(IDENTITY, "x") | {"device": "cpu", "n": 1}
    rows = []
    for i, (pace, part) in enumerate(zip(speed, disturbed, strict=True)):
        busy = np.arange(ROUNDS) < part * ROUNDS
        noise = np.exp(0.003 * rng.standard_normal((3, ROUNDS)))
        slower = np.where(busy, 1.05**share * 1.7 ** (1 - share), 1.0) * pace
        seconds = USUAL * slower * noise[0]
        references = {
            "product": 1e-4 * pace * np.where(busy, 1.05, 1.0) * noise[1],
            "objects": 2e-4 * pace * np.where(busy, 1.7, 1.0) * noise[2],
        }
        rows.append(
            identity
            | {
                "pass": i + 1,
                "operations_product": share * USUAL * CEILING,
                "ceiling_flops": ceiling,
                "raw_s": float(np.median(seconds)),
                "seconds": seconds,
                "references": {kernel: references[kernel] for kernel in kernels},
            }
        )
    return pd.DataFrame(rows)


def spread(times: pd.Series) -> float:
    return float(np.log(times).std())


EVEN, CALM = np.ones(5), np.zeros(5)
SPEED = np.array([1.0, 1.1, 0.95, 1.0, 1.05])
PARTS = np.array([0.0, 0.6, 0.3, 0.8, 0.1])
#: The third pass has no quiet moment at all.
THROUGHOUT = np.array([0.0, 0.2, 1.0, 0.0, 0.5])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_clock_is_divided_out(share: float) -> None:
    found = normalise(entries(share, speed=SPEED, disturbed=CALM))
    assert spread(found["raw_s"]) > 0.04
    assert spread(found["time_s"]) < 0.006
    assert found["time_s"].median() == pytest.approx(USUAL, rel=0.02)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_disturbance_that_leaves_quiet_moments_does_not_count(share: float) -> None:
    found = normalise(entries(share, speed=EVEN, disturbed=PARTS))
    assert spread(found["time_s"]) < 0.006
    assert not found["disturbed"].any()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_disturbance_throughout_is_marked_and_divided_out_by_the_share_of_the_ceiling(share: float) -> None:
    found = normalise(entries(share, speed=EVEN, disturbed=THROUGHOUT))
    assert found["disturbed"].tolist() == [False, False, True, False, False]
    assert found["weight"].iloc[0] == pytest.approx(share, abs=0.1)
    assert spread(found["time_s"]) < 0.05


def test_disturbed_passes_do_not_count_where_two_others_remain() -> None:
    found = normalise(entries(0.3, speed=EVEN, disturbed=THROUGHOUT))
    assert kept(found)["pass"].tolist() == [1, 2, 4, 5]
    few = normalise(entries(0.3, speed=EVEN[:3], disturbed=np.array([0.0, 1.0, 1.0])))
    assert kept(few)["pass"].tolist() == [1, 2, 3]


def test_without_a_ceiling_a_cell_follows_the_objects() -> None:
    assert normalise(entries(0.0, speed=EVEN, disturbed=CALM, ceiling=None))["weight"].tolist() == [0.0] * 5


def test_with_the_product_alone_there_is_nothing_to_weigh() -> None:
    found = normalise(entries(1.0, speed=SPEED, disturbed=CALM, kernels=("product",)))
    assert found["weight"].tolist() == [1.0] * 5
    assert spread(found["time_s"]) < 0.006


def test_without_kernels_raw_seconds_stand_in() -> None:
    found = normalise(entries(0.5, speed=SPEED, disturbed=CALM, kernels=()))
    assert found["time_s"].tolist() == found["raw_s"].tolist()
    assert found["weight"].isna().all()


def test_quiet_is_the_mean_of_the_fastest_one_in_five_three_at_most() -> None:
    assert quiet(np.array([3.0, 1.0, 2.0])) == pytest.approx(0.0)
    assert quiet(np.arange(1, 11.0)) == pytest.approx(np.log([1, 2]).mean())
    assert quiet(np.arange(1, 101.0)) == pytest.approx(np.log([1, 2, 3]).mean())


def test_memory_that_a_disturbed_pass_told_is_kept(tmp_path: Path) -> None:
    run = load.load([planted_comparison.write(tmp_path) / "base"])
    found = cells.table(run.entries.assign(disturbed=run.entries["pass"] == 1))
    assert (found["peak_bytes"] > 0).all()
    assert (found["passes"] == 5).all()
