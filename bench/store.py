"""A run directory: every finished cell a whole file at once, gathered later into one file per implementation, pass and
machine.

``DIR/data/<impl>-pass<k>.json`` are gathered files (where two machines measured cells of the same pass, the second's has
its name too), ``DIR/data/cells/*.json`` the cells finished since.  All are
pytest-benchmark documents.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backprop_files import UserError, write_json


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One run at a time in a directory; the lock goes with the process, however it ends.  Raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}; choose another --out") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            told = f"{directory}: another run is writing there; wait for it, or choose another --out"
            raise UserError(told) from error
        yield


class Store:
    """The data of one run directory."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.cells = self.data / "cells"
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {directory}: {error.strerror or error}; choose another --out") from error

    def finished(self) -> set[str]:
        """Names of the cells already on disk; a file that is no whole JSON does not count."""
        return {entry["params"]["cell"] for _, entry in self.entries()}

    def entries(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every cell on disk, with the facts of the machine that measured it."""
        for document in filter(None, map(_read, self.paths())):
            for entry in document.get("benchmarks", []):
                if isinstance(entry.get("params"), dict) and "cell" in entry["params"]:
                    yield document.get("machine_info") or {}, entry

    def seam(self, facts: dict[str, Any]) -> list[str]:
        """What to say of a run that goes on here: when, after how many cells, and which machine facts changed."""
        documents = [document for document in map(_read, self.paths()) if document]
        if not documents:
            return []
        count = sum(len(document.get("benchmarks", [])) for document in documents)
        before = documents[-1].get("machine_info") or {}
        changed = [
            f"{key} was {before[key]!r}, is {facts[key]!r}"
            for key in facts
            if key in before and before[key] != facts[key]
        ]
        told = f"resumed on {time.strftime('%Y-%m-%d %H:%M:%S')} after {count} cells"
        return [told + ("; since then " + "; ".join(changed) if changed else "; the machine had not changed")]

    def paths(self) -> list[Path]:
        """All data files, gathered ones first."""
        return [*sorted(self.data.glob("*.json")), *sorted(self.cells.glob("*.json"))]

    def keep(self, name: str, document: dict[str, Any]) -> Path:
        """Put one finished cell on disk, or several of one implementation and pass under one name; returns where."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = self.cells / f"{digest}.json"
        write_json(path, document)
        return path

    def merge(self, extra: dict[str, Any], only: Sequence[Path] | None = None) -> list[Path]:
        """Gather loose cells, or ``only`` some of their files, into one file for each implementation, pass and machine,
        then drop the loose ones; returns the gathered files.  No more than one of them is in memory at a time.

        A crash in between leaves a cell twice, to the letter the same; readers count it once.
        """
        loose = sorted(self.cells.glob("*.json")) if only is None else only
        groups: dict[tuple[str, int, str], list[Path]] = defaultdict(list)
        for path in loose:
            if key := _key(_read(path)):
                groups[key].append(path)
        targets = [self._gather(key, paths, extra) for key, paths in groups.items()]
        for path in loose:
            path.unlink(missing_ok=True)
        if only is None:
            with contextlib.suppress(OSError):
                self.cells.rmdir()
        return targets

    @staticmethod
    def say(path: Path, extra: dict[str, Any]) -> None:
        """Put our top-level object into a gathered file."""
        document = _read(path)
        if document:
            write_json(path, {**document, "backprop_bench": extra})

    def _gather(self, key: tuple[str, int, str], paths: Sequence[Path], extra: dict[str, Any]) -> Path:
        impl, number, node = key
        target = self._target(impl, number, node)
        if len(paths) == 1 and not target.exists() and (_read(paths[0]) or {}).get("backprop_bench") == extra:
            return paths[0].replace(target)  # it is whole as it is
        documents = [document for document in map(_read, paths) if document]
        entries = [entry for document in documents for entry in document["benchmarks"]]
        earlier = (_read(target) or {}).get("benchmarks", [])
        known = {entry["params"]["cell"] for entry in entries}
        together = [entry for entry in earlier if entry["params"]["cell"] not in known] + entries
        write_json(target, {**documents[0], "benchmarks": together, "backprop_bench": extra})
        return target

    def _target(self, impl: str, number: int, node: str) -> Path:
        """``<impl>-pass<k>.json``; that of a machine beside it, on which the same pass was begun, has its name too."""
        usual = self.data / f"{impl}-pass{number}.json"
        there = _read(usual)
        if there is None or _node(there) == node:
            return usual
        return self.data / f"{impl}-pass{number}-{_plain(node)}.json"


def _key(document: dict[str, Any] | None) -> tuple[str, int, str] | None:
    """Of which implementation, pass and machine a loose document is; None where it is not whole."""
    if not document or not document.get("benchmarks"):
        return None
    info = document["benchmarks"][0]["extra_info"]
    return info["impl"], info["pass"], _node(document)


def _node(document: dict[str, Any]) -> str:
    """The machine's name, as pytest-benchmark has it."""
    return str((document.get("machine_info") or {}).get("node", ""))


def _plain(node: str) -> str:
    """A machine's name as part of a file's; names that differ stay different."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", node)[:80]
    return plain if plain == node else f"{plain}-{hashlib.sha256(node.encode()).hexdigest()[:8]}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
