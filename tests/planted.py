"""Files of planted truth: the format a run writes, with times from a known law, seeded noise and a drifting machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backprop_files import SCHEMA_VERSION
from bench import cells as bench_cells
from bench.cells import Cell, Point, Setting
from bench.profiles import Range
from bench.profiles import _axes as axis_points
from bench.profiles import _joint as joint_points
from impls import registry

#: A sweep of the quick profile's shape.
RANGE = Range(
    256,
    128,
    2,
    4,
    (16, 64, 256, 1024, 4096),
    (1, 2, 4, 8),
    (32, 64, 128, 256, 512),
    (1, 2, 4, 8, 16, 32, 64),
    joint=20,
    heldout=6,
    functions=(),
)

Law = Callable[[dict[str, Any]], float]


def nmp(f: dict[str, Any]) -> float:
    """The article's law, with a fixed overhead."""
    return float(5e-6 + 2e-12 * f["n"] * f["m"] * f["p"])


def nm(f: dict[str, Any]) -> float:
    """Products alone."""
    return float(5e-6 + 7e-11 * f["n"] * f["m"])


def additive(f: dict[str, Any]) -> float:
    """Products per weight, activation per unit, update per parameter."""
    return float(2e-5 + f["n"] * (7e-11 * f["m"] + 3e-10 * f["u"] * f["p"]) + 1e-9 * f["m"])


def calls(f: dict[str, Any]) -> float:
    """The additive law with a price for every call."""
    return float(additive(f) + 2e-5 * f["depth"] + 2e-6 * (f["depth"] - 1) * f["p"])


def arrays(f: dict[str, Any]) -> float:
    """Bytes: two copies of the parameters, three of every unit for each example."""
    return float(8 * f["m"] + 12 * f["n"] * sum(f["layers"]))


@dataclass(frozen=True)
class Noise:
    """Log-normal noise: of a cell in a pass, of a round, and of the machine's speed, which the reference shares."""

    between: float = 0.01
    within: float = 0.01
    drift: float = 0.0


def entries(
    law: Law,
    *,
    seed: int,
    impl: str = "numpy",
    passes: int = 3,
    noise: Noise = Noise(),
    phase: str = "step",
    chosen: Range = RANGE,
    rounds: int = 8,
    joint_seed: int = 0,
    peak_bytes: Law | None = None,
    optimizer: str = "gradient-descent",
) -> list[dict[str, Any]]:
    """Benchmarks of one implementation, as pytest-benchmark writes them."""
    rng = np.random.default_rng(seed)
    setting = Setting(registry.find(impl), "cpu", "float32", 1)
    merged: dict[str, Point] = {}
    for point in (*axis_points(chosen), *joint_points(chosen, joint_seed)):
        known = merged.get(point.label)
        axes = (*known.axes, *point.axes) if known else point.axes
        merged[point.label] = Point(point.network, point.n, axes, point.heldout, optimizer=optimizer)
    found = []
    for number in range(1, passes + 1):
        for point in merged.values():
            facts = bench_cells.facts(Cell(setting, point, phase), "synthetic", seed)
            speed = np.exp(noise.drift * np.repeat(rng.standard_normal(), rounds))
            cell = law(facts) * np.exp(noise.between * rng.standard_normal())
            seconds = cell * speed * np.exp(noise.within * rng.standard_normal(rounds))
            found.append(_entry(facts, number, seconds, speed))
            if peak_bytes:
                found[-1]["extra_info"]["peak_bytes"] = int(peak_bytes(facts))
    return found


def _entry(facts: dict[str, Any], number: int, seconds: np.ndarray, speed: np.ndarray) -> dict[str, Any]:
    told = [facts[key] for key in ("impl", "layers", "activation", "optimizer")]
    name = f"{' '.join(map(str, told))} n={facts['n']} {facts['phase']} pass={number}"
    return {
        "name": name,
        "fullname": name,
        "group": None,
        "params": {"cell": name},
        "stats": {"data": seconds.tolist(), "median": float(np.median(seconds)), "rounds": len(seconds)},
        "extra_info": {
            "schema_version": SCHEMA_VERSION,
            **facts,
            "reference_s": {"product": (1e-4 * speed).tolist(), "objects": (1e-4 * speed).tolist()},
            "pass": number,
            "first_call_s": 0.001,
            "peak_bytes": None,
            "memory_from": None,
            "ceiling_flops": 1e11,
            "bandwidth_bytes_per_s": 2e10,
            "settled": True,
            "dropped_rounds": 0,
            "started_at": 1.7e9,
            "iterations": 1,
            "rounds_at_s": [0.004 * i for i in range(len(seconds))],
            "call_floor_s": 1e-7,
            "wall_s": 0.1,
            "machine_state": {
                "load": 0.1,
                "clock_mhz": 2500.0,
                "available_bytes": 1 << 34,
                "memory_stall_percent": 0.0,
            },
        },
    }


def document(benchmarks: Iterable[dict[str, Any]], **ours: Any) -> dict[str, Any]:
    """A whole file."""
    return {
        "machine_info": {"cpu_model": "planted", "machine": "x86_64", "libraries": {"numpy": "2"}},
        "commit_info": {},
        "benchmarks": list(benchmarks),
        "datetime": "2026-01-01T00:00:00+00:00",
        "version": "5",
        "backprop_bench": {
            "schema_version": SCHEMA_VERSION,
            "run": {"profile": "planted", "seed": 0},
            "left_out": [],
            "failed": [],
            "notes": [],
            **ours,
        },
    }


def write(path: Path, benchmarks: Iterable[dict[str, Any]], **ours: Any) -> Path:
    """Write a file of these benchmarks."""
    path.write_text(json.dumps(document(benchmarks, **ours)))
    return path


@dataclass(frozen=True)
class Host:
    """A machine of a planted fleet: ``slower`` lengthens everything, its reference too (another clock), ``odd`` its cells
    alone; ``facts`` go into its ``machine_info``; ``passes`` are those it measures.
    """

    node: str
    passes: tuple[int, ...]
    slower: float = 1.0
    odd: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    law: Law | None = None  # of its own


def fleet(
    folder: Path,
    hosts: Sequence[Host],
    law: Law,
    *,
    seed: int,
    impls: Sequence[str] = ("numpy",),
    noise: Noise = Noise(),
    process: float = 0.0,
    chosen: Range = RANGE,
) -> Path:
    """A run directory with a file for each implementation, pass and machine; ``process`` is log-normal noise that all cells
    of a file share.
    """
    rng = np.random.default_rng(seed)
    for host in hosts:
        for impl in impls:
            for number in host.passes:
                found = entries(
                    host.law or law, seed=int(rng.integers(1 << 30)), impl=impl, passes=1, noise=noise, chosen=chosen
                )
                factor = float(host.odd * np.exp(process * rng.standard_normal()))
                content = document(_on_host(found, number, host, factor))
                content["machine_info"] |= {"node": host.node, **host.facts}
                (folder / "data").mkdir(parents=True, exist_ok=True)
                name = f"{impl}-pass{number}-{hosts.index(host)}.json"
                (folder / "data" / name).write_text(json.dumps(content))
    return folder


def _on_host(found: list[dict[str, Any]], number: int, host: Host, factor: float) -> list[dict[str, Any]]:
    for benchmark in found:
        info, stats = benchmark["extra_info"], benchmark["stats"]
        stats["data"] = [s * host.slower * factor for s in stats["data"]]
        stats["median"] *= host.slower * factor
        info["reference_s"] = {k: [s * host.slower for s in times] for k, times in info["reference_s"].items()}
        info["ceiling_flops"] /= host.slower
        info["bandwidth_bytes_per_s"] /= host.slower
        info["pass"] = number
    return found
