"""Speed beside other libraries: ratios of planted times, and training runs that must have trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from backprop_files import UserError
from bench import peers
from bench.cells import Setting
from bench.peers import CEILING, LOSSES, ROWS, START, TRAINING, Training, Visit, check_losses
from bench.process import CellFailed, WorkerProcess, pick_cpus
from impls import reference, registry
from impls.interface import Network
from impls.problem import make_problem

SMALL = Training("digits", Network((64, 8, 10), "tanh", "cross_entropy"), 64, 3, 0.3)


def visit(pace: float = 1.0, **training: float) -> Visit:
    """NumPy takes 1 ms a step, sklearn 4 ms, a machine ``pace`` times slower; training runs as given, in seconds."""
    rows = {row.label: {"numpy": 1e-3 * pace, "sklearn": 4e-3 * pace, CEILING: 1e11} for row in ROWS}
    return rows | {
        TRAINING.label: {name: seconds * pace for name, seconds in training.items()},
        LOSSES: dict.fromkeys(training, 0.08) | {START: 2.4},
    }


def test_ratios_are_of_one_visit() -> None:
    # medians of each by itself would give 3 over 0.2
    visits = [
        visit(1.0, numpy=0.1, sklearn=0.3),
        visit(10.0, numpy=0.1, sklearn=0.3),
        visit(2.0, numpy=0.1, sklearn=0.5),
    ]
    assert peers.ratio(visits, TRAINING, "sklearn", ["numpy"]) == pytest.approx(3.0)
    assert peers.ratio(visits, ROWS[0], "sklearn", ["numpy"]) == pytest.approx(4.0)


def test_tables_say_times_ratios_and_losses() -> None:
    visits = [visit(pace, numpy=0.1, sklearn=0.3) for pace in (1.0, 3.0, 2.0)]
    names = ["numpy", "sklearn", "autograd"]
    assert "| geometric mean | 1.00 | 4.00 |" in peers.tables(visits, names[:2])
    assert peers.training_table(visits, names).splitlines() == [  # autograd has no epochs, and no column
        "| 20 epochs of digits, 32, 64-64-10 | numpy | sklearn |",
        "| --- | --- | --- |",
        "| time | 200 ms | 600 ms |",
        "| times the fastest of ours | 1.00 | 3.00 |",
        "| times numpy | 1.00 | 3.00 |",
        "| loss at the end (2.4 at the start) | 0.08 | 0.08 |",
    ]
    peer = [visit(sklearn=0.3)]
    assert "times" not in peers.training_table(peer, ["sklearn"])  # nothing of ours to hold it against


def test_what_did_not_train_is_told() -> None:
    check_losses({START: 2.4, "numpy": 0.0800, "torch": 0.0803})
    with pytest.raises(UserError, match=r"training: torch did not halve the loss of the start, 2\.4"):
        check_losses({START: 2.4, "numpy": 0.08, "torch": 1.3})
    with pytest.raises(UserError, match="training: jax, torch did not halve"):
        check_losses({START: 2.4, "numpy": 0.08, "torch": None, "jax": 2.4})
    with pytest.raises(UserError, match=r"losses at the end differ by more than 1%: .*'torch': 0\.082"):
        check_losses({START: 2.4, "numpy": 0.08, "torch": 0.082})


@pytest.fixture
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> WorkerProcess:
    entry = registry.find(request.param)
    if entry.missing():
        pytest.skip(str(entry.missing()))
    started = WorkerProcess(Setting(entry, "cpu", "float32", 1), pick_cpus(1), None, tmp_path / "log")
    request.addfinalizer(started.stop)
    started.start("synthetic", 3, ceilings=False)
    return started


@pytest.mark.parametrize("worker", ["numpy"], indirect=True)
def test_a_training_run_is_from_the_start_through_all_epochs(worker: WorkerProcess) -> None:
    pytest.importorskip("sklearn")
    (label, seconds), (_, losses) = peers._training_visit({"it": worker}, SMALL).items()
    problem = make_problem(SMALL.network, 1797, 3, "digits")
    assert label == "3 epochs of digits, 64, 64-8-10"
    assert seconds["it"] > 0
    assert losses[START] == pytest.approx(reference.loss(problem))
    assert losses["it"] < losses[START] / 2


@pytest.mark.parametrize("worker", ["autograd"], indirect=True)
def test_what_has_no_epochs_is_left_out(worker: WorkerProcess) -> None:
    pytest.importorskip("sklearn")
    assert peers._training_visit({"it": worker}, SMALL) == {SMALL.label: {}, LOSSES: {}}


@pytest.mark.parametrize("worker", ["sklearn"], indirect=True)
def test_what_cannot_be_built_is_an_error(worker: WorkerProcess) -> None:
    with pytest.raises(CellFailed, match="sklearn has no activation 'gelu'"):
        peers._train(worker, Training("digits", Network((64, 8, 10), "gelu", "cross_entropy"), 64, 3, 0.3))
