"""Plans: what is measured, in which order, for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backprop_files import UserError
from bench import machine, plan, profiles
from bench.cells import Setting, bytes_estimate, facts
from bench.plan import Budget, Settings
from impls import counts, optimizers, registry


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
    if profile.name != "smoke" and not profile.grid_only and not registry.find(name).activations:
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
        a.nbytes
        for a in (instance.theta.flat, instance.theta.flat_gradient, *instance.x, *instance.x_transposed, *instance.t)
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


# --- optimizers -------------------------------------------------------------------------------------------------------


def test_quick_and_smoke_train_by_gradient_descent_alone() -> None:
    for profile in ("quick", "smoke", "check"):
        jobs = plan.make(Settings(profile=profile, impls=("numpy",), passes=1)).jobs
        assert {job.point.optimizer for job in jobs} == {"gradient-descent"}
        assert all(job.point.label.count(" ") == 3 for job in jobs)  # names are what they were


def test_an_optimizer_is_asked_for_its_update_and_one_step() -> None:
    made = plan.make(Settings(impls=("numpy",), passes=1, optimizers=("gradient-descent", "adam")))
    plain = plan.make(Settings(impls=("numpy",), passes=1))
    adam = [job for job in made.jobs if job.point.optimizer == "adam"]
    others = {job.point.label for job in made.jobs} - {job.point.label for job in adam}
    assert others == {job.point.label for job in plain.jobs}
    assert [job.point.label for job in adam if "step" in job.phases] == ["64-256-256-10 horner-4 mse adam n=256"]
    assert all("update" in job.phases for job in adam)
    assert {job.point.network.width for job in adam} == {*profiles.find("quick").usual.widths}
    assert len({job.point.n for job in adam if job.point.network.width == 256}) >= 4
    cell = facts(adam[0].cells[0], "synthetic", 0)
    assert cell["optimizer"] == "adam"
    assert cell["operations"]["update"]["update"] == 12 * cell["m"] + 8


def test_optimizers_alone_and_all_of_full() -> None:
    alone = plan.make(Settings(impls=("numpy",), passes=1, optimizers=("momentum",))).jobs
    assert {job.point.optimizer for job in alone} == {"momentum"}
    full = plan.make(Settings(profile="full", impls=("numpy",), passes=1))
    assert {job.point.optimizer for job in full.jobs} == {*optimizers.NAMES}
    assert full.run["optimizers"] == list(optimizers.NAMES)


def test_optimizers_that_cannot_be_had_are_named() -> None:
    asked = Settings(profile="smoke", impls=("sklearn",), passes=1, optimizers=("nesterov", "adam"))
    made = plan.make(asked)
    assert {"impl": "sklearn", "cell": "all by adam", "reason": "sklearn has no optimizer 'adam'"} in made.left_out
    assert {job.point.optimizer for job in made.jobs} == {"nesterov"}  # its one step, since it has no phases
    with pytest.raises(UserError, match="unknown optimizer 'adan': did you mean 'adam'"):
        plan.make(Settings(optimizers=("adan",)))


def test_more_is_kept_in_memory_with_more_states() -> None:
    setting = Setting(registry.find("numpy"), "cpu", "float32", 1)
    point = profiles.points(profiles.find("quick"), setting.entry, 0)[0]
    adam = replace(point, optimizer="adam")
    assert bytes_estimate(setting, adam) >= bytes_estimate(setting, point) + 2 * 2 * 4 * point.network.m
