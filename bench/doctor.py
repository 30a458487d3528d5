"""Is this machine fit to measure on?  Facts, threads as every library sees them, noise, and warnings."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import device_watch, machine, reference_kernel
from bench.cells import Setting
from bench.process import CellFailed, WorkerFailed, WorkerProcess, pick_cpus
from impls import registry

#: Seconds for which the reference kernels are watched.
WATCH_S = 3.0
#: A spread of the reference above this makes small differences invisible.
NOISY = 0.05


def examine(threads: int) -> dict[str, Any]:
    """Everything ``doctor`` tells, as data."""
    warnings = machine.warnings()  # before this work of our own shows in the load
    found: dict[str, Any] = {"machine": machine.facts(), "load_average": machine.load_average()}
    found["noise"] = noise()
    found["devices"] = {device: machine.device_missing(device) or "ready" for device in _devices()}
    found["threads"] = {e.name: _threads(e.name, threads) for e in registry.ENTRIES if "cpu" in e.devices}
    warnings += _of_accelerators()
    for kernel, spread in found["noise"].items():
        if spread["spread"] > NOISY:
            warnings.append(
                f"the {kernel} kernel's time spreads by {spread['spread']:.0%} within {WATCH_S:g} s: "
                "trust normalised times, and give more passes"
            )
    for name, seen in found["threads"].items():
        many = [pool["num_threads"] for pool in seen.get("pools", []) if (pool["num_threads"] or 0) > threads]
        if many:
            warnings.append(f"{name}: a thread pool of {many[0]} although {threads} were asked for")
    pools = [pool for seen in found["threads"].values() for pool in seen.get("pools", [])]
    if advice := machine.held_back(pools):
        warnings.append(advice)
    return {**found, "warnings": warnings}


def _devices() -> list[str]:
    """Every device that some implementation knows, each of several cards by its index."""
    kinds = dict.fromkeys(name for entry in registry.ENTRIES for name in entry.devices)
    count = len(machine.accelerators())
    return [
        device
        for kind in kinds
        for device in ([kind] if kind == "cpu" or count < 2 else [f"{kind}:{i}" for i in range(count)])
    ]


def _of_accelerators() -> list[str]:
    """What would spoil a run on the accelerators that are here."""
    found = [line for i in range(len(machine.accelerators())) if (line := device_watch.others(f"cuda:{i}"))]
    if machine.accelerators() and importlib.util.find_spec("pynvml") is None:
        found.append(
            "nvidia-ml-py is not installed: clock, temperature and throttling of the device cannot be seen; "
            "pip install nvidia-ml-py"
        )
    return found


def noise() -> dict[str, dict[str, float]]:
    """Median and spread (interquartile range over median) of each reference kernel's time."""
    kernels = reference_kernel.make("cpu", "numpy")
    times: dict[str, list[float]] = {name: [] for name in kernels}
    deadline = time.monotonic() + WATCH_S
    while time.monotonic() < deadline:
        for name, kernel in kernels.items():
            times[name].append(kernel(1))
        time.sleep(0.005)
    return {name: _summary(samples) for name, samples in times.items()}


def _summary(samples: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(samples, n=4)
    return {"median_s": middle, "spread": (high - low) / middle, "worst": max(samples) / middle}


def _threads(name: str, threads: int) -> dict[str, Any]:
    """Threads that an implementation's library sees in a pinned worker."""
    entry = registry.find(name)
    reason = entry.missing()
    if reason:
        return {"missing": reason}
    setting = Setting(entry, "cpu", entry.dtypes[0], threads)
    with tempfile.TemporaryDirectory() as folder:
        worker = WorkerProcess(setting, pick_cpus(threads), None, Path(folder) / "log")
        try:
            seen: dict[str, Any] = worker.start("synthetic", 0)["threads_seen"]
        except (CellFailed, WorkerFailed) as error:
            return {"missing": str(error)}
        finally:
            worker.stop()
    return seen
