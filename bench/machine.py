"""Facts about this machine, its libraries and its noise, for every file that is written and for ``doctor``."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

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


#: What a driver keeps of a device's memory for itself, at most; more than that is somebody's.
USUAL_OVERHEAD_BYTES = 1 << 30
#: Oldest driver (its first number) that runs programs of a CUDA version (its first number).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}


class Card(NamedTuple):  # no dataclass: this file is also loaded by its path alone (``bench.describe``)
    """An NVIDIA device as the driver tells of it just now; None where it does not tell."""

    uuid: str
    name: str
    memory_bytes: int | None = None
    free_bytes: int | None = None
    used_bytes: int | None = None
    driver: str | None = None
    compute_capability: str | None = None  # "9.0"


def cards() -> list[Card]:
    """The devices that a library would number 0, 1, …, by ``nvidia-smi``; by name alone, by /proc, where there is none."""
    rows = _nvidia_smi("gpu", "uuid,name,memory.total,memory.free,memory.used,driver_version,compute_cap")
    found = [_card(row) for row in rows if len(row) == 7]
    return _visible(found or [Card(path, name) for path, name in _shown_by_the_kernel()])


def _nvidia_smi(what: str, fields: str) -> list[list[str]]:
    """Rows of a query; none where the tool is absent or fails."""
    try:
        command = ["nvidia-smi", f"--query-{what}={fields}", "--format=csv,noheader,nounits"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [[value.strip() for value in line.split(",")] for line in told.splitlines() if line.strip()]


def _card(row: list[str]) -> Card:
    total, free, used = (int(value) << 20 if value.isdigit() else None for value in row[2:5])  # MiB
    driver, capability = (value if value[:1].isdigit() else None for value in row[5:7])  # "[N/A]" where not known
    return Card(row[0], row[1], total, free, used, driver, capability)


def _shown_by_the_kernel() -> list[tuple[str, str]]:
    paths = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    rows = [(str(path), line) for path in paths for line in _read(path).splitlines() if line.startswith("Model")]
    found = [(path, line.partition(":")[2].strip()) for path, line in rows]
    return found or [(str(path), str(path)) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def _visible(found: list[Card]) -> list[Card]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; a name it does not know hides all that come after it."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return found
    chosen = []
    for name in filter(None, map(str.strip, wanted.split(","))):
        by_number = [found[int(name)]] if name.isdigit() and int(name) < len(found) else []
        matching = by_number or [card for card in found if not name.isdigit() and card.uuid.startswith(name)]
        if not matching:
            break
        chosen.append(matching[0])
    return chosen


def card_of(device: str) -> Card | None:
    """The card behind ``cuda:1`` or ``gpu:1``; None for the CPU, and where there is none."""
    return _behind(device, cards)


def _behind(device: str, there: Callable[[], list[T]]) -> T | None:
    kind, _, index = device.partition(":")
    found = [] if kind == "cpu" else there()
    return found[int(index or 0)] if int(index or 0) < len(found) else None


def processes_on(card: Card) -> list[int]:
    """Processes that compute there, as far as they can be seen: a container may hide them."""
    rows = _nvidia_smi("compute-apps", "gpu_uuid,pid")
    return [int(row[1]) for row in rows if len(row) == 2 and row[0] == card.uuid and row[1].isdigit()]


@functools.cache
def accelerators() -> list[dict[str, Any]]:
    """``{name, memory_bytes, driver, compute_capability, l2_bytes}`` of every NVIDIA device, in the order of ``cards``.

    No library is imported to find out.
    """
    found = cards()
    l2_bytes = _l2_bytes() if found else {}
    return [
        {
            "name": card.name,
            "memory_bytes": card.memory_bytes,
            "driver": card.driver,
            "compute_capability": card.compute_capability,
            "l2_bytes": l2_bytes.get(card.uuid),
        }
        for card in found
    ]


def accelerator_of(device: str) -> dict[str, Any] | None:
    """That of ``accelerators`` behind ``cuda:1`` or ``gpu:1``; None for the CPU, and where there is none."""
    return _behind(device, accelerators)


def told(accelerator: dict[str, Any]) -> str:
    """What is known of one of ``accelerators``, in a line."""
    sizes = {"memory": accelerator["memory_bytes"], "L2": accelerator["l2_bytes"]}
    parts = [f"{name} {size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{name} {size / 2**20:.0f} MiB"
             for name, size in sizes.items() if size]  # fmt: skip
    named = {"driver": accelerator["driver"], "compute capability": accelerator["compute_capability"]}
    parts += [f"{name} {value}" for name, value in named.items() if value]
    return ", ".join([accelerator["name"], *parts])


def _l2_bytes() -> dict[str, int]:
    """Bytes of every device's last-level cache by UUID, asked of the driver itself, which opens no context for it."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        count, l2_attribute = ctypes.c_int(), 38  # CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
            return {}
        found = {}
        for ordinal in range(count.value):
            device, size, name = ctypes.c_int(), ctypes.c_int(), (ctypes.c_ubyte * 16)()
            failed = (
                cuda.cuDeviceGet(ctypes.byref(device), ordinal)
                or cuda.cuDeviceGetUuid(ctypes.byref(name), device)
                or cuda.cuDeviceGetAttribute(ctypes.byref(size), l2_attribute, device)
            )
            if not failed:
                found[f"GPU-{uuid.UUID(bytes=bytes(name))}"] = size.value
    except (OSError, AttributeError):  # no driver, or one that lacks a function
        return {}
    return found


def accelerator_missing(index: int = 0) -> str | None:
    """Why there is no NVIDIA device of that index here; None if there is one."""
    found = accelerators()
    if not found:
        return _silent_driver() or "no NVIDIA device or driver on this machine"
    if index >= len(found):
        told = ", ".join(f"{i}: {card['name']}" for i, card in enumerate(found))
        return f"{len(found)} NVIDIA device{'s are' if len(found) > 1 else ' is'} visible here ({told})"
    return None


def _silent_driver() -> str | None:
    """What nvidia-smi says where it is installed and finds no device; None where it is not."""
    if shutil.which("nvidia-smi") is None:
        return None
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None and _nvidia_smi("gpu", "uuid"):
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides every NVIDIA device"
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
        lines = (told.stdout + told.stderr).strip().splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        lines = [str(error)]
    return f"the NVIDIA driver does not answer: {lines[0] if lines else 'nvidia-smi says nothing'}"


def device_missing(device: str) -> str | None:
    """Why ``device`` (``cpu``, ``cuda[:i]``: torch's, ``gpu[:i]``: JAX's) cannot be used here, and what mends it; None if
    it can.  Judged from files, the driver and package metadata: no library is imported to find out.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return None
    reason = accelerator_missing(int(index or 0))
    if reason:
        return reason
    version = libraries().get("torch") or ""
    if kind == "cuda" and version.endswith("+cpu"):
        return f"torch {version} is the CPU build: pip install torch=={version.partition('+')[0]} in its CUDA build"
    if kind == "gpu" and _cuda_of_jax() is None:
        return "this JAX drives the CPU only: pip install 'jax[cuda12]'"
    return _old_driver(
        accelerators()[int(index or 0)]["driver"], _cuda_of_torch() if kind == "cuda" else _cuda_of_jax(), kind
    )


def _old_driver(driver: str | None, cuda: int | None, kind: str) -> str | None:
    oldest = OLDEST_DRIVER.get(cuda or 0)
    if driver is None or oldest is None or int(driver.partition(".")[0]) >= oldest:
        return None
    library = {"cuda": "torch", "gpu": "jax"}[kind]
    return f"driver {driver} is too old for CUDA {cuda}, which {library} is built for: it needs {oldest} or newer"


def _cuda_of_torch() -> int | None:
    """First number of the CUDA version that torch brings along."""
    local = (libraries().get("torch") or "").partition("+cu")[2]
    if local[:2].isdigit():
        return int(local[:2])
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return int(importlib.metadata.version(name).partition(".")[0])
    return None


def _cuda_of_jax() -> int | None:
    return next((major for major in (13, 12) if importlib.util.find_spec(f"jax_cuda{major}_plugin")), None)


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
