"""Nothing that comes back from a fleet is unpickled.

Dask's client unpickles in many places whatever arrives: types of results, exceptions, messages.  A pickle can do harm only
by naming what it wants to call, and Python tells its audit hooks each such name before it is looked up.  While the guard
stands, every name is refused, in any thread and whichever way the bytes came, but for those that can do nothing.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator

#: What may be named all the same: plain types, and Python's own exceptions, so that a worker can say what it lacks.
HARMLESS = {"str", "int", "float", "bool", "bytes", "list", "tuple", "dict", "NoneType"} | {
    name for name, found in vars(builtins).items() if isinstance(found, type) and issubclass(found, Exception)
}


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
            module, name = arguments
            if module != "builtins" or name not in HARMLESS:
                self.refused = [*self.refused[-9:], f"{module}.{name}"]
                raise Refused(f"a worker or the scheduler sent a pickle that names {module}.{name}; it was not loaded")


_guard = _Guard()


@contextlib.contextmanager
def nothing_unpickled() -> Iterator[list[str]]:
    """Refuse every pickle in this process for as long as the context lasts.  Yields nothing of use but to tests:
    ``refused()`` tells what was refused.
    """
    if not _guard.installed:
        sys.addaudithook(_guard)
        _guard.installed = True
    _guard.standing += 1
    try:
        yield _guard.refused
    finally:
        _guard.standing -= 1


def refused() -> tuple[str, ...]:
    """Names that were refused last."""
    return tuple(_guard.refused)
