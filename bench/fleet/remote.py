"""What Dask runs: on a worker one function, that starts an agent beside it and passes on what it says.

Everything goes as text through the scheduler's events, in order, as it comes; the future itself brings nothing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

#: Where this package lies on the worker's machine; the agent imports it from there.
ROOT = Path(__file__).resolve().parents[2]
#: How often a job looks whether it is still wanted, and how long an agent may take to end once its work is done.
LOOK_S, ENDING_S = 1.0, 10.0
#: Bytes of a line at most, of an answer's as of a request's.
MOST_BYTES = 64 << 20


def serve(request: str, topic: str, token: str) -> None:
    """Have an agent answer ``request``; every line it says becomes an event of ``topic``, after ``token`` and a blank.

    Where it ends without a last line, one is made that says why.  Raises nothing of its own.
    """
    from distributed import get_worker

    worker = get_worker()
    wanted = functools.partial(_wanted, worker, str(worker.get_current_task()))

    def say(line: str) -> None:
        worker.log_event(topic, f"{token} {line}")

    with tempfile.TemporaryFile() as errors, aside(request) as step_aside:
        agent = start(errors)
        step_aside()
        try:
            _pass_on(agent, request, say, wanted)
            last = _last_words(agent, errors) if wanted() else ""  # one that is called off is not waited for
        finally:
            end(agent)
    if last:
        say(last)


def forget(topic: str, dask_scheduler: Any = None) -> None:
    """Runs on the scheduler: events that were received need not be kept."""
    broker = getattr(dask_scheduler, "_broker", None)
    if broker is not None:
        broker.truncate(topic)


@contextlib.contextmanager
def aside(request: str) -> Iterator[Callable[[], None]]:
    """Yields what moves this process, Dask's worker, off the cores that measure; afterwards it has them back.

    The agent is started before, since it inherits the cores of whoever starts it.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield lambda: None
        return
    cores = os.sched_getaffinity(0)
    rest = set(sorted(cores)[: -int(json.loads(request)["settings"]["threads"])])
    try:
        yield lambda: _allow(rest)
    finally:
        _allow(cores)


def _allow(cores: set[int]) -> None:
    """Every thread of this process may run there, as far as that is permitted."""
    for thread in os.listdir("/proc/self/task") if cores else ():  # noqa: PTH208
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread), cores)


def start(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """An agent that waits for its request."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.fleet.agent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=ROOT,
    )


def _pass_on(agent: subprocess.Popen[bytes], request: str, say: Any, wanted: Any) -> None:
    assert agent.stdin is not None
    try:
        agent.stdin.write(request.encode() + b"\n")
        agent.stdin.flush()
    except OSError:  # it died before; the last words say so
        return
    for line in _lines(agent, wanted):
        say(line.decode(errors="replace"))


def _lines(agent: subprocess.Popen[bytes], wanted: Any) -> Iterator[bytes]:
    """Whole lines as they come, until the agent is done, or nobody wants to know any more."""
    assert agent.stdout is not None
    descriptor, buffer, looked = agent.stdout.fileno(), b"", time.monotonic()
    while len(buffer) < MOST_BYTES:
        ready, _, _ = select.select([descriptor], [], [], LOOK_S)
        if time.monotonic() - looked >= LOOK_S:  # however much an agent has to say
            looked = time.monotonic()
            if not wanted():
                return
        if not ready:
            continue
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        buffer += chunk
        if b"\n" in chunk:
            *whole, buffer = buffer.split(b"\n")
            yield from whole


def _wanted(worker: Any, key: str) -> bool:
    """Whether the scheduler still waits for this task."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state == "executing"


def _last_words(agent: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """Of an agent that ended otherwise than by itself; nothing of one that did."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        agent.wait(timeout=ENDING_S)
    if agent.returncode in (0, None):
        return ""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    told = f": {lines[-1][:300]}" if lines else ""
    return json.dumps({"end": True, "crashed": f"its agent ended with code {agent.returncode}{told}"})


def end(agent: subprocess.Popen[bytes]) -> None:
    """Call the agent off: its standard input closes, upon which it ends what measures, and itself."""
    for pipe in (agent.stdin, agent.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
    deadline = time.monotonic() + ENDING_S
    while agent.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if agent.poll() is None:
        agent.kill()
    agent.wait()
