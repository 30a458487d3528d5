"""Something real for every workload to learn, and the figure it has to reach: not within reach of a start that was only drawn.

An implementation gets batch after batch through ``hold``.  What it has learnt is told by its parameters alone, put into the
forward-only reference on data of their own, so that no slip of its own can flatter it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from impls import datasets
from impls.architectures import reference, workloads
from impls.architectures.conformance import Feeds
from impls.architectures.layers import Architecture
from impls.architectures.problem import ArchitectureProblem, Objective, make_problem
from impls.interface import AnyArray, Array, Backprop

LICENSE = Path(__file__).parents[1] / "LICENSE"

Batch = dict[str, AnyArray]


class Learner(Backprop, Feeds, Protocol):
    """An implementation that is trained."""


#: Prepares an implementation on a problem.
Prepare = Callable[[ArchitectureProblem], Learner]


@dataclass(frozen=True)
class Learnt:
    """A figure that was reached, beside what it is held against."""

    figure: float
    goal: float
    higher: bool  # is better
    beside: Mapping[str, float]

    @property
    def reached(self) -> bool:
        """Whether the figure is at least as good as the goal."""
        return self.figure >= self.goal if self.higher else self.figure <= self.goal


def started(
    prepare: Prepare, objective: Objective, n: int, rate: float, seed: int, optimizer: str = "adam"
) -> tuple[ArchitectureProblem, Learner]:
    """An implementation at a start drawn from ``seed``; its first batch is noise, to be replaced."""
    problem = make_problem(objective, n, seed, learning_rate=rate, optimizer=optimizer)
    return problem, prepare(problem)


def train(learner: Learner, batches: Iterable[Batch]) -> list[AnyArray]:
    """A step for each batch; the parameters afterwards."""
    for batch in batches:
        learner.hold(batch)
        learner.step()
    learner.synchronize()
    return learner.parameters()


# --- images -----------------------------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, arrays: Batch, n: int, steps: int) -> Iterator[Batch]:
    """Batches of ``n`` rows, each drawn anew."""
    rows = len(next(iter(arrays.values())))
    for _ in range(steps):
        chosen = rng.integers(rows, size=n)
        yield {name: array[chosen] for name, array in arrays.items()}


def images(prepare: Prepare, rate: float = 3e-3, seed: int = 0, steps: int = 300) -> Learnt:
    """Cnn on digits, 8 × 8: the share of the test images that it tells, beside always telling the commonest class."""
    workload = workloads.find("cnn")
    sizes = workload.at(n=64, side=8, channels=8, inputs=1)
    problem, learner = started(prepare, workload.objective(sizes), sizes["n"], rate, seed)
    parts = datasets.split(datasets.find("digits"), seed)
    shape = (-1, 1, 8, 8)
    batches = {"inputs": parts.train.inputs.reshape(shape), "targets": parts.train.targets}
    theta = train(learner, drawn(np.random.default_rng(seed), batches, sizes["n"], steps))
    (architecture,) = problem.objective.architectures
    told = reference.outputs(architecture, theta, parts.test.inputs.reshape(shape)).argmax(axis=1)
    commonest = float(parts.test.targets.mean(axis=0).max())
    return Learnt(float((told == parts.test.labels).mean()), 0.95, True, {"commonest class": commonest})


def codes(prepare: Prepare, rate: float = 3e-3, seed: int = 0, steps: int = 1500) -> Learnt:
    """Autoencoder on digits, four numbers for 64: the share of the test images' variance that is lost.

    Beside it, that of four principal components: no linear autoencoder does better on what it was fitted to.
    """
    workload = workloads.find("autoencoder")
    sizes = workload.at(n=64, inputs=64, width=64, code=4)
    problem, learner = started(prepare, workload.objective(sizes), sizes["n"], rate, seed)
    parts = datasets.split(datasets.find("digits"), seed)
    seen, unseen = parts.train.inputs, parts.test.inputs
    theta = train(learner, drawn(np.random.default_rng(seed), {"inputs": seen, "targets": seen}, sizes["n"], steps))
    (architecture,) = problem.objective.architectures
    centred = unseen - seen.mean(axis=0)
    axes = np.linalg.svd(seen - seen.mean(axis=0), full_matrices=False)[2][: sizes["code"]]
    linear = float(((centred - centred @ axes.T @ axes) ** 2).sum() / (centred**2).sum())
    lost = ((reference.outputs(architecture, theta, unseen) - unseen) ** 2).sum() / (centred**2).sum()
    return Learnt(float(lost), 0.85 * linear, False, {"principal components": linear, "mean image": 1.0})


# --- text -------------------------------------------------------------------------------------------------------------


def text(prepare: Prepare, name: str, own: Mapping[str, int], rate: float, steps: int, seed: int = 0) -> Learnt:
    """A workload on the characters of this repository's licence: the loss, in nats, of telling the next one.

    Beside it, the least that can be had from how often each character comes, and from how often it follows another: whoever
    comes below the latter knows more than one character back.
    """
    characters, tokens = np.unique(list(LICENSE.read_text(encoding="utf-8")), return_inverse=True)
    workload = workloads.find(name)
    sizes = workload.at(vocabulary=len(characters), **own)
    length = sizes["T"] if "T" in sizes else sizes["s"]
    problem, learner = started(prepare, workload.objective(sizes), sizes["n"], rate, seed)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)
    arrays = {"inputs": windows[:, :-1], "targets": windows[:, 1:]}
    theta = train(learner, drawn(np.random.default_rng(seed), arrays, sizes["n"], steps))
    (architecture,) = problem.objective.architectures
    some = {key: array[::7] for key, array in arrays.items()}
    loss = reference.supervised_loss(
        architecture.loss, reference.outputs(architecture, theta, some["inputs"]), some["targets"]
    )
    single, pair = entropies(some["inputs"].ravel(), some["targets"].ravel(), len(characters))
    return Learnt(float(loss), 0.75 * pair, False, {"characters alone": single, "pairs of characters": pair})


def entropies(before: AnyArray, after: AnyArray, count: int) -> tuple[float, float]:
    """H(after) and H(after | before), in nats, by how often they come here."""
    pairs = np.zeros((count, count))
    np.add.at(pairs, (before, after), 1.0)
    p = pairs / pairs.sum()
    joint, alone = _entropy(p), _entropy(p.sum(axis=1))
    return _entropy(p.sum(axis=0)), joint - alone


def _entropy(p: Array) -> float:
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


# --- points of the plane ----------------------------------------------------------------------------------------------

MODES, RADIUS, SPREAD = 8, 1.0, 0.1


def mixture(rng: np.random.Generator, n: int) -> Array:
    """Points about eight places on a circle, (n, 2)."""
    return places()[rng.integers(MODES, size=n)] + SPREAD * rng.standard_normal((n, 2))


def places() -> Array:
    """The middles, (8, 2)."""
    angles = 2 * np.pi * np.arange(MODES) / MODES
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def points(prepare: Prepare, rate: float = 1e-3, seed: int = 0, steps: int = 3000) -> Learnt:
    """Gan on eight Gaussians: the share of its points within three spreads of a middle, 0 unless each has a fair part.

    A fair part is a third of an eighth; the mixture itself reaches 0.989.
    """
    workload = workloads.find("gan")
    sizes = workload.at(n=128, width=64)
    problem, learner = started(prepare, workload.objective(sizes), sizes["n"], rate, seed, "rmsprop")
    rng = np.random.default_rng(seed)
    batches = (
        {"noise": rng.standard_normal((sizes["n"], sizes["noise"])), "real": mixture(rng, sizes["n"])}
        for _ in range(steps)
    )
    theta = train(learner, batches)
    generator = problem.objective.architectures[0]
    made = reference.outputs(generator, theta[: len(generator.parameters)], rng.standard_normal((4000, sizes["noise"])))
    distances = np.linalg.norm(made[:, None] - places(), axis=2)
    near = distances.min(axis=1) <= 3 * SPREAD
    parts = np.bincount(distances.argmin(axis=1)[near], minlength=MODES) / len(made)
    covered = float((parts >= 1 / MODES / 3).sum())
    share = float(near.mean())
    return Learnt(share if covered == MODES else 0.0, 0.7, True, {"middles covered": covered, "share": share})


# --- rewards ----------------------------------------------------------------------------------------------------------


def environment(name: str) -> Any:
    """``catch`` or one of Gymnasium's."""
    import gymnasium

    from impls.architectures.environments import Catch

    return Catch() if name == "catch" else gymnasium.make(name)


def spaces(env: Any) -> dict[str, int]:
    """Sizes that an environment asks for."""
    return {"inputs": int(env.observation_space.shape[0]), "actions": int(env.action_space.n)}


class Values:
    """Outputs of an architecture for one example, by parameters that are handed on now and then."""

    def __init__(self, architecture: Architecture, learner: Learner) -> None:
        self.architecture, self.learner = architecture, learner
        self.renew()

    def renew(self) -> None:
        """Take over what the learner has by now."""
        self.theta = self.learner.parameters()

    def __call__(self, seen: AnyArray) -> AnyArray:
        return np.asarray(reference.outputs(self.architecture, self.theta, seen[None])[0])


@dataclass(frozen=True)
class Play:
    """How a workload is to learn an environment: its own sizes, rates, how long, and the mean return to reach."""

    environment: str
    sizes: Mapping[str, int]
    rate: float
    steps: int  # of training
    goal: float
    discount: float = 0.99


def temporal_difference(prepare: Prepare, play: Play, rate: float | None = None, seed: int = 0) -> Learnt:
    """dqn: the mean return of the last 20 episodes, beside that of the first 20.

    An action a step of training, at random with a probability that falls from 1 to 0.02 over the first third; batches are
    drawn from all that was seen.  Q⁻ and the Q that chooses are renewed now and then.
    """
    env, workload, rng = environment(play.environment), workloads.find("dqn"), np.random.default_rng(seed)
    sizes = workload.at(**spaces(env), **play.sizes)
    problem, learner = started(
        prepare, workload.objective(sizes), sizes["n"], play.rate if rate is None else rate, seed
    )
    learner.renew_target()
    values, memory = Values(problem.objective.architectures[0], learner), Memory(play.steps, sizes["inputs"])
    returns, total = [], 0.0
    seen, _ = env.reset(seed=seed)
    for step in range(play.steps):
        at_random = max(1 - 3 * step / play.steps, 0.02)
        action = int(rng.integers(sizes["actions"]) if rng.random() < at_random else values(seen).argmax())
        after, reward, ended, cut, _ = env.step(action)
        memory.add(seen, action, reward, after, not ended)
        total, seen = total + reward, after
        if ended or cut:
            returns.append(total)
            total, (seen, _) = 0.0, env.reset()
        if step >= 2 * sizes["n"]:
            learner.hold(memory.batch(rng, sizes["n"]))
            learner.step()
        if step % 10 == 0:
            values.renew()
        if step % 200 == 0:
            learner.renew_target()
    return Learnt(
        float(np.mean(returns[-20:])),
        play.goal,
        True,
        {"first 20": float(np.mean(returns[:20])), "episodes": len(returns)},
    )


class Memory:
    """Transitions, kept in the order they came."""

    def __init__(self, size: int, features: int) -> None:
        self.filled = 0
        self.arrays: Batch = {
            "inputs": np.zeros((size, features)),
            "actions": np.zeros(size, int),
            "rewards": np.zeros(size),
            "next_inputs": np.zeros((size, features)),
            "ongoing": np.zeros(size),
        }

    def add(self, *transition: Any) -> None:
        """s, a, r, s' and whether it goes on, in the order of the arrays."""
        for array, value in zip(self.arrays.values(), transition, strict=True):
            array[self.filled] = value
        self.filled += 1

    def batch(self, rng: np.random.Generator, n: int) -> Batch:
        """``n`` of them, drawn at random."""
        rows = rng.integers(self.filled, size=n)
        return {name: array[rows] for name, array in self.arrays.items()}


def policy(prepare: Prepare, play: Play, rate: float | None = None, seed: int = 0) -> Learnt:
    """policy_gradient: the mean return of the last batch's episodes, beside that of the first batch's.

    Actions are drawn by the network's softmax, episode after episode until a batch is full.  An action is weighed by the
    discounted rewards that followed it, less their mean over the batch and divided by their spread.
    """
    env, workload, rng = environment(play.environment), workloads.find("policy_gradient"), np.random.default_rng(seed)
    sizes = workload.at(**spaces(env), **play.sizes)
    problem, learner = started(
        prepare, workload.objective(sizes), sizes["n"], play.rate if rate is None else rate, seed
    )
    scores, means = Values(problem.objective.architectures[0], learner), []
    env.reset(seed=seed)
    for _ in range(play.steps):
        inputs, actions, weights, returns = _episodes(env, scores, sizes["n"], play.discount, rng)
        weights = (weights - weights.mean()) / (weights.std() + 1e-9)
        learner.hold({"inputs": inputs, "targets": np.eye(sizes["actions"])[actions] * weights[:, None]})
        learner.step()
        scores.renew()
        means.append(float(np.mean(returns)))
    return Learnt(means[-1], play.goal, True, {"first batch": means[0]})


def _episodes(
    env: Any, scores: Values, n: int, discount: float, rng: np.random.Generator
) -> tuple[Array, AnyArray, Array, list[float]]:
    """``n`` steps of whole episodes, but for what is too many of the last: s, a, discounted rewards to come; and returns."""
    inputs: list[AnyArray] = []
    actions: list[int] = []
    to_come: list[float] = []
    returns: list[float] = []
    while len(inputs) < n:
        rewards, (seen, _), over = [], env.reset(), False
        while not over:
            # argmax of scores + Gumbel noise is a draw from their softmax
            action = int((scores(seen) + rng.gumbel(size=env.action_space.n)).argmax())
            inputs.append(seen)
            actions.append(action)
            seen, reward, ended, cut, _ = env.step(action)
            rewards.append(float(reward))
            over = ended or cut
        returns.append(sum(rewards))
        to_come += _discounted(rewards, discount)
    return np.array(inputs[:n], float), np.array(actions[:n]), np.array(to_come[:n]), returns


def _discounted(rewards: list[float], discount: float) -> list[float]:
    """Σ_k γ^k r_t+k for every t."""
    sums: deque[float] = deque()
    for reward in reversed(rewards):
        sums.appendleft(reward + discount * (sums[0] if sums else 0.0))
    return list(sums)
