"""Experiments beside the sweeps: each puts one more of the article's claims to the test.

A new experiment is one file here, one of the same name in ``analysis.experiments``, and its name in ``backprop_files``.  The file
here has an ``EXPERIMENT``: what it asks, which tasks that takes, and how one task is measured, in a process of its own
kind (``bench.worker``: pinned, threads set before a library is imported).  Tasks are small, know their arguments as
plain data, and answer rows of plain data, which are on disk before the next task begins.  The file there reads these
rows and nothing else.  An experiment whose tasks take several processes starts them itself: ``launch``, in place of ``measure``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backprop_files import EXPERIMENTS, UserError
from impls.names import nearest

if TYPE_CHECKING:
    from bench.experiments.workbench import Workbench

NAMES: tuple[str, ...] = EXPERIMENTS
PROFILES = ("smoke", "quick", "full")
#: Measured alike unless others are named.
IMPLS = ("numpy", "torch", "jax")

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the user asked of an experiment; its tasks follow from it."""

    profile: str = "quick"
    impls: tuple[str, ...] = IMPLS  # empty: those that the experiment usually measures
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"
    seed: int = 0
    data: str = "digits"  # a name of impls.datasets or a file; for experiments that train on data
    architectures: tuple[str, ...] = ()  # workloads of impls.architectures; empty: every one
    ranks: tuple[int, ...] = ()  # of data-parallel launches; empty: the profile's


@dataclass(frozen=True)
class Task:
    """One piece of an experiment: measured at one go, kept whole, done once however often a run is resumed.

    ``key`` names it within the experiment.  Tasks of one implementation with the same ``pass_number`` share a process, so
    what is to show how processes differ repeats a task under several numbers.  ``arguments`` are plain JSON.

    ``needs`` are keys of earlier tasks: ``measure`` finds their rows among its arguments, as ``found``, and nothing is
    measured where one of them failed.  ``device`` is for a task that is no part of what is compared: it runs there
    whatever device the user asked for.
    """

    key: str
    impl: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pass_number: int = 1
    timeout_s: float = 300.0
    needs: tuple[str, ...] = ()
    device: str = ""


@dataclass(frozen=True)
class Site:
    """Where a task that starts processes of its own is done."""

    settings: Settings
    cores: tuple[int, ...]  # that they may have, the best first
    folder: Path  # for what is theirs alone; gone when the experiment is over
    cache: Path  # for compiled code


@dataclass(frozen=True)
class Experiment:
    """What is asked, in one line each for ``--list`` and the report, and how it is answered.

    ``tasks`` come in the order they are done.  ``measure`` runs in the worker and answers the task's rows; numbers in
    them are finite or None.  ``launch``, in its place, runs here and starts the processes it takes; it raises what
    ``bench.process`` raises.
    """

    name: str
    claim: str
    summary: str
    tasks: Callable[[Settings], list[Task]]
    measure: Callable[[Workbench, Mapping[str, Any]], list[Row]] | None = None
    launch: Callable[[Site, Task], list[Row]] | None = None
    impls: tuple[str, ...] = IMPLS  # measured unless others are named
    uses_data: bool = False  # whether Settings.data matters to it
    uses_architectures: bool = False  # whether Settings.architectures does


def find(name: str) -> Experiment:
    """The experiment of that name.  Raises UserError for an unknown one, with the nearest known one."""
    if name not in NAMES:
        raise UserError(nearest("experiment", name, NAMES))
    found: Experiment = importlib.import_module(f"bench.experiments.{name}").EXPERIMENT
    return found
