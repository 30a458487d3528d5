"""What runs within a Dask worker: passes on what an agent says for as long as somebody wants to know."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bench.fleet import remote

pytest.importorskip("distributed")

#: Agents that never end by themselves: one says something all the time, one nothing at all.
BUSY = "import time\nwhile True:\n    print('{}', flush=True)\n    time.sleep(0.002)"
MUTE = "import sys\nsys.stdin.read()"
REQUEST = '{"settings": {"threads": 1}}'


def agent(code: str, errors: Any = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)


class Worker:
    """Dask's, as far as it is asked: it has one task, in some state, and writes down what it is to pass on."""

    def __init__(self, states: list[str]) -> None:
        self.said: list[str] = []
        self.task = SimpleNamespace(state=states[0])
        self._states = states
        self.state = SimpleNamespace(tasks=SimpleNamespace(get=self._get))

    def _get(self, key: str) -> Any:
        self.task.state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return self.task

    def get_current_task(self) -> str:
        return "task"

    def log_event(self, topic: str, message: str) -> None:
        self.said.append(message)


def serve(code: str, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """A task with this agent; returns the agent."""
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    monkeypatch.setattr(remote, "LOOK_S", 0.05)
    monkeypatch.setattr(remote, "ENDING_S", 20.0)

    def start(errors: Any) -> subprocess.Popen[bytes]:
        started.append(agent(code, errors))
        return started[0]

    monkeypatch.setattr(remote, "start", start)
    remote.serve(REQUEST, "topic", "token")
    return started[0]


@pytest.mark.parametrize("code", [BUSY, MUTE])
def test_an_agent_that_is_called_off_is_ended_and_not_waited_for(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it has to say, and without the time that one is given which ends by itself."""
    monkeypatch.setattr(remote, "_last_words", lambda agent, errors: pytest.fail("it is waited for"))
    worker = Worker(["executing", "executing", "cancelled"])
    assert serve(code, worker, monkeypatch).returncode is not None
    assert bool(worker.said) == (code == BUSY)


def test_of_an_agent_that_crashes_the_last_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(["executing"])
    serve("import sys\nprint('{}')\nsys.stdin.readline()\nraise SystemError('out of luck')", worker, monkeypatch)
    assert worker.said[0] == "token {}"
    assert '"crashed": "its agent ended with code 1: SystemError: out of luck"' in worker.said[1]


def test_of_an_agent_that_ends_well_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(["executing"])
    serve("import sys\nsys.stdin.readline()\nprint('{\"end\": true}')", worker, monkeypatch)
    assert worker.said == ['token {"end": true}']
