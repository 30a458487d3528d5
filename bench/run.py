"""A whole run into a directory: pytest runs the sweep in this process, with a progress bar in place of its output."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from backprop_files import UserError, write_json
from bench import plan
from bench.plan import Job, Settings
from bench.plugin import SWEEP_FILE, Sweep, sweep_of
from bench.process import check_threads
from bench.progress_bar import progress_bar
from bench.store import locked

INTERRUPTED, SOME_FAILED = 130, 3


class Watcher:
    """A pytest plugin that moves the progress bar and keeps hold of the sweep."""

    def __init__(self, progress: Progress, budget_s: float | None) -> None:
        self.progress = progress
        self.task = progress.add_task("planning", total=None, budget_s=budget_s)
        self.sweep: Sweep | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The sweep is planned: the bar knows its length."""
        self.sweep = sweep_of(session.config)
        self.sweep.recorder.watch = self._watch
        self.progress.update(self.task, total=len(session.items))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One cell more, measured, left out or failed."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.progress.advance(self.task)

    def _watch(self, job: Job) -> None:
        what = f"pass {job.pass_number} · {job.setting.entry.name} · {job.point.label}"
        self.progress.update(self.task, description=what)


def sweep(settings: Settings, out: Path, resume: bool, console: Console) -> int:
    """Measure into ``out``; returns the exit code (0, 3 where cells failed, 130 when interrupted).

    Raises UserError for bad settings, a directory in use or not writable, or an own implementation that is wrong.
    """
    planned = plan.make(settings)
    check_threads(settings.threads)
    with claimed(settings, out, resume), progress_bar(console) as progress:
        watcher = Watcher(progress, planned.budget_s)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = pytest.main(_arguments(settings, out), plugins=[watcher])
    return _exit_code(int(code), watcher.sweep, output.getvalue())


def _exit_code(code: int, found: Sweep | None, output: str) -> int:
    if found is None or code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        raise UserError(next((line for line in reversed(lines) if "rror" in line), "the sweep could not start"))
    if found.refusal:
        raise UserError(found.refusal)
    if code == pytest.ExitCode.INTERRUPTED:
        return INTERRUPTED
    return SOME_FAILED if found.recorder.failed else 0


def _arguments(settings: Settings, out: Path) -> list[str]:
    """The pytest command line for these settings: our plugin, nothing of the user's configuration."""
    arguments = ["-c", "/dev/null", "--rootdir", str(SWEEP_FILE.parents[1]), "-p", "bench.plugin", str(SWEEP_FILE)]
    arguments += ["--benchmark-only", "--benchmark-quiet", "-q", "-p", "no:cacheprovider", "-p", "no:warnings"]
    arguments += ["--run-dir", str(out), "--profile", settings.profile, "--data", settings.data]
    arguments += ["--impls", ",".join(settings.impls), "--device", settings.device, "--dtype", settings.dtype]
    arguments += ["--threads", str(settings.threads), "--phases", ",".join(settings.phases)]
    arguments += ["--passes", str(settings.passes), "--sweep-seed", str(settings.seed)]
    arguments += ["--kernels", ",".join(settings.kernels), "--optimizers", ",".join(settings.optimizers)]
    for target in settings.own:
        arguments += ["--impl", target]
    if settings.budget_s is not None:
        arguments += ["--budget", str(settings.budget_s)]
    if settings.cell_s is not None:
        arguments += ["--cell-seconds", str(settings.cell_s)]
    if settings.precision is not None:
        arguments += ["--precision", str(settings.precision)]
    return arguments


@contextlib.contextmanager
def claimed(settings: Settings, out: Path, resume: bool) -> Iterator[None]:
    """The directory for this run alone.  Refuses one that holds another run; remembers these settings in a fresh one."""
    if resume and not (out / "run.json").exists():
        raise UserError(f"{out}: nothing to resume there (no run.json)")
    with locked(out):
        _claim(settings, out, resume)
        yield


def _claim(settings: Settings, out: Path, resume: bool) -> None:
    record = out / "run.json"
    asked = json.loads(
        json.dumps({k: v for k, v in asdict(settings).items() if k not in ("budget_s", "precision", "cell_s")})
    )
    if resume:
        try:
            before = json.loads(record.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{record}: cannot be read ({error}); choose another --out") from error
        usual = json.loads(json.dumps(asdict(Settings())))  # of what an earlier version did not write down
        changed = [key for key in asked if before.get(key, usual[key]) != asked[key]]
        if changed:
            told = ", ".join(f"{key} was {before.get(key)!r}, is {asked[key]!r}" for key in changed)
            raise UserError(f"{out}: --resume wants the same settings: {told}")
        return
    if any(out.glob("data/**/*.json")):
        raise UserError(f"{out}: holds a run already; give --resume to finish it, or another --out")
    write_json(record, asked)


def default_out(settings: Settings) -> Path:
    """Where a run goes that was given no --out."""
    return Path("reports") / f"{settings.profile}-{time.strftime('%Y%m%d-%H%M%S')}"
