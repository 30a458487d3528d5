"""The experiment ``gradients``: planted truths get the right words, and a small run goes all the way to a section."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.experiments import Section, found, gradients
from analysis.experiments.found import Found
from analysis.pictures import picture
from backprop_files import UserError
from bench.experiments import Settings, find, run
from bench.experiments.gradients import BATCH, PROFILES

SIZES = (90, 1_260, 12_480, 49_536, 93_456, 151_200, 222_768)
PRODUCT_S = 1e-4
Cost = Callable[[float], float]


def planted(
    ratio: Cost = lambda m: 2.7,
    forward: Cost = lambda m: 1.7,
    passes: int = 3,
    overhead_s: float = 3e-6,
    reverse_overhead_s: float = 6e-6,
    noise: float = 0.02,
    seed: int = 0,
    disturbed: tuple[int, ...] = (),
) -> Found:
    """Rows of one library: the loss takes a fixed part and 5 ns a parameter, all gradients ``ratio(m)`` times as long and a
    fixed part of their own, forward passes ``forward(m)`` losses for each tangent, central differences two a parameter.  A
    process is slower than another by as much as its kernel; ``disturbed`` ones lose half their speed beside that.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(1, passes + 1):
        speed = 1 + 0.2 * rng.random()
        for m in SIZES:
            work = 5e-9 * m
            loss = overhead_s + work
            each = {
                "loss": (loss, m, 1),
                "reverse": (reverse_overhead_s + ratio(m) * work, m, 1),
                "forward": (overhead_s + (1 + forward(m)) * work, 1, m),
                "forward-batch": (overhead_s + BATCH * forward(m) * work, BATCH, math.ceil(m / BATCH)),
                "central": (8 * 2 * loss, 8, m / 8),
            }
            for method, (call_s, parameters, calls_in_all) in each.items():
                calls = min(math.ceil(calls_in_all), 20)
                slow = speed * (2.0 if number in disturbed else 1.0) * np.exp(noise * rng.standard_normal())
                rounds = calls * call_s * slow * (1 + 0.05 * rng.random(6))
                rows.append(
                    {"impl": "planted", "pass": number, "key": f"{m} {number}", "n": 256, "method": method, "m": m}
                    | {"parameters": parameters, "calls": calls, "calls_in_all": calls_in_all, "error": 1e-7}
                    | {"seconds": rounds.tolist(), "reference_s": {"product": [PRODUCT_S * speed] * 6}}
                    | {"quiet": 0 if number in disturbed else 6, "settled": True}
                )
    return Found("gradients", {"impls": ["planted", "other"]}, {}, "now", rows, [])


def words_of(section: Section) -> list[str]:
    """Of the claims: the bound, no growth, forward mode, central differences."""
    return [claim.cells["planted"].word for claim in section.claims]


def test_right_words_for_what_the_theory_says() -> None:
    section = gradients.section(planted())
    assert words_of(section) == ["supported"] * 4
    bound = section.claims[0].cells["planted"]
    assert "every interval lies below 5" in bound.why
    assert "2.7 times as long" in section.lead
    assert any("sample of passes" in text for text in section.paragraphs)
    assert any("Not measured here: other" in text for text in section.paragraphs)


def test_times_are_those_of_all_passes() -> None:
    """Samples are multiplied, and a slow process is told by its kernel."""
    curve = gradients._curve(gradients._times(planted(noise=0.0)), "planted", "central")
    assert curve is not None
    for i, m in enumerate(SIZES):
        assert curve.ratio(i) == pytest.approx(2 * m, rel=0.03)
        assert curve.sampled[i] == (m > 160)


@pytest.mark.parametrize("seed", range(8))
def test_noise_refutes_nothing_that_is_true(seed: int) -> None:
    assert "refuted" not in words_of(gradients.section(planted(seed=seed, noise=0.05)))


def test_a_ratio_above_the_bound_is_refuted_and_its_place_named() -> None:
    told = gradients.section(planted(ratio=lambda m: 6.5 if m > 200_000 else 2.7)).claims[0].cells["planted"]
    assert told.word == "refuted"
    assert "m = 222,768" in told.why and "151,200" not in told.why
    assert "past fixed overhead" in told.why


def test_overhead_above_the_bound_is_told_as_such() -> None:
    told = gradients.section(planted(reverse_overhead_s=30e-6)).claims[0].cells["planted"]
    assert told.word == "refuted"
    assert "m = 90" in told.why and "the theory, which counts operations" in told.why


def test_a_ratio_at_the_bound_is_inconclusive() -> None:
    told = gradients.section(planted(ratio=lambda m: 5.0, reverse_overhead_s=3e-6)).claims[0].cells["planted"]
    assert told.word == "inconclusive"


@pytest.mark.parametrize("power", [0.3, -0.3])
def test_growth_that_was_planted_is_refuted(power: float) -> None:
    section = gradients.section(planted(ratio=lambda m: 2 * (m / 50_000) ** power))
    assert words_of(section)[1] == "refuted"
    assert "outside 0 ± 0.1" in section.claims[1].cells["planted"].why
    section = gradients.section(planted(forward=lambda m: 2 * (m / 50_000) ** power))
    assert words_of(section)[2:] == ["refuted", "supported"]


def test_one_process_tells_no_bound() -> None:
    words = words_of(gradients.section(planted(passes=1)))
    assert words[0] == "inconclusive"


def test_all_overhead_tells_no_exponent() -> None:
    section = gradients.section(planted(overhead_s=1.0, reverse_overhead_s=2.0))
    assert words_of(section)[1:3] == ["inconclusive"] * 2
    assert "fixed overhead" in section.claims[1].cells["planted"].why


def test_a_disturbed_process_is_left_out_where_two_others_are() -> None:
    assert gradients._times(planted(disturbed=(2,)))["pass"].unique().tolist() == [1, 3]
    assert gradients._times(planted(disturbed=(2, 3)))["pass"].unique().tolist() == [1, 2, 3]


def test_figures_and_tables_hold_every_size(tmp_path: Path) -> None:
    section = gradients.section(planted())
    assert [len(table.header) for table in section.tables] == [2, 6, 3]
    for table in section.tables:
        assert all(len(row) == len(table.header) for row in table.rows)
    assert len(section.tables[0].rows) == len(SIZES)
    for drawn in section.figures:
        assert picture(drawn.figure, drawn.key, drawn.title, drawn.caption, tmp_path).svg
    assert {claim.figure for claim in section.claims} <= {drawn.key for drawn in section.figures}


def test_nothing_measured_is_said() -> None:
    empty = Found("gradients", {"impls": ["numpy"]}, {}, "now", [], [{"impl": "numpy", "key": "a", "reason": "b"}])
    section = gradients.section(empty)
    assert "Nothing" in section.lead and not section.claims


@pytest.mark.parametrize("profile", PROFILES)
def test_every_network_is_measured_once_in_every_process(profile: str) -> None:
    tasks = find("gradients").tasks(Settings(profile=profile, impls=("numpy", "jax", "sklearn")))
    keys = [task.key for task in tasks]
    assert len(set(keys)) == len(keys) == 2 * len(PROFILES[profile].widths) * PROFILES[profile].passes
    orders: dict[int, list[int]] = {}
    for task in tasks:
        if task.impl == "numpy":
            orders.setdefault(task.pass_number, []).append(task.arguments["width"])
    assert profile == "smoke" or len({tuple(order) for order in orders.values()}) > 1  # of three sizes, two may agree
    assert all(sorted(order) == sorted(PROFILES[profile].widths) for order in orders.values())


def test_implementations_without_these_derivatives_are_named() -> None:
    with pytest.raises(UserError, match="none of sklearn has"):
        find("gradients").tasks(Settings(impls=("sklearn",)))


def test_a_small_run_goes_all_the_way(tmp_path: Path) -> None:
    failed = run.run([find("gradients")], Settings("smoke", impls=("numpy",)), tmp_path, False, Console(quiet=True))
    assert not failed
    (read,) = found.in_directory(tmp_path)
    assert {row["method"] for row in read.rows} == {"loss", *gradients.METHODS}
    assert all(row["calls"] <= math.ceil(row["calls_in_all"]) for row in read.rows)
    section = gradients.section(read)
    assert [list(claim.cells) for claim in section.claims] == [["numpy"]] * 4
