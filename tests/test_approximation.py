"""One hidden layer against functions: bounds by least squares, training in the small, and verdicts on planted rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis import charts
from analysis import experiments as told
from analysis.experiments import approximation as analysis
from analysis.experiments import found
from bench import experiments
from bench.experiments import Settings
from bench.experiments import approximation as bench
from bench.experiments.training import Schedule
from bench.experiments.workbench import Workbench
from bench.quiet import Quiet
from impls import registry

Errors = Callable[[str, str, int, int], float]


# --- points and functions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", bench.GRID)
def test_errors_are_taken_where_nothing_was_trained_or_fitted(inputs: int) -> None:
    grid = {tuple(point) for point in bench.grid(inputs).round(12)}
    sizes = {profile.points for profile in bench.PROFILES.values()}
    widths = {width for profile in bench.PROFILES.values() for width in profile.widths}
    for points in [bench.scattered(inputs, n) for n in sizes] + [bench.fitted_on(inputs, width) for width in widths]:
        assert np.abs(points).max() <= 1
        assert not grid & {tuple(point) for point in points.round(12)}


def test_scattered_points_lie_evenly_in_every_direction() -> None:
    points = bench.scattered(2, 4096)
    for angle in np.linspace(0, np.pi, 9):
        along = np.sort(points @ [np.cos(angle), np.sin(angle)])
        inner = along[(along > -0.9) & (along < 0.9)]
        assert np.diff(inner).max() < 0.01  # a square grid of as many points: 0.03 along its sides


@pytest.mark.parametrize("name", bench.FUNCTIONS)
def test_functions_are_scaled_over_the_grid(name: str) -> None:
    values = bench.scaled(name, bench.grid(bench.FUNCTIONS[name].inputs))
    assert values.mean() == pytest.approx(0, abs=1e-12)
    assert values.std() == pytest.approx(1)


# --- least squares --------------------------------------------------------------------------------------------------


def test_output_layers_agree_with_an_independent_solve() -> None:
    rng = np.random.default_rng(0)
    h, values = rng.standard_normal((200, 12)), rng.standard_normal((200, 3))
    (found,) = bench.output_layers(h, values, [1e-15])
    np.testing.assert_allclose(found, np.linalg.solve(h.T @ h, h.T @ values), rtol=1e-10)


def test_directions_below_the_tolerance_are_left_out() -> None:
    rng = np.random.default_rng(1)
    h = rng.standard_normal((100, 2)) @ np.array(
        [[1.0, 1.0], [0.0, 1e-8]]
    )  # columns that differ by a hundred-millionth
    exact, held = bench.output_layers(h, h @ np.array([[1e6], [-1e6]]), [1e-15, 1e-6])
    assert np.abs(exact).max() == pytest.approx(1e6, rel=1e-3)
    assert np.abs(held).max() < 1


@pytest.mark.parametrize("activation", bench.ACTIVATIONS)
@pytest.mark.parametrize("inputs", bench.GRID)
def test_a_function_that_units_make_up_exactly_leaves_no_error(
    monkeypatch: pytest.MonkeyPatch, activation: str, inputs: int
) -> None:
    hidden = bench.spread(np.random.default_rng(2), inputs, 5, 3.0)
    outer = np.random.default_rng(3).standard_normal(6)
    planted = bench.Function("planted", "", inputs, lambda x: bench.features(x, hidden, activation) @ outer)
    monkeypatch.setitem(bench.FUNCTIONS, f"planted {activation} {inputs}", planted)
    (one,) = bench.solved(hidden, activation, [f"planted {activation} {inputs}"], "float32")
    assert max(one.best.maximum, one.held.maximum) < 1e-10


@pytest.mark.parametrize("name", ["kink", "ridge"])
def test_relu_bends_exactly_where_a_function_does(name: str) -> None:
    assert bench.bounds([name], "relu", 8, (0, 0, 1), "float32")[name]["held_rms"] < 1e-12


def test_relu_is_no_worse_than_the_function_joined_up_straight() -> None:
    straight = [bench.interpolated("sine", width).rms for width in (16, 32)]
    assert straight[0] / straight[1] == pytest.approx(4, rel=0.05)  # width^-2
    assert bench.bounds(["sine"], "relu", 16, (0, 0, 1), "float32")["sine"]["best_rms"] < straight[0]


def test_bounds_are_the_least_of_what_was_tried() -> None:
    row = bench.bounds(["rough"], "tanh", 16, (0, 3, 1), "float32")["rough"]
    drawn = bench.spread(np.random.default_rng([0, 3, 1, 1, 16]), 1, 16, bench.STEEPNESS[0])  # the first draw
    (one,) = bench.solved(drawn, "tanh", ["rough"], "float32")
    assert row["best_rms"] <= one.best.rms
    assert row["held_rms"] <= one.held.rms


def test_units_are_sampled_where_a_function_is_steep() -> None:
    x = bench.scattered(1, 1024)
    for activation in bench.ACTIVATIONS:
        weights, biases = bench.sampled(np.random.default_rng(0), x, np.tanh(40 * x[:, 0]), 500, activation)
        middles = -biases / weights[0]
        assert np.mean(np.abs(middles) < 0.5) > 0.6  # of units drawn evenly it is half


# --- training -------------------------------------------------------------------------------------------------------


def workbench(dtype: str = "float32") -> Workbench:
    kernels = {"product": lambda times: 1e-4, "objects": lambda times: 1e-4}
    return Workbench(registry.find("numpy"), "cpu", dtype, 1, 0, kernels, Quiet(kernels))


def arguments(**changed: Any) -> dict[str, Any]:
    usual = {
        "kind": "training",
        "functions": ["sine", "kink"],
        "seeds": [0, 1],
        "activation": "tanh",
        "width": 16,
        "points": 1024,
        "epochs": [6, 3, 1],
        "batch": 64,
    }
    return usual | changed


def test_starts_are_seeded_and_have_nothing_of_the_draws() -> None:
    first, again, other = (bench.start("tanh", 2, 16, seed) for seed in ((0, 0, 0), (0, 0, 0), (0, 1, 0)))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    drawn = bench.spread(np.random.default_rng([0, 0, 1, 2, 16]), 2, 16, bench.STEEPNESS[0])
    assert not np.isclose(
        drawn[0] / np.linalg.norm(drawn[0], axis=0), first[0] / np.linalg.norm(first[0], axis=0)
    ).any()


def test_stages_and_seeds_go_through_the_points_in_orders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    order = Schedule.order

    def kept(schedule: Schedule, n: int, epoch: int) -> Any:
        seen.append(tuple(order(schedule, n, epoch)))
        return seen[-1]

    monkeypatch.setattr(Schedule, "order", lambda *asked: np.array(kept(*asked)))
    bench.measure(workbench(), arguments(functions=["sine"], points=64, batch=16))
    assert len(set(seen)) == 2 * 10  # warming up may ask for some of them once more


def test_training_rows() -> None:
    rows = bench.measure(workbench(), arguments())
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [(row["function"], row["seed"]) for row in rows] == [("sine", 0), ("sine", 1), ("kink", 0), ("kink", 1)]
    for row in rows:
        assert row["steps"] == 10 * 16
        assert row["m"] == 16 + 16 + 16 + 1
        assert row["rms"] < 0.6  # the constant's is 1
        assert row["maximum"] > row["rms"] > row["held_rms"] >= 0.99 * row["best_rms"]
        assert len(row["reference_s"]["product"]) == len(bench.SHARES)
    assert "curve" in rows[0]
    assert "curve" not in rows[1]
    assert [row["rms"] for row in bench.measure(workbench(), arguments())] == [row["rms"] for row in rows]


def test_bound_rows_are_the_same_whatever_trains() -> None:
    asked = {"kind": "bound", "functions": ["waves", "cone"], "seeds": [0], "activation": "relu", "width": 4}
    rows = bench.measure(workbench(), asked)
    assert [row["function"] for row in rows] == ["waves", "cone"]
    assert rows == bench.measure(workbench(), asked)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_tells_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RATE", 1e30)
    (row,) = bench.measure(workbench(), arguments(functions=["sine"], seeds=[0]))
    assert row["diverged_at"] == row["steps"] == 1
    assert row["rms"] is row["held_rms"] is None


@pytest.mark.parametrize("profile", experiments.PROFILES)
def test_tasks_have_keys_of_their_own_and_bounds_come_once(profile: str) -> None:
    tasks = bench.tasks(Settings(profile, ("numpy", "jax")))
    assert len({task.key for task in tasks}) == len(tasks)
    assert {task.impl for task in tasks if task.arguments["kind"] == "bound"} == {"numpy"}
    shared = [t.arguments["functions"] for t in tasks if t.impl == "jax"]
    assert all(set(names) <= set(bench.PROFILES[profile].functions) for names in shared)


def test_both_sides_know_its_name() -> None:
    assert "approximation" in experiments.NAMES
    assert experiments.NAMES == told.NAMES


# --- planted rows ---------------------------------------------------------------------------------------------------

WIDTHS, SEEDS = (1, 4, 16, 64, 256), (0, 1, 2)


def planted(
    best: Errors, trained: Errors, noise: float = 0.1, seeds: tuple[int, ...] = SEEDS, functions: int = 4, draw: int = 0
) -> found.Found:
    """Errors of ``functions`` functions by (function, activation, width, seed), each times e^(noise · normal)."""
    rng = np.random.default_rng(draw)
    rows = []
    for name in [f"f{i}" for i in range(functions)]:
        for activation in ("tanh", "relu"):
            for width in WIDTHS:
                for seed in seeds:
                    about = {"function": name, "activation": activation, "width": width, "seed": seed, "inputs": 1}
                    about |= {"shape": "planted", "formula": "x", "impl": "numpy", "pass": 1, "key": "k"}
                    low = best(name, activation, width, seed) * np.exp(noise * rng.standard_normal())
                    high = trained(name, activation, width, seed) * np.exp(noise * rng.standard_normal())
                    bests = {"best_rms": low, "best_maximum": 3 * low, "held_rms": low, "held_maximum": 3 * low}
                    rows.append(about | bests | {"kind": "bound"})
                    cost = {
                        "seconds": 0.01 * width,
                        "reference_s": {"product": [1e-4]},
                        "steps": 100,
                        "m": 3 * width + 1,
                    }
                    cost |= {
                        "operations": 1000 * width,
                        "learning_rate": 0.01,
                        "batch": 64,
                        "points": 1024,
                        "diverged_at": None,
                    }
                    worse = {key: 2 * value for key, value in bests.items()}
                    rows.append(about | cost | worse | {"kind": "training", "rms": high, "maximum": 3 * high})
    return found.Found("approximation", {"impls": ["numpy"], "dtype": "float32"}, {}, "now", rows, [])


def power(rate: float, factor: float = 1.0) -> Errors:
    return lambda name, activation, width, seed: factor * 0.5 * width**rate


def words_of(rows: found.Found) -> list[str]:
    return [claim.cells["numpy"].word for claim in analysis.section(rows).claims]


def test_truths_that_hold_are_supported() -> None:
    assert words_of(planted(power(-1), power(-1, 1.3))) == ["supported", "supported", "supported"]


def test_truths_that_fail_are_refuted() -> None:
    assert words_of(planted(power(0.5), power(0.5, 50))) == ["refuted", "refuted", "refuted"]


def test_one_function_that_rises_refutes_that_all_fall() -> None:
    def best(name: str, activation: str, width: int, seed: int) -> float:
        return float(0.5 * width ** (0.5 if (name, activation) == ("f2", "relu") else -1))

    (told_of, *_) = analysis.section(planted(best, power(-1))).claims
    assert told_of.cells["numpy"].word == "refuted"
    assert "f2 by relu" in told_of.cells["numpy"].evidence


def test_what_cannot_be_told_is_inconclusive() -> None:
    assert words_of(planted(power(0), power(0, 2), noise=0.3)) == ["inconclusive"] * 3
    assert words_of(planted(power(-1), power(-1, 2), seeds=(0,))) == ["inconclusive"] * 3


def test_an_error_within_rounding_is_as_near_as_wanted() -> None:
    def best(name: str, activation: str, width: int, seed: int) -> float:
        return 1e-13 if width >= 16 else 0.5

    rows = planted(best, power(-1), functions=1)
    assert analysis.best_rates(analysis.pairs(rows, "numpy"))[0].reached == 16
    assert words_of(rows)[:2] == ["supported", "refuted"]  # training in float32 could come to 1e-6
    near = planted(best, lambda name, activation, width, seed: 1e-6 if width >= 16 else 0.5)
    assert words_of(near)[1] == "supported"


def test_planted_rates_are_recovered() -> None:
    found_of = analysis.pairs(planted(power(-0.8), power(-0.3)), "numpy")
    for rates, truth in ((analysis.best_rates(found_of), -0.8), (analysis.trained_rates(found_of), -0.3)):
        for rate in rates:
            assert rate.interval().low - 0.02 < truth < rate.interval().high + 0.02
            assert rate.interval().high - rate.interval().low < 0.25


def test_intervals_of_rates_cover_and_nothing_is_refuted_falsely() -> None:
    covered, refuted, repeats = 0, 0, 60
    for draw in range(repeats):
        found_of = analysis.pairs(planted(power(0), power(0), 0.2, functions=3, draw=draw), "numpy")
        rates = analysis.best_rates(found_of)
        covered += sum(rate.interval().low < 0 < rate.interval().high for rate in rates)
        word = analysis.falls(rates, "it").word
        refuted += word == "refuted"
        assert word != "supported"
    assert covered / (6 * repeats) > 0.9
    assert refuted <= 0.07 * repeats


def test_training_binds_where_it_stays_behind() -> None:
    def trained(name: str, activation: str, width: int, seed: int) -> float:
        return float(0.5 * width**-1.0 * (10 if width >= 64 else 1))

    section = analysis.section(planted(power(-1), trained))
    assert [("*" in cell) for cell in section.tables[0].rows[0][2:]] == [False, False, False, True, True]


def test_hidden_layers_that_training_found_count_among_the_best() -> None:
    rows = planted(power(-1), power(-1), noise=0)
    better = [{**row, "best_rms": 1e-3} if row["kind"] == "training" else row for row in rows.rows]
    rows = found.Found(rows.name, rows.settings, {}, "now", better, [])
    assert (analysis.pairs(rows, "numpy")[0].best[:4] == 1e-3).all()
    assert (analysis.pairs(rows, "numpy")[0].held[0] == 0.5).all()


def test_diverged_runs_stay_in_the_table_with_their_step() -> None:
    rows = planted(power(-1), power(-1, 1.1))
    gone = dict.fromkeys(("rms", "maximum", "best_rms", "best_maximum", "held_rms", "held_maximum")) | {
        "diverged_at": 17
    }
    lost = [
        {**row, **gone} if row["kind"] == "training" and (row["width"], row["function"]) == (256, "f0") else row
        for row in rows.rows
    ]
    section = analysis.section(found.Found(rows.name, rows.settings, {}, "now", lost, []))
    assert len(section.tables[-1].rows) == 2 * len(SEEDS)
    assert section.tables[-1].rows[0] == ["numpy", "f0", "tanh", "256", "0", "17"]
    assert "runs of 2 diverged" in section.claims[1].cells["numpy"].why
    assert section.claims[1].cells["numpy"].word == "supported"  # 6 of 8 are within


def test_a_section_is_whole() -> None:
    section = analysis.section(planted(power(-1), power(-0.5)))
    assert all(len(row) == len(table.header) for table in section.tables for row in table.rows)
    assert {claim.figure for claim in section.claims} <= {drawn.key for drawn in section.figures}
    for drawn in section.figures:
        charts.drawn(drawn.figure).draw_without_rendering()
    assert "nan" not in " ".join(
        [section.lead, *section.paragraphs, *(c for t in section.tables for r in t.rows for c in r)]
    )


def test_libraries_are_compared_for_equal_seeds() -> None:
    rows = planted(power(-1), power(-1))
    other = [{**row, "impl": "jax", "rms": 1.5 * row["rms"]} for row in rows.rows if row["kind"] == "training"]
    both = found.Found(rows.name, {"impls": ["numpy", "jax"]}, {}, "now", [*rows.rows, *other], [])
    section = analysis.section(both)
    assert "jax 50.0" in section.paragraphs[-1]
    assert set(section.claims[0].cells) == {"numpy", "jax"}
