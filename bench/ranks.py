"""Launches the ranks of a data-parallel implementation, watches them, and says which of them failed, or never arrived.

A launch has a folder: ``plan.json`` tells the ranks what to do (``bench.rank_worker``), each rank writes where it is into
``rank-R.progress``, what it prints into ``rank-R.log`` and why it failed into ``rank-R.failed``; rank 0 answers in
``rows.json``.  torchrun starts torch's ranks, one agent a host; those of other libraries are started one by one.

Nothing listens beyond the hosts' addresses, which are loopback unless others are given.  A rank whose launcher is gone is
ended by the kernel, however the launcher went.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backprop_files import UserError, write_json
from bench import machine, process
from bench.parent import LAUNCHER
from bench.process import WorkerFailed
from impls import registry

LAYOUTS = ("processes", "devices")
#: How often the launcher looks; it has nothing else to do, and should not be seen in what is measured.
LOOK_EVERY_S = 0.2
#: After one rank has ended, the others are given so long to say what they saw of it.
GRACE_S = 2.0
#: A rank's progress has so many bytes, written at one go.
PROGRESS_BYTES = 256
#: How the ranks' processes learn where the folder is.
FOLDER = "BACKPROP_BENCH_LAUNCH"


@dataclass(frozen=True)
class Host:
    """Where some of the ranks run: here, or wherever the prefix of their command leads, in the same file system.

    ``address`` and ``interface`` are what their sockets are bound to: anything but loopback can be reached from elsewhere.
    """

    ranks: int
    prefix: tuple[str, ...] = ()  # such as ("ip", "netns", "exec", "h1")
    address: str = "127.0.0.1"
    interface: str = "lo"


@dataclass(frozen=True)
class Launch:
    """Some ranks of an implementation, fresh processes, each held to a core.

    ``layout`` is ``processes``, one a rank, or ``devices``: one process that has all ranks as devices, which JAX knows on
    the CPU.  Rank r is on core r mod c of ``cores``: where there are more ranks than cores they share.
    """

    impl: str
    ranks: int
    cores: tuple[int, ...]
    layout: str = "processes"
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0
    hosts: tuple[Host, ...] = ()  # empty: all ranks here, on loopback
    cache: Path | None = None  # for compiled code
    stall_s: float = 60.0  # so long may no rank get any further
    timeout_s: float = 600.0  # of everything

    @property
    def placed(self) -> tuple[Host, ...]:
        """The hosts, with as many processes on each as it has."""
        return self.hosts or (Host(self.processes),)

    @property
    def processes(self) -> int:
        """Processes in all."""
        return 1 if self.layout == "devices" else self.ranks

    def cores_of(self, rank: int) -> list[int]:
        """What a rank's process is held to."""
        if self.layout == "devices":
            return list(self.cores[: self.ranks])
        return [self.cores[rank % len(self.cores)]]

    @property
    def cores_used(self) -> int:
        """Cores that the ranks have between them."""
        return min(self.ranks, len(self.cores))


def usual_cores() -> tuple[int, ...]:
    """Those this process may use, the last first: the first ones serve interrupts and the harness."""
    return tuple(reversed(machine.affinity()))


def backend(launch: Launch) -> str:
    """What carries the ranks' sums."""
    if launch.layout == "devices":
        return "shared memory"
    return "gloo" if launch.device == "cpu" else "nccl"


def check(launch: Launch) -> registry.Entry:
    """The implementation to launch.  Raises UserError for what cannot be launched."""
    entry = registry.find(launch.impl)
    if not entry.launched_by:
        able = ", ".join(e.name for e in registry.ENTRIES if e.launched_by)
        raise UserError(f"implementation '{entry.name}' is not data parallel: its rows cannot be split; use {able}")
    if launch.ranks < 1 or not launch.cores:
        raise UserError(f"{launch.ranks} ranks on {len(launch.cores)} cores: give one or more of each")
    if launch.layout not in LAYOUTS or (launch.layout == "devices" and entry.launched_by == "torchrun"):
        raise UserError(f"layout '{launch.layout}': {entry.name} has processes alone")
    if sum(host.ranks for host in launch.placed) != launch.processes:
        raise UserError(f"{launch.ranks} ranks do not fit the hosts, which have {[h.ranks for h in launch.placed]}")
    return entry


def run(launch: Launch, work: str, arguments: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Let all ranks do ``work``, a ``module:function`` of (Desk, arguments) as of ``bench.rank_worker``; rank 0's rows.

    ``folder`` is the launch's own, made for it.  Raises WorkerFailed, which names the rank, and UserError as ``check``;
    whatever happens, no process of the launch outlives the call.
    """
    entry = check(launch)
    folder.mkdir(parents=True)
    write_json(folder / "plan.json", _plan(launch, entry, work, arguments, folder))
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands(launch, entry, folder):
            started.append(command.start(folder))  # noqa: PERF401  # those started are ended, even if one cannot be
        _Watch(launch, folder, started).wait()
    except OSError as error:
        raise UserError(f"a rank cannot be started: {error}") from error
    finally:
        _end(started)
    return _rows(folder)


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads((folder / "rows.json").read_text())
    except (OSError, ValueError) as error:
        raise WorkerFailed(f"all ranks ended well, but rank 0 left no rows ({error})") from error
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise WorkerFailed("rank 0 left something that is no list of rows")
    return rows


def _plan(
    launch: Launch, entry: registry.Entry, work: str, arguments: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    hosts = [host for host in launch.placed for _ in range(host.ranks)]
    return {
        "impl": entry.name,
        "device": launch.device,
        "dtype": launch.dtype,
        "seed": launch.seed,
        "processes": launch.processes,
        "place": str(folder.resolve() / "meeting") if entry.launched_by == "torchrun" else _free_place(hosts[0]),
        "members": [
            {"address": host.address, "interface": host.interface, "cores": launch.cores_of(rank)}
            for rank, host in enumerate(hosts)
        ],
        "work": work,
        "arguments": dict(arguments),
    }


def _free_place(host: Host) -> str:
    """HOST:PORT that was free on the host of rank 0 just now; in another network, a port that is hardly taken there."""
    if host.prefix:
        return f"{host.address}:{20_000 + os.getpid() % 10_000}"
    with socket.socket() as probe:
        probe.bind((host.address, 0))
        return f"{host.address}:{probe.getsockname()[1]}"


# --- starting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One process to start: a rank, or torchrun's agent, which starts those of its host."""

    arguments: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    log: str = "launcher.log"

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        with (folder / self.log).open("ab") as output:
            return subprocess.Popen(
                list(self.arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.variables),
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which then ends them
            )


def commands(launch: Launch, entry: registry.Entry, folder: Path) -> Iterator[Command]:
    if entry.launched_by == "torchrun":
        yield from _agents(launch, folder)
        return
    rank = 0
    for host in launch.placed:
        for local in range(host.ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(local)}
            command = [*host.prefix, sys.executable, "-m", "bench.rank_worker"]
            yield Command(command, _environment(launch, host, folder) | own, f"rank-{rank}.log")
            rank += 1


def _agents(launch: Launch, folder: Path) -> Iterator[Command]:
    """An agent of torchrun on every host; they meet in a file, since its usual store listens on all interfaces."""
    hosts = launch.placed
    for number, host in enumerate(hosts):
        torchrun = {
            "--nnodes": str(len(hosts)),
            "--node-rank": str(number),
            "--nproc-per-node": str(host.ranks),
            "--rdzv-id": folder.name,
            "--rdzv-backend": "c10d",
            "--rdzv-endpoint": str(folder.resolve() / "agents"),
            "--rdzv-conf": "store_type=file",
            "--local-addr": host.address,
            "--max-restarts": "0",
            "--monitor-interval": "0.1",
        }
        options = [f"{key}={value}" for key, value in torchrun.items()]
        command = [*host.prefix, sys.executable, "-m", "bench.torchrun", str(folder / f"agent-{number}.failed")]
        worker = ["--module", "bench.rank_worker"]
        yield Command([*command, *options, *worker], _environment(launch, host, folder), f"agent-{number}.log")


def _environment(launch: Launch, host: Host, folder: Path) -> dict[str, str]:
    """One thread a rank, set before a library is imported; sockets on the host's interface."""
    own = {
        FOLDER: str(folder.resolve()),
        LAUNCHER: str(os.getpid()),
        "GLOO_SOCKET_IFNAME": host.interface,
        "NCCL_SOCKET_IFNAME": host.interface,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # the agents' store, too, would listen on all interfaces
        "PYTHONUNBUFFERED": "1",
    }
    if launch.layout == "devices":
        own["JAX_NUM_CPU_DEVICES"] = str(launch.ranks)
    return process.environment(1, [], launch.cache) | own


# --- watching ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """Where a rank said it was."""

    steps: int  # things it has begun, in all
    pid: int
    where: str

    @classmethod
    def read(cls, folder: Path, rank: int) -> Progress:
        """Nowhere yet, where nothing was written."""
        try:
            steps, pid, where = (folder / f"rank-{rank}.progress").read_text().strip().split(" ", 2)
            return cls(int(steps), int(pid), where)
        except (OSError, ValueError):
            return cls(0, 0, "the start")

    @property
    def stopped(self) -> bool:
        """Whether a signal holds the process (only seen of those on this machine)."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in "Tt"  # the state follows the command's name


class _Watch:
    """Waits for a launch to end, one way or the other."""

    def __init__(self, launch: Launch, folder: Path, started: Sequence[subprocess.Popen[bytes]]) -> None:
        self.launch, self.folder, self.started = launch, folder, started
        self.ranks = range(launch.processes)
        self.by_agents = registry.find(launch.impl).launched_by == "torchrun"

    def wait(self) -> None:
        """Until all have ended well.  Raises WorkerFailed as soon as one has not, or none gets any further."""
        start = moved = time.monotonic()
        before = -1
        while True:
            codes = [process.poll() for process in self.started]
            if any(codes):
                raise WorkerFailed(self._obituary())
            if all(code == 0 for code in codes):
                return
            steps = sum(progress.steps for progress in self._progress())
            now = time.monotonic()
            before, moved = (steps, now) if steps != before else (before, moved)
            if now - moved > self.launch.stall_s:
                raise WorkerFailed(self._stalled(self.launch.stall_s))
            if now - start > self.launch.timeout_s:
                where = self._progress()[0].where
                raise WorkerFailed(f"not done within {self.launch.timeout_s:.0f} s, at {where}; the ranks were ended")
            time.sleep(LOOK_EVERY_S)

    def _progress(self) -> list[Progress]:
        return [Progress.read(self.folder, rank) for rank in self.ranks]

    def _named(self, rank: int) -> str:
        return f"rank {rank} of {self.launch.processes}"

    def _stalled(self, patience_s: float) -> str:
        """Who did not arrive where the others are waiting."""
        progress = self._progress()
        furthest = max(progress, key=lambda p: p.steps)
        within = f"within {patience_s:.0f} s; the ranks were ended"
        for rank in self.ranks:
            if progress[rank].stopped:
                return f"{self._named(rank)} did not arrive at {furthest.where} {within}: its process is stopped"
        behind = [rank for rank in self.ranks if progress[rank].steps < furthest.steps]
        if behind:
            last = progress[behind[0]].where
            named = "rank " + " and ".join(map(str, behind)) + f" of {self.launch.processes}"
            return f"{named} did not arrive at {furthest.where} {within}: last seen at {last}"
        return f"all {self.launch.processes} ranks are at {furthest.where} and none got any further {within}"

    def _obituary(self) -> str:
        """Which rank ended, how, and its last words."""
        deadline = time.monotonic() + GRACE_S
        first = [i for i, process in enumerate(self.started) if process.poll()]  # before others follow it
        while time.monotonic() < deadline and any(process.poll() is None for process in self.started):
            time.sleep(LOOK_EVERY_S / 4)
        died = self._died(first)
        told = {rank: said for rank in self.ranks if (said := self._last_words(rank))}
        # one that went without a word is what the others complain of; of those that complain, the first
        silent = [rank for rank in died if rank not in told]
        if silent:
            rank = silent[0]
            return f"{self._named(rank)} {_how(died[rank])} at {Progress.read(self.folder, rank).where}{self._last_line(rank)}"
        if told:
            rank = min(told, key=lambda rank: told[rank]["at"])
            return f"{self._named(rank)} failed at {told[rank]['where']}: {told[rank]['reason']}"
        return "no rank could be started" + self._last_line_of("agent-0.log" if self.by_agents else "rank-0.log")

    def _died(self, first: Sequence[int]) -> dict[int, int]:
        """Exit codes of the ranks that failed, those first that were seen first.

        Others are ended by torchrun, or by the library, because of these: SIGTERM and SIGABRT are no causes beside others.
        """
        if self.by_agents:
            codes: dict[int, int] = {}
            for number in range(len(self.started)):
                codes |= {int(rank): code for rank, code in _read(self.folder / f"agent-{number}.failed").items()}
        else:
            later = [i for i in self.ranks if i not in first]
            codes = {i: code for i in (*first, *later) if (code := self.started[i].poll())}
        effects = (-signal.SIGTERM, -signal.SIGABRT)
        return {rank: code for rank, code in codes.items() if code not in effects} or codes

    def _last_words(self, rank: int) -> dict[str, Any]:
        return _read(self.folder / f"rank-{rank}.failed")

    def _last_line(self, rank: int) -> str:
        return self._last_line_of(f"rank-{rank}.log")

    def _last_line_of(self, name: str) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / name).read_text(errors="replace").strip().splitlines()
            if lines:
                return f": {lines[-1][:300]}"
        return ""


def _read(path: Path) -> dict[str, Any]:
    """A JSON object that a process wrote as it failed; empty if it did not."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """No process is left: the ranks of an agent go with it (``bench.parent``)."""
    for one in started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.pid, signal.SIGKILL)
    for one in started:
        one.wait()
