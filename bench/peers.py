"""Speed beside other libraries: ``make peers``.

Every implementation gets a process of its own on the same one core.  They take turns, row by row and in another order at
every visit, and each row's matrix-product ceiling is measured between them, so that ratios are of times taken side by
side.  A figure is the median over the visits; a ratio is the median of the visits' ratios.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import geometric_mean, median
from typing import Annotated

import typer

from backprop_files import write_json
from bench import machine
from bench.cells import Point, Setting
from bench.plan import step_estimate_s
from bench.process import WorkerProcess, keep_off, pick_cpus
from bench.visits import Task
from bench.visits import measure as measure_tasks
from impls import counts, registry
from impls.interface import Network


@dataclass(frozen=True)
class Row:
    """A batch size and a network: float32, tanh, mean squared error."""

    n: int
    layers: tuple[int, ...]
    label: str

    @property
    def network(self) -> Network:
        """The network as data."""
        return Network(self.layers, "tanh", "mse")


ROWS = (
    Row(1, (64, 64, 10), "1, 64-64-10"),
    Row(32, (64, 128, 128, 10), "32, 64-128-128-10"),
    Row(256, (64, 256, 256, 10), "256, 64-256-256-10"),
    Row(1024, (512,) * 5, "1024, 512×5"),
    Row(4096, (128,) * 5, "4096, 128×5"),
)
#: From this many examples on, a row's figure is its share of the ceiling too.
LARGE_N = 256
CEILING = "ceiling"
#: Implementations with a longer step than this are left out unless asked for.
LONGEST_S = 1.0

#: ``visits[v][row label][implementation]``: seconds of a step; under CEILING the operations a second of products.
Visit = dict[str, dict[str, float]]


@contextlib.contextmanager
def _workers(names: list[str], seed: int) -> Iterator[dict[str, WorkerProcess]]:
    cpus = pick_cpus(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        started = {}
        for name in names:
            setting = Setting(registry.find(name), "cpu", "float32", 1)
            worker = WorkerProcess(setting, cpus, Path(folder), Path(folder) / f"{name}.log")
            stack.callback(worker.stop)
            worker.start("synthetic", seed)
            started[name] = worker
        keep_off(cpus)
        yield started


def measure(names: list[str], turns: int, seconds: float, seed: int = 0) -> list[Visit]:
    """Time one step of every row with every implementation, ``turns`` times, in turn."""
    order = Random(seed)
    taken: list[Visit] = []
    with _workers(names, seed) as workers:
        for _ in range(turns):
            visit: Visit = {}
            for row in order.sample(ROWS, len(ROWS)):
                times = {name: _step(workers[name], row, seconds) for name in order.sample(names, len(names))}
                best = max(
                    worker.ask({"op": "ceilings"}, 60)["ceilings"]["ceiling_flops"] for worker in workers.values()
                )
                visit[row.label] = times | {CEILING: best}
            taken.append(visit)
    return taken


def _step(worker: WorkerProcess, row: Row, seconds: float) -> float:
    task = Task(Point(row.network, row.n, ()), ("step",), seconds)
    measure_tasks(worker, [task], Random(0))
    if task.error:
        raise task.error
    return float(median(task.results["step"]["seconds"]))


def _can_take_turns() -> list[str]:
    """Quick implementations and peers that are installed and whose longest step leaves time for the others."""
    found = [e for e in registry.ENTRIES if ("smoke" in e.sweeps or e.peer) and not e.slow and not e.missing()]
    settings = [Setting(entry, "cpu", "float32", 1) for entry in found]
    points = [Point(row.network, row.n, ()) for row in ROWS]
    return [s.entry.name for s in settings if max(step_estimate_s(s, point) for point in points) < LONGEST_S]


def shares(visits: list[Visit], row: Row, name: str) -> float:
    """Operations in products / seconds / ceiling, median over the visits."""
    products = counts.product_operations(row.network, row.n)
    return median(products / visit[row.label][name] / visit[row.label][CEILING] for visit in visits)


def ratio(visits: list[Visit], row: Row, slow: str, fast: list[str]) -> float:
    """How many times longer ``slow`` takes than the quickest of ``fast``, median over the visits."""
    return median(visit[row.label][slow] / min(visit[row.label][name] for name in fast) for visit in visits)


def tables(visits: list[Visit], names: list[str]) -> str:
    """Markdown: milliseconds and shares of the ceiling; then how many times slower than our fastest each one is."""
    ours = [name for name in names if not registry.find(name).peer]
    lines = [f"| n, layers | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for row in ROWS:
        cells = []
        for name in names:
            milliseconds = 1e3 * median(visit[row.label][name] for visit in visits)
            share = f" ({shares(visits, row, name):.0%})" if row.n >= LARGE_N else ""
            cells.append(f"{milliseconds:.3g} ms{share}")
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    lines += ["", f"| times the fastest of ours | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for row in ROWS:
        lines.append(f"| {row.label} | " + " | ".join(f"{ratio(visits, row, name, ours):.2f}" for name in names) + " |")
    means = [geometric_mean([ratio(visits, row, name, ours) for row in ROWS]) for name in names]
    lines.append("| geometric mean | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    return "\n".join(lines)


def main(
    impls: Annotated[str, typer.Option(help="comma-separated (default: all that are quick, and the peers)")] = "",
    visits: Annotated[int, typer.Option(help="turns every implementation gets at every row", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="of measuring at each visit")] = 0.3,
    out: Annotated[Path | None, typer.Option(help="write the visits there, as JSON")] = None,
) -> None:
    """Time a step of five networks beside other libraries, and print the tables as Markdown."""
    names = [name.strip() for name in impls.split(",") if name.strip()] or _can_take_turns()
    taken = measure(names, visits, seconds)
    if out:
        write_json(out, {"machine": machine.facts(), "visits": taken})
    print(tables(taken, names))


if __name__ == "__main__":
    typer.run(main)
