"""Why backpropagation: what all gradients cost by reverse mode, by forward mode and by central differences.

Every layer is as wide as the others, so that nothing but m changes with the width, and the examples are many enough that
the products leave the libraries' fixed overhead behind.  Passes that would take too long altogether are sampled, spread
over the parameters: a pass costs the same whichever parameter it is for, since tangents are dense and losses whole.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop_files import UserError
from bench.experiments import Experiment, Row, Settings, Task
from bench.experiments.workbench import Workbench, rounds_row
from impls import derivatives
from impls.conformance import Expected, relative_norm
from impls.derivatives import Derivatives, flat
from impls.interface import Network
from impls.problem import make_problem

#: Weight layers, all of one width.
DEPTH = 3
#: Tangents that one forward pass carries at once, beside one alone: each of 32 costs no less, each of 8 more in torch.
BATCH = 16
#: Central differences in one call: as many as are some products' worth, for what a call costs beside them is not theirs.
CENTRAL_WORK, FEWEST, MOST = 2**19, 4, 64


@dataclass(frozen=True)
class Profile:
    """Widths of the networks, examples, processes, and seconds: of passes in one round at most, and of rounds."""

    widths: tuple[int, ...]
    n: int
    passes: int
    sample_s: float
    seconds: float


PROFILES = {
    "smoke": Profile((5, 12, 24), 32, 2, 0.005, 0.005),
    "quick": Profile((5, 20, 64, 128, 176, 224, 272), 256, 3, 0.01, 0.025),
    "full": Profile((5, 8, 12, 20, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512), 256, 5, 0.1, 0.1),
}


def tasks(settings: Settings) -> list[Task]:
    """A task for each network, in a process of its own for each pass; sizes in a shuffled order.

    Implementations without these derivatives are left out; raises UserError where that leaves none.
    """
    profile = PROFILES[settings.profile]
    impls = [name for name in settings.impls if name in derivatives.TARGETS]
    if not impls:
        known = ", ".join(derivatives.TARGETS)
        raise UserError(f"experiment gradients: none of {', '.join(settings.impls)} has these derivatives: {known} do")
    found = []
    for number in range(1, profile.passes + 1):
        for name in impls:
            widths = list(profile.widths)
            random.Random(f"{settings.seed} {number} {name}").shuffle(widths)
            found += [_task(name, width, number, profile) for width in widths]
    return found


def _task(name: str, width: int, number: int, profile: Profile) -> Task:
    arguments = {"width": width, "n": profile.n, "sample_s": profile.sample_s, "for_s": profile.seconds}
    return Task(f"{name} width {width} pass {number}", name, arguments, number)


@dataclass(frozen=True)
class Way:
    """One way to derivatives: ``call(start)`` gives those of ``parameters`` from ``start`` on."""

    method: str
    call: Callable[[int], object]
    parameters: int
    calls_in_all: float


def measure(bench: Workbench, arguments: Mapping[str, Any]) -> list[Row]:
    """A row for the loss alone and for each way to all gradients, each held to the reference before it is timed.

    A round is ``calls`` of the ``calls_in_all``: all gradients take seconds · calls_in_all / calls.  ``error`` is that of the
    derivatives of one call (of the loss: its own), relative to the float64 reference.
    """
    network = Network((arguments["width"],) * (DEPTH + 1))
    problem = make_problem(network, arguments["n"], bench.seed)
    expected = Expected.of(problem, bench.dtype)
    found = derivatives.prepare(bench.entry.name, problem, bench.device, bench.dtype, bench.threads)
    return [_row(bench, arguments, way, found, expected) for way in _ways(found, network.m)]


def _ways(found: Derivatives, m: int) -> list[Way]:
    some = min(MOST, max(FEWEST, CENTRAL_WORK // m))
    return [
        Way("loss", lambda start: found.loss(), m, 1),
        Way("reverse", lambda start: found.reverse(), m, 1),
        Way("forward", lambda start: found.forward(start, 1), 1, m),
        Way("forward-batch", lambda start: found.forward(start, BATCH), BATCH, -(-m // BATCH)),
        Way("central", lambda start: found.central(start, some), some, m / some),
    ]


def _row(bench: Workbench, arguments: Mapping[str, Any], way: Way, found: Derivatives, expected: Expected) -> Row:
    m = expected.problem.network.m
    error = _error(way, found, expected)  # the first call, which may compile
    calls = _affordable(way, found.synchronize, arguments["sample_s"])
    starts = np.linspace(0, m - way.parameters, calls).astype(int).tolist()

    def round_() -> None:
        for start in starts:
            way.call(start)

    rounds = bench.time(round_, found.synchronize, arguments["for_s"])
    counted = {"parameters": way.parameters, "calls": calls, "calls_in_all": way.calls_in_all}
    return {"method": way.method, "m": m} | counted | {"error": error} | rounds_row(rounds)


def _error(way: Way, found: Derivatives, expected: Expected) -> float:
    """Relative error of a call in the middle.  Raises Mismatch."""
    start = (expected.problem.network.m - way.parameters) // 2
    way.call(start)
    found.synchronize()
    if way.method == "loss":
        return expected.check_loss(found.value())
    if way.method == "reverse":
        expected.check_loss(found.value())
        expected.check_gradients(found.gradients())
        return relative_norm(flat(found.gradients()), flat(expected.gradients))
    expected.check_derivatives(found.derivatives(), start, central=way.method == "central")
    return relative_norm(found.derivatives(), flat(expected.gradients)[start : start + way.parameters])


def _affordable(way: Way, synchronize: Callable[[], object], sample_s: float) -> int:
    """Calls that take so many seconds together, all there are at most, one at least."""
    begun = time.perf_counter()
    way.call(0)
    synchronize()
    once = time.perf_counter() - begun
    return max(1, min(math.ceil(way.calls_in_all), int(sample_s / once)))


EXPERIMENT = Experiment(
    "gradients",
    "all gradients cost at most five times the loss, whatever m; one parameter at a time they cost m times as much",
    "loss alone, backpropagation, forward mode (one tangent, and a batch of them) and central differences, against m",
    tasks,
    measure,
)
