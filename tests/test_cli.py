"""The command line as people use it: subprocesses, exit codes, one line on stderr, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from analysis import load
from backprop_files import CELL_KEYS
from tests import planted

ROOT = Path(__file__).parents[1]
OWN = Path(__file__).parent / "own_implementations"
TINY = ("--profile", "smoke", "--passes", "1", "--budget", "20", "--phases", "step")


def call(*arguments: str, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "backprop_bench", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **options)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one clear line on stderr."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]


def entries(directory: Path) -> list[dict[str, Any]]:
    """All benchmarks of a run directory."""
    return [e for path in sorted(directory.glob("data/**/*.json")) for e in json.loads(path.read_text())["benchmarks"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--impls", "numpi"), ("numpi", "did you mean 'numpy'")),
        (("--profile", "quikc"), ("quikc", "did you mean 'quick'")),
        (("--device", "gpuu"), ("gpuu", "did you mean 'gpu'")),
        (("--device", "cuda:77"), ("cuda:77", "absent")),
        (("--dtype", "flaot32"), ("flaot32", "did you mean 'float32'")),
        (("--threads", "99"), ("--threads 99",)),
        (("--threads", "0"), ("--threads 0",)),
        (("--budget", "-1"), ("--budget -1",)),
        (("--impl", "nowhere.py:X"), ("nowhere.py",)),
        (("--impl", f"{OWN / 'bad.py'}:NoMethods"), ("NoMethods", "misses")),
        (("--impls", "python", "--dtype", "float32"), ("no cell is selected",)),
        (("--resume",), ("--resume needs --out",)),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else None,
)
def test_bad_options_of_run(arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    refused(call("run", *TINY[:2], *arguments, cwd=tmp_path), *words)
    assert not list(tmp_path.rglob("*.json"))


def test_an_output_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(call("run", *TINY, "--impls", "numpy", "--out", str(tmp_path / "file" / "x")), "cannot write", "file")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("WrongGradients", ("step", "reference")),
        ("Raises", ("ValueError: no such kernel",)),
        ("ReturnsEarly", ("synchronize returned before the work was done",)),
    ],
)
def test_own_implementations_that_are_wrong_are_not_timed(name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    done = call("run", *TINY, "--impl", f"{OWN / 'bad.py'}:{name}", "--out", str(tmp_path / "out"))
    refused(done, name, *words)
    assert entries(tmp_path / "out") == []


def test_own_implementation_beside_ours_and_the_way_back_into_a_finished_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("run", *TINY, "--impls", "numpy", "--impl", f"{OWN / 'good.py'}:Linear", "--out", str(out))
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"report: {out.resolve()}/report.html" in done.stdout
    found = entries(out)
    assert {e["extra_info"]["impl"] for e in found} == {"numpy", "Linear"}
    assert all(set(CELL_KEYS) <= set(e["extra_info"]) for e in found)
    assert all(s > 0 for e in found for s in e["stats"]["data"])
    assert {e["extra_info"]["threads"] for e in found} == {1}
    assert {e["extra_info"]["memory_from"] for e in found} == {"tracemalloc"}
    assert all(e["extra_info"]["peak_bytes"] > 0 for e in found)
    before = {path: path.read_bytes() for path in out.glob("data/*.json")}
    refused(call(*arguments), "holds a run already", "--resume")
    refused(call(*arguments, "--resume", "--seed", "5"), "same settings", "seed was 0, is 5")
    again = call(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in out.glob("data/*.json")} == before  # nothing was measured twice


def test_a_worker_that_is_killed_fails_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("run", *TINY, "--impls", "numpy", "--impl", f"{OWN / 'bad.py'}:Killed", "--out", str(out))
    assert done.returncode == 3, (done.stdout, done.stderr)
    impls = [e["extra_info"]["impl"] for e in entries(out)]
    assert "numpy" in impls
    assert "killed by SIGKILL" in (out / "report.html").read_text()
    (document, *_) = [json.loads(path.read_text()) for path in out.glob("data/numpy-*.json")]
    assert any("SIGKILL" in row["reason"] for row in document["backprop_bench"]["failed"])


def start(out: Path) -> subprocess.Popen[str]:
    """A run in the background, once it has finished a few cells."""
    command = [sys.executable, "-m", "backprop_bench", "run", *TINY[:2], "--impls", "numpy", "--out", str(out)]
    # a shell's background job ignores Ctrl-C, and so would its children: what is tested is a run in front
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    for _ in range(1200):
        if len(list(out.glob("data/cells/*.json"))) >= 5:
            return process
        time.sleep(0.05)
    raise AssertionError("no cell was finished")


def test_ctrl_c_keeps_finished_cells_and_resume_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on from there" in errors
    finished = {e["params"]["cell"]: e["stats"]["data"] for e in entries(out)}
    assert len(finished) >= 5
    done = call("run", *TINY[:2], "--impls", "numpy", "--out", str(out), "--resume")
    assert done.returncode == 0, done.stderr
    after = {e["params"]["cell"]: e["stats"]["data"] for e in entries(out)}
    assert len(after) > len(finished)
    assert {name: after[name] for name in finished} == finished


def test_a_parent_killed_outright_loses_no_finished_cell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    finished = {e["params"]["cell"] for e in entries(out)}
    report = call("report", str(out), "--out", str(tmp_path / "half"))
    assert report.returncode == 0, report.stderr
    assert "cut short" in (tmp_path / "half" / "report.html").read_text()
    done = call("run", *TINY[:2], "--impls", "numpy", "--out", str(out), "--resume")
    assert done.returncode == 0, done.stderr
    assert finished < {e["params"]["cell"] for e in entries(out)}


def test_twenty_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "backprop_bench",
        "run",
        "--profile",
        "smoke",
        "--impls",
        "numpy,numpy-loop,python",
    ]
    # short visits: cells of a worker are finished a group at a time, and a kill must fall between groups too
    command += ["--phases", "step", "--cell-seconds", "0.02"]
    command += ["--passes", "40", "--budget", "2000", "--out", str(out)]
    rng = Random(3)
    finished: dict[str, list[float]] = {}
    patience = 1.0  # a busy machine may finish nothing in a few seconds, and then nothing could be lost
    for _ in range(20):
        process = subprocess.Popen(
            [*command, *["--resume"] * (out / "run.json").exists()],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(patience * rng.uniform(2.0, 5.5))
        assert process.poll() is None
        process.kill()
        process.wait()
        found = {e["params"]["cell"]: e["stats"]["data"] for e in entries(out)}  # every file is whole JSON
        assert {name: found.get(name) for name in finished} == finished
        patience = min(2 * patience, 8.0) if len(found) == len(finished) else max(patience / 2, 1.0)
        finished = found
        if finished:
            assert len(load.load([out]).entries) == len(finished)
    assert len(finished) > 50
    (note, *_) = [note for note in load.load([out]).notes if note.startswith("resumed on")]
    assert "the machine had not changed" in note, note


@pytest.mark.parametrize("kib", [4, 60], ids=["no cell fits", "cells fit, gathered files do not"])
def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(kib: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["run", *TINY[:2], "--impls", "numpy", "--passes", "1", "--budget", "20", "--out", str(out)]
    limited = f"ulimit -f {kib}; exec {sys.executable} -m backprop_bench {' '.join(arguments)}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=300)
    refused(done, "cannot write", str(out), "finished files are untouched")
    finished = {e["params"]["cell"]: e["stats"]["data"] for e in entries(out)}
    assert (len(finished) > 0) is (kib > 4)
    again = call(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    after = {e["params"]["cell"]: e["stats"]["data"] for e in entries(out)}
    assert {name: after[name] for name in finished} == finished


def test_two_runs_in_one_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out)
    try:
        refused(
            call("run", *TINY[:2], "--impls", "numpy", "--out", str(out), "--resume"), "another run is writing there"
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize("text", ["", '{"benchmarks": [', '{"benchmarks": []}'])
def test_report_refuses_what_it_cannot_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    refused(call("report", str(tmp_path / "x.json"), "--out", str(tmp_path / "out")), "x.json")
    assert not (tmp_path / "out").exists()


def test_report_from_files_alone(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "x.json", planted.entries(planted.additive, seed=1))
    done = call("report", str(path), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").stat().st_size < 6 << 20


def test_list_and_doctor_speak_json() -> None:
    rows = json.loads(call("list", "--json").stdout)
    assert {"numpy", "torch", "jax"} <= {row["impl"] for row in rows}
    assert all(row["missing"] is None or "pip install" in row["missing"] for row in rows)
    found = json.loads(call("doctor", "--json").stdout)
    assert {"machine", "noise", "threads", "warnings", "load_average"} <= set(found)
    ready = [row["impl"] for row in rows if row["missing"] is None and "cpu" in row["devices"]]
    assert {"numpy", "torch", "jax"} <= set(ready)
    for name in ready:
        seen = found["threads"][name]
        assert len(seen["affinity"]) == 1
        assert all(pool["num_threads"] == 1 for pool in seen["pools"])


def test_pytest_writes_a_file_that_report_reads(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    options = ["--benchmark-only", "--profile", "smoke", "--impls", "numpy", "--passes", "2", "--budget", "15"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *options,
        "--benchmark-json",
        str(target),
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    document = json.loads(target.read_text())
    assert document["backprop_bench"]["run"]["impls"] == ["numpy"]
    assert document["machine_info"]["libraries"]["numpy"]
    assert all(e["stats"]["rounds"] == len(e["stats"]["data"]) for e in document["benchmarks"])
    assert call("report", str(target), "--out", str(tmp_path / "out")).returncode == 0
    compared = [sys.executable, "-m", "pytest_benchmark", "compare", str(target)]
    assert subprocess.run(compared, capture_output=True, cwd=tmp_path).returncode == 0  # its own tools still read it
