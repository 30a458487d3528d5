"""The client's end of Dask: who is there, one task for one worker, and what it says, as text.

Everything that comes arrives in one queue, whatever thread of Dask's brings it.  No pickle is loaded here
(``bench.fleet.guard``), and Dask's own log stays off the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import re
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from backprop_files import UserError
from bench.fleet import remote
from bench.fleet.guard import nothing_unpickled, refused

#: What a worker must offer to be asked, one of it; so no two tasks of ours run beside each other there.
RESOURCE = "measure"
#: Seconds to wait for a connection, and for any answer of the scheduler's.
CONNECT_S, ANSWER_S = 8.0, 30.0
#: Events that the scheduler keeps before it is asked to forget them.
FORGET_EVERY = 200


class Lost(Exception):
    """The scheduler is gone."""


@dataclass(frozen=True)
class Where:
    """Which scheduler, and what it takes to be let in."""

    scheduler: str = ""
    scheduler_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    wait_s: float = 60.0  # for a first worker, and for another where none is left

    @property
    def address(self) -> str:
        """As given, or as the scheduler's file tells it.  Raises UserError."""
        if self.scheduler and self.scheduler_file:
            raise UserError("--scheduler and --scheduler-file: give one of them")
        address = self.scheduler or self._told_by_file()
        protocol, separator, rest = address.partition("://")
        if not separator or protocol not in ("tcp", "tls") or not re.fullmatch(r".+:\d{1,5}", rest):
            raise UserError(f"--scheduler {address}: give tcp://HOST:PORT, or tls://HOST:PORT with --tls-ca/-cert/-key")
        if protocol == "tls" and not self._tls:
            raise UserError(f"{address}: needs --tls-ca, --tls-cert and --tls-key")
        if protocol == "tcp" and self._tls:
            raise UserError(f"{address}: --tls-ca, --tls-cert and --tls-key are for a scheduler at tls://HOST:PORT")
        return address

    def _told_by_file(self) -> str:
        assert self.scheduler_file is not None
        try:
            found = json.loads(self.scheduler_file.read_text())["address"]
        except OSError as error:
            raise UserError(f"{self.scheduler_file}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.scheduler_file}: names no 'address': is it a scheduler's file?") from error
        return str(found)

    @property
    def _tls(self) -> tuple[Path, ...]:
        given = [path for path in (self.tls_ca, self.tls_cert, self.tls_key) if path]
        if len(given) not in (0, 3):
            raise UserError("--tls-ca, --tls-cert and --tls-key: give all three")
        for path in given:
            if not path.is_file():
                raise UserError(f"{path}: no such file")
        return tuple(given)

    def security(self, kind: Any) -> Any:
        """Dask's ``Security`` (``kind``): encrypted and with certificates on both sides, or none at all."""
        if not self._tls:
            return None
        ca, cert, key = map(str, self._tls)
        return kind(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


@dataclass(frozen=True)
class Heard:
    """Something came: a line that a task said, a task's end (with its error), or workers that joined or left."""

    kind: Literal["line", "end", "workers"]
    token: str = ""
    text: str = ""


class Connection:
    """To one scheduler, for one run.  A context manager; raises UserError where there is nobody, Lost once it is gone."""

    def __init__(self, where: Where, run: str) -> None:
        self.address = where.address
        self._where = where
        self._topic = f"backprop-bench-{run}"
        self._queue: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._futures: dict[str, Any] = {}
        self._received = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Connection:
        try:
            import dask
            from distributed import Client, Security
        except ImportError as error:
            raise UserError(
                "a fleet needs Dask, which is not installed: pip install -c constraints.txt -e '.[fleet]'"
            ) from error
        self._reach()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_silence())
            stack.enter_context(nothing_unpickled())
            settings = {"distributed.comm.timeouts.connect": CONNECT_S, "distributed.comm.retry.count": 0}
            stack.enter_context(dask.config.set(settings))
            self._client = self._connected(Client, self._where.security(Security))
            stack.callback(self._close)
            self._client.subscribe_topic(self._topic, self._on_line)
            self._client.subscribe_topic("all", self._on_change)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _connected(self, client: Any, security: Any) -> Any:
        class Impatient(client):  # type: ignore[misc]
            """Dask's client would wait for ever for the first word of whoever takes the connection and says nothing."""

            async def _ensure_connected(self, timeout: Any = None) -> None:
                await asyncio.wait_for(super()._ensure_connected(timeout), CONNECT_S)

        try:
            return Impatient(
                self.address,
                timeout=CONNECT_S,
                security=security,
                set_as_default=False,
                serializers=["msgpack"],
                deserializers=["msgpack"],
            )
        except (OSError, TimeoutError) as error:  # among them ssl's own
            raise UserError(f"scheduler {self.address}: {self._unreachable()}") from error
        except (RuntimeError, TypeError, ValueError) as error:  # Dask's refusals, and addresses that are none
            text = " ".join(str(error).split())[:200]
            raise UserError(f"scheduler {self.address}: cannot be used: {text}") from error

    def _reach(self) -> None:
        """Is anybody there?  The system says so at once, and in plain words; Dask would try again for a while."""
        host, _, port = self.address.partition("://")[2].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except (OSError, ValueError, OverflowError) as error:
            told = getattr(error, "strerror", None) or error
            raise UserError(f"scheduler {self.address}: not reachable ({told}): is it running?") from error

    def _unreachable(self) -> str:
        if self.address.startswith("tls"):
            return f"not reachable within {CONNECT_S:g} s: are these certificates of its authority?"
        why = "no scheduler, a stuck one, or one that wants TLS, at tls://HOST:PORT (--tls-ca)"
        return f"not reachable within {CONNECT_S:g} s: {why}"

    # --- who is there -------------------------------------------------------------------------------------------

    def workers(self) -> dict[str, dict[str, float]]:
        """Every worker's address and what it offers.  Raises Lost."""
        self.check()
        try:
            told = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_S)
        except Exception as error:
            raise Lost(f"scheduler {self.address} does not answer any more") from error
        return {str(name): dict(info.get("resources") or {}) for name, info in told["workers"].items()}

    def check(self) -> None:
        """Raises Lost if the connection is no more."""
        if self._client.status != "running":
            raise Lost(f"scheduler {self.address} is gone")
        hearing = getattr(self._client, "_handle_report_task", None)
        if hearing is not None and hearing.done():  # Dask itself goes on as if nothing was
            raise Lost(f"scheduler {self.address} sent what cannot be read: {', '.join(refused()) or 'it broke off'}")

    # --- tasks --------------------------------------------------------------------------------------------------

    def submit(self, token: str, worker: str, request: str) -> None:
        """Have that worker, and no other, answer a request; what it says is heard under ``token``."""
        future = self._client.submit(
            remote.serve,
            request,
            self._topic,
            token,
            key=f"{self._topic}-{token}",
            workers=[worker],
            allow_other_workers=False,
            resources={RESOURCE: 1},
            pure=False,
            retries=0,
        )
        self._futures[token] = future
        future.add_done_callback(lambda done: self._on_end(token, done))

    def drop(self, token: str) -> None:
        """A task is of no interest any more: if it is under way, it is called off."""
        future = self._futures.pop(token, None)
        if future is not None and self._client.status == "running":
            future.release()

    def heard(self, timeout_s: float) -> Iterator[Heard]:
        """Whatever has come; waits for a first one at most so long."""
        with contextlib.suppress(queue.Empty):
            yield self._queue.get(timeout=timeout_s)
            while True:
                yield self._queue.get_nowait()

    def _on_line(self, event: tuple[float, Any]) -> None:
        token, _, text = str(event[1]).partition(" ")
        self._received += 1
        if self._received % FORGET_EVERY == 0:
            self._client.loop.add_callback(self._forget)
        self._queue.put(Heard("line", token, text))

    def _on_change(self, event: tuple[float, Any]) -> None:
        if isinstance(event[1], dict) and event[1].get("action") in ("add-worker", "remove-worker"):
            self._queue.put(Heard("workers"))

    def _on_end(self, token: str, future: Any) -> None:
        error = getattr(future._state, "exception", None) if future.status == "error" else None
        told = _told(error) if error else future.status
        self._queue.put(Heard("end", token, "" if future.status == "finished" else told))

    async def _forget(self) -> None:
        """What was received need not lie with the scheduler; it does no harm where that cannot be asked for."""
        with contextlib.suppress(Exception):
            await self._client._run_on_scheduler(remote.forget, self._topic)

    def _close(self) -> None:
        for token in list(self._futures):
            self.drop(token)
        with contextlib.suppress(Exception):
            self._client.close(timeout=2)


def _told(error: BaseException) -> str:
    """What an error says; of one that came as a pickle, which is not loaded, whatever text is in it."""
    data = error.args[0] if error.args else ""
    if isinstance(data, bytes):
        data = " ".join(text.decode() for text in re.findall(rb"[ -~]{5,}", data))
    return " ".join(str(data).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No word of Dask's own on the terminal: what matters is said in one line of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
