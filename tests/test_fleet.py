"""Small real sweeps through Dask: a scheduler and workers on loopback, real agents, deaths, and what must be refused."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import backprop_bench
from analysis import load
from backprop_files import UserError
from bench import plan
from bench import run as plain
from bench.fleet import certificates, guard, loopback, remote, scratch
from bench.fleet import run as fleet_run
from bench.fleet.agent import part
from bench.fleet.connection import Connection, Lost, Where
from bench.fleet.messages import Requests
from bench.plan import Settings

pytest.importorskip("distributed")
ROOT = Path(__file__).parents[1]
OWN = Path(__file__).parent / "own_implementations"
#: A few steps, each timed for an instant.
TINY = Settings(profile="smoke", impls=("numpy",), phases=("step",), passes=2, cell_s=0.01, budget_s=200.0)
QUIET = Console(quiet=True)
RUN = "ab" * 8


@pytest.fixture(scope="module")
def fleet() -> Iterator[loopback.Fleet]:
    """One that no test harms."""
    with loopback.Fleet(workers=2, nanny=False) as found:
        yield found


def where(fleet: loopback.Fleet, wait_s: float = 30.0) -> Where:
    return Where(scheduler_file=fleet.scheduler_file, wait_s=wait_s)


def cells(out: Path) -> Counter[str]:
    paths = [*out.glob("data/*.json"), *out.glob("data/cells/*.json")]
    return Counter(entry["params"]["cell"] for path in paths for entry in json.loads(path.read_text())["benchmarks"])


def planned(settings: Settings) -> set[str]:
    return {f"{cell.label} pass={job.pass_number}" for job in plan.make(settings).jobs for cell in job.cells}


def ours(out: Path, key: str) -> list[Any]:
    return [row for path in out.glob("data/*.json") for row in json.loads(path.read_text())["backprop_bench"][key]]


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    """Whether all of these end in time."""
    deadline = time.monotonic() + seconds
    while any(loopback.command_line(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(loopback.command_line(pid) for pid in pids)


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """In this process, which has imported all; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["backprop-bench", "run", "--profile", "smoke", *arguments])
    monkeypatch.setattr("signal.signal", lambda *handler: None)
    with pytest.raises(SystemExit) as end:
        backprop_bench.main()
    return int(end.value.code or 0)


# --- a whole run ----------------------------------------------------------------------------------------------------


def test_a_run_by_the_command_line_is_as_a_plain_one(
    fleet: loopback.Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.report.write_report", lambda runs, out, laws: out / "report.html")
    out = tmp_path / "run"
    asked = ["--impls", "numpy", "--phases", "step", "--passes", "2", "--cell-seconds", "0.01", "--budget", "200"]
    assert command_line(monkeypatch, *asked, "--out", str(out), "--scheduler-file", str(fleet.scheduler_file)) == 0
    told = capfd.readouterr()
    assert told.err == "" and f"report: {out / 'report.html'}" in told.out.replace("\n", "")
    assert cells(out) == Counter(dict.fromkeys(planned(TINY), 1))
    assert sorted(path.name for path in out.glob("data/*.json")) == ["numpy-pass1.json", "numpy-pass2.json"]
    document = json.loads((out / "data" / "numpy-pass1.json").read_text())
    assert document["machine_info"]["node"] == os.uname().nodename
    assert document["machine_info"]["libraries"]["numpy"]
    assert document["backprop_bench"]["run"]["impls"] == ["numpy"]
    assert document["benchmarks"][0]["extra_info"]["threads_seen"]["affinity"], "pinned as ever"
    assert "scheduler" not in (out / "run.json").read_text()
    assert len(load.load([out]).entries) == len(planned(TINY))
    assert not list(out.glob("data/cells/*"))
    assert plain.sweep(TINY, out, True, QUIET) == 0  # nothing is left to do, with or without a scheduler
    assert fleet_run.sweep(TINY, out, True, QUIET, where(fleet)) == 0
    assert cells(out) == Counter(dict.fromkeys(planned(TINY), 1))
    with pytest.raises(UserError, match="holds a run already"):
        fleet_run.sweep(TINY, out, False, QUIET, where(fleet))


def test_files_of_the_users_own_travel_and_nothing_stays_behind(fleet: loopback.Fleet, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join(",".join(["0.5"] * 63 + [str(i), str(i % 10)]) for i in range(30)) + "\n")
    settings = Settings(
        profile="smoke", own=(f"{OWN / 'good.py'}:Linear",), data=str(rows), passes=1, cell_s=0.01, budget_s=100.0,
        optimizers=("gradient-descent",), phases=("step",),
    )  # fmt: skip
    out, before = tmp_path / "run", set(scratch.home().glob("run-*"))
    assert fleet_run.sweep(settings, out, False, QUIET, where(fleet)) == 0
    found = load.load([out]).entries
    assert set(found["impl"]) == {"Linear"} and set(found["data"]) == {"rows.csv"}
    assert set(scratch.home().glob("run-*")) == before
    file = tmp_path / "wrong.py"
    file.write_text(
        (OWN / "good.py").read_text() + "\n\nclass Wrong(Linear):\n    def scale(self):\n        return 2.02\n"
    )
    wrong = replace(settings, own=(f"{file}:Wrong",))
    with pytest.raises(UserError, match=r"own implementation .*Wrong.*reference"):
        fleet_run.sweep(wrong, tmp_path / "wrong", False, QUIET, where(fleet))


def test_an_agent_knows_what_a_further_pass_is() -> None:
    names = sorted({name.rpartition(" pass=")[0] for name in planned(TINY)})
    asked = {"impl": "numpy", "pass": 7, "cells": names[:2], "share_s": 3.0}
    found = part(TINY, asked)
    assert {job.pass_number for job in found.jobs} == {7} and found.budget_s == 3.0
    assert {cell.label for job in found.jobs for cell in job.cells} >= set(names[:2])


# --- deaths ---------------------------------------------------------------------------------------------------------

SLOWER = Settings(profile="smoke", impls=("numpy",), phases=("step",), passes=2, cell_s=0.05, budget_s=200.0)


def when(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits until it is."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """``act`` in a thread beside what is done here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert not failures, failures


def test_a_worker_that_is_killed_loses_nothing_and_leaves_nobody(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with loopback.Fleet(workers=2, nanny=False) as fleet:

        def kill() -> None:
            (worker,) = when(lambda: [n for n in [fleet.measuring()] if n is not None and cells(out)])
            below = [*fleet.of_worker(worker)]
            loopback.kill(fleet.started[worker])
            assert len(below) >= 3 and gone(below), "the worker, its agent and the process that measures"

        with meanwhile(kill):
            assert fleet_run.sweep(SLOWER, out, False, QUIET, where(fleet)) == 0
        assert not [line for line in fleet.processes().values() if " -m bench." in line]
    assert cells(out) == Counter(dict.fromkeys(planned(SLOWER), 1))
    assert any("died or left" in note for note in ours(out, "notes"))


def test_a_scheduler_that_is_killed_leaves_finished_cells_and_the_run_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    asked = ["--impls", "numpy", "--phases", "step", "--passes", "2", "--cell-seconds", "0.05", "--budget", "200"]
    with loopback.Fleet(workers=1, nanny=False) as fleet:
        assert fleet.scheduler
        scheduler = fleet.scheduler
        at_work: list[int] = []

        def kill() -> None:
            when(lambda: cells(out) and fleet.measuring() is not None)
            at_work.extend(pid for pid, line in fleet.processes().items() if " -m bench." in line)
            loopback.kill(scheduler)

        with meanwhile(kill):
            code = command_line(monkeypatch, *asked, "--out", str(out), "--scheduler-file", str(fleet.scheduler_file))
        assert code == plain.INTERRUPTED
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert "scheduler" in line and "is gone" in line and "--resume goes on" in line
        assert at_work and gone(at_work, 30.0), "without a scheduler the worker ends, and its agent with it"
    before = cells(out)
    assert 0 < len(before) < len(planned(SLOWER))
    assert plain.sweep(SLOWER, out, True, QUIET) == 0
    assert cells(out) == Counter(dict.fromkeys(planned(SLOWER), 1))


def test_a_client_that_is_killed_leaves_nobody_at_work(tmp_path: Path) -> None:
    with loopback.Fleet(workers=1, nanny=False) as fleet:
        command = [sys.executable, "-m", "backprop_bench", "run", "--profile", "smoke", "--impls", "numpy"]
        command += ["--cell-seconds", "20", "--budget", "2000", "--out", str(tmp_path / "run")]
        client = subprocess.Popen(
            [*command, "--scheduler-file", str(fleet.scheduler_file)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        when(lambda: fleet.measuring() is not None)
        left = [pid for pid, line in fleet.processes().items() if " -m bench." in line]
        client.kill()
        client.wait()
        assert gone(left, 30.0)
        assert fleet.started[0].poll() is None, "the worker itself goes on, for the next client"


def agent(request: str) -> subprocess.Popen[bytes]:
    """One that works on a request."""
    started = remote.start(sys.stderr.buffer)
    assert started.stdin
    started.stdin.write(request.encode() + b"\n")
    started.stdin.flush()
    return started


def long_job() -> str:
    settings = Settings(profile="smoke", impls=("numpy",), phases=("step",), passes=1, cell_s=30.0)
    name = next(iter(sorted(planned(settings)))).removesuffix(" pass=1")
    asked = {"impl": "numpy", "pass": 1, "cells": [name], "share_s": None}
    return Requests.of(settings, RUN)._text("measure", job=asked)


@pytest.mark.parametrize("how", ["its input closes", "it is killed"])
def test_an_agent_takes_what_measures_along(how: str) -> None:
    started = agent(long_job())
    when(lambda: _measures(started.pid))
    below = _below(started.pid)
    assert len(below) == 2
    if how == "it is killed":
        started.kill()
    else:
        assert started.stdin
        started.stdin.close()
    assert gone(below)
    started.wait()


def _below(parent: int) -> list[int]:
    """A process and all that come of it."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if parent in loopback.ancestors(pid)]


def _measures(parent: int) -> bool:
    return any("bench.worker" in loopback.command_line(pid) for pid in _below(parent))


def test_two_agents_on_one_machine_do_not_measure_at_once() -> None:
    request = Requests.of(TINY, RUN).survey
    first = agent(long_job())
    when(lambda: _measures(first.pid))
    second = agent(request)
    assert second.stdout and first.stdin
    assert "waits for another measurement" in json.loads(second.stdout.readline())["at"]
    first.stdin.close()
    first.wait()
    assert json.loads(second.stdout.readline())["machine"]["node"] == os.uname().nodename
    second.wait()
    remote.end(agent(Requests.of(TINY, RUN).clean()))


# --- who is fit to measure ------------------------------------------------------------------------------------------


def disguised(folder: Path, code: str) -> dict[str, str]:
    """Variables of a worker whose Python begins with this code."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


WITHOUT_AUTOGRAD = "import sys\nsys.modules['autograd'] = None\n"
OTHER_VERSION = """
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: '9.9' if name == 'backprop-bench' else real(name)
"""
OTHER_SCHEMA = "import backprop_files\nbackprop_files.SCHEMA_VERSION = 7\n"


def test_jobs_go_to_workers_that_have_the_library_and_what_none_has_is_told(tmp_path: Path) -> None:
    settings = replace(TINY, impls=("numpy", "autograd"), passes=1)
    with loopback.Fleet(workers=0, nanny=False) as fleet:
        fleet.start_worker(variables=disguised(tmp_path / "less", WITHOUT_AUTOGRAD))
        assert fleet_run.sweep(settings, tmp_path / "run", False, QUIET, where(fleet)) == 0
        assert {name.split()[0] for name in cells(tmp_path / "run")} == {"numpy"}
        (row,) = ours(tmp_path / "run", "left_out")
        assert (row["impl"], row["cell"]) == ("autograd", "all") and "autograd not installed" in row["reason"]
        fleet.start_worker()
        fleet.start_worker(variables=disguised(tmp_path / "old", OTHER_VERSION))
        fleet.start_worker(resources="")
        when(lambda: all("Registered to" in fleet.log(f"worker-{i}") for i in range(4)))
        assert fleet_run.sweep(settings, tmp_path / "run", True, QUIET, where(fleet)) == 0
        assert cells(tmp_path / "run") == Counter(dict.fromkeys(planned(settings), 1))


def test_workers_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_run, "GRACE_S", 0.2)
    settings = replace(TINY, impls=("autograd",))

    with loopback.Fleet(workers=0, nanny=False) as fleet:

        def told(**started: Any) -> str:
            number = fleet.start_worker(**started)
            with pytest.raises(UserError) as error:
                fleet_run.sweep(settings, tmp_path / "no", False, QUIET, where(fleet))
            loopback.kill(fleet.started[number])
            assert "tcp://127.0.0.1:" in str(error.value) and "\n" not in str(error.value)
            return str(error.value)

        with pytest.raises(UserError, match=r"no worker came within 0.1 s; start some with .* --resources measure=1"):
            fleet_run.sweep(settings, tmp_path / "no", False, QUIET, where(fleet, 0.1))
        assert "backprop-bench is 9.9 there and" in told(variables=disguised(tmp_path / "old", OTHER_VERSION))
        assert "it has schema 7" in told(variables=disguised(tmp_path / "schema", OTHER_SCHEMA))
        assert "autograd not installed" in told(variables=disguised(tmp_path / "less", WITHOUT_AUTOGRAD))
        assert "offers no resource 'measure'; start it with" in told(resources="")
    assert not (tmp_path / "no").exists(), "a refused run leaves nothing"


BAD = {
    "nobody there": (("--scheduler", "tcp://127.0.0.1:9"), ("tcp://127.0.0.1:9", "not reachable", "is it running")),
    "an unknown implementation": (("--scheduler", "tcp://h:1", "--impls", "numpi"), ("did you mean 'numpy'",)),
    "experiments": (("--scheduler", "tcp://h:1", "--experiments", "all"), ("--experiments", "leave out --scheduler")),
    "certificates for nobody": (("--tls-ca", "x.pem"), ("belong to --scheduler",)),
    "no port": (("--scheduler", "tcp://h:port"), ("give tcp://HOST:PORT",)),
    "a wait that is none": (("--scheduler", "tcp://h:1", "--wait", "nan"), ("--wait nan", "give seconds")),
    "nothing to resume": (("--scheduler", "tcp://h:1", "--resume"), ("--resume needs --out",)),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, words = BAD[what]
    out = () if what == "nothing to resume" else ("--out", str(tmp_path / "no"))
    assert command_line(monkeypatch, *arguments, *out) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "no").exists()


def test_without_dask_it_is_told_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert command_line(monkeypatch, "--scheduler", "tcp://127.0.0.1:9") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "needs Dask" in line and "pip install" in line and ".[fleet]" in line


def test_whoever_takes_the_connection_and_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scheduler does that is stopped, or a server of another kind."""
    monkeypatch.setattr("bench.fleet.connection.CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        there = Where(f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(UserError, match=r"not reachable within 0\.3 s"):
            fleet_run.sweep(TINY, tmp_path / "no", False, QUIET, there)
    assert not (tmp_path / "no").exists()


# --- security -------------------------------------------------------------------------------------------------------


class Hostile(Exception):
    """Whoever loads a pickle of it writes down its process."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _write_down, (os.environ["BACKPROP_BENCH_TEST_LOADED"],)


def _write_down(path: str) -> Exception:
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Exception("loaded")


def hostile_result() -> Any:
    """A task whose result, and whose type, are pickles."""
    return Hostile()


def hostile_error() -> None:
    """A task whose exception is a pickle."""
    raise Hostile


def loaded_here(path: Path) -> bool:
    return path.exists() and str(os.getpid()) in path.read_text().split()


def test_a_hostile_result_or_exception_is_never_loaded(tmp_path: Path) -> None:
    import distributed

    usual: Any = distributed.Client
    path = tmp_path / "loaded"
    variables = {"BACKPROP_BENCH_TEST_LOADED": str(path)}
    with loopback.Fleet(workers=1, nanny=False, variables=variables) as fleet:
        with Connection(where(fleet), RUN) as connection:
            client = connection._client
            for task in (hostile_result, hostile_error):
                future = client.submit(task, pure=False)
                when(future.done)
                with contextlib.suppress(Exception):
                    client.gather(future)
                with contextlib.suppress(Exception):
                    future.exception()
            assert guard.refused()
            assert not loaded_here(path)
        with usual(fleet.address, set_as_default=False) as client, contextlib.suppress(Exception):
            client.submit(hostile_result, pure=False).result()
        assert loaded_here(path), "Dask's own client loads it: the test would see it"


@pytest.mark.parametrize(("status", "deaf"), [("closed", False), ("running", True)])
def test_a_connection_that_broke_is_told_and_not_waited_for(status: str, deaf: bool) -> None:
    """Dask calls itself running even where it hears nothing any more."""
    connection = Connection(Where("tcp://127.0.0.1:1"), RUN)
    hearing = SimpleNamespace(done=lambda: deaf)
    connection._client = SimpleNamespace(status=status, _handle_report_task=hearing)
    with pytest.raises(Lost, match=r"is gone|cannot be read"):
        connection.check()


def test_over_tls_with_certificates_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = certificates.make(tmp_path / "certificates")
    settings = Settings(profile="smoke", impls=("numpy",), phases=("step",), passes=1, cell_s=0.01, budget_s=60.0)
    with loopback.Fleet(workers=1, nanny=False, tls=["--protocol", "tls", *found.dask_options()]) as fleet:
        assert fleet.address.startswith("tls://127.0.0.1:")
        secure = Where(fleet.address, None, found.ca, found.cert, found.key, 30.0)
        assert fleet_run.sweep(settings, tmp_path / "run", False, QUIET, secure) == 0
        assert cells(tmp_path / "run") == Counter(dict.fromkeys(planned(settings), 1))
        assert command_line(monkeypatch, "--out", str(tmp_path / "no"), "--scheduler", fleet.address) == 2
        assert "needs --tls-ca, --tls-cert and --tls-key" in capfd.readouterr().err
        monkeypatch.setattr("bench.fleet.connection.CONNECT_S", 2.0)
        with pytest.raises(UserError, match=r"not reachable within .* wants TLS"):
            fleet_run.sweep(settings, tmp_path / "no", False, QUIET, Where(fleet.address.replace("tls", "tcp")))
        other = certificates.make(tmp_path / "stranger")
        with pytest.raises(UserError, match="are these certificates of its authority"):
            foreign = Where(fleet.address, None, other.ca, other.cert, other.key, 5.0)
            fleet_run.sweep(settings, tmp_path / "no", False, QUIET, foreign)
