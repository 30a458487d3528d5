"""What an NVIDIA device says of itself while it is measured, by NVML: its clock, its temperature, whether it throttles.

NVML is asked through ``pynvml`` (nvidia-ml-py), which is optional: without it there is nothing to watch, and the files say
so by leaving clock and temperature empty.  What one device does not support is None; the rest is told.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from bench import machine

#: Reasons to run below the clock that was asked for which spoil a round: the device is too hot, or its supply too weak.
#: Bits of ``nvmlClocksEventReasons``: hardware slowdown, thermal slowdown by software and by hardware, power brake.
#: The power cap (bit 2) is no such reason: it is how a large product runs on every data-centre card.
THROTTLED = 0x08 | 0x20 | 0x40 | 0x80


class State(NamedTuple):
    """The device just after a round."""

    clock_hz: float | None = None  # of the streaming multiprocessors
    temperature_c: float | None = None
    throttled: bool = False


class DeviceWatch:
    """One device under watch."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        # renamed in NVML 12.2; which of the two there is depends on the version of pynvml
        self._reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )

    def sample(self) -> State:
        """What holds now; takes some ten microseconds."""
        nvml, handle = self._nvml, self._handle
        clock_mhz = self._told(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        celsius = self._told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        ask = self._reasons
        reasons = None if ask is None else self._told(lambda: ask(handle))
        return State(
            None if clock_mhz is None else clock_mhz * 1e6,
            None if celsius is None else float(celsius),
            bool(int(reasons or 0) & THROTTLED),
        )

    def _told(self, ask: Callable[[], Any]) -> Any:
        with suppress(self._nvml.NVMLError):
            return ask()
        return None


def watch_for(device: str) -> DeviceWatch | None:
    """The watch of ``device`` (``cuda:1``); None on the CPU, without pynvml, or where NVML does not know it."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    cards = machine.cards()
    with suppress(nvml.NVMLError, IndexError):
        nvml.nvmlInit()
        return DeviceWatch(nvml, nvml.nvmlDeviceGetHandleByUUID(cards[int(index or 0)].uuid))
    return None


def others(device: str) -> str | None:
    """One line on who else uses ``device``, asked before anything of ours runs there; None if nobody is seen to."""
    card = machine.card_of(device)
    if card is None:
        return None
    processes = machine.processes_on(card)
    taken = card.used_bytes or 0
    if not processes and taken < machine.USUAL_OVERHEAD_BYTES:
        return None
    busy = f"{len(processes)} other process{'es' * (len(processes) != 1)} (pid {', '.join(map(str, processes))})"
    told = (
        f"{busy if processes else 'others, whose processes are not visible here,'} hold {taken / 2**30:.1f} GiB of it"
    )
    return f"device '{device}' ({card.name}) is busy: {told}; times will be disturbed, and large cells may not fit"
