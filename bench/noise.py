"""An A/A test: the same cells in many fresh processes.  What differs between them is noise, and what a comparison of
two versions must exceed to be told from it.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from bench.cells import Setting
from bench.process import WorkerProcess, keep_off, pick_cpus
from impls import counts, registry
from impls.interface import Network

IMPLEMENTATION = "numpy"
POINTS = {
    "small": (Network((64, 32, 32, 10)), 64),
    "middle": (Network((64, 128, 128, 10)), 64),
    "large": (Network((64, 256, 256, 10)), 1024),
}
#: Seconds each cell is measured in a process.
CELL_S = 0.3
#: Passes on either side of the comparisons that are told.
SIDES = (3, 10)
LEAST_PROCESSES = 4


@dataclass(frozen=True)
class Noise:
    """Of one cell: standard deviation of log time between processes, and the smallest change told apart by passes."""

    cell: str
    kind: str  # raw or normalised
    processes: int
    deviation: float
    smallest_change: dict[int, float]


def smallest_change(deviation: float, passes: int) -> float:
    """Relative change that a two-sided t-test at 95 % tells from none, with ``passes`` on either side.

    log ratio > t(2k - 2) · s · √(2 / k)
    """
    t = float(stats.t.ppf(0.975, 2 * passes - 2))
    return math.expm1(t * deviation * math.sqrt(2 / passes))


def test(seconds: float, threads: int) -> list[Noise]:
    """Start fresh processes for about ``seconds``; at least ``LEAST_PROCESSES``."""
    logs: dict[tuple[str, str], list[float]] = {(cell, kind): [] for cell in POINTS for kind in ("raw", "normalised")}
    deadline = time.monotonic() + seconds
    cpus = pick_cpus(threads)
    keep_off(cpus)
    processes = 0
    with tempfile.TemporaryDirectory() as folder:
        while processes < LEAST_PROCESSES or time.monotonic() < deadline:
            for cell, (raw, normal) in _one_process(threads, cpus, Path(folder)).items():
                logs[cell, "raw"].append(raw)
                logs[cell, "normalised"].append(normal)
            processes += 1
    return [_noise(cell, kind, values) for (cell, kind), values in logs.items()]


def _noise(cell: str, kind: str, logs: list[float]) -> Noise:
    deviation = statistics.stdev(logs)
    return Noise(cell, kind, len(logs), deviation, {k: smallest_change(deviation, k) for k in SIDES})


def _one_process(threads: int, cpus: list[int], folder: Path) -> dict[str, tuple[float, float]]:
    """Log of the time of every cell, raw and over its reference, in one fresh process."""
    worker = WorkerProcess(
        Setting(registry.find(IMPLEMENTATION), "cpu", "float32", threads), cpus, None, folder / "log"
    )
    try:
        ceiling = worker.start("synthetic", 0)["ceilings"]["ceiling_flops"]
        return {cell: _cell(worker, network, n, ceiling) for cell, (network, n) in POINTS.items()}
    finally:
        worker.stop()


def _cell(worker: WorkerProcess, network: Network, n: int, ceiling: float) -> tuple[float, float]:
    request: dict[str, Any] = {"op": "measure", "layers": network.layers, "activation": network.activation}
    request |= {"loss": network.loss, "n": n, "phases": ["step"], "seconds": CELL_S}
    rounds = worker.ask(request, 120)["phases"]["step"]
    seconds = rounds["seconds"]
    weight = min(1.0, counts.product_operations(network, n) / statistics.median(seconds) / ceiling)
    reference = rounds["reference_s"]
    normal = [
        math.log(s) - weight * math.log(product) - (1 - weight) * math.log(objects)
        for s, product, objects in zip(seconds, reference["product"], reference["objects"], strict=True)
    ]
    return math.log(statistics.median(seconds)), statistics.median(normal)
