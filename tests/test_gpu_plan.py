"""What is planned for an accelerator, how its cells are kept honest and how they fail: from fakes, without one."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from bench import cells, gpu, machine, plan, process, profiles, repeated, rotation
from bench.cells import Setting
from bench.device_watch import State
from bench.plan import Settings
from bench.recorder import Recorder
from bench.rotation import Rotation
from bench.visits import Task
from bench.worker import Worker
from impls import conformance, counts, registry
from impls.interface import TRANSFERS, Network
from impls.problem import make_problem
from impls.registry import Entry
from tests import fake_gpu
from tests.fake_gpu import H200, T4

OWN = Path(__file__).parent / "own_implementations"


@pytest.fixture(autouse=True)
def fresh() -> None:
    fake_gpu.forget()


@pytest.fixture
def h200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has one, with libraries that drive it."""
    fake_gpu.install(tmp_path, monkeypatch)
    monkeypatch.setattr(machine, "device_missing", lambda device: None)
    monkeypatch.setattr(machine, "memory_bytes", lambda: {"total": 256 << 30, "available": 250 << 30})
    able = [
        replace(e, accelerator_dtypes=("tf32", "bfloat16"), transfers=TRANSFERS) if "torch" in e.requires else e
        for e in registry.ENTRIES
    ]
    monkeypatch.setattr(registry, "ENTRIES", tuple(able))
    return monkeypatch


# --- bad input, one line each -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(device="cuda:1"), "device 'cuda:1' is absent: 1 NVIDIA device is visible here (0: NVIDIA H200)"),
        (Settings(device="cuda:"), "unknown device 'cuda:': did you mean 'cuda'"),
        (Settings(device="cpu:1"), "unknown device 'cpu:1': did you mean 'cpu'"),
        (Settings(dtype="tf32"), "dtype 'tf32' is one of accelerators: the CPU has none; give --device cuda or gpu"),
        (Settings(dtype="tf23", device="cuda"), "unknown dtype 'tf23': did you mean 'tf32'"),
        (Settings(phases=("transfers",)), "unknown phase 'transfers': did you mean 'transfer'"),
    ],
)
def test_bad_settings_say_what_is_wrong(settings: Settings, words: str, h200: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        plan.make(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_gpu_is_said_in_one_line() -> None:
    if machine.accelerators():
        pytest.skip("a GPU is here")
    with pytest.raises(UserError, match=r"device 'cuda' is absent: no NVIDIA device or driver on this machine; 'cpu'"):
        plan.check_device("cuda")


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16"])
def test_a_chip_without_a_dtype_refuses_it(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, monkeypatch, (H200, T4))
    plan.check_dtype(dtype, "cuda:0")
    with pytest.raises(UserError, match=rf"dtype '{dtype}' needs compute capability 8.0 or newer: gpu:1 is a Tesla T4"):
        plan.check_dtype(dtype, "gpu:1")


def test_what_a_library_lacks_is_the_reason_no_cell_is_left(h200: pytest.MonkeyPatch) -> None:
    h200.setattr(machine, "device_missing", lambda device: "torch 2.13.0+cpu is the CPU build")
    with pytest.raises(UserError, match=r"no cell is selected: torch 2.13.0\+cpu is the CPU build"):
        plan.make(Settings(device="cuda", impls=("torch",)))


def test_a_busy_gpu_is_a_note_and_no_error(tmp_path: Path, h200: pytest.MonkeyPatch) -> None:
    uuid = H200.partition(",")[0]
    fake_gpu.install(tmp_path, h200, (H200.replace("143000, 4,", "133000, 10240,"),), (f"{uuid}, 99",))
    made = plan.make(Settings(profile="smoke", device="cuda", impls=("torch",)))
    assert made.jobs
    assert [note for note in made.notes if "1 other process (pid 99) hold 10.0 GiB" in note]


# --- dtypes, transfers, memory ----------------------------------------------------------------------------------------


def planned(**settings: Any) -> plan.Plan:
    return plan.make(Settings(profile="smoke", impls=("torch",), passes=1, **settings))


def test_dtypes_are_those_of_the_device(h200: pytest.MonkeyPatch) -> None:
    assert {job.setting.dtype for job in planned(device="cuda", dtype="tf32").jobs} == {"tf32"}
    assert {job.setting.dtype for job in planned(device="cuda").jobs} == {"float32"}
    with pytest.raises(UserError, match="numpy has no device 'cuda'"):
        plan.make(Settings(impls=("numpy",), device="cuda", dtype="tf32"))


def test_transfers_come_along_on_an_accelerator_along_the_examples(h200: pytest.MonkeyPatch) -> None:
    jobs = planned(device="cuda").jobs
    moving = [job for job in jobs if set(TRANSFERS) & set(job.phases)]
    assert moving
    assert all("examples" in job.point.axes and set(TRANSFERS) <= set(job.phases) for job in moving)
    assert {job.point.n for job in moving} == {*profiles.find("smoke").usual.examples}


def test_transfers_are_measured_on_the_cpu_only_if_asked_for(h200: pytest.MonkeyPatch) -> None:
    assert not any(set(TRANSFERS) & set(job.phases) for job in planned().jobs)
    asked = planned(phases=("transfer",)).jobs
    assert {job.phases for job in asked} == {("transfer",)}
    assert not any(set(TRANSFERS) & set(job.phases) for job in planned(device="cuda", phases=("step",)).jobs)


def test_loops_of_a_job_are_its_step_its_phases_and_each_transfer(h200: pytest.MonkeyPatch) -> None:
    (job, *_) = planned(device="cuda").jobs
    for phases, loops in [
        (("step",), 1),
        (("step", "forward", "backward"), 2),
        (("step", *TRANSFERS), 3),
        (("forward", "transfer"), 2),
    ]:
        assert plan._loops(replace(job, phases=phases)) == loops


def test_what_does_not_fit_the_devices_free_memory_is_left_out(tmp_path: Path, h200: pytest.MonkeyPatch) -> None:
    fake_gpu.install(tmp_path, h200, (H200.replace("143000, 4,", "1, 143770,"),))
    reasons = {row["reason"] for row in planned(device="cuda").left_out}
    assert reasons
    assert all("GiB on cuda, 0.0 GiB are free" in reason for reason in reasons)
    fake_gpu.install(tmp_path, h200)
    h200.setattr(machine, "memory_bytes", lambda: {"total": 1 << 20, "available": 1 << 20})
    assert all("GiB on the host" in row["reason"] for row in planned(device="cuda").left_out)


def test_a_devices_estimate_and_the_hosts_are_the_whole() -> None:
    entry, point = registry.find("torch"), profiles.points(profiles.find("quick"), registry.find("torch"), 0)[-1]
    whole = cells.bytes_estimate(Setting(entry, "cpu", "float32", 1), point)
    device = cells.bytes_estimate(Setting(entry, "cuda", "float32", 1), point)
    assert device + cells.host_bytes(point) == whole
    assert cells.bytes_touched(Setting(entry, "cuda", "float32", 1), point) < device


def test_the_profile_of_a_gpu_reaches_8192_and_starts_small() -> None:
    entry = registry.find("torch")
    for name in ("gpu", "gpu-quick", "gpu-large"):
        points = profiles.points(profiles.find(name), entry, 0)
        assert len({point.label for point in points}) == len(points)
    points = profiles.points(profiles.find("gpu"), entry, 0)
    assert max(point.network.width for point in points) == 8192
    # launching takes 150 µs and float32's products 50 TFLOP/s: an axis needs cells below the crossover and far beyond
    crossover = 150e-6 * 50e12 / 6
    for name in ("gpu", "gpu-quick"):
        for axis in ("examples", "width"):
            sizes = [p.n * p.network.m for p in profiles.points(profiles.find(name), entry, 0) if axis in p.axes]
            assert sum(size < crossover / 5 for size in sizes) >= 2
            assert sum(size > 5 * crossover for size in sizes) >= 2
            assert max(sizes) > 25 * crossover
    assert any(point.n == point.network.width == 8192 for point in points)
    assert min(point.network.width for point in points) == 16
    large = profiles.points(profiles.find("gpu-large"), entry, 0)
    assert any(point.n == point.network.width == 8192 and point.network.activation == "relu" for point in large)


def test_one_pass_of_the_gpu_runs_fits_their_time(h200: pytest.MonkeyPatch) -> None:
    names = tuple(entry.name for entry in gpu.able(on_cpu=False))
    assert "torch" in names
    assert "torch-compile" not in names
    for run in gpu.RUNS:
        if not run.on_cpu:
            made = plan.make(replace(gpu.settings_of(run, "cuda", run.seconds), impls=("torch",)))
            assert not made.left_out
            assert plan.Budget(made).needed_for_one_pass() * len(names) < run.seconds


# --- caches: copies in turn -------------------------------------------------------------------------------------------


MIB = 1 << 20


@pytest.mark.parametrize(
    ("device", "one", "cache", "free", "count"),
    [
        ("cpu", 1 * MIB, 50 * MIB, None, 1),
        ("cuda", 1024, 50 * MIB, 100 << 30, rotation.MOST),  # launches are what is measured
        ("cuda", 15 * MIB, 50 * MIB, 100 << 30, 10),
        ("cuda", 400 * MIB, 50 * MIB, 100 << 30, 1),  # does not stay in the cache anyway
        ("cuda", 40 * MIB, None, 100 << 30, 10),
        ("cuda", 15 * MIB, 50 * MIB, 400 * MIB, 1),  # memory first
        ("gpu", 15 * MIB, 50 * MIB, None, 10),
    ],
)
def test_copies_together_exceed_the_cache(
    device: str, one: int, cache: int | None, free: int | None, count: int
) -> None:
    assert rotation.sets_for(device, one, cache, free) == count


class Copy:
    """Notes what it was asked."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def __getattr__(self, method: str) -> Callable[[], None]:
        return lambda: self.log.append(f"{self.name}.{method}")


def test_a_block_goes_through_the_copies_and_waits_for_the_last() -> None:
    log: list[str] = []
    found = Rotation([Copy("a", log), Copy("b", log)])
    step, wait = found.call("step"), found.waiting
    for _ in range(3):
        step()
    wait()
    assert log == ["a.step", "b.step", "a.step", "a.synchronize"]


def test_phases_of_a_step_stay_with_their_copy() -> None:
    log: list[str] = []
    found = Rotation([Copy("a", log), Copy("b", log)])
    calls = [found.call("forward"), found.call("backward")]
    for _ in range(2):
        for call in calls:
            call()
            found.waiting()
    assert log == [
        f"{name}.{what}" for name in "ab" for phase in ("forward", "backward") for what in (phase, "synchronize")
    ]


def test_a_single_copy_is_called_as_it_is() -> None:
    class One:
        def step(self) -> None: ...

        def synchronize(self) -> None: ...

    one = One()
    assert Rotation([one]).call("step") == one.step
    assert Rotation([one]).waiting == one.synchronize


def test_copies_stop_where_making_them_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    now = iter([0.0, 0.2, 0.4, 0.6])
    monkeypatch.setattr("bench.rotation.time.monotonic", lambda: next(now))
    made = rotation.copies(Copy("a", log), 16, lambda: Copy("b", log))
    assert len(made) == 3
    assert log == ["b.step", "b.synchronize"] * 2


def test_what_compiles_for_long_has_one_copy() -> None:
    point = profiles.points(profiles.find("smoke"), registry.find("torch"), 0)[0]
    sets = {
        name: cells.input_sets(Setting(registry.find(name), "cuda", "float32", 1), point, 50 * MIB, 100 << 30)
        for name in ("torch", "torch-compile")
    }
    assert sets == {"torch": rotation.MOST, "torch-compile": 1}


# --- large batches of few examples, held to the reference -------------------------------------------------------------


@pytest.mark.parametrize("n", [6, 12, 17])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_reference_of_repeated_examples_is_that_of_the_whole_batch(n: int, loss: str) -> None:
    few = make_problem(Network((5, 7, 4), "tanh", loss), 6, seed=1)
    whole = repeated.problem(few, n)
    assert whole.n == n
    found, direct = repeated.expected(few, whole, "float64"), conformance.Expected.of(whole, "float64")
    assert found.loss == pytest.approx(direct.loss, rel=1e-13)
    for a, b in zip(found.gradients, direct.gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-15)


def test_only_an_accelerators_large_cells_repeat_examples() -> None:
    small, large = Network((64, 64, 10)), Network((64, 8192, 8192, 10), "relu")
    assert repeated.distinct(large, 8192, "cpu") == 8192
    assert repeated.distinct(small, 256, "cuda") == 256
    few = repeated.distinct(large, 8192, "cuda")
    assert 1 < few < 64
    assert counts.total(large, few) <= 1.5 * repeated.OPERATIONS


# --- out of memory ends a cell, not the process -----------------------------------------------------------------------


def ask(worker: Any, **request: Any) -> dict[str, Any]:
    """As the process' own loop does."""
    from bench import worker as module

    answer, worker = module._answered(worker, request)
    if answer.get("kind") == "memory":
        worker.let_go(request.get("key"))
    return answer


def preparation(key: int, n: int, **more: Any) -> dict[str, Any]:
    usual = {"op": "prepare", "key": key, "layers": [5, 7, 4], "activation": "tanh", "loss": "mse", "phases": ["step"]}
    return usual | {"n": n} | more


def own_worker(name: str, **more: Any) -> Worker:
    start = {"impl": f"{OWN / 'accelerated.py'}:{name}", "device": "cpu", "dtype": "float64", "threads": 1, "seed": 0}
    return Worker(start | {"data": "synthetic", "kernels": ["product"], "ceilings": False} | more)


def instances_of(name: str) -> int:
    """How many are alive.  A user's file is imported anew for each: they have a class each of that name."""
    return sum(type(thing).__name__ == name for thing in gc.get_objects())


def test_out_of_memory_ends_that_cell_only() -> None:
    worker = own_worker("Starved")
    worker.synchronizes = True  # its check takes many steps
    told = ask(worker, **preparation(0, 128))
    assert (told["ok"], told["kind"]) == (False, "memory")
    assert "CUDA out of memory" in told["reason"]
    assert instances_of("Starved") == 0  # nothing of it is left
    assert ask(worker, **preparation(1, 32))["ok"]
    assert ask(worker, **preparation(2, 8))["ok"]
    told = ask(worker, op="visit", key=1, seconds=0.01, patience_s=0.01)
    assert (told["ok"], told["kind"]) == (False, "memory")
    assert instances_of("Starved") == 1
    assert set(worker.prepared) == {2}
    assert ask(worker, op="visit", key=2, seconds=0.01, patience_s=0.01)["phases"]["step"]["seconds"]


def test_a_sweep_goes_on_after_a_cell_without_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-only", "-p", "no:cacheprovider", "--profile", "smoke"]
    command += ["--passes", "1", "--phases", "step", "--impl", f"{OWN / 'accelerated.py'}:Starved"]
    command += ["--budget", "20", "--run-dir", str(tmp_path), "bench/test_sweep.py"]
    subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=OWN.parents[1])
    documents = [json.loads(path.read_text()) for path in tmp_path.glob("data/**/*.json")]
    measured = {entry["extra_info"]["n"] for document in documents for entry in document["benchmarks"]}
    failed = {row["cell"].rpartition("n=")[2] for document in documents for row in document["backprop_bench"]["failed"]}
    assert failed == {"32", "128"}
    assert measured == {8, 64}


# --- transfers, copies and what the files say of them -----------------------------------------------------------------


def test_transfers_are_timed_beside_the_step_and_held_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jax", raising=False)  # whose buffers nobody sees: memory would be told by nobody
    worker = own_worker("Moves")
    assert worker.entry.transfers == TRANSFERS
    told = worker.answer(preparation(0, 16, phases=["step", *TRANSFERS], input_sets=3, trace=True))["phases"]
    assert told["transfer"]["transfer_bytes"] == 16 * (5 + 4) * 8
    assert told["transfer-pinned"]["input_sets"] == 1
    assert told["step"]["input_sets"] == 3
    assert "transfer_bytes" not in told["step"]
    assert told["step"]["peak_bytes"] > 0
    assert told["transfer"]["peak_bytes"] is None
    rounds = worker.answer({"op": "visit", "key": 0, "seconds": 0.02, "patience_s": 0.02})["phases"]
    assert set(rounds) == {"step", *TRANSFERS}
    assert all(min(found["seconds"]) > 0 for found in rounds.values())


class Clock:
    """A device's clock that runs at half the speed of the wall's."""

    def __init__(self) -> None:
        self.marks = [0.0, 0.0]

    def mark(self) -> None:
        self.marks = [self.marks[1], time.perf_counter() / 2]

    def elapsed_s(self) -> float:
        return self.marks[1] - self.marks[0]


class Watch:
    """A device that is always at its usual clock."""

    def sample(self) -> State:
        return State(1.98e9, 55.0)


def test_files_hold_both_clocks_and_the_devices_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.device_clock.clock_for", lambda device, library: Clock())
    monkeypatch.setattr("bench.device_watch.watch_for", lambda device: Watch())
    monkeypatch.setattr("bench.reference_kernel.make", lambda device, library, names: {"product": lambda times: 1e-4})
    worker = own_worker("Moves", device="cuda")
    told = worker.answer(preparation(0, 16, phases=["step", "transfer"], input_sets=2))["phases"]
    rounds = worker.answer({"op": "visit", "key": 0, "seconds": 0.02, "patience_s": 0.02})["phases"]
    point = cells.Point(Network((5, 7, 4)), 16, ("examples",))
    for phase, sets in (("step", 2), ("transfer", 1)):
        cell = cells.Cell(Setting(worker.entry, "cuda", "float64", 1), point, phase)
        info = cells.measured(cell, "synthetic", 0, 1, {}, told[phase] | rounds[phase])
        seconds = rounds[phase]["seconds"]
        assert len(info["device_s"]) == len(info["clock_hz"]) == len(seconds)
        assert all(0 < device <= 0.51 * wall for device, wall in zip(info["device_s"], seconds, strict=True))
        assert set(info["clock_hz"]) == {1.98e9}
        assert (info["temperature_c"], info["throttled_rounds"], info["input_sets"]) == (55.0, 0, sets)
        assert ("transfer_bytes" in info) == (phase == "transfer")
    assert info["operations"]["transfer"] == {}


def test_a_device_that_will_not_stop_throttling_is_noted_once(tmp_path: Path) -> None:
    made = plan.make(Settings(profile="smoke", impls=("numpy",), passes=1))
    recorder = Recorder(made)
    try:
        job = made.jobs[0]
        task = Task(job.point, ("step",), 0.1, results={"step": {"throttled_kept": 3}})
        for _ in range(2):
            recorder._throttled(job, task)
    finally:
        recorder.close()
    assert [note for note in recorder.notes if "throttled" in note] == [
        "numpy cpu float32, pass 1: the device throttled (heat, or its power supply) and would not stop: such rounds were "
        "kept; cool it, or expect slower and wider results"
    ]


def test_a_run_with_transfers_is_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backprop_bench", "run", "--profile", "smoke", "--passes", "2", "--budget", "25"]
    command += ["--impl", f"{OWN / 'accelerated.py'}:Moves", "--phases", "step,transfer,transfer-pinned"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [e["extra_info"] for p in tmp_path.glob("data/**/*.json") for e in json.loads(p.read_text())["benchmarks"]]
    moved = [row for row in rows if row["phase"] in TRANSFERS]
    assert {row["phase"] for row in moved} == {*TRANSFERS}
    assert all(row["transfer_bytes"] == row["n"] * (64 + 10) * 4 for row in moved)
    for row in rows:
        assert row["device_s"] is None
        assert row["clock_hz"] is None
        assert (row["throttled_rounds"], row["input_sets"]) == (0, 1)


# --- list and doctor tell the truth -----------------------------------------------------------------------------------


def test_list_and_doctor_tell_of_the_gpu_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    import backprop_bench
    from bench import doctor

    busy = H200.replace("143000, 4,", "133000, 10240,")
    fake_gpu.install(tmp_path, monkeypatch, (busy,))
    monkeypatch.setattr(machine, "libraries", lambda: {"torch": "2.13.0+cu130"})
    monkeypatch.setitem(sys.modules, "pynvml", None)
    told = CliRunner().invoke(backprop_bench.app, ["list"]).output
    assert "accelerator 0: NVIDIA H200, memory 140.4 GiB, driver 580.159.03, compute capability 9.0" in told
    rows = {row["impl"]: row for row in json.loads(CliRunner().invoke(backprop_bench.app, ["list", "--json"]).output)}
    assert rows["torch"]["devices_here"] == ["cpu", "cuda"]
    assert rows["numpy"]["devices_here"] == ["cpu"]
    monkeypatch.setattr(doctor, "WATCH_S", 0.1)
    monkeypatch.setattr(doctor, "_threads", lambda name, threads: {"missing": "not looked at"})
    found = doctor.examine(1)
    assert found["devices"]["cuda"] == "ready"
    assert found["machine"]["accelerators"][0]["name"] == "NVIDIA H200"
    assert any("10.0 GiB" in warning for warning in found["warnings"])


def test_list_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    import backprop_bench

    monkeypatch.setattr(machine, "cards", list)
    rows = {row["impl"]: row for row in json.loads(CliRunner().invoke(backprop_bench.app, ["list", "--json"]).output)}
    assert rows["torch"]["devices_here"] == ["cpu"]
    assert rows["torch"]["devices_missing"]["cuda"] == "no NVIDIA device or driver on this machine"


# --- make gpu ---------------------------------------------------------------------------------------------------------


def test_the_gpu_sweep_imports_nothing_that_draws() -> None:
    """All that ``make gpu`` imports, in a process where pandas and matplotlib cannot be had, nor what draws with them."""
    block = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        allowed = name.partition('.')[0] not in {'pandas', 'matplotlib', 'jinja2', 'ruptures', 'analysis', 'pynvml', 'sklearn'}
        if not allowed:
            raise ImportError(f'{name} cannot be had here')
sys.meta_path.insert(0, Blocked())
"""
    code = block + (
        "import bench.gpu, bench.plugin, bench.worker, bench.recorder, bench.test_sweep, bench.device_watch\n"
        "from bench import ceilings, reference_kernel, memory, repeated\n"
        "import tests.test_conformance\n"
        "sys.argv = ['gpu', '--device', 'cuda:0']\n"
        "print(bench.gpu.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if not machine.accelerators():
        assert done.stdout.strip() == "2"
        assert "no NVIDIA device or driver" in done.stderr


def test_runs_share_the_time_and_leave_out_those_that_get_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("bench.gpu.time.monotonic", lambda: now[0])
    taken = []
    for run, budget_s in gpu.shares(300.0):
        taken.append((run.name, budget_s))
        now[0] += budget_s
    assert [name for name, _ in taken] == ["large-bfloat16", "float32", "bfloat16"]
    assert sum(seconds for _, seconds in taken) == pytest.approx(300.0)


def test_a_refused_run_does_not_end_the_others(h200: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rich.console import Console

    seen: list[tuple[str, Path, bool]] = []
    cores = machine.affinity()

    def sweep(settings: Settings, out: Path, resume: bool, console: Console) -> int:
        assert machine.affinity() == cores  # every run measures on the same core
        process.keep_off(process.pick_cpus(1))
        seen.append((settings.dtype, out, resume))
        if settings.dtype == "bfloat16":
            raise UserError("this chip has none")
        return 3 if settings.device == "cpu" else 0

    h200.setattr("bench.run.sweep", sweep)
    directory = gpu.directory_of("cuda", tmp_path)
    code = gpu.sweep("cuda", 1000.0, directory, Console(quiet=True))
    process.allow(cores)
    assert code == 3
    assert [dtype for dtype, _, _ in seen] == [run.dtype for run in gpu.RUNS]
    assert {out.parent for _, out, _ in seen} == {tmp_path / "nvidia-h200"}


def test_conformance_is_run_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(gpu, "TESTS", ("tests/test_device_clock.py",))
    assert gpu.conform(tmp_path, Console(quiet=True)) == 0
    told = (tmp_path / "conformance.txt").read_text()
    assert "passed" in told
    if not machine.accelerators():
        assert "no CUDA device is visible here" in told  # the reason is shown


def test_the_tests_of_a_gpu_are_there() -> None:
    assert all((gpu.ROOT / name).is_file() for name in gpu.TESTS)


@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if e.devices != ("cpu",)], ids=lambda e: e.name)
def test_transfers_are_declared_as_the_class_has_them(entry: Entry) -> None:
    if entry.missing():
        pytest.skip(str(entry.missing()))
    found = entry.load()
    has = TRANSFERS if getattr(found, "pins", False) else TRANSFERS[:1]
    assert entry.transfers == (has if hasattr(found, "transfer") else ())
