"""Predictions over a cluster: against arithmetic of their own, from a sweep and from an experiment, and what bad input says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import backprop_bench
from analysis import cluster, cluster_figures, load, predict
from analysis.cluster import Base, Prediction
from analysis.statistics import Interval
from backprop_files import SCHEMA_VERSION, UserError, write_json
from tests import planted, planted_parallel
from tests.planted import Noise
from tests.planted_parallel import Truth

LAYERS = (64, 256, 256, 10)
M = 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
U = 512
ALPHA_S, BETA_S = 2e-5, 3e-10


def experiment(directory: Path, **how: Any) -> Path:
    """A run directory that holds the experiment alone."""
    tasks: dict[str, dict[str, Any]] = {}
    task_keys = ("impl", "pass", "key", "layout")
    for row in planted_parallel.rows(**how):
        arguments = {"ranks": row["ranks"], "cores": row["cores"], "layout": row["layout"]}
        task = {"key": row["key"], "impl": row["impl"], "pass": row["pass"], "arguments": arguments, "rows": []}
        kept = tasks.setdefault(row["key"], task)
        kept["rows"].append({key: value for key, value in row.items() if key not in task_keys})
    content = {
        "schema_version": SCHEMA_VERSION, "experiment": "parallel", "settings": {"impls": ["torch-ddp"], "dtype": "float32"},
        "machine_info": {}, "datetime": "now", "tasks": list(tasks.values()), "failed": [],
    }  # fmt: skip
    write_json(directory / "experiments" / "parallel.json", content)
    return directory


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment(tmp_path_factory.mktemp("experiment"), launch=0.0, noise=0.0)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "data"
    folder.mkdir()
    entries = planted.entries(planted.calls, seed=4, noise=Noise(0.02, 0.005), peak_bytes=planted.arrays)
    planted.write(folder / "numpy.json", entries)
    return folder.parent


def of_truth(share: float, k: int, alpha_s: float, beta_s: float) -> float:
    """T(k) of the planted experiment, each rank a machine of its own, written out."""
    truth = Truth()
    work = truth.t0_s + share * (truth.a_s * M + truth.b_s * U * 4) + truth.c_s * M
    return work + alpha_s * math.log(k) / math.log(2) + beta_s * 4 * M * (1 - 1 / k)


def predicted(run: Path, ranks: str = "1..64", n: int = 1000, **how: Any) -> Prediction:
    network = (how.pop("alpha_s", None), how.pop("beta_s", None))
    base = cluster.from_run(run, how.pop("impl", "torch-ddp"), LAYERS, "horner-1", network)
    return cluster.predicted(base, LAYERS, "horner-1", n, cluster.ranks_of(ranks))


# --- arithmetic -----------------------------------------------------------------------------------------------------


def test_an_experiment_predicts_what_is_written_out(measured: Path) -> None:
    found = predicted(measured, "1,2,3,8,64", alpha_s=ALPHA_S, beta_s=BETA_S)
    one = of_truth(1000, 1, ALPHA_S, BETA_S)
    for rank in found.strong:
        time = of_truth(math.ceil(1000 / rank.ranks), rank.ranks, ALPHA_S, BETA_S)
        assert rank.time_s.value == pytest.approx(time)
        assert rank.efficiency == pytest.approx(one / (rank.ranks * time))
        sent = ALPHA_S * math.log2(rank.ranks) + BETA_S * 4 * M * (rank.ranks - 1) / rank.ranks
        assert rank.communication == pytest.approx(sent / time)
    for rank in found.weak:
        time = of_truth(1000, rank.ranks, ALPHA_S, BETA_S)
        assert rank.n == 1000 * rank.ranks
        assert rank.time_s.value == pytest.approx(time)
        assert rank.efficiency == pytest.approx(one / time)
    assert [rank.ranks for rank in found.strong] == [1, 2, 3, 8, 64]


def test_alpha_and_beta_that_are_not_given_are_those_measured(measured: Path) -> None:
    truth = Truth()
    found = predicted(measured)
    assert found.alpha_s.value == pytest.approx(truth.alpha_s)
    assert found.strong[-1].time_s.value == pytest.approx(of_truth(16, 64, truth.alpha_s, truth.beta_s))
    half = predicted(measured, alpha_s=ALPHA_S)
    assert half.strong[-1].time_s.value == pytest.approx(of_truth(16, 64, ALPHA_S, truth.beta_s))
    assert "α given" in half.network_from


def test_a_sweep_predicts_its_law_and_the_network_beside_it(sweep: Path) -> None:
    found = predicted(sweep, "1..64", 4096, impl="numpy", alpha_s=ALPHA_S, beta_s=BETA_S)
    series = predict.series(load.load([sweep]), "numpy")
    for rank in found.strong:
        alone = predict.predict(series, LAYERS, 4096 // rank.ranks, "horner-1").time_s
        sent = ALPHA_S * math.log2(rank.ranks) + BETA_S * 4 * M * (rank.ranks - 1) / rank.ranks
        assert rank.time_s.value == pytest.approx(alone.value + sent)
        assert rank.time_s.low == pytest.approx(alone.low + sent)
        assert rank.time_s.high == pytest.approx(alone.high + sent)
    assert found.weak[-1].time_s.value == pytest.approx(found.single_s.value + ALPHA_S * 6 + BETA_S * 4 * M * 63 / 64)


def test_the_fastest_is_where_the_derivative_vanishes() -> None:
    """T(k) = t0 + w·n/k + α·log2 k + β·g·(k - 1)/k is least at k = ln 2·(w·n - β·g)/α, and not by steps of ⌈n/k⌉ here."""
    n, w, alpha_s, sent = 10_000_000, 1e-8, 1e-3, 5e-3
    base = Base(
        "planted", "", 1.0, 1.0, Interval(alpha_s, alpha_s, alpha_s), Interval(sent, sent, sent), "given",
        lambda share: 1e-4 + w * share, lambda share, k: Interval(1e-4 + w * share, 0, 1), (), lambda _, __: [],
    )  # fmt: skip
    found = cluster.predicted(base, (2, 2), "horner-1", n, [1])
    assert found.fastest == pytest.approx(math.log(2) * (w * n - sent) / alpha_s, rel=0.05)

    def time(k: float) -> float:
        return 1e-4 + w * math.ceil(n / k) + alpha_s * math.log2(k) + sent * (k - 1) / k

    assert found.fastest_s == pytest.approx(min(time(k) for k in range(1, 500)), rel=1e-3)
    assert time(found.enough) <= 1.051 * found.fastest_s < time(found.enough * 0.9)
    assert time(1) / (found.half * time(found.half)) >= 0.5 > time(1) / (1.1 * found.half * time(1.1 * found.half))


def test_intervals_hold_new_launches(tmp_path: Path) -> None:
    """Of planted runs, nine in ten of the intervals hold what a machine for each rank would take."""
    truth, hits, count = Truth(), 0, 0
    for seed in range(12):
        found = predicted(experiment(tmp_path / str(seed), seed=seed, launch=0.03), "1..64")
        for rank in found.strong:
            time = of_truth(math.ceil(1000 / rank.ranks), rank.ranks, truth.alpha_s, truth.beta_s)
            hits += rank.time_s.low <= time <= rank.time_s.high
            count += 1
            assert rank.time_s.high / rank.time_s.low < 2
    assert hits >= 0.9 * count


# --- what is said ---------------------------------------------------------------------------------------------------


def test_assumptions_and_what_lies_beyond_are_said(measured: Path) -> None:
    found = predicted(measured, "1..4096", 512)
    assert [rank.ranks for rank in found.strong][-1] == 512
    assert [rank.ranks for rank in found.weak][-1] == 4096
    assumed = " ".join(found.assumptions)
    for words in ("a machine of its own", "nobody else uses", "do not overlap", "strong scaling ends at 512 ranks"):
        assert words in assumed
    beyond = " ".join(found.beyond)
    assert "n = 1 is below the smallest measured" in beyond
    assert "α and β were measured between at most 4" in beyond
    assert not predicted(measured, "1,2,4", 512).beyond


def test_the_document_is_strict_json_with_every_number(measured: Path) -> None:
    found = predicted(measured)
    read = json.loads(json.dumps(cluster.document(found), allow_nan=False))
    assert read["strong"][1]["time_s"]["value"] == found.strong[1].time_s.value
    assert {"fastest", "half", "assumptions", "beyond", "alpha_s", "weak"} <= read.keys()


def test_figures_draw_the_prediction(measured: Path) -> None:
    found = predicted(measured)
    figure = cluster_figures.time(found)
    step = next(line for line in figure.axes[0].get_lines() if line.get_label() == "a step")
    assert step.get_ydata() == pytest.approx([1e3 * rank.time_s.value for rank in found.strong])
    ideal = next(line for line in figure.axes[0].get_lines() if line.get_label() == "ideal")
    assert ideal.get_ydata() == pytest.approx([1e3 * found.single_s.value / rank.ranks for rank in found.strong])
    strong, weak, _ = cluster_figures.efficiency(found).axes[0].get_lines()
    assert strong.get_ydata() == pytest.approx([100 * rank.efficiency for rank in found.strong])
    assert weak.get_ydata() == pytest.approx([100 * rank.efficiency for rank in found.weak])


# --- the command line -----------------------------------------------------------------------------------------------


def command(run: Path, *more: str, impl: str = "torch-ddp") -> Any:
    told = ["predict", "--run", str(run), "--impl", impl, "--n", "1000", "--widths", "64,256,256,10", "--activation"]
    return CliRunner().invoke(backprop_bench.app, [*told, "horner-1", *more])


def test_the_command_tells_and_writes(measured: Path, tmp_path: Path) -> None:
    done = command(measured, "--ranks", "1..64", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    for words in ("strong", "weak", "Assumed:", "does not get faster beyond", "extrapolated:"):
        assert words in done.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "cluster-time.svg", "cluster-time.png", "cluster-efficiency.svg", "cluster-efficiency.png", "prediction.json"
    }  # fmt: skip
    as_json = json.loads(command(measured, "--ranks", "1..64", "--json").output)
    assert as_json == json.loads((tmp_path / "out" / "prediction.json").read_text())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ranks", "0..4"), "ranks are from 1"),
        (("--ranks", "0"), "ranks are from 1"),
        (("--ranks", "8..2"), "ends before it begins"),
        (("--ranks", "two"), "give a range such as 1..4096"),
        (("--ranks", "1,,2"), "give a range"),
        (("--ranks", "2000..4096"), "fewer examples than ranks"),
        (("--ranks", "1..4", "--alpha", "-1e-6"), "--alpha -1e-06: is in seconds a hop"),
        (("--ranks", "1..4", "--alpha", "5"), "seconds a hop"),
        (("--ranks", "1..4", "--alpha", "nan"), "seconds a hop"),
        (("--ranks", "1..4", "--beta", "10"), "--beta 10: is in seconds a byte"),
        (("--ranks", "1..4", "--activation", "gelu"), "activation 'gelu' was not measured"),
        (("--ranks", "1..4", "--dtype", "float64"), "on dtype float32, not 'float64'"),
        (("--alpha", "1e-6"), "go with --ranks"),
        (("--out", "x"), "go with --ranks"),
    ],
)
def test_bad_input_is_one_line(measured: Path, options: tuple[str, ...], words: str) -> None:
    failed = command(measured, *options)
    assert isinstance(failed.exception, UserError)
    assert words in str(failed.exception)
    assert "\n" not in str(failed.exception)


def test_a_network_that_nobody_measured_is_asked_for(sweep: Path, measured: Path) -> None:
    failed = command(sweep, "--ranks", "1..4", "--beta", "1e-10", impl="numpy")
    assert str(failed.exception).startswith("--alpha: the run has measured no network for 'numpy'")
    both = sweep.parent / "both"
    (both / "experiments").mkdir(parents=True, exist_ok=True)
    (both / "data").mkdir(exist_ok=True)
    (both / "data" / "numpy.json").write_bytes((sweep / "data" / "numpy.json").read_bytes())
    (both / "experiments" / "parallel.json").write_bytes((measured / "experiments" / "parallel.json").read_bytes())
    failed = command(both, "--ranks", "1..4", impl="numpy")
    assert "its experiment parallel has torch-ddp: --alpha 5e-05 --beta 4e-10" in str(failed.exception)
    assert command(both, "--ranks", "1..4", impl="torch-ddp").exit_code == 0


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("1..8", (1, 2, 4, 8)), ("1..9", (1, 2, 4, 8)), ("3..13", (3, 6, 12)), ("8,1,3,3", (1, 3, 8)), (" 2 .. 2 ", (2,))],
)
def test_ranks_are_read(text: str, ranks: tuple[int, ...]) -> None:
    assert cluster.ranks_of(text) == ranks


def test_contention_of_shared_cores_is_no_part_of_a_cluster(tmp_path: Path) -> None:
    crowded = experiment(tmp_path, truth=Truth(contention=1.5), launch=0.0, noise=0.0)
    found = predicted(crowded, "4", alpha_s=ALPHA_S, beta_s=BETA_S)
    assert found.strong[0].time_s.value == pytest.approx(of_truth(250, 4, ALPHA_S, BETA_S))
    assert np.isfinite(found.strong[0].time_s.high)
