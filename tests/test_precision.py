"""Further passes go where intervals are widest, on planted times."""

from __future__ import annotations

import math
import time

import numpy as np

from bench import plan
from bench.plan import Budget, Job, Settings
from bench.precision import Precision


def jobs_of(precision: float | None = 0.02) -> plan.Plan:
    return plan.make(Settings(profile="smoke", impls=("numpy",), phases=("step",), precision=precision, budget_s=100.0))


def measured(rng: np.random.Generator, spread: float) -> dict[str, dict[str, object]]:
    """A pass of a cell whose passes differ by ``spread``; the machine's speed, which the kernels share, by far more."""
    speed = math.exp(0.3 * rng.standard_normal())
    seconds = [1e-3 * speed * math.exp(spread * rng.standard_normal())] * 3
    return {"step": {"seconds": seconds, "reference_s": {"product": [1e-4 * speed] * 3, "objects": [1e-4 * speed] * 3}}}


def after(passes: int, jobs: list[Job], wide: Job) -> Precision:
    rng = np.random.default_rng(4)
    precision = Precision()
    for _ in range(passes):
        for job in jobs:
            precision.learn(job.key, measured(rng, 0.1 if job is wide else 0.005))
    return precision


def test_the_wide_cell_is_sent_further() -> None:
    first = [job for job in jobs_of().jobs if job.pass_number == 1]
    found = after(4, first, wide=first[2])
    assert found.widest([job.key for job in first], target=0.03) == [first[2].key]
    assert found.half_width(first[0].key) < 0.02


def test_one_pass_tells_nothing() -> None:
    first = [job for job in jobs_of().jobs if job.pass_number == 1]
    assert math.isinf(after(1, first, wide=first[0]).half_width(first[0].key))


def test_more_passes_make_it_narrower() -> None:
    first = [job for job in jobs_of().jobs if job.pass_number == 1]
    quiet = [job.key for job in first if job is not first[2]]
    four, sixteen = (float(np.mean([after(n, first, first[2]).half_width(key) for key in quiet])) for n in (4, 16))
    assert sixteen < 0.8 * four


def test_further_passes_are_planned_only_where_a_precision_is_asked_for() -> None:
    assert max(job.pass_number for job in jobs_of(None).jobs) == 2
    assert max(job.pass_number for job in jobs_of().jobs) == 2 + plan.MOST_EXTRA_PASSES


def test_further_passes_stop_where_the_time_ends() -> None:
    made = jobs_of()
    budget = Budget(made, now=0.0)
    extra = [job for job in made.jobs if job.pass_number == 3]
    assert budget.affordable(extra, now=0.0) == extra
    assert budget.affordable(extra, now=99.9) == []
    some = budget.affordable(extra, now=97.5)
    assert 0 < len(some) < len(extra)
    assert some == extra[: len(some)]


def test_a_budget_too_small_for_one_pass_says_what_it_needs() -> None:
    budget = Budget(jobs_of(), now=time.monotonic())
    assert 2.0 < budget.needed_for_one_pass() < 10.0
