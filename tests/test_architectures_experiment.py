"""The experiment ``architectures``: planted laws get the right words, and a small run goes all the way to a section."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.experiments import Section, architectures
from analysis.experiments import found as files
from analysis.experiments.workload_series import Series, quadratic, reuse_line, series
from analysis.pictures import picture
from backprop_bench import _experiments
from backprop_files import EXPERIMENTS, ON_REQUEST, UserError
from bench.experiments import Settings, find, run
from bench.experiments.architectures import stated
from bench.experiments.workbench import Workbench
from bench.quiet import Quiet
from impls import registry
from impls.architectures import conformance, workloads
from impls.architectures.problem import make_problem
from impls.conformance import Mismatch
from tests import planted_architectures as planted
from tests.planted_architectures import Columns, Cost

EXPERIMENT = find("architectures")


def n_m(c: Columns) -> float:
    """n·m, with little overhead."""
    return 2e-5 + 3e-11 * c["n"] * c["m"]


def steps(c: Columns) -> float:
    """n·m·T."""
    return 2e-5 + 4e-11 * c["n"] * c["m"] * c["T"]


def products(c: Columns) -> float:
    """The reuse law."""
    return 2e-5 + 2e-11 * c["n"] * c["products"]


def pairs(c: Columns) -> float:
    """A transformer's own law."""
    per_position = 6e-11 * c["weights"] + 2e-10 * c["blocks"] * c["d"]
    return 1e-6 + c["n"] * (c["s"] * per_position + 2e-10 * c["blocks"] * c["heads"] * c["s"] ** 2)


def no_pairs(c: Columns) -> float:
    """The same, but that positions do not meet."""
    return 1e-6 + c["n"] * c["s"] * (6e-11 * c["weights"] + 2e-10 * c["blocks"] * c["d"])


def one(workload: str, cost: Cost, **more: Any) -> Series:
    (made,) = series(planted.found(planted.rows(workload, cost, **more)))
    return made


def claims(section: Section, impl: str = "planted") -> dict[str, str]:
    """The words, by the beginning of what is claimed."""
    return {claim.statement: claim.cells[impl].word for claim in section.claims}


# --- words ----------------------------------------------------------------------------------------------------------


def test_weights_used_once_support_the_article() -> None:
    made = one("mlp", n_m)
    told = architectures.of_article(made)
    assert told.word == "supported"
    assert "supported" in told.why and "refuted" not in told.why
    assert made.best is not None and made.best.law.name == "n·m·p"
    for along in made.along:
        assert along.exponent.value == pytest.approx(1.0, abs=0.05)
        assert along.beyond_nm is not None and along.beyond_nm.value == pytest.approx(0.0, abs=0.05)


def test_steps_refute_it_from_above_and_the_right_law_wins() -> None:
    made = one("rnn", steps)
    told = architectures.of_article(made)
    assert told.word == "refuted"
    assert re.match(r"steps: exponent \+(0\.9[5-9]|1\.0)", told.evidence)
    assert "the upper bound O(n·m·p) fails" in told.why and "loose" not in told.why
    assert architectures.fails_from_above(made)
    assert made.best is not None and made.best.law.name == "n·m·T"
    growing = {along.axis: along.exponent.value for along in made.along}
    assert growing == pytest.approx({"examples": 1.0, "units": 1.0, "steps": 1.0}, abs=0.05)
    article = made.fit("n·m·p")
    assert article is not None and article.heldout_median > 0.3 and made.best.heldout_median < 0.05


def test_growth_slower_than_n_m_leaves_the_bound() -> None:
    made = one("mlp", lambda c: 1e-5 + 1e-9 * c["n"] * c["m"] ** 0.7)
    told = architectures.of_article(made)
    assert told.word == "refuted"
    assert "loose upper bound" in told.why and "fails" not in told.why
    assert not architectures.fails_from_above(made)


@pytest.mark.parametrize("workload", ["rnn", "cnn"])
def test_exact_products_win_where_they_are_the_law(workload: str) -> None:
    made = one(workload, products, noise=0.005)
    assert made.best is not None and made.best.law.name == "reuse"
    assert made.best.heldout_median < 0.03


def test_an_own_law_wins_and_is_supported() -> None:
    made = one("transformer", pairs)
    assert made.best is not None and made.best.law.name == "own"
    assert architectures.of_article(made).word == "refuted"
    told = architectures.of_own(one("rnn", steps))
    assert told.word == "supported"
    assert "unseen sizes" in told.why and re.search(r"steps T\^(0\.9[5-9]|1\.0)", told.why)


@pytest.mark.parametrize("seed", range(4))
def test_noise_refutes_no_law_that_is_true(seed: int) -> None:
    made = one("rnn", steps, noise=0.03, seed=seed)
    assert architectures.of_own(made).word != "refuted"
    assert architectures.of_article(one("mlp", n_m, noise=0.03, seed=seed)).word != "refuted"


def test_an_own_law_that_is_wrong_is_refuted() -> None:
    told = architectures.of_own(one("rnn", lambda c: 2e-5 + 1e-11 * c["n"] * c["m"] * c["T"] ** 1.5))
    assert told.word == "refuted"
    assert "steps T^1.5" in told.why.split("Refuted: ")[-1] or "steps T^1.5" in told.why
    assert told.evidence.startswith("steps T^1.5")


# --- attention ------------------------------------------------------------------------------------------------------


def test_a_quadratic_part_is_identified() -> None:
    made = one("transformer", pairs)
    square = quadratic(made)
    assert square is not None and square.size == "s" and square.largest >= 512
    at = made.cells[made.cells["axis"].str.contains("positions")].sort_values("s").iloc[-1]
    columns = {str(name): value for name, value in at.items()}
    share = at["n"] * 2e-10 * at["blocks"] * at["heads"] * at["s"] ** 2 / pairs(columns)
    assert square.share.value == pytest.approx(share, abs=0.05)
    assert architectures.of_square(square).word == "supported"


def test_where_there_is_none_none_is_identified() -> None:
    squares = [quadratic(one("transformer", no_pairs, seed=seed)) for seed in range(8)]
    words = [architectures.of_square(square).word for square in squares if square is not None]
    assert len(words) == 8
    assert words.count("supported") <= 1  # at 95 %
    assert "refuted" in words  # its share is known to be less than 5 %


def test_short_sequences_tell_nothing_of_long_ones() -> None:
    made = planted.rows("transformer", pairs)
    short = [row for row in made if row["sizes"]["s"] < 512]
    told = [quadratic(found) for found in series(planted.found(short))]
    assert all(architectures.of_square(square).word == "inconclusive" for square in told if square is not None)


def test_other_workloads_have_no_pairs() -> None:
    assert quadratic(one("rnn", steps)) is None


# --- one line -------------------------------------------------------------------------------------------------------


def line_of(costs: Mapping[str, Cost]) -> Any:
    made = [row for name, cost in costs.items() for row in planted.rows(name, cost, profile="quick")]
    return reuse_line(series(planted.found(made)))


def test_one_line_holds_all_workloads_where_every_use_costs_the_same() -> None:
    line = line_of(dict.fromkeys(("mlp", "cnn", "rnn", "lstm", "gan"), products))
    assert line.slope.value == pytest.approx(1.0, abs=0.02)
    assert line.price == pytest.approx(3 * 2e-11, rel=0.2)  # with what is left of the overhead
    told = architectures.of_line(line)
    assert told.word == "supported"


def test_no_line_where_uses_cost_nothing() -> None:
    told = architectures.of_line(line_of(dict.fromkeys(("mlp", "cnn", "rnn", "lstm", "gan"), n_m)))
    assert told.word == "refuted"
    assert "slope 0.0" in told.evidence or "slope -0.0" in told.evidence


def test_no_line_where_a_workload_pays_ten_times_as_much() -> None:
    costs: dict[str, Cost] = dict.fromkeys(("mlp", "cnn", "rnn", "gan"), products)
    costs["lstm"] = lambda c: 10 * products(c)
    line = line_of(costs)
    assert line.worst == "lstm" and line.off > 2
    assert architectures.of_line(line).word != "supported"


# --- the section ----------------------------------------------------------------------------------------------------


def whole() -> Section:
    cannot: dict[str, Any] = {
        "impl": "other",
        "pass": 1,
        "key": "k",
        "workload": "mlp",
        "cannot": "other has no layer 'dense'",
    }
    cannot["stated"] = stated(workloads.find("mlp"))
    made = planted.rows("mlp", n_m, "torch") + planted.rows("mlp", lambda c: 1.2 * n_m(c), "numpy", seed=1)
    made += planted.rows("rnn", steps, "torch") + planted.rows("rnn", lambda c: 0.5 * steps(c), "numpy", seed=1)
    return architectures.section(planted.found([*made, cannot]))


def test_the_section_tells_all_of_it(tmp_path: Path) -> None:
    section = whole()
    for table in section.tables:
        assert all(len(row) == len(table.header) for row in table.rows)
    law = {(row[0], row[1]): row for row in section.tables[0].rows}
    assert {row[2] for key, row in law.items() if key[0] == "mlp"} == {"supported"}
    assert {row[2] for key, row in law.items() if key[0] == "rnn"} == {"refuted"}
    assert "n·m·T" in law["rnn", "torch"][4]
    assert "faster than n·m·p says for rnn" in section.lead and "as it says for mlp" in section.lead
    assert section.tables[-1].rows == [("other", "mlp", "other has no layer 'dense'")]
    over = {(row[0], row[1]): row[5] for row in section.tables[2].rows}
    assert over["mlp", "numpy"].startswith("1.2") and over["rnn", "numpy"].startswith("0.5")
    assert over["mlp", "torch"] == "–"
    words = claims(section, "numpy")
    assert [word for said, word in words.items() if said.startswith("rnn: each weight")] == ["refuted"]
    assert [word for said, word in words.items() if said.startswith("mlp: each weight")] == ["supported"]
    keys = {drawn.key for drawn in section.figures}
    assert keys >= {claim.figure for claim in section.claims} and len(keys) == 3
    for drawn in section.figures:
        assert picture(drawn.figure, drawn.key, drawn.title, drawn.caption, tmp_path).svg


def test_memory_is_told_by_its_law() -> None:
    made = one("rnn", steps)
    assert made.best_memory is not None
    assert made.best_memory.coefficients == pytest.approx((1e5, 12.0, 8.0), rel=0.02)
    assert made.best_memory.heldout_median < 0.01


def test_disturbed_processes_do_not_count_where_two_others_do() -> None:
    assert one("mlp", n_m, disturbed=(2,)).entries["pass"].unique().tolist() == [1, 3]
    made = one("mlp", n_m, disturbed=(1,))
    assert made.entries["pass"].unique().tolist() == [2, 3]
    assert made.best_memory is not None  # the first process told the memory, disturbed or not


def test_a_disturbed_product_makes_no_step_look_fast() -> None:
    made = planted.rows("mlp", n_m)
    row = made[3]
    row["reference_s"] = {"product": [5 * second for second in row["reference_s"]["product"]]}
    (found,) = series(planted.found(made))
    label = " ".join(f"{name}={value}" for name, value in row["sizes"].items())
    time = found.cells.loc[found.cells["layers"] == label, "time_s"].item()
    assert time == pytest.approx(n_m(row["columns"]), rel=0.2)


def test_few_points_tell_nothing_and_say_so() -> None:
    section = architectures.section(planted.found(planted.rows("rnn", steps, profile="smoke", passes=1)))
    assert set(claims(section).values()) == {"inconclusive"}
    assert section.tables[0].rows[0][4] == "too few cells"
    assert {claim.figure for claim in section.claims} <= {drawn.key for drawn in section.figures}


def test_nothing_measured_is_said_with_the_reason() -> None:
    cannot = {
        "impl": "a",
        "pass": 1,
        "key": "k",
        "workload": "rnn",
        "cannot": "a builds fully connected networks alone",
    }
    section = architectures.section(planted.found([cannot]))
    assert section.lead.startswith("Nothing was measured")
    assert section.tables[0].rows == [("a", "rnn", "a builds fully connected networks alone")]
    assert not section.claims


def test_a_variable_that_is_a_column_is_refused() -> None:
    made = planted.rows("mlp", n_m, profile="smoke")
    for row in made:
        row["columns"]["layers"] = 3
    with pytest.raises(UserError, match="cannot be called 'layers'"):
        series(planted.found(made))


def test_a_law_that_is_no_arithmetic_is_refused() -> None:
    made = planted.rows("mlp", n_m, profile="smoke")
    for row in made:
        row["stated"]["laws"][0]["terms"] = ["1", "__import__('os').getpid()"]
    with pytest.raises(UserError, match=r"law 'n·m·p'"):
        series(planted.found(made))


# --- measuring ------------------------------------------------------------------------------------------------------


def test_every_workload_is_a_task_of_every_process() -> None:
    tasks = EXPERIMENT.tasks(Settings(impls=("numpy", "sklearn")))
    of = {impl: [task for task in tasks if task.impl == impl] for impl in ("numpy", "sklearn")}
    assert len({task.key for task in of["numpy"]}) == len(of["numpy"]) == 3 * len(workloads.NAMES)
    assert [task.arguments["first"] for task in of["numpy"]].count(True) == len(workloads.NAMES)
    # an implementation that cannot says so once
    assert [task.pass_number for task in of["sklearn"]] == [1] * len(workloads.NAMES)
    json.dumps([dict(task.arguments) for task in tasks])


def test_chosen_workloads_alone() -> None:
    tasks = EXPERIMENT.tasks(Settings(impls=("numpy",), architectures=("rnn", "mlp", "rnn")))
    assert [task.arguments["workload"] for task in tasks[:2]] == ["rnn", "mlp"]
    assert len(tasks) == 6
    with pytest.raises(UserError, match="did you mean 'rnn'"):
        EXPERIMENT.tasks(Settings(architectures=("rn",)))


def test_it_is_asked_for_by_name() -> None:
    names = [experiment.name for experiment in _experiments("all")]
    assert names == [name for name in EXPERIMENTS if name not in ON_REQUEST]
    assert "architectures" not in names
    assert [experiment.name for experiment in _experiments("all,architectures")] == [*names, "architectures"]


class Wrong:
    """An implementation that is right but for what is done to where it goes."""

    def __init__(self, right: Any, spoil: Any) -> None:
        self._right, self._spoil = right, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def parameters(self) -> list[Any]:
        return self._spoil([np.array(p) for p in self._right.parameters()])  # type: ignore[no-any-return]


@pytest.mark.parametrize("workload", ["rnn", "gan", "dqn"])
def test_a_step_that_goes_elsewhere_is_caught(workload: str) -> None:
    pytest.importorskip("torch")
    found = workloads.find(workload)
    problem = make_problem(found.objective(found.middle), 4)
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        right = registry.find("torch").prepare(problem, dtype=dtype)
        right.step()
        conformance.check_descent(right, problem, dtype, rng)
        conformance.check_last_loss(right, problem, dtype)
        half = Wrong(right, lambda now: [(p + q) / 2 for p, q in zip(now, problem.parameters, strict=True)])
        with pytest.raises(Mismatch, match="move of the"):
            conformance.check_descent(half, problem, dtype, rng)
        stuck = Wrong(right, lambda now: [problem.parameters[0], *now[1:-2], *problem.parameters[-2:]])
        with pytest.raises(Mismatch, match="move of the"):
            conformance.check_descent(stuck, problem, dtype, rng)


def test_a_step_half_as_long_is_caught_whatever_is_drawn() -> None:
    found = workloads.find("lstm")
    problem = make_problem(found.objective(found.middle), 64)  # its mean gradient is small beside what rounding does
    right = registry.find("numpy").prepare(problem)
    right.step()
    start = [p.astype(np.float32) for p in problem.parameters]
    half = Wrong(right, lambda now: [(p + q) / 2 for p, q in zip(now, start, strict=True)])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        conformance.check_descent(right, problem, "float32", rng)
        with pytest.raises(Mismatch, match="move of the"):
            conformance.check_descent(half, problem, "float32", rng)


class Spoiled(Workbench):
    """A bench on which every step goes nowhere."""

    def prepare(self, problem: Any) -> Any:
        start = [np.array(p, np.float32) for p in problem.parameters]
        return Wrong(super().prepare(problem), lambda now: start)


@pytest.mark.parametrize("seed", [0, 3])  # orders of the points
def test_what_is_wrong_is_never_timed_and_named(seed: int) -> None:
    assert EXPERIMENT.measure is not None
    bench = Spoiled(registry.find("numpy"), "cpu", "float32", 1, 0, {}, Quiet({}))
    task = EXPERIMENT.tasks(Settings("smoke", impls=("numpy",), seed=seed, architectures=("rnn",)))[0]
    with pytest.raises(Mismatch, match=r"rnn at n=\d+ T=\d+ .*move of the all parameters differs .* by 1 "):
        EXPERIMENT.measure(bench, task.arguments)


def test_a_small_run_goes_all_the_way(tmp_path: Path) -> None:
    impl = "numpy"
    settings = Settings("smoke", impls=(impl, "sklearn"), architectures=("mlp", "rnn", "gan"))
    pytest.importorskip("sklearn")
    failed = run.run([EXPERIMENT], settings, tmp_path, False, Console(quiet=True))
    assert not failed
    (read,) = files.in_directory(tmp_path)
    measured = [row for row in read.rows if "cannot" not in row]
    assert {row["workload"] for row in measured} == {"mlp", "rnn", "gan"}
    assert all(row["peak_bytes"] > 0 and min(row["seconds"]) > 0 for row in measured)
    section = architectures.section(read)
    assert section.tables[-1].rows == [("sklearn", "mlp, rnn and gan", "sklearn builds fully connected networks alone")]
    assert all(set(claim.cells) == {impl} for claim in section.claims)


def test_unseen_sizes_refute_what_growth_leaves_open() -> None:
    """Too few sizes past overhead tell no exponent; held-out ones that n·m misses by far still tell that it does not hold."""
    told = architectures.of_article(replace(one("rnn", steps), along=()))
    assert told.word == "refuted" and re.match(r"unseen sizes \d+\.\d.% off", told.evidence)
    assert architectures.of_article(replace(one("mlp", n_m), along=())).word == "inconclusive"
