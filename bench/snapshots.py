"""Snapshots of a git repository: a revision as it was committed, or the working tree as it is, in a folder of its own.

The repository is left as it was: a revision is checked out through an index of our own, outside the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from backprop_files import UserError

#: pytest-benchmark's ``commit_info`` where there is no repository.
UNVERSIONED: dict[str, Any] = {
    "id": "unversioned", "time": None, "author_time": None, "dirty": False, "project": "", "branch": "",
}  # fmt: skip


def git(top: Path | None, *arguments: str, index: Path | None = None) -> str:
    """Output of a git command.  Raises UserError with its last words."""
    environment = {**os.environ, "LC_ALL": "C"} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        found = subprocess.run(["git", *arguments], cwd=top, env=environment, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise UserError("git is not installed: revisions cannot be compared without it") from error
    except subprocess.CalledProcessError as error:
        last = (os.fsdecode(error.stderr).strip().splitlines() or ["failed"])[-1]
        raise UserError(f"git {arguments[0]}: {last}") from error
    return os.fsdecode(found.stdout)  # file names need not be UTF-8


def toplevel(needed: bool) -> Path | None:
    """The repository that the current folder is in; None where there is none and none is needed.  Raises UserError."""
    try:
        return Path(git(None, "rev-parse", "--show-toplevel").rstrip("\n"))
    except UserError as error:
        if "not a git repository" in str(error):
            if needed:
                told = f"{Path.cwd()} is in no git repository: revisions need one (--base-python and --with do not)"
                raise UserError(told) from error
            return None
        if not needed and "not installed" in str(error):
            return None
        raise


def commit_of(top: Path | None, revision: str | None) -> dict[str, Any]:
    """pytest-benchmark's ``commit_info`` of a revision; None: of the working tree.  Raises UserError if it is unknown."""
    if top is None:
        return UNVERSIONED
    named = "HEAD" if revision is None else revision
    try:
        sha = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}").strip()
    except UserError as error:
        raise UserError(
            f"unknown revision '{named}' in {top}: give a branch, tag or commit that git knows here "
            "(a shallow clone may lack it: git fetch --unshallow)"
        ) from error
    times = git(top, "show", "-s", "--format=%cI%n%aI", sha).splitlines()
    return {
        "id": sha,
        "time": times[0],
        "author_time": times[1],
        "dirty": revision is None and bool(_changes(top)),
        "project": top.name,
        "branch": revision or git(top, "rev-parse", "--abbrev-ref", "HEAD").strip(),
    }


def _changes(top: Path) -> list[str]:
    """What of the working tree is not as committed and may be code: files git knows, and new Python files."""
    changed = git(top, "status", "--porcelain", "--untracked-files=no").splitlines()
    fresh = git(top, "ls-files", "-oz", "--exclude-standard").split("\0")
    return [*filter(None, changed), *(name for name in fresh if name.endswith(".py"))]


def take(top: Path, revision: str | None, sha: str, folder: Path) -> None:
    """Put a revision's files, or with None the working tree's, into ``folder``.  Raises UserError."""
    try:
        if revision is None:
            _copy_tree(top, folder)
        else:
            index = folder.parent / "index"
            git(top, "read-tree", sha, index=index)
            git(top, "checkout-index", "--all", f"--prefix={folder}{os.sep}", index=index)
    except OSError as error:
        raise UserError(f"no snapshot of {top} can be made: {error.strerror or error}: {error.filename}") from error


def _copy_tree(top: Path, folder: Path) -> None:
    """Files git knows, and new ones that it does not ignore; links as links."""
    for name in filter(None, git(top, "ls-files", "-coz", "--exclude-standard").split("\0")):
        source = top / name
        if source.is_symlink() or source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name, follow_symlinks=False)
