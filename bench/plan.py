"""From settings to an ordered list of jobs: what is measured, in what order, how long, what is left out and why."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from random import Random
from typing import Any

from backprop_files import UserError
from bench import device_watch, machine, profiles, reference_kernel
from bench.cells import Cell, Point, Setting, bytes_estimate, data_label, host_bytes
from bench.profiles import Profile
from impls import dtypes, optimizers, registry
from impls.interface import PHASES, TRANSFERS
from impls.names import nearest
from impls.problem import SYNTHETIC, dataset_of
from impls.registry import Entry

ALL_PHASES = ("step", *PHASES)
KNOWN_PHASES = (*ALL_PHASES, *TRANSFERS)
#: Share of the free memory that a cell may be estimated to need.
MEMORY_SHARE = 0.8
#: Further passes at most, where a precision is asked for.
MOST_EXTRA_PASSES = 12
#: However short the budget, a cell is measured this long, or not at all.
LEAST_S = 0.01


@dataclass(frozen=True)
class Settings:
    """What the user asked for; everything else follows from it."""

    profile: str = "quick"
    impls: tuple[str, ...] = ()  # registered names; empty: the profile's own choice, unless `own` has some
    own: tuple[str, ...] = ()  # file.py:Class
    device: str = "cpu"
    threads: int = 1
    dtype: str = ""  # empty: float32 where the implementation has it, else its own
    phases: tuple[str, ...] = ALL_PHASES  # on an accelerator, those of TRANSFERS come along unless others are named
    seed: int = 0
    data: str = SYNTHETIC  # or a data set's name, or the absolute path of a data file
    passes: int = 0  # 0: the profile's
    budget_s: float | None = None  # None: the profile's
    cell_s: float | None = None  # seconds each loop of a cell is timed in a pass; None: the profile's
    precision: float | None = None  # further passes, until every cell's interval is so narrow or the budget is spent
    kernels: tuple[str, ...] = reference_kernel.USUAL
    optimizers: tuple[str, ...] = ()  # empty: the profile's


@dataclass(frozen=True)
class Job:
    """One point for one implementation in one pass, with its phases: prepared once, checked once, timed."""

    pass_number: int
    setting: Setting
    point: Point
    phases: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """One for each phase."""
        return [Cell(self.setting, self.point, phase) for phase in self.phases]

    @property
    def key(self) -> tuple[str, str]:
        """The same in every pass."""
        return self.setting.label, self.point.label


@dataclass(frozen=True)
class Plan:
    """Jobs in the order they are done, and what was left out beforehand, with the reason."""

    settings: Settings
    profile: Profile
    passes: int
    jobs: list[Job]  # those beyond `passes` only where the precision asked for is not reached
    left_out: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def run(self) -> dict[str, Any]:
        """The settings, for the files."""
        settings = self.settings
        return {
            "profile": self.profile.name,
            "impls": list(dict.fromkeys(job.setting.entry.name for job in self.jobs)),
            "device": settings.device,
            "dtype": settings.dtype or "float32 where the implementation has it",
            "threads": settings.threads,
            "phases": list(settings.phases),
            "optimizers": list(self.optimizers),
            "data": data_label(settings.data),
            "passes": self.passes,
            "seed": settings.seed,
            "budget_s": self.budget_s,
            "cell_s": self.cell_s,
            "precision": settings.precision,
        }

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Those asked for, or the profile's."""
        return self.settings.optimizers or self.profile.optimizers

    @property
    def budget_s(self) -> float | None:
        """Seconds for the whole run, None for as long as it takes."""
        return self.settings.budget_s if self.settings.budget_s is not None else self.profile.budget_s

    @property
    def cell_s(self) -> float:
        """Seconds each loop of a cell is timed in a pass, where the budget allows it."""
        return self.settings.cell_s if self.settings.cell_s is not None else self.profile.cell_s


def make(settings: Settings) -> Plan:
    """Plan a run.  Raises UserError for anything unknown, absent, or when no cell is left."""
    profile = profiles.find(settings.profile)
    check(settings)
    check_here(settings)
    passes = settings.passes or profile.passes
    left_out: list[dict[str, Any]] = []
    ready: list[tuple[Setting, list[Job]]] = []
    for entry in entries(settings):
        setting = _setting(entry, settings, left_out)
        if setting:
            ready.append((setting, list(_jobs(setting, settings, profile, left_out))))
    numbers = range(1, passes + 1 + (MOST_EXTRA_PASSES if settings.precision else 0))
    jobs = [job for number in numbers for job in _shuffled(ready, number, settings.seed)]
    if not jobs:
        reasons = "; ".join(dict.fromkeys(str(row["reason"]) for row in left_out)) or "nothing matches"
        raise UserError(f"no cell is selected: {reasons}")
    return Plan(settings, profile, passes, jobs, left_out, _notes(settings, jobs))


def check(settings: Settings) -> None:
    """Raise UserError for what is wrong on any machine."""
    for phase in settings.phases:
        if phase not in KNOWN_PHASES:
            raise UserError(nearest("phase", phase, KNOWN_PHASES))
    for kernel in settings.kernels:
        if kernel not in reference_kernel.CANDIDATES:
            raise UserError(nearest("kernel", kernel, reference_kernel.CANDIDATES))
    for optimizer in settings.optimizers:
        optimizers.find(optimizer)
    if settings.passes < 0:
        raise UserError(f"--passes {settings.passes}: give 1 or more")
    if settings.budget_s is not None and not settings.budget_s > 0:
        raise UserError(f"--budget {settings.budget_s:g}: give a positive number of seconds")
    if settings.cell_s is not None and not settings.cell_s >= LEAST_S:
        raise UserError(f"--cell-seconds {settings.cell_s:g}: give at least {LEAST_S:g}")
    if settings.precision is not None and not 0 < settings.precision < 1:
        raise UserError(f"--precision {settings.precision:g}: give a share of the time, such as 0.02")
    if settings.seed < 0:
        raise UserError(f"seed {settings.seed}: give 0 or more")
    _check_device_name(settings.device)
    if settings.dtype:
        dtypes.find(settings.dtype)
    _check_data(settings.data)


def check_here(settings: Settings) -> None:
    """Raise UserError for what this machine does not have."""
    check_device(settings.device)
    if settings.dtype:
        check_dtype(settings.dtype, settings.device)


def _check_data(data: str) -> None:
    """Read the data once, so that what is wrong is said before anything is measured."""
    dataset = dataset_of(data)
    wanted = (profiles.INPUTS, profiles.OUTPUTS)
    if dataset and (dataset.features, dataset.outputs) != wanted:
        raise UserError(
            f"{dataset.told}; a sweep's networks are {wanted[0]}-…-{wanted[1]}, so it needs {wanted[0]} features and "
            f"{wanted[1]} classes or outputs; 'backprop-bench experiment progress --data {shlex.quote(data)}' trains a "
            "network of their own shape"
        )


def check_device(device: str) -> None:
    """Raise UserError for a device that no implementation knows, or that is absent here."""
    _check_device_name(device)
    kind, _, index = device.partition(":")
    reason = None if kind == "cpu" else machine.accelerator_missing(int(index or 0))
    if reason:
        raise UserError(f"device '{device}' is absent: {reason}; 'cpu' is always there")


def _check_device_name(device: str) -> None:
    known = list(dict.fromkeys(name for entry in registry.ENTRIES for name in entry.devices))
    kind, _, index = device.partition(":")
    if kind not in known or (":" in device and not index.isdigit()) or (kind == "cpu" and index):
        raise UserError(nearest("device", device, known))


def check_dtype(dtype: str, device: str) -> None:
    """Raise UserError for a dtype that is unknown, or that this device cannot compute in."""
    found = dtypes.find(dtype)
    card = machine.accelerator_of(device)
    if card is None:
        if found.accelerators_only:
            raise UserError(f"dtype '{dtype}' is one of accelerators: the CPU has none; give --device cuda or gpu")
        return
    major, _, minor = (card["compute_capability"] or "").partition(".")
    if major.isdigit() and (reason := dtypes.lacking(dtype, (int(major), int(minor or 0)), device, card["name"])):
        raise UserError(reason)


def entries(settings: Settings) -> list[Entry]:
    """Whoever is asked for, whether it can run here or not.  Raises UserError for an unknown one, or one asked for twice."""
    profile = profiles.find(settings.profile)
    own = [registry.own(target) for target in settings.own]
    chosen = registry.select(settings.impls)
    if not chosen and not own:
        usual = [entry for entry in registry.ENTRIES if (profile.like or profile.name) in entry.sweeps]
        chosen = [entry for entry in usual if "cpu" in entry.devices or device_of(entry, settings.device)]
    asked = [*chosen, *own]
    names = [entry.name for entry in asked]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"implementation '{twice.pop()}' is asked for twice: rename the class, or ask once")
    return asked


def _setting(entry: Entry, settings: Settings, left_out: list[dict[str, Any]]) -> Setting | None:
    """Where the entry runs; None, with the reason noted, where it cannot.  A named one that is missing is an error."""
    reason = entry.missing()
    if reason and entry.name in settings.impls:
        raise UserError(f"implementation '{entry.name}' cannot run: {reason}")
    device = device_of(entry, settings.device)
    able = entry.dtypes_on(device or "cpu")
    dtype = settings.dtype or ("float32" if "float32" in able else able[0])
    if reason is None and device is None:
        reason = f"{entry.name} has no device '{settings.device}'"
    if reason is None:
        reason = machine.device_missing(device or "cpu")
    if reason is None and dtype not in able:
        reason = f"{entry.name} computes in {', '.join(able)} only"
    if reason or device is None:
        left_out.append({"impl": entry.name, "cell": "all", "reason": reason})
        return None
    return Setting(entry, device, dtype, settings.threads)


def device_of(entry: Entry, device: str) -> str | None:
    """``cuda`` and ``gpu`` are two libraries' names for the same thing."""
    kind, colon, index = device.partition(":")
    for name in (kind, {"cuda": "gpu", "gpu": "cuda"}.get(kind, kind)):
        if name in entry.devices:
            return f"{name}{colon}{index}"
    return None


def _jobs(setting: Setting, settings: Settings, profile: Profile, left_out: list[dict[str, Any]]) -> Iterable[Job]:
    room = Room.on(setting.device)
    entry = setting.entry
    trained_by = settings.optimizers or profile.optimizers
    unable = {name: reason for name in trained_by if (reason := entry.cannot_train_by(name))}
    left_out += [{"impl": entry.name, "cell": f"all by {name}", "reason": reason} for name, reason in unable.items()]
    able = tuple(name for name in trained_by if name not in unable)
    for point in profiles.points(profile, entry, settings.seed, able) if able else ():
        reason = _unfit(setting, point, profile, room)
        phases = _phases(setting, point, settings)
        if reason:
            left_out.append({"impl": setting.entry.name, "cell": point.label, "reason": reason})
        elif phases:
            yield from (Job(0, setting, point, phases),)


def _phases(setting: Setting, point: Point, settings: Settings) -> tuple[str, ...]:
    """What is measured of a point: its step and phases, as far as asked for and as the implementation has them; along the
    examples, all that they grow with, transfers too.
    """
    entry = setting.entry
    asked = {*settings.phases}
    if setting.device != "cpu" and settings.phases == ALL_PHASES:
        asked |= {*TRANSFERS}
    has = {*(("step",) if point.step else ()), *point.phases} & {*entry.phases}
    if "examples" in point.axes and point.step:
        has |= {*entry.transfers}
    return tuple(phase for phase in KNOWN_PHASES if phase in has & asked)


@dataclass(frozen=True)
class Room:
    """Bytes that are free just now: on the host, and on the device that computes; 0 where nobody tells."""

    host_bytes: int
    device_bytes: int

    @classmethod
    def on(cls, device: str) -> Room:
        """As the system and the driver tell."""
        card = machine.card_of(device)
        host = machine.memory_bytes()["available"]
        return cls(host, host if device == "cpu" else (card.free_bytes or 0) if card else 0)


def _unfit(setting: Setting, point: Point, profile: Profile, room: Room) -> str | None:
    """Why a point cannot be measured here, by an estimate made beforehand."""
    incapable = setting.entry.cannot(point.network, point.optimizer)
    if incapable:
        return incapable
    where = "" if setting.device == "cpu" else f" on {setting.device}"
    if reason := _lacking(bytes_estimate(setting, point), room.device_bytes, where):
        return reason
    if where and (reason := _lacking(host_bytes(point), room.host_bytes, " on the host")):
        return reason
    step = step_estimate_s(setting, point)
    if step > profile.longest_step_s:
        return f"a step would take about {step:.1f} s; profile '{profile.name}' stops at {profile.longest_step_s:g} s"
    return None


def _lacking(needed: int, free: int, where: str) -> str | None:
    if free and needed > MEMORY_SHARE * free:
        return f"would need about {needed / 2**30:.1f} GiB{where}, {free / 2**30:.1f} GiB are free"
    return None


#: Of any accelerator, only to plan with: seconds of an operation, and of a parameter that is made, compared and copied.
DEVICE_OPERATION_S, DEVICE_PARAMETER_S = 3e-14, 1e-7


def step_estimate_s(setting: Setting, point: Point) -> float:
    """Seconds a step may take, from the registry's rough figures; only to plan with."""
    cost = setting.entry.cost
    if setting.device != "cpu":
        return cost.step_s + profiles.work(point) * DEVICE_OPERATION_S
    return cost.step_s + point.n * cost.example_s + profiles.work(point) * cost.operation_s


def _shuffled(ready: list[tuple[Setting, list[Job]]], number: int, seed: int) -> Iterable[Job]:
    """One pass: implementations in shuffled order, each with its points in an order of its own."""
    rng = Random(f"{seed}/{number}")
    for setting, jobs in rng.sample(ready, len(ready)):
        for job in rng.sample(jobs, len(jobs)):
            yield Job(number, setting, job.point, job.phases)


def _notes(settings: Settings, jobs: list[Job]) -> list[str]:
    busy = device_watch.others(settings.device)
    notes = [busy] if busy else []
    dataset = dataset_of(settings.data)
    if dataset is None or all(job.point.n <= dataset.n for job in jobs):
        return notes
    return [
        *notes,
        f"data '{dataset.name}' have {dataset.n:,} rows; cells with more examples repeat them",
    ]


class Budget:
    """Shares the time that is left among the jobs that are left; the largest are given up first.

    What a job costs beside its timed seconds (preparation, compilation, the check) is learned from the passes before.
    """

    #: Whether compilers start from nothing in whichever pass, as on another machine than that of the passes before.
    cold = False

    def __init__(self, plan: Plan, now: float | None = None) -> None:
        self.cell_s = plan.cell_s
        started = time.monotonic() if now is None else now
        self.deadline = None if plan.budget_s is None else started + plan.budget_s
        self.remaining = [job for job in plan.jobs if job.pass_number <= plan.passes]
        self.given_up: set[int] = set()  # id of a job
        self._learned: dict[tuple[str, str], float] = {}
        self._startup: dict[str, float] = {}

    def seconds_for(self, job: Job, now: float) -> float | None:
        """Seconds to time each loop of ``job``, which is done next; None if the budget gives it up."""
        position = next(i for i, candidate in enumerate(self.remaining) if candidate is job)
        del self.remaining[:position]
        if self.deadline is None:
            self.remaining.pop(0)
            return self.cell_s
        left = self.deadline - now
        candidates = [j for j in self.remaining if id(j) not in self.given_up]
        overhead = {id(j): self._overhead(j) for j in candidates}
        needed = sum(overhead.values()) + self._starts(candidates)
        loops = sum(map(_loops, candidates))
        for largest in sorted(candidates, key=lambda j: step_estimate_s(j.setting, j.point), reverse=True):
            if needed + loops * LEAST_S <= left:
                break
            self.given_up.add(id(largest))
            needed -= overhead[id(largest)]
            loops -= _loops(largest)
        self.remaining.pop(0)
        if id(job) in self.given_up:
            return None
        return min(self.cell_s, max(LEAST_S, (left - needed) / max(loops, 1)))

    def end_of(self, job: Job, seconds: float, now: float) -> float:
        """When ``job`` is done that begins now."""
        return now + self._overhead(job) + _loops(job) * seconds

    def needed_for_one_pass(self) -> float:
        """Seconds that one pass takes at the least."""
        jobs = [job for job in self.remaining if job.pass_number == 1]
        return sum(map(self._overhead, jobs)) + self._starts(jobs) + 2.0 + sum(map(_loops, jobs)) * LEAST_S

    def affordable(self, jobs: Sequence[Job], now: float) -> list[Job]:
        """The first of ``jobs`` that there is time left for, measured as long as the profile says."""
        left = math.inf if self.deadline is None else self.deadline - now
        kept: list[Job] = []
        for job in jobs:
            fresh = job.setting.label not in {other.setting.label for other in kept}
            left -= self._overhead(job) + _loops(job) * self.cell_s + fresh * self._startup.get(job.setting.label, 2.0)
            if left < 0:
                break
            kept.append(job)
        return kept

    def spent(self, job: Job, wall_s: float, once_s: float, seconds: float) -> None:
        """Learn what a job took beside its timed seconds and what later passes find done: compilation, memory traced."""
        self._learned[job.key] = max(0.0, wall_s - once_s - seconds * _loops(job))

    def started(self, setting: Setting, wall_s: float) -> None:
        """Learn what starting a worker took."""
        self._startup[setting.label] = wall_s

    @property
    def lessons(self) -> dict[str, dict[str, Any]]:
        """What was learned, as JSON: by setting seconds to start, and beside the timed ones by point."""
        told: dict[str, dict[str, Any]] = {
            label: {"startup_s": seconds, "overhead_s": {}} for label, seconds in self._startup.items()
        }
        for (label, point), seconds in self._learned.items():
            told.setdefault(label, {"overhead_s": {}})["overhead_s"][point] = seconds
        return told

    def recall(self, lessons: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from what an earlier budget learned on this machine."""
        for label, told in lessons.items():
            if "startup_s" in told:
                self._startup[label] = told["startup_s"]
            self._learned |= {(label, point): seconds for point, seconds in told.get("overhead_s", {}).items()}

    def wish(self, jobs: Sequence[Job]) -> tuple[float, int]:
        """Seconds that ``jobs`` take in one process beside the timed ones, and their timed loops."""
        label = jobs[0].setting.label if jobs else ""
        return self._startup.get(label, 2.0) + sum(map(self._overhead, jobs)), sum(map(_loops, jobs))

    def _overhead(self, job: Job) -> float:
        cost = job.setting.entry.cost
        compiled = (len(PHASES) * (len(job.phases) > 1) + 1) * cost.first_call_s * (self.cold or job.pass_number == 1)
        if job.key in self._learned:
            return self._learned[job.key] + compiled
        # prepared, checked against the reference, warmed up, at least three rounds, however long a step is
        prepared = 0.03 if job.setting.device == "cpu" else 0.3 + DEVICE_PARAMETER_S * job.point.network.m
        return prepared + compiled + 8 * step_estimate_s(job.setting, job.point)

    def _starts(self, jobs: list[Job]) -> float:
        """Start-up of the workers still to come."""
        workers = [key for key, _ in groupby(jobs, key=lambda j: (j.pass_number, j.setting.label))]
        return sum(self._startup.get(label, 2.0) for _, label in workers[1:])


def _loops(job: Job) -> int:
    """Timed loops of a job: the step, the phases together, and each transfer."""
    alone = [phase for phase in job.phases if phase == "step" or phase in TRANSFERS]
    return len(alone) + (len(alone) < len(job.phases))
