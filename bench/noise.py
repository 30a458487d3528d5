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
from random import Random

from scipy import stats

from bench import estimate, visits
from bench.cells import Point, Setting
from bench.process import WorkerProcess, keep_off, pick_cpus
from bench.visits import Task
from impls import registry
from impls.interface import Network

IMPLEMENTATION = "numpy"
POINTS = {
    "small": Point(Network((64, 32, 32, 10)), 64, ()),
    "middle": Point(Network((64, 128, 128, 10)), 64, ()),
    "large": Point(Network((64, 256, 256, 10)), 1024, ()),
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
            for cell, (raw, normal) in _one_process(threads, cpus, Path(folder), processes).items():
                logs[cell, "raw"].append(raw)
                logs[cell, "normalised"].append(normal)
            processes += 1
    return [_noise(cell, kind, values) for (cell, kind), values in logs.items()]


def _noise(cell: str, kind: str, logs: list[float]) -> Noise:
    deviation = statistics.stdev(logs)
    return Noise(cell, kind, len(logs), deviation, {k: smallest_change(deviation, k) for k in SIDES})


def _one_process(threads: int, cpus: list[int], folder: Path, number: int) -> dict[str, tuple[float, float]]:
    """Log of the time of every cell, raw and over its reference, in one fresh process."""
    worker = WorkerProcess(
        Setting(registry.find(IMPLEMENTATION), "cpu", "float32", threads), cpus, None, folder / "log"
    )
    tasks = {cell: Task(point, ("step",), CELL_S) for cell, point in POINTS.items()}
    try:
        worker.start("synthetic", 0)
        visits.measure(worker, list(tasks.values()), Random(number))
    finally:
        worker.stop()
    return {cell: _times(task) for cell, task in tasks.items()}


def _times(task: Task) -> tuple[float, float]:
    if task.error:
        raise task.error
    rounds = task.results["step"]
    raw = math.log(statistics.median(rounds["seconds"]))
    return raw, estimate.log_time(rounds["seconds"], rounds["reference_s"])
