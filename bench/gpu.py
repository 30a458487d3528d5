"""Conformance on a GPU and its quick sweep, for a machine that has the libraries, but no network: ``make gpu``.

First the tests that need a GPU, whose words go into ``reports/<gpu's name>/conformance.txt``; what fails there does not
keep the cells from being measured, each of which is held to the reference by itself.  Then several runs, one after the
other, in the order of what is asked first, into ``reports/<gpu's name>/<run>``; the time that one leaves goes to the next.

Nothing is drawn: ``backprop-bench report reports/<gpu's name>/*/`` does that from the files, elsewhere, and neither pandas
nor matplotlib is imported here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from backprop_files import UserError, write_whole
from bench import machine, plan, process
from bench import run as runner
from bench.plan import Settings
from impls import registry
from impls.registry import Entry

#: Implementations that compile for longer than this are left to longer sweeps.
LONGEST_COMPILATION_S = 1.0
#: Tests of what runs on a GPU; where there is none, they are skipped with the reason.
TESTS = ("tests/test_devices.py", "tests/test_torch_graph.py", "tests/test_device_clock.py")
ROOT = Path(__file__).parents[1]
#: A run that would have less than this is left out.
LEAST_S = 25.0


@dataclass(frozen=True)
class Run:
    """One sweep of the several: at most so many seconds of it."""

    name: str
    profile: str
    dtype: str
    seconds: float
    on_cpu: bool = False


RUNS = (
    Run("large-bfloat16", "gpu-large", "bfloat16", 120.0),
    Run("float32", "gpu-quick", "float32", 130.0),
    Run("bfloat16", "gpu-quick", "bfloat16", 100.0),
    Run("cpu", "gpu-quick", "float32", 40.0, on_cpu=True),  # what the crossover needs beside
    Run("tf32", "gpu-quick", "tf32", 90.0),
)


def directory_name(model: str) -> str:
    """``NVIDIA H200`` as a directory's name: ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "gpu"


def able(on_cpu: bool) -> list[Entry]:
    """The implementations to measure: on the GPU all that are there and compile fast, on the CPU the quick sweep's."""
    found = [entry for entry in registry.ENTRIES if "quick" in entry.sweeps and not entry.missing()]
    if on_cpu:
        return [entry for entry in found if "cpu" in entry.devices]
    return [e for e in found if len({*e.devices} - {"cpu"}) and e.cost.first_call_s <= LONGEST_COMPILATION_S]


def settings_of(run: Run, device: str, budget_s: float) -> Settings:
    """What a run asks of the sweep."""
    names = tuple(entry.name for entry in able(run.on_cpu))
    where = "cpu" if run.on_cpu else device
    phases = ("step",) if run.on_cpu else plan.ALL_PHASES
    return Settings(run.profile, names, device=where, dtype=run.dtype, phases=phases, budget_s=budget_s)


def shares(seconds: float) -> Iterator[tuple[Run, float]]:
    """Every run with its seconds, asked for when it begins: its own, or what is left; without those that get too few."""
    deadline = time.monotonic() + seconds
    for run in RUNS:
        budget_s = min(run.seconds, deadline - time.monotonic())
        if budget_s >= LEAST_S:
            yield run, budget_s


def directory_of(device: str, reports: Path) -> Path:
    """Where all of a device goes.  Raises UserError where there is none."""
    plan.check_device(device)
    card = machine.card_of(device)
    assert card is not None  # else the device had been refused
    return reports / directory_name(card.name)


def conform(directory: Path, console: Console) -> int:
    """Run the tests that need a GPU; returns pytest's exit code.

    Without those of what compiles for minutes: ``pytest tests/test_devices.py -k torch-compile`` holds that to the reference.
    """
    slow = [entry.name for entry in registry.ENTRIES if entry.cost.first_call_s > LONGEST_COMPILATION_S]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *TESTS]
    chosen = " and ".join(f"not {name}" for name in slow)
    done = subprocess.run([*command, "-k", chosen], cwd=ROOT, capture_output=True, text=True)
    write_whole(directory / "conformance.txt", done.stdout + done.stderr)
    console.print(f"conformance: {(done.stdout.strip().splitlines() or ['pytest says nothing'])[-1]}", highlight=False)
    return done.returncode


def sweep(device: str, seconds: float, directory: Path, console: Console) -> int:
    """All runs; returns the first exit code that is not 0."""
    codes = []
    cores = machine.affinity()
    for run, budget_s in shares(seconds):
        process.allow(cores)  # the run before has moved this process off the cores that it measured on
        console.print(f"{run.name}: {budget_s:.0f} s", highlight=False)
        out = directory / run.name
        try:
            codes.append(
                runner.sweep(
                    settings_of(run, device, budget_s), out, resume=(out / "run.json").exists(), console=console
                )
            )
        except UserError as error:  # such as a chip without the dtype: the other runs are worth having
            console.print(f"{run.name}: left out: {error}", markup=False, highlight=False, soft_wrap=True)
        if codes and codes[-1] == runner.INTERRUPTED:
            break
    console.print(f"measured into {directory}; draw it anywhere: backprop-bench report {directory}/*/", soft_wrap=True)
    return next((code for code in codes if code), 0)


def main() -> int:
    """Parse, run, exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda[:i]")
    parser.add_argument("--seconds", type=float, default=420.0, help="for all runs together, beside the tests")
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    asked = parser.parse_args()
    try:
        console, directory = Console(), directory_of(asked.device, asked.reports)
        conforms = conform(directory, console)
        return sweep(asked.device, asked.seconds, directory, console) or conforms
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
