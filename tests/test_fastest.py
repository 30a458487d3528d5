"""Who is fastest, on planted times: the order turns where it was planted, and what overlaps is not told apart."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from analysis.page import fastest


def steps(times: dict[str, Any], half: float = 0.01, **fixed: Any) -> pd.DataFrame:
    """A step of every series at n = 1, 10, 100, 1000, with intervals of so much of the time on either side."""
    known = {
        "dtype": "float32", "layers": "4-8-2", "activation": "tanh", "loss": "mse", "depth": 2, "width": 8, "axis": "examples",
    }  # fmt: skip
    rows = [
        {**known, **fixed, "series": name, "n": n, "time_s": law(n)}
        for name, law in times.items()
        for n in (1, 10, 100, 1000)
    ]
    found = pd.DataFrame(rows)
    return found.assign(ci_low_s=found["time_s"] * (1 - half), ci_high_s=found["time_s"] * (1 + half))


#: They cross at n = 40; the third is slowest everywhere.
CROSSING = {"A": lambda n: 10.0 + n, "B": lambda n: 30.0 + 0.5 * n, "C": lambda n: 100.0 + 2 * n}


def test_the_order_turns_where_it_was_planted() -> None:
    found = fastest.order(steps(CROSSING), "examples")
    assert found
    assert [(one.leaders, one.start.size, one.end.size) for one in found.stretches] == [
        (("A",), 1, 10),
        (("B",), 100, 1000),
    ]
    assert fastest.told(found) == ("A for n from 1 to 10, B for n from 100 to 1,000 (layers 4-8-2, tanh, float32)")
    start = found.stretches[0].start
    assert start.next == "B"
    assert start.ratio
    assert start.ratio.value == pytest.approx(30.5 / 11)
    # half² = 2 · half_of_one², on the log scale
    assert start.ratio.high / start.ratio.value == pytest.approx((1.01 / 0.99) ** (2**0.5 / 2))


def test_what_overlaps_is_not_told_apart() -> None:
    """At n = 10 the times are 20 and 35; intervals of 60 % overlap there, and at n = 1, 11 and 30.5, too."""
    wide = fastest.order(steps(CROSSING, half=0.6), "examples")
    assert wide
    assert all(one.leaders != ("A",) for one in wide.stretches)
    assert "(intervals overlap)" in fastest.told(wide)
    same = fastest.order(steps({"A": lambda n: 1.0 * n, "B": lambda n: 1.001 * n}), "examples")
    assert same
    assert [(one.leaders, one.start.ratio) for one in same.stretches] == [(("A", "B"), None)]
    assert fastest.tally(steps({"A": lambda n: 1.0 * n, "B": lambda n: 1.001 * n})) == fastest.Tally(
        4, (("A", 0), ("B", 0)), 4
    )


def test_an_unknown_interval_tells_nobody_apart() -> None:
    found = fastest.order(steps(CROSSING).assign(ci_low_s=float("nan"), ci_high_s=float("nan")), "examples")
    assert found
    assert [one.leaders for one in found.stretches] == [("A", "B", "C")]


def test_dtypes_are_not_compared_with_each_other() -> None:
    both = pd.concat([steps(CROSSING), steps({"A half": lambda n: 0.1 * n}, dtype="float16")])
    found = fastest.order(both, "examples")
    assert found
    assert {name for one in found.stretches for name in one.leaders} == {"A", "B"}
    assert fastest.tally(both) == fastest.Tally(4, (("A", 2), ("B", 2), ("C", 0)), 0)


def test_all_need_not_share_a_step() -> None:
    """The third series has no size in common with the others: an order of two, and no tally."""
    apart = pd.concat([steps({k: CROSSING[k] for k in "AB"}), steps({"C": CROSSING["C"]}, layers="4-9-2")])
    found = fastest.summary(apart)
    assert [text for _, text in found["orders"]] == [fastest.told(found["orders"][0][0])]
    assert found["tally"] is None


def test_one_series_alone_is_not_compared() -> None:
    alone = steps({"A": lambda n: 1.0 * n})
    assert fastest.summary(alone) == {"orders": [], "tally": None}
    assert fastest.summary(alone.iloc[:0]) == {"orders": [], "tally": None}
