"""Beyond the fully connected network: what a step of each workload costs, along its own axes.

A task measures one workload by one implementation at all of its points, in shuffled order.  No step is timed before it was
held to the forward-only reference: in every process at the cheapest point phase by phase and array by array, and at all
points by its loss; in the first process by where it went, too, which costs the reference a pass of complex numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import cache
from random import Random
from typing import Any

import numpy as np

from bench import ceilings, memory
from bench.experiments import Experiment, Row, Settings, Task
from bench.experiments.workbench import Workbench, rounds_row
from impls import registry
from impls.architectures import conformance, workloads
from impls.architectures.problem import make_problem
from impls.architectures.workloads import Axis, Point, Workload
from impls.conformance import Mismatch

#: By profile: fresh processes, and seconds each point is timed.
PASSES = {"smoke": 1, "quick": 3, "full": 5}
SECONDS = {"smoke": 0.005, "quick": 0.03, "full": 0.2}
#: A step is followed to where it went where a forward pass has no more nonlinear functions than this: a complex one takes
#: 0.3 µs.  Larger ones are held by their loss, as in later processes.
FOLLOWED = 6_000_000
#: Of a task: in the full profile a compiler has dozens of sizes to go through.
TIMEOUT_S = 900.0


def tasks(settings: Settings) -> list[Task]:
    """One for each workload, implementation and process; where an implementation cannot, one that says so.

    Raises UserError for an unknown workload.
    """
    chosen = {workload.name: workload for workload in map(workloads.find, settings.architectures or workloads.NAMES)}
    return [
        _task(settings, workload, impl, number)
        for number in range(1, PASSES[settings.profile] + 1)
        for impl in settings.impls
        for workload in chosen.values()
        if number == 1 or not _cannot(registry.find(impl), workload)
    ]


def _cannot(entry: registry.Entry, workload: Workload) -> str | None:
    return entry.cannot_build(workload.objective(workload.middle))


def _task(settings: Settings, workload: Workload, impl: str, number: int) -> Task:
    arguments = {
        "workload": workload.name,
        "profile": settings.profile,
        "shuffle": [settings.seed, number],
        "first": number == 1,  # memory does not change from process to process, nor does where a step goes
        "stated": stated(workload),
    }
    return Task(f"{workload.name} by {impl} pass {number}", impl, arguments, number, TIMEOUT_S)


def stated(workload: Workload) -> dict[str, Any]:
    """What a workload says of itself before anything is measured, as plain data for whoever reads the file."""
    return {
        "summary": workload.summary,
        "statement": workload.statement,
        "plain": workload.plain,
        "middle": dict(workload.middle),
        "axes": [_axis(axis) for axis in workload.axes],
        "laws": [{"name": law.name, "statement": law.statement, "terms": list(law.terms)} for law in workload.laws],
        "memory_law": list(workload.memory_law),
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"name": axis.name, "size": axis.size, "variable": axis.variable, "exponent": axis.exponent}


def measure(bench: Workbench, arguments: Mapping[str, Any]) -> list[Row]:
    """A row for each point; a single one with the reason, ``cannot``, where the implementation has not what it takes."""
    workload = workloads.find(arguments["workload"])
    if reason := _cannot(bench.entry, workload):
        return [{"cannot": reason}]
    points = workload.points(arguments["profile"])
    cheapest = min(points, key=lambda point: _work(workload, point))
    ceiling = _ceiling(bench.device, bench.dtype)
    return [
        _measured(bench, workload, point, arguments, point is cheapest) | {"ceiling_flops": ceiling}
        for point in Random(str(arguments["shuffle"])).sample(points, len(points))
    ]


def _work(workload: Workload, point: Point) -> int:
    return point.sizes["n"] * workload.columns(point.sizes)["products"]


@cache
def _ceiling(device: str, dtype: str) -> float | None:
    """Once a process, which is one implementation's, with its library loaded."""
    return ceilings.measure(device, dtype)["ceiling_flops"]


def _measured(bench: Workbench, workload: Workload, point: Point, arguments: Mapping[str, Any], closely: bool) -> Row:
    """One point: prepared, held to the reference, its memory traced if asked to, timed.  Raises Mismatch, which names it."""
    problem = make_problem(workload.objective(point.sizes), point.sizes["n"], bench.seed)
    columns = workload.columns(point.sizes)
    try:
        instance = bench.prepare(problem)
        begun = time.perf_counter()
        instance.step()
        instance.synchronize()
        row: Row = {"first_call_s": time.perf_counter() - begun}
        if arguments["first"] and point.sizes["n"] * columns["evaluations"] <= FOLLOWED:
            conformance.check_descent(instance, problem, bench.dtype, np.random.default_rng([bench.seed, 11]))
        else:
            conformance.check_last_loss(instance, problem, bench.dtype)
        if closely:
            conformance.check(bench.prepare(problem), problem, bench.dtype)
        if arguments["first"]:
            row |= memory.peak(bench.entry, bench.device, instance, lambda: bench.prepare(problem))._asdict()
        row |= rounds_row(bench.time(instance.step, instance.synchronize, SECONDS[arguments["profile"]]))
        if not math.isfinite(instance.loss_value()):
            raise Mismatch("the loss is no longer finite after the timed steps")
    except Mismatch as error:
        sizes = " ".join(f"{name}={value}" for name, value in point.sizes.items())
        raise Mismatch(f"{workload.name} at {sizes}: {error}") from error
    named = {"sizes": dict(point.sizes), "on": list(point.axes), "heldout": point.heldout}
    return named | {"columns": columns} | row


EXPERIMENT = Experiment(
    "architectures",
    "where a weight is used many times for each example, a step costs as often, and not n·m·p",
    "steps of nine workloads (convolution, recurrence, attention, adversaries, reinforcement) along their own axes: "
    "which law holds, and whether time per n·m goes as the reuse of weights",
    tasks,
    measure,
    uses_architectures=True,
)
