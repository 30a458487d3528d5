"""A GPU to be told of, not to compute with: an ``nvidia-smi`` on the path that answers from given rows, and a ``pynvml``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import machine

#: uuid, name, memory total, free and used in MiB, driver, compute capability.
H200 = "GPU-11111111-0000-0000-0000-000000000000, NVIDIA H200, 143771, 143000, 4, 580.159.03, 9.0"
T4 = "GPU-22222222-0000-0000-0000-000000000000, Tesla T4, 15360, 15000, 4, 580.159.03, 7.5"

_SCRIPT = """#!/bin/sh
case "$1" in
--query-gpu=uuid) printf '%s\\n' {uuids} ;;
--query-gpu=*) printf '%s\\n' {cards} ;;
--query-compute-apps=*) printf '%s\\n' {processes} ;;
*) echo "{last_words}"; exit 9 ;;
esac
exit {code}
"""


def forget() -> None:
    """What was found of this machine is asked anew."""
    machine.accelerators.cache_clear()
    machine.facts.cache_clear()


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cards: Sequence[str] = (H200,),
    processes: Sequence[str] = (),
    broken: str = "",
) -> None:
    """Put the tool first on the path.  ``broken``: it fails with these words."""
    quoted = " ".join(f"'{card}'" for card in cards) or "''"
    uuids = " ".join(f"'{card.partition(',')[0]}'" for card in cards) or "''"
    script = _SCRIPT.format(
        cards=quoted,
        uuids=uuids,
        processes=" ".join(f"'{row}'" for row in processes) or "''",
        last_words=broken,
        code=9 if broken else 0,
    )
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '" + broken + "'; exit 9\n" if broken else script)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "_l2_bytes", dict)
    forget()


class FakeNvml(ModuleType):
    """``pynvml`` with one device; what is not in ``answers`` is not supported."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        """As the real one: what every function raises."""

    def __init__(self, **answers: Any) -> None:
        super().__init__("pynvml")
        self.answers, self.asked_for = answers, ""

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if self.answers.get("unknown"):
            raise self.NVMLError("not found")
        self.asked_for = uuid
        return uuid

    def _answer(self, name: str) -> Any:
        if name not in self.answers:
            raise self.NVMLError("not supported")
        found = self.answers[name]
        return found.pop(0) if isinstance(found, list) else found

    def nvmlDeviceGetClockInfo(self, handle: Any, which: int) -> int:
        return int(self._answer("clock_mhz"))

    def nvmlDeviceGetTemperature(self, handle: Any, which: int) -> int:
        return int(self._answer("celsius"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        return int(self._answer("reasons"))


def install_nvml(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> FakeNvml:
    """Have ``import pynvml`` find a fake one."""
    fake = FakeNvml(**answers)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake
