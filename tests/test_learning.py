"""Every workload learns something real; no start reaches its figure, and neither does what only seems to learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from backprop_files import UserError
from impls import registry
from impls.architectures import workloads
from tests import learning
from tests.learning import TASKS, Prepare

LIBRARIES = tuple(entry.name for entry in registry.ENTRIES if entry.architectures)
#: Thousands of small batches, or of moves: shown by numpy alone.
LONG = ("gan", "dqn, catch", "dqn, CartPole", "policy_gradient, CartPole")
CASES = [(name, library) for name in TASKS for library in LIBRARIES if library == "numpy" or name not in LONG]


def prepared(library: str) -> Prepare:
    if reason := registry.find(library).missing():
        pytest.skip(reason)
    return registry.find(library).prepare  # type: ignore[return-value]  # what is built for architectures feeds too


@pytest.mark.parametrize(("name", "library"), CASES)
def test_learns(name: str, library: str) -> None:
    if name.startswith(("dqn", "policy_gradient")):
        pytest.importorskip("gymnasium")
    found = TASKS[name](prepared(library))
    assert found.reached, found


@pytest.mark.parametrize("name", TASKS)
def test_a_start_that_learns_nothing_misses_the_figure_by_far(name: str) -> None:
    if name.startswith(("dqn", "policy_gradient")):
        pytest.importorskip("gymnasium")
    found = TASKS[name].idle(prepared("numpy"))
    assert not found.reached
    assert found.figure < 0.5 * found.goal if found.higher else found.figure > 2 * found.goal


def test_every_workload_learns_something() -> None:
    assert {task.workload for task in TASKS.values()} == set(workloads.NAMES)


# --- the figures tell what they should ----------------------------------------------------------------------------------


def test_without_memory_no_network_does_better_than_pairs_of_characters() -> None:
    memoryless = {"n": 256, "T": 1, "units": 64, "width": 16}
    found = learning.text(prepared("numpy"), "rnn", memoryless, rate=5e-3, steps=400)
    pairs = found.beside["pairs of characters"]
    assert pairs <= found.figure < 1.2 * pairs  # it has learnt all that there is, and
    assert not found.reached


def test_entropies_of_known_text() -> None:
    # a b a b …: each character half of the time, and told by the one before
    tokens = np.arange(1001) % 2
    single, pair = learning.entropies(tokens[:-1], tokens[1:], 2)
    assert single == pytest.approx(np.log(2), rel=1e-6)
    assert pair == pytest.approx(0.0, abs=1e-12)


def test_points_are_judged_by_how_near_and_how_spread_they_are() -> None:
    rng = np.random.default_rng(0)
    near, covered = learning.spread(learning.mixture(rng, 20000))
    assert near == pytest.approx(1 - np.exp(-4.5), abs=0.003)  # of a normal in the plane, within three spreads
    assert covered == 1.0
    assert learning.spread(learning.mixture(rng, 400) * 0 + learning.places()[3]) == (1.0, 1 / 8)
    radius, angle = 1.3 * np.sqrt(rng.random(20000)), 2 * np.pi * rng.random(20000)
    near, covered = learning.spread(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    assert near == pytest.approx(8 * 0.3**2 / 1.3**2, abs=0.02)  # areas
    assert near * covered < 0.7


# --- the environment ----------------------------------------------------------------------------------------------------


def test_catch_is_an_environment_of_gymnasium() -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from impls.architectures.environments import Catch

    check_env(Catch(), skip_render_check=True)  # it draws nothing
    check_env(Catch(4, 3), skip_render_check=True)


def test_catch_rewards_who_follows_the_ball() -> None:
    pytest.importorskip("gymnasium")
    assert _mean_return(partial(_follow, 1)) == 1.0
    # who flees it stays where it falls straight down, which one in five does
    assert _mean_return(partial(_follow, -1)) == pytest.approx(1 / 5 - 4 / 5, abs=0.2)


def _follow(sign: int, board: np.ndarray) -> int:
    ball, paddle = board[:-1].any(axis=0).argmax(), board[-1].argmax()
    return int(1 + sign * np.sign(int(ball) - int(paddle)))


def _mean_return(act: Callable[[np.ndarray], int], episodes: int = 100) -> float:
    from impls.architectures.environments import Catch

    env, returns = Catch(), []
    for seed in range(episodes):
        (seen, _), over, total = env.reset(seed=seed), False, 0.0
        while not over:
            seen, reward, over, _, _ = env.step(np.int64(act(seen.reshape(10, 5))))
            total += reward
        returns.append(total)
    return float(np.mean(returns))


def test_catch_refuses_what_it_cannot() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    from impls.architectures.environments import Catch

    with pytest.raises(UserError, match="1 rows and 5 columns: give 2 or more"):
        Catch(1, 5)
    env = Catch()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(1))
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction):
        env.step(np.int64(3))
