"""Plans: what is measured, in which order, for how long."""

from __future__ import annotations

import pytest

from bench import machine, plan, profiles
from bench.plan import Budget, Settings
from impls import counts, registry


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    labels = [[job.point.label for job in plan.make(Settings(impls=("numpy",), seed=s)).jobs] for s in (1, 1, 2)]
    assert labels[0] == labels[1]
    assert labels[0] != labels[2]


def test_passes_interleave_implementations_and_reshuffle_cells() -> None:
    made = plan.make(Settings(profile="smoke", impls=("numpy", "numpy-loop", "python"), passes=3))
    order = [(job.pass_number, job.setting.entry.name) for job in made.jobs]
    blocks = [pair for i, pair in enumerate(order) if i == 0 or order[i - 1] != pair]
    assert len(blocks) == 9  # every implementation once a pass, in one piece: A B C, C A B, …
    assert [number for number, _ in blocks] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    cells = [
        [job.point.label for job in made.jobs if job.key[0].startswith("numpy ") and job.pass_number == k]
        for k in (1, 2)
    ]
    assert cells[0] != cells[1]
    assert sorted(cells[0]) == sorted(cells[1])


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("profile", profiles.PROFILES.values(), ids=lambda p: p.name)
def test_points_are_unique_and_heldout_ones_are_large(profile: profiles.Profile, name: str) -> None:
    points = profiles.points(profile, registry.find(name), seed=4)
    assert len({point.label for point in points}) == len(points)
    joint = [point for point in points if "joint" in point.axes]
    fitted = [profiles.work(point) for point in joint if not point.heldout]
    heldout = [profiles.work(point) for point in joint if point.heldout]
    if profile.name != "smoke" and not registry.find(name).activations:
        assert len(heldout) >= 4
        assert min(heldout) >= 8 * max(fitted)


def test_what_does_not_fit_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: {"total": 1 << 20, "available": 1 << 20})
    made = plan.make(Settings(impls=("numpy",), passes=1))
    reasons = [row["reason"] for row in made.left_out]
    assert reasons
    assert all("GiB" in reason for reason in reasons)
    kept = {job.point.label for job in made.jobs}
    assert kept.isdisjoint({row["cell"] for row in made.left_out})


def test_memory_estimate_covers_the_buffers() -> None:
    from impls.interface import Network
    from impls.numpy_fast import NumpyFast
    from impls.problem import make_problem

    network = Network((64, 256, 256, 10), "gelu")
    problem = make_problem(network, 2000)
    instance = NumpyFast(problem)
    instance.step()
    instance.forward()
    held = sum(
        a.nbytes for a in (instance.flat, instance.flat_gradient, *instance.x, *instance.x_transposed, *instance.t)
    )
    assert held < counts.bytes_estimate(network, 2000, 4)


def test_a_generous_budget_gives_every_cell_its_time() -> None:
    made = plan.make(Settings(profile="smoke", impls=("numpy",), budget_s=1e6))
    budget = Budget(made, now=0.0)
    assert {budget.seconds_for(job, now=0.0) for job in made.jobs} == {made.profile.cell_s}


def test_a_small_budget_gives_up_the_largest_cells_first() -> None:
    made = plan.make(Settings(impls=("numpy",), passes=3, budget_s=8.0))
    budget = Budget(made, now=0.0)
    answers = [(plan.step_estimate_s(job.setting, job.point), budget.seconds_for(job, now=0.0)) for job in made.jobs]
    given_up = [step for step, seconds in answers if seconds is None]
    measured = [step for step, seconds in answers if seconds is not None]
    assert given_up
    assert measured
    assert min(given_up) >= sorted(measured)[len(measured) // 2]
    assert all(seconds is None or seconds >= plan.LEAST_S for _, seconds in answers)


def test_a_spent_budget_gives_everything_up() -> None:
    made = plan.make(Settings(profile="smoke", impls=("numpy",), budget_s=10.0))
    budget = Budget(made, now=0.0)
    assert budget.seconds_for(made.jobs[0], now=11.0) is None


def test_what_a_cell_took_before_is_learned() -> None:
    made = plan.make(Settings(profile="smoke", impls=("numpy",), passes=2, budget_s=100.0))
    budget = Budget(made, now=0.0)
    before = budget.seconds_for(made.jobs[0], now=0.0)
    for job in made.jobs:
        budget.spent(job, wall_s=50.0, once_s=0.0, seconds=0.01)
    after = budget.seconds_for(made.jobs[1], now=1.0)
    assert before is not None
    assert after is None or after < before
