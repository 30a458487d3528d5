"""One hidden layer approximates any continuous function: how near it comes with so many units, and what finding it costs.

Two things bound the error of a trained network: what its width can do at all, and what training finds of that.  They are
told apart by networks that owe nothing to gradient descent but perhaps their hidden layer: hidden weights are drawn or laid
out by hand, and the output layer, in which the network is linear, is solved for by least squares in float64.  The best
of these bounds the best error of that width from above.  It may live on differences of large numbers, so it is taken
once more among output weights that the precision of training can hold: this is what training is compared with.

Every function is scaled to mean 0 and standard deviation 1, so that errors are relative to its spread; they are taken on a
grid that no training and no fit has seen.  Training points are dense, so that what is missed is not for want of data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from bench.experiments import Experiment, Row, Settings, Task
from bench.experiments.training import Schedule, float64, losses, train
from bench.experiments.workbench import Workbench
from impls import activations, counts, reference
from impls.interface import AnyArray, Array, Network, Problem

ACTIVATIONS = ("tanh", "relu")
OPTIMIZER = "adam"
#: Batches of 64 bring about a quarter less error for the same examples, and take twice as many steps.
BATCH = 128
#: The learning rate falls twice, each time by five: at one rate throughout, wide networks end three times as far away.
SHARES = (1.0, 0.2, 0.04)
#: Learning rates 0.003, 0.01 and 0.03 were tried for widths 4 to 1,024 on all functions: these were best in the mean.
RATE, RATE_WIDE, WIDE = 0.03, 0.01, 128
#: Points in each direction of the grid that errors are taken on; training and fits use none of these.
GRID = {1: 2001, 2: 101}
#: A function and networks are drawn on so many points, for networks of these widths.
CURVE, CURVE_WIDTHS = 241, (4, 16, 64)
#: A stage ends in divergence where the loss is 100 times this, which is the constant function's.
LEAST_LOSS = 0.01
#: Steepness of drawn tanh units; relu has none, since its output weights absorb it, and so gets as many draws.
STEEPNESS = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Steepness of relu units at the start of training; more, and a small step moves a kink too far.
RELU_START = 2.0
#: Draws after the function's own steepness.
SAMPLED = 2
#: Directions that units are laid out evenly in: in two dimensions along the axes and both diagonals.
DIRECTIONS = {1: 1, 2: 4}
#: Singular values of hidden outputs below this share of the largest cannot be told from 0 in the precision of training:
#: ten times its rounding.  Then output weights stay below a thousand or so, and survive being rounded.
HELD = {"float32": 1e-6, "float64": 2e-15}


# --- functions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A continuous function on [-1, 1]^inputs: points (n, inputs) in, values (n,) out."""

    kind: str
    formula: str
    inputs: int
    value: Callable[[Array], Array]


def _rough(x: Array) -> Array:
    # the first six terms of a Weierstrass function of Hölder exponent 1/2
    return np.asarray(sum(2 ** (-k / 2) * np.cos(2**k * np.pi * x[:, 0]) for k in range(6)), float)


FUNCTIONS = {
    "sine": Function("smooth", "sin 2πx", 1, lambda x: np.sin(2 * np.pi * x[:, 0])),
    "kink": Function("kinked", "|x|", 1, lambda x: np.abs(x[:, 0])),
    "runge": Function("steep", "1 / (1 + 25x²)", 1, lambda x: 1 / (1 + 25 * x[:, 0] ** 2)),
    "rough": Function("rough", "Σ cos(2ᵏπx) / √2ᵏ, k ≤ 5", 1, _rough),
    "waves": Function("smooth", "sin πx · cos πy", 2, lambda x: np.sin(np.pi * x[:, 0]) * np.cos(np.pi * x[:, 1])),
    "ridge": Function("kinked", "|x + y|", 2, lambda x: np.abs(x[:, 0] + x[:, 1])),
    "cone": Function("kinked bump", "max(0, 1 - 2·√(x²+y²))", 2, lambda x: np.maximum(0, 1 - 2 * np.hypot(*x.T))),
}


def grid(inputs: int) -> Array:
    """The points (n, inputs) that errors are taken on, ends and corners included."""
    line = np.linspace(-1, 1, GRID[inputs])
    return np.stack([axis.ravel() for axis in np.meshgrid(*[line] * inputs, indexing="ij")], axis=1)


def scattered(inputs: int, n: int) -> Array:
    """Points (n, inputs) that lie evenly, of which none is on the grid where ``n`` is a power of two.

    The midpoints of ``n`` equal cells; a second coordinate is that of a Kronecker lattice, frac(i φ) with the golden ratio φ,
    so that the points lie evenly in every direction: of a square grid's few lines units in its diagonals see too little.
    """
    midpoints = (2 * np.arange(n) + 1) / n - 1
    second = 2 * ((0.5 + np.arange(n) * (np.sqrt(5) - 1) / 2) % 1) - 1
    return np.stack([midpoints, second][:inputs], axis=1)


def scaled(name: str, points: Array) -> Array:
    """Values (n,) of a function, less its mean and divided by its standard deviation over the grid."""
    mean, spread = _scale(name)
    return (FUNCTIONS[name].value(points) - mean) / spread


@cache
def _scale(name: str) -> tuple[float, float]:
    values = FUNCTIONS[name].value(grid(FUNCTIONS[name].inputs))
    return float(values.mean()), float(values.std())


# --- hidden layers: weights (inputs, width) and biases (width,) -----------------------------------------------------

Hidden = tuple[Array, Array]


def spread(rng: np.random.Generator, inputs: int, width: int, steepness: float) -> Hidden:
    """Units whose middles (relu: kinks) lie anywhere on the domain, in directions and with slopes drawn at random."""
    # z = s d·x - s c, with a unit vector d, c within the domain's reach, s log-normal about ``steepness``
    directions = rng.standard_normal((inputs, width))
    directions /= np.linalg.norm(directions, axis=0)
    middles = np.sqrt(inputs) * rng.uniform(-1, 1, width)
    slopes = steepness * np.exp(0.5 * rng.standard_normal(width))
    return directions * slopes, -slopes * middles


def even(inputs: int, width: int, angle: float) -> Hidden:
    """All units in one direction, their middles at equal distances, as steep as these: piecewise linear, or in stairs."""
    direction = np.array([np.cos(angle), np.sin(angle)])[:inputs]
    reach = np.abs(direction).sum()
    slope = width / (2 * reach)
    middles = reach * (2 * np.arange(width) / width - 1)
    return np.outer(direction, np.full(width, slope)), -slope * middles


def sampled(rng: np.random.Generator, points: Array, values: Array, width: int, activation: str) -> Hidden:
    """Units across pairs of points, more of them where the function is steep.

    Source: Bolager, Burak, Datar, Sun & Dietrich, *Sampling weights of deep neural networks* (NeurIPS 2023): a pair is
    taken with a probability in proportion to |f(x2) - f(x1)| / |x2 - x1|; relu is 0 at x1 and 1 at x2, tanh -½ and ½.
    """
    first, second = rng.integers(len(points), size=(2, 20 * width + 200))
    first, second = first[first != second], second[first != second]
    across = points[second] - points[first]
    squares = (across**2).sum(axis=1)
    steepness = np.abs(values[second] - values[first]) / np.sqrt(squares)
    chosen = rng.choice(len(first), width, p=steepness / steepness.sum())
    start, across, squares = points[first[chosen]], across[chosen], squares[chosen]
    # z(x) = s (x - o)·a / |a|²
    s, origin = (np.log(3), start + across / 2) if activation == "tanh" else (1.0, start)
    weights = s * across / squares[:, None]
    return weights.T, -(weights * origin).sum(axis=1)


# --- least squares --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Error:
    """Root mean square and largest error over the grid, in standard deviations of the function."""

    rms: float
    maximum: float


def error_of(outputs: Array, wanted: Array) -> Error:
    """Of outputs (n,) against the function's scaled values (n,)."""
    away = np.abs(outputs - wanted)
    return Error(float(np.sqrt(np.mean(away**2))), float(away.max()))


def features(points: Array, hidden: Hidden, activation: str) -> Array:
    """What the hidden layer puts out (n, width), and a column of ones for the output's bias."""
    h = activations.find(activation).value(reference.XP, points @ hidden[0] + hidden[1])
    return np.hstack([h, np.ones((len(points), 1))])


@dataclass(frozen=True)
class Solved:
    """Errors with the best output layer: in float64, and with one that the precision of training ``held``."""

    best: Error
    held: Error


def solved(hidden: Hidden, activation: str, names: Sequence[str], dtype: str) -> list[Solved]:
    """With the best output layers on a given hidden layer, one for each function."""
    inputs, width = hidden[0].shape
    points, at = fitted_on(inputs, width), grid(inputs)
    values = np.stack([scaled(name, points) for name in names], axis=1)
    outer = output_layers(
        features(points, hidden, activation), values, (np.finfo(float).eps * len(points), HELD[dtype])
    )
    found = features(at, hidden, activation) @ np.hstack(outer)
    best, held = (part.T for part in np.split(found, 2, axis=1))
    wanted = [scaled(name, at) for name in names]
    return [Solved(error_of(b, w), error_of(h, w)) for b, h, w in zip(best, held, wanted, strict=True)]


def output_layers(h: Array, values: Array, tolerances: Sequence[float]) -> list[Array]:
    """By tolerance the least squares v of h v = values, (width + 1, functions), without directions in which h is that small.

    The tolerance is relative to h's largest singular value.
    """
    # [h, values] = Q R: |h v - values| is |R11 v - R12| but for a constant, with as many rows as columns
    columns = h.shape[1]
    r = np.asarray(np.linalg.qr(np.hstack([h, values]), mode="r"))[:columns]
    return [np.linalg.lstsq(r[:, :columns], r[:, columns:], tolerance)[0] for tolerance in tolerances]


def fitted_on(inputs: int, width: int) -> Array:
    """The points of least squares: at least four for each unknown.

    In two dimensions the edges have points of their own, as many on each as there are units: a unit that bends nothing but
    a corner would see none otherwise, and the corner be left to chance.
    """
    points = scattered(inputs, max(1024 if inputs == 1 else 4096, 4 * width))
    if inputs == 1:
        return points
    along, across = scattered(1, max(width, 64)), np.ones((max(width, 64), 1))
    edges = [np.hstack(pair) for side in (-across, across) for pair in ((along, side), (side, along))]
    return np.vstack([points, *edges])


def bounds(names: Sequence[str], activation: str, width: int, seed: Sequence[int], dtype: str) -> dict[str, Row]:
    """By function the least errors of all hidden layers that are tried: upper bounds of what the width can do."""
    inputs = FUNCTIONS[names[0]].inputs
    rng = np.random.default_rng([*seed, inputs, width])
    tried: dict[str, list[tuple[str, Solved]]] = {name: [] for name in names}

    def keep(layout: str, found: Sequence[Solved], of: Sequence[str]) -> None:
        for name, one in zip(of, found, strict=True):
            tried[name].append((layout, one))

    for steepness in STEEPNESS:
        keep("drawn", solved(spread(rng, inputs, width, steepness), activation, names, dtype), names)
    for direction in range(DIRECTIONS[inputs]):
        keep("even", _evenly(tuple(names), activation, width, direction, dtype), names)
    points = fitted_on(inputs, width)
    for name in names:
        for _ in range(SAMPLED):
            hidden = sampled(rng, points, scaled(name, points), width, activation)
            keep("sampled", solved(hidden, activation, [name], dtype), [name])
    return {name: _least(found) for name, found in tried.items()}


@cache
def _evenly(names: tuple[str, ...], activation: str, width: int, direction: int, dtype: str) -> list[Solved]:
    """The same for every seed."""
    inputs = FUNCTIONS[names[0]].inputs
    return solved(even(inputs, width, np.pi * direction / DIRECTIONS[inputs]), activation, names, dtype)


def _least(tried: Sequence[tuple[str, Solved]]) -> Row:
    layout, one = min(tried, key=lambda pair: pair[1].best.rms)
    held = min((each.held for _, each in tried), key=lambda error: error.rms)
    return {"layout": layout} | _errors(Solved(one.best, held))


#: Of a row: with the output layer solved for.
ERRORS = ("best_rms", "best_maximum", "held_rms", "held_maximum")


def _errors(found: Solved) -> Row:
    errors = (found.best.rms, found.best.maximum, found.held.rms, found.held.maximum)
    return dict(zip(ERRORS, errors, strict=True))


def interpolated(name: str, width: int) -> Error:
    """Of the function joined up straight between equidistant points, which relu of that width can do: one unit a piece."""
    knots, at = np.linspace(-1, 1, width + 1), grid(1)
    return error_of(np.interp(at[:, 0], knots, scaled(name, knots[:, None])), scaled(name, at))


# --- training -------------------------------------------------------------------------------------------------------


def start(activation: str, inputs: int, width: int, seed: Sequence[int]) -> tuple[Array, ...]:
    """Parameters before training.

    The suite's own start is made for 64 inputs and puts nearly all middles of units of one or two inputs near 0, where
    they bend nothing; these lie all over the domain.  tanh starts with √width: 1 is as wide as the domain, width / 2 as
    narrow as the distance from one unit to the next.
    """
    rng = np.random.default_rng([*seed, inputs, width])
    steepness = np.sqrt(width) if activation == "tanh" else RELU_START
    weights, biases = spread(rng, inputs, width, steepness)
    # outputs of order 1, however many units
    outer = rng.standard_normal((width, 1)) / np.sqrt(width) / (1.0 if activation == "tanh" else RELU_START)
    return weights, biases, outer, np.zeros(1)


def problem_of(name: str, activation: str, width: int, points: int, seed: Sequence[int]) -> Problem:
    """What is trained: a function at so many scattered points, from its seeded start."""
    inputs = FUNCTIONS[name].inputs
    x = scattered(inputs, points)
    rate = RATE if width < WIDE else RATE_WIDE
    network = Network((inputs, width, 1), activation, "mse")
    return Problem(network, x, scaled(name, x)[:, None], start(activation, inputs, width, seed), rate, OPTIMIZER)


@dataclass(frozen=True)
class Trained:
    """Parameters after the last step, in float64, and what it took: ``seconds`` in all, kernels beside each stage."""

    parameters: list[Array]
    steps: int
    seconds: float
    reference_s: dict[str, list[float]]
    diverged_at: int | None


def trained(bench: Workbench, problem: Problem, epochs: Sequence[int], batch: int, seed: int) -> Trained:
    """Go through a problem's stages, each with a smaller learning rate, Adam's averages afresh in each."""
    last: list[Array] = list(problem.parameters)
    coarse = slice(None, None, max(1, problem.n // 1024))
    loss = losses(replace(problem, inputs=problem.inputs[coarse], targets=problem.targets[coarse]))

    def look(parameters: Sequence[AnyArray]) -> dict[str, float]:
        last[:] = float64(parameters)
        return {"loss": float(np.maximum(loss(last)["loss"], LEAST_LOSS))}

    steps, spent, beside = 0, 0.0, []
    for stage, (share, count) in enumerate(zip(SHARES, epochs, strict=True)):
        part = replace(problem, parameters=tuple(last), learning_rate=share * problem.learning_rate)
        schedule = Schedule(batch, count, seed=len(SHARES) * seed + stage, looks=(count,))
        end = train(bench, part, schedule, look, lambda seen: False)[-1]
        spent += end["seconds"]
        beside.append(end["reference_s"])
        if end["diverged_at"] is not None:
            return Trained(last, steps + end["diverged_at"], spent, _by_kernel(beside), steps + end["diverged_at"])
        steps += end["steps"]
    return Trained(last, steps, spent, _by_kernel(beside), None)


def _by_kernel(beside: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {kernel: [times[kernel] for times in beside] for kernel in beside[0]}


# --- tasks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """``others`` is what implementations after the first do: (functions, seeds)."""

    widths: tuple[int, ...]
    functions: tuple[str, ...]
    seeds: int
    others: tuple[tuple[str, ...], int]
    points: int
    epochs: tuple[int, int, int]


ALL = tuple(FUNCTIONS)
PROFILES = {
    "smoke": Profile((1, 4, 16), ("sine", "ridge"), 2, (("sine",), 1), 4096, (2, 1, 1)),
    "quick": Profile((1, 4, 16, 64, 256), ALL, 3, (("sine",), 2), 16384, (10, 4, 2)),
    "full": Profile(tuple(2**k for k in range(11)), ALL, 5, (ALL, 2), 16384, (80, 32, 16)),
}


def tasks(settings: Settings) -> list[Task]:
    """Least squares once, which no implementation has a part in, then each one's training: width by width."""
    profile = PROFILES[settings.profile]
    found = []
    for i, impl in enumerate(settings.impls):
        functions, seeds = (profile.functions, profile.seeds) if i == 0 else profile.others
        kinds = ("bound", "training") if i == 0 else ("training",)
        for kind in kinds:
            for inputs in GRID:
                names = [name for name in functions if FUNCTIONS[name].inputs == inputs]
                if names:
                    found += _tasks_of(impl, kind, names, list(range(seeds)), profile)
    return found


def _tasks_of(impl: str, kind: str, names: list[str], seeds: list[int], profile: Profile) -> list[Task]:
    inputs = FUNCTIONS[names[0]].inputs
    alike: dict[str, Any] = {"kind": kind, "functions": names, "seeds": seeds}
    if kind == "training":
        alike |= {"points": profile.points, "epochs": list(profile.epochs), "batch": BATCH}
    return [
        Task(
            f"{impl} {kind} of {inputs} inputs, {activation}, width {width}",
            impl,
            alike | {"activation": activation, "width": width},
            timeout_s=1800.0,
        )
        for activation in ACTIVATIONS
        for width in profile.widths
    ]


def measure(bench: Workbench, arguments: Mapping[str, Any]) -> list[Row]:
    """A row for each function and seed of one width and activation: its bound, or what training found."""
    by_kind = {"bound": _bound_rows, "training": _training_rows}
    return by_kind[arguments["kind"]](bench, arguments)


def _bound_rows(bench: Workbench, asked: Mapping[str, Any]) -> list[Row]:
    width, activation = asked["width"], asked["activation"]
    rows = []
    for seed in asked["seeds"]:
        best = bounds(asked["functions"], activation, width, (bench.seed, seed, 1), bench.dtype)
        for name, errors in best.items():
            row = _about(name, seed) | errors
            if activation == "relu" and FUNCTIONS[name].inputs == 1:
                row["interpolated_rms"] = interpolated(name, width).rms
            rows.append(row)
    return rows


def _training_rows(bench: Workbench, asked: Mapping[str, Any]) -> list[Row]:
    return [_training_row(bench, asked, name, seed) for name in asked["functions"] for seed in asked["seeds"]]


def _training_row(bench: Workbench, asked: Mapping[str, Any], name: str, seed: int) -> Row:
    activation, batch = asked["activation"], asked["batch"]
    problem = problem_of(name, activation, asked["width"], asked["points"], (bench.seed, seed, 0))
    found = trained(bench, problem, asked["epochs"], batch, seed)
    network = problem.network
    row = _about(name, seed) | {
        "m": network.m,
        "learning_rate": problem.learning_rate,
        "steps": found.steps,
        "seconds": found.seconds,
        "reference_s": found.reference_s,
        "operations": found.steps * counts.total(network, batch, optimizer=OPTIMIZER),
        "diverged_at": found.diverged_at,
    }
    if found.diverged_at is not None:
        return row | dict.fromkeys(("rms", "maximum", *ERRORS))
    at = grid(network.layers[0])
    error = error_of(reference.outputs(network, found.parameters, at)[:, 0], scaled(name, at))
    on_it = solved((found.parameters[0], found.parameters[1]), activation, [name], bench.dtype)[0]
    row |= vars(error) | _errors(on_it)
    if seed == asked["seeds"][0] and network.layers[0] == 1 and network.width in CURVE_WIDTHS:
        row["curve"] = _curve(name, lambda x: reference.outputs(network, found.parameters, x)[:, 0])
    return row


def _about(name: str, seed: int) -> Row:
    function = FUNCTIONS[name]
    return {
        "function": name,
        "seed": seed,
        "inputs": function.inputs,
        "shape": function.kind,
        "formula": function.formula,
    }


def _curve(name: str, network: Callable[[Array], Array]) -> dict[str, list[float]]:
    """Points, and on them the scaled function and the network."""
    x = np.linspace(-1, 1, CURVE)
    columns = {"x": x, "function": scaled(name, x[:, None]), "network": network(x[:, None])}
    return {key: [round(float(value), 4) for value in values] for key, values in columns.items()}


EXPERIMENT = Experiment(
    "approximation",
    "one hidden layer approximates any continuous function",
    "error on seven functions against the width of one hidden layer: trained, and with the output layer solved for",
    tasks,
    measure,
)
