"""What one epoch costs, by the size of its batches: from a step for every example to one step for all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Any

import numpy as np

from bench.experiments import Experiment, Row, Settings, Task
from bench.experiments.training import check_batch, trainer_of
from bench.experiments.workbench import Workbench, rounds_row
from impls import activations
from impls.interface import Network
from impls.problem import make_problem

#: By profile: fresh processes, examples, networks (hidden width, activation), seconds each batch size is timed.
PASSES = {"smoke": 1, "quick": 3, "full": 5}
EXAMPLES = {"smoke": 32, "quick": 512, "full": 2048}
NETWORKS = {
    "smoke": ((8, "horner-2"), (16, "horner-2"), (16, "horner-8"), (32, "horner-2")),
    "quick": ((16, "horner-2"), (64, "horner-2"), (64, "horner-12"), (256, "horner-2")),
    "full": tuple((width, f"horner-{k}") for width in (16, 64, 128, 256) for k in (2, 6, 12)),
}
SECONDS = {"smoke": 0.01, "quick": 0.05, "full": 0.2}
OPTIMIZERS = {"smoke": ("gradient-descent",), "quick": ("gradient-descent",), "full": ("gradient-descent", "adam")}
#: Of the sizes between the powers of two, which no fit sees, every so many is measured.
EVERY = {"smoke": 2, "quick": 2, "full": 1}


def batches(n: int, every: int) -> dict[int, bool]:
    """Batch sizes from 1 to n, and whether a fit may see them: powers of two and n; 3, 12, 48, … times the rest may not."""
    seen = [2**k for k in range(n.bit_length()) if 2**k < n] + [n]
    between = [3 * 2**k for k in range(0, n.bit_length(), every) if 3 * 2**k < n]
    return dict.fromkeys(seen, True) | {b: False for b in between if b not in seen}


def tasks(settings: Settings) -> list[Task]:
    """One for each network, optimizer, implementation and process: all its batch sizes, and the step and update alone."""
    profile = settings.profile
    return [
        Task(
            f"{impl} 64-{width}-{width}-10 {activation} {optimizer} pass {number}",
            impl,
            {
                "layers": [64, width, width, 10],
                "activation": activation,
                "optimizer": optimizer,
                "n": EXAMPLES[profile],
                "every": EVERY[profile],
                "seconds": SECONDS[profile],
                "shuffle": [settings.seed, number],
            },
            number,
        )
        for number in range(1, PASSES[profile] + 1)
        for impl in settings.impls
        for optimizer in OPTIMIZERS[profile]
        for width, activation in NETWORKS[profile]
    ]


def measure(bench: Workbench, arguments: Mapping[str, Any]) -> list[Row]:
    """A row for each batch size, in shuffled order; then one of a step of a single example, and one of the update alone."""
    network = Network(tuple(arguments["layers"]), arguments["activation"])
    n = arguments["n"]
    rng = Random(str(arguments["shuffle"]))
    sizes = list(batches(n, arguments["every"]).items())
    rows = [_epoch(bench, network, arguments, n, batch, seen) for batch, seen in rng.sample(sizes, len(sizes))]
    rows.append(_epoch(bench, network, arguments, 4 * n, 64, False))  # another n, never fitted either
    alone = {"step": 1, "update": n}
    return rows + [
        _alone(bench, network, arguments, what, n) for what, n in alone.items() if what in bench.entry.phases
    ]


def _alone(bench: Workbench, network: Network, arguments: Mapping[str, Any], what: str, n: int) -> Row:
    """A step or an update as a call of its own, by a problem of so many examples."""
    instance = bench.prepare(make_problem(network, n, bench.seed, optimizer=arguments["optimizer"]))
    if what == "update":  # it needs gradients
        for phase in (instance.forward, instance.loss, instance.backward):
            phase()
    timed = bench.time(getattr(instance, what), instance.synchronize, arguments["seconds"])
    return {"what": what, **_sizes(network, n), "batch": n, "seen": False, **rounds_row(timed)}


def _epoch(bench: Workbench, network: Network, arguments: Mapping[str, Any], n: int, batch: int, seen: bool) -> Row:
    check_batch(batch, n)
    trainer = trainer_of(bench, make_problem(network, n, bench.seed, optimizer=arguments["optimizer"]))
    order = np.random.default_rng([bench.seed, n, batch]).permutation(n)
    timed = bench.time(partial(trainer.epoch, order, batch), trainer.synchronize, arguments["seconds"])
    return {"what": "epoch", **_sizes(network, n), "batch": batch, "seen": seen, **rounds_row(timed)}


def _sizes(network: Network, n: int) -> dict[str, int]:
    """What laws may name."""
    p = activations.find(network.activation).p
    return {"n": n, "m": network.m, "p": p, "u": network.u, "hidden": network.depth - 1, "width": network.width}


EXPERIMENT = Experiment(
    "epochs",
    "an epoch over n examples in batches of b costs n times what an example does and n/b times what a step does; "
    "for b = 1 every example needs forward, backward and update",
    "epochs in batches of 1 to n, four networks; the law is fitted on powers of two and asked about sizes between",
    tasks,
    measure,
)
