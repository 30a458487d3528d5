"""The history of a project's benchmarks: runs added to one file, series read from it, and what changed in each.

A series is one quantity of one cell or group on one machine class; its points are commits, in the order of commit time and
then of measuring.  Reading needs neither pandas nor the statistics, unless changes must be found anew.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis import history_store
from backprop_files import UserError

if TYPE_CHECKING:
    from analysis.changepoints import Changes
    from analysis.history_record import Record

Floats = NDArray[np.float64]
#: Raised whenever ``analysis.changepoints`` or the document made of it changes: what was found before is found anew.
DETECTOR = 1
#: What can be asked for, and how its quantities begin.
KINDS = {
    "time": ("time",),
    "exponents": ("exponent",),
    "memory": ("peak memory",),
    "costs": ("fixed overhead", "cost", "crossover"),
    "law": ("winning law",),
    "machine": ("reference kernel",),
}
Z95 = 1.96
#: Columns of the long table, a stable contract for scripts.
COLUMNS = (
    "machine", "machine_id", "commit", "commit_time", "branch", "dirty", "project", "measured_at", "python", "libraries",
    "quantity", "unit", "impl", "device", "dtype", "threads", "phase", "axis", "cell",
    "value", "ci_low", "ci_high", "time_s", "raw_s", "passes", "text",
)  # fmt: skip


@dataclass(frozen=True)
class Commit:
    """A commit as one machine class saw it; ``versions`` of Python and libraries, ``runs`` their number."""

    id: str
    time: str
    branch: str
    dirty: bool
    versions: dict[str, str]
    runs: int

    @property
    def short(self) -> str:
        """At most ten characters, with a plus for a tree that was not clean."""
        return self.id[:10] + "+" * self.dirty


@dataclass(frozen=True, eq=False)
class Machine:
    """A machine class with its commits in order; ``place`` of every run among them, and ``state`` (runs, last one)."""

    id: int
    digest: str
    name: str
    commits: tuple[Commit, ...]
    place: dict[int, int]
    state: tuple[int, int]


@dataclass(frozen=True)
class Series:
    """What a series is of."""

    id: int
    machine: int
    quantity: str
    unit: str
    impl: str
    device: str
    dtype: str
    threads: int
    phase: str
    axis: str
    cell: str

    @property
    def kind(self) -> str:
        """Of ``KINDS``; exponents and costs of memory count as memory."""
        if self.phase == "memory" and not self.textual:
            return "memory"
        return next((kind for kind, starts in KINDS.items() if self.quantity.startswith(starts)), "costs")

    @property
    def textual(self) -> bool:
        """Whether its points are words."""
        return self.quantity == "winning law"

    @property
    def logarithmic(self) -> bool:
        """Whether changes are factors; those of exponents are differences."""
        return not self.quantity.startswith("exponent")


@dataclass(frozen=True, eq=False)
class Points:
    """One value a commit: ``place`` among the machine's commits, ``value`` with ``low`` and ``high`` (NaN: none), or text."""

    place: NDArray[np.int64]
    value: Floats
    low: Floats
    high: Floats
    text: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class History:
    """Machines and series of a file; with ``found`` what changed in each, by series."""

    machines: dict[int, Machine]
    series: tuple[Series, ...]
    found: dict[int, dict[str, Any]]

    def commits(self, series: Series) -> tuple[Commit, ...]:
        """Of a series' machine class."""
        return self.machines[series.machine].commits


# --- adding ---------------------------------------------------------------------------------------------------------


def add(db: Path, record: Record) -> str:
    """Store a run; returns a sentence.  A run that is in already changes nothing.  Raises UserError for an unusable file."""
    with history_store.writing(db) as connection:
        known = connection.execute("SELECT commit_id FROM runs WHERE digest = ?", (record.digest,)).fetchone()
        if known and known[0] != record.commit.id:
            raise UserError(
                f"{db}: this run is in already, as one of commit {known[0]}; measure {record.commit.id} anew"
            )
        if known:
            return f"this run is in already, as one of commit {known[0]}; nothing was added"
        machine = _machine_row(connection, record)
        run = _run_row(connection, record, machine)
        _point_rows(connection, record, machine, run)
        cells = sum(point.quantity == "time" for point in record.points)
    return (
        f"added commit {record.commit.id[:10]} ({record.commit.time}) on {record.machine_name}: {cells} cells and "
        f"{len(record.points) - cells} other quantities"
    )


def _machine_row(connection: sqlite3.Connection, record: Record) -> int:
    from analysis.machines import machine_digest

    digest = machine_digest(record.machine)
    connection.execute(
        "INSERT INTO machines (digest, name, facts) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (digest, record.machine_name, json.dumps(record.machine, sort_keys=True)),
    )
    return int(connection.execute("SELECT id FROM machines WHERE digest = ?", (digest,)).fetchone()[0])


def _run_row(connection: sqlite3.Connection, record: Record, machine: int) -> int:
    commit = record.commit
    cursor = connection.execute(
        "INSERT INTO runs (digest, machine, commit_id, commit_time, branch, dirty, project, python, libraries, measured_at,"
        " settings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.digest, machine, commit.id, commit.time, commit.branch, int(commit.dirty), commit.project,
            record.python, json.dumps(record.libraries, sort_keys=True), record.measured_at,
            json.dumps(record.settings, sort_keys=True),
        ),
    )  # fmt: skip
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _point_rows(connection: sqlite3.Connection, record: Record, machine: int, run: int) -> None:
    key = "machine, quantity, unit, impl, device, dtype, threads, phase, cell"
    for point in record.points:
        named = (machine, point.quantity, point.unit, *astuple(point.group), point.cell)
        connection.execute(
            f"INSERT INTO series ({key}, axis) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            f" ON CONFLICT ({key}) DO UPDATE SET axis = excluded.axis",
            (*named, point.axis),
        )
        where = " AND ".join(f"{column} = ?" for column in key.split(", "))
        (series,) = connection.execute(f"SELECT id FROM series WHERE {where}", named).fetchone()
        numbers = (point.interval.value, point.interval.low, point.interval.high, point.time_s, point.raw_s)
        connection.execute(
            "INSERT INTO points (series, run, value, low, high, time_s, raw_s, passes, text)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (series, run, *map(_number, numbers), point.passes, point.text),
        )


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# --- reading --------------------------------------------------------------------------------------------------------


def read(db: Path) -> History:
    """Machines, series and what changed in each, found anew (and kept in the file) where runs were added since."""
    with history_store.reading(db) as connection, history_store.rows_trusted():
        machines = _machines(connection)
        rows = connection.execute(f"SELECT {', '.join(Series.__dataclass_fields__)} FROM series ORDER BY id")
        series = tuple(Series(*row) for row in rows)
        found = _kept(connection, machines)
        stale = [one for one in series if one.id not in found]
        if not stale:
            return History(machines, series, found)
        values = points(connection, machines, stale)
    anew = {one.id: changes(one, values[one.id], machines[one.machine].commits) for one in stale if one.id in values}
    _keep(db, machines, series, anew)
    return History(machines, series, found | anew)


def _machines(connection: sqlite3.Connection) -> dict[int, Machine]:
    runs: dict[int, list[tuple[Any, ...]]] = {}
    query = (
        "SELECT machine, id, commit_id, commit_time, branch, dirty, python, libraries FROM runs"
        " ORDER BY commit_time, measured_at, id"
    )
    for machine, *run in connection.execute(query):
        runs.setdefault(machine, []).append(tuple(run))
    return {
        number: _machine(number, digest, name, runs.get(number, []))
        for number, digest, name in connection.execute("SELECT id, digest, name FROM machines ORDER BY id")
    }


def _machine(number: int, digest: str, name: str, runs: Sequence[tuple[Any, ...]]) -> Machine:
    """Runs of one commit, clean ones and others apart, are one place in the order of their first."""
    commits: dict[tuple[str, int], Commit] = {}
    keys: dict[int, tuple[str, int]] = {}
    for run, commit, time, branch, dirty, python, libraries in runs:
        keys[run] = (commit, dirty)
        known = commits.get((commit, dirty))
        versions = {"python": python, **json.loads(libraries)}
        if known:
            commits[(commit, dirty)] = Commit(commit, known.time, branch, bool(dirty), versions, known.runs + 1)
        else:
            commits[(commit, dirty)] = Commit(commit, time, branch, bool(dirty), versions, 1)
    order = {key: place for place, key in enumerate(commits)}
    place = {run: order[key] for run, key in keys.items()}
    return Machine(number, digest, name, tuple(commits.values()), place, (len(runs), max(place, default=0)))


def points(connection: sqlite3.Connection, machines: dict[int, Machine], series: Sequence[Series]) -> dict[int, Points]:
    """Points of many series by series, several runs of a commit joined."""
    by_id = {one.id: one for one in series}
    query = "SELECT series, run, value, low, high, passes, text FROM points ORDER BY series, run"
    if len(series) <= 50:
        query = query.replace(" ORDER", f" WHERE series IN ({','.join(str(one.id) for one in series)}) ORDER")
    rows = connection.execute(query).fetchall()
    numbers = np.array([row[:6] for row in rows], dtype=float) if rows else np.empty((0, 6))
    edges = np.flatnonzero(np.diff(numbers[:, 0], prepend=-1.0, append=-1.0)) if rows else np.array([0])
    found = {}
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        one = by_id.get(rows[start][0])
        if one is not None:
            place = machines[one.machine].place
            places = np.array([place[row[1]] for row in rows[start:stop]])
            texts = [row[6] or "" for row in rows[start:stop]]
            found[one.id] = _joined(one, places, numbers[start:stop], texts)
    return found


def _joined(series: Series, places: NDArray[np.int64], numbers: Floats, texts: list[str]) -> Points:
    """In the order of commits, one point each."""
    order = np.argsort(places, kind="stable")
    places, numbers = places[order], numbers[order]
    value, low, high = numbers[:, 2], numbers[:, 3], numbers[:, 4]
    if len(np.unique(places)) == len(places):
        return Points(places, value, low, high, tuple(texts[i] for i in order) if series.textual else ())
    unique, first = np.unique(places, return_index=True)
    last = np.append(first[1:], len(places)) - 1
    told = tuple(texts[order[i]] for i in last)
    ends = np.array(
        [
            combined(value[a : b + 1], low[a : b + 1], high[a : b + 1], numbers[a : b + 1, 5], series.logarithmic)
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
        ]
    )
    return Points(unique, ends[:, 0], ends[:, 1], ends[:, 2], told if series.textual else ())


def combined(value: Floats, low: Floats, high: Floats, passes: Floats, logarithmic: bool) -> tuple[float, float, float]:
    """Several runs of a commit as one estimate: the mean weighted by passes, on the log scale where changes are factors.

    Where runs differ by more than their intervals say, the interval is widened by the scale factor of the Particle Data
    Group, √(χ² / (k - 1)) (*Review of Particle Physics*, introduction, 5.2.2).
    """
    if len(value) == 1 or np.isnan(value).any():
        return float(value[-1]), float(low[-1]), float(high[-1])
    y, bottom, top = (np.log(part) if logarithmic else part for part in (value, low, high))
    share = passes / passes.sum()
    mean, error = float(share @ y), (top - bottom) / 2 / Z95
    if np.isnan(error).any() or (error <= 0).any():
        half = math.nan
    else:
        chi2 = float((((y - mean) / error) ** 2).sum())
        half = Z95 * float(np.sqrt((share**2) @ error**2)) * max(1.0, math.sqrt(chi2 / (len(y) - 1)))
    ends = np.array([mean, mean - half, mean + half])
    return tuple((np.exp(ends) if logarithmic else ends).tolist())


# --- what changed ---------------------------------------------------------------------------------------------------


def _kept(connection: sqlite3.Connection, machines: dict[int, Machine]) -> dict[int, dict[str, Any]]:
    """Changes that were found before and still hold."""
    query = (
        "SELECT changes.series, series.machine, runs, last_run, document FROM changes JOIN series"
        " ON series.id = changes.series WHERE detector = ?"
    )
    return {
        series: json.loads(document)
        for series, machine, runs, last_run, document in connection.execute(query, (DETECTOR,))
        if machines[machine].state == (runs, last_run)
    }


def _keep(db: Path, machines: dict[int, Machine], series: Iterable[Series], found: dict[int, dict[str, Any]]) -> None:
    """Keep what was found, unless runs were added meanwhile or the file cannot be written: then it is found again."""
    try:
        with history_store.writing(db) as connection:
            now = {machine.id: machine.state for machine in _machines(connection).values()}
            rows = [
                (one.id, DETECTOR, *machines[one.machine].state, json.dumps(found[one.id], allow_nan=False))
                for one in series
                if one.id in found and now[one.machine] == machines[one.machine].state
            ]
            connection.executemany("INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?)", rows)
    except UserError:
        return


def changes(series: Series, values: Points, commits: Sequence[Commit]) -> dict[str, Any]:
    """What ``show`` and the page tell of a series; positions count its own points, sizes are shares of the level before
    (of exponents: differences).
    """
    at = [commits[place] for place in values.place]
    document: dict[str, Any] = {"commits": len(at), "latest": _place(at[-1]), "since": _place(at[0])}
    if series.textual:
        return document | _switches(values.text, at)
    from analysis import changepoints

    y = np.log(values.value) if series.logarithmic else values.value
    found = changepoints.detect(y, values.place.astype(float))
    previous = y[-1] - y[-2] if len(y) > 1 else math.nan
    return document | {
        "value": float(values.value[-1]),
        "low": _number(values.low[-1]),
        "high": _number(values.high[-1]),
        "change": _number(_share(previous, series)),
        "noise": _number(found.noise),
        **_found(found, series, values, commits),
    }


def _found(found: Changes, series: Series, values: Points, commits: Sequence[Commit]) -> dict[str, Any]:
    def sizes(interval: Any) -> dict[str, float]:
        return {key: _share(getattr(interval, key), series) for key in ("value", "low", "high")}

    at = [commits[place] for place in values.place]
    steps = [
        {"at": step.at, "before": step.before, "after": step.after, **sizes(step.size)}
        | {"last": _place(at[step.before]), "first": _place(at[step.after])}
        | {
            "unmeasured": int(values.place[step.after] - values.place[step.before] - (step.after - step.before)),
            "versions": version_changes(at[step.before], at[step.after]),
        }
        for step in found.steps
    ]
    watched: dict[str, Any] | None = None
    if found.watched:
        first = _place(at[found.watched.since])
        watched = {"since": found.watched.since, **sizes(found.watched.size), "first": first}
    line = [
        [[place, round(float(np.exp(value) if series.logarithmic else value), 12)] for place, value in run]
        for run in found.line
    ]
    return {
        "steps": steps,
        "spikes": list(found.spikes),
        "drift": found.drift and sizes(found.drift),
        "watched": watched,
        "line": line,
    }


def _switches(texts: Sequence[str], at: Sequence[Commit]) -> dict[str, Any]:
    """Where a text changed."""
    switches = [
        {"at": i, "from": texts[i - 1], "to": texts[i], "last": _place(at[i - 1]), "first": _place(at[i])}
        for i in range(1, len(texts))
        if texts[i] != texts[i - 1]
    ]
    return {"text": texts[-1], "switches": switches, "steps": []}


def _share(difference: float, series: Series) -> float:
    return math.expm1(difference) if series.logarithmic and not math.isnan(difference) else float(difference)


def _place(commit: Commit) -> dict[str, str]:
    return {"commit": commit.id, "short": commit.short, "time": commit.time}


def version_changes(before: Commit, after: Commit) -> list[str]:
    """Python and libraries that are not the same at two commits: ``numpy 2.4.5 → 2.4.6``."""
    names = sorted(before.versions.keys() | after.versions.keys())
    old, new = ({name: commit.versions.get(name, "none") for name in names} for commit in (before, after))
    return [f"{name} {old[name]} → {new[name]}" for name in names if old[name] != new[name]]


# --- choosing -------------------------------------------------------------------------------------------------------


def select(
    history: History, impl: str = "", phase: str = "", cell: str = "", machine: str = "", quantity: str = ""
) -> list[Series]:
    """Series that match all that is given.  Raises UserError, with the nearest known name, where a name matches nothing."""
    chosen = list(history.series)
    if not chosen:
        raise UserError("the history holds no run yet; add one with 'backprop-bench history add RUN'")
    for kind, wanted in (("impl", impl), ("phase", phase), ("quantity", quantity)):
        if wanted:
            chosen = [one for one in chosen if wanted in _names(one, kind)] or _unknown(kind, wanted, chosen)
    if cell:
        chosen = [one for one in chosen if cell in one.cell] or _unknown("cell", cell, chosen)
    if machine:
        known = {one.id: one for one in history.machines.values()}
        wanted = machine.lower()
        ids = {i for i, m in known.items() if m.digest.startswith(wanted) or wanted in m.name.lower()}
        names = [f"{m.digest} ({m.name})" for m in known.values()]
        if not ids:
            raise UserError(f"unknown machine '{machine}': known: {'; '.join(names)}")
        chosen = [one for one in chosen if one.machine in ids]
        if not chosen:
            raise UserError(f"nothing that was asked for was measured on '{machine}'")
    return chosen


def _names(series: Series, kind: str) -> tuple[str, ...]:
    return (series.quantity, series.kind) if kind == "quantity" else (str(getattr(series, kind)),)


def _unknown(kind: str, wanted: str, series: Iterable[Series]) -> list[Series]:
    known = sorted({name for one in series for name in _names(one, kind) if name})
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    raise UserError(f"unknown {kind} '{wanted}': {hint}known: {shown}")


def ranked(history: History, series: Iterable[Series]) -> list[Series]:
    """Those with steps first, the latest and then the largest step before others; then what is watched or drifts."""

    def key(one: Series) -> tuple[Any, ...]:
        found = history.found.get(one.id, {})
        steps = found.get("steps") or found.get("switches") or []
        last = steps[-1]["first"]["time"] if steps else ""
        size = abs(steps[-1].get("value", 0.0)) if steps else 0.0
        return bool(found.get("steps")), last, bool(found.get("watched")), bool(found.get("drift")), size

    return sorted(series, key=key, reverse=True)


def labels(series: Sequence[Series]) -> dict[int, str]:
    """Names for people: device, dtype and threads only where an implementation has several."""
    variants: dict[str, set[tuple[str, str, int]]] = {}
    for one in series:
        variants.setdefault(one.impl, set()).add((one.device, one.dtype, one.threads))
    found = {}
    for one in series:
        parts = [one.impl, one.phase]
        if len(variants[one.impl]) > 1:
            threads = f"{one.threads} thread{'s' * (one.threads != 1)}" if one.threads else ""
            parts += [one.device, one.dtype, threads]
        name = " ".join(part for part in parts if part)
        found[one.id] = f"{name} · {one.cell}" if one.cell else name
    return found


# --- telling --------------------------------------------------------------------------------------------------------


def notes(history: History, series: Iterable[Series]) -> list[str]:
    """What must be said beside any list: machine classes that are never joined."""
    count = len({one.machine for one in series})
    return [f"{count} machine classes, whose times do not compare: each has series of its own."] if count > 1 else []


def machines_told(history: History, series: Iterable[Series]) -> list[str]:
    """Machine classes in words."""
    machines = [history.machines[i] for i in dict.fromkeys(one.machine for one in series)]
    return [f"{m.digest} ({m.name}): {len(m.commits)} commit{'s' * (len(m.commits) != 1)}" for m in machines]


def percent(share: float | None, logarithmic: bool = True) -> str:
    """A change with its sign, ``+3.1 %``; of exponents ``+0.031``."""
    if share is None:
        return "–"
    text = f"{share:+.1%}".replace("%", "\N{NO-BREAK SPACE}%") if logarithmic else f"{share:+.3f}"
    return text.replace("-", "−")


def step_told(series: Series, step: dict[str, Any]) -> str:
    """A step in words."""
    size, low, high = (percent(step[key], series.logarithmic) for key in ("value", "low", "high"))
    told = f"{size} [{low}, {high}] after {step['last']['short']} until {step['first']['short']} ({step['first']['time'][:10]})"
    if step["unmeasured"]:
        told += f", {step['unmeasured']} commits between not measured"
    if step["versions"]:
        told += f", with {', '.join(step['versions'])}"
    return told


def told(series: Series, found: dict[str, Any]) -> str:
    """What changed, in words, one line each; empty where nothing did."""
    lines = [step_told(series, step) for step in found.get("steps", [])]
    switches = found.get("switches", [])
    lines += [
        f"from “{s['from']}” to “{s['to']}” at {s['first']['short']} ({s['first']['time'][:10]})" for s in switches[-3:]
    ]
    if watched := found.get("watched"):
        count = found["commits"] - watched["since"]
        size = percent(watched["value"], series.logarithmic)
        lines.append(f"watching: {size} since {watched['first']['short']}, {count} commit{'s' * (count != 1)} so far")
    if drift := found.get("drift"):
        low, high = (percent(drift[key], series.logarithmic) for key in ("low", "high"))
        lines.append(f"drift: {percent(drift['value'], series.logarithmic)} [{low}, {high}] from first to last")
    return "\n".join(lines)


def table(history: History, series: Sequence[Series]) -> list[tuple[str, ...]]:
    """A heading, and a row for each series; machine classes are named where there are several."""
    names = labels(history.series)
    several = len({one.machine for one in history.series}) > 1
    machine = ("machine",) if several else ()
    found = [("series", "quantity", *machine, "latest", "change", "commits", "steps, drift, watched")]
    for one in series:
        what = history.found[one.id]
        where = (history.machines[one.machine].digest,) if several else ()
        change = percent(what.get("change"), one.logarithmic)
        latest = value_told(one, what)
        found.append((names[one.id], one.quantity, *where, latest, change, str(what["commits"]), told(one, what)))
    return found


def value_told(series: Series, found: dict[str, Any]) -> str:
    """The latest value with its unit."""
    if "text" in found:
        return str(found["text"])
    return quantity_told(found["value"], series.unit)


def quantity_told(value: float, unit: str) -> str:
    """A value with its unit."""
    if unit == "s":
        size, name = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= s), (1e-9, "ns"))
        return f"{value / size:.4g} {name}"
    if unit == "bytes" and value >= 1024:
        size, name = next((s, u) for s, u in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")) if value >= s)
        return f"{value / size:.4g} {name}"
    return f"{value:.4g} {unit}".strip()


def document(history: History, series: Sequence[Series]) -> dict[str, Any]:
    """``show --json``: machines, and series with what was found in them."""
    machines = [history.machines[i] for i in dict.fromkeys(one.machine for one in series)]
    return {
        "machines": [{"id": m.digest, "name": m.name, "commits": len(m.commits)} for m in machines],
        "notes": notes(history, series),
        "series": [
            {key: getattr(one, key) for key in Series.__dataclass_fields__ if key not in ("id", "machine")}
            | {"machine": history.machines[one.machine].digest}
            | {key: value for key, value in history.found.get(one.id, {}).items() if key != "line"}
            for one in series
        ],
    }


# --- the long table -------------------------------------------------------------------------------------------------


def rows(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """One for each number of each run, in the order of series and commits, with ``COLUMNS``."""
    query = """
        SELECT machines.name, machines.digest, commit_id, commit_time, branch, dirty, project, measured_at, python, libraries,
            quantity, unit, impl, device, dtype, threads, phase, axis, cell,
            value, low, high, time_s, raw_s, passes, text
        FROM points JOIN runs ON runs.id = points.run JOIN series ON series.id = points.series
            JOIN machines ON machines.id = series.machine
        ORDER BY series.id, commit_time, measured_at, runs.id"""
    for row in connection.execute(query):
        yield dict(zip(COLUMNS, row, strict=True))


def export(db: Path, form: str) -> str:
    """The long table as ``csv`` or ``json``.  Raises UserError for another form."""
    if form not in ("csv", "json"):
        raise UserError(f"--format {form}: choose csv or json")
    with history_store.reading(db) as connection, history_store.rows_trusted():
        found = list(rows(connection))
        if form == "json":
            plain = [row | {"libraries": json.loads(row["libraries"])} for row in found]
            return json.dumps(plain, allow_nan=False, indent=0)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return stream.getvalue()
