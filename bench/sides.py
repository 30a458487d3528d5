"""The two sides of a comparison: which code, in which interpreter, and what it can measure.

One harness measures both: workers run this installation's ``bench`` over each side's ``impls``, so that a change of the
harness is never taken for a change of what it measures.  A side's code is a snapshot in a folder of its own (``git
archive`` of a revision, or a copy of the working tree as it is): nothing that is edited meanwhile gets in, and the
repository is left as it was.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backprop_files import UserError
from bench.cells import Cell, Point, Setting
from bench.plan import Settings
from impls.interface import Network
from impls.registry import Entry

#: Of this installation: what measures.
OURS = Path(__file__).resolve().parents[1]
#: What makes a checkout one of this suite, with implementations of its own.
SUITE = ("impls/registry.py", "bench/worker.py")
#: Machine facts that must agree between two sides; libraries too, unless environments are what is compared.
MACHINE = ("cpu_model", "caches", "affinity", "memory_bytes", "accelerators")
#: Implementations that are compared unless some are named: those of this profile.
USUAL_SWEEP = "quick"


@dataclass(frozen=True)
class Side:
    """``name`` is base or head; ``told`` is what people read of it; ``commit`` as pytest-benchmark writes it."""

    name: str
    told: str
    commit: Mapping[str, Any]
    python: Path
    code: Path  # snapshot, in which its own plan and its own implementations are found
    home: Path  # what its workers import from: our bench, its impls


@dataclass(frozen=True)
class Wish:
    """What is to be compared: revisions, interpreters, a requirement that HEAD has beside all that is installed."""

    base: str | None = None
    head: str | None = None
    base_python: Path | None = None
    head_python: Path | None = None
    with_: tuple[str, ...] = ()

    @property
    def environments(self) -> bool:
        """Whether the sides differ in their libraries because that was asked for."""
        return bool(self.base_python or self.head_python or self.with_)


@dataclass(frozen=True)
class Described:
    """What a side says it can measure: cells by label, what it lacks or leaves out, facts of machine and libraries."""

    cells: dict[str, Cell]
    absent: list[str]  # implementations that were named and are not there
    left_out: list[dict[str, Any]]
    facts: dict[str, Any]
    known: list[str] = field(default_factory=list)  # all implementations of its registry


def make(wish: Wish, folder: Path) -> tuple[Side, Side]:
    """Both sides, snapshot below ``folder``.  Raises UserError for whatever cannot be compared."""
    top = _toplevel()
    if wish.base is None and not wish.environments:
        raise UserError("nothing to compare with: give a git revision as BASE, or --base-python, or --with LIBRARY==X")
    if top is None and (wish.base or wish.head):
        raise UserError(f"{Path.cwd()} is in no git repository: revisions need one (--base-python and --with do not)")
    pythons = [_python(wish.base_python), _python(wish.head_python)]
    commits = [_commit(top, wish.base or wish.head), _commit(top, wish.head)]
    same = commits[0]["id"] == commits[1]["id"] and not commits[1].get("dirty")
    if same and not wish.environments:
        what = f"{wish.base} and {wish.head or 'the working tree'}"
        raise UserError(f"{what} are the same code ({_short(commits[0])}): nothing to compare")
    if wish.with_:
        pythons[1] = _with(wish.with_, pythons[1], folder / "with")
    named = [str(wish.base_python or ""), ", ".join(wish.with_) or str(wish.head_python or "")]
    homes = [_Environment(python, name) for python, name in zip(pythons, named, strict=True)]
    base = _side("base", wish.base or wish.head, top, commits[0], homes[0], folder)
    head = _side("head", wish.head, top, commits[1], homes[1], folder)
    return base, head


@contextlib.contextmanager
def prepared(wish: Wish, settings: Settings) -> Iterator[tuple[tuple[Side, Side], tuple[Described, Described]]]:
    """Both sides with what they say of themselves; their snapshots go when the context ends."""
    with tempfile.TemporaryDirectory(prefix="backprop-bench-") as folder:
        base, head = make(wish, Path(folder))
        described = describe(base, settings), describe(head, settings)
        same_machine(*described, wish.environments)
        yield (base, head), described


def same_machine(base: Described, head: Described, environments: bool) -> None:
    """Raise UserError where facts differ that would make a comparison mean nothing."""
    for key in MACHINE if environments else (*MACHINE, "libraries"):
        a, b = base.facts.get(key), head.facts.get(key)
        if a != b:
            raise UserError(f"base and head see different machines: {key} is {a!r} and {b!r}; nothing was compared")


def describe(side: Side, settings: Settings) -> Described:
    """Ask a side, in its interpreter and of its own code, which cells it has.

    Raises UserError where it does not even import, or has nothing to measure.
    """
    own = [_own(side, target) for target in settings.own]
    request = asdict(settings) | {"own": own}
    found = subprocess.run(
        [str(side.python), "-P", str(Path(__file__).with_name("describe.py"))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=side.code,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, _paths(side)))},
    )
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise UserError(f"{side.name}, {side.told}, cannot be measured: {last}")
    answer = json.loads(found.stdout)
    if "error" in answer:
        raise UserError(f"{side.name}, {side.told}: {answer['error']}")
    cells = {}
    for row in answer["cells"]:
        setting, point = _setting(row, settings), _point(row)
        for phase in row["phases"]:
            cell = Cell(setting, point, phase)
            cells[cell.label] = cell
    return Described(cells, answer["absent"], answer["left_out"], answer["facts"], answer["known"])


def _paths(side: Side) -> list[Path]:
    """Where its own plan is found: its own code if it is of this suite, else ours."""
    return [side.code] if _is_suite(side.code) else [side.code, OURS]


def _setting(row: Mapping[str, Any], settings: Settings) -> Setting:
    entry = Entry(row["impl"], row["target"], row["summary"], tuple(row["requires"]), object_bytes=row["object_bytes"])
    return Setting(entry, row["device"], row["dtype"], settings.threads)


def _point(row: Mapping[str, Any]) -> Point:
    network = Network(tuple(row["layers"]), row["activation"], row["loss"])
    return Point(network, row["n"], tuple(row["axes"]), row["heldout"], optimizer=row["optimizer"])


def _own(side: Side, target: str) -> str:
    """A user's own implementation as a side has it."""
    path, _, name = target.rpartition(":")
    if not path.endswith(".py") or Path(path).is_absolute():
        return target
    inside = side.code / path
    if not inside.is_file():
        raise UserError(f"{side.name}, {side.told}, has no {path}; --impl paths are looked up in each side")
    return f"{inside}:{name}"


@dataclass(frozen=True)
class _Environment:
    python: Path
    named: str  # what people asked for; empty: the usual one


def _side(
    name: str, revision: str | None, top: Path | None, commit: dict[str, Any], environment: _Environment, folder: Path
) -> Side:
    code = folder / name / "code"
    code.mkdir(parents=True)
    if top and revision:
        _export(top, commit["id"], code)
    elif top:
        _copy_tree(top, code)
    home = folder / name / "home"
    home.mkdir()
    impls = code / "impls" if _is_suite(code) else OURS / "impls"
    for link, target in {
        "impls": impls,
        "bench": OURS / "bench",
        "backprop_files.py": OURS / "backprop_files.py",
    }.items():
        (home / link).symlink_to(target)
    told = _told(revision, top, commit, environment.named)
    return Side(name, told, commit, environment.python, code, home)


def _is_suite(code: Path) -> bool:
    return all((code / path).is_file() for path in SUITE)


def _told(revision: str | None, top: Path | None, commit: Mapping[str, Any], environment: str) -> str:
    where = f" with {environment}" if environment else ""
    if top is None:
        return f"the code as installed{where}"
    if revision:
        return f"{revision} ({_short(commit)}){where}" if revision != _short(commit) else f"{revision}{where}"
    changed = " with uncommitted changes" if commit.get("dirty") else ""
    return f"the working tree ({_short(commit)}{changed}){where}"


def _short(commit: Mapping[str, Any]) -> str:
    return str(commit.get("id", "unversioned"))[:10]


def _git(top: Path | None, *arguments: str) -> str:
    """Output of a git command.  Raises UserError with its last words."""
    try:
        found = subprocess.run(["git", *arguments], cwd=top, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise UserError("git is not installed: revisions cannot be compared without it") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["failed"])[-1]
        raise UserError(f"git {arguments[0]}: {last}") from error
    return found.stdout


def _toplevel() -> Path | None:
    try:
        return Path(_git(None, "rev-parse", "--show-toplevel").strip())
    except UserError:
        return None


def _commit(top: Path | None, revision: str | None) -> dict[str, Any]:
    """pytest-benchmark's ``commit_info`` of a revision; None: of the working tree."""
    if top is None:
        return {"id": "unversioned", "time": None, "author_time": None, "dirty": False, "project": "", "branch": ""}
    try:
        sha = _git(
            top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision or 'HEAD'}^{{commit}}"
        ).strip()
    except UserError as error:
        raise UserError(
            f"unknown revision '{revision or 'HEAD'}' in {top}: give a branch, tag or commit that git knows here "
            "(a shallow clone may lack it: git fetch --unshallow)"
        ) from error
    times = _git(top, "show", "-s", "--format=%cI%n%aI", sha).splitlines()
    dirty = revision is None and bool(_git(top, "status", "--porcelain").strip())
    return {
        "id": sha,
        "time": times[0],
        "author_time": times[1],
        "dirty": dirty,
        "project": top.name,
        "branch": revision or _git(top, "rev-parse", "--abbrev-ref", "HEAD").strip(),
    }


def _export(top: Path, sha: str, code: Path) -> None:
    packed = subprocess.run(["git", "archive", "--format=tar", sha], cwd=top, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(code, filter="data")


def _copy_tree(top: Path, code: Path) -> None:
    """The working tree as it is: files git knows, and new ones it does not ignore."""
    for name in filter(None, _git(top, "ls-files", "-coz", "--exclude-standard").split("\0")):
        if (top / name).is_file():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(top / name, code / name)


def _python(path: Path | None) -> Path:
    if path is None:
        return Path(sys.executable)
    found = path / "bin" / "python" if path.is_dir() else path
    if not os.access(found, os.X_OK) or found.is_dir():
        raise UserError(f"{path}: no Python interpreter there; give its path, or that of its virtual environment")
    return found.absolute()


def _with(requirements: Sequence[str], python: Path, folder: Path) -> Path:
    """An environment that sees all that ``python`` has, and before that ``requirements``.  Raises UserError."""
    find = "import json, site; print(json.dumps(site.getsitepackages()))"
    seen = json.loads(subprocess.run([str(python), "-c", find], capture_output=True, text=True, check=True).stdout)
    made = subprocess.run([str(python), "-m", "venv", str(folder)], capture_output=True, text=True)
    fresh = folder / "bin" / "python"
    if made.returncode:
        raise UserError(f"--with: no environment can be made: {made.stderr.strip() or made.stdout.strip()}")
    found = subprocess.run([str(fresh), "-c", find], capture_output=True, text=True, check=True)
    (Path(json.loads(found.stdout)[0]) / "_seen.pth").write_text("\n".join(seen) + "\n")
    pip = subprocess.run([str(fresh), "-m", "pip", "install", "-q", *requirements], capture_output=True, text=True)
    if pip.returncode:
        lines = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or [pip.stderr.strip()]
        raise UserError(f"--with {' '.join(requirements)}: {lines[-1].removeprefix('ERROR: ')}")
    return fresh
