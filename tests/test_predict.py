"""Predictions from planted runs: right value, honest interval, binding ceiling, and what lies beyond is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import activations, cells, costs, load, predict, predict_check, regimes, sizes, verdicts
from analysis.predict import Series
from backprop_files import UserError
from bench.cells import Cell, Point, Setting, facts
from impls import registry
from impls.interface import Network
from tests import planted
from tests.planted import Noise


def run(tmp_path: Path, law: planted.Law = planted.calls, seed: int = 4, **changes: Any) -> load.Run:
    """A planted run of numpy."""
    benchmarks = planted.entries(law, seed=seed, noise=Noise(0.02, 0.005), peak_bytes=planted.arrays, **changes)
    return load.load([planted.write(tmp_path / f"x{seed}.json", benchmarks)])


def truth(layers: tuple[int, ...], n: int, activation: str = "horner-4") -> float:
    setting = Setting(registry.find("numpy"), "cpu", "float32", 1)
    return planted.calls(facts(Cell(setting, Point(Network(layers, activation), n, ()), "step"), "synthetic", 0))


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return predict.series(run(tmp_path), "numpy")


@pytest.mark.parametrize(
    ("layers", "n"),
    [((64, 200, 200, 10), 300), ((64, 48, 48, 48, 10), 77), ((64, 300, 300, 10), 3000), ((64, 70, 10), 2)],
)
def test_a_step_that_was_never_measured_is_predicted(series: Series, layers: tuple[int, ...], n: int) -> None:
    found = predict.predict(series, layers, n, "horner-4")
    expected = truth(layers, n)
    assert found.time_s.value == pytest.approx(expected, rel=0.1)
    assert found.time_s.low <= expected <= found.time_s.high
    assert found.time_s.high / found.time_s.low < 1.5
    network = Network(layers)
    assert found.memory_bytes.value == pytest.approx(8 * network.m + 12 * n * sum(layers), rel=0.02)


def test_what_lies_beyond_is_said(series: Series) -> None:
    inside = predict.predict(series, (64, 128, 128, 10), 256, "horner-4")
    assert not inside.extrapolates
    beyond = predict.predict(series, (64, 4096, 4096, 10), 100_000, "horner-64")
    assert {told.split(" ")[0] for told in beyond.beyond} == {"n", "m", "n·m"}
    assert "times the largest measured" in beyond.beyond[0]


def test_the_binding_ceiling_is_named(series: Series) -> None:
    assert predict.predict(series, (64, 32, 32, 10), 1, "horner-4").binding == "calls and fixed overhead"
    assert predict.predict(series, (64, 512, 512, 10), 4000, "horner-4").binding == "matrix products"


@pytest.mark.parametrize(
    ("impl", "layers", "n", "activation", "words"),
    [
        ("numpi", (64, 10), 4, "horner-4", "did you mean 'numpy'"),
        ("numpy", (64,), 4, "horner-4", "two widths at least"),
        ("numpy", (64, 0, 10), 4, "horner-4", "positive whole numbers"),
        ("numpy", (64, 10), 0, "horner-4", "positive whole numbers"),
        ("numpy", (64, 32, 10), 4, "gelu", "activation 'gelu' was not measured in this run"),
        ("numpy", (64, 32, 10), 4, "horner-99", "was not measured"),
    ],
)
def test_bad_input_is_said(
    tmp_path: Path, impl: str, layers: tuple[int, ...], n: int, activation: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        predict.predict(predict.series(run(tmp_path), impl), layers, n, activation)
    assert words in str(caught.value)


def test_intervals_of_predictions_hold_new_cells(tmp_path: Path) -> None:
    """Another seed's joint cells, measured with the same noise: nine in ten lie inside."""
    first, second = run(tmp_path), run(tmp_path, seed=5, chosen=NEW, joint_seed=9)
    found = predict_check.check(first, second)
    assert len(found) >= 20
    assert found["inside"].mean() >= 0.9
    assert found["error"].abs().median() < 0.05
    assert found["memory_error"].abs().max() < 0.02


NEW = planted.RANGE


def test_sizes_of_a_network_equal_those_of_the_cell_table(tmp_path: Path) -> None:
    table = cells.table(run(tmp_path).entries)
    for _, cell in table[table["axis"] == "joint"].head(5).iterrows():
        layers = tuple(int(units) for units in str(cell["layers"]).split("-"))
        made = sizes.like(cell, layers, int(cell["n"]), float(cell["p"])).iloc[0]
        for name in ("m", "u", "width", "depth", "hidden", "units", "products", "itemsize", "inputs", "outputs"):
            assert float(made[name]) == float(cell[name]), name


def test_costs_are_the_planted_ones_in_physical_units(tmp_path: Path) -> None:
    entries = run(tmp_path).entries
    table = cells.table(entries)
    step = next(v for v in verdicts.judge(entries, table) if v.phase == "step")
    found = {cost.unit: cost for cost in costs.costs(step.choice, "step", table)}
    planted_s = {"multiply-add": 7e-11 / 3, "unit-operation": 3e-10, "layer": 2e-5}
    for unit, value in planted_s.items():
        assert found[unit].seconds.value == pytest.approx(value, rel=0.05)
        assert found[unit].seconds.low <= value <= found[unit].seconds.high
    # 2 operations in 7e-11 / 3 s, against the planted ceiling of 1e11 a second
    assert found["multiply-add"].share == pytest.approx(2 / (7e-11 / 3) / 1e11, rel=0.05)


def test_the_crossover_is_where_half_of_the_cost_is_fixed(tmp_path: Path) -> None:
    def law(f: dict[str, Any]) -> float:
        return float(1e-4 + 5e-12 * f["n"] * f["m"])

    entries = run(tmp_path, law).entries
    (step, *_) = [v for v in verdicts.judge(entries, cells.table(entries)) if v.phase == "step"]
    found = regimes.regimes(entries, step.exponents["n"])
    assert found is not None
    assert found.crossover.low <= 2e7 <= found.crossover.high
    assert found.overhead_until == pytest.approx(2e7, rel=0.1)
    assert found.transition_until == pytest.approx(8e7, rel=0.2)


def test_a_crossover_outside_what_was_measured_is_told_not_guessed(tmp_path: Path) -> None:
    for fixed, words in ((10.0, "up to n = 4,096"), (0.0, "from n = 16 on")):
        entries = run(tmp_path, lambda f, fixed=fixed: fixed + 5e-12 * f["n"] * f["m"]).entries  # type: ignore[misc]
        (step, *_) = [v for v in verdicts.judge(entries, cells.table(entries)) if v.phase == "step"]
        found = regimes.regimes(entries, step.exponents["n"])
        assert found is not None
        assert np.isnan(found.crossover.value)
        assert words in found.reason


def test_an_activation_is_calibrated_on_the_dial() -> None:
    """At one point horner-K takes 1 ms + 10 µs · p; a function that takes 1.2 ms costs as much as p = 20."""
    dial = [
        {"axis": "activation", "activation": f"horner-{k}", "p": 4 * k, "time_s": 1e-3 + 4e-5 * k} for k in (1, 2, 4, 8)
    ]
    real = {"axis": "functions", "activation": "gelu", "p": 15, "time_s": 1.2e-3}
    steps = pd.DataFrame([*dial, real]).assign(layers="64-256-10", n=256, u=256)
    (found,) = activations.calibrate(steps, multiply_add_s=2e-11)
    assert found.equivalent_p == pytest.approx(20)
    assert found.multiply_adds == pytest.approx(2e-4 / 256 / 256 / 2e-11)
    assert activations.calibrate(steps.iloc[3:], 2e-11)[0].equivalent_p is None
