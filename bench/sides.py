"""The two sides of a comparison: which code, in which interpreter, and what it can measure.

One harness measures both: workers run this installation's ``bench`` over each side's ``impls``, so that a change of the
harness is never taken for a change of what it measures.  A side's code is a snapshot in a folder of its own
(``bench.snapshots``): nothing that is edited meanwhile gets in.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backprop_files import UserError
from bench import snapshots
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


@dataclass(frozen=True)
class Side:
    """``name`` is base or head; ``told`` is what people read of it; ``commit`` as pytest-benchmark writes it."""

    name: str
    told: str
    commit: Mapping[str, Any]
    python: Path
    code: Path  # snapshot, in which its own plan and its own implementations are found
    home: Path  # what its workers import from: our bench, its impls
    top: Path | None = None  # the repository: nothing may be imported from there

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where a user's own modules are looked for: before whatever is installed."""
        return (self.code, self.code / "src")


@dataclass(frozen=True)
class Wish:
    """What is to be compared: revisions, interpreters, a requirement that HEAD has beside all that is installed."""

    base: str | None = None
    head: str | None = None
    base_python: Path | None = None
    head_python: Path | None = None
    with_: tuple[str, ...] = ()

    @property
    def revisions(self) -> bool:
        """Whether git is needed."""
        return self.base is not None or self.head is not None


@dataclass(frozen=True)
class Described:
    """What a side says it can measure: cells by label, what it lacks or leaves out, facts of machine and libraries."""

    cells: dict[str, Cell]
    absent: list[str]  # implementations that were named and are not there
    left_out: list[dict[str, Any]]
    facts: dict[str, Any]
    known: list[str] = field(default_factory=list)  # all implementations of its registry
    error: str = ""  # why it has nothing to measure, of HEAD

    def why_not(self, cell: Cell) -> str:
        """Why a cell is not among its cells."""
        if self.error:
            return self.error
        for row in self.left_out:
            if row["impl"] == cell.setting.entry.name and row["cell"] in ("all", cell.point.label):
                return str(row["reason"])
        return "removed or renamed"


def make(wish: Wish, folder: Path, own: Sequence[str] = ()) -> tuple[Side, Side]:
    """Both sides, snapshot below ``folder``.  Raises UserError for whatever cannot be compared."""
    pythons = [_python(wish.base_python), _python(wish.head_python)]
    environments = bool(wish.with_) or pythons[0].resolve() != pythons[1].resolve() or pythons[0] != pythons[1]
    if wish.base is None and not environments:
        told = "--base-python and --head-python are the same: " if wish.base_python or wish.head_python else ""
        raise UserError(
            f"{told}nothing to compare with: give a git revision as BASE, another --base-python, or --with LIBRARY==X"
        )
    top = snapshots.toplevel(wish.revisions)
    commits = [
        snapshots.commit_of(top, wish.head if wish.base is None else wish.base),
        snapshots.commit_of(top, wish.head),
    ]
    if not environments:
        _refuse_same(wish, commits)
    if wish.with_:
        pythons[1] = _with(wish.with_, pythons[1], folder / "with")
    named = [str(wish.base_python or ""), ", ".join(wish.with_) or str(wish.head_python or "")]
    homes = [_Environment(python, name) for python, name in zip(pythons, named, strict=True)]
    base = _side("base", wish.head if wish.base is None else wish.base, top, commits[0], homes[0], folder)
    head = _side("head", wish.head, top, commits[1], homes[1], folder)
    if not environments:
        _refuse_nothing_of_theirs(head, top, own)
    return base, head


def _refuse_same(wish: Wish, commits: Sequence[Mapping[str, Any]]) -> None:
    if commits[0]["id"] == commits[1]["id"] and not commits[1]["dirty"]:
        what = f"{wish.base} and {wish.head or 'the working tree'}"
        raise UserError(f"{what} are the same code ({_short(commits[0])}): nothing to compare")


def _refuse_nothing_of_theirs(side: Side, top: Path | None, own: Sequence[str]) -> None:
    """Without implementations of one's own, a repository that is not this suite would be measured on neither side."""
    if not _is_suite(side.code) and not own:
        raise UserError(
            f"{top} holds no implementations of this suite: say which code of it to compare, --impl path/to/file.py:Class"
        )


@contextlib.contextmanager
def prepared(wish: Wish, settings: Settings) -> Iterator[tuple[tuple[Side, Side], tuple[Described, Described]]]:
    """Both sides with what they say of themselves; their snapshots go when the context ends."""
    with tempfile.TemporaryDirectory(prefix="backprop-bench-") as folder:
        base, head = make(wish, Path(folder), settings.own)
        if settings.own and settings.impls and base.python == head.python and not _is_suite(head.code):
            raise UserError(f"--impls {','.join(settings.impls)}: these are the installed ones, the same on both sides")
        before = describe(base, settings)
        try:
            after = describe(head, settings)
        except UserError as error:  # all that BASE has is gone in HEAD: a failure, with its reason
            after = Described({}, [], [], before.facts, error=str(error))
        same_machine(before, after, base.python != head.python)
        yield (base, head), (before, after)


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
    answer = _ask(side, asdict(settings) | {"own": own})
    if "error" in answer:
        raise UserError(f"{side.name}, {side.told}: {answer['error']}")
    cells = {}
    for row in answer["cells"]:
        setting, point = _setting(row, settings), _point(row)
        for phase in row["phases"]:
            cell = Cell(setting, point, phase)
            cells[cell.label] = cell
    return Described(cells, answer["absent"], answer["left_out"], answer["facts"], answer["known"])


def _ask(side: Side, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer comes in a file: what an implementation prints while it is imported is none."""
    with tempfile.TemporaryDirectory(prefix="backprop-bench-") as folder:
        answer = Path(folder) / "answer.json"
        found = subprocess.run(
            [str(side.python), "-P", str(Path(__file__).with_name("describe.py")), str(answer)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            cwd=side.code,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, _plan_paths(side)))},
        )
        try:
            told: dict[str, Any] = json.loads(answer.read_text())
        except (OSError, ValueError) as error:
            last = (found.stderr.strip().splitlines() or ["no word of why"])[-1]
            raise UserError(f"{side.name}, {side.told}, cannot be measured: {last}") from error
    return told


def _plan_paths(side: Side) -> list[Path]:
    """Where its own plan is found: its own code if it is of this suite, else ours."""
    return [*side.paths] if _is_suite(side.code) else [*side.paths, OURS]


def _setting(row: Mapping[str, Any], settings: Settings) -> Setting:
    entry = Entry(row["impl"], row["target"], row["summary"], tuple(row["requires"]), object_bytes=row["object_bytes"])
    return Setting(entry, row["device"], row["dtype"], settings.threads)


def _point(row: Mapping[str, Any]) -> Point:
    network = Network(tuple(row["layers"]), row["activation"], row["loss"])
    return Point(network, row["n"], tuple(row["axes"]), row["heldout"], optimizer=row["optimizer"])


def _own(side: Side, target: str) -> str:
    """A user's own implementation as a side has it.  Raises UserError if it is not in the side's code."""
    path, _, name = target.rpartition(":")
    if not path or not name:
        raise UserError(f"--impl {target}: give path/to/file.py:Class or package.module:Class")
    if not path.endswith(".py"):
        return target
    relative = Path(path)
    if relative.is_absolute():
        if side.top is None:
            return target
        if not relative.resolve().is_relative_to(side.top.resolve()):
            raise UserError(f"--impl {target} lies outside {side.top}: it would be the same on both sides")
        relative = relative.resolve().relative_to(side.top.resolve())
    inside = side.code / relative
    if not inside.is_file():
        raise UserError(f"{side.name}, {side.told}, has no {relative}; --impl paths are those of the repository's top")
    return f"{inside}:{name}"


@dataclass(frozen=True)
class _Environment:
    python: Path
    named: str  # what people asked for; empty: the usual one


def _side(
    name: str,
    revision: str | None,
    top: Path | None,
    commit: Mapping[str, Any],
    environment: _Environment,
    folder: Path,
) -> Side:
    code = folder / name / "code"
    code.mkdir(parents=True)
    if top:
        snapshots.take(top, revision, commit["id"], code)
    home = folder / name / "home"
    home.mkdir()
    impls = code / "impls" if _is_suite(code) else OURS / "impls"
    for link, target in {
        "impls": impls,
        "bench": OURS / "bench",
        "backprop_files.py": OURS / "backprop_files.py",
    }.items():
        (home / link).symlink_to(target)
    return Side(name, _told(revision, top, commit, environment.named), commit, environment.python, code, home, top)


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


def refuse_foreign(side: Side, files: Sequence[str]) -> None:
    """Raise UserError if a worker has imported, from the repository itself, a file that the snapshot holds as well."""
    if side.top is None:
        return
    top = side.top.resolve()
    for name in files:
        path = Path(name).resolve()
        if path.is_relative_to(OURS / "bench") or path == OURS / "backprop_files.py":
            continue  # the harness is this installation's on both sides
        if path.is_relative_to(top) and (side.code / path.relative_to(top)).is_file():
            raise UserError(
                f"{side.name}, {side.told}: {path.relative_to(top)} was imported from the working tree, not from the "
                "revision: it is installed from there; give the implementation as --impl path/to/file.py:Class, with its "
                "package at the repository's top or in src/"
            )


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
    told = f"--with {' '.join(requirements)}"
    seen = json.loads(_output(told, str(python), "-c", find))
    _output(told, str(python), "-m", "venv", str(folder))
    fresh = folder / "bin" / "python"
    (Path(json.loads(_output(told, str(fresh), "-c", find))[0]) / "_seen.pth").write_text("\n".join(seen) + "\n")
    _output(told, str(fresh), "-m", "pip", "install", "-q", *requirements)
    return fresh


def _output(told: str, *command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if found.returncode:
        words = [line for line in found.stderr.splitlines() if line.startswith("ERROR")]
        words = words or (found.stderr or found.stdout).strip().splitlines() or ["no word of why"]
        raise UserError(f"{told}: {words[-1].removeprefix('ERROR: ')}")
    return found.stdout
