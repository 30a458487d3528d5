"""Normalised times: what the machine did to a cell is divided out, whichever kernel shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.normalise import IDENTITY, normalise

CEILING = 1e11
#: What a busy neighbour does: products 1.05 times as long, the interpreter 1.5 times.
PRODUCT = np.array([1.0, 1.05, 1.02, 1.0, 1.1])
OBJECTS = np.array([1.0, 1.5, 0.9, 1.2, 1.0])


def entries(
    share: float, ceiling: float | None = CEILING, kernels: tuple[str, ...] = ("product", "objects")
) -> pd.DataFrame:
    """One cell that reaches ``share`` of the ceiling, in five passes of four rounds."""
    usual = 1e-3
    slower = PRODUCT**share * OBJECTS ** (1 - share)
    times = {"product": 1e-4 * PRODUCT, "objects": 2e-4 * OBJECTS}
    identity = dict.fromkeys(IDENTITY, "x") | {"device": "cpu", "n": 1}
    return pd.DataFrame(
        identity
        | {
            "pass": i + 1,
            "operations_product": share * usual * CEILING,
            "ceiling_flops": ceiling,
            "raw_s": usual * slower[i],
            "seconds": np.full(4, usual * slower[i]),
            "references": {kernel: np.full(4, times[kernel][i]) for kernel in kernels},
        }
        for i in range(len(PRODUCT))
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cell_follows_the_kernels_by_its_share_of_the_ceiling(share: float) -> None:
    found = normalise(entries(share))
    assert found["weight"].iloc[0] == pytest.approx(share, abs=0.06)
    assert np.log(found["time_s"]).std() < 0.01
    assert np.log(found["raw_s"]).std() > 3 * np.log(found["time_s"]).std()
    assert found["time_s"].median() == pytest.approx(1e-3, rel=0.03)


def test_without_a_ceiling_a_cell_follows_the_objects() -> None:
    assert normalise(entries(0.0, ceiling=None))["weight"].tolist() == [0.0] * 5


def test_with_one_kernel_there_is_nothing_to_weigh() -> None:
    found = normalise(entries(1.0, kernels=("product",)))
    assert found["weight"].tolist() == [1.0] * 5
    assert np.log(found["time_s"]).std() < 1e-9


def test_without_kernels_raw_seconds_stand_in() -> None:
    found = normalise(entries(0.5, kernels=()))
    assert found["time_s"].tolist() == found["raw_s"].tolist()
    assert found["weight"].isna().all()
