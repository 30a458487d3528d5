"""Something real for every workload to learn, and the figure it has to reach: not within reach of a start that was only drawn.

An implementation gets batch after batch through ``hold``.  What it has learnt is told by its parameters alone, put into the
forward-only reference on data of their own, so that no slip of its own can flatter it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
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


def started(prepare: Prepare, objective: Objective, n: int, rate: float, seed: int, optimizer: str = "adam") -> Learner:
    """An implementation at a start drawn from ``seed``; its first batch is noise, to be replaced."""
    return prepare(make_problem(objective, n, seed, learning_rate=rate, optimizer=optimizer))


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


def digits(prepare: Prepare, rate: float, steps: int, seed: int = 0) -> Learnt:
    """The mlp on digits, 64 features."""
    workload = workloads.find("mlp")
    return _told(prepare, workload.objective(workload.at(width=64, hidden=1)), (64,), rate, steps, seed)


def images(prepare: Prepare, rate: float, steps: int, seed: int = 0) -> Learnt:
    """The cnn on digits, 8 × 8."""
    workload = workloads.find("cnn")
    return _told(prepare, workload.objective(workload.at(side=8, channels=8, inputs=1)), (1, 8, 8), rate, steps, seed)


def _told(
    prepare: Prepare, objective: Objective, shape: tuple[int, ...], rate: float, steps: int, seed: int, n: int = 64
) -> Learnt:
    """The share of the test images whose class it tells, beside always telling the commonest one."""
    learner = started(prepare, objective, n, rate, seed)
    parts = datasets.split(datasets.find("digits"), seed)
    batches = {"inputs": parts.train.inputs.reshape(-1, *shape), "targets": parts.train.targets}
    theta = train(learner, drawn(np.random.default_rng(seed), batches, n, steps))
    scores = reference.outputs(objective.architectures[0], theta, parts.test.inputs.reshape(-1, *shape))
    commonest = float(parts.test.targets.mean(axis=0).max())
    right = scores.argmax(axis=1) == parts.test.labels
    return Learnt(float(right.mean()), 0.95, True, {"commonest class": commonest})


def codes(prepare: Prepare, rate: float, steps: int, seed: int = 0) -> Learnt:
    """The autoencoder on digits, four numbers for 64: the share of the test images' variance that is lost.

    Beside it, that of four principal components: no linear autoencoder does better on what it was fitted to.
    """
    workload = workloads.find("autoencoder")
    sizes = workload.at(n=64, inputs=64, width=64, code=4)
    objective = workload.objective(sizes)
    learner = started(prepare, objective, sizes["n"], rate, seed)
    parts = datasets.split(datasets.find("digits"), seed)
    seen, unseen = parts.train.inputs, parts.test.inputs
    theta = train(learner, drawn(np.random.default_rng(seed), {"inputs": seen, "targets": seen}, sizes["n"], steps))
    (architecture,) = objective.architectures
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
    objective = workload.objective(sizes)
    learner = started(prepare, objective, sizes["n"], rate, seed)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)
    arrays = {"inputs": windows[:, :-1], "targets": windows[:, 1:]}
    theta = train(learner, drawn(np.random.default_rng(seed), arrays, sizes["n"], steps))
    (architecture,) = objective.architectures
    outputs = reference.outputs(architecture, theta, arrays["inputs"])
    loss = reference.supervised_loss(architecture.loss, outputs, arrays["targets"])
    single, pair = entropies(arrays["inputs"].ravel(), arrays["targets"].ravel(), len(characters))
    return Learnt(float(loss), 0.6 * pair, False, {"characters alone": single, "pairs of characters": pair})


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


def points(prepare: Prepare, rate: float, steps: int, seed: int = 0) -> Learnt:
    """The gan on eight Gaussians: the share of its points that lie near a middle, times the share of middles that it covers."""
    workload = workloads.find("gan")
    sizes = workload.at(n=128, width=64)
    objective = workload.objective(sizes)
    learner = started(prepare, objective, sizes["n"], rate, seed, "rmsprop")
    rng = np.random.default_rng(seed)
    batches = (
        {"noise": rng.standard_normal((sizes["n"], sizes["noise"])), "real": mixture(rng, sizes["n"])}
        for _ in range(steps)
    )
    theta = train(learner, batches)
    generator = objective.architectures[0]
    made = reference.outputs(generator, theta[: len(generator.parameters)], rng.standard_normal((4000, sizes["noise"])))
    near, covered = spread(made)
    return Learnt(near * covered, 0.7, True, {"near a middle": near, "middles covered": covered})


def spread(made: AnyArray) -> tuple[float, float]:
    """Shares: of points (n, 2) within three spreads of a middle, and of middles with a third of their fair part of those.

    The mixture itself has 0.989 and 1, an even disc about as wide 0.43 and 1, and points that all lie in one place 1 and 1/8.
    """
    distances = np.linalg.norm(made[:, None] - places(), axis=2)
    near = distances.min(axis=1) <= 3 * SPREAD
    parts = np.bincount(distances.argmin(axis=1)[near], minlength=MODES) / len(made)
    return float(near.mean()), float((parts >= 1 / MODES / 3).mean())


# --- rewards ----------------------------------------------------------------------------------------------------------


def environment(name: str) -> Any:
    """``catch`` or one of Gymnasium's."""
    import gymnasium

    from impls.architectures.environments import Catch

    return Catch() if name == "catch" else gymnasium.make(name)


def spaces(env: Any) -> dict[str, int]:
    """Sizes that an environment asks for."""
    return {"inputs": int(env.observation_space.shape[0]), "actions": int(env.action_space.n)}


#: Of rewards, for each step that they lie ahead.
DISCOUNT = 0.99


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


def temporal_difference(
    prepare: Prepare, where: str, own: Mapping[str, int], rate: float, steps: int, goal: float, seed: int = 0
) -> Learnt:
    """The dqn: the mean return of the last 20 episodes, beside that of the first 20.

    An action a step of training, at random with a probability that falls from 1 to 0.02 over the first third; batches are
    drawn from all that was seen.  Q⁻ and the Q that chooses are renewed now and then.
    """
    env, workload, rng = environment(where), workloads.find("dqn"), np.random.default_rng(seed)
    sizes = workload.at(**spaces(env), **own)
    objective = workload.objective(sizes)
    learner = started(prepare, objective, sizes["n"], rate, seed)
    learner.renew_target()
    values, memory = Values(objective.architectures[0], learner), Memory(steps, sizes["inputs"])

    def act(step: int, seen: AnyArray) -> int:
        at_random = rng.random() < max(1 - 3 * step / steps, 0.02)
        return int(rng.integers(sizes["actions"]) if at_random else values(seen).argmax())

    returns: list[float] = []
    for step, transition in enumerate(transitions(env, act, steps, seed, returns)):
        memory.add(*transition)
        if step >= 2 * sizes["n"]:
            learner.hold(memory.batch(rng, sizes["n"]))
            learner.step()
        if step % 10 == 0:
            values.renew()
        if step % 200 == 0:
            learner.renew_target()
    first, last = (float(np.mean(some)) for some in (returns[:20], returns[-20:]))
    return Learnt(last, goal, True, {"first 20": first, "episodes": len(returns)})


def transitions(
    env: Any, act: Callable[[int, AnyArray], int], steps: int, seed: int, returns: list[float]
) -> Iterator[tuple[AnyArray, int, float, AnyArray, bool]]:
    """s, a, r, s' and whether it goes on, episode after episode; ``returns`` gets the return of each as it ends."""
    (seen, _), total = env.reset(seed=seed), 0.0
    for step in range(steps):
        action = act(step, seen)
        after, reward, ended, cut, _ = env.step(action)
        yield seen, action, float(reward), after, not ended
        seen, total = after, total + float(reward)
        if ended or cut:
            returns.append(total)
            (seen, _), total = env.reset(), 0.0


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


def policy(
    prepare: Prepare, where: str, own: Mapping[str, int], rate: float, steps: int, goal: float, seed: int = 0
) -> Learnt:
    """policy_gradient: the mean return of the last batch's episodes, beside that of the first batch's.

    Actions are drawn by the network's softmax, episode after episode until a batch is full.  An action is weighed by the
    discounted rewards that followed it, less their mean over the batch and divided by their spread.
    """
    env, workload, rng = environment(where), workloads.find("policy_gradient"), np.random.default_rng(seed)
    sizes = workload.at(**spaces(env), **own)
    objective = workload.objective(sizes)
    learner = started(prepare, objective, sizes["n"], rate, seed)
    scores, means = Values(objective.architectures[0], learner), []
    env.reset(seed=seed)
    for _ in range(steps):
        inputs, actions, weights, returns = _episodes(env, scores, sizes["n"], rng)
        weights = (weights - weights.mean()) / (weights.std() + 1e-9)
        learner.hold({"inputs": inputs, "targets": np.eye(sizes["actions"])[actions] * weights[:, None]})
        learner.step()
        scores.renew()
        means.append(float(np.mean(returns)))
    return Learnt(means[-1], goal, True, {"first batch": means[0]})


def _episodes(env: Any, scores: Values, n: int, rng: np.random.Generator) -> tuple[Array, AnyArray, Array, list[float]]:
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
        to_come += _discounted(rewards)
    return np.array(inputs[:n], float), np.array(actions[:n]), np.array(to_come[:n]), returns


def _discounted(rewards: list[float]) -> list[float]:
    """Σ_k γ^k r_t+k for every t."""
    sums: deque[float] = deque()
    for reward in reversed(rewards):
        sums.appendleft(reward + DISCOUNT * (sums[0] if sums else 0.0))
    return list(sums)


# --- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a workload learns here; ``few`` steps are enough to see what a start is worth that learns nothing."""

    workload: str
    learn: Callable[..., Learnt]  # (prepare, rate=, steps=, seed=)
    rate: float
    steps: int
    few: int = 2

    def __call__(self, prepare: Prepare, seed: int = 0) -> Learnt:
        """As it should be done."""
        return self.learn(prepare, rate=self.rate, steps=self.steps, seed=seed)

    def idle(self, prepare: Prepare) -> Learnt:
        """With a learning rate of zero."""
        return self.learn(prepare, rate=0.0, steps=self.few)


_CELL = {"n": 16, "T": 32, "units": 64, "width": 16}
_GPT = {"n": 8, "s": 32, "d": 32, "heads": 2, "blocks": 1}
TASKS = {
    "mlp": Task("mlp", digits, 1e-2, 400),
    "cnn": Task("cnn", images, 1e-2, 350),
    "autoencoder": Task("autoencoder", codes, 5e-3, 800),
    "rnn": Task("rnn", partial(text, name="rnn", own=_CELL), 5e-3, 250),
    "lstm": Task("lstm", partial(text, name="lstm", own=_CELL), 5e-3, 250),
    "transformer": Task("transformer", partial(text, name="transformer", own=_GPT), 1e-2, 400),
    "gan": Task("gan", points, 2e-3, 1500),
    "dqn, catch": Task(
        "dqn",
        partial(temporal_difference, where="catch", own={"n": 32, "width": 64, "hidden": 1}, goal=0.8),
        2e-3,
        4500,
        few=400,
    ),
    "dqn, CartPole": Task(
        "dqn",
        partial(temporal_difference, where="CartPole-v1", own={"n": 64, "width": 64, "hidden": 2}, goal=120.0),
        1e-3,
        8000,
        few=600,
    ),
    "policy_gradient, catch": Task(
        "policy_gradient", partial(policy, where="catch", own={"n": 256, "width": 32, "hidden": 1}, goal=0.8), 1e-2, 150
    ),
    "policy_gradient, CartPole": Task(
        "policy_gradient",
        partial(policy, where="CartPole-v1", own={"n": 1024, "width": 32, "hidden": 1}, goal=150.0),
        1e-2,
        40,
    ),
}
