"""Progress: planted truths get the right words; the grid grows, divergence is told by its step, the libraries agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.experiments import Claimed, found, progress, section
from analysis.experiments.progress import Compared, compared, data_of, mean_of, word_of
from analysis.statistics import Estimate
from backprop_files import UserError
from bench import experiments, reference_kernel
from bench.experiments import Settings, training
from bench.experiments import progress as measured
from bench.experiments import run as experimenter
from bench.experiments.training import Schedule, losses, train
from bench.experiments.workbench import Workbench
from bench.process import CellFailed
from bench.quiet import Quiet
from impls import datasets, reference, registry
from impls.interface import Network, Problem
from impls.optimizers import NAMES as OPTIMIZERS
from impls.problem import make_problem
from tests.planted_progress import EPOCHS, GRID, Truth, found_from, found_of, grid_row, run_row
from tests.test_conformance import available

PLAIN = "gradient-descent"
USUAL: dict[tuple[str, str], Truth] = {
    ("batch", PLAIN): ((40, 44, 36), 1e-3),
    ("mini-batch", PLAIN): ((3, 3.3, 2.7), 2e-3),
    ("stochastic", PLAIN): ((2, 2.2, 1.8), 0.1),
    ("mini-batch", "adagrad"): ((1.5, 1.7, 1.4), 2e-3),
    ("mini-batch", "rmsprop"): ((1.5, 1.6, 1.3), 2e-3),
    ("mini-batch", "adam"): ((1.5, 1.8, 1.3), 2.2e-3),
}


def claims(truths: Mapping[tuple[str, str], Truth]) -> list[Claimed]:
    return progress.claims_of(data_of(found_of(USUAL | dict(truths)))[0])


def words(truths: Mapping[tuple[str, str], Truth]) -> list[str]:
    return [claim.cells["numpy"].word for claim in claims(truths)]


EPOCH, OVER_BATCH, OVER_STOCHASTIC, FEWER, QUICKER = range(5)


# --- words ----------------------------------------------------------------------------------------------------------


def test_true_claims_are_supported() -> None:
    assert words({}) == ["supported"] * 5


def test_claims_name_data_level_and_batches() -> None:
    told = claims({})[OVER_BATCH]
    assert "planted" in told.statement and "b = 32" in told.statement and "95\N{NO-BREAK SPACE}%" in told.statement
    # 3 epochs × 2 ms over 40 × 1 ms, and the other seeds alike
    assert told.cells["numpy"].evidence.startswith("0.15× [")


@pytest.mark.parametrize(
    ("claim", "truths"),
    [
        (EPOCH, {("stochastic", PLAIN): ((2, 2.2, 1.8), 5e-4)}),
        (OVER_BATCH, {("batch", PLAIN): ((1, 1.1, 0.9), 1e-3)}),
        (OVER_STOCHASTIC, {("stochastic", PLAIN): ((2, 2.2, 1.8), 1e-3)}),
        (FEWER, {("mini-batch", "rmsprop"): ((6, 6.5, 5.6), 2e-3)}),
        (QUICKER, {("mini-batch", "adam"): ((1.5, 1.8, 1.3), 9e-3)}),
    ],
)
def test_false_claims_are_refuted(claim: int, truths: dict[tuple[str, str], Truth]) -> None:
    assert words(truths)[claim] == "refuted"


@pytest.mark.parametrize(
    ("claim", "truths"),
    [
        (OVER_BATCH, {("batch", PLAIN): ((2, 30, 4), 1e-3)}),
        (OVER_STOCHASTIC, {("stochastic", PLAIN): ((0.3, 5, 0.4), 0.01)}),
        (FEWER, {("mini-batch", "adagrad"): ((1, 9, 3), 2e-3)}),
    ],
)
def test_what_scatters_is_inconclusive(claim: int, truths: dict[tuple[str, str], Truth]) -> None:
    assert words(truths)[claim] == "inconclusive"


def test_one_seed_tells_nothing() -> None:
    assert set(words({key: (epochs[:1], cost) for key, (epochs, cost) in USUAL.items()})) == {"inconclusive"}


def test_a_rival_that_never_gets_there_bounds_the_ratio() -> None:
    cell = claims({("batch", PLAIN): ((40, None, None), 1e-3)})[OVER_BATCH].cells["numpy"]
    assert cell.word == "supported"
    assert cell.evidence.startswith("at most ")
    assert "1 of 3 seeds" in cell.why
    # at most says nothing about more
    assert words({("batch", PLAIN): ((0.1, 0.1, None), 1e-3)})[OVER_BATCH] == "inconclusive"


def test_who_never_gets_there_does_not_win() -> None:
    cell = claims({("mini-batch", PLAIN): ((None, None, None), 2e-3)})[OVER_BATCH].cells["numpy"]
    assert (cell.word, cell.evidence[:8]) == ("refuted", "at least")
    assert words({("mini-batch", PLAIN): ((3, 3.3, None), 2e-3)})[OVER_BATCH] != "supported"


def test_where_neither_gets_there_nothing_is_said() -> None:
    never: Truth = ((None, None, None), 2e-3)
    cell = claims({("mini-batch", PLAIN): never, ("batch", PLAIN): never})[OVER_BATCH].cells["numpy"]
    assert (cell.word, "neither" in cell.evidence) == ("inconclusive", True)


def test_intervals_cover_and_rarely_refute_the_truth() -> None:
    rng = np.random.default_rng(5)
    logs = -0.2 + 0.3 * rng.standard_normal((600, 3, 5))  # three methods, each better by exp(-0.2), five seeds
    intervals = [mean_of(one).interval() for trial in logs for one in trial]
    covered = np.mean([interval.low <= -0.2 <= interval.high for interval in intervals])
    assert covered == pytest.approx(0.95, abs=0.02)
    level = logs + 0.2  # none is better or worse
    refuted = np.mean([word_of([Compared(mean_of(one), 5) for one in trial]) == "refuted" for trial in level])
    assert refuted < 0.05


def test_every_method_must_hold() -> None:
    less, more, none = (Compared(Estimate(value, 0.1, 4), 5) for value in (-1.0, 1.0, 0.0))
    assert [word_of(parts) for parts in ([less, less], [less, none], [less, more])] == [
        "supported",
        "inconclusive",
        "refuted",
    ]


# --- levels and curves ----------------------------------------------------------------------------------------------


def test_a_level_is_reached_between_two_looks() -> None:
    run = data_of(found_of({("batch", PLAIN): ((10.25,), 1e-3)}))[0].runs[0]
    for level, epochs in ((0.95, 10.25), (0.475, 5.125), (-1.0, 1 / 4)):  # a step at least
        assert run.to(level) == pytest.approx((epochs, True))
    assert run.to(0.99) == (EPOCHS, False)


def test_pairs_are_seeds() -> None:
    runs = data_of(found_of(USUAL))[0]
    mini, batch = runs.of("numpy", "mini-batch", PLAIN), runs.of("numpy", "batch", PLAIN)
    del mini[1]
    one = compared(mini, batch, 0.95, "epochs")
    assert one.seeds == 2
    assert one.ratio.value == pytest.approx(np.sqrt(3 / 40 * 2.7 / 36))


def test_levels_are_shares_where_the_best_is_low_and_for_numbers() -> None:
    low = run_row("numpy", "batch", PLAIN, 0, None, 1e-3)
    (data,) = data_of(found_from([low], "numpy"))
    assert data.relative and data.levels == pytest.approx((0.4, 0.45, 0.475))
    r2 = run_row("numpy", "batch", PLAIN, 0, 10.0, 1e-3, kind="regression")
    (data,) = data_of(found_from([r2], "numpy"))
    assert data.relative and "R²" in data.level()


def test_where_nothing_is_learned_no_level_is_reached() -> None:
    row = run_row("numpy", "batch", PLAIN, 0, 10.0, 1e-3, kind="regression", test_score=[-1.0] * 121)
    made = section(found_from([row, *GRID], "numpy"))
    assert "0 of 1 seeds" in made.lead


def test_curves_that_do_not_coincide_are_told() -> None:
    def paragraphs(change: slice) -> str:
        rows = [run_row(impl, "batch", PLAIN, 0, 10.0, 1e-3) for impl in ("numpy", "torch")]
        for i in range(*change.indices(121)):
            rows[1]["loss"][i] *= 1.01
        return " ".join(section(found_from([*rows, *GRID], "numpy", "torch")).paragraphs)

    assert "do NOT coincide" in paragraphs(slice(3, 6))
    assert "curves coincide" in paragraphs(slice(100, 121))  # rounding may grow


def test_the_grid_is_told_whole() -> None:
    tables = section(found_of(USUAL)).tables
    (grid,) = (table for table in tables if "tried" in table.header)
    assert grid.rows[0][-1] == "0.01: 0.9 · 0.1: 0.4 · 1: diverged at step 7"
    edge = found_of(USUAL, extra=[grid_row(0.1, 0.4, True), grid_row(0.3, 0.5, False)])
    assert "the last that was tried" in " ".join(section(edge).paragraphs)
    assert "lie between others" in " ".join(section(found_of(USUAL)).paragraphs)


def test_never_reached_stays_in_the_tables_and_figures() -> None:
    never: Truth = ((3, None, None), 1e-3)
    made = section(found_of(USUAL | {("batch", PLAIN): never}))
    assert "1 of 3 seeds" in str(made.tables[0].rows)
    assert [drawn.key for drawn in made.figures] == ["progress-curves", "progress-optimizers", "progress-levels"]


def test_diverged_runs_and_failed_tasks_are_named() -> None:
    gone = run_row("numpy", "batch", PLAIN, 0, None, 1e-3, diverged_at=17)
    gone["loss"][-1] = gone["test_score"][-1] = None
    failed = {"impl": "sklearn", "key": "sklearn: planted", "reason": "sklearn has no optimizer 'adam'"}
    made = section(found_from([gone, *GRID], "numpy", failed=[failed]))
    assert "step 17" in " ".join(made.paragraphs)
    assert "no optimizer 'adam'" in made.failed[0]
    assert section(found_from([], "numpy", failed=[failed])).failed


# --- schedules, grids and divergence --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch", "pieces"), [(1078, 32, 11), (265, 32, 8), (265, 1, 5), (7, 7, 1), (10, 3, 2)])
def test_pieces_make_up_the_epoch(n: int, batch: int, pieces: int) -> None:
    schedule = Schedule(batch, 2, seed=3, pieces=pieces)
    rows = list(schedule.rows(n, pieces, 2 * pieces))
    assert np.array_equal(np.concatenate(rows), schedule.order(n, 2))
    assert all(len(part) % batch == 0 for part in rows[:-1])
    taken = sum(-(-len(part) // batch) for part in rows)
    assert schedule.steps(n, 2 * pieces) == 2 * taken == 2 * -(-n // batch)


def test_schedules_look_often_at_first() -> None:
    schedule = measured.schedule_of(1078, 32, 15, 0)
    assert schedule.pieces == 11  # 33 whole batches in equal pieces
    assert schedule.looks[:4] == (1, 2, 3, 4) and schedule.looks[-1] == 165
    assert measured.schedule_of(1078, 1078, 20, 0).pieces == 1
    assert measured.schedule_of(101, 1, 1, 0).pieces == measured.MOST_PIECES  # nothing divides a prime


def test_batches_fit_the_rows() -> None:
    assert measured.batches(1078) == {"batch": 1078, "mini-batch": 32, "stochastic": 1}
    assert measured.batches(3) == {"batch": 3, "mini-batch": 1, "stochastic": 1}
    for batch in (0, 4):
        with pytest.raises(UserError, match=f"batch size {batch}: give 1 to 3"):
            training.check_batch(batch, 3)


@pytest.mark.parametrize(
    ("scores", "beyond"),
    [
        ({1.0: 3.0, 3.0: 2.0, 9.0: 1.0}, 27.0),
        ({1.0: 1.0, 3.0: 2.0, 9.0: 3.0}, 1 / 3),
        ({1.0: 3.0, 3.0: 1.0, 9.0: 2.0}, None),
        ({1.0: 3.0, 3.0: 1.0, 9.0: math.inf}, None),
        ({1.0: math.inf, 3.0: math.inf}, 1 / 3),
    ],
)
def test_the_grid_grows_where_the_best_is_on_its_edge(scores: dict[float, float], beyond: float | None) -> None:
    assert measured.beyond_edge(scores) == beyond


def tuned(monkeypatch: pytest.MonkeyPatch, best: float, diverges_from: float = math.inf) -> list[dict[str, Any]]:
    def one(bench: Any, parts: Any, arguments: Any, rate: float, seed: int) -> dict[str, Any]:
        gone = rate >= diverges_from
        score = None if gone else abs(math.log(rate / (best * 3**seed)))
        return {"rate": rate, "seed": seed, "score": score, "diverged_at": 5 if gone else None}

    monkeypatch.setattr(measured, "_try", one)
    asked: Any = {"rates": [0.1, 0.3, 0.9], "seeds": [0, 1]}
    return measured.tune(None, None, asked)  # type: ignore[arg-type]


def test_tuning_finds_a_best_rate_outside_its_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuned(monkeypatch, best=8.1)
    assert {row["seed"]: row["rate"] for row in rows if row["chosen"]} == pytest.approx({0: 8.1, 1: 24.3})
    assert max(row["rate"] for row in rows) == pytest.approx(72.9)
    rows = tuned(monkeypatch, best=8.1, diverges_from=1.0)
    assert {row["rate"] for row in rows if row["chosen"]} == {0.9}
    assert [row["diverged_at"] for row in rows if row["rate"] > 0.9] == [5, 5]  # and stay among the rows


def test_tuning_says_that_everything_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="every learning rate from"):
        tuned(monkeypatch, best=1.0, diverges_from=0.0)


def workbench(name: str, dtype: str = "float64") -> Workbench:
    kernels = reference_kernel.make("cpu", "")
    return Workbench(available(registry.find(name)), "cpu", dtype, 1, 0, kernels, Quiet(kernels))


def diverging(rate: float) -> Problem:
    return make_problem(Network((5, 7, 4), "tanh", "mse"), 23, seed=2, learning_rate=rate)


def step_of_divergence(problem: Problem, schedule: Schedule) -> int:
    """Step by step by the reference."""
    batches = []
    for epoch in range(1, schedule.epochs + 1):
        order = schedule.order(problem.n, epoch)
        batches += [order[i : i + schedule.batch] for i in range(0, problem.n, schedule.batch)]
    limit = training.DIVERGED * reference.loss(problem)
    with np.errstate(all="ignore"):
        for step in range(1, len(batches) + 1):
            theta = reference.after_epochs(problem, batches[:step], schedule.batch)
            if not reference.loss(problem, theta) <= limit:
                return step
    raise AssertionError("does not diverge")


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("looks", [(), (2, 5)])
@pytest.mark.parametrize(("batch", "rate"), [(23, 30.0), (4, 12.0)])
def test_divergence_is_told_by_its_step(batch: int, rate: float, looks: tuple[int, ...], pieces: int) -> None:
    problem = diverging(rate)
    schedule = Schedule(batch, 40, 1, looks, 1 if batch == 23 else pieces)
    rows = train(workbench("numpy"), problem, schedule, losses(problem), lambda seen: False)
    assert rows[-1]["diverged_at"] == step_of_divergence(problem, schedule)
    assert rows[-1]["diverged_at"] <= rows[-1]["steps"]
    assert all(row["diverged_at"] is None for row in rows[:-1])


def test_a_run_stops_when_it_is_enough() -> None:
    problem = diverging(0.1)
    rows = train(workbench("numpy"), problem, Schedule(4, 30), losses(problem), lambda seen: seen["loss"] < 1.0)
    assert rows[-1]["loss"] < 1.0 <= rows[-2]["loss"] or len(rows) == 2


def test_a_score_is_the_mean_over_the_logarithm_of_epochs() -> None:
    # from 1 to 10 on average 2, from 10 to 1,000 always 1
    assert measured.mean_over_log([1, 10, 1000], [3.0, 1.0, 1.0]) == pytest.approx((2 + 2 * 1) / 3)
    assert measured.mean_over_log([1], [0.5]) == 0.5


def test_skill_is_accuracy_or_the_explained_share() -> None:
    classes = datasets.Dataset("a", np.zeros((4, 1)), np.eye(2)[[0, 1, 1, 0]], np.array([0, 1, 1, 0]))
    assert measured.skill(np.array([[2.0, 1], [0, 1], [1, 0], [5, 4]]), classes) == 0.75
    numbers = datasets.Dataset("b", np.zeros((4, 1)), np.array([[0.0], [1], [2], [3]]))
    assert measured.skill(np.full((4, 1), 1.5), numbers) == 0.0
    assert measured.skill(numbers.targets, numbers) == 1.0


# --- the libraries, and the whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_libraries_curves_coincide(optimizer: str) -> None:
    pytest.importorskip("sklearn")
    parts = datasets.split(datasets.find("digits"), 0)
    part = parts.train.take(np.arange(200))
    rate = measured.CENTRES[optimizer][1]
    curves = {}
    for name in experiments.IMPLS:
        problem = measured.problem_of(part, 0, rate, optimizer)
        schedule = replace(measured.schedule_of(problem.n, 32, 3, 0), pieces=2, looks=())
        look = measured.progress(parts._replace(train=part))
        rows = train(workbench(name), problem, schedule, look, lambda seen: False)
        curves[name] = [[row["loss"], row["test_loss"]] for row in rows]
    assert len(curves["numpy"]) == 7
    for name in ("torch", "jax"):
        np.testing.assert_allclose(curves[name], curves["numpy"], rtol=1e-6)


def test_data_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data set"):
        measured.tasks(Settings(data="digist"))
    path = tmp_path / "rows.csv"
    path.write_text("1,2,0.5\n3,x,0.25\n")
    with pytest.raises(UserError, match=r"rows\.csv"):
        measured.tasks(Settings(data=str(path)))


def test_tasks_are_named_once_and_need_their_rates() -> None:
    pytest.importorskip("sklearn")
    for profile in measured.PLANS:
        tasks = measured.tasks(Settings(profile=profile))
        keys = [task.key for task in tasks]
        assert len(set(keys)) == len(keys)
        for i, task in enumerate(tasks):
            assert set(task.needs) <= set(keys[:i])


def test_a_task_without_what_it_needs_fails(tmp_path: Path) -> None:
    record = experimenter.Record(tmp_path, measured.EXPERIMENT, Settings())
    with pytest.raises(CellFailed, match="needs 'rates: digits'"):
        record.rows_of(["rates: digits"])


def test_smoke_from_the_tasks_to_the_section(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    table = np.random.default_rng(0).standard_normal((60, 3))
    path = tmp_path / "rows.csv"
    np.savetxt(path, np.column_stack([table, table @ [0.5, -1, 0.25] + 0.1]), delimiter=",")
    settings = Settings(profile="smoke", impls=("numpy", "sklearn"), data=str(path))
    failed = experimenter.run([measured.EXPERIMENT], settings, tmp_path / "run", False, Console(quiet=True))
    assert failed and all("no optimizer 'adam'" in row["reason"] for row in failed)
    (one,) = found.in_directory(tmp_path / "run")
    made = section(one)
    assert len(made.failed) == len(failed)
    assert {claim.statement.split(":")[0] for claim in made.claims} == {"rows.csv (3-64-1)"}
    assert all("numpy" in claim.cells for claim in made.claims)
    assert "curves coincide" in " ".join(made.paragraphs)
    again = experimenter.run([measured.EXPERIMENT], settings, tmp_path / "run", True, Console(quiet=True))
    assert len(again) == len(failed)
