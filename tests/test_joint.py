"""One law for machines of several classes, on planted truth: coefficients, their intervals, and classes left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import cells as cell_table
from analysis import joint, laws, load
from analysis.costs import costs
from analysis.hypotheses import declared
from tests import planted
from tests.planted import Host, Noise
from tests.test_machines import EPYC, SMALL, XEON

ARM = EPYC | {"cpu_model": "Altra"}
#: Of ``planted.additive``: fixed, n·m, n·u·p, m.
PRICES = np.array([2e-5, 7e-11, 3e-10, 1e-9])
REFERENCE = 1e-4
HOSTS = [
    Host("a1", (1,), facts=EPYC),
    Host("a2", (2,), facts=EPYC),
    Host("b1", (3,), facts=XEON),
    Host("b2", (4,), facts=XEON),
    Host("c1", (5,), facts=ARM),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Entries of five machines of three classes; times are planted anew by ``measured``."""
    folder = tmp_path_factory.mktemp("joint")
    return load.load([planted.fleet(folder, HOSTS, planted.additive, seed=1, chosen=planted.RANGE)]).entries


def measured(base: pd.DataFrame, rng: np.random.Generator, differ: float = 0.05, noise: float = 0.01) -> pd.DataFrame:
    """Machines differ in every price by ``differ`` (log, standard deviation), cells by ``noise``."""
    numbers = {name: base[name].to_numpy(float) for name in ("n", "m", "u", "p")}
    n, m, u, p = numbers.values()
    terms = np.column_stack([np.ones_like(n), n * m, n * u * p, m])
    own = {name: np.exp(differ * rng.standard_normal(4)) for name in sorted(base["machine"].unique())}
    prices = PRICES * np.stack([own[name] for name in base["machine"]])
    return base.assign(time_s=(terms * prices).sum(axis=1) * np.exp(noise * rng.standard_normal(len(base))))


def additive_fit(entries: pd.DataFrame) -> laws.Choice:
    """The additive law fitted to all cells of all machines, with draws."""
    frame = joint.dimensionless(entries)
    table = cell_table.table(frame)
    (law,) = [law for law in declared() if law.name == "additive"]
    fit = laws.fit_law(law, laws.Parts(table, table.iloc[:0], table.iloc[:0]))
    return laws.with_draws(laws.Choice((), fit, "", fit), frame, table, 200)


def test_joint_coefficients_are_covered_as_often_as_said(base: pd.DataFrame) -> None:
    rng = np.random.default_rng(8)
    truth = PRICES / REFERENCE / [1, 3, 1, 1]  # a multiply-add is a third of a step's price for one
    hits = []
    for _ in range(40):
        found = costs(additive_fit(measured(base, rng)), "step", base)
        hits.append([c.seconds.low <= t <= c.seconds.high for c, t in zip(found, truth, strict=True)])
    assert np.mean(hits) >= 0.88
    assert np.mean(hits) < 1.0  # wide enough to always hold would be no interval


def test_intervals_tell_how_machines_differ_not_passes(base: pd.DataFrame) -> None:
    """The same spread of machines gives the same width, however often each measures."""
    rng = np.random.default_rng(9)
    once = measured(base, rng, differ=0.1, noise=0.0)
    often = pd.concat([once, *(once.assign(**{"pass": once["pass"] + 10 * i}) for i in range(1, 5))], ignore_index=True)
    widths = [
        np.log([c.seconds.high / c.seconds.low for c in costs(additive_fit(entries), "step", base)])
        for entries in (once, often)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


def test_one_law_is_found_and_predicts_every_class(base: pd.DataFrame) -> None:
    (found,) = joint.joint(measured(base, np.random.default_rng(1), differ=0.02))
    assert found.machines == 5
    assert found.verdict.word == "refuted"  # n·m·p is not how it was planted
    assert found.verdict.choice.winner is not None
    assert found.verdict.choice.winner.law.name == "additive"
    exponent = found.verdict.exponents["n"]
    assert exponent.ci_low is not None
    assert exponent.ci_high is not None
    assert exponent.ci_low <= 1 <= exponent.ci_high
    assert [error.word for error in found.errors] == ["supported"] * 3
    assert all(error.left_out_median < 0.06 for error in found.errors)


def test_a_class_that_follows_another_law_is_not_predicted(base: pd.DataFrame) -> None:
    rng = np.random.default_rng(2)
    entries = measured(base, rng, differ=0.02)
    other = entries["machine"] == "c1"
    n, u, p = (entries[name].astype(float) for name in ("n", "u", "p"))
    entries["time_s"] += other * n * u * p * 3e-9  # its activations cost eleven times as much
    (found,) = joint.joint(entries)
    by_class = {error.group: error for error in found.errors}
    odd = by_class[str(entries.loc[other, "machine_class"].iloc[0])]
    assert odd.word == "refuted"
    assert odd.slower > 1.3


def test_a_class_is_asked_of_a_law_that_has_not_seen_it(base: pd.DataFrame) -> None:
    """Whatever its own times are, they change nothing of what the others say."""
    entries = measured(base, np.random.default_rng(5), differ=0.02)
    own = entries["machine"] == "c1"
    tripled = entries.assign(time_s=np.where(own, 3 * entries["time_s"], entries["time_s"]))
    group = str(entries.loc[own, "machine_class"].iloc[0])
    before, after = (
        next(error for error in joint.joint(found)[0].errors if error.group == group) for found in (entries, tripled)
    )
    assert after.left_out_law == before.left_out_law
    assert after.slower == pytest.approx(3 * before.slower)


@pytest.mark.parametrize(
    ("median", "p90", "word"), [(0.05, 0.2, "supported"), (0.05, 0.5, "inconclusive"), (0.3, 0.6, "refuted")]
)
def test_nine_cells_in_ten_support_and_half_of_them_refute(median: float, p90: float, word: str) -> None:
    assert joint._word(median, p90) == word


def test_three_machines_are_enough_for_intervals(base: pd.DataFrame) -> None:
    three = base[base["machine"].isin(["a1", "b1", "c1"])]
    (found,) = joint.joint(measured(three, np.random.default_rng(3)))
    assert found.enough and found.machines == joint.ENOUGH
    assert all(np.isfinite(cost.seconds.low) for cost in found.costs)


def test_ceilings_are_told_in_the_same_unit_as_times(base: pd.DataFrame) -> None:
    """Operations that a ceiling would do in the time of a cell are as many before as after, and bytes."""
    ceilings = {"ceiling_flops": 3e10, "bandwidth_bytes_per_s": 2e10}
    entries = scaled_references(base, "c1", 2.0).assign(**ceilings)
    frame = joint.dimensionless(entries)
    both = frame.merge(entries, on=["machine", "layers", "activation", "n"], suffixes=("", "_s"))
    assert len(both) == len(frame) and frame["ceiling_flops"].nunique() > 1
    for ceiling, value in ceilings.items():
        assert (both["time_s"] * both[ceiling]).to_numpy() == pytest.approx((both["time_s_s"] * value).to_numpy())


def test_the_mean_machine_counts_every_machine_once(base: pd.DataFrame) -> None:
    entries = scaled_references(base, "c1", 2.0)
    more = entries[entries["machine"] == "c1"].assign(**{"pass": 99})
    once, often = (joint.dimensionless(found) for found in (entries, pd.concat([entries, more], ignore_index=True)))
    assert often["time_s"].to_numpy() == pytest.approx(once["time_s"].to_numpy())


def scaled_references(entries: pd.DataFrame, machine: str, factor: float) -> pd.DataFrame:
    """A machine whose reference kernels take so much longer."""
    own = entries["machine"] == machine
    longer = [
        {name: times * (factor if o else 1.0) for name, times in found.items()}
        for o, found in zip(own, entries["references"], strict=True)
    ]
    return entries.assign(references=pd.Series(longer, entries.index))


def test_too_few_machines_have_no_intervals(base: pd.DataFrame) -> None:
    two = base[base["machine"].isin(["a1", "b1"])]
    (found,) = joint.joint(measured(two, np.random.default_rng(3)))
    assert not found.enough
    assert found.verdict.word == "inconclusive"
    assert "too few" in found.verdict.reason
    assert all(exponent.ci_low is None for exponent in found.verdict.exponents.values())
    assert all(np.isnan(cost.seconds.low) for cost in found.costs)
    assert all(np.isfinite(error.left_out_median) for error in found.errors)


def test_one_class_or_no_reference_has_no_joint_law(base: pd.DataFrame) -> None:
    assert joint.joint(base[base["machine_class"] == base["machine_class"].iloc[0]]) == []
    bare = base.assign(references=base["references"].map(lambda _: {}))
    assert joint.joint(bare) == []


def test_laws_with_caches_are_tried_only_where_classes_have_the_same(base: pd.DataFrame) -> None:
    sizes = base["machine_class"].map({group: i * 1e6 for i, group in enumerate(base["machine_class"].unique(), 1)})
    frame = joint.dimensionless(base.assign(L1=3e4, L2=sizes))
    assert frame["L2"].isna().all()
    assert (frame["L1"] == 3e4).all()


def unlike_speeds(folder: Path) -> pd.DataFrame:
    """A class that multiplies at half the speed and does everything else as fast; its kernels say so."""

    def slow_products(f: dict[str, object]) -> float:
        n, m, u, p = (float(f[key]) for key in ("n", "m", "u", "p"))  # type: ignore[arg-type]
        return 2e-5 + n * (2 * 7e-11 * m + 3e-10 * u * p) + 1e-9 * m

    hosts = [Host("a", (1,), facts=EPYC), Host("b", (2,), facts=XEON, law=slow_products)]
    quiet = Noise(0.002, 0.002)
    entries = load.load([planted.fleet(folder, hosts, planted.additive, seed=1, noise=quiet, chosen=SMALL)]).entries
    slow = entries["machine"] == "b"
    entries["references"] = [
        found | {"product": found["product"] * 2} if s else found
        for s, found in zip(slow, entries["references"], strict=True)
    ]
    ceiling = np.where(slow, 0.5, 1.0) * 6 / 7e-11  # a step of products alone, 6 operations a weight, reaches it
    share = entries["operations_product"] / entries["raw_s"] / ceiling
    return entries.assign(ceiling_flops=ceiling, weight=share.clip(upper=1.0))


def test_two_kernels_predict_a_class_with_other_products_better_than_one(tmp_path: Path) -> None:
    entries = unlike_speeds(tmp_path)
    off = {}
    for name in ("product", "both"):
        frame = joint.dimensionless(entries, name)
        logs = np.log(frame.pivot_table(index=["layers", "activation", "n"], columns="machine", values="time_s"))
        off[name] = float((logs["b"] - logs["a"]).abs().median())
    assert off["both"] < 0.6 * off["product"]


def test_machines_alike_but_for_their_clock_agree_by_every_calibration(tmp_path: Path) -> None:
    hosts = [Host("a", (1,), facts=EPYC), Host("b", (2,), slower=1.7, facts=XEON)]
    still = Noise(1e-6, 1e-6)
    entries = load.load([planted.fleet(tmp_path, hosts, planted.additive, seed=1, noise=still, chosen=SMALL)]).entries
    for name in joint.CALIBRATIONS:
        frame = joint.dimensionless(entries, name)
        times = frame.pivot_table(index=["layers", "activation", "n"], columns="machine", values="time_s")
        assert (times["b"] / times["a"]).to_numpy() == pytest.approx(1.0, rel=1e-3)
