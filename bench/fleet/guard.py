"""Nothing that comes back from a fleet is unpickled.

Dask's client unpickles in many places whatever arrives: types of results, exceptions, messages.  A pickle can do harm only
by naming what it wants to call, and Python tells its audit hooks each such name before it is looked up.  While the guard
stands, every name is refused, in any thread and whichever way the bytes came.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


class Refused(TypeError):
    """A pickle that names something; Dask takes it for one that cannot be read, and goes on."""


class _Guard:
    """One for the process: an audit hook cannot be taken back, so it asks whether it stands."""

    def __init__(self) -> None:
        self.standing = 0
        self.installed = False
        self.refused: list[str] = []  # the last few names, for whoever wants to know

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.standing and event == "pickle.find_class":
            name = ".".join(map(str, arguments))
            self.refused = [*self.refused[-9:], name]
            raise Refused(f"a worker or the scheduler sent a pickle that names {name}; it was not loaded")


_guard = _Guard()


@contextlib.contextmanager
def nothing_unpickled() -> Iterator[None]:
    """Refuse every pickle in this process for as long as the context lasts; ``refused()`` tells which there were."""
    if not _guard.installed:
        sys.addaudithook(_guard)
        _guard.installed = True
    _guard.standing += 1
    try:
        yield
    finally:
        _guard.standing -= 1


def refused() -> tuple[str, ...]:
    """Names that were refused last."""
    return tuple(_guard.refused)
