"""What NVML and the driver tell of a device, from fakes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import device_watch, machine
from bench.device_watch import State
from tests import fake_gpu
from tests.fake_gpu import H200, T4

UUID = H200.partition(",")[0]


@pytest.fixture(autouse=True)
def fresh() -> None:
    fake_gpu.forget()


def test_clock_and_temperature_are_told_in_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200, T4))
    nvml = fake_gpu.install_nvml(monkeypatch, clock_mhz=1980, celsius=61, reasons=0)
    watch = device_watch.watch_for("gpu:1")
    assert watch is not None
    assert nvml.asked_for == T4.partition(",")[0]  # NVML numbers all devices, a library those that are visible
    assert watch.sample() == State(1.98e9, 61.0, False)


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [
        (0x0, False),
        (0x1, False),  # idle
        (0x4, False),  # power cap: how large products run
        (0x8, True),  # hardware slowdown
        (0x20, True),  # too hot, by the driver
        (0x40 | 0x4, True),  # too hot, by the hardware
        (0x80, True),  # power brake
        (0x10 | 0x100 | 0x2, False),  # clocks that were asked for
    ],
)
def test_heat_and_supply_throttle_the_power_cap_does_not(
    reasons: int, throttled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.install(tmp_path, monkeypatch)
    fake_gpu.install_nvml(monkeypatch, clock_mhz=1980, celsius=61, reasons=reasons)
    watch = device_watch.watch_for("cuda")
    assert watch is not None
    assert watch.sample().throttled == throttled


def test_what_a_device_does_not_support_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch)
    fake_gpu.install_nvml(monkeypatch, celsius=50)
    watch = device_watch.watch_for("cuda")
    assert watch is not None
    assert watch.sample() == State(None, 50.0, False)


def test_nobody_watches_a_cpu_or_without_pynvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_watch.watch_for("cpu") is None
    fake_gpu.install(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device_watch.watch_for("cuda") is None
    fake_gpu.install_nvml(monkeypatch, unknown=True)
    assert device_watch.watch_for("cuda") is None
    fake_gpu.install_nvml(monkeypatch)
    assert device_watch.watch_for("cuda:5") is None


# --- who else is there ------------------------------------------------------------------------------------------------


def test_an_idle_device_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch)
    assert device_watch.others("cuda") is None
    assert device_watch.others("cpu") is None


def test_other_processes_are_named_with_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = H200.replace("143000, 4,", "102812, 40960,")
    fake_gpu.install(tmp_path, monkeypatch, (busy, T4), (f"{UUID}, 4711", f"{UUID}, 4712", "GPU-other, 1"))
    told = device_watch.others("cuda:0")
    assert told is not None
    for words in ("cuda:0", "NVIDIA H200", "2 other processes (pid 4711, 4712)", "40.0 GiB"):
        assert words in told
    assert "\n" not in told
    assert device_watch.others("cuda:1") is None


def test_memory_that_unseen_processes_hold_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200.replace("143000, 4,", "133000, 10240,"),))
    told = device_watch.others("cuda")
    assert told is not None
    assert "whose processes are not visible here" in told
    assert "10.0 GiB" in told


# --- what is there ----------------------------------------------------------------------------------------------------


def test_accelerators_are_told_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200, T4))
    first, second = machine.accelerators()
    assert first == {
        "name": "NVIDIA H200",
        "memory_bytes": 143771 << 20,
        "driver": "580.159.03",
        "compute_capability": "9.0",
        "l2_bytes": None,
    }
    assert second["name"] == "Tesla T4"
    assert machine.told(first) == "NVIDIA H200, memory 140.4 GiB, driver 580.159.03, compute capability 9.0"


@pytest.mark.parametrize(
    ("visible", "names"),
    [("1", ["Tesla T4"]), ("1,0", ["Tesla T4", "NVIDIA H200"]), ("GPU-2222", ["Tesla T4"]), ("", []), ("7,0", [])],
)
def test_only_visible_devices_count_in_their_order(
    visible: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200, T4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card["name"] for card in machine.accelerators()] == names
    if not names:
        assert "hides every NVIDIA device" in str(machine.device_missing("cuda"))


def test_a_driver_that_does_not_answer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    fake_gpu.install(tmp_path, monkeypatch, broken=words)
    assert machine.device_missing("cuda") == f"the NVIDIA driver does not answer: {words}"


@pytest.mark.parametrize(
    ("torch", "driver", "words"),
    [
        ("2.13.0+cpu", "580.1", "torch 2.13.0+cpu is the CPU build: pip install torch==2.13.0 in its CUDA build"),
        (
            "2.13.0+cu130",
            "550.54",
            "driver 550.54 is too old for CUDA 13, which torch is built for: it needs 580 or newer",
        ),
        ("2.13.0+cu126", "550.54", None),
        ("2.13.0+cu130", "580.65", None),
    ],
)
def test_a_build_and_its_driver_must_fit(
    torch: str, driver: str, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200.replace("580.159.03", driver),))
    monkeypatch.setattr(machine, "libraries", lambda: {"torch": torch})
    assert machine.device_missing("cuda") == words
    assert "1 NVIDIA device is visible here (0: NVIDIA H200)" in str(machine.device_missing("cuda:1"))


def test_jax_without_its_cuda_plugin_drives_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200.replace("580.159.03", "535.9"),))
    monkeypatch.setattr(machine, "_cuda_of_jax", lambda: None)
    assert "this JAX drives the CPU only" in str(machine.device_missing("gpu"))
    monkeypatch.setattr(machine, "_cuda_of_jax", lambda: 13)
    assert "driver 535.9 is too old for CUDA 13, which jax is built for" in str(machine.device_missing("gpu"))
