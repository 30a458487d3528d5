"""Does the client stay small?  Hundreds of simulated workers and tens of thousands of jobs, through the code that runs real ones.

The workers are Dask's own, many in a process; what they are asked they answer at once, with one valid cell a job in place
of a measurement.  Scheduler, connection, dispatcher, checks and files are those of every run.  ``python -m
bench.fleet.load`` (``make fleet-load``) tells time and peak memory, and exits with 1 above the limit, or if a
cell is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from backprop_files import SCHEMA_VERSION
from bench.cells import Cell, Setting, measured
from bench.fleet import loopback, remote
from bench.fleet import run as fleet_run
from bench.fleet.connection import RESOURCE, Where
from bench.fleet.survey import versions
from bench.plan import Settings
from impls import registry

#: Peak memory of the client that is allowed, and workers in a process.
LIMIT_BYTES, IN_PROCESS = 2 << 30, 50


def main() -> None:
    """Start workers, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=Path("reports/fleet-load"))
    parser.add_argument("--serve", nargs=3, metavar=("ADDRESS", "FIRST", "COUNT"), help="be some of the workers")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(be_workers(given.serve[0], int(given.serve[1]), int(given.serve[2])))
        return
    sys.exit(load(given.workers, given.jobs, given.out))


def load(workers: int, jobs: int, out: Path) -> int:
    """All of it; returns the exit code."""
    shutil.rmtree(out, ignore_errors=True)
    impls = registry.names()
    passes = -(-jobs // len(impls))
    jobs = passes * len(impls)
    with loopback.Fleet(workers=0) as fleet:
        serving = [_serve(fleet, first, min(IN_PROCESS, workers - first)) for first in range(0, workers, IN_PROCESS)]
        try:
            _wait_for(fleet, workers)
            start = time.monotonic()
            settings = Settings(profile="smoke", impls=impls, passes=passes, budget_s=86400.0)
            where = Where(scheduler_file=fleet.scheduler_file, wait_s=120.0)
            code = fleet_run.sweep(settings, out, False, Console(), where)
            took = time.monotonic() - start
            scheduler_bytes = _peak_of(fleet.scheduler.pid) if fleet.scheduler else 0
        finally:
            for process in serving:
                loopback.kill(process)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cells = sum(len(json.loads(path.read_text())["benchmarks"]) for path in out.glob("data/*.json"))
    print(f"{workers} workers, {jobs:,} jobs: {took:.0f} s, {took / jobs * 1e3:.1f} ms a job; {cells:,} cells on disk")
    print(
        f"peak memory: client {peak / 2**20:.0f} MiB (limit {LIMIT_BYTES >> 20}), scheduler {scheduler_bytes / 2**20:.0f} MiB"
    )
    return int(code != 0 or cells != jobs or peak > LIMIT_BYTES)


def _serve(fleet: loopback.Fleet, first: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.fleet.load", "--serve", fleet.address, str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(remote.ROOT), loopback.MARK: fleet.mark}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)


def _wait_for(fleet: loopback.Fleet, workers: int) -> None:
    import distributed

    connect: Any = distributed.Client
    with connect(fleet.address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=300)


def _peak_of(pid: int) -> int:
    """Peak resident bytes of a process, as /proc tells."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


# --- the simulated side ---------------------------------------------------------------------------------------------


async def be_workers(address: str, first: int, count: int) -> None:
    """So many workers of Dask's own in this process, each of a machine of its own name."""
    import dask
    import distributed

    remote.serve = serve  # tasks name it, so they find this one here
    dask.config.set({"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "5s"})
    worker: Any = distributed.Worker
    workers = [
        worker(
            address,
            nthreads=1,
            resources={RESOURCE: 1},
            name=f"simulated-{i}",
            host=loopback.LOOPBACK,
            dashboard=False,
            heartbeat_interval="10s",
            local_directory=f"/tmp/backprop-bench-load-{os.getpid()}",
        )
        for i in range(first, first + count)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(one.finished() for one in workers))


def serve(request: str, topic: str, token: str) -> None:
    """In place of ``bench.fleet.remote.serve``: answers at once what an agent would after a while."""
    from distributed import get_worker

    worker = get_worker()
    for line in answers(json.loads(request), str(worker.name)):
        worker.log_event(topic, f"{token} {json.dumps(line)}")


def answers(request: dict[str, Any], node: str) -> list[dict[str, Any]]:
    """Lines of an agent: a survey, or a job's cells and its end."""
    settings = request["settings"]
    if request["op"] == "survey":
        return [survey(settings["impls"], node)]
    if request["op"] == "measure":
        job = request["job"]
        cells = [cell(job["impl"], job["pass"])]
        line = {"schema_version": SCHEMA_VERSION, "cells": cells, "settled": [], "left_out": [], "failed": []}
        return [line, {"end": True, "schema_version": SCHEMA_VERSION, "notes": []}]
    return [{"end": True, "schema_version": SCHEMA_VERSION}]


def survey(impls: list[str], node: str) -> dict[str, Any]:
    """Of a machine that can measure one cell of every implementation."""
    told = {
        impl: {
            "label": _setting(impl).label,
            "cells": [[_cell(impl).point.label, ["step"]]],
            "cold": [1.0, 1],
            "warm": [1.0, 1],
            "cell_s": 0.1,
        }
        for impl in impls
    }
    machine = {"node": node, "cpu_model": "simulated", "libraries": {}}
    answer = {"versions": versions(), "machine": machine, "impls": told, "left_out": []}
    return {"end": True, "schema_version": SCHEMA_VERSION, **answer}


def cell(impl: str, number: int) -> dict[str, Any]:
    """One cell's rounds, as a worker's machine tells them."""
    seconds = [1e-3 + 1e-6 * i for i in range(8)]
    result = {
        "reference_s": {"product": [1e-4] * 8, "objects": [1e-4] * 8},
        "seconds": seconds,
        "first_call_s": 0.0,
        "peak_bytes": None,
        "memory_from": None,
        "settled": True,
        "dropped": 0,
        "started_at": 1.0,
        "at_s": [0.01 * i for i in range(8)],
        "iterations": 1,
    }
    ceilings = {"ceiling_flops": None, "bandwidth_bytes_per_s": None, "call_floor_s": None}
    found = _cell(impl)
    info = measured(found, "synthetic", 0, number, ceilings, result) | {"wall_s": 0.1, "machine_state": {}}
    return {"cell": found.label, "group": found.point.label, "seconds": seconds, "extra_info": info}


def _setting(impl: str) -> Setting:
    return Setting(registry.find(impl), "cpu", "float32", 1)


def _cell(impl: str) -> Cell:
    from bench.cells import Point
    from impls.interface import Network

    return Cell(_setting(impl), Point(Network((64, 32, 10), "tanh"), 64, ("examples",)), "step")


if __name__ == "__main__":
    main()
