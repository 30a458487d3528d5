"""Facts about this machine, its libraries and its noise, for every file that is written and for ``doctor``."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Libraries whose version a result depends on.
LIBRARIES = ("numpy", "scipy", "torch", "jax", "jaxlib", "scikit-learn", "autograd", "pytest-benchmark")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@functools.cache
def facts() -> dict[str, Any]:
    """Machine facts for ``machine_info``; slow look-ups are done once."""
    return {
        "cpu_model": cpu_model(),
        "caches": caches(),
        "blas": blas(),
        "libraries": libraries(),
        "affinity": affinity(),
        "memory_bytes": memory_bytes()["total"],
        "accelerators": accelerators(),
    }


def cpu_model() -> str:
    """The processor's own name."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """Cache sizes of the first core: ``{"L1d": "32K", …}``."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(index / name).strip() for name in ("level", "type", "size"))
        found[f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') }"] = size
    return found


def blas() -> list[dict[str, Any]]:
    """BLAS and OpenMP pools loaded in this process, as threadpoolctl sees them."""
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "architecture", "num_threads")
    pools = [{key: pool.get(key) for key in keys} for pool in threadpool_info()]
    return sorted(pools, key=str)  # they come in the order of memory, another one in every process


#: OpenBLAS's names of its kernels that use AVX-512.
AVX512_KERNELS = ("SkylakeX", "Cooperlake", "Sapphirerapids")


def held_back(pools: Sequence[Mapping[str, Any]]) -> str | None:
    """What to do where OpenBLAS does not know this CPU, and takes kernels that use half of it; None where it does.

    ``pools`` are as of ``blas``.
    """
    kernels = [
        str(pool["architecture"]) for pool in pools if pool["internal_api"] == "openblas" and pool["architecture"]
    ]
    old = [name for name in kernels if name not in AVX512_KERNELS]
    if not old or "avx512f" not in _read("/proc/cpuinfo").split():
        return None
    return (
        f"OpenBLAS takes its {old[0]} kernels on a CPU that has AVX-512: products may be nearly twice as fast with "
        f"OPENBLAS_CORETYPE={AVX512_KERNELS[0]}"
    )


def libraries() -> dict[str, str]:
    """Versions of the libraries that are installed; none is imported."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def affinity() -> list[int]:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory_bytes() -> dict[str, int]:
    """Total and available memory, by /proc/meminfo; zeros where there is none."""
    rows = dict(line.split(":") for line in _read("/proc/meminfo").splitlines() if ":" in line)
    kib = {key: int(value.split()[0]) for key, value in rows.items() if value.split()}
    return {"total": kib.get("MemTotal", 0) * 1024, "available": kib.get("MemAvailable", 0) * 1024}


def accelerators() -> list[str]:
    """NVIDIA devices the driver shows; no library is imported to find out."""
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [line.partition(":")[2].strip() for card in cards for line in _read(card).splitlines() if "Model" in line]
    return models or [str(path) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def device_missing(device: str) -> str | None:
    """Why ``device`` (``cpu``, ``cuda``: torch's, ``gpu``: JAX's) cannot be used here, and what mends it; None if it can.

    Judged from files and package metadata: no library is imported to find out.
    """
    if device == "cpu":
        return None
    if not accelerators():
        return "no NVIDIA device or driver on this machine"
    version = libraries().get("torch") or ""
    if device == "cuda" and version.endswith("+cpu"):
        return f"torch {version} is the CPU build: pip install torch=={version.partition('+')[0]} in its CUDA build"
    if device == "gpu" and not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)):
        return "this JAX drives the CPU only: pip install 'jax[cuda12]'"
    return None


def load_average() -> float:
    """Runnable processes over the last minute."""
    return os.getloadavg()[0]


def state(cpus: list[int]) -> dict[str, float | None]:
    """What may change while a run goes on: load, clock of the measuring cores, free memory, share of time stalled on it."""
    clocks = [mhz for mhz in map(_clock_mhz, cpus) if mhz]
    return {
        "load": load_average(),
        "clock_mhz": sum(clocks) / len(clocks) if clocks else None,
        "available_bytes": memory_bytes()["available"],
        "memory_stall_percent": _memory_stall(),
    }


def _clock_mhz(cpu: int) -> float | None:
    """The core's present clock, where the system tells; a virtual machine often shows the nominal one."""
    scaling = _read(Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")).strip()
    if scaling.isdigit():
        return int(scaling) / 1000
    lines = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("cpu MHz")]
    return float(lines[cpu].partition(":")[2]) if cpu < len(lines) else None


def _memory_stall() -> float | None:
    """Share of the last ten seconds in which some process waited for memory (Linux's pressure-stall information)."""
    for word in _read("/proc/pressure/memory").split():
        if word.startswith("avg10="):
            return float(word.partition("=")[2])
    return None


def warnings() -> list[str]:
    """What would spoil a run, in words."""
    found = []
    if load_average() > 0.5:
        found.append(f"load average is {load_average():.2f}: other work is running; stop it, or expect wider intervals")
    if len(affinity()) < 2:
        found.append("one core only: the harness shares it with what it measures")
    if memory_bytes()["available"] and memory_bytes()["available"] < 2 << 30:
        found.append(f"only {memory_bytes()['available'] / 2**30:.1f} GiB of memory are free: large cells are left out")
    supplies = [_read(path).strip() for path in Path("/sys/class/power_supply").glob("*/status")]
    if "Discharging" in supplies:
        found.append("running on battery: the clock will drop")
    governors = {_read(path).strip() for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")}
    if governors - {"performance"}:
        found.append(f"frequency governor is {', '.join(sorted(governors))}: speeds change; 'performance' is steadier")
    found += [
        f"{name}={os.environ[name]} is set and will be overridden by --threads"
        for name in THREAD_VARIABLES
        if name in os.environ
    ]
    return found


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
