"""What is read from files of an accelerator: launching, copies, events, and where it wins, on a planted truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import cells, devices, events, figures, growth, launch, load, transfers, verdicts
from analysis.claims import CLAIMS
from analysis.exponents import exponents
from analysis.report import write_report
from backprop_files import UserError
from tests import planted, planted_gpu
from tests.planted import Noise
from tests.planted_gpu import Truth

STEP = CLAIMS["step"].exponents
QUIET = Noise(0.0, 0.0)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Iterable[dict[str, Any]]], load.Run]:
    def run(benchmarks: Iterable[dict[str, Any]]) -> load.Run:
        path = tmp_path / "x.json"
        path.write_text(json.dumps(planted_gpu.document(list(benchmarks))))
        return load.load([path])

    return run


def noisy(rows: pd.DataFrame, rng: np.random.Generator, noise: float = 0.01) -> pd.DataFrame:
    return rows.assign(time_s=rows["time_s"] * np.exp(noise * rng.standard_normal(len(rows))))


def centre() -> dict[str, Any]:
    """Facts of a step on the examples axis."""
    (entry,) = planted_gpu.entries(seed=0, passes=1, only=slice(0, 1))
    found: dict[str, Any] = entry["extra_info"]
    return found


# --- launching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [1.0, 2.0, 4.0, 20.0])
def test_a_knee_of_any_sharpness_is_found(sharpness: float) -> None:
    x = np.array([4.0**i for i in range(10)])
    true = growth.Growth(1e-4, 2e-7, 1.0, sharpness)
    found = growth.knee(x, true.at(x))
    assert found.fixed == pytest.approx(true.fixed, rel=0.01)
    assert found.crossover == pytest.approx(true.crossover, rel=0.02)
    assert found.power == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 20.0])
def test_the_interval_of_the_crossover_covers_the_truth(sharpness: float, read: Any) -> None:
    truth = Truth(sharpness=sharpness, moves=0)
    rows = read(planted_gpu.entries(truth, seed=0, rounds=1, noise=QUIET)).entries
    rng, true = np.random.default_rng(7), truth.crossover(centre(), "float32", "examples")
    found = [launch.launch(noisy(rows, rng), STEP) for _ in range(30)]
    covered = [f is not None and f.crossover.low <= true <= f.crossover.high for f in found]
    assert np.mean(covered) >= 0.85  # of 30 at 95 %, fewer than 26 happen once in 60
    assert np.mean([f is not None and f.named for f in found]) >= 0.9
    assert np.median([f.crossover.high / f.crossover.low for f in found if f]) < 1.3  # narrow enough to say something


def test_exponents_are_those_of_arithmetic_though_most_cells_are_bound_by_launching(read: Any) -> None:
    truth = Truth(launch_s=2e-5, moves=0)
    rows = read(planted_gpu.entries(truth, seed=0, rounds=1, noise=QUIET)).entries
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(15):
        drawn = noisy(rows, rng)
        found = launch.launch(drawn, STEP)
        assert found is not None
        n = exponents(drawn, STEP, found.arithmetic)["n"]
        assert n.ci_low is not None
        assert n.ci_high is not None
        covered.append(n.ci_low - 0.005 <= 1 <= n.ci_high + 0.005)
        assert n.range_low is not None
        assert n.range_low * centre()["m"] > found.crossover.value
    assert np.mean(covered) >= 0.85


def test_the_verdict_names_the_regime_its_crossover_and_the_law_beyond(read: Any) -> None:
    run = read(planted_gpu.entries(seed=1))
    table = cells.table(run.entries)
    (step,) = (v for v in verdicts.judge(run.entries, table, resamples=0) if v.phase == "step")
    assert "Launch-overhead regime up to n·m ≈ " in step.reason
    assert "grows with neither n (exponent 0.0" in step.reason
    assert "judged in the arithmetic regime" in step.reason
    assert step.choice.winner is not None
    assert step.choice.winner.heldout_median < 0.08
    assert step.launch is not None
    judged = table[step.launch.arithmetic(table)]
    assert (judged["time_s"] >= 4.5 * 1.5e-4).all()
    assert step.choice.winner.fitted_cells + step.choice.winner.heldout_cells <= len(judged)


def test_a_sweep_that_never_leaves_launching_says_so(read: Any) -> None:
    run = read(planted_gpu.entries(Truth(launch_s=10.0), seed=2))
    (step,) = (v for v in verdicts.judge(run.entries, cells.table(run.entries), resamples=0) if v.phase == "step")
    assert "is not reached in this sweep" in step.reason
    assert step.word == "inconclusive"
    assert step.choice.winner is None
    assert step.launch is not None
    assert step.launch.named
    assert not np.isfinite(step.launch.crossover.value)


def test_growth_from_the_first_cell_on_is_not_called_launching(read: Any) -> None:
    rows = read(planted_gpu.entries(Truth(launch_s=1e-9, latency_s=0.0), seed=0, rounds=1, noise=QUIET)).entries
    rng = np.random.default_rng(5)
    named = [found.named for _ in range(30) if (found := launch.launch(noisy(rows, rng), STEP))]
    assert sum(named) == 0


def test_slow_growth_is_not_called_flat(read: Any) -> None:
    """Planted error: what should be flat grows as n^0.15."""
    rows = read(planted_gpu.entries(seed=0, rounds=1, noise=QUIET)).entries
    grown = rows.assign(time_s=rows["time_s"] * rows["n"] ** 0.15)
    rng = np.random.default_rng(6)
    assert not any(found.named for _ in range(10) if (found := launch.launch(noisy(grown, rng), STEP)))


def test_nothing_of_it_on_the_cpu(read: Any, tmp_path: Path) -> None:
    run = read(planted_gpu.on_cpu(1e11, seed=3, call_s=1e-3))
    judged = verdicts.judge(run.entries, cells.table(run.entries), resamples=0)
    assert all(v.launch is None and "aunch" not in v.reason for v in judged)
    path = planted.write(tmp_path / "cpu.json", planted.entries(planted.additive, seed=1))
    write_report([path], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text() + (tmp_path / "out" / "fits.json").read_text()
    assert not any(word in text for word in ("aunch", "hrottled", "ccelerator wins", "Copies"))


# --- several dtypes, copies, events ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over an accelerator's run and that of a CPU elsewhere."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "gpu.json").write_text(json.dumps(planted_gpu.document(list(planted_gpu.several()))))
    host = [
        *planted_gpu.on_cpu(8e11, seed=50, call_s=5e-6),
        *planted_gpu.on_cpu(1e12, seed=51, impl="torch", call_s=4e-5, only=slice(0, 30)),
    ]
    elsewhere = planted_gpu.document(host, ())
    elsewhere["machine_info"]["cpu_model"] = "another host"
    (folder / "cpu.json").write_text(json.dumps(elsewhere))
    write_report([folder / "gpu.json", folder / "cpu.json"], folder / "out")
    return folder


@pytest.fixture(scope="module")
def both(written: Path) -> tuple[load.Run, pd.DataFrame]:
    run = load.load([written / "gpu.json", written / "cpu.json"])
    return run, cells.table(run.entries)


def test_groups_and_ceilings_are_by_dtype(both: tuple[load.Run, pd.DataFrame]) -> None:
    _, table = both
    for dtype, rate in planted_gpu.RATES.items():
        rows = table[(table["dtype"] == dtype) & (table["device"] == "cuda")]
        assert np.allclose(rows["ceiling_flops"], 0.9 * rate)
    largest = {row["dtype"]: row["share_of_ceiling"] for row in events.at_ceiling(table).to_dict("records")}
    assert set(largest) == {"float32", "tf32", "bfloat16", "float16"}
    assert all(0 < share < 0.8 / 0.9 + 0.02 for share in largest.values())


def test_a_run_in_one_dtype_is_judged_the_same_with_others_beside_it(both: Any, read: Any) -> None:
    run, table = both
    alone = read(planted_gpu.entries(seed=10, dtype="tf32", phases=("step", "transfer", "transfer-pinned")))
    one = verdicts.judge(alone.entries, cells.table(alone.entries), resamples=0)
    many = verdicts.judge(run.entries, table, resamples=0)
    same = [v for v in many if (v.impl, v.device, v.dtype) == ("torch", "cuda", "tf32")]
    assert [v.reason for v in same] == [v.reason for v in one]


def test_copies_are_no_steps_and_have_their_rate(both: Any, written: Path) -> None:
    _, table = both
    copied = transfers.copies(table)
    assert set(copied["phase"]) == {"transfer", "transfer-pinned"}
    found = transfers.links(copied)[("torch", "cuda", "float32", "transfer-pinned")]
    assert found.bytes_per_s == pytest.approx(2.5e10, rel=0.03)
    assert found.latency_s == pytest.approx(1e-5, rel=0.05)
    pageable = transfers.links(copied)[("torch", "cuda", "float32", "transfer")]
    assert pageable.bytes_per_s == pytest.approx(2.5e10 / 3, rel=0.03)
    fits = json.loads((written / "out" / "fits.json").read_text())["fits"]
    assert {fit["phase"] for fit in fits} == {"step", "memory"}
    assert "transfer-pinned" in (written / "out" / "report.md").read_text()


def test_host_overhead_is_wall_minus_device(both: Any) -> None:
    run, _ = both
    found = {(o.name, o.size): o for o in events.overheads(run.entries, {})}
    small, large = (found["torch cuda float32", size] for size in ("smallest", "largest"))
    assert small.wall_s == pytest.approx(1.5e-4, rel=0.02)
    assert small.share.value > 0.9
    assert abs(large.share.value) < 0.01
    assert not any("jax" in name for name, _ in found)  # no events there


def test_replaying_is_told_as_a_ratio_with_its_interval(both: Any) -> None:
    run, _ = both
    found = {r.dtype: r for r in events.replays(run.entries)}
    assert set(found) == {"float32", "tf32", "bfloat16", "float16"}
    assert all(r.ratio.low <= 7.5 <= r.ratio.high or abs(r.ratio.value / 7.5 - 1) < 0.02 for r in found.values())
    assert found["float32"].ratio.high / found["float32"].ratio.low < 1.2


def test_throttling_clock_and_temperature_are_told(both: Any) -> None:
    run, table = both
    found = {c.name: c for c in events.conditions(run.entries, table)}
    rows = run.entries[(run.entries["impl"] == "torch") & (run.entries["dtype"] == "tf32")]
    assert found["torch cuda tf32"].throttled == len(rows) > 0
    assert found["torch cuda float32"].throttled == 0
    assert (found["torch cuda float32"].clock_low, found["torch cuda float32"].clock_high) == (1.96e9, 1.98e9)
    assert found["torch cuda float32"].temperature_c == 53
    assert found["torch cuda float32"].input_sets == "4"
    assert 0.004 < found["torch cuda float32"].cv < 0.02


def test_device_memory_has_its_own_law(read: Any) -> None:
    run = read([*planted_gpu.entries(seed=1), *planted_gpu.on_cpu(1e11, seed=2, impl="torch")])
    judged = verdicts.judge(run.entries, cells.table(run.entries), resamples=0)
    memory = {v.device: v for v in judged if v.phase == "memory"}
    assert set(memory) == {"cpu", "cuda"}
    winner = memory["cuda"].choice.winner
    assert winner is not None
    assert winner.crossvalidated_median < 0.01
    terms = {t.text: c for t, c in zip(winner.law.terms, winner.coefficients, strict=True)}
    assert terms["m"] == pytest.approx(8, rel=0.02)
    assert terms["1"] == pytest.approx(8 << 20, rel=0.02)


# --- where the device wins ------------------------------------------------------------------------------------------


def test_the_crossing_lies_where_it_was_planted(read: Any) -> None:
    """The device takes what launching takes, the CPU what products do: they meet at one n."""
    device = Truth(launch_s=1e-3, rates=dict.fromkeys(planted_gpu.RATES, 1e16), bandwidth=1e15, sharpness=20.0)
    run = read(
        [
            *planted_gpu.entries(device, seed=1, phases=("step", "transfer-pinned")),
            *planted_gpu.on_cpu(1e12, seed=2, call_s=1e-6),
        ]
    )
    table = cells.table(run.entries)
    (match,) = devices.matches(table[table["phase"] == "step"], transfers.copies(table))
    rows = match.cells[[("examples" in axis.split(",")) for axis in match.cells["axis"]]]
    slope = np.polyfit(rows["n"], rows["host_s"], 1, w=1 / rows["host_s"])
    true = (1e-3 - slope[1]) / slope[0]
    along_n = next(c for c in devices.crossings(match, "ratio") if c.axis == "examples")
    assert along_n.at.value == pytest.approx(true, rel=0.15)  # straight between two cells that lie a factor of 4 apart
    later = next(c for c in devices.crossings(match, "ratio_with_transfer") if c.axis == "examples")
    assert later.at.value > along_n.at.value
    assert along_n.at.low < along_n.at.value < along_n.at.high


def test_only_cells_of_both_sides_take_part(both: Any) -> None:
    _, table = both
    steps = table[(table["phase"] == "step") & ~((table["device"] == "cpu") & (table["n"] == 64))]
    for match in devices.matches(steps, transfers.copies(table)):
        assert match.host_dtype == "float32"
        assert match.only_device > 0
        assert match.only_host == 0
        assert 64 not in set(match.cells["n"])
        fastest = steps[steps["device"] == "cpu"].groupby(load.BATCH)["time_s"].min()
        keys = pd.MultiIndex.from_frame(match.cells[load.BATCH])
        assert np.allclose(match.cells["host_s"], fastest.reindex(keys))


def test_copies_that_were_not_measured_are_told_by_their_line_or_not_at_all(both: Any) -> None:
    _, table = both
    steps = table[(table["phase"] == "step") & (table["impl"] == "torch") & (table["dtype"] == "float32")]
    copied = transfers.copies(table)
    fewer = copied[copied["n"] <= 1024]
    told = transfers.beside(steps[steps["device"] == "cuda"], fewer)
    beyond = told[told["n"] > 1024]
    assert not beyond["transfer_measured"].any()
    true = 1e-5 + transfers.batch_bytes(beyond) / 2.5e10
    assert np.allclose(beyond["transfer_s"], true, rtol=0.05)
    assert transfers.beside(steps, fewer.iloc[:0])["transfer_s"].isna().all()


def test_the_report_tells_all_of_it(written: Path) -> None:
    page, text = ((written / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for title in (
        "Launch overhead and arithmetic",
        "Where the accelerator wins, by axis",
        "Wall clock and device events",
        "Replaying a captured step",
        "Clock, temperature and caches",
        "Share of the ceiling at the largest cells",
        "Copies from host to device",
    ):
        assert title in page
        assert title in text
    assert "were measured on different machines or versions" in text
    assert "another host" in page
    assert (written / "out" / "figures" / "devices.png").exists()
    assert "Planted One (80 GiB, driver 1.0, compute capability 9.0)" in page
    assert sum(path.stat().st_size for path in (written / "out").rglob("*") if path.is_file()) < 6 << 20  # 11 series


def test_styles_of_many_series_differ(both: Any) -> None:
    _, table = both
    material = figures.Material(table, [], pd.DataFrame(), pd.DataFrame(), {})
    styles = [tuple(material.style(name).items()) for name in material.series]
    assert len(styles) > len(figures.COLOURS)
    assert len(set(styles)) == len(styles)


# --- odd files ------------------------------------------------------------------------------------------------------


def test_runs_that_share_a_device_must_be_of_one_machine(tmp_path: Path) -> None:
    for name, host in (("a", "one host"), ("b", "another")):
        document = planted_gpu.document(planted_gpu.entries(seed=1, passes=1, impl=name, only=slice(0, 3)))
        document["machine_info"]["cpu_model"] = host
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="different machines: cpu_model is 'one host' and 'another'"):
        load.load([tmp_path / "a.json", tmp_path / "b.json"])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("device_s", [0.1, -1.0], "device_s has times that are not positive"),
        ("clock_hz", [0.0], "clock_hz has times that are not positive"),
        ("throttled_rounds", -1, "throttled_rounds is -1, which is no count"),
        ("input_sets", True, "input_sets is True, which is no count"),
    ],
)
def test_odd_numbers_are_one_clear_line(key: str, value: Any, words: str, read: Any) -> None:
    (entry,) = planted_gpu.entries(seed=1, passes=1, only=slice(0, 1))
    entry["extra_info"][key] = value
    with pytest.raises(UserError, match=words):
        read([entry])


def test_files_without_the_new_keys_are_read_as_before(read: Any) -> None:
    (entry,) = planted_gpu.entries(seed=1, passes=1, only=slice(0, 1))
    for key in ("device_s", "clock_hz", "temperature_c", "throttled_rounds", "input_sets"):
        entry["extra_info"].pop(key)
    row = read([entry]).entries.iloc[0]
    assert row["device_seconds"] is None
    assert row["throttled_rounds"] == 0
    assert row["input_sets"] == 1
    assert events.overheads(read([entry]).entries, {}) == []


def test_a_tiny_run_on_a_device_is_a_report_all_the_same(tmp_path: Path) -> None:
    for keep in (1, 3, 6):
        found = planted_gpu.entries(replace(Truth(), latency_s=0.0), seed=1, passes=1, only=slice(0, keep))
        path = tmp_path / f"{keep}.json"
        path.write_text(json.dumps(planted_gpu.document(found)))
        write_report([path], tmp_path / f"out{keep}")
        (fit, _) = json.loads((tmp_path / f"out{keep}" / "fits.json").read_text())["fits"][::-1]
        assert fit["verdict"] == "inconclusive"
