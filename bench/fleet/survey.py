"""What can be measured on this machine, and what it is: the answer of a worker before it gets jobs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from backprop_files import UserError
from bench import machine, plan, process, profiles
from bench.plan import Budget, Job, Plan, Settings


def versions() -> dict[str, str]:
    """Of whatever must agree between whoever asks and whoever answers."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: importlib.metadata.version(name) for name in ("distributed", "backprop-bench")}}


def survey(settings: Settings) -> dict[str, Any]:
    """Machine facts, and of every implementation the cells it can be asked for here, or why there are none."""
    from bench import documents  # it brings pytest along, which the measuring of a job can do without

    plan.check(settings)
    impls: dict[str, Any] = {}
    left_out: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for name in _names(settings, left_out):
        try:
            process.check_threads(settings.threads)
            planned = plan_of(settings, name, 2)
        except UserError as error:
            left_out.append({"impl": name, "cell": "all", "reason": _unwrapped(str(error))})
            continue
        left_out += planned.left_out
        runs.append(planned.run)
        impls[name] = _told(planned)
    return {
        "versions": versions(),
        "machine": json.loads(json.dumps(documents.machine_info(machine.facts()))),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "impls": impls,
        "left_out": left_out,
        "run": runs[0] if runs else {},
        "budget_s": plan_budget_s(settings),
    }


def _names(settings: Settings, left_out: list[dict[str, Any]]) -> list[str]:
    """Implementations asked for; an own one that does not even import here is left out with its reason."""
    usable: list[str] = []
    for target in settings.own:
        try:
            plan.entries(replace(settings, impls=(), own=(target,)))
            usable.append(target)
        except UserError as error:
            left_out.append(
                {"impl": target.rpartition(":")[2], "cell": "all", "reason": _without_folder(str(error), target)}
            )
    if settings.own and not usable and not settings.impls:
        return []
    return [entry.name for entry in plan.entries(replace(settings, own=tuple(usable)))]


def plan_of(settings: Settings, name: str, passes: int) -> Plan:
    """The plan of one implementation alone.  Raises UserError where it cannot run here."""
    own = tuple(target for target in settings.own if target.rpartition(":")[2] == name)
    alone = replace(settings, impls=() if own else (name,), own=own, passes=passes, precision=None)
    return plan.make(alone)


def plan_budget_s(settings: Settings) -> float | None:
    """Seconds for the whole run: as asked for, or the profile's."""
    return settings.budget_s if settings.budget_s is not None else profiles.find(settings.profile).budget_s


def _told(planned: Plan) -> dict[str, Any]:
    jobs = [job for job in planned.jobs if job.pass_number == 1]
    return {
        "label": jobs[0].setting.label,
        "cells": [[label, list(phases)] for label, phases in sorted((job.point.label, job.phases) for job in jobs)],
        "cell_s": planned.cell_s,
        "cold": _wish(planned, jobs, cold=True),
        "warm": _wish(planned, [job for job in planned.jobs if job.pass_number == 2], cold=False),
    }


def _wish(planned: Plan, jobs: list[Job], cold: bool) -> list[float]:
    """Seconds beside the timed ones, and timed loops, of a pass; cold: nothing is compiled yet."""
    budget = Budget(planned)
    budget.cold = cold
    overhead_s, loops = budget.wish(jobs)
    return [overhead_s, loops]


def _without_folder(text: str, target: str) -> str:
    """A file by its name: where it lies on this machine tells the user nothing."""
    folder = Path(target.rpartition(":")[0]).parent
    return text.replace(f"{folder}{os.sep}", "")


def _unwrapped(text: str) -> str:
    """The reason in a refusal of the plan, without what is said around it."""
    return text.partition(" cannot run: ")[2] or text.removeprefix("no cell is selected: ")
