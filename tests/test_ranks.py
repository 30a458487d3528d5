"""The launcher of ranks names the one that failed, or never arrived, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backprop_files import UserError
from bench import ranks
from bench.process import WorkerFailed
from bench.ranks import Host, Launch, Progress
from impls import registry

ENTRIES = [entry.name for entry in registry.ENTRIES if entry.launched_by]
#: How a rank fails, and what is said of it.
DEATHS = {
    "raises": r"rank 1 of 2 failed at round 5 of the test: ValueError: a planted error",
    "exits": r"rank 1 of 2 ended with exit code 3 at round 5 of the test: planted last line",
    "killed": r"rank 1 of 2 was killed by SIGKILL .* at round 5 of the test",
}
STALLS = {
    "sleeps": r"rank 1 of 2 did not arrive at round 6 of the test within 8 s; the ranks were ended: last seen at round 5",
    "stopped": r"rank 1 of 2 did not arrive at round 6 of the test within 8 s; the ranks were ended: its process is stopped",
}


def launched(impl: str, how: str, folder: Path, rank: int = 1) -> None:
    """Two ranks, one of which comes to grief."""
    if reason := registry.find(impl).missing():
        pytest.skip(reason)
    asked = Launch(impl, 2, ranks.usual_cores(), stall_s=8.0)
    ranks.run(asked, "tests.rank_work:grief", {"how": how, "rank": rank}, folder)


def pids(folder: Path) -> list[int]:
    """Of the ranks, as they told them."""
    return [Progress.read(folder, rank).pid for rank in range(2)]


def gone(pid: int) -> bool:
    """Whether the process is no more, or a zombie that nobody has fetched yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def all_gone(folder: Path, within_s: float = 20.0) -> bool:
    """Whether none of the ranks is left, at the latest after a while."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if all(map(gone, pids(folder))):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("impl", ENTRIES)
@pytest.mark.parametrize("how", [*DEATHS, *STALLS])
def test_the_rank_that_failed_is_named_and_none_is_left(impl: str, how: str, tmp_path: Path) -> None:
    folder = tmp_path / "launch"
    with pytest.raises(WorkerFailed, match=(DEATHS | STALLS)[how]):
        launched(impl, how, folder)
    assert min(pids(folder)) > 0
    assert all_gone(folder)


def test_the_rank_on_which_the_others_depend_is_named_too(tmp_path: Path) -> None:
    # JAX's rank 0 serves the others, whose library ends them when it is gone
    with pytest.raises(WorkerFailed, match=r"rank 0 of 2 was killed by SIGKILL"):
        launched("jax-sharded", "killed", tmp_path / "launch", rank=0)
    assert all_gone(tmp_path / "launch")


@pytest.mark.parametrize("impl", ENTRIES)
def test_no_rank_outlives_a_launcher_that_is_killed(impl: str, tmp_path: Path) -> None:
    if reason := registry.find(impl).missing():
        pytest.skip(reason)
    folder = tmp_path / "launch"
    harness = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tests.test_ranks import launched\n"
            "launched(sys.argv[1], 'sleeps', Path(sys.argv[2]))",
            impl,
            str(folder),
        ]
    )
    deadline = time.monotonic() + 60
    while not Progress.read(folder, 0).where.startswith("round 6") and time.monotonic() < deadline:
        time.sleep(0.05)
    ranks_there = pids(folder)
    assert not any(map(gone, ranks_there))
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    assert all_gone(folder)


def test_a_rank_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    asked = Launch("jax-sharded", 1, (0,), hosts=(Host(1, prefix=("no-such-program",)),))
    with pytest.raises(UserError, match=r"a rank cannot be started: .*no-such-program"):
        ranks.run(asked, "tests.rank_work:grief", {}, tmp_path / "launch")


def test_a_prefix_goes_before_every_hosts_command(tmp_path: Path) -> None:
    hosts = (Host(2, ("env", "ON=h1"), "127.0.0.2", "lo"), Host(1, ("env", "ON=h2"), "127.0.0.3", "lo"))
    asked = Launch("jax-sharded", 3, (1, 0), hosts=hosts)
    commands = list(ranks.commands(asked, ranks.check(asked), tmp_path))
    assert [command.arguments[:2] for command in commands] == [["env", "ON=h1"]] * 2 + [["env", "ON=h2"]]
    assert [command.variables["RANK"] for command in commands] == ["0", "1", "2"]
    agents = list(ranks.commands(replace(asked, impl="torch-ddp"), registry.find("torch-ddp"), tmp_path))
    assert [agent.arguments[:2] for agent in agents] == [["env", "ON=h1"], ["env", "ON=h2"]]
    assert ["--nproc-per-node=2" in agents[0].arguments, "--node-rank=1" in agents[1].arguments] == [True, True]
    assert "--rdzv-conf=store_type=file" in agents[0].arguments


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Launch("numpy", 2, (0,)), r"'numpy' is not data parallel: .* use torch-ddp, jax-sharded"),
        (Launch("torch-ddp", 0, (0,)), "0 ranks on 1 cores"),
        (Launch("torch-ddp", 2, (0,), "devices"), "layout 'devices': torch-ddp has processes alone"),
        (
            Launch("jax-sharded", 3, (0,), hosts=(Host(1), Host(1))),
            r"3 ranks do not fit the hosts, which have \[1, 1\]",
        ),
    ],
)
def test_what_cannot_be_launched_is_one_line(asked: Launch, told: str) -> None:
    with pytest.raises(UserError, match=told):
        ranks.check(asked)


def test_ranks_share_cores_in_turn() -> None:
    asked = Launch("torch-ddp", 4, (3, 2))
    assert [asked.cores_of(rank) for rank in range(4)] == [[3], [2], [3], [2]]
    assert asked.cores_used == 2
    assert replace(asked, impl="jax-sharded", layout="devices").cores_of(0) == [3, 2]


def test_progress_that_was_never_written_is_the_start(tmp_path: Path) -> None:
    assert Progress.read(tmp_path, 0) == Progress(0, 0, "the start")
    (tmp_path / "rank-0.progress").write_text(f"7 {os.getpid()} round 2 of step\n")
    read = Progress.read(tmp_path, 0)
    assert (read.steps, read.where, read.stopped) == (7, "round 2 of step", False)
