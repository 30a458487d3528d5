"""``ab`` and ``gate`` as people use them: subprocesses, exit codes, one line on stderr, nothing lost."""

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

from tests import planted_comparison as planted
from tests.gate_check import ROOT
from tests.test_cli import refused
from tests.test_sides import git, suite

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    command = [sys.executable, "-m", "backprop_bench", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that holds a copy of the suite: tag ``before``, then an edited README."""
    folder = suite(tmp_path_factory.mktemp("scratch"))
    git(folder, "tag", "before")
    (folder / "README.md").write_text("# edited\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "README")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gate",), ("nothing to compare with", "BASE")),
        (("gate", "nowhere"), ("unknown revision 'nowhere'",)),
        (("gate", "HEAD"), ("same code", "nothing to compare")),
        (("ab", "before", "before"), ("same code",)),
        (("gate", "before", "--allow", "0"), ("--allow 0",)),
        (("gate", "before", "--allow", "3"), ("--allow 3",)),
        (("gate", "before", "--impls", "numpi"), ("base, before", "did you mean 'numpy'")),
        (("gate", "before", "--profile", "smock"), ("did you mean 'smoke'",)),
        (("gate", "before", "--cells", "no-such-cell"), ("--cells no-such-cell", "fits none")),
        (("gate", "before", "--impl", "nowhere.py:X"), ("base, before", "has no nowhere.py")),
        (("gate", "--base-python", "/nowhere"), ("/nowhere", "no Python interpreter")),
        (("gate", "--from", "nowhere"), ("nowhere/duel.json",)),
        (("gate", "before", "--threads", "99"), ("--threads 99",)),
        (("gate", "before", "--budget", "nan"), ("--budget nan",)),
        (("gate", "before", "--from", "x"), ("--from judges what was measured",)),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    scratch: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(call(*arguments, cwd=scratch), *words)


def test_outside_a_repository(tmp_path: Path) -> None:
    refused(call("gate", "main", cwd=tmp_path), "no git repository")


@pytest.mark.parametrize(
    ("planted_with", "code", "word"),
    [
        ({}, 0, "Nothing slower"),
        (
            {"change": lambda f: 1.12 if f["n"] == 8 else 1.0},
            1,
            "Slower, gone or failed: 1 finding at an allowance of 5%",
        ),
        ({"noise": 0.06, "sessions": 4}, 4, "Cannot tell"),
    ],
)
def test_exit_codes_from_files(tmp_path: Path, planted_with: dict[str, Any], code: int, word: str) -> None:
    planted.write(tmp_path / "duel", **planted_with)
    done = call("gate", "--from", "duel", "--markdown", "out/table.md", "--json", "out/result.json", cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert word in done.stdout
    assert word in (tmp_path / "out" / "table.md").read_text()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["exit_code"] == code
    assert call("ab", "--from", "duel", cwd=tmp_path).returncode == 0


def test_a_damaged_result_is_no_verdict(tmp_path: Path) -> None:
    """Whatever nobody foresaw ends with a code of its own: never 0, 1 or 4."""
    planted.write(tmp_path / "duel", sessions=2)
    path = tmp_path / "duel" / "head" / "data" / "numpy-pass1.json"
    document = json.loads(path.read_text())
    for entry in document["benchmarks"]:
        entry["extra_info"]["reference_s"] = {"product": [1e-4], "objects": [1e-4]}
        entry["stats"]["data"] = entry["stats"]["data"][:1]
    path.write_text(json.dumps(document))
    done = call("gate", "--from", "duel", cwd=tmp_path)
    assert done.returncode not in (0, 1), done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gate_keeps_what_it_measured(scratch: Path, tmp_path: Path, by: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "backprop_bench", "gate", "before", "--impls", "numpy", "--out", str(out)]
    running = subprocess.Popen(
        command, cwd=scratch, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not list(out.glob("head/data/*-pass2.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(by)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"--from {out} judges them" in errors
    assert "Traceback" not in errors
    judged = call("gate", "--from", str(out), cwd=tmp_path)
    assert judged.returncode in (0, 1, 4)
    assert json.loads((out / "comparison.json").read_text())["cells"]
