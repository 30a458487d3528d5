"""Histories of planted truth: series with steps, drift, spikes and gaps, and whole files of them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from analysis import history, history_store
from analysis.history_record import PRODUCTS, Commit, Group, Point, Record
from analysis.statistics import Floats, Interval

#: Kinds of drift, none among them.
DRIFTS = ("none", "straight", "ramp", "waves", "random walk")
#: Steps lie so far from either end, and from each other.
FROM_ENDS, APART = 15, 20


@dataclass(frozen=True, eq=False)
class Planted:
    """Values (log) at the commits that were measured, their ``places`` in the history, and its steps: first commit of the
    new level, as a position among those measured, and size (log).
    """

    y: Floats
    places: np.ndarray
    steps: tuple[tuple[int, float], ...]


def series(
    rng: np.random.Generator,
    *,
    commits: int = 300,
    steps: int | None = None,
    sizes: tuple[float, float] = (0.03, 0.30),
    drift: str = "none",
    correlation: float = 0.0,
    spikes: int = 6,
    missing: int = 15,
) -> Planted:
    """One history: noise of 1 to 2 % a commit, ``steps`` (0 to 3 where None) up or down, ``spikes`` of 10 to 50 %, single
    commits missing and a gap of 3 to 12 in a row.
    """
    count = int(rng.integers(0, 4)) if steps is None else steps
    y = rng.uniform(0.01, 0.02) * _noise(rng, commits, correlation) + _drift(rng, commits, drift)
    at = _places(rng, commits, count)
    shares = rng.uniform(*sizes, count) * rng.choice([-1, 1], count)
    planted = np.log1p(shares)
    for place, size in zip(at, planted, strict=True):
        y[place:] += size
    y[rng.choice(commits, spikes, replace=False)] += rng.uniform(0.1, 0.5, spikes) * rng.choice(
        [-1, 1], spikes, p=[0.2, 0.8]
    )
    kept = np.ones(commits, bool)
    kept[rng.choice(commits, missing, replace=False)] = False
    if missing:
        gap = int(rng.integers(30, commits - 50))
        kept[gap : gap + int(rng.integers(3, 13))] = False
    places = np.flatnonzero(kept)
    found = tuple((int(np.searchsorted(places, p)), float(s)) for p, s in zip(at, planted, strict=True))
    return Planted(y[places], places, found)


def _places(rng: np.random.Generator, commits: int, count: int) -> list[int]:
    while True:
        at = np.sort(rng.integers(FROM_ENDS, commits - FROM_ENDS, count))
        if count < 2 or np.diff(at).min() >= APART:
            return [int(place) for place in at]


def _noise(rng: np.random.Generator, commits: int, correlation: float) -> Floats:
    found = rng.standard_normal(commits)
    for i in range(1, commits):
        found[i] = correlation * found[i - 1] + math.sqrt(1 - correlation**2) * found[i]
    return found


def _drift(rng: np.random.Generator, commits: int, kind: str) -> Floats:
    """Straight and ramp: up to ±10 and ±15 % in all; waves of 2 to 6 %; a walk of 0.2 % a commit."""
    unit = np.linspace(0.0, 1.0, commits)
    if kind == "straight":
        return np.asarray(rng.uniform(-0.1, 0.1) * unit)
    if kind == "ramp":
        start, width = rng.integers(20, 200), rng.integers(40, 100)
        return np.asarray(rng.uniform(-0.15, 0.15) * np.clip((np.arange(commits) - start) / width, 0, 1))
    if kind == "waves":
        return np.asarray(rng.uniform(0.02, 0.06) * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * unit + rng.uniform())))
    if kind == "random walk":
        return np.cumsum(0.002 * rng.standard_normal(commits))
    return np.zeros(commits)


MACHINE = {
    "cpu_model": "planted", "cpu_family": 1, "cpu_number": 1, "cores": 4, "usable_cores": 4, "memory_gib": 16,
    "system": "Linux", "architecture": "x86_64", "accelerators": [],
}  # fmt: skip


def record(number: int, points: tuple[Point, ...], **changed: object) -> Record:
    """The run of commit ``number``, one every six hours from the first of January 2026."""
    time = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=6 * number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    facts: dict[str, object] = {
        "digest": f"run {number}",
        "commit": Commit(f"{number:07x}{'abcd' * 8}"[:40], time, "main", False, "planted"),
        "machine": MACHINE,
        "machine_name": "planted, 4 cores, 16 GiB, Linux x86_64",
        "python": "3.11.7",
        "libraries": {"numpy": "2.4.5" if number < 200 else "2.4.6"},
        "measured_at": time,
        "settings": {"profile": "planted"},
        "points": points,
    }
    return Record(**(facts | changed))  # type: ignore[arg-type]


def database(path: Path, *, rows: int, commits: int = 300, seed: int = 0) -> Path:
    """A file with ``rows`` numbers in all, in series of ``commits``; every third series has steps, every fifth drifts."""
    rng = np.random.default_rng(seed)
    subjects = [_subject(i) for i in range(round(rows / commits))]
    values = [
        series(
            rng,
            commits=commits,
            steps=0 if i % 3 else None,
            drift="straight" if i % 5 == 4 else "none",
            correlation=0.2,
            spikes=2,
            missing=0,
        )
        for i in range(len(subjects))
    ]
    for number in range(commits):
        found = tuple(_point(*subject, float(values[i].y[number])) for i, subject in enumerate(subjects))
        history.add(path, record(number, found))
    with history_store.reading(path) as connection:
        (held,) = connection.execute("SELECT count(*) FROM points").fetchone()
    assert held == rows // commits * commits, json.dumps([held, rows])
    return path


def _subject(number: int) -> tuple[Group, str, float]:
    impls = ("numpy", "torch", "torch-manual", "jax", "numpy-loop")
    phases = ("step", "forward", "loss", "backward", "update")
    group = Group(impls[number % 5], "cpu", "float32", 1, phases[number // 5 % 5])
    n = 2 ** (4 + number // 25 % 5)
    width = 2 ** (5 + number // 125 % 4)
    return group, f"64-{width}-{width}-10 horner-4 n={n}", 1e-3 * n * width


def _point(group: Group, cell: str, scale: float, y: float) -> Point:
    value = scale * math.exp(y)
    interval = Interval(value, value * 0.985, value * 1.015)
    return Point(group, "time", PRODUCTS, "examples", cell, interval, 3, value * 1e-4, value * 1.1e-4)
