"""The device's own clock: two events in its stream, around a block of calls, and the seconds between them.

The synchronised wall clock holds what a user waits for, launches and the wait itself included; the time between events
holds what the device was busy with, or waited for the next launch.  Both are recorded, so that either can be asked for.
"""

from __future__ import annotations

from typing import Any, Protocol


class DeviceClock(Protocol):
    """A clock that is read by what is handed to the device, not by the host."""

    def mark(self) -> None:
        """Have the device note the time when it gets here; returns at once."""

    def elapsed_s(self) -> float:
        """Seconds between the last two marks; asked after a ``synchronize``."""


class TorchEvents:
    """Two CUDA events, used again and again: making one takes longer than recording it."""

    def __init__(self, device: str) -> None:
        import torch

        self._current_stream = torch.cuda.current_stream
        self._device = torch.device(device)
        self._earlier: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._later: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def mark(self) -> None:
        """Record the older event anew, in the stream that the device's work goes to."""
        self._earlier, self._later = self._later, self._earlier
        self._later.record(self._current_stream(self._device))

    def elapsed_s(self) -> float:
        """Seconds between the two; resolution about 0.5 µs."""
        return float(self._earlier.elapsed_time(self._later)) / 1e3  # torch tells milliseconds


def clock_for(device: str, library: str) -> DeviceClock | None:
    """The clock of ``device`` as ``library`` (``torch``, ``jax``) gives access to it; None on the CPU and for JAX."""
    return TorchEvents(device) if library == "torch" and device.startswith("cuda") else None
