"""A process that does not outlive the one that started it, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: The launcher's process id, for those it starts and those these start.
LAUNCHER = "BACKPROP_BENCH_LAUNCHER"


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; stopped or stuck ones as well.  Linux alone has that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.kill(int(os.environ.get(LAUNCHER, os.getpid())), 0)
    except ProcessLookupError:  # it ended before the kernel was told
        os._exit(1)
