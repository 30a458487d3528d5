"""What does a fleet cost?  The smoke sweep plain and through one Dask worker, alternating; wall times, and whether
normalised times agree.

``python -m bench.fleet.overhead`` (``make fleet-overhead``).  Nothing is cut by a budget, so both measure the same; the
report is left out, it is the same work for both.  ``--first`` and ``--count`` measure some of the runs, so that a shared
machine need not be held for all of them at once; whatever runs are there are compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console

from backprop_files import write_json
from bench import estimate
from bench import run as plain
from bench.fleet import loopback
from bench.fleet import run as fleet_run
from bench.fleet.connection import Where
from bench.plan import Settings

#: What is to be reached: wall time of the fleet over that of the plain run, and how far normalised times may differ.
WALL, AGREE = 1.15, 0.02
#: No cell is cut by it.
BUDGET_S = 3600.0


def main() -> None:
    """Measure the pairs, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("reports/fleet-overhead"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="runs to leave out at the start: 2 a pair")
    parser.add_argument("--count", type=int, default=None, help="runs to measure (default: all that are left)")
    parser.add_argument("--passes", type=int, default=0, help="passes of each run (default: the profile's)")
    given = parser.parse_args()
    kinds = list(itertools.islice(itertools.cycle(("plain", "fleet", "fleet", "plain")), 2 * given.pairs))
    stop = None if given.count is None else given.first + given.count
    for i, kind in list(enumerate(kinds))[given.first : stop]:
        measure(kind, given.out / f"{i}-{kind}", given.passes)
    tell(given.out)


def measure(kind: str, out: Path, passes: int) -> None:
    """One run; its wall time goes beside it."""
    settings = Settings(profile="smoke", budget_s=BUDGET_S, passes=passes)
    console = Console(quiet=True)
    if kind == "plain":
        start = time.monotonic()
        plain.sweep(settings, out, False, console)
    else:
        with loopback.Fleet(workers=1) as fleet:
            time.sleep(3.0)  # the worker is there, as it is where a fleet is used
            start = time.monotonic()
            fleet_run.sweep(settings, out, False, console, Where(scheduler_file=fleet.scheduler_file))
    write_json(out / "wall.json", {"kind": kind, "wall_s": time.monotonic() - start})
    print(f"{out.name}: {time.monotonic() - start:.1f} s", flush=True)


def tell(out: Path) -> None:
    """Ratios of wall times, and of normalised times beside the noise of the plain runs."""
    runs = sorted(path.parent for path in out.glob("*/wall.json"))
    walls = defaultdict(list)
    for run in runs:
        told = json.loads((run / "wall.json").read_text())
        walls[told["kind"]].append(told["wall_s"])
    if len(walls) < 2:
        return
    ratio = math.exp(np.mean(np.log(walls["fleet"])) - np.mean(np.log(walls["plain"])))
    print(f"wall time of the fleet over the plain run's: {ratio:.3f} (at most {WALL} is wanted)")
    cells = {run: log_times(run) for run in runs}
    for title, pairs in (
        ("plain and plain", _pairs(runs, "plain", "plain")),
        ("fleet and plain", _pairs(runs, "fleet", "plain")),
        ("fleet and fleet", _pairs(runs, "fleet", "fleet")),
    ):
        far = [abs(cells[a][name] - cells[b][name]) for a, b in pairs for name in cells[a].keys() & cells[b].keys()]
        signed = [cells[a][name] - cells[b][name] for a, b in pairs for name in cells[a].keys() & cells[b].keys()]
        if far:
            middle, high = np.quantile(far, [0.5, 0.95])
            told = (
                f"median {middle:.2%}, 95 % of cells within {high:.2%}; median with its sign {np.median(signed):+.2%}"
            )
            print(f"|log ratio| of normalised times, {title}: {told}")
    print(f"the median of fleet and plain is to be within {AGREE:.0%}")


def log_times(run: Path) -> dict[str, float]:
    """Mean over passes of each cell's log time, over that of the product kernel."""
    found = defaultdict(list)
    for path in run.glob("data/*.json"):
        for entry in json.loads(path.read_text())["benchmarks"]:
            name = entry["params"]["cell"].rpartition(" pass=")[0]
            found[name].append(estimate.log_time(entry["stats"]["data"], entry["extra_info"]["reference_s"]))
    return {name: float(np.mean(logs)) for name, logs in found.items()}


def _pairs(runs: list[Path], first: str, second: str) -> list[tuple[Path, Path]]:
    """All pairs of a run of one kind and another one of the other."""
    both = itertools.combinations(runs, 2) if first == second else itertools.product(runs, runs)
    return [(a, b) for a, b in both if a.name.endswith(first) and b.name.endswith(second)]


if __name__ == "__main__":
    main()
