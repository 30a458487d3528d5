"""The parent's handle on a worker process: start it pinned, ask, wait, and say in words how it died."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backprop_files import UserError
from bench import machine, reference_kernel
from bench.cells import Setting


class WorkerFailed(Exception):
    """The process is gone, or did not answer in time; nothing more comes from it."""


class CellFailed(Exception):
    """The process lives, but this cell could not be measured."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def pick_cpus(threads: int) -> list[int]:
    """The last cores this process may use: the first ones serve interrupts and the harness."""
    return machine.affinity()[-threads:]


def environment(threads: int, cpus: list[int], cache: Path | None) -> dict[str, str]:
    """Variables that hold a library to ``threads``, set before it is imported."""
    variables = {name: str(threads) for name in machine.THREAD_VARIABLES}
    variables |= {
        "BACKPROP_BENCH_CPUS": json.dumps(cpus),
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the driver's own, so that cuda:1 is the second that nvidia-smi shows
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if cache:  # compiled code of the first pass serves the later ones
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        }
    return {**os.environ, **variables}


@dataclass(frozen=True)
class Home:
    """Where a worker finds an interpreter and the code it imports, and what its environment has beside the usual."""

    python: Path
    folder: Path
    variables: Mapping[str, str]


class WorkerProcess:
    """One fresh process for one implementation and one pass; of another ``home`` where other code is measured."""

    def __init__(
        self, setting: Setting, cpus: list[int], cache: Path | None, log: Path, home: Home | None = None
    ) -> None:
        self.setting = setting
        self.log = log
        read_end, write_end = os.pipe()
        self._answers = read_end
        self._buffer = b""
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(home.python) if home else sys.executable, "-m", "bench.worker", str(write_end)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(write_end,),
                cwd=home.folder if home else None,
                env={**environment(setting.threads, cpus, cache), **(home.variables if home else {})},
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends this process
            )
        os.close(write_end)

    def start(
        self,
        data: str,
        seed: int,
        kernels: Sequence[str] = reference_kernel.USUAL,
        quiet_level: float | None = None,
        ceilings: bool = True,
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Import the library, measure the ceilings if asked to; returns what holds in the process.

        ``quiet_level`` is what an earlier process of the implementation found of ``bench.quiet``'s kernel.
        """
        setting = self.setting
        target = setting.entry.target if setting.entry.summary == "your own" else setting.entry.name
        return self.ask(
            {
                "op": "start",
                "impl": target,
                "device": setting.device,
                "dtype": setting.dtype,
                "threads": setting.threads,
                "data": data,
                "seed": seed,
                "kernels": list(kernels),
                "quiet_level": quiet_level,
                "ceilings": ceilings,
            },
            timeout_s,
        )

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer.  Raises CellFailed, or WorkerFailed if the process is no more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise WorkerFailed(self._obituary()) from error
        answer: dict[str, Any] = json.loads(self._read_line(timeout_s))
        if not answer["ok"]:
            raise CellFailed(answer["kind"], answer["reason"])
        return answer

    def _read_line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.stop()
                raise WorkerFailed(f"no answer within {timeout_s:.0f} s; the process was ended")
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise WorkerFailed(self._obituary())
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _obituary(self) -> str:
        """How the process ended, in words, with the last line it wrote."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"its process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        last = f": {lines[-1][:300]}" if lines else ""
        return f"its process ended with exit code {code}{last}"

    def stop(self) -> None:
        """End the process; it holds nothing worth keeping."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1


def keep_off(cpus: list[int]) -> str | None:
    """Move this process off the cores that measure.  Returns a warning where that is not possible."""
    rest = sorted(set(machine.affinity()) - set(cpus))
    if not rest:
        return "no core is left for the harness: it shares one with what it measures"
    try:
        os.sched_setaffinity(0, rest)
    except (AttributeError, OSError) as error:
        return f"affinity is not permitted here ({error}): processes may move between cores"
    return None


def allow(cpus: list[int]) -> None:
    """Let this process run on these cores, as far as that is permitted."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, cpus)


def check_threads(threads: int) -> None:
    """Raise UserError unless that many cores can be had."""
    cores = len(machine.affinity())
    if not 1 <= threads <= cores:
        raise UserError(f"--threads {threads}: this process may use {cores} cores; give 1 to {cores}")
