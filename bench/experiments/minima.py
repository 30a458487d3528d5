"""Do large networks rarely stick?  Many restarts of networks of about ten to a hundred thousand weights on the same rows.

Two data sets, each the same for every size.  XOR, four rows, is where small networks are known to stick (Rumelhart, Hinton
& Williams 1986; Sprinkhuizen-Kuyper & Boers 1998, 1999; docs/experiments.md).  Of the user's data the first few hundred
rows are reduced to a few principal components: with 64 inputs even one hidden unit would have 85 weights.  Networks have
one hidden layer, so that m grows with nothing but its width.

Where training was not over, small networks are looked at further, in float64 and off the clock: where L-BFGS takes them
from there, and what the Hessian says of the point it stops at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from backprop_files import UserError
from bench.experiments import Experiment, Row, Settings, Task
from bench.experiments.training import Schedule, float64, losses, train
from bench.experiments.workbench import Workbench
from impls import datasets, reference
from impls.datasets import INPUT_SCALE, Dataset
from impls.interface import AnyArray, Array, Network, Problem
from impls.problem import initial_parameters

XOR = "xor"
ACTIVATIONS = ("tanh", "relu")
#: Of the user's data: rows, and principal components of their inputs.
ROWS, COMPONENTS = 300, 4
#: A run is over at this loss: as no loss is below 0, it is not far above the best of any size.
GOAL = 0.02
#: Steps between two looks.
CHUNK = 25
#: Up to so many weights, what is not over is polished, and has a Hessian.
SMALL = 300
#: How far the first step of L-BFGS goes: a whole unit, its usual one, could leap out of a basin.
FIRST_STEP = 0.01
#: Of central differences of gradients.
STEP = 1e-6


@dataclass(frozen=True)
class Profile:
    """Restarts by hidden units for XOR and for the user's data: of the first implementation, and of each other one.

    ``stages`` are learning rates of Adam on all rows at once, and steps at each, whole chunks of them; ``polish`` are
    iterations of L-BFGS at most.
    """

    xor: Mapping[int, int]
    rows: Mapping[int, int]
    other_xor: Mapping[int, int]
    other_rows: Mapping[int, int]
    stages: tuple[tuple[float, int], ...]
    polish: int


def _each(units: Sequence[int], restarts: int) -> dict[int, int]:
    return dict.fromkeys(units, restarts)


#: 5 k + 2 weights of k units for XOR, 15 k + 10 for the digits: up to 100,000 of both.
XOR_UNITS = (2, 3, 4, 6, 8, 16, 64, 1024, 20_000)
UNITS = (1, 2, 4, 8, 16, 64, 256, 1024, 6666)
#: Without one above the best, 73 runs tell that at most 5 % end there: so many large ones has quick together.
PROFILES = {
    "smoke": Profile(_each((2, 16), 4), _each((1, 4), 3), _each((2,), 2), {}, ((0.03, 100),), 50),
    "quick": Profile(
        _each(XOR_UNITS, 25) | _each((1024, 20_000), 20),
        _each((1, 2, 4, 8, 16, 64), 20) | {256: 26, 1024: 8, 2000: 4},
        {2: 2} | _each((1024, 20_000), 20),
        {1: 1, 256: 6, 1024: 1},
        ((0.03, 1500), (0.003, 500)),
        200,
    ),
    "full": Profile(
        _each(XOR_UNITS, 200),
        _each((1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 256, 1024, 6666), 100),
        _each(XOR_UNITS, 50),
        _each(UNITS, 25),
        ((0.03, 6000), (0.003, 2000)),
        3000,
    ),
}
#: Restarts of one task at most: what a resumed run does not do again.
TOGETHER = 25


def tasks(settings: Settings) -> list[Task]:
    """A task for each implementation, data set, activation and size, and for so many restarts together.

    Raises UserError for data that cannot be used.
    """
    principal(datasets.find(settings.data))
    profile = PROFILES[settings.profile]
    found = []
    for impl in settings.impls:
        first = impl == settings.impls[0]
        plans = {
            XOR: profile.xor if first else profile.other_xor,
            settings.data: profile.rows if first else profile.other_rows,
        }
        for data, plan in plans.items():
            for activation in ACTIVATIONS:
                for units, restarts in plan.items():
                    for start in range(0, restarts, TOGETHER):
                        several = list(range(start, min(start + TOGETHER, restarts)))
                        found.append(_task(impl, data, activation, units, several, profile))
    return found


def _task(impl: str, data: str, activation: str, units: int, restarts: list[int], profile: Profile) -> Task:
    name = f"{impl} {Path(data).name} {activation} {units} from {restarts[0]}"
    what = {"data": data, "activation": activation, "units": units, "restarts": restarts}
    how = {"stages": [list(stage) for stage in profile.stages], "polish": profile.polish}
    return Task(name, impl, what | how, timeout_s=1200.0)


def measure(bench: Workbench, arguments: Mapping[str, Any]) -> list[Row]:
    """A row for each restart: how its training went, where it ended, and what is there."""
    data = rows_of(arguments["data"])
    layers = (data.features, arguments["units"], data.outputs)
    network = Network(layers, arguments["activation"], data.loss)
    runs = []
    for restart in arguments["restarts"]:
        rng = np.random.default_rng([bench.seed, restart, *layers, *network.activation.encode()])
        problem = Problem(network, data.inputs, data.targets, initial_parameters(network, rng), 0.0, "adam")
        runs.append(trained(bench, problem, arguments["stages"], restart))
    told = {"data": data.name, "layers": list(layers), "m": network.m, "n": data.n}
    told |= {"goal": GOAL, "constant": constant_loss(data)}
    return [told | run.row() | _looked_at(run, arguments["polish"]) for run in runs]


def rows_of(name: str) -> Dataset:
    """XOR at ±1, or the first rows of a data set in few columns.  Raises UserError for an unknown or unusable one."""
    if name == XOR:
        inputs = np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)])
        labels = np.array([0, 1, 1, 0])
        return Dataset(XOR, inputs, np.eye(2)[labels], labels)
    return principal(datasets.find(name))


def principal(data: Dataset) -> Dataset:
    """The first ``ROWS`` rows of it, their inputs projected to at most ``COMPONENTS`` principal components.

    With X the centred inputs and X = U S Vᵀ, the components X V = U S are scaled to standard deviation ½, each by itself, so
    that S drops out: a fixed linear map of the same rows.  Raises UserError where no input differs.
    """
    part = data.take(np.arange(min(ROWS, data.n)))
    u, s, _ = np.linalg.svd(part.inputs - part.inputs.mean(axis=0), full_matrices=False)
    kept = min(COMPONENTS, int((s > 1e-9 * max(s[0], 1e-300)).sum()))
    if not kept:
        raise UserError(f"data '{data.name}': inputs are the same in the first {part.n} rows; give others")
    return replace(part, inputs=INPUT_SCALE * u[:, :kept] / u[:, :kept].std(axis=0))


def constant_loss(data: Dataset) -> float:
    """The least loss of an output that is the same for every row: entropy of the classes, or variance of the numbers."""
    mean = data.targets.mean(axis=0)
    if data.labels is None:
        return float(((data.targets - mean) ** 2).mean())
    shares = mean[mean > 0]
    return float(-(shares * np.log(shares)).sum())


# --- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One restart: where it ended, in float64, and how it came there.  ``curve`` has (steps, loss) of its looks.

    ``seconds`` are those of its steps alone, ``reference_s`` the kernels around all of it.
    """

    problem: Problem
    restart: int
    parameters: list[Array]
    curve: list[tuple[int, float]]
    seconds: float
    reference_s: Mapping[str, float]
    diverged_at: int | None

    @property
    def loss(self) -> float:
        """At the end; NaN where it diverged."""
        return math.nan if self.diverged_at is not None else self.curve[-1][1]

    @property
    def over(self) -> bool:
        """Whether there is nothing to look for where it ended."""
        return self.diverged_at is not None or self.loss <= GOAL

    def row(self) -> Row:
        """Plain data; what diverged has no numbers of its end."""
        network, inputs = self.problem.network, self.problem.inputs
        found = {
            "restart": self.restart,
            "steps": self.diverged_at or self.curve[-1][0],
            "seconds": self.seconds,
            "reference_s": dict(self.reference_s),
            "curve": [list(self.curve[i]) for i in _shown(len(self.curve))],
            "diverged_at": self.diverged_at,
            "dead_at_start": dead_units(network, self.problem.parameters, inputs),
        }
        if self.diverged_at is not None:
            return found | dict.fromkeys(("loss", "gradient", "dead"))
        gradients = reference.loss_and_gradients(self.problem, self.parameters)[1]
        return found | {
            "loss": self.loss,
            "gradient": float(np.linalg.norm(flat(gradients))),
            "dead": dead_units(network, self.parameters, inputs),
        }


def trained(bench: Workbench, problem: Problem, stages: Sequence[tuple[float, int]], restart: int) -> Run:
    """Go through the stages on all rows at once, Adam's averages afresh in each, until the loss is at ``GOAL``."""
    last: list[Array] = list(problem.parameters)
    loss_of = losses(problem)
    seen: list[Row] = []

    def look(parameters: Sequence[AnyArray]) -> Mapping[str, float]:
        last[:] = float64(parameters)
        return loss_of(last)

    def go() -> None:
        for rate, steps in stages:
            if seen and (seen[-1]["diverged_at"] is not None or seen[-1]["loss"] <= GOAL):
                return
            stage = replace(problem, parameters=tuple(last), learning_rate=rate)
            schedule = Chunks(problem.n, steps // CHUNK)
            seen.extend(_after(seen, train(unkerneled, stage, schedule, look, lambda at: at["loss"] <= GOAL)[1:]))

    # the kernels at every look would take as long as the steps
    unkerneled = replace(bench, reference={})
    reference_s = bench.once(go, lambda: None)["reference_s"]
    curve = [(row["steps"], row["loss"]) for row in seen if row["diverged_at"] is None]
    return Run(problem, restart, last, curve, seen[-1]["seconds"], reference_s, seen[-1]["diverged_at"])


class Chunks(Schedule):
    """All rows at once, ``CHUNK`` steps in one call: an epoch goes through the rows so many times.

    A call for each step would take a fifth longer in NumPy with small networks, and three times as long in JAX.
    """

    def order(self, n: int, epoch: int) -> NDArray[np.intp]:
        """Whichever: no batch is less than all rows."""
        return np.tile(np.arange(n), CHUNK)

    def steps(self, n: int, pieces: int) -> int:
        """So many to each call."""
        return CHUNK * pieces


def _shown(looks: int) -> list[int]:
    """The first look, the second, the fourth, … and the last, counted from 0."""
    return sorted({2**i - 1 for i in range(looks.bit_length())} | set(range(looks)[-1:]))


def _after(seen: Sequence[Row], stage: Sequence[Row]) -> list[Row]:
    """A stage's looks, with the steps and seconds of the stages before it."""
    if not seen:
        return list(stage)
    steps, seconds = seen[-1]["steps"], seen[-1]["seconds"]
    return [
        row
        | {"steps": steps + row["steps"], "seconds": seconds + row["seconds"]}
        | {"diverged_at": None if row["diverged_at"] is None else steps + row["diverged_at"]}
        for row in stage
    ]


# --- where it ended -------------------------------------------------------------------------------------------------


def dead_units(network: Network, parameters: Sequence[AnyArray], inputs: Array) -> int:
    """Hidden units of the first layer that are 0 on every row: no gradient comes through them.  None but relus are."""
    if network.activation != "relu":
        return 0
    return int((_first_sums(parameters, inputs) <= 0).all(axis=0).sum())


def _first_sums(parameters: Sequence[AnyArray], inputs: Array) -> Array:
    z: Array = inputs @ np.asarray(parameters[0], np.float64) + parameters[1]
    return z


def _looked_at(run: Run, iterations: int) -> Row:
    """What L-BFGS makes of it, and the Hessian there; None where it was not looked at."""
    keys = ("polished", "polished_gradient", "kink", "least_eigenvalue", "largest_eigenvalue")
    if run.over or run.problem.network.m > SMALL:
        return dict.fromkeys(keys)
    point = polish(run.problem, run.parameters, iterations)
    kink = at_kink(run.problem, point.parameters)
    ends = (None, None) if kink else extreme_eigenvalues(run.problem, point.parameters)
    return dict(zip(keys, (point.loss, point.gradient, kink, *ends), strict=True))


class Point(NamedTuple):
    """Parameters, their loss, and the 2-norm of its gradient."""

    parameters: list[Array]
    loss: float
    gradient: float


def polish(problem: Problem, parameters: Sequence[Array], iterations: int = 1000) -> Point:
    """Down from ``parameters`` by L-BFGS on the float64 reference, until the gradient is all but 0.

    Where a relu bends no gradient need vanish at a minimum; the line search then finds no way on.
    """
    start = flat(parameters)

    def loss_of(y: Array) -> tuple[float, Array]:
        # θ = θ0 + s y: the first step of L-BFGS-B has length 1 in y
        value, gradients = reference.loss_and_gradients(problem, shaped(problem.network, start + FIRST_STEP * y))
        return value, FIRST_STEP * flat(gradients)

    y, _, _ = optimize.fmin_l_bfgs_b(
        loss_of,
        np.zeros(len(start)),
        m=20,
        factr=1.0,
        pgtol=1e-6 * FIRST_STEP,
        maxfun=2 * iterations,
        maxiter=iterations,
    )
    end = shaped(problem.network, start + FIRST_STEP * y)
    value, gradients = reference.loss_and_gradients(problem, end)
    return Point(end, value, float(np.linalg.norm(flat(gradients))))


def at_kink(problem: Problem, parameters: Sequence[Array]) -> bool:
    """Whether a difference of one parameter by ``STEP`` may take a relu across its kink, where no Hessian is."""
    if problem.network.activation != "relu":
        return False
    # z = x W + b moves by STEP |x_i| or STEP
    reach = STEP * max(1.0, float(np.abs(problem.inputs).max()))
    return bool(np.abs(_first_sums(parameters, problem.inputs)).min() <= reach)


def extreme_eigenvalues(problem: Problem, parameters: Sequence[Array]) -> tuple[float, float]:
    """The Hessian's smallest and largest eigenvalue."""
    values = np.linalg.eigvalsh(hessian(problem, parameters))
    return float(values[0]), float(values[-1])


def hessian(problem: Problem, parameters: Sequence[Array]) -> Array:
    """The loss's second derivatives (m, m): H_ij ≈ (g_j(θ + h e_i) - g_j(θ - h e_i)) / 2h, made symmetric."""
    theta = flat(parameters)
    rows = []
    for i in range(len(theta)):
        move = np.zeros_like(theta)
        move[i] = STEP
        above, below = (
            flat(reference.loss_and_gradients(problem, shaped(problem.network, theta + sign * move))[1])
            for sign in (1, -1)
        )
        rows.append((above - below) / (2 * STEP))
    found = np.array(rows)
    symmetric: Array = (found + found.T) / 2
    return symmetric


def flat(arrays: Sequence[AnyArray]) -> NDArray[np.float64]:
    """All entries, one after the other."""
    return np.concatenate([np.ravel(a) for a in arrays]).astype(np.float64)


def shaped(network: Network, theta: Array) -> list[Array]:
    """A flat vector as ``Problem.parameters`` are."""
    found, start = [], 0
    for fan_in, fan_out in network.shapes:
        middle, end = start + fan_in * fan_out, start + (fan_in + 1) * fan_out
        found += [theta[start:middle].reshape(fan_in, fan_out), theta[middle:end]]
        start = end
    return found


EXPERIMENT = Experiment(
    "minima",
    "large networks rarely stick in local minima",
    "many restarts of networks of about 10 to 100,000 weights on the same rows: how many end above the best, and at what",
    tasks,
    measure,
    uses_data=True,
)
