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
EXAMPLES = {"smoke": 32, "quick": 256, "full": 2048}
NETWORKS = {
    "smoke": ((8, "horner-2"), (16, "horner-2"), (16, "horner-8"), (32, "horner-2")),
    "quick": ((16, "horner-2"), (64, "horner-2"), (64, "horner-12"), (256, "horner-2")),
    "full": tuple((width, f"horner-{k}") for width in (16, 64, 128, 256) for k in (2, 6, 12)),
}
SECONDS = {"smoke": 0.01, "quick": 0.02, "full": 0.2}
OPTIMIZERS = {"smoke": ("gradient-descent",), "quick": ("gradient-descent",), "full": ("gradient-descent", "adam")}
#: Sizes drawn from each octave that no fit sees.
UNSEEN = {"smoke": 1, "quick": 2, "full": 2}
#: Two epochs more: over so small a part of the examples, so that a fit can tell what an epoch costs by itself, in so many
#: batches; and over so many times the examples in batches that leave a rest, to judge by.
SHORTER, IN_BATCHES = 4, 4
LONGER, REST_AFTER = 4, 60


def sizes_of(n: int, unseen: int, seed: str) -> dict[int, bool]:
    """Batch sizes from 1 to n, and whether a fit may see them: 1, n and one of every octave between; ``unseen`` more may not.

    All are drawn alike, so that neither kind is the one that compilers and caches like better; a short octave has fewer.
    """
    rng = Random(seed)
    found = {1: True, n: True}
    low = 2
    while low < n:
        octave = range(low, min(2 * low, n))
        drawn = rng.sample(octave, min(1 + unseen, len(octave)))
        found |= {batch: i == 0 for i, batch in enumerate(drawn)}
        low *= 2
    return found


def tasks(settings: Settings) -> list[Task]:
    """One for each network, optimizer, implementation and process: its batch sizes, and the step and update alone."""
    profile = settings.profile
    n = EXAMPLES[profile]
    drawn = {  # the same in all implementations and passes
        network: list(sizes_of(n, UNSEEN[profile], f"{settings.seed} {network}").items())
        for network in NETWORKS[profile]
    }
    return [
        Task(
            f"{impl} 64-{width}-{width}-10 {activation} {optimizer} pass {number}",
            impl,
            {
                "layers": [64, width, width, 10],
                "activation": activation,
                "optimizer": optimizer,
                "n": n,
                "sizes": drawn[width, activation],
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
    """A row for each batch size, over as many of n examples as fill whole batches, in shuffled order; then one each of
    fewer and of more examples, of a step of a single example, and of the update alone.
    """
    network = Network(tuple(arguments["layers"]), arguments["activation"])
    n = arguments["n"]
    sizes = Random(str(arguments["shuffle"])).sample(arguments["sizes"], len(arguments["sizes"]))
    rows = [
        _epoch(bench, network, arguments, n, n // batch * batch, batch) | {"what": "epoch", "seen": seen}
        for batch, seen in sizes
    ]
    shorter, longer = max(1, n // SHORTER), LONGER * n
    whole = max(1, shorter // IN_BATCHES)
    rows.append(_epoch(bench, network, arguments, shorter, shorter, whole) | {"what": "shorter", "seen": True})
    rows.append(_epoch(bench, network, arguments, longer, longer, REST_AFTER) | {"what": "longer", "seen": False})
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


def _epoch(bench: Workbench, network: Network, arguments: Mapping[str, Any], rows: int, taken: int, batch: int) -> Row:
    """An epoch over so many examples, taken in any order from a problem's rows."""
    check_batch(batch, taken)
    trainer = trainer_of(bench, make_problem(network, rows, bench.seed, optimizer=arguments["optimizer"]))
    order = np.random.default_rng([bench.seed, rows, batch]).permutation(rows)[:taken]
    timed = bench.time(partial(trainer.epoch, order, batch), trainer.synchronize, arguments["seconds"])
    return {**_sizes(network, taken), "batch": batch, **rounds_row(timed)}


def _sizes(network: Network, n: int) -> dict[str, int]:
    """What laws may name."""
    p = activations.find(network.activation).p
    return {"n": n, "m": network.m, "p": p, "u": network.u, "hidden": network.depth - 1, "width": network.width}


EXPERIMENT = Experiment(
    "epochs",
    "an epoch over n examples in batches of b costs n times what an example does and n/b times what a step does; "
    "for b = 1 every example needs forward, backward and update",
    "epochs in batches of 1 to n, four networks; the law is fitted to some sizes and asked about others, all drawn alike",
    tasks,
    measure,
)
