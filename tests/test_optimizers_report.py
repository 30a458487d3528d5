"""Optimizers in the analysis: fitted and judged apart, told beside each other; without them nothing changes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import cells as cell_table
from analysis import costs, exports, history_record, load, predict, ratios, verdicts
from analysis.report import write_report
from bench.cells import Cell, Point, Setting
from impls import registry
from impls.interface import Network
from impls.optimizers import OPTIMIZERS
from tests import planted

#: Seconds of an update for each parameter that are planted.
PLANTED = {"gradient-descent": 1e-9, "momentum": 2e-9, "adam": 5e-9}


def updates(optimizer: str, seed: int) -> list[dict[str, Any]]:
    """Updates that cost c·m with the optimizer's own c, along the axes: the joint design has steps alone."""
    cost, axes = PLANTED[optimizer], replace(planted.RANGE, joint=0, heldout=0)
    return planted.entries(lambda f: 1e-6 + cost * f["m"], seed=seed, phase="update", optimizer=optimizer, chosen=axes)


def centre(optimizer: str, times: float) -> list[dict[str, Any]]:
    """Whole steps at the centre, so many times as slow as gradient descent's."""
    steps = planted.entries(lambda f: times * planted.additive(f), seed=9, optimizer=optimizer)
    here = planted.RANGE
    layers = [64, *[here.width] * here.hidden, 10]
    wanted = {"layers": layers, "activation": f"horner-{here.degree}", "n": here.n}
    found = [row for row in steps if {key: row["extra_info"][key] for key in wanted} == wanted]
    for row in found:
        row["extra_info"]["axis"] = "optimizers"
    return found


def load_of(folder: Path, rows: Sequence[dict[str, Any]]) -> load.Run:
    return load.load([planted.write(folder / "x.json", rows)])


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    steps = planted.entries(planted.additive, seed=1, peak_bytes=planted.arrays)
    others = [*centre("adam", 1.5), *centre("momentum", 1.1)]
    return [*steps, *(row for i, name in enumerate(PLANTED) for row in updates(name, i)), *others]


@pytest.fixture(scope="module")
def written(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("optimizers")
    write_report([planted.write(folder / "x.json", rows)], folder / "out")
    return folder / "out"


def test_each_optimizer_is_fitted_by_itself(written: Path) -> None:
    fits = json.loads((written / "fits.json").read_text())["fits"]
    found = {fit["optimizer"]: fit for fit in fits if fit["phase"] == "update"}
    assert found.keys() == PLANTED.keys()
    for name, cost in PLANTED.items():
        assert found[name]["verdict"] == "supported"
        assert found[name]["winning_law"] == "m"
        (parameter,) = (c for c in found[name]["costs"] if c["unit"] == "parameter")
        assert parameter["seconds"]["value"] == pytest.approx(cost, rel=0.02)
        moved = 4 * (3 + 2 * OPTIMIZERS[name].states)  # bytes, against the planted 20 GB/s
        assert parameter["share_of_ceiling"] == pytest.approx(moved / cost / 2e10, rel=0.03)
    # one step at the centre is no sweep: steps and memory are the usual optimizer's alone
    assert {fit["optimizer"] for fit in fits if fit["phase"] in ("step", "memory")} == {"gradient-descent"}


def test_the_report_tells_them_beside_each_other(written: Path) -> None:
    for name in ("report.md", "report.html"):
        page = (written / name).read_text()
        assert "the update costs O(m), whatever n" in page
        assert "the update by adam costs O(m), whatever n" in page
        assert "the update by momentum costs O(m), whatever n" in page
        assert "step 1.5" in re.sub(r"</?data[^>]*>", "", page)  # 1.5 and 1.1 times, but for what passes differ by
        assert "step 1.1" in page or "step 1.0" in page


def test_nothing_changes_where_there_is_one(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    plain = [row for row in rows if row["extra_info"]["optimizer"] == "gradient-descent"]
    judged = {}
    for name, chosen in (("plain", plain), ("all", rows)):
        write_report([planted.write(tmp_path / f"{name}.json", chosen)], tmp_path / name)
        fits = json.loads((tmp_path / name / "fits.json").read_text())["fits"]
        judged[name] = [fit for fit in fits if fit["optimizer"] == "gradient-descent"]
    assert judged["plain"] == judged["all"]
    assert "Optimizers" not in (tmp_path / "plain" / "report.md").read_text()
    assert "by adam" not in (tmp_path / "plain" / "report.html").read_text()


def test_other_optimizers_alone_make_a_report(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "x.json", [*updates("adam", 1), *centre("adam", 1.0)])
    write_report([path], tmp_path / "out")
    fits = json.loads((tmp_path / "out" / "fits.json").read_text())["fits"]
    assert {fit["optimizer"] for fit in fits} == {"adam"}
    assert {fit["phase"]: fit["verdict"] for fit in fits}["update"] == "supported"


def test_predictions_rest_on_the_usual_one(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = predict.series(load_of(tmp_path, rows), "numpy")
    assert set(found.steps["optimizer"]) == {"gradient-descent"}


def test_the_history_keeps_them_apart(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    points = list(history_record._points(load_of(tmp_path, rows)))
    keys = [(p.group, p.quantity, p.unit, p.cell) for p in points if p.quantity != "winning law"]
    assert len(set(keys)) == len(keys)
    costs_of = {p.cell: p for p in points if p.quantity == "cost: parameter" and p.group.phase == "update"}
    assert costs_of.keys() == {"", "momentum", "adam"}


def test_exports_name_them(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = planted.write(tmp_path / "x.json", rows)
    names = [entry.name for entry in exports.entries_of(path)]
    assert any(name.endswith("update optimizer=adam") for name in names)


def test_labels_are_those_of_the_files() -> None:
    setting = Setting(registry.find("numpy"), "cpu", "float32", 1)
    for optimizer in PLANTED:
        point = Point(Network((64, 10), "tanh"), 32, (), optimizer=optimizer)
        row = {"impl": "numpy", "device": "cpu", "dtype": "float32", "layers": "64-10", "activation": "tanh"}
        row |= {"loss": "mse", "optimizer": optimizer, "n": "32", "phase": "update"}
        assert ratios.label(row) == Cell(setting, point, "update").label


def test_what_must_move_follows_from_the_states() -> None:
    assert dict(costs.MOVES_PER_PARAMETER) == {name: 3 + 2 * o.states for name, o in OPTIMIZERS.items()}


def test_intervals_do_not_lend_each_other_variance(tmp_path: Path) -> None:
    calm = planted.Noise(between=0.001, within=0.001)
    wild = planted.Noise(between=0.2, within=0.001)
    law = lambda f: 1e-6 + 1e-9 * f["m"]  # noqa: E731
    mixed = [
        *planted.entries(law, seed=1, phase="update", noise=calm),
        *planted.entries(law, seed=2, phase="update", noise=wild, optimizer="adam"),
    ]
    table = cell_table.table(load_of(tmp_path, mixed).entries)
    width = table.groupby("optimizer")["precision"].median()
    assert width["gradient-descent"] < 0.02 < width["adam"]
    assert np.isfinite(width).all()


def test_judged_in_every_phase_only_by_the_usual_one(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    run = load_of(tmp_path, rows)
    judged = verdicts.judge(run.entries, cell_table.table(run.entries), resamples=20)
    assert {(v.phase, v.optimizer) for v in judged} == {
        ("step", "gradient-descent"),
        ("memory", "gradient-descent"),
        *(("update", name) for name in PLANTED),
    }
