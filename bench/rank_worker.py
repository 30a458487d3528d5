"""What a rank runs: join the others, do the launch's work in lockstep, and leave word of where it is.

``bench.ranks`` starts it, by torchrun or directly; ``RANK`` in the environment says which one it is, the launch's
``plan.json`` all else.  The work is a ``module:function`` that is given a ``Desk`` and the plan's arguments, and returns the
rows of rank 0.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backprop_files import write_json
from bench.parent import die_with_parent
from bench.ranks import FOLDER, PROGRESS_BYTES

Row = dict[str, Any]


# --- the process ------------------------------------------------------------------------------------------------------


class Progress:
    """Where the rank is, for the launcher to read: a line that is written anew at every step it begins."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.steps = 0
        self.where = "the start"
        self._file = os.open(folder / f"rank-{rank}.progress", os.O_WRONLY | os.O_CREAT, 0o644)

    def at(self, where: str) -> None:
        """The rank is about to do this, which may be waiting for the others."""
        self.steps += 1
        self.where = where
        line = f"{self.steps} {os.getpid()} {where}".encode()[: PROGRESS_BYTES - 1]
        os.pwrite(self._file, line.ljust(PROGRESS_BYTES - 1) + b"\n", 0)


@dataclass
class Desk:
    """What the work finds in a rank's process."""

    entry: Any  # the implementation's registry.Entry
    rank: int  # of this process
    processes: int
    device: str
    dtype: str
    seed: int
    progress: Progress

    def prepare(self, problem: Any) -> Any:
        """The implementation on a problem, whole: it takes its own rows."""
        return self.entry.prepare(problem, self.device, self.dtype, 1)

    def named(self) -> str:
        """For messages."""
        return f"rank {self.rank} of {self.processes}"


def main() -> None:
    """Do the plan; exits at once if anything is wrong, since others wait in collectives and libraries in their farewells."""
    die_with_parent()
    rank, folder = int(os.environ["RANK"]), Path(os.environ[FOLDER])
    _print_into(folder / f"rank-{rank}.log")
    progress = Progress(folder, rank)
    try:
        plan = json.loads((folder / "plan.json").read_text())
        _pin(plan["members"][rank]["cores"])
        rows = _work(plan, rank, progress)
        if rank == 0:
            write_json(folder / "rows.json", rows)
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())[:400]
        named = reason if type(error).__name__ in ("Mismatch", "UserError") else f"{type(error).__name__}: {reason}"
        write_json(folder / f"rank-{rank}.failed", {"at": time.time(), "where": progress.where, "reason": named})
        _exit(1)
    _exit(0)


def _work(plan: Mapping[str, Any], rank: int, progress: Progress) -> list[Row]:
    from impls import registry
    from impls.interface import Meeting

    member = plan["members"][rank]
    module, _, name = plan["work"].partition(":")
    progress.at("importing the library")
    entry = registry.find(plan["impl"])
    implementation = entry.load()
    progress.at("the meeting of all ranks")
    implementation.join(Meeting(rank, plan["processes"], plan["place"], member["address"], member["interface"]))
    desk = Desk(entry, rank, plan["processes"], plan["device"], plan["dtype"], plan["seed"], progress)
    rows: list[Row] = getattr(importlib.import_module(module), name)(desk, plan["arguments"])
    progress.at("the parting of all ranks")
    implementation.leave()
    return rows


def _exit(code: int) -> None:
    """Without the farewells of libraries, in which some wait for others, and some abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _print_into(log: Path) -> None:
    """All that this process prints, libraries' own words included."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _pin(cores: Sequence[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError) as error:  # a container may forbid it
        print(f"not pinned to {cores}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
