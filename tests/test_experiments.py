"""Experiments from the command line: what is measured stays, what is wrong is said before anything is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.experiments import NAMES, PROFILES, Settings, find

ROOT = Path(__file__).parents[1]


def started(*arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, str(ROOT / "backprop_bench.py"), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "200"})


def ran(*arguments: str) -> tuple[int, str, str]:
    """Exit code, and what it wrote."""
    process = started(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def ran_without(modules: tuple[str, ...], *arguments: str) -> tuple[int, str, str]:
    """The same where these are not installed."""
    hidden = (
        "import importlib.util, backprop_bench\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *more: None if name in {modules!r} else find(name, *more)\n"
        "backprop_bench.main()"
    )
    line = [sys.executable, "-c", hidden, *arguments]
    done = subprocess.run(
        line, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "60"}, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def tasks_in(directory: Path, name: str = "epochs") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((directory / "experiments" / f"{name}.json").read_text())["tasks"]
    return found


EPOCHS = ("experiment", "epochs", "--profile", "smoke", "--impls", "numpy")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_whole(name: str) -> None:
    pytest.importorskip("sklearn")  # some train on its data
    experiment = find(name)
    assert experiment.name == name
    for profile in PROFILES:
        settings = Settings(profile=profile, impls=experiment.impls)
        keys = [task.key for task in experiment.tasks(settings)]
        assert len(keys) == len(set(keys)) > 0


def test_the_list_names_all() -> None:
    code, out, _ = ran("experiment", "--list")
    assert code == 0
    assert all(name in out for name in NAMES)


def test_a_run_is_kept_and_resumed(tmp_path: Path) -> None:
    assert ran(*EPOCHS, "--out", str(tmp_path))[0] == 0
    first = tasks_in(tmp_path)
    assert len(first) == 4
    page = (tmp_path / "report.html").read_text()
    assert page.count("What an epoch costs") >= 2  # heading of the page and of the section
    assert {
        c["statement"]
        for e in json.loads((tmp_path / "experiments.json").read_text())["experiments"]
        for c in e["claims"]
    }

    code, _, err = ran(*EPOCHS, "--out", str(tmp_path))
    assert code == 2
    assert "--resume" in err
    assert len(err.splitlines()) == 1
    code, _, err = ran(*EPOCHS, "--out", str(tmp_path), "--resume", "--seed", "5")
    assert code == 2
    assert "seed was 0, is 5" in err

    document = json.loads((tmp_path / "experiments/epochs.json").read_text())
    document["tasks"] = first[:2]
    (tmp_path / "experiments/epochs.json").write_text(json.dumps(document))
    assert ran(*EPOCHS, "--out", str(tmp_path), "--resume")[0] == 0
    again = tasks_in(tmp_path)
    assert again[:2] == first[:2]
    assert {task["key"] for task in again} == {task["key"] for task in first}

    (tmp_path / "experiments/epochs.json").write_text(json.dumps(document)[:-40])
    code, _, err = ran("report", str(tmp_path))
    assert code == 2
    assert "epochs.json" in err
    assert len(err.splitlines()) == 1


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    process = started(*EPOCHS, "--out", str(tmp_path))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (tmp_path / "experiments/epochs.json").exists() and tasks_in(tmp_path):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    done = tasks_in(tmp_path)
    assert done
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130
    assert "--resume" in err
    assert ran(*EPOCHS, "--out", str(tmp_path), "--resume")[0] == 0
    assert tasks_in(tmp_path)[: len(done)] == done


def test_one_that_cannot_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    code, _, err = ran(
        "experiment", "epochs", "--profile", "smoke", "--impls", "numpy-loop,numpy", "--out", str(tmp_path)
    )
    assert code == 3
    assert "failed" in err
    assert len(tasks_in(tmp_path)) == 4
    assert "has no &#39;epoch&#39;" in (tmp_path / "report.html").read_text()


def test_usual_ones_that_are_not_installed_are_left_out_and_told(tmp_path: Path) -> None:
    arguments = ("experiment", "epochs", "--profile", "smoke", "--out", str(tmp_path))
    code, out, err = ran_without(("torch", "jax"), *arguments)
    assert (code, err) == (0, "")
    told = [line for line in out.splitlines() if line.startswith("left out:")]
    assert [line.split(":")[1].strip() for line in told] == ["torch", "jax"]
    assert all("not installed: pip install" in line for line in told)
    assert {task["impl"] for task in tasks_in(tmp_path)} == {"numpy"}


def test_one_that_is_asked_for_and_not_installed_is_refused(tmp_path: Path) -> None:
    arguments = ("experiment", "epochs", "--profile", "smoke", "--out", str(tmp_path / "out"))
    code, out, err = ran_without(("torch", "jax"), *arguments, "--impls", "numpy,jax")
    assert code == 2
    assert "left out" not in out
    assert "'jax' cannot run" in err
    assert "pip install" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("experiment", "epoch"), "did you mean 'epochs'"),
        (("experiment",), "name an experiment"),
        (("experiment", "epochs", "--impls", "nump"), "unknown implementation"),
        (("experiment", "epochs", "--profile", "smok"), "did you mean 'smoke'"),
        (
            ("experiment", "gradients", "--impls", "python", "--dtype", "float64"),
            "none of python has these derivatives",
        ),
        (
            ("experiment", "epochs", "--dtype", "bfloat16", "--impls", "torch"),
            "experiments compute in float32 or float64",
        ),
        (("experiment", "architectures", "--architectures", "rn"), "did you mean 'rnn'"),
        (("experiment", "epochs", "--architectures", "rnn"), "was not named: architectures"),
        (("run", "--architectures", "mlp,cn", "--profile", "smoke"), "did you mean 'cnn'"),
        (("experiment", "epochs", "--resume"), "--resume needs --out"),
        (("run", "--experiments", "epoch", "--profile", "smoke"), "did you mean 'epochs'"),
        (
            ("run", "--impls", "numpy-loop", "--experiments", "gradients", "--profile", "smoke"),
            "none of numpy-loop has",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, err = ran(*arguments, *(() if "--resume" in arguments else ("--out", str(out))))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


def test_behind_a_sweep_in_one_report(tmp_path: Path) -> None:
    sweep = ("run", "--profile", "smoke", "--impls", "numpy", "--phases", "step", "--passes", "1", "--budget", "20")
    assert ran(*sweep, "--experiments", "epochs", "--out", str(tmp_path))[0] == 0
    text = (tmp_path / "report.md").read_text()
    assert "one step of gradient descent costs" in text
    assert "an epoch costs n times" in text
