"""The history as one page: data as JSON within it, charts by the library of all pages; it needs no network."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from analysis import history, history_store, words
from analysis.history import History, Points, Series
from analysis.page import write
from backprop_files import UserError, write_whole

#: Rows of the table of steps, the newest first.
MOST_STEPS = 60
#: What is larger is neither better nor worse.
NEUTRAL = ("crossover",)
SCRIPTS = (*write.READING, "history")


def write_page(db: Path, out: Path, repo_url: str = "") -> Path:
    """Write the page of a history; ``repo_url`` is where commits can be seen, else the git remote of this directory.

    Raises UserError for an unusable file, an empty history, or a URL that is none.
    """
    pattern = commit_pattern(repo_url) if repo_url else _remote_pattern()
    found = history.read(db)
    series = history.ranked(found, history.select(found))
    with history_store.reading(db) as connection, history_store.rows_trusted():
        values = history.points(connection, found.machines, series)
    page = words.environment().get_template("history.html").render(_context(found, series, values, pattern))
    write_whole(out, page)
    return out


def commit_pattern(url: str) -> str:
    """Where commit ``{id}`` can be seen, of a repository's address or of a pattern that holds ``{id}`` already."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"--repo-url {url}: give the address of a repository, https://host/owner/name, or a pattern with {{id}}"
        )
    if "{id}" in url:
        return url
    middle = (
        "/-/commit/" if "gitlab" in parts.hostname else "/commits/" if "bitbucket" in parts.hostname else "/commit/"
    )
    return url.removesuffix("/").removesuffix(".git") + middle + "{id}"


def _remote_pattern() -> str:
    """Of the git remote ``origin`` of this directory; empty where there is none with an address for browsers."""
    try:
        command = ["git", "remote", "get-url", "origin"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return browsable(told)


def browsable(remote: str) -> str:
    """A git remote's address as a commit pattern: ``git@host:owner/name.git`` or https, without anyone's credentials."""
    ssh = re.fullmatch(r"(?:ssh://)?[\w.-]+@([\w.-]+)(?::\d+/|[:/])(.+)", remote)
    if ssh:
        return commit_pattern(f"https://{ssh[1]}/{ssh[2]}")
    parts = urlsplit(remote)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    port = f":{parts.port}" if parts.port else ""
    return commit_pattern(f"{parts.scheme}://{parts.hostname}{port}{parts.path}")


# --- what the page is made of ---------------------------------------------------------------------------------------


def _context(found: History, series: Sequence[Series], values: dict[int, Points], pattern: str) -> dict[str, Any]:
    names = history.labels(found.series)
    stepped = [one for one in series if found.found[one.id].get("steps")]
    return {
        "page": write.parts(_data(found, series, values, names, pattern), SCRIPTS),
        "machines": [m for m in found.machines.values() if m.commits],
        "notes": history.notes(found, series),
        "count": len(series),
        "stepped": len(stepped),
        "commits": len({commit.id for m in found.machines.values() for commit in m.commits}),
        "steps": _steps_table(found, stepped, names, pattern)[:MOST_STEPS],
        "steps_count": sum(len(found.found[one.id]["steps"]) for one in stepped),
    }


def _steps_table(found: History, series: Sequence[Series], names: dict[int, str], pattern: str) -> list[dict[str, Any]]:
    """Every step, the newest first."""
    steps = [(step, one) for one in series for step in found.found[one.id]["steps"]]
    steps.sort(key=lambda pair: (pair[0]["first"]["time"], abs(pair[0]["value"])), reverse=True)
    return [
        {
            "id": one.id,
            "name": names[one.id],
            "quantity": one.quantity,
            "machine": found.machines[one.machine].name,
            "size": _size(step, one.logarithmic),
            "interval": f"[{history.percent(step['low'], one.logarithmic)}, {history.percent(step['high'], one.logarithmic)}]",
            "worse": _worse(one, step["value"]),
            "last": step["last"] | {"url": _url(pattern, step["last"]["commit"])},
            "first": step["first"] | {"url": _url(pattern, step["first"]["commit"])},
            "unmeasured": step["unmeasured"],
            "versions": step["versions"],
        }
        for step, one in steps
    ]


def _size(step: Mapping[str, Any], logarithmic: bool) -> str:
    """The step in words, which keeps its numbers for the table's CSV."""
    value, low, high = (math.nan if step[end] is None else float(step[end]) for end in ("value", "low", "high"))
    return words.Number(
        history.percent(step["value"], logarithmic), value, "share of 1" if logarithmic else "", low, high
    )


def _worse(series: Series, size: float) -> str:
    return "neutral" if series.quantity in NEUTRAL else "worse" if size > 0 else "better"


def _url(pattern: str, commit: str) -> str:
    return pattern.replace("{id}", commit) if pattern and re.fullmatch(r"[\w.-]+", commit) else ""


def _data(
    found: History, series: Sequence[Series], values: dict[int, Points], names: dict[int, str], pattern: str
) -> dict[str, Any]:
    """What the script draws: numbers to five digits, machines and series by their place in a list."""
    machines = [m for m in found.machines.values() if m.commits]
    place = {m.id: i for i, m in enumerate(machines)}
    return {
        "url": pattern,
        "machines": [
            {
                "id": m.digest,
                "name": m.name,
                "commits": [[c.id, c.time, c.branch, int(c.dirty), c.runs] for c in m.commits],
                "versions": [
                    [i, changed]
                    for i in range(1, len(m.commits))
                    if (changed := history.version_changes(m.commits[i - 1], m.commits[i]))
                ],
            }
            for m in machines
        ],
        "series": [
            _series(one, place[one.machine], names[one.id], values[one.id], found.found[one.id]) for one in series
        ],
    }


def _series(one: Series, machine: int, name: str, values: Points, what: dict[str, Any]) -> dict[str, Any]:
    places = values.place.tolist()
    whole = places == list(range(places[0], places[0] + len(places)))
    about = {
        "id": one.id, "m": machine, "name": name, "q": one.quantity, "kind": one.kind, "unit": one.unit, "impl": one.impl,
        "phase": one.phase, "axis": one.axis, "cell": one.cell, "log": int(one.logarithmic),
        "neutral": int(one.quantity in NEUTRAL), "x": places[0] if whole else places, "n": len(places),
    }  # fmt: skip
    if one.textual:
        return about | {"text": what["text"], "switches": what["switches"], "steps": []}
    kept = ("steps", "spikes", "drift", "watched", "line")
    half = [
        _half(v, low, high, one.logarithmic) for v, low, high in zip(values.value, values.low, values.high, strict=True)
    ]
    return about | {
        "v": [_rounded(v) for v in values.value],
        "e": half if any(half) else [],
        **{key: what[key] for key in kept},
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _half(value: float, low: float, high: float, logarithmic: bool) -> float:
    """Half-width of an interval, relative where changes are factors; 0 for none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0
    if not logarithmic:
        return float(f"{(high - low) / 2:.3g}")
    return float(f"{math.log(high / low) / 2:.3g}") if low > 0 else 0
