"""A fleet on this machine alone, for checks and tests: a scheduler and workers that listen on 127.0.0.1 and nowhere else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from bench.fleet.remote import ROOT

#: Every process of a fleet, and whatever it starts, has this in its environment.
MARK = "BACKPROP_BENCH_LOOPBACK"
LOOPBACK = "127.0.0.1"
#: Dask wakes up a hundred times a second to watch itself; beside a measurement five times a second will do.
STILL = {
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}
#: Seconds to wait for a scheduler, and for processes to be gone.
START_S, END_S = 30.0, 20.0


@dataclass
class Fleet:
    """A scheduler, and workers by number; a context manager that ends all of them.

    ``tls`` are the scheduler's and workers' arguments for certificates; ``nanny`` as users have it by default.
    """

    workers: int = 2
    nanny: bool = True
    tls: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._folder = tempfile.TemporaryDirectory(prefix="backprop-bench-loopback-")
        self.scheduler_file = Path(self._folder.name) / "scheduler.json"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Fleet:
        self.start_scheduler()
        for _ in range(self.workers):
            self.start_worker()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in [*self.started, *([self.scheduler] if self.scheduler else [])]:
            kill(process)
        for pid in self.processes():  # what a test left on purpose
            end(pid)
        self._folder.cleanup()

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(json.loads(self.scheduler_file.read_text())["address"])

    def start_scheduler(self) -> None:
        """On a free port; its file tells which."""
        self.scheduler_file.unlink(missing_ok=True)
        arguments = ["scheduler", "--host", LOOPBACK, "--port", "0", "--dashboard-address", f"{LOOPBACK}:0", *self.tls]
        self.scheduler = self._dask("scheduler", [*arguments, "--scheduler-file", str(self.scheduler_file)])
        deadline = time.monotonic() + START_S
        while not self._address_is_there():
            if self.scheduler.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no scheduler: {self.log('scheduler')[-500:]}")
            time.sleep(0.05)

    def start_worker(self, resources: str = "measure=1", variables: Mapping[str, str] | None = None) -> int:
        """One more; returns its number."""
        number = len(self.started)
        arguments = ["worker", "--scheduler-file", str(self.scheduler_file), "--host", LOOPBACK]
        # without an address of its own, the server of metrics would listen everywhere, even with --no-dashboard
        arguments += [
            "--dashboard-address",
            f"{LOOPBACK}:0",
            "--nthreads",
            "1",
            *(["--resources", resources] if resources else []),
            *self.tls,
        ]
        arguments += ["--local-directory", self._folder.name, *([] if self.nanny else ["--no-nanny"])]
        self.started.append(self._dask(f"worker-{number}", arguments, variables or {}))
        return number

    def log(self, name: str) -> str:
        """What ``scheduler`` or ``worker-<i>`` wrote."""
        return (Path(self._folder.name) / f"{name}.log").read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """Command lines of all processes that belong to this fleet, whoever started them."""
        return {pid: line for pid in marked(self.mark) if (line := command_line(pid))}

    def of_worker(self, number: int) -> dict[int, str]:
        """Those below a worker."""
        found = self.processes()
        return {pid: line for pid, line in found.items() if self.started[number].pid in ancestors(pid)}

    def measuring(self) -> int | None:
        """The worker that measures just now."""
        for number in range(len(self.started)):
            if any("bench.worker" in line for line in self.of_worker(number).values()):
                return number
        return None

    def listening(self) -> dict[str, list[str]]:
        """Command lines by the address that they listen at, ``127.0.0.1:8786``."""
        found: dict[str, list[str]] = {}
        names = listeners()
        for pid, line in self.processes().items():
            for inode in sockets(pid):
                if inode in names:
                    found.setdefault(names[inode], []).append(line)
        return found

    def _address_is_there(self) -> bool:
        try:
            return bool(self.address)
        except (OSError, ValueError, KeyError):
            return False

    def _dask(
        self, name: str, arguments: list[str], variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        ours = {**STILL, "PYTHONPATH": str(ROOT), MARK: self.mark}
        environment = {**os.environ, **ours, **self.variables, **(variables or {})}
        with (Path(self._folder.name) / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._folder.name,
                start_new_session=True,  # so that it can be killed with all that is in its group
            )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the whole process group, as a machine that is lost."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end(pid: int) -> None:
    """SIGKILL to one process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# --- what /proc tells -----------------------------------------------------------------------------------------------


def marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment, wherever they hang."""
    wanted = f"{MARK}={mark}".encode()
    return [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if wanted in _bytes(path).split(b"\0")
    ]


def command_line(pid: int) -> str:
    """Empty for a process that is gone, or a zombie."""
    return _bytes(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode(errors="replace").strip()


def ancestors(pid: int) -> list[int]:
    """The process itself, its parent, and so on."""
    found = [pid]
    while found[-1] > 1:
        fields = _bytes(Path(f"/proc/{found[-1]}/stat")).rpartition(b")")[2].split()
        if not fields:
            break
        found.append(int(fields[1]))
    return found


def listeners() -> dict[str, str]:
    """Addresses of listening TCP sockets by inode; ``*`` for any address, and for all of IPv6 but its loopback."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in _bytes(Path(f"/proc/net/{name}")).decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                host, _, port = fields[1].partition(":")
                found[fields[9]] = f"{_host(host)}:{int(port, 16)}"
    return found


def _host(text: str) -> str:
    if len(text) == 8:  # little-endian
        octets = ".".join(str(octet) for octet in reversed(bytes.fromhex(text)))
        return "*" if octets == "0.0.0.0" else octets
    return "::1" if text == "00000000000000000000000001000000" else "*"


def sockets(pid: int) -> list[str]:
    """Inodes of a process's sockets."""
    found = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.append(target[8:-1])
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
