"""The experiment ``minima``: eigenvalues, kinds of points and words on planted truths, and a small run to its section."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.experiments import Word, found, minima
from analysis.experiments.found import Found
from analysis.experiments.minima import CRITICAL, DIVERGED, KINK, LATER, MINIMUM, SADDLE, UNFINISHED, kind
from analysis.pictures import picture
from analysis.statistics import share_of
from backprop_files import UserError
from bench.experiments import Settings, find, run
from bench.experiments.minima import (
    CHUNK,
    GOAL,
    PROFILES,
    Run,
    _looked_at,
    at_kink,
    constant_loss,
    dead_units,
    extreme_eigenvalues,
    flat,
    hessian,
    polish,
    rows_of,
    shaped,
    tasks,
    trained,
)
from bench.experiments.workbench import Workbench
from impls import reference, registry
from impls.interface import Array, Network, Problem
from impls.problem import initial_parameters

# --- what is at a point ---------------------------------------------------------------------------------------------


def problem_of(network: Network, inputs: Array, targets: Array, parameters: Sequence[Array]) -> Problem:
    return Problem(network, inputs, targets, tuple(parameters), 0.1)


def least_squares(seed: int = 0) -> Problem:
    """Without a hidden layer, y = x W + b: the Hessian is that of least squares, whatever W and b."""
    rng = np.random.default_rng(seed)
    network = Network((3, 2), "tanh", "mse")
    inputs, targets = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    return problem_of(network, inputs, targets, (rng.standard_normal((3, 2)), rng.standard_normal(2)))


def test_hessian_of_least_squares() -> None:
    problem = least_squares()
    with_ones = np.hstack([problem.inputs, np.ones((20, 1))])
    expected = 2 / (20 * 2) * with_ones.T @ with_ones  # L = 1/(n d) Σ (y - t)², for each of the d outputs alike
    values = np.linalg.eigvalsh(expected)
    np.testing.assert_allclose(extreme_eigenvalues(problem, problem.parameters), (values[0], values[-1]), rtol=1e-6)
    found = hessian(problem, problem.parameters)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), np.repeat(values, 2), rtol=1e-6)


def test_hessian_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    data = rows_of("xor")
    network = Network((2, 3, 2), "tanh", "cross_entropy")
    start = initial_parameters(network, np.random.default_rng(5))
    problem = problem_of(network, data.inputs, data.targets, [2 * part for part in start])

    def loss(theta: Any) -> Any:
        w1, b1, w2, b2 = theta[:6].reshape(2, 3), theta[6:9], theta[9:15].reshape(3, 2), theta[15:]
        outputs = torch.tanh(torch.tensor(data.inputs) @ w1 + b1) @ w2 + b2
        return torch.nn.functional.cross_entropy(outputs, torch.tensor(data.labels))

    expected = torch.autograd.functional.hessian(loss, torch.tensor(flat(problem.parameters))).numpy()
    np.testing.assert_allclose(hessian(problem, problem.parameters), expected, atol=1e-8)


def dead_xor(bias: Sequence[float] = (0.0, 0.0)) -> Problem:
    """Both relus at -1 or less on every row: nothing but the outputs' biases moves the loss, nearby too."""
    data = rows_of("xor")
    network = Network((2, 2, 2), "relu", "cross_entropy")
    parameters = [0.5 * np.eye(2), np.array([-2.0, -1.5]), np.ones((2, 2)), np.array(bias)]
    return problem_of(network, data.inputs, data.targets, parameters)


def test_a_known_local_minimum_of_xor_is_told_as_one() -> None:
    problem = dead_xor((0.7, 0.0))
    loss = reference.loss(problem)
    ended = Run(problem, 0, list(problem.parameters), [(CHUNK, loss)], 0.0, {}, None)
    row = ended.row() | _looked_at(ended, 100)
    assert row["polished"] == pytest.approx(math.log(2))  # from wherever the biases are, and not below
    assert row["dead"] == 2
    # with p = ½ the Hessian of the biases is diag(p) - p pᵀ: eigenvalues ½ and 0
    assert (row["least_eigenvalue"], row["largest_eigenvalue"]) == pytest.approx((0, 0.5), abs=1e-6)
    assert kind(row | {"best_polished": 0.0}) == MINIMUM


def test_what_is_over_is_not_looked_at() -> None:
    problem = dead_xor()
    for loss, diverged_at in ((GOAL, None), (1.0, 7)):
        ended = Run(problem, 0, list(problem.parameters), [(CHUNK, loss)], 0.0, {}, diverged_at)
        assert set(_looked_at(ended, 100).values()) == {None}


def saddle() -> Problem:
    """All weights 0 where the inputs tell the targets: no gradient, but W1 and W2 can only win together."""
    inputs = np.array([[-1.0], [1.0]])
    network = Network((1, 1, 1), "tanh", "mse")
    return problem_of(network, inputs, inputs, [np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1)), np.zeros(1)])


def test_a_planted_saddle_has_a_direction_down() -> None:
    problem = saddle()
    _, gradients = reference.loss_and_gradients(problem)
    assert np.linalg.norm(flat(gradients)) < 1e-12
    # L ≈ 1 - 2 w1 w2 + b2²: eigenvalues ±2 and 2
    least, largest = extreme_eigenvalues(problem, problem.parameters)
    assert least == pytest.approx(-2, abs=1e-5)
    assert largest == pytest.approx(2, abs=1e-5)


def test_polish_finds_the_least_squares_and_stays_at_a_critical_point() -> None:
    problem = least_squares()
    point = polish(problem, problem.parameters)
    with_ones = np.hstack([problem.inputs, np.ones((20, 1))])
    solution, _, _, _ = np.linalg.lstsq(with_ones, problem.targets)
    np.testing.assert_allclose(point.parameters[0], solution[:-1], atol=1e-4)
    assert point.gradient < 1e-5
    assert point.loss <= reference.loss(problem)
    assert polish(saddle(), saddle().parameters).loss == pytest.approx(1.0)


def test_flat_and_shaped_are_inverse() -> None:
    network = Network((3, 4, 2))
    theta = np.arange(network.m, dtype=float)
    parts = shaped(network, theta)
    assert [part.shape for part in parts] == [(3, 4), (4,), (4, 2), (2,)]
    np.testing.assert_array_equal(flat(parts), theta)


def test_dead_units_are_counted_and_only_of_relu() -> None:
    inputs = rows_of("xor").inputs
    first = np.array([[1.0, 0.1, 0.0], [0.0, 0.1, 0.0]])
    bias = np.array([0.0, -1.0, 0.0])  # alive on half of the rows; below 0 on all; at 0 on all
    parameters = [first, bias, np.zeros((3, 2)), np.zeros(2)]
    assert dead_units(Network((2, 3, 2), "relu", "cross_entropy"), parameters, inputs) == 2
    assert dead_units(Network((2, 3, 2), "tanh", "cross_entropy"), parameters, inputs) == 0


def test_kinks_are_relus_that_a_difference_may_cross() -> None:
    data = rows_of("xor")
    parameters = [np.array([[1.0], [1.0]]), np.array([0.5]), np.zeros((1, 2)), np.zeros(2)]
    relu = problem_of(Network((2, 1, 2), "relu", "cross_entropy"), data.inputs, data.targets, parameters)
    assert not at_kink(relu, parameters)
    parameters[1] = np.array([1e-9])  # z = 1e-9 at (-1, 1)
    assert at_kink(relu, parameters)
    tanh = problem_of(Network((2, 1, 2), "tanh", "cross_entropy"), data.inputs, data.targets, parameters)
    assert not at_kink(tanh, parameters)


# --- data -----------------------------------------------------------------------------------------------------------


def test_rows_are_principal_components_of_equal_scale() -> None:
    pytest.importorskip("sklearn")
    data = rows_of("digits")
    assert data.inputs.shape == (300, 4)
    np.testing.assert_allclose(data.inputs.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(data.inputs.T, ddof=0), 0.25 * np.eye(4), atol=1e-12)
    assert constant_loss(data) == pytest.approx(math.log(10), abs=0.02)
    assert constant_loss(rows_of("xor")) == pytest.approx(math.log(2))


def test_data_with_few_columns_and_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((30, 2))
    np.savez(tmp_path / "numbers.npz", inputs=np.hstack([inputs, inputs[:, :1]]), targets=rng.standard_normal(30))
    data = rows_of(str(tmp_path / "numbers.npz"))
    assert data.inputs.shape == (30, 2)  # the third column tells nothing new
    assert constant_loss(data) == pytest.approx(1.0)
    with pytest.raises(UserError, match="digit"):
        rows_of("digit")


# --- planted runs ---------------------------------------------------------------------------------------------------

SIZES = (12, 70, 200, 1_500, 20_000, 100_000)
MISSED = {"polished": 0.5, "polished_gradient": 1e-7, "kink": False, "least_eigenvalue": 0.0, "largest_eigenvalue": 1.0}
NOT_LOOKED_AT: dict[str, Any] = dict.fromkeys(MISSED)


def planted(shares: Sequence[float], n: int = 40, looked_at: dict[str, Any] | None = None, **over: Any) -> Found:
    """Runs of one library of which at each size such a share ends at 0.5, the others at 0.01."""
    rows = []
    for activation in ("tanh", "relu"):
        for m, share in zip(SIZES, shares, strict=True):
            for restart in range(n):
                missed = restart < round(share * n)
                small = m <= 300
                loss = 0.5 if missed else 0.01
                rows.append(
                    {"impl": "planted", "pass": 1, "key": f"{activation} {m}", "data": "xor", "activation": activation}
                    | {"m": m, "n": 4, "layers": [2, m // 5, 2], "restart": restart, "loss": loss, "gradient": 1e-7}
                    | {"constant": math.log(2), "goal": 0.02, "dead": 0, "dead_at_start": 0, "diverged_at": None}
                    | {"steps": 50, "seconds": 0.01, "reference_s": {"product": 1e-4}, "stages": [[0.03, 50]]}
                    | {"curve": [[25, 0.6], [50, loss]], "polish": 100}
                    | ((MISSED | (looked_at or {})) if missed and small else NOT_LOOKED_AT)
                    | over
                )
    return Found("minima", {"impls": ["planted"]}, {}, "now", rows, [])


def words_of(of: Found) -> list[Word]:
    """Rarely; falls; are minima."""
    return [claim.cells["planted"].word for claim in minima.section(of).claims if "planted" in claim.cells]


def test_words_where_small_networks_stick_at_minima_and_large_ones_do_not() -> None:
    section = minima.section(planted((0.6, 0.3, 0.1, 0, 0, 0)))
    assert [claim.cells["planted"].word for claim in section.claims] == ["supported"] * 3
    assert "none of 240 runs from 1,000 weights on" in section.lead
    assert "12 weights with tanh (60\N{NO-BREAK SPACE}% of runs)" in section.lead


def test_words_where_large_networks_stick() -> None:
    assert words_of(planted((0, 0, 0.1, 0.2, 0.3, 0.6))) == ["refuted", "refuted", "supported"]


def test_few_runs_tell_little() -> None:
    told = minima.section(planted((0.2, 0.2, 0.2, 0, 0, 0), n=5)).claims[0].cells["planted"]
    assert told.word == "inconclusive"
    assert "at most 11.6\N{NO-BREAK SPACE}%" in told.why  # 0 of 30


def test_no_run_above_has_no_trend() -> None:
    assert words_of(planted((0, 0, 0, 0, 0, 0))) == ["supported", "inconclusive"]
    assert words_of(planted((0.5, 0.5, 0.5, 0.5, 0.5, 0.5))) == ["refuted", "inconclusive", "supported"]


def test_a_trend_that_may_be_none_is_not_told() -> None:
    of = planted((0.4, 0.2, 0.4, 0.2, 0.4, 0.2), n=5)
    assert minima.trend(minima.runs_of(of)).value < 0
    assert words_of(of)[1] == "inconclusive"


def test_a_hump_is_told() -> None:
    claim = minima.section(planted((0.05, 0.9, 0.3, 0, 0, 0))).claims[1].cells["planted"]
    assert claim.word == "supported"
    assert "largest at m = 70 (90\N{NO-BREAK SPACE}%), not at the smallest, m = 12 (5\N{NO-BREAK SPACE}%)" in claim.why
    assert "first rises, from 5\N{NO-BREAK SPACE}% at 12 to 90\N{NO-BREAK SPACE}% at 70" in claim.evidence
    unclear = minima.section(planted((0.2, 0.4, 0, 0, 0, 0), n=5)).claims[1].cells["planted"]
    assert "rises" not in unclear.evidence
    assert "too close to tell" in unclear.why


@pytest.mark.parametrize(
    ("looked_at", "word"),
    [
        ({"least_eigenvalue": -0.1}, "refuted"),
        ({"polished": 0.02}, "refuted"),
        ({"kink": True}, "inconclusive"),
        ({"polished_gradient": 1e-2}, "inconclusive"),
        ({}, "supported"),
    ],
)
def test_only_the_hessian_makes_minima(looked_at: dict[str, Any], word: Word) -> None:
    assert words_of(planted((0.6, 0.3, 0.1, 0, 0, 0), looked_at=looked_at))[2] == word


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, MINIMUM),
        ({"least_eigenvalue": -1e-6}, MINIMUM),
        ({"least_eigenvalue": -1e-2}, SADDLE),
        ({"polished": 0.05}, LATER),
        ({"polished_gradient": 1e-3}, UNFINISHED),
        ({"kink": True, "least_eigenvalue": math.nan, "polished_gradient": 0.1}, KINK),
        ({"polished": math.nan}, CRITICAL),
        ({"polished": math.nan, "gradient": 0.1}, UNFINISHED),
        ({"loss": math.nan, "polished": math.nan, "gradient": math.nan}, DIVERGED),
    ],
)
def test_kinds_of_points(row: dict[str, Any], expected: str) -> None:
    assert kind({"loss": 0.5, "gradient": 1e-6, "best_polished": 0.01} | MISSED | row) == expected


def test_runs_that_diverged_count() -> None:
    of = planted((0, 0, 0, 0, 0, 0))
    of.rows[-1].update(loss=None, gradient=None, dead=None, diverged_at=17, curve=[])  # type: ignore[attr-defined]
    runs = minima.runs_of(of)
    assert len(runs) == len(of.rows)
    assert runs["above"].iloc[-1]
    assert runs["kind"].iloc[-1] == DIVERGED
    assert minima.section(of).tables[0].rows[-1][-1] == "1 (step 17)"


def test_the_best_is_of_all_libraries() -> None:
    of = planted((0, 0, 0, 0, 0, 0), n=2, loss=0.2)
    other = [{**row, "impl": "other", "loss": 0.1} for row in of.rows]
    runs = minima.runs_of(Found("minima", {"impls": ["planted", "other"]}, {}, "now", [*of.rows, *other], []))
    assert list(runs.groupby("impl")["above"].mean().round()) == [0, 1]


def test_the_best_is_of_smaller_sizes_too() -> None:
    of = planted((0, 0, 0, 0, 0, 0), n=2)
    for row in of.rows:
        row.update(loss={12: 0.4, 70: 0.1, 200: 0.2, 1_500: 0.05}.get(row["m"], 0.11))  # type: ignore[attr-defined]
    runs = minima.runs_of(of)
    by_size = runs.groupby("m").first()
    assert list(by_size["best"]) == [0.4, 0.1, 0.1, 0.05, 0.05, 0.05]
    assert list(by_size["above"]) == [False, False, True, False, True, True]
    assert list(by_size["above_all"]) == [True, False, True, False, True, True]


def test_a_constant_column_is_refused(tmp_path: Path) -> None:
    same = np.hstack([np.ones((400, 1)), np.ones((400, 1))])
    np.savez(tmp_path / "same.npz", inputs=same, targets=np.arange(400) % 2)
    with pytest.raises(UserError, match="same"):
        tasks(Settings(data=str(tmp_path / "same.npz")))


def test_shares_and_trends_cover() -> None:
    assert (share_of(0, 20).low, round(share_of(0, 20).high, 3)) == (0.0, 0.168)
    assert math.isnan(share_of(0, 0).value)
    rng = np.random.default_rng(1)
    shares, x = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0]), np.log10(SIZES)
    slope = float(np.polyfit(x, shares, 1)[0])
    runs = minima.runs_of(planted((0,) * 6, n=20))
    truth = runs["m"].map(dict(zip(SIZES, shares, strict=True))).to_numpy()
    hit = 0
    for _ in range(300):
        of = minima.trend(runs.assign(above=rng.random(len(runs)) < truth))
        hit += of.low <= slope <= of.high
    assert 0.92 <= hit / 300 <= 0.99


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_few_runs_whose_share_does_not_change_seldom_seem_to_fall(share: float) -> None:
    rng = np.random.default_rng(2)
    runs = minima.runs_of(planted((0,) * 6, n=3))
    found = [minima.trend(runs.assign(above=rng.random(len(runs)) < share)) for _ in range(300)]
    assert sum(of.high < 0 for of in found) <= 14  # 2.5 % are 7.5: P(more than 14) is 1 %
    assert sum(of.low > 0 for of in found) <= 14


# --- all the way ----------------------------------------------------------------------------------------------------


def test_plan() -> None:
    quick = tasks(Settings(profile="quick"))
    assert len({task.key for task in quick}) == len(quick)
    units: dict[tuple[str, str], list[int]] = {(task.impl, task.arguments["data"]): [] for task in quick}
    for task in quick:
        units[task.impl, task.arguments["data"]].append(task.arguments["units"])
    for (impl, data), mine in units.items():
        assert set(mine) <= set(units["numpy", data]), (impl, data)  # equal starts are compared
    assert all(steps % CHUNK == 0 for profile in PROFILES.values() for _, steps in profile.stages)
    large = [task for task in quick if task.impl == "numpy" and task.arguments["units"] >= 256]
    for data in ("xor", "digits"):  # 0 of so many tell 5 %
        assert share_of(0, sum(len(t.arguments["restarts"]) for t in large if t.arguments["data"] == data)).high < 0.05
    whole = [r for task in tasks(Settings("full", ("numpy",))) for r in task.arguments["restarts"]]
    assert len(whole) == 2 * sum(sum(plan.values()) for plan in (PROFILES["full"].xor, PROFILES["full"].rows))


def test_small_run_all_the_way(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    experiment = find("minima")
    settings = Settings(profile="smoke", impls=("numpy",))
    assert not run.run([experiment], settings, tmp_path, False, Console(quiet=True))
    (of,) = found.in_directory(tmp_path)
    runs = minima.runs_of(of)
    assert len(runs) == 2 * (2 * 4 + 2 * 3)
    assert set(runs["data"]) == {"xor", "digits"}
    assert (runs["loss"] <= 1.5 * runs["constant"]).all()
    ended = runs[runs["loss"] <= GOAL]
    assert len(ended)
    assert (ended["steps"] <= 100).all()
    assert ended["polished"].isna().all()
    assert runs["polished"].notna().any()
    assert (runs["polished"].dropna() <= runs["loss"][runs["polished"].notna()] + 1e-6).all()
    section = minima.section(of)
    assert {claim.experiment for claim in section.claims}
    for drawn in section.figures:
        assert picture(drawn.figure, drawn.key, drawn.title, drawn.caption, tmp_path).svg


class Unclocked(Workbench):
    """One that times nothing."""

    def once(self, call: Callable[[], object], synchronize: Callable[[], object]) -> dict[str, Any]:
        call()
        return {"seconds": 0.0, "reference_s": {"product": 1e-4}}


def test_divergence_names_its_step() -> None:
    data = rows_of("xor")
    network = Network((2, 8, 2), "relu", "mse")
    start = initial_parameters(network, np.random.default_rng(0))
    bench = Unclocked(registry.find("numpy"), "cpu", "float32", 1, 0, {}, None)  # type: ignore[arg-type]
    ended = trained(
        bench, Problem(network, data.inputs, data.targets, start, 0.0, "adam"), [(0.001, CHUNK), (1e6, 50)], 0
    )
    assert ended.diverged_at == CHUNK + 1
    row = ended.row()
    assert row["steps"] == CHUNK + 1
    assert row["loss"] is None
    assert len(row["curve"]) == 1


def test_a_run_of_two_stages_is_that_of_the_reference() -> None:
    data = rows_of("xor")
    start = initial_parameters(Network((2, 3, 2), "tanh", "cross_entropy"), np.random.default_rng(0))
    problem = Problem(Network((2, 3, 2), "tanh", "cross_entropy"), data.inputs, data.targets, start, 0.0, "adam")
    bench = Unclocked(registry.find("numpy"), "cpu", "float64", 1, 0, {}, None)  # type: ignore[arg-type]
    ended = trained(bench, problem, [(0.03, 50), (0.003, 25)], 0)
    theta = flat(start)
    for rate, steps in ((0.03, 50), (0.003, 25)):
        first = second = np.zeros_like(theta)
        for t in range(1, steps + 1):  # Adam (Kingma & Ba 2015), its averages afresh
            gradient = flat(reference.loss_and_gradients(problem, shaped(problem.network, theta))[1])
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            theta = theta - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(flat(ended.parameters), theta, rtol=1e-9)
    assert [steps for steps, _ in ended.curve] == [25, 50, 75]
    assert ended.curve[-1][1] == pytest.approx(reference.loss(problem, ended.parameters))
