"""What does an update cost beside the bytes that it must move?  ``python -m bench.optimizers_check`` (``make optimizers``).

One core, float32, the parameters of one network of about ``--parameters`` numbers: the update of ``numpy`` and
``torch-manual`` as the sweep runs it, torch's own optimizer in each of its forms, optax under ``jit`` with everything
donated, and a copy between buffers that take as much memory together.  The floor is that copy's rate over the bytes an
update must move: θ, its gradient and the states read, θ and the states written.  All take turns in one process, in an order
drawn anew; figures are medians over the turns, ratios medians of the turns' ratios.
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

from bench.process import pick_cpus
from impls import optimizers, registry
from impls.interface import Network, Problem
from impls.optimizers import Optimizer
from impls.problem import make_problem

Call = Callable[[], object]
FLOOR = "copy of as many bytes"
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
    """Updates of one optimizer, ready to be called: those whose library is installed, and the copy."""
    problem = make_problem(network_of(parameters), 4, optimizer=name)
    found: dict[str, Call] = {FLOOR: _copy(problem)}
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


def _copy(problem: Problem) -> Call:
    """Between two buffers that take together what θ, g and the states take."""
    states = optimizers.find(problem.optimizer).states
    source = np.ones((2 + states) * problem.network.m // 2, np.float32)
    target = np.zeros_like(source)
    target[:] = 2.0  # make the pages real
    return lambda: np.copyto(target, source)


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


def table(name: str, parameters: int, turns: list[dict[str, float]]) -> str:
    """Markdown: ns for each parameter, and times the floor and the sweep's NumPy."""
    m = network_of(parameters).m
    moved = bytes_moved(optimizers.find(name), m)
    copied = 8 * ((2 + optimizers.find(name).states) * m // 2)  # read and written
    floors = [turn[FLOOR] * moved / copied for turn in turns]
    lines = [f"| {name}, {m:,} parameters | ns a parameter | times the floor | times numpy |", "| --- " * 4 + "|"]
    lines.append(f"| floor: {moved / m:g} bytes a parameter | {1e9 * median(floors) / m:.3g} | 1.00 | |")
    for which in turns[0]:
        if which != FLOOR:
            over = median(turn[which] / floor for turn, floor in zip(turns, floors, strict=True))
            beside = median(turn[which] / turn["numpy (sweep)"] for turn in turns)
            cost = 1e9 * median(turn[which] for turn in turns) / m
            lines.append(f"| {which} | {cost:.3g} | {over:.2f} | {beside:.2f} |")
    return "\n".join(lines)


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


if __name__ == "__main__":
    typer.run(main)
