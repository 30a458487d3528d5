"""The pytest side of a sweep: options, collection, and pytest-benchmark as the recorder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backprop_files import SCHEMA_VERSION, UserError
from bench import machine, plan, reference_kernel
from bench.cells import Cell
from bench.plan import Job, Settings
from bench.process import CellFailed, WorkerFailed
from bench.recorder import Enough, LeftOut, Measured, Recorder
from bench.store import Store
from impls import datasets

SWEEP_FILE = Path(__file__).with_name("test_sweep.py")


class Replay:
    """A timer for pytest-benchmark that replays durations measured elsewhere: 0, d₁, 0, d₂, …"""

    def __init__(self) -> None:
        self.durations: Iterator[float] = iter(())
        self._running = False

    def load(self, durations: list[float]) -> None:
        """The durations of the rounds to come."""
        self.durations, self._running = iter(durations), False

    def __call__(self) -> float:
        self._running = not self._running
        return 0.0 if self._running else next(self.durations)


class Sweep:
    """A plan under pytest: names the cells, records them, and puts every finished one on disk."""

    def __init__(self, recorder: Recorder, store: Store | None, config: pytest.Config) -> None:
        self.recorder = recorder
        self.store = store
        self.refusal: str | None = None
        self._config = config
        finished = store.finished() if store else set()
        if store:
            recorder.notes += store.seam(json.loads(json.dumps(machine.facts())))
        self._cells: dict[str, tuple[Job, Cell]] = {}
        for job in recorder.plan.jobs:
            for cell in job.cells:
                name = f"{cell.label} pass={job.pass_number}"
                if name not in finished:
                    self._cells[name] = (job, cell)

    def expect(self, names: Iterable[str]) -> None:
        """Tell the recorder which cells will be asked for: what is deselected is not measured."""
        jobs = {id(job): job for job, _ in map(self._cells.__getitem__, names)}
        self.recorder.expect(jobs.values())

    @property
    def names(self) -> list[str]:
        """Of all cells still to be measured."""
        return list(self._cells)

    def record(self, name: str, benchmark: Any, replay: Replay) -> None:
        """Measure a cell and hand its rounds to pytest-benchmark."""
        job, cell = self._cells[name]
        try:
            measured: Measured = self.recorder.measure(job, cell)
        except Enough:
            pytest.skip("precise enough, or others need the time more")
        except LeftOut as reason:
            pytest.skip(str(reason))
        except (CellFailed, WorkerFailed) as error:
            pytest.fail(f"{cell.label}: {error}", pytrace=False)
        benchmark.group = job.point.label
        benchmark.extra_info.update(measured.extra_info)
        replay.load(measured.seconds)
        benchmark.pedantic(_nothing, rounds=len(measured.seconds), iterations=1, warmup_rounds=0)
        if self.store and benchmark.stats:
            try:
                self.store.keep(name, self._json([benchmark.stats]))
            except UserError as error:  # a full disk: what is finished stays, and there is no sense in measuring more
                self.refusal = str(error)
                pytest.exit(self.refusal, returncode=2)

    def settle(self) -> None:
        """Gather finished cells into one file for each implementation and pass."""
        if not self.store:
            return
        try:
            self.store.merge(self.extra())
        except UserError as error:  # loose cells stay as they are, readers take them too
            self.refusal = self.refusal or str(error)

    def extra(self) -> dict[str, Any]:
        """Our top-level object of the JSON."""
        recorder = self.recorder
        return {
            "schema_version": SCHEMA_VERSION,
            "run": recorder.plan.run,
            "left_out": recorder.left_out,
            "failed": recorder.failed,
            "notes": recorder.notes,
        }

    def _json(self, stats: list[Any]) -> dict[str, Any]:
        """A pytest-benchmark document of these benchmarks, as its own hooks make it."""
        if not hasattr(self, "_commit"):
            hook = self._config.hook
            self._commit = hook.pytest_benchmark_generate_commit_info(config=self._config)
            self._machine = hook.pytest_benchmark_generate_machine_info(config=self._config)
            hook.pytest_benchmark_update_machine_info(config=self._config, machine_info=self._machine)
        document: dict[str, Any] = self._config.hook.pytest_benchmark_generate_json(
            config=self._config,
            benchmarks=stats,
            include_data=True,
            machine_info=self._machine,
            commit_info=self._commit,
        )
        document["backprop_bench"] = self.extra()
        return document


def _nothing() -> None:
    """What pytest-benchmark calls while the timer replays."""


_SWEEP = pytest.StashKey[Sweep]()


def sweep_of(config: pytest.Config) -> Sweep:
    """The sweep of this session; planned at the first call.  Raises pytest.UsageError for bad options."""
    if _SWEEP not in config.stash:
        try:
            directory = config.getoption("run_dir")
            store = Store(Path(directory)) if directory else None
            config.stash[_SWEEP] = Sweep(Recorder(plan.make(settings_of(config))), store, config)
        except UserError as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[_SWEEP]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the sweep; they act with --benchmark-only."""
    group = parser.getgroup("backprop-bench", "the backpropagation sweep (with --benchmark-only)")
    group.addoption("--profile", default="quick", help="smoke, quick (default), full, gpu, gpu-quick or gpu-large")
    group.addoption(
        "--impls", type=_names, default=(), help="implementations, comma-separated (default: the profile's)"
    )
    group.addoption("--impl", action="append", default=[], help="your own: file.py:Class or package.module:Class")
    group.addoption("--device", default="cpu", help="cpu (default), cuda[:i] or gpu[:i]")
    group.addoption("--threads", type=int, default=1, help="cores to measure with (default 1)")
    group.addoption("--dtype", default="", help="see backprop-bench list (default: float32 where there is one)")
    group.addoption(
        "--phases",
        type=_names,
        default=plan.ALL_PHASES,
        help="of step,forward,loss,backward,update,transfer,transfer-pinned",
    )
    group.addoption(
        "--optimizers",
        type=_names,
        default=(),
        help="optimizers, comma-separated (default: gradient-descent; full: all)",
    )
    group.addoption("--sweep-seed", type=int, default=0, help="seed of problems, joint design and order (default 0)")
    group.addoption(
        "--data", default="synthetic", help="synthetic (default), digits, or a data file (.csv, .npz) of that shape"
    )
    group.addoption(
        "--passes", type=int, default=0, help="fresh processes for each implementation (default: the profile's)"
    )
    group.addoption("--budget", type=float, default=None, help="seconds for the whole sweep (default: the profile's)")
    group.addoption(
        "--cell-seconds",
        type=float,
        default=None,
        help="seconds each cell is timed in a pass (default: the profile's)",
    )
    group.addoption(
        "--precision",
        type=float,
        default=None,
        help="further passes until 95 %% intervals are so narrow: 0.02 is ±2 %%",
    )
    group.addoption(
        "--kernels", type=_names, default=reference_kernel.USUAL, help="reference kernels to time beside the rounds"
    )
    group.addoption("--run-dir", default="", help="put every finished cell on disk there, and leave out those it has")


def settings_of(config: pytest.Config) -> Settings:
    """The options as settings."""
    option = config.getoption
    return Settings(
        profile=option("profile"),
        impls=option("impls"),
        own=tuple(option("impl")),
        device=option("device"),
        threads=option("threads"),
        dtype=option("dtype"),
        phases=option("phases"),
        seed=option("sweep_seed"),
        data=datasets.located(option("data")),
        passes=option("passes"),
        budget_s=option("budget"),
        cell_s=option("cell_seconds"),
        precision=option("precision"),
        kernels=option("kernels"),
        optimizers=option("optimizers"),
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The sweep is collected only with --benchmark-only, and the tests only without."""
    only = config.getoption("benchmark_only")
    if collection_path == SWEEP_FILE and not only:
        return True
    return True if only and collection_path == config.rootpath / "tests" else None


@pytest.fixture(scope="session")
def sweep(request: pytest.FixtureRequest) -> Iterator[Sweep]:
    """The session's sweep, its workers ended afterwards whatever happens."""
    found = sweep_of(request.config)
    items = [item for item in request.session.items if item.path == SWEEP_FILE and isinstance(item, pytest.Function)]
    found.expect(str(item.callspec.params["cell"]) for item in items)
    try:
        try:
            found.recorder.open()
        except UserError as error:
            found.refusal = str(error)
            pytest.exit(str(error), returncode=2)
        yield found
    finally:
        found.recorder.close()
        found.settle()


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add what pytest-benchmark does not record."""
    machine_info.update(machine.facts())


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Add our top-level object."""
    if _SWEEP in config.stash:
        output_json["backprop_bench"] = config.stash[_SWEEP].extra()


@pytest.hookimpl(tryfirst=True)
def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what will be measured, and what not."""
    if not config.getoption("benchmark_only"):
        return []
    with contextlib.suppress(pytest.UsageError):
        found = sweep_of(config)
        count = len(found.recorder.plan.left_out)
        rows = [f"backprop-bench: {len(found.names)} cells × passes" + (f", {count} left out" if count else "")]
        return rows + [
            f"  left out: {row['impl']}: {row['cell']}: {row['reason']}" for row in found.recorder.plan.left_out[:20]
        ]
    return []
