"""A run directory: every finished cell a whole file at once, gathered later into one file per implementation and pass.

``DIR/data/<impl>-pass<k>.json`` are gathered files, ``DIR/data/cells/*.json`` the cells finished since.  All are
pytest-benchmark documents.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
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
        return {
            entry["params"]["cell"]
            for path in self.paths()
            for entry in (_read(path) or {}).get("benchmarks", [])
            if isinstance(entry.get("params"), dict) and "cell" in entry["params"]
        }

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

    def keep(self, name: str, document: dict[str, Any]) -> None:
        """Put one finished cell on disk."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        write_json(self.cells / f"{digest}.json", document)

    def merge(self, extra: dict[str, Any]) -> None:
        """Gather loose cells into one file for each implementation and pass, then drop the loose ones.

        A crash in between leaves a cell twice, to the letter the same; readers count it once.
        """
        loose = sorted(self.cells.glob("*.json"))
        groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        shell: dict[str, Any] = {}
        for path in loose:
            document = _read(path)
            if document:
                shell = shell or document
                for entry in document["benchmarks"]:
                    groups[entry["extra_info"]["impl"], entry["extra_info"]["pass"]].append(entry)
        for (impl, number), entries in groups.items():
            target = self.data / f"{impl}-pass{number}.json"
            earlier = (_read(target) or {}).get("benchmarks", [])
            known = {entry["params"]["cell"] for entry in entries}
            together = [entry for entry in earlier if entry["params"]["cell"] not in known] + entries
            write_json(target, {**shell, "benchmarks": together, "backprop_bench": extra})
        for path in loose:
            path.unlink()
        with contextlib.suppress(OSError):
            self.cells.rmdir()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
