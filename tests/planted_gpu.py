"""Files of a planted accelerator: launches that overlap arithmetic, ceilings by dtype, events beside the wall clock.

The truth of a step: launching takes L; arithmetic A = products / rate(dtype) + bytes / bandwidth; cost is
(L^k + A^k)^(1/k), their sum for k = 1, the larger of them for large k.  Events see the larger of A and what the device
waited for; a replayed step launches once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench import cells as bench_cells
from bench.cells import Cell, Point, Setting
from bench.profiles import Range, _axes, _joint
from impls import registry
from tests import planted
from tests.planted import Noise

#: A sweep that begins deep in launching and ends in arithmetic.
RANGE = Range(
    8192,
    256,
    2,
    4,
    tuple(4**i for i in range(1, 10)),
    (1, 2, 4, 8),
    (16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    (1, 2, 4, 8, 16, 32, 64),
    joint=20,
    heldout=6,
    functions=(),
)
NOISE = Noise(0.01, 0.003)
RATES = {"float32": 5e13, "tf32": 4e14, "bfloat16": 7.5e14, "float16": 7.2e14, "float64": 3e13}
HOST = {"cpu_model": "planted host", "machine": "x86_64", "libraries": {"torch": "2.13"}}
CHIP = {"name": "Planted One", "memory_bytes": 80 << 30, "driver": "1.0", "compute_capability": "9.0"}


@dataclass(frozen=True)
class Truth:
    """What the planted accelerator does."""

    launch_s: float = 1.5e-4
    sharpness: float = 4.0
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)
    efficiency: float = 0.8
    bandwidth: float = 3e12
    link: float = 2.5e10  # bytes per second from pinned memory; pageable has a third
    latency_s: float = 1e-5
    ceiling_share: float = 0.9
    moves: float = 3  # of every parameter in a step, whatever n is

    def arithmetic(self, f: Mapping[str, Any], dtype: str) -> float:
        """Seconds that the device computes."""
        products = sum(kinds.get("product", 0) for kinds in f["operations"].values())
        moved = 4 * (self.moves * f["m"] + f["n"] * f["u"] * (4 + f["p"]))
        return float(products / (self.efficiency * self.rates[dtype]) + moved / self.bandwidth)

    def step(self, f: Mapping[str, Any], dtype: str) -> float:
        """Seconds of a step on the wall clock."""
        k = self.sharpness
        return float((self.launch_s**k + self.arithmetic(f, dtype) ** k) ** (1 / k))

    def transfer(self, f: Mapping[str, Any], pinned: bool) -> float:
        """Seconds of a copy of inputs and targets."""
        moved = 4 * f["n"] * (f["layers"][0] + f["layers"][-1])
        return float(self.latency_s + moved / (self.link if pinned else self.link / 3))

    def crossover(self, f: Mapping[str, Any], dtype: str, moving: str) -> float:
        """n·m at which arithmetic takes as long as launching, when ``moving`` (examples, width) alone moves: by bisection."""
        low, high = np.log(1e-3), np.log(1e6)
        for _ in range(80):
            middle = (low + high) / 2
            beyond = self.arithmetic(_moved(f, moving, np.exp(middle)), dtype) > self.launch_s
            low, high = (low, middle) if beyond else (middle, high)
        at = _moved(f, moving, np.exp(low))
        return float(at["n"] * at["m"])


def _moved(f: Mapping[str, Any], moving: str, by: float) -> dict[str, Any]:
    """Facts with n times ``by``; what is paid once stays."""
    assert moving == "examples"
    operations = {phase: {k: by * c for k, c in kinds.items()} for phase, kinds in f["operations"].items()}
    return {**f, "n": by * f["n"], "operations": operations}


def points(chosen: Range, joint_seed: int = 0) -> list[Point]:
    """The sweep's points, each once."""
    merged: dict[str, Point] = {}
    for point in (*_axes(chosen), *_joint(chosen, joint_seed)):
        known = merged.get(point.label)
        axes = (*known.axes, *point.axes) if known else point.axes
        merged[point.label] = Point(point.network, point.n, axes, point.heldout)
    return list(merged.values())


def entries(
    truth: Truth = Truth(),
    *,
    seed: int,
    impl: str = "torch",
    device: str = "cuda",
    dtype: str = "float32",
    passes: int = 3,
    noise: Noise = NOISE,
    chosen: Range = RANGE,
    rounds: int = 8,
    phases: tuple[str, ...] = ("step",),
    throttled: int = 0,
    only: slice = slice(None),
) -> list[dict[str, Any]]:
    """Benchmarks of one implementation on the planted accelerator, as pytest-benchmark writes them."""
    rng = np.random.default_rng(seed)
    setting = Setting(replace(registry.find("torch"), name=impl), device, dtype, 1)
    found = []
    for number in range(1, passes + 1):
        for point in points(chosen)[only]:
            for phase in phases:
                facts = bench_cells.facts(Cell(setting, point, phase), "synthetic", seed)
                between = np.exp(noise.between * rng.standard_normal())
                within = np.exp(noise.within * rng.standard_normal(rounds))
                found.append(_entry(truth, facts, number, between * within, throttled))
    return found


def _entry(truth: Truth, f: dict[str, Any], number: int, noise: np.ndarray, throttled: int) -> dict[str, Any]:
    copied = f["phase"].startswith("transfer")
    true = truth.transfer(f, f["phase"] == "transfer-pinned") if copied else truth.step(f, f["dtype"])
    entry = planted._entry(f, number, true * noise, np.ones(len(noise)))
    entry["extra_info"] |= {
        "reference_s": {"product": [1e-4] * len(noise)},
        "device_s": None if f["device"] == "gpu" or copied else (noise * truth.arithmetic(f, f["dtype"])).tolist(),
        "clock_hz": [1.98e9 - 1e7 * (number - 1)] * len(noise),
        "temperature_c": 50.0 + number,
        "throttled_rounds": throttled,
        "input_sets": 4,
        "ceiling_flops": truth.ceiling_share * truth.rates[f["dtype"]],
        "bandwidth_bytes_per_s": truth.bandwidth,
        "peak_bytes": int(8 * f["m"] + 12 * f["n"] * sum(f["layers"]) + (8 << 20)),
        "memory_from": "device counter",
    }
    return entry


def on_cpu(rate: float, *, seed: int, impl: str = "numpy", call_s: float = 2e-5, **how: Any) -> list[dict[str, Any]]:
    """The same sweep on a CPU: calls and arithmetic one after the other, all at one rate."""
    slow = Truth(call_s, 1.0, dict.fromkeys(RATES, rate), 1.0, 1e11)
    found = entries(slow, seed=seed, impl=impl, device="cpu", **how)
    for entry in found:
        info = entry["extra_info"]
        for key in ("device_s", "clock_hz", "temperature_c", "throttled_rounds", "input_sets"):
            info.pop(key)
        info["reference_s"]["objects"] = info["reference_s"]["product"]
        info |= {"ceiling_flops": rate, "memory_from": "tracemalloc"}
    return found


def several(seed: int = 0) -> Iterator[dict[str, Any]]:
    """A run of an accelerator: eager, replayed and compiled by another library, in four dtypes."""
    transfers = ("step", "transfer", "transfer-pinned")
    for i, dtype in enumerate(("float32", "tf32", "bfloat16", "float16")):
        yield from entries(seed=seed + 10 * i, dtype=dtype, phases=transfers, throttled=i % 2)
        yield from entries(Truth(launch_s=2e-5), seed=seed + 10 * i + 1, impl="torch-graph", dtype=dtype)
    yield from entries(Truth(launch_s=6e-5), seed=seed + 5, impl="jax", device="gpu")


def document(benchmarks: Any, accelerators: tuple[dict[str, Any], ...] = (CHIP,), **ours: Any) -> dict[str, Any]:
    """A whole file of a machine with an accelerator."""
    found = planted.document(benchmarks, **ours)
    found["machine_info"] = {**HOST, "accelerators": list(accelerators)}
    return found
