"""Sweeps as data: which points a profile measures, how often and for how long.

Axes move one thing from a centre: ``examples`` n, ``depth`` (m linear), ``width`` (m quadratic), ``activation``
(horner-K, p = 4K), ``functions`` (the real activations, one table), ``optimizers``; ``joint`` is a random design over the
first four.  Its largest cells are held out to judge the laws by: they have 8 to 16 times the work of its others, and laws
are fitted to cells no larger than those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backprop_files import UserError
from bench.cells import Point
from impls import activations, counts, optimizers
from impls.interface import PHASES, Network, Phase
from impls.names import nearest
from impls.registry import Entry

INPUTS, OUTPUTS = 64, 10
#: Held-out cells have this many times the work of the largest cell that is fitted.
HELDOUT_WORK = (8.0, 16.0)
#: The largest cell of the joint design that is fitted, as a share of the largest cell of the axes: the held-out ones
#: are then about as large as the axes go.
FITTED_WORK = 1 / 12


@dataclass(frozen=True)
class Range:
    """The values each axis takes, and the centre it starts from: n, width, hidden layers, degree K."""

    n: int
    width: int
    hidden: int
    degree: int
    examples: tuple[int, ...]
    depths: tuple[int, ...]  # hidden layers
    widths: tuple[int, ...]
    degrees: tuple[int, ...]
    joint: int = 0
    heldout: int = 0
    functions: tuple[str, ...] = ("relu", "sigmoid", "tanh", "gelu")  # a step each, at the centre
    every_phase: bool = False  # each phase at every point of every axis, not only where it grows
    grid: tuple[tuple[int, int], ...] = ()  # further (n, width) with relu, as most users' networks have it; a step each


@dataclass(frozen=True)
class Profile:
    """A sweep: how many passes, how many seconds to measure a cell in each, and where."""

    name: str
    passes: int
    cell_s: float
    budget_s: float | None
    usual: Range
    slow: Range  # for implementations that take as long over far smaller cells
    longest_step_s: float  # cells whose step is estimated longer are left out, and named
    joint_only: bool = False  # the random design alone
    grid_only: bool = False  # the grid alone
    like: str = ""  # whose implementations it takes where none are named; empty: those that name it
    optimizers: tuple[str, ...] = (optimizers.USUAL,)  # the usual one has all axes, others their update's


_SMOKE = Range(64, 32, 2, 4, (8, 32, 128), (1, 2, 4), (16, 64, 128), (1, 4, 16), functions=())
_QUICK = Range(
    256,
    256,
    2,
    4,
    (1, 8, 64, 256, 512, 1024, 2048),
    (1, 2, 4, 8, 12),
    (16, 32, 64, 128, 256, 512),
    (1, 2, 4, 8, 16, 32),
    joint=18,
    heldout=5,
    functions=("relu", "tanh", "gelu"),
)
_FULL = replace(
    _QUICK,
    examples=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    depths=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    widths=(8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
    degrees=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
    functions=activations.PLAIN_NAMES,
    every_phase=True,
    joint=80,
    heldout=16,
)
#: An accelerator's range is wider by a decade or two: small cells wait for launches.  Its centre is meant to lie past them, so
#: that depth and activation are seen to cost, and the longest axes go far beyond it, so that laws have cells to rest on.
_GPU = Range(
    8192,
    1024,
    2,
    4,
    (1, 16, 256, 1024, 4096, 8192, 16384, 65536),
    (1, 2, 4, 8),
    (16, 64, 256, 1024, 2048, 4096, 8192),
    (1, 4, 16, 32),
    joint=16,
    heldout=5,
    functions=("relu",),
    grid=((16, 64), (1024, 64), (1024, 1024), (8192, 8192)),
)
#: In less time: its large networks are few, since each is held to a float64 reference on the CPU.
_GPU_QUICK = replace(
    _GPU, widths=(16, 64, 256, 512, 1024, 2048), degrees=(1, 4, 16), joint=9, heldout=4, grid=((16, 64), (1024, 64))
)
_SLOW_SMOKE = Range(4, 16, 2, 4, (2, 8, 32), (1, 2, 4), (4, 8, 16), (1, 4, 16), functions=())
_SLOW_QUICK = Range(
    8,
    16,
    2,
    4,
    (1, 4, 8, 16, 32, 64),
    (1, 2, 4, 8),
    (4, 8, 16, 32),
    (1, 2, 4, 8, 16, 32),
    joint=14,
    heldout=4,
    functions=(),
)
_SLOW_FULL = replace(
    _SLOW_QUICK,
    functions=activations.PLAIN_NAMES,
    examples=(1, 2, 4, 8, 16, 32, 64, 128),
    widths=(4, 8, 16, 24, 32, 48),
    joint=40,
    heldout=8,
)

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", 2, 0.15, 80.0, _SMOKE, _SLOW_SMOKE, 0.2),
        Profile("quick", 5, 0.1, 210.0, _QUICK, _SLOW_QUICK, 0.06),
        Profile("full", 5, 0.25, None, _FULL, _SLOW_FULL, 10.0, optimizers=optimizers.NAMES),
        # cells to hold predictions against: drawn like the quick sweep's, with another seed never the same
        Profile("check", 3, 0.1, 100.0, _QUICK, _SLOW_QUICK, 0.06, joint_only=True),
        Profile("gpu", 3, 0.1, 600.0, _GPU, _SLOW_QUICK, 0.5, like="quick"),
        Profile("gpu-quick", 3, 0.05, 150.0, _GPU_QUICK, _SLOW_QUICK, 0.5, like="quick"),
        # what a device is bought for: its rate in the largest products, which takes longer to check than to measure
        Profile(
            "gpu-large",
            2,
            0.3,
            150.0,
            replace(_GPU, grid=((8192, 4096), (8192, 8192))),
            _SLOW_QUICK,
            0.5,
            grid_only=True,
            like="quick",
        ),
    )
}


def find(name: str) -> Profile:
    """The profile of that name.  Raises UserError with the nearest known one."""
    if name not in PROFILES:
        raise UserError(nearest("profile", name, PROFILES))
    return PROFILES[name]


def points(profile: Profile, entry: Entry, seed: int, names: Sequence[str] = ()) -> list[Point]:
    """All points an implementation is asked for, each once, with every axis it lies on; the optimizers
    of these ``names`` in place of the profile's.

    An implementation without ``horner-K`` runs the axes with its ``tanh``; what it cannot do even so, the plan names.
    """
    chosen = profile.slow if entry.slow else profile.usual
    merged: dict[tuple[Network, str, int], Point] = {}
    for point in _asked(profile, chosen, seed, names or profile.optimizers):
        able = point
        if entry.cannot(point.network) and not {"functions", "activation"} & set(point.axes):
            able = replace(point, network=replace(point.network, activation="tanh"))
        key = (able.network, able.optimizer, able.n)
        known = merged.get(key)
        if known:
            joined = _joined(known.phases, able.phases)
            able = replace(known, axes=(*known.axes, *able.axes), phases=joined, step=known.step or able.step)
        merged[key] = able
    return list(merged.values())


def _asked(profile: Profile, chosen: Range, seed: int, names: Sequence[str]) -> Iterator[Point]:
    if profile.grid_only:
        yield from _grid(chosen)
        return
    if optimizers.USUAL in names:
        if not profile.joint_only:
            yield from _axes(chosen)
            yield from _grid(chosen)
        yield from _joint(chosen, seed)
    for name in names:
        if name != optimizers.USUAL:
            yield from _updates(chosen, name)


def _updates(chosen: Range, optimizer: str) -> Iterator[Point]:
    """What an optimizer changes: its update, all along the width, where it grows, and at a few numbers of examples, with
    which it should not; and whole steps at the centre.
    """
    for width in chosen.widths:
        yield Point(_network(chosen, width=width), chosen.n, ("width",), False, ("update",), optimizer, step=False)
    for n in _few(chosen.examples):
        yield Point(_network(chosen), n, ("examples",), False, ("update",), optimizer, step=False)
    yield Point(_network(chosen), chosen.n, ("optimizers",), optimizer=optimizer)


def _few(values: Sequence[int]) -> list[int]:
    """Every other value, and the last."""
    return sorted({*values[::2], *values[-1:]})


def _network(chosen: Range, width: int | None = None, hidden: int | None = None, activation: str = "") -> Network:
    layers = (INPUTS, *[width or chosen.width] * (hidden or chosen.hidden), OUTPUTS)
    return Network(layers, activation or f"horner-{chosen.degree}")


def _axes(chosen: Range) -> Iterator[Point]:
    for n in chosen.examples:
        yield Point(_network(chosen), n, ("examples",), phases=_phases(chosen, "examples", n))
    for hidden in chosen.depths:
        phases = _phases(chosen, "depth", hidden)
        yield Point(_network(chosen, hidden=hidden), chosen.n, ("depth",), phases=phases)
    for width in chosen.widths:
        yield Point(_network(chosen, width=width), chosen.n, ("width",), phases=_phases(chosen, "width", width))
    for degree in chosen.degrees:
        phases = _phases(chosen, "activation", degree)
        yield Point(_network(chosen, activation=f"horner-{degree}"), chosen.n, ("activation",), phases=phases)
    for name in chosen.functions:
        yield Point(_network(chosen, activation=name), chosen.n, ("functions",))


def _grid(chosen: Range) -> Iterator[Point]:
    for n, width in chosen.grid:
        yield Point(_network(chosen, width, activation="relu"), n, ("grid",))


#: Along which axes a phase is said to grow.
GROWS: dict[Phase, tuple[str, ...]] = {
    "forward": ("examples", "width", "activation"),
    "loss": ("examples",),
    "backward": ("examples", "width", "activation"),
    "update": ("width",),
}


def _phases(chosen: Range, axis: str, value: int) -> tuple[Phase, ...]:
    """Phases worth a cell of their own at a point: all along an axis where they grow, at every other value where they are
    said not to; the activation is nothing to a loss or an update.
    """
    if chosen.every_phase:
        return PHASES
    values = {"examples": chosen.examples, "width": chosen.widths}.get(axis, ())
    return tuple(phase for phase in PHASES if axis in GROWS[phase] or value in _few(values))


def _joined(some: tuple[Phase, ...], others: tuple[Phase, ...]) -> tuple[Phase, ...]:
    return tuple(phase for phase in PHASES if phase in some or phase in others)


def work(point: Point) -> int:
    """Operations of one step: the size of a cell."""
    return counts.total(point.network, point.n, optimizer=point.optimizer)


def _joint(chosen: Range, seed: int) -> Iterator[Point]:
    """Log-uniform draws of (n, width, hidden, K) until enough are small to fit and large to hold out."""
    largest = FITTED_WORK * max(work(point) for point in _axes(chosen))
    rng = np.random.default_rng([seed, chosen.joint, chosen.heldout])
    wanted = {False: chosen.joint, True: chosen.heldout}
    seen: set[tuple[Network, int]] = set()
    while any(wanted.values()):
        n, width, hidden, degree = (
            round(float(np.exp(rng.uniform(np.log(values[0]), np.log(values[-1])))))
            for values in (chosen.examples, chosen.widths, chosen.depths, chosen.degrees)
        )
        point = Point(_network(chosen, width, hidden, f"horner-{degree}"), n, ("joint",))
        share = work(point) / largest
        heldout = HELDOUT_WORK[0] <= share <= HELDOUT_WORK[1]
        key = (point.network, n)
        if (heldout or share <= 1) and wanted[heldout] and key not in seen:
            seen.add(key)
            wanted[heldout] -= 1
            yield replace(point, heldout=heldout)
