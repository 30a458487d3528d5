"""A run's folder on a worker's machine: compiled code, files that came with the run, and what its jobs learned.

It lies in the user's own folder among the temporary ones, goes when the run ends, and after two days at the latest when
another run comes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backprop_files import UserError, write_json, write_whole

#: Bytes that a file may have which travels with a run; seconds after which a folder was forgotten.
MOST_BYTES, FORGOTTEN_S = 16 << 20, 2 * 86400.0
#: How settings name a file that travels: this, its digest, a slash and its name.
MARK = "sha256:"


def home() -> Path:
    """The user's own folder, made where it is not there.  Raises UserError if it is somebody else's."""
    folder = Path(tempfile.gettempdir()) / f"backprop-bench-fleet-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UserError(f"{folder}: belongs to another user, or others may write there; remove it, or set TMPDIR")
    return folder


def lock_file() -> Path:
    """Held by whoever measures on this machine."""
    return home() / "measuring.lock"


class Folder:
    """That of one run on this machine."""

    def __init__(self, run: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{16,64}", run):
            raise UserError(f"run '{run[:80]}': is no name of a run")
        self._folder = home() / f"run-{run}"

    @property
    def compiled(self) -> Path:
        """Where compilers keep what they made."""
        return self._folder / "compiled"

    def keep(self, files: Sequence[dict[str, Any]]) -> None:
        """Make the folder, put files that came into it, remove folders that were forgotten.  Raises UserError."""
        _sweep()
        self.compiled.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)
        for file in files:
            path = self._place(str(file["sha256"]), str(file["name"]))
            data = zlib.decompressobj().decompress(base64.b64decode(file["data"]), MOST_BYTES + 1)
            if len(data) > MOST_BYTES or hashlib.sha256(data).hexdigest() != file["sha256"]:
                raise UserError(f"file '{file['name']}': did not arrive whole")
            write_whole(path, data)

    def located(self, name: str) -> str:
        """A setting with its file's place here: ``sha256:<digest>/<name>[:Class]``; any other as it is."""
        if not name.startswith(MARK):
            return name
        digest, _, rest = name.removeprefix(MARK).partition("/")
        file, colon, class_name = rest.partition(":")
        path = self._place(digest, file)
        if not path.is_file():
            raise UserError(f"file '{file}': is not on this machine any more; run again with --resume")
        return f"{path}{colon}{class_name}"

    def _place(self, digest: str, name: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or Path(name).name != name or name.startswith("."):
            raise UserError(f"file '{name}': is no plain name")
        return self._folder / "files" / digest / name

    def lessons(self) -> dict[str, dict[str, Any]]:
        """What earlier jobs learned."""
        found: dict[str, dict[str, Any]] = self._read("lessons.json")
        return found

    def learn(self, lessons: dict[str, dict[str, Any]]) -> None:
        """Add what a job learned."""
        known = self.lessons()
        for label, told in lessons.items():
            overhead = {**known.get(label, {}).get("overhead_s", {}), **told.get("overhead_s", {})}
            known[label] = {**known.get(label, {}), **told, "overhead_s": overhead}
        write_json(self._folder / "lessons.json", known)

    def checked(self, impl: str) -> bool:
        """Whether an own implementation was held to the reference here."""
        return impl in self._read("checked.json")

    def note_checked(self, impl: str) -> None:
        """It was."""
        write_json(self._folder / "checked.json", self._read("checked.json") | {impl: True})

    def remove(self) -> None:
        """The run is over."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, name: str) -> Any:
        try:
            found = json.loads((self._folder / name).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _sweep() -> None:
    for folder in home().glob("run-*"):
        try:
            forgotten = time.time() - folder.stat().st_mtime > FORGOTTEN_S
        except OSError:
            continue
        if forgotten:
            shutil.rmtree(folder, ignore_errors=True)
