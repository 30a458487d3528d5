"""Speed beside other libraries: ``make peers``.

Every implementation gets a process of its own on the same one core.  They take turns, row by row and in another order at
every visit, and each row's matrix-product ceiling is measured between them, so that ratios are of times taken side by
side.  A figure is the median over the visits; a ratio is the median of the visits' ratios.

Beside single steps stands a whole training run, all epochs in a row from the start, by those that can go through batches:
their orders are the same, and they must end at the same loss.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import geometric_mean, median
from typing import Annotated, Any

import typer

from backprop_files import UserError, write_json
from bench import machine
from bench.cells import Point, Setting
from bench.plan import step_estimate_s
from bench.process import WorkerProcess, keep_off, pick_cpus
from bench.visits import Task
from bench.visits import measure as measure_tasks
from impls import counts, datasets, registry
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


@dataclass(frozen=True)
class Training:
    """Plain gradient descent from the start through all rows of ``data``, reshuffled in every epoch."""

    data: str
    network: Network
    batch: int
    epochs: int
    learning_rate: float

    @property
    def label(self) -> str:
        """``20 epochs of digits, 32, 64-64-10``."""
        return f"{self.epochs} epochs of {self.data}, {self.batch}, {'-'.join(map(str, self.network.layers))}"


TRAINING = Training("digits", Network((64, 64, 10), "tanh", "cross_entropy"), 32, 20, 0.1)
#: A run is short; of so many in a visit the median counts.
RUNS = 5
#: The largest loss at the end may be so many times the smallest: the same mathematics, but for rounding.
ALIKE = 1.01
#: From this many examples on, a row's figure is its share of the ceiling too.
LARGE_N = 256
CEILING = "ceiling"
#: Implementations with a longer step than this are left out unless asked for.
LONGEST_S = 1.0

#: The losses of a training run, all examples together: at its end by implementation, and at its start.
LOSSES, START = "losses", "start"

#: ``visits[v][row label][implementation]``: seconds of a step, or of a training run; under CEILING the operations a second
#: of products, and under LOSSES what training came to.
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
    """Time one step of every row, and the training run, with every implementation, ``turns`` times, in turn."""
    order = Random(seed)
    rows: list[Row | Training] = [*ROWS, TRAINING]
    taken: list[Visit] = []
    with _workers(names, seed) as workers:
        for _ in range(turns):
            visit: Visit = {}
            for row in order.sample(rows, len(rows)):
                if isinstance(row, Training):
                    visit |= _training_visit({name: workers[name] for name in order.sample(names, len(names))}, row)
                    continue
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


def _training_visit(workers: dict[str, WorkerProcess], training: Training) -> Visit:
    """Seconds and losses of those that can go through batches."""
    runs = {name: [_train(worker, training) for _ in range(RUNS)] for name, worker in workers.items()}
    able = {name: rows for name, rows in runs.items() if all(rows)}
    losses = {name: rows[-1][-1]["loss"] for name, rows in able.items()}
    if losses:
        losses[START] = next(iter(able.values()))[0][0]["loss"]
        check_losses(losses)
    return {
        training.label: {name: median(run[-1]["seconds"] for run in rows) for name, rows in able.items()},
        LOSSES: losses,
    }


def _train(worker: WorkerProcess, training: Training) -> list[dict[str, Any]]:
    """The rows of the start and of the end; none where it cannot go through batches."""
    network = training.network
    request = {
        "op": "train",
        "layers": network.layers,
        "activation": network.activation,
        "loss": network.loss,
        "data": training.data,
        "n": datasets.find(training.data).n,
        "learning_rate": training.learning_rate,
        "batch": training.batch,
        "epochs": training.epochs,
    }
    rows: list[dict[str, Any]] = worker.ask(request, 300.0)["rows"]
    return rows


def check_losses(losses: Mapping[str, float | None]) -> None:
    """Raise UserError unless all have learned, to the same loss: what does not train is not timed.

    ``losses`` are those of the end by implementation, None for one that diverged, and that of the start as START.
    """
    start = losses[START]
    ends = {name: loss for name, loss in losses.items() if name != START}
    known = {name: loss for name, loss in ends.items() if loss is not None and loss < (start or 0.0) / 2}
    if failed := ends.keys() - known.keys():
        raise UserError(f"training: {', '.join(sorted(failed))} did not halve the loss of the start, {start}: {ends}")
    if max(known.values()) > ALIKE * min(known.values()):
        raise UserError(f"training: losses at the end differ by more than {ALIKE - 1:.0%}: {known}")


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


def ratio(visits: list[Visit], row: Row | Training, slow: str, fast: list[str]) -> float:
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


def training_table(visits: list[Visit], names: list[str]) -> str:
    """Markdown: milliseconds of the training run, times the fastest of ours and NumPy, and the loss it ends at."""
    able = [name for name in names if name in visits[0][TRAINING.label]]
    ours = [name for name in able if not registry.find(name).peer]
    lines = [f"| {TRAINING.label} | {' | '.join(able)} |", "| --- |" + " --- |" * len(able)]
    times = [1e3 * median(visit[TRAINING.label][name] for visit in visits) for name in able]
    lines.append("| time | " + " | ".join(f"{milliseconds:.3g} ms" for milliseconds in times) + " |")
    for what, fast in (("the fastest of ours", ours), ("numpy", ["numpy"])):
        if set(fast) & set(able):
            over = [ratio(visits, TRAINING, name, fast) for name in able]
            lines.append(f"| times {what} | " + " | ".join(f"{times:.2f}" for times in over) + " |")
    ends = [f"{visits[-1][LOSSES][name]:.4g}" for name in able]
    lines.append(f"| loss at the end ({visits[-1][LOSSES][START]:.3g} at the start) | " + " | ".join(ends) + " |")
    return "\n".join(lines)


def main(
    impls: Annotated[str, typer.Option(help="comma-separated (default: all that are quick, and the peers)")] = "",
    visits: Annotated[int, typer.Option(help="turns every implementation gets at every row", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="of measuring at each visit")] = 0.3,
    out: Annotated[Path | None, typer.Option(help="write the visits there, as JSON")] = None,
) -> None:
    """Time a step of five networks and a training run beside other libraries, and print the tables as Markdown."""
    names = [name.strip() for name in impls.split(",") if name.strip()] or _can_take_turns()
    taken = measure(names, visits, seconds)
    if out:
        write_json(out, {"machine": machine.facts(), "visits": taken})
    print(tables(taken, names))
    if taken[0][TRAINING.label]:
        print()
        print(training_table(taken, names))


if __name__ == "__main__":
    typer.run(main)
