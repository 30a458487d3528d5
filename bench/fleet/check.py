"""Does a fleet lose anything?  A scheduler and two workers on loopback, the smoke sweep through them, one worker killed.

``python -m bench.fleet.check`` (``make fleet``) says what happened and exits with 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench import plan
from bench.fleet import loopback
from bench.fleet.remote import ROOT
from bench.plan import Settings

#: Short enough for CI, and so long that nothing need be left out.
CELL_S, BUDGET_S = 0.03, 110.0
#: The worker is killed once this share of the cells is on disk, and the run must be over after so long.
KILL_AT, PATIENCE_S = 0.4, 240.0


def main() -> None:
    """Run, kill, look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("reports/fleet"))
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    faults = list(check(out))
    for fault in faults:
        print(f"WRONG: {fault}")
    print("a worker was killed, and nothing was lost" if not faults else f"{len(faults)} faults")
    sys.exit(1 if faults else 0)


def check(out: Path) -> Iterator[str]:
    """What is wrong; prints what happened."""
    settings = Settings(profile="smoke", cell_s=CELL_S, budget_s=BUDGET_S)
    wanted = {f"{cell.label} pass={job.pass_number}" for job in plan.make(settings).jobs for cell in job.cells}
    start = time.monotonic()
    with loopback.Fleet(workers=2) as fleet:
        print(f"scheduler {fleet.address} and two workers; {len(wanted)} cells to measure")
        client = _client(out, fleet)
        try:
            yield from _kill_half_way(client, fleet, out, len(wanted))
            code = client.wait(timeout=PATIENCE_S)
        finally:
            if client.poll() is None:
                client.kill()
        took = time.monotonic() - start
        if code:
            yield f"the run ended with exit code {code}"
        yield from _told(out, wanted)
        yield from _orphans(fleet)
    if not (out / "report.html").is_file():
        yield "there is no report"
    print(f"{took:.0f} s in all; report: {out / 'report.html'}")


def _client(out: Path, fleet: loopback.Fleet) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "backprop_bench", "run", "--profile", "smoke", "--out", str(out)]
    command += ["--cell-seconds", str(CELL_S), "--budget", str(BUDGET_S), "--scheduler-file", str(fleet.scheduler_file)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


def _kill_half_way(client: subprocess.Popen[bytes], fleet: loopback.Fleet, out: Path, total: int) -> Iterator[str]:
    """Kills the worker that measures, with all of its process group, once enough cells are on disk and it is at work."""
    deadline = time.monotonic() + PATIENCE_S
    worker = None
    while worker is None or len(_cells(out)) < KILL_AT * total:
        if client.poll() is not None or time.monotonic() > deadline:
            yield "no worker could be killed half-way: the run was over before"
            return
        time.sleep(0.1)
        worker = fleet.measuring()
    done = len(_cells(out))
    others = [address for address in fleet.listening() if not address.startswith(f"{loopback.LOOPBACK}:")]
    if others:
        yield f"something listens beyond loopback: {', '.join(others)}"
    print(f"all of {len(fleet.listening())} sockets listen on {loopback.LOOPBACK}")
    below = fleet.of_worker(worker)
    loopback.kill(fleet.started[worker])
    print(f"worker {worker + 1} killed after {done} of {total} cells, with {len(below)} processes")
    time.sleep(1.0)
    left = [line for pid, line in below.items() if loopback.command_line(pid) == line]
    if left:
        yield f"a second later there still runs: {'; '.join(left)}"


def _told(out: Path, wanted: set[str]) -> Iterator[str]:
    """Every cell of the plan exactly once, and nothing else."""
    cells = _cells(out)
    for name, count in cells.items():
        if count > 1:
            yield f"{name} stands {count} times"
    if missing := wanted - cells.keys():
        yield f"{len(missing)} cells are missing, such as {min(missing)}"
    if more := cells.keys() - wanted:
        yield f"{len(more)} cells were not asked for, such as {min(more)}"
    print(f"{len(wanted & cells.keys())} of {len(wanted)} cells measured, each once")
    for note in sorted({note for path in out.glob("data/*.json") for note in _notes(path)}):
        print(f"the run says: {note}")


def _orphans(fleet: loopback.Fleet) -> Iterator[str]:
    """Beside scheduler and workers nothing may be left."""
    deadline = time.monotonic() + loopback.END_S
    while left := {pid: line for pid, line in fleet.processes().items() if " -m bench." in line}:
        if time.monotonic() > deadline:
            yield f"left behind: {'; '.join(left.values())}"
            return
        time.sleep(0.2)
    print("no process was left behind")


def _cells(out: Path) -> Counter[str]:
    """Names on disk, and how often each stands there."""
    found: Counter[str] = Counter()
    for path in [*out.glob("data/*.json"), *out.glob("data/cells/*.json")]:
        try:
            found.update(entry["params"]["cell"] for entry in json.loads(path.read_text())["benchmarks"])
        except (OSError, ValueError):  # just being gathered
            continue
    return found


def _notes(path: Path) -> list[str]:
    return list(json.loads(path.read_text())["backprop_bench"]["notes"])


if __name__ == "__main__":
    main()
