"""What does an update cost beside the bytes that it must move?  ``python -m bench.optimizers_check`` (``make optimizers``).

One core, float32, the parameters of one network of about ``--parameters`` numbers: the update of ``numpy`` and
``torch-manual`` as the sweep runs it, torch's own optimizer in each of its forms, and optax under ``jit`` with everything
donated.  An update must move θ, its gradient and the states, read, and θ and the states, written.  There are two floors:
these bytes over memory bandwidth as ``bench.ceilings`` measures it, and over the rate of a copy between buffers that take
together what the update's take, which may lie in a cache.  All take turns in one process, in an order drawn anew; figures
are medians over the turns, ratios medians of the turns' ratios.

A second table says what the calls of NumPy's updates cost on numbers that lie in a cache: what is left moves memory.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from random import Random
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from bench import ceilings
from bench.process import pick_cpus
from impls import optimizers, registry
from impls.interface import Network, Problem
from impls.optimizers import Optimizer
from impls.problem import make_problem

Call = Callable[[], object]
#: The two copies that floors are made of.
MEMORY, SAME_BYTES = "memory bandwidth", "copy in as much memory"
SWEPT = "numpy (sweep)"
#: Numbers that calls are timed on: with all the operands of a call they stay within a second-level cache.
NEAR = 1 << 15
#: torch's forms of one optimizer: single-tensor loops, many tensors a call, one kernel for all of it.
TORCH_FORMS: dict[str, dict[str, bool]] = {
    "torch, single tensor": {"foreach": False, "fused": False},
    "torch, foreach": {"foreach": True, "fused": False},
    "torch, fused": {"foreach": False, "fused": True},
}


def network_of(parameters: int) -> Network:
    """64-w-w-10 with about so many weights and biases: w² + 76 w + 10."""
    width = round(math.sqrt(parameters + 38**2) - 38)
    return Network((64, max(1, width), max(1, width), 10))


def candidates(name: str, parameters: int) -> dict[str, Call]:
    """Updates of one optimizer, ready to be called: those whose library is installed, and the copies."""
    problem = make_problem(network_of(parameters), 4, optimizer=name)
    found = {
        MEMORY: ceilings.copy_between(ceilings.COPIED_BYTES),
        SAME_BYTES: ceilings.copy_between(_copied(optimizers.find(name), problem.network.m)),
    }
    for entry in (registry.find("numpy"), registry.find("torch-manual")):
        if not entry.missing():
            instance = entry.prepare(problem)
            instance.step()
            found[f"{entry.name} (sweep)"] = instance.update
    if not registry.find("torch").missing():
        found |= _torch(problem)
    if not registry.find("jax").missing():
        found["optax, jitted and donated"] = _optax(problem)
    return found


def bytes_moved(optimizer: Optimizer, parameters: int) -> int:
    """Bytes in float32: θ, g and states read; θ and states written."""
    return 4 * parameters * (3 + 2 * optimizer.states)


def _copied(optimizer: Optimizer, parameters: int) -> int:
    """Bytes of a copy between two buffers that take together what θ, g and the states take."""
    return 4 * ((2 + optimizer.states) * parameters // 2)


def calls_in_cache() -> dict[str, Call]:
    """The calls that NumPy's updates are made of, on numbers that lie in a cache, by what they do."""
    from impls.numpy_fast import NumpyOperations

    o = NumpyOperations("float32")
    a, b, out = (o.array(np.random.default_rng(i).uniform(0.5, 1.5, NEAR)) for i in range(3))
    return {
        "out += c a": lambda: o.add_scaled(1e-9, a, out),
        "out += c a²": lambda: o.add_squared(1e-9, a, out, b),
        "√": lambda: o.sqrt(a, b),
        "out += c": lambda: o.add_number(1e-9, out),
        "out += c a / b": lambda: o.add_quotient(1e-9, a, b, out),  # b turns into a / b and back
    }


def _torch(problem: Problem) -> dict[str, Call]:
    import torch

    from impls.torch_device import OPTIMIZERS

    torch.set_num_threads(1)
    found: dict[str, Call] = {}
    for name, form in TORCH_FORMS.items():
        tensors = [torch.tensor(p, dtype=torch.float32, requires_grad=True) for p in problem.parameters]
        for tensor in tensors:
            tensor.grad = 1e-3 * torch.randn_like(tensor)
        chosen = OPTIMIZERS[problem.optimizer](optimizers.find(problem.optimizer), tensors, problem.learning_rate)
        if "fused" not in chosen.defaults and form["fused"]:
            continue
        chosen.param_groups[0].update(form if "fused" in chosen.defaults else {"foreach": form["foreach"]})
        try:
            chosen.step()
        except (RuntimeError, NotImplementedError):  # no such kernel in this version
            continue
        found[name] = chosen.step
    return found


def _optax(problem: Problem) -> Call:
    import jax

    from impls.jax_jit import optimizer_of

    held: dict[str, Any] = {"theta": [jax.numpy.asarray(p.astype("float32")) for p in problem.parameters]}
    gradients = [1e-3 * jax.numpy.ones_like(p) for p in held["theta"]]
    start, apply = optimizer_of(problem.optimizer, problem.learning_rate)
    held["state"] = start(held["theta"])
    jitted = jax.jit(apply, donate_argnums=(0, 2))

    def call() -> None:
        held["theta"], held["state"] = jitted(held["theta"], gradients, held["state"])
        jax.block_until_ready(held["theta"])  # type: ignore[no-untyped-call]

    return call


def measure(calls: dict[str, Call], turns: int, seconds: float, seed: int = 0) -> list[dict[str, float]]:
    """Seconds of one call of each, turn by turn; a turn begins with a call that counts for nothing."""
    order = Random(seed)
    repeats = {name: max(1, math.ceil(seconds / max(_seconds(call, 2), 1e-7))) for name, call in calls.items()}
    return [
        {name: _seconds(calls[name], repeats[name]) for name in order.sample(list(calls), len(calls))}
        for _ in range(turns)
    ]


def _seconds(call: Call, repeats: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def floors(name: str, m: int, turn: dict[str, float]) -> dict[str, float]:
    """Seconds to move an update's bytes at the rate of each copy of this turn."""
    optimizer = optimizers.find(name)
    copied = {MEMORY: ceilings.COPIED_BYTES, SAME_BYTES: _copied(optimizer, m)}
    return {copy: turn[copy] * bytes_moved(optimizer, m) / (2 * size) for copy, size in copied.items()}


def table(name: str, parameters: int, turns: list[dict[str, float]]) -> str:
    """Markdown: ns for each parameter, times both floors, and times the sweep's NumPy; then torch's best form."""
    m = network_of(parameters).m
    bounds = [floors(name, m, turn) for turn in turns]
    lines = [
        f"| {name}, {m:,} parameters | ns a parameter | times {MEMORY} | times {SAME_BYTES} | times numpy |",
        "| --- " * 5 + "|",
    ]
    for copy in (MEMORY, SAME_BYTES):
        cost = 1e9 * median(bound[copy] for bound in bounds) / m
        moved = bytes_moved(optimizers.find(name), 1)
        lines.append(f"| floor: {moved} bytes a parameter, {copy} | {cost:.3g} | | | |")
    updates = [which for which in turns[0] if which not in (MEMORY, SAME_BYTES)]
    costs = {which: 1e9 * median(turn[which] for turn in turns) / m for which in updates}
    for which in updates:
        over = [median(turn[which] / b[copy] for turn, b in zip(turns, bounds, strict=True)) for copy in bounds[0]]
        beside = median(turn[which] / turn[SWEPT] for turn in turns)
        lines.append(f"| {which} | {costs[which]:.3g} | {over[0]:.2f} | {over[1]:.2f} | {beside:.2f} |")
    if forms := [which for which in updates if which in TORCH_FORMS]:
        best = min(forms, key=costs.__getitem__)
        lines += ["", f"best torch form: {best}, {costs[best]:.3g} ns a parameter"]
    return "\n".join(lines)


def calls_table(turns: list[dict[str, float]]) -> str:
    """Markdown: ns for each number of a call in cache."""
    lines = [f"| call on {NEAR:,} numbers in cache | ns a number |", "| --- | --- |"]
    return "\n".join(lines + [f"| {c} | {1e9 * median(t[c] for t in turns) / NEAR:.3g} |" for c in turns[0]])


def main(
    names: Annotated[str, typer.Option("--optimizers", help="comma-separated")] = "adam",
    parameters: Annotated[str, typer.Option(help="how many, comma-separated")] = "1000000",
    turns: Annotated[int, typer.Option(help="turns of each candidate", min=1)] = 21,
    seconds: Annotated[float, typer.Option(help="of measuring in each turn")] = 0.03,
) -> None:
    """Print as Markdown what an update costs beside the bytes it must move."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, pick_cpus(1))
    for name in names.split(","):
        optimizers.find(name)
        for m in map(int, parameters.split(",")):
            calls = candidates(name, m)
            print(table(name, m, measure(calls, turns, seconds)), flush=True)
            print()
    print(calls_table(measure(calls_in_cache(), turns, seconds)))


if __name__ == "__main__":
    typer.run(main)
