"""Machines that disagree are named, and seldom one that does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from analysis import odd_machines
from analysis.odd_machines import THRESHOLD, compare, process_effects

FLEETS = 40


def processes(
    rng: np.random.Generator,
    machines: Sequence[str],
    *,
    series: int = 3,
    passes: int = 5,
    cells: int = 20,
    process: float = 0.015,
    machine: float = 0.0,
    odd: dict[str, float] | None = None,
    missing: float = 0.0,
) -> pd.DataFrame:
    """Passes dealt to machines in turn; log-normal noise of processes, cells (1 %) and machines; ``odd`` are factors."""
    effect = {name: machine * rng.standard_normal() + np.log((odd or {}).get(name, 1.0)) for name in machines}
    rows = []
    for s in range(series):
        for p in range(passes):
            name = machines[(p + s) % len(machines)]
            level = effect[name] + process * rng.standard_normal()
            rows += [
                (f"s{s}", c, f"p{p}", name, 0.2 * c + s + level + 0.01 * rng.standard_normal())
                for c in range(cells)
                if rng.random() >= missing
            ]
    return pd.DataFrame(rows, columns=["series", "cell", "process", "machine", "log"])


def names(count: int) -> list[str]:
    return [f"m{i}" for i in range(count)]


def looks(count: int) -> int:
    return 2 if count == 2 else 2 * count


def disagreeing(rows: pd.DataFrame, count: int) -> set[str]:
    return {ratio.machine for ratio in compare(rows, looks(count)) if ratio.word == "disagrees"}


@pytest.mark.parametrize(("count", "machine"), [(2, 0.0), (4, 0.0), (4, 0.01), (8, 0.01)])
def test_few_fleets_name_a_machine_falsely(count: int, machine: float) -> None:
    """Machines that differ by 1 % (standard deviation) are within the threshold of 5 %."""
    rng = np.random.default_rng(count)
    false = sum(bool(disagreeing(processes(rng, names(count), machine=machine), count)) for _ in range(FLEETS))
    assert false <= 0.05 * FLEETS


def test_a_machine_at_the_threshold_is_seldom_named() -> None:
    """The hardest honest machine: exactly 5 % slower than the others."""
    rng = np.random.default_rng(7)
    rows = (processes(rng, names(3), odd={"m0": 1 + THRESHOLD}) for _ in range(FLEETS))
    assert sum("m0" in disagreeing(found, 3) for found in rows) <= 0.05 * FLEETS


def test_intervals_widen_with_every_look_at_them() -> None:
    """Bonferroni: twenty intervals that hold together at 95 % hold at 99.75 % each."""
    rows = processes(np.random.default_rng(1), names(3))
    degrees = 15 - (3 + 3 - 1)  # processes, less machines and series, which share their level
    half = [np.log(ratio.high / ratio.value) for ratio in (compare(rows, looks)[0].factor for looks in (1, 20))]
    assert half[1] / half[0] == pytest.approx(t.ppf(1 - 0.05 / 40, degrees) / t.ppf(0.975, degrees))


def test_judged_by_narrow_intervals_false_names_would_be_more() -> None:
    """The check can fail: judged at 50 % intervals a machine at the threshold is named far too often."""
    rng = np.random.default_rng(7)
    rows = (processes(rng, names(3), odd={"m0": 1 + THRESHOLD}) for _ in range(FLEETS))
    loose = sum(any(r.word == "disagrees" for r in at_level(found, 0.5)) for found in rows)
    assert loose > 0.1 * FLEETS


def at_level(rows: pd.DataFrame, level: float) -> list[odd_machines.Ratio]:
    found = sorted(rows["machine"].unique())
    model = odd_machines._fit(process_effects(rows), found)
    return [odd_machines._ratio(model, name, [o for o in found if o != name], level) for name in found]


@pytest.mark.parametrize(("count", "series", "least"), [(3, 3, 0.8), (5, 6, 0.9)])
def test_a_machine_ten_per_cent_slower_is_found_and_it_alone(count: int, series: int, least: float) -> None:
    rng = np.random.default_rng(11)
    found = [
        disagreeing(processes(rng, names(count), series=series, odd={"m1": 1.1}, missing=0.1), count)
        for _ in range(FLEETS // 2)
    ]
    assert np.mean(["m1" in one for one in found]) >= least
    assert np.mean([bool(one - {"m1"}) for one in found]) <= 0.05


def test_the_odd_one_does_not_pull_the_others_yardstick() -> None:
    """Of three, one far off: the others would each seem faster than the mean of the rest."""
    rows = processes(np.random.default_rng(3), names(3), passes=6, odd={"m2": 1.6})
    by_name = {ratio.machine: ratio for ratio in compare(rows, 6)}
    assert {name for name, ratio in by_name.items() if ratio.word == "disagrees"} == {"m2"}
    assert by_name["m0"].others == ("m1",)
    assert by_name["m2"].factor.value == pytest.approx(1.6, rel=0.03)


def test_intervals_cover_a_machines_ratio() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(FLEETS):
        ratio = compare(processes(rng, names(3), odd={"m0": 1.02}), 1)[0]
        hits += ratio.factor.low <= 1.02 <= ratio.factor.high
    assert hits >= 0.88 * FLEETS


def test_of_two_both_are_named() -> None:
    rows = processes(np.random.default_rng(1), names(2), odd={"m0": 1.2})
    assert disagreeing(rows, 2) == {"m0", "m1"}


def test_too_little_is_told_as_such() -> None:
    rng = np.random.default_rng(1)
    alone = compare(processes(rng, names(1)), 0)
    assert [(ratio.word, ratio.why) for ratio in alone] == [("alone", "it is the only machine of its class")]
    once = compare(processes(rng, names(3), series=1, passes=3), 6)  # a machine has one pass: it may be either
    assert all("too few passes" in ratio.why and np.isnan(ratio.factor.low) for ratio in once)
    apart = processes(rng, names(2), series=2, passes=4)
    apart["machine"] = np.where(apart["series"] == "s0", "m0", "m1")
    assert all("measured nothing that" in ratio.why for ratio in compare(apart, 2))


def test_a_few_wild_cells_do_not_make_an_odd_machine() -> None:
    rows = processes(np.random.default_rng(2), names(4), passes=8)
    wild = (rows["machine"] == "m0") & (rows["cell"] % 4 == 0)  # a quarter of its cells, three times as long
    assert not disagreeing(rows.assign(log=rows["log"] + np.log(3) * wild), 4)


def test_effects_of_processes_that_miss_cells() -> None:
    """Cells differ by e^0.2 each: a process without the large ones must not seem faster."""
    rows = processes(np.random.default_rng(4), names(3), process=0.0, odd={"m0": 1.1})
    cut = rows[(rows["machine"] != "m0") | (rows["cell"] < 8)]
    effects = process_effects(cut).groupby("machine")["effect"].mean()
    assert effects["m0"] - effects[["m1", "m2"]].mean() == pytest.approx(np.log(1.1), abs=0.01)
