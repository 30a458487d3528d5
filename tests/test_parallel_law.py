"""The law of data parallelism on planted rows: coefficients come out, intervals cover, words follow the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.charts import Chart, Line
from analysis.experiments import Claimed, Section, Told, parallel, parallel_series, section
from analysis.experiments import parallel_law as law
from analysis.experiments import parallel_scaling as scaling
from analysis.experiments.found import Found
from analysis.experiments.parallel_law import Measured
from backprop_files import UserError
from tests.planted_parallel import USUAL, Truth, found, rows

NAMES = ("alpha_s", "beta_s", "t0_s", "a_s", "b_s", "c_s")


def measured(truth: Truth = USUAL, **how: Any) -> Measured:
    (one,) = law.measured(found(truth, **how))
    return one


@cache
def words(truth: Truth, **how: Any) -> list[str]:
    return [claim.cells["torch-ddp"].word for claim in judged(truth, **how)]


def judged(truth: Truth, **how: Any) -> list[Claimed]:
    """The claims alone: nothing is drawn."""
    return parallel.claims(parallel_series.series(found(truth, **how)))


def drawn(truth: Truth = USUAL, **how: Any) -> Section:
    return section(found(truth, **how))


# --- recovery and coverage ------------------------------------------------------------------------------------------


def test_without_noise_every_coefficient_comes_out() -> None:
    truth = Truth()
    fit = law.fit(measured(launch=0.0, noise=0.0).cells)
    assert fit is not None
    for name in NAMES:
        assert getattr(fit, name) == pytest.approx(getattr(truth, name), rel=1e-6), name
    assert fit.contention == pytest.approx({2: 1.1, 4: 1.1})


def test_alpha_and_beta_come_from_the_sweep_alone() -> None:
    slow = Truth(hidden=0.9)  # whatever overlap makes of a step's communication
    for name in ("alpha_s", "beta_s"):
        one, other = (
            law.fit(measured(launch=0.0, noise=0.0).cells),
            law.fit(measured(slow, launch=0.0, noise=0.0).cells),
        )
        assert getattr(one, name) == getattr(other, name)


def covered(runs: int, narrower: float = 1.0) -> dict[str, float]:
    """Of planted runs whose launches differ, by coefficient the share whose interval holds the truth."""
    truth, hits = Truth(), dict.fromkeys(NAMES, 0)
    for seed in range(runs):
        one = measured(truth, seed=seed, passes=4, launch=0.02)
        fits = [law.fit(cells) for cells in (one.cells, *one.without)]
        for name in NAMES:
            value, *others = (math.log(getattr(fit, name)) for fit in fits)
            interval = law.jackknife(value, np.array(others))
            half = (interval.high - interval.low) / 2 * narrower
            hits[name] += abs(math.log(getattr(truth, name)) - value) <= half
    return {name: count / runs for name, count in hits.items()}


def test_intervals_over_passes_cover_what_was_planted() -> None:
    shares = covered(50)
    assert min(shares.values()) >= 0.88, shares
    assert 0.92 <= np.mean(list(shares.values())) <= 1.0, shares


def test_intervals_that_are_too_narrow_are_seen_not_to_cover() -> None:
    assert np.mean(list(covered(20, narrower=0.3).values())) < 0.8


def test_an_interval_of_a_coefficient_is_the_jackknife_over_passes() -> None:
    """Four passes that differ by factors alone: α moves with them, and its interval is Student's t over their logs."""
    there = found(passes=4, launch=0.0, noise=0.0)
    factors = {1: 1.0, 2: 1.1, 3: 1.2, 4: 1.05}
    rows = [{**row, "seconds": [factors[row["pass"]] * s for s in row["seconds"]]} for row in there.rows]
    (one,) = law.measured(replace(there, rows=rows))
    interval = law.coefficient(one, "alpha_s")
    logs = np.log(list(factors.values()))
    without = [np.median(np.delete(logs, i)) for i in range(4)]
    error = math.sqrt(3 / 4 * np.sum((without - np.mean(without)) ** 2)) * law.OF_MEDIAN
    assert math.log(interval.value / Truth().alpha_s) == pytest.approx(np.median(logs))
    assert math.log(interval.high / interval.low) == pytest.approx(2 * 3.1824463 * error)


def test_one_pass_has_no_interval_and_no_verdict() -> None:
    one = measured(passes=1)
    assert math.isnan(law.coefficient(one, "alpha_s").low)
    made = drawn(passes=1)
    assert {claim.cells["torch-ddp"].word for claim in made.claims} == {"inconclusive"}
    assert "nan" not in " ".join(str(cell) for table in made.tables for row in table.rows for cell in row)


def test_a_pass_that_was_disturbed_is_outvoted() -> None:
    there = found(passes=4)
    slow = [{**row, "seconds": [5 * s for s in row["seconds"]]} if row["pass"] == 2 else row for row in there.rows]
    (one,) = law.measured(replace(there, rows=slow))
    fit = law.fit(one.cells)
    assert fit is not None
    assert fit.alpha_s == pytest.approx(Truth().alpha_s, rel=0.1)


# --- what the law says of cells it did not see ----------------------------------------------------------------------


def test_the_law_as_planted_is_supported_and_predicts_four_ranks_from_two() -> None:
    assert words(Truth(contention=1.0)) == ["supported", "supported", "supported", "supported", "refuted"]
    errors = np.abs(parallel_series.of_more_ranks(measured()))
    assert len(errors) == 12
    assert errors.max() < 0.06  # launches differ by 1 %, twice: those fitted, and those judged


def test_prediction_from_fewer_ranks_sees_nothing_of_more() -> None:
    there = found()
    twice = [{**row, "seconds": [2 * s for s in row["seconds"]]} if row["ranks"] == 4 else row for row in there.rows]
    (honest,), (doubled,) = law.measured(there), law.measured(replace(there, rows=twice))
    before, after = law.from_fewer(honest, 4), law.from_fewer(doubled, 4)
    assert (1 + after["error"].to_numpy()) * 2 == pytest.approx(1 + before["error"].to_numpy())
    assert np.median(after["error"]) == pytest.approx(-0.5, abs=0.05)


def test_prediction_against_arithmetic_of_its_own() -> None:
    """T(4) from the planted numbers, written out."""
    one = measured(launch=0.0, noise=0.0)
    cells = law.from_fewer(one, 4)
    cell = cells[(cells["layers"] == "64-512-512-10") & (cells["n"] == 1024)].iloc[0]
    m = 64 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    work = 2e-4 + 256 * (4e-11 * m + 3e-10 * 1024 * 4) + 1.5e-9 * m
    expected = 2 * (1.1 * work + 5e-5 * 2 + 4e-10 * 4 * m * 3 / 4)
    assert cell["time_s"] == pytest.approx(expected)
    assert cell["error"] == pytest.approx(0.0, abs=1e-6)


def test_examples_that_do_not_divide_are_those_of_the_slowest_rank() -> None:
    cells = measured().steps("step").head(1).assign(n=10.0, ranks=4)
    assert law.share(cells) == pytest.approx([3])


@pytest.mark.parametrize(
    ("truth", "best"),
    [
        (Truth(), "α·log2 k, cores shared"),
        (Truth(hops=lambda k: k - 1.0), "α·(k − 1), cores shared"),
        (Truth(hops=lambda k: math.log2(k) / max(1, k / 2), beta_s=1e-12), "α·log2 k, cores free"),
    ],
)  # fmt: skip
def test_another_all_reduce_is_seen(truth: Truth, best: str) -> None:
    one = measured(truth)
    assert law.holds_best(law.judge_forms(one)).form.name == best


def test_a_ring_is_told_and_what_grows_faster_still_refutes_the_law() -> None:
    def told(hops: Callable[[int], float]) -> Told:
        return next(c for c in judged(Truth(hops=hops)) if c.statement.startswith("an all-reduce")).cells["torch-ddp"]

    assert "The all-reduce grows rather as α·(k − 1)" in told(lambda k: k - 1.0).why
    assert told(lambda k: (k - 1.0) ** 2).word == "refuted"


def test_a_step_that_sends_layer_by_layer_is_told() -> None:
    one = measured(Truth(by_layer=6.0, alpha_s=3e-4))
    version = law.best_version(one)
    assert version.name == "by layer"
    assert law.coefficient(one, "by_layer", version=version).value == pytest.approx(6.0, rel=0.1)
    assert np.abs(parallel_series.of_steps(one, version=version)).max() < 0.06
    assert np.abs(parallel_series.of_more_ranks(one, version=version)).max() < 0.1
    assert np.median(np.abs(parallel_series.of_steps(one))) > 0.1


def test_a_step_that_waits_for_no_core_when_it_sends_is_told() -> None:
    free = Truth(by_layer=6.0, alpha_s=3e-4, hops=lambda k: math.log2(k) / max(1, k / 2), beta_s=1e-12)
    assert law.best_version(measured(free)).name == "by layer, cores free"


def test_the_declared_law_seldom_yields_where_it_holds() -> None:
    versions = [law.best_version(measured(seed=seed, launch=0.03)) for seed in range(10)]
    assert sum(version != law.AS_DECLARED for version in versions) <= 1


def test_a_form_needs_clear_evidence() -> None:
    """Under the declared form another is chosen in few of many runs."""
    wrong = sum(
        law.holds_best(law.judge_forms(measured(seed=seed, launch=0.05))).form != law.DECLARED for seed in range(30)
    )
    assert wrong <= 2


def test_compute_that_does_not_shrink_is_refuted_and_planted_contention_found() -> None:
    stuck = Truth(compute=lambda share, k: share * k**0.5)
    one = measured(stuck)
    exponent = scaling.shrinking(one)
    assert exponent.high < 0.9
    assert words(stuck)[3] == "refuted"
    crowded = law.fit(measured(Truth(contention=1.4)).cells)
    assert crowded is not None
    assert crowded.contention == pytest.approx({2: 1.4, 4: 1.4}, rel=0.04)


def test_a_law_that_is_wrong_is_refuted_and_a_right_one_hardly_ever() -> None:
    extra = Truth(compute=lambda share, k: share * (3.0 if k == 4 else 1.0))
    assert words(extra)[1] == "refuted"
    kinds = (parallel_series.of_steps, parallel_series.of_more_ranks, parallel_series.of_all_reduces)
    for seed in range(10):
        one = measured(Truth(contention=1.0), seed=seed, launch=0.03)
        assert "refuted" not in [parallel_series.errors_of(one, errors).word for errors in kinds]
        assert scaling.shrinking(one).high > 0.9


def test_noise_alone_refutes_nothing() -> None:
    assert "refuted" not in words(Truth(contention=1.0), seed=1, launch=0.3, noise=0.2)[:4]


# --- ranks that share cores, from two on one -----------------------------------------------------------------------

#: Sharing a core costs computing more than turns, hops less; gradients go round a ring.
SHARED = Truth(prices=(1.3, 0.4, 0.8), crowded=True, hops=lambda k: k - 1.0)


def test_prices_come_out_and_predict_four_ranks_on_two_cores() -> None:
    one = measured(SHARED, launch=0.0, noise=0.0)
    found_prices = law.priced(one.cells)
    assert found_prices is not None
    assert astuple(found_prices) == pytest.approx(SHARED.prices)
    assert parallel_series.of_more_ranks(one) == pytest.approx(0.0, abs=1e-6)
    assert law.crowded(one)["error"].to_numpy() == pytest.approx(0.0, abs=1e-6)
    # the law as declared, which knows of no prices, is off
    assert np.median(np.abs(parallel_series.of_more_ranks(one, version=law.AS_DECLARED))) > 0.1


def test_predicted_from_two_on_one_against_arithmetic_of_its_own() -> None:
    cells = law.from_fewer(measured(SHARED, launch=0.0, noise=0.0), 4)
    cell = cells[(cells["layers"] == "64-512-512-10") & (cells["n"] == 1024)].iloc[0]
    m = 64 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    work = 2e-4 + 256 * (4e-11 * m + 3e-10 * 1024 * 4) + 1.5e-9 * m
    expected = 2**1.3 * 1.1 * work + 2**0.4 * 5e-5 * 3 + 2**0.8 * 4e-10 * 4 * m * 3 / 4
    assert cell["time_s"] == pytest.approx(expected)
    assert cell["error"] == pytest.approx(0.0, abs=1e-6)


def test_with_noise_prices_predict_what_the_declared_law_cannot() -> None:
    one = measured(SHARED, launch=0.02)
    assert np.abs(parallel_series.of_more_ranks(one)).max() < 0.12
    assert words(SHARED)[1] == "supported"
    assert words(replace(SHARED, crowded=False))[1] != "supported"


def test_what_two_on_one_pay_by_layer_is_told_without_rows_of_four() -> None:
    one = measured(replace(SHARED, by_layer=4.0, alpha_s=3e-4))
    assert law.coefficient(one, "by_layer", version=law.for_more_ranks(one.cells)).value == pytest.approx(4.0, rel=0.1)
    assert np.abs(parallel_series.of_more_ranks(one)).max() < 0.1


def test_a_byte_that_costs_more_in_a_step_is_told_without_rows_of_four() -> None:
    one = measured(replace(SHARED, dearer=1.5, beta_s=4e-9, by_layer=1.0))
    few = one.cells[one.cells["ranks"] <= 2]
    assert law.for_more_ranks(few) == law.AS_FOUND_PRICED
    by_byte = law.coefficient(one, "by_byte", version=law.AS_FOUND_PRICED)
    assert by_byte.low < 1.5 < by_byte.high
    assert by_byte.value == pytest.approx(1.5, rel=0.1)
    assert np.abs(parallel_series.of_more_ranks(one)).max() < 0.1


def test_what_sending_costs_more_in_steps_on_a_shared_core_is_told_by_two_on_one() -> None:
    truth = replace(SHARED, dearer=1.0, beta_s=4e-9, alpha_s=3e-4, waits=0.5)
    one = measured(truth, launch=0.0, noise=0.0)
    fit = law.fit(one.cells[one.cells["ranks"] <= 2], version=law.AS_FOUND_PRICED)
    assert fit is not None
    # the step's own all-reduce waits, what a byte costs beside does not: 2^0.8·(2^0.5 + 1)/2
    assert 2**fit.prices.hop == pytest.approx(2 ** (0.4 + 0.5), rel=0.02)
    assert 2**fit.prices.byte == pytest.approx(2**0.8 * (2**0.5 + 1) / 2, rel=0.02)
    assert np.abs(parallel_series.of_more_ranks(one, version=law.AS_FOUND_PRICED)).max() < 0.02
    assert np.median(np.abs(parallel_series.of_more_ranks(one, version=law.AT_ONCE_PRICED))) > 0.1


def test_no_row_of_four_ranks_moves_what_is_predicted_of_them() -> None:
    there = found(SHARED)
    wild = np.random.default_rng(0)
    rows_ = [
        {**row, "seconds": [wild.lognormal(0, 2) * s for s in row["seconds"]]} if row["ranks"] == 4 else row
        for row in there.rows
    ]
    (honest,), (wrong,) = law.measured(there), law.measured(replace(there, rows=rows_))
    predicted = [
        (1 + cells["error"]) * cells["time_s"] for one in (honest, wrong) for cells in [law.from_fewer(one, 4)]
    ]
    assert predicted[0].to_numpy() == pytest.approx(predicted[1].to_numpy())


def test_launches_on_one_core_move_prices_and_no_other_fit() -> None:
    there = found(SHARED)
    rows_ = [{**row, "seconds": [3 * s for s in row["seconds"]]} if row["key"].startswith("torch-ddp/ranks2on1") else row for row in there.rows]  # fmt: skip # noqa: E501
    (honest,), (slow,) = law.measured(there), law.measured(replace(there, rows=rows_))
    assert law.fit(honest.cells) == law.fit(slow.cells)
    assert scaling.shrinking(honest) == scaling.shrinking(slow)
    assert scaling.hidden(honest) == scaling.hidden(slow)
    before, after = law.priced(honest.cells), law.priced(slow.cells)
    assert before is not None and after is not None
    for name in ("work", "hop", "byte"):
        assert getattr(after, name) - getattr(before, name) == pytest.approx(math.log2(3))


def test_where_no_core_was_shared_the_declared_law_predicts() -> None:
    one = measured()
    assert law.priced(one.cells) is None
    assert law.for_more_ranks(one.cells) == law.AS_DECLARED
    assert law.fit(one.cells, version=law.AT_ONCE_PRICED) is None
    assert not len(law.crowded(one))


def test_prices_have_their_table() -> None:
    made = section(found(SHARED, launch=0.0, noise=0.0))
    table = next(table for table in made.tables if table.header[1] == "ranks on cores")
    assert table.rows[0][1] == "2 on 1"
    assert table.rows[0][2].startswith("2.46")  # 2^1.3
    assert "from runs with 1 and 2" in " ".join(t.caption for t in made.tables)


# --- what ranks buy -------------------------------------------------------------------------------------------------


def test_efficiency_is_what_it_is_defined_as() -> None:
    one = measured(launch=0.0, noise=0.0)
    truth = Truth()
    for told in scaling.efficiencies(one):
        row = next(r for r in rows(launch=0.0, noise=0.0) if r.get("n") == told.n and r["kind"] == "step" and r["ranks"] == told.ranks and "-".join(map(str, r["layers"])) == told.network.layers and r["activation"] == told.network.activation)  # fmt: skip # noqa: E501
        single = {**row, "n": row["n"] if told.scaling == "strong" else row["n"] / told.ranks}
        ratio = truth.step("step", 1, single) / truth.step("step", told.ranks, row)
        expected = ratio / told.ranks if told.scaling == "strong" else ratio
        assert told.plain.value == pytest.approx(expected)
        assert told.allowed.value == pytest.approx(expected * max(1, told.ranks / 2))
    assert {told.scaling for told in scaling.efficiencies(one)} == {"strong", "weak"}


def test_what_overlap_hides_is_found_with_its_interval() -> None:
    one = measured(Truth(hidden=0.4))
    found_share = scaling.hidden(one)
    assert found_share.low <= 0.4 <= found_share.high
    assert words(Truth(hidden=0.4))[4] == "supported"
    assert words(Truth())[4] == "refuted"
    for told in scaling.overlaps(measured(Truth(hidden=0.4), launch=0.0, noise=0.0)):
        assert told.hidden.value == pytest.approx(0.4)
        assert told.saved_s.value == pytest.approx(0.4 * told.communication_s.value)


def test_parts_add_up_to_the_whole() -> None:
    one = measured(launch=0.0, noise=0.0)
    fit = law.fit(one.cells)
    assert fit is not None
    cells = one.steps("step")
    assert fit.seconds(cells) == pytest.approx(cells["time_s"].to_numpy())
    assert scaling.shares(cells, fit).sum(axis=1).to_numpy() == pytest.approx(np.ones(len(cells)))
    four = fit.parts(cells[cells["ranks"] == 4])
    # on two cores a rank waits as long as it works
    assert four["waiting"].to_numpy() == pytest.approx(
        (four["compute"] + four["replicated"] + four["contention"]).to_numpy()
    )


# --- pages ----------------------------------------------------------------------------------------------------------


def test_figures_draw_what_was_measured() -> None:
    made = drawn(launch=0.0, noise=0.0)
    by_key = {one.key: one.figure for one in made.figures}
    assert set(by_key) == {
        "parallel-strong", "parallel-weak", "parallel-efficiency", "parallel-all-reduce", "parallel-shares"
    }  # fmt: skip
    truth = Truth()
    points = [line for line in first_panel(by_key["parallel-all-reduce"]) if line.drawn == "points"]
    for k, line in zip((2, 4), points, strict=True):
        assert line.y == pytest.approx([1e3 * truth.sends(k, size) for size in line.x])
    measured_ms, ideal, by_law = (np.array(line.y) for line in first_panel(by_key["parallel-strong"])[:3])
    assert measured_ms == pytest.approx(by_law)
    assert ideal == pytest.approx(measured_ms[0] / np.array([1, 2, 2]))
    measured_ms, ideal = (np.array(line.y) for line in first_panel(by_key["parallel-weak"])[:2])
    assert ideal == pytest.approx(measured_ms[0] * np.array([1, 1, 2]))
    shares = by_key["parallel-shares"]
    assert isinstance(shares, Figure)
    bars = [bar for bar in shares.axes[0].patches if isinstance(bar, Rectangle)]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100 * 9)  # three networks, three numbers of ranks


def first_panel(chart: Figure | Chart) -> list[Line]:
    """What its first panel shows."""
    assert isinstance(chart, Chart)
    return list(chart.rows[0].panels[0].lines)


def test_every_table_has_rows_of_its_width() -> None:
    made = drawn()
    assert len(made.tables) == 9
    for table in made.tables:
        assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize(
    "drop",
    [
        lambda row: row["kind"] == "all_reduce",
        lambda row: row.get("variant") == "alone",
        lambda row: row.get("variant") == "in_turn",
        lambda row: row["ranks"] == 4,
        lambda row: row["ranks"] == 1,
        lambda row: row["ranks"] > 1,
        lambda row: row["kind"] == "step",
        lambda row: "strong" in row.get("scaling", ""),
    ],
    ids=[
        "no sweep",
        "none alone",
        "none in turn",
        "two at most",
        "no single rank",
        "single rank",
        "sweep only",
        "no strong",
    ],
)
def test_what_is_missing_is_left_out(drop: Callable[[dict[str, Any]], bool]) -> None:
    there = found()
    made = section(replace(there, rows=[row for row in there.rows if not drop(dict(row))]))
    assert made.lead
    text = " ".join([made.lead, *made.paragraphs, *(cell for t in made.tables for row in t.rows for cell in row)])
    assert "nan" not in text


def test_nothing_measured_is_said() -> None:
    made = section(Found("parallel", {}, {}, "now", [], []))
    assert "Nothing was measured" in made.lead


@pytest.mark.parametrize("broken", [{"ranks": "two"}, {"layers": "64"}, {"seconds": []}, {"m": None}])
def test_rows_of_another_form_are_one_line(broken: dict[str, Any]) -> None:
    there = found()
    with pytest.raises(UserError, match="experiment parallel, torch-ddp/ranks1/pass1: a row is of another form"):
        section(replace(there, rows=[{**there.rows[0], **broken}, *there.rows[1:]]))
