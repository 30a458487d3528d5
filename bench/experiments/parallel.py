"""Data-parallel backpropagation: what a step costs on k ranks, and what of that is talk.

A task is one launch of k fresh ranks (``bench.ranks``), which measure all points in lockstep, in shuffled order.  Nothing is
timed before every rank's gradients were held to the float64 reference of the whole batch.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from bench import ranks
from bench.experiments import Experiment, Row, Settings, Site, Task
from bench.lockstep import ROUND_S, SHARED_ROUND_S, Lockstep, Rounds, Timed
from bench.rank_worker import Desk
from impls import activations, dtypes, registry
from impls.conformance import Expected, Mismatch
from impls.interface import Network
from impls.problem import make_problem

#: Ranks where none are asked for, and by profile: passes, and rounds of every call in each.
RANKS = {"smoke": (1, 2), "quick": (1, 2, 4), "full": (1, 2, 4)}
#: So many ranks on one core tell what sharing it costs.
SHARING = 2
PASSES = {"smoke": 1, "quick": 3, "full": 5}
ROUNDS = {"smoke": 4, "quick": 5, "full": 15}
#: Bytes of the all-reduce sweep: from one number, which is all latency, to what is all bandwidth.
SIZES = {
    "smoke": (8, 4096, 1 << 20),
    "quick": (8, 512, 4096, 1 << 15, 1 << 18, 1 << 20, 1 << 22),
    "full": (8, 64, 512, 4096, 1 << 15, 1 << 17, 1 << 18, 1 << 20, 1 << 21, 1 << 22, 1 << 23),
}
#: How a step is taken, and the method that does so.
VARIANTS = {"step": "step", "in_turn": "step_in_turn", "alone": "step_alone"}
TIMEOUT_S = 600.0


# --- points -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """A network on more and more ranks: ``strong`` rows in all, ``weak`` rows on each."""

    network: Network
    strong: int
    weak: int


@dataclass(frozen=True)
class Point:
    """What one step is measured on: n rows in all."""

    scaling: str  # strong, weak, both, or model: there to tell the law's terms apart
    layers: tuple[int, ...]
    activation: str
    loss: str
    n: int

    @property
    def network(self) -> Network:
        """As data."""
        return Network(self.layers, self.activation, self.loss)

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.layers))} {self.activation} n={self.n}"


def _wide(width: int, activation: str = "horner-4", depth: int = 2) -> Network:
    return Network((64, *[width] * depth, 10), activation)


#: Larger and larger networks: gradients of 0.3, 1.2 and 4.5 MB in float32.
SMALL, MIDDLE, LARGE = _wide(256), _wide(512), _wide(1024)
SCALED = {
    "smoke": (Scaled(_wide(128), 256, 128),),
    "quick": (Scaled(SMALL, 1024, 256), Scaled(MIDDLE, 512, 128), Scaled(LARGE, 256, 64)),
    "full": (Scaled(SMALL, 4096, 512), Scaled(MIDDLE, 2048, 256), Scaled(LARGE, 1024, 128)),
}
#: For the law's terms: few rows (overhead, update, talk; of small networks, large ones and deep ones), many (products), costly
#: activations (p), many layers.
MODEL = {
    "smoke": ((_wide(32), 32),),
    "quick": (
        (_wide(32), 32),
        (SMALL, 64),
        (_wide(256, "horner-32"), 512),
        (_wide(64, "horner-32", 6), 512),
        (_wide(64, "horner-4", 6), 32),
        (MIDDLE, 32),
    ),
    "full": (
        (_wide(32), 32),
        (_wide(32, "horner-32"), 2048),
        (SMALL, 64),
        (_wide(256, "horner-32"), 1024),
        (_wide(64, "horner-32", 6), 1024),
        (_wide(64, "horner-4", 6), 32),
        (_wide(128, "horner-4", 8), 512),
        (MIDDLE, 32),
        (LARGE, 32),
    ),
}


def points(profile: str, ranks: int, crowded: bool = False) -> list[Point]:
    """All that ranks measure; a point on both scalings is there once.

    On one core for all (``crowded``) all but strong scaling: the same terms are told apart there.
    """
    found: dict[tuple[Network, int], list[str]] = {}
    for scaled in SCALED[profile]:
        if not crowded:
            found.setdefault((scaled.network, scaled.strong), []).append("strong")
        found.setdefault((scaled.network, ranks * scaled.weak), []).append("weak")
    for network, n in MODEL[profile]:
        found.setdefault((network, n), ["model"])
    return [
        Point(",".join(scalings), network.layers, network.activation, network.loss, n)
        for (network, n), scalings in found.items()
    ]


# --- tasks ------------------------------------------------------------------------------------------------------------


def tasks(settings: Settings) -> list[Task]:
    """A launch for each pass, number of ranks and implementation, in that order: ranks to be compared are close in time.

    Raises UserError for an implementation that is not data parallel, and for ranks that cannot be.
    """
    profile = settings.profile
    launches = [
        ranks.Launch(impl, k, cores, device=settings.device, dtype=settings.dtype, seed=settings.seed)
        for k, cores in _placed(settings.ranks or RANKS[profile], ranks.usual_cores())
        for impl in settings.impls
    ]
    for launch in launches:
        ranks.check(launch)
    return [_task(launch, profile, number) for number in range(1, PASSES[profile] + 1) for launch in launches]


def _placed(asked: Sequence[int], cores: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Ranks and the cores they may have.  Where some are to share cores, two on one are measured beside two on two: what
    sharing a core costs can then be told without the many.
    """
    placed = [(k, cores) for k in asked]
    if len(cores) >= SHARING and SHARING in asked and max(asked) > len(cores):
        placed.insert(asked.index(SHARING) + 1, (SHARING, cores[:1]))
    return placed


def _task(launch: ranks.Launch, profile: str, number: int) -> Task:
    crowded = launch.cores_used < min(launch.ranks, len(ranks.usual_cores()))
    arguments = {
        "ranks": launch.ranks,
        "cores": launch.cores_used,
        "layout": launch.layout,
        "backend": ranks.backend(launch),
        "crowded": crowded,
        "profile": profile,
        "shuffle": [launch.seed, number],
    }
    where = f"ranks{launch.ranks}" + (f"on{launch.cores_used}" if crowded else "")
    return Task(f"{launch.impl}/{where}/pass{number}", launch.impl, arguments, number, TIMEOUT_S)


def launch(site: Site, task: Task) -> list[Row]:
    """One launch; its rows."""
    asked, profile = task.arguments, task.arguments["profile"]
    wanted = ranks.Launch(
        task.impl,
        asked["ranks"],
        site.cores[: asked["cores"]],
        asked["layout"],
        site.settings.device,
        site.settings.dtype,
        site.settings.seed,
        cache=site.cache,
        timeout_s=task.timeout_s,
    )
    work = {
        "points": [asdict(point) for point in points(profile, wanted.ranks, asked["crowded"])],
        "sizes": SIZES[profile],
        "rounds": ROUNDS[profile],
        "shuffle": asked["shuffle"],
        "cores": wanted.cores_used,
        "cores_here": wanted.cores[: wanted.cores_used],
    }
    return ranks.run(wanted, f"{__name__}:on_rank", work, site.folder / task.key.replace("/", "-"))


# --- on a rank --------------------------------------------------------------------------------------------------------


def on_rank(desk: Desk, arguments: Mapping[str, Any]) -> list[Row]:
    """What every rank does in a launch.  Raises Mismatch, which names rank and point."""
    desk.progress.at("the first step")
    first = desk.prepare(make_problem(Network((5, 7, 4)), 3, desk.seed))
    first.step()  # libraries finish loading at their first use
    first.synchronize()
    round_s = SHARED_ROUND_S if first.ranks > arguments["cores"] else ROUND_S
    lockstep = Lockstep(desk.rank, first.gather, desk.progress.at, arguments.get("cores_here", ()), round_s)
    shuffled, rounds = Random(str(arguments["shuffle"])), arguments["rounds"]
    rows: list[Row] = []
    for size in shuffled.sample(arguments["sizes"], len(arguments["sizes"])):
        name = f"the all-reduce of {size} bytes"
        timed = {name: Timed(first.all_reduce(size), first.synchronize)}
        rows.append({"kind": "all_reduce", "bytes": size} | _row(lockstep.time(timed, rounds)[name]))
    for point in shuffled.sample(arguments["points"], len(arguments["points"])):
        rows += _of_point(desk, lockstep, Point(**point | {"layers": tuple(point["layers"])}), rounds)
        gc.collect()
    return [row | {"ranks": first.ranks, "cores": arguments["cores"]} for row in rows]


def _of_point(desk: Desk, lockstep: Lockstep, point: Point, rounds: int) -> list[Row]:
    """A row for each way to take a step, side by side."""
    desk.progress.at(f"the reference for {point}")
    problem = make_problem(point.network, point.n, desk.seed)
    expected = Expected.of(problem, desk.dtype)
    desk.progress.at(f"the check of {point}")
    together, alone = desk.prepare(problem), desk.prepare(problem)
    with _naming(f"{desk.named()} at {point}"):
        error = held(together, desk.prepare(problem), expected)
    instances = {"step": together, "in_turn": together, "alone": alone}
    timed = {
        f"{variant} of {point}": Timed(getattr(instance, VARIANTS[variant]), instance.synchronize)
        for variant, instance in instances.items()
    }
    found = lockstep.time(timed, rounds)
    messages = {"step": together.messages(), "in_turn": 1, "alone": 0}
    network = point.network
    shared = asdict(point) | {
        "layers": list(point.layers),
        "m": network.m,
        "u": network.u,
        "p": activations.find(network.activation).p,
        "depth": network.depth,
        "gradient_bytes": network.m * dtypes.find(desk.dtype).stored_itemsize,
        "gradient_error": error,
    }
    return [
        {"kind": "step", "variant": variant, "messages": messages[variant]} | shared | _row(kept)
        for variant, kept in zip(VARIANTS, found.values(), strict=True)
    ]


def held(stepped: Any, in_turn: Any, expected: Expected) -> float:
    """Error of the gradients; both instances take their first step here, each in its way.

    Where a step keeps no gradients, as in one compiled call, its own are judged by where it went.  Every rank goes
    through all that is collective before it judges, so that none waits for one that has given up.
    """
    stepped.step()
    in_turn.step_in_turn()
    for instance in (stepped, in_turn):
        instance.synchronize()
    losses = [stepped.loss_value(), in_turn.loss_value()]
    for loss, instance in zip(losses, (stepped, in_turn), strict=True):
        expected.check_loss(loss)
        expected.check_step(instance.parameters())
    kept = [gradients for gradients in (stepped.gradients(), in_turn.gradients()) if gradients]
    return max(map(expected.check_gradients, kept))


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say of a mismatch where it is."""
    try:
        yield
    except Mismatch as error:
        raise Mismatch(f"{where}: {error}") from error


def _row(rounds: Rounds) -> Row:
    return {
        "seconds": rounds.seconds,
        "reference_s": rounds.reference_s,
        "quiet": rounds.quiet,
        "settled": rounds.settled,
        "iterations": rounds.iterations,
        "others": rounds.others,
    }


EXPERIMENT = Experiment(
    "parallel",
    "rows split over k ranks: a step's products are divided by k, and an all-reduce of all gradients is added",
    "strong and weak scaling of two libraries' data-parallel steps on 1, 2 and 4 ranks, with and without overlap of "
    "talk and backward, beside an all-reduce sweep; where ranks share cores, what that costs two ranks on one",
    tasks,
    launch=launch,
    impls=tuple(entry.name for entry in registry.ENTRIES if entry.launched_by),
)
