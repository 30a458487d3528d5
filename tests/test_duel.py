"""A duel's mechanics with real processes: what is measured, kept, failed and interrupted.  Nothing here judges times."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import comparison, load, ratios
from backprop_files import UserError
from bench import duel, sides
from bench.duel import Duel
from bench.plan import Settings
from bench.sides import Described
from tests import gate_check

SETTINGS = Settings(profile="smoke", impls=("numpy",), phases=("step",), seed=3)
WANTED = ("64-16-16-10", "64-32-10")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Duel]]:
    """A duel of two of numpy's cells, of one session."""
    monkeypatch.setattr(duel, "LOOKS", (1,))
    monkeypatch.setattr(duel, "MOST_ROUNDS", 6)
    affinity = os.sched_getaffinity(0)

    def made(change: Callable[[Path], None] = lambda impls: None, settings: Settings = SETTINGS, **more: Any) -> Duel:
        pair = gate_check.side("base", tmp_path / "s", False), gate_check.side("head", tmp_path / "s", True)
        change(pair[1].home / "impls")
        described = sides.describe(pair[0], settings), sides.describe(pair[1], settings)
        return Duel(pair, described, settings, tmp_path / "out", WANTED, cpus=[max(affinity)], **more)

    yield made
    os.sched_setaffinity(0, affinity)


def far() -> float:
    return time.monotonic() + 100


def test_rounds_stand_in_pairs_in_two_run_directories(make: Callable[..., Duel]) -> None:
    asked = make()
    asked.measure(lambda look: [], far())
    base, head = (load.load([asked.out / name]).entries for name in ("base", "head"))
    rows = ratios.pairs(base, head)
    assert sorted(rows["cell"]) == sorted(asked.cells)
    assert len(rows) == len(asked.cells) >= 2
    for a, b in zip(rows["seconds"], rows["seconds_head"], strict=True):
        assert len(a) == len(b) == 6
        assert np.all(a > 0)
    assert (base["peak_bytes"] > 0).all()
    assert sorted(base["peak_bytes"]) == sorted(head["peak_bytes"])
    assert comparison.compare(asked.out, 0.05).exit_code == 4  # one session tells nothing


def test_the_side_that_is_measured_is_the_sides_own_code(
    make: Callable[..., Duel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step that does ten times the work takes more than twice as long, whatever the machine does."""
    heavy = {"numpy": {f"{layers} horner-4 n=64": 9.0 for layers in WANTED}}
    monkeypatch.setenv("BACKPROP_BENCH_SLOWED", json.dumps(heavy))
    monkeypatch.setenv("BACKPROP_BENCH_CALIBRATED", str(tmp_path / "extra"))
    asked = make()
    asked.measure(lambda look: [], far())
    rows = ratios.pairs(*(load.load([asked.out / name]).entries for name in ("base", "head")))
    assert (rows["log_ratio"] > np.log(2)).all()


def test_a_cell_that_fails_in_head_is_kept_as_a_failure(make: Callable[..., Duel]) -> None:
    def wrong(impls: Path) -> None:
        text = (impls / "slowed.py").read_text()
        broken = text.replace(
            "self._inner: Any = own.prepare(",
            "if len(problem.network.layers) == 3:\n            "
            "raise RuntimeError('no such kernel')\n        self._inner: Any = own.prepare(",
        )
        assert broken != text
        (impls / "slowed.py").write_text(broken)  # fmt: skip

    asked = make(wrong)
    asked.measure(lambda look: [], far())
    found = comparison.compare(asked.out, 0.05)
    assert found.exit_code == 1
    assert any(
        "64-32-10" in reason and "failed in HEAD" in reason and "no such kernel" in reason for reason in found.reasons
    )
    assert any("64-16-16-10" in ratio.cell for ratio in found.cells)


def test_an_implementation_that_cannot_be_imported_in_head_fails_all_its_cells(make: Callable[..., Duel]) -> None:
    asked = make(lambda impls: (impls / "numpy_fast.py").write_text("raise ImportError('gone')\n") and None)
    asked.measure(lambda look: [], far())
    found = comparison.compare(asked.out, 0.05)
    assert found.exit_code == 1
    assert len(found.failed) == len(asked.cells)


def test_a_renamed_implementation_has_vanished(make: Callable[..., Duel]) -> None:
    def renamed(impls: Path) -> None:
        registry = impls / "registry.py"
        registry.write_text(registry.read_text().replace('"numpy-loop",', '"numpy-slowly",'))

    settings = Settings(profile="smoke", impls=("numpy", "numpy-loop"), phases=("step",))
    asked = make(renamed, settings)
    assert asked.vanished
    assert all(label.startswith("numpy-loop ") for label in asked.vanished)
    assert set(asked.vanished.values()) == {"removed or renamed"}
    assert not any(label.startswith("numpy-loop ") for label in asked.cells)


def test_a_pattern_that_fits_nothing_is_refused(make: Callable[..., Duel]) -> None:
    asked = make()
    with pytest.raises(UserError, match="--cells 65-: fits none of"):
        Duel(asked.sides, asked.described, SETTINGS, asked.out, ("65-",))


def test_a_base_without_the_implementation_is_refused(make: Callable[..., Duel]) -> None:
    asked = make()
    lacking = Described({}, ["numpi"], [], {}, ["numpy"])
    with pytest.raises(UserError, match="base, base: unknown implementation 'numpi': did you mean 'numpy'"):
        Duel(asked.sides, (lacking, asked.described[1]), SETTINGS, asked.out)


def test_what_was_finished_before_an_interruption_is_judged(
    make: Callable[..., Duel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duel, "LOOKS", (1, 2))
    asked = make()

    def interrupted(look: int) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked.measure(interrupted, far())
    found = comparison.compare(asked.out, 0.05)
    assert len(found.cells) == len(asked.cells)
    assert found.exit_code == 4


def test_only_cells_in_doubt_are_measured_again(make: Callable[..., Duel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duel, "LOOKS", (1, 2))
    asked = make()
    doubted = next(iter(asked.cells))
    asked.measure(lambda look: [doubted], far())
    rows = ratios.pairs(*(load.load([asked.out / name]).entries for name in ("base", "head")))
    assert rows.groupby("cell")["pass"].max().to_dict() == {label: 1 + (label == doubted) for label in asked.cells}


def test_a_head_without_a_library_tells_why_its_cells_are_gone(make: Callable[..., Duel]) -> None:
    asked = make()
    gone = {"impl": "numpy", "cell": "all", "reason": "numpy not installed"}
    empty = Described({}, [], [gone], asked.described[1].facts)
    found = Duel(asked.sides, (asked.described[0], empty), SETTINGS, asked.out)
    assert set(found.vanished.values()) == {"numpy not installed"}
    assert not found.cells


def test_a_failed_cell_is_told_once(make: Callable[..., Duel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duel, "LOOKS", (2,))
    asked = make(lambda impls: (impls / "numpy_fast.py").write_text("raise ImportError('gone')\n") and None)
    asked.measure(lambda look: [], far())
    assert sorted(row["cell"] for row in asked.failed) == sorted(asked.cells)


@pytest.mark.parametrize("dies", WANTED)
@pytest.mark.parametrize("name", ["base", "head"])
def test_a_process_that_is_killed_between_rounds_takes_only_its_own_cells(
    make: Callable[..., Duel], tmp_path: Path, name: str, dies: str
) -> None:
    """Whichever cell comes first, what was measured before is kept, and nobody is told of a crash of ours."""
    asked = make()
    impls = tmp_path / "s" / name / "impls"
    if impls.is_symlink():
        impls.unlink()
        shutil.copytree(gate_check.ROOT / "impls", impls)
    text = (impls / "numpy_fast.py").read_text()
    killed = (
        "    def step(self) -> None:\n"
        "        self._taken = getattr(self, '_taken', 0) + 1\n"
        f"        if self._taken > 60 and self.problem.network.layers == {tuple(map(int, dies.split('-')))}:\n"
        "            __import__('os').kill(__import__('os').getpid(), 9)\n"
        "        super().step()\n\n"
    )
    (impls / "numpy_fast.py").write_text(text.replace("    def synchronize", killed + "    def synchronize"))
    refused = ""
    try:
        asked.measure(lambda look: [], far())
    except UserError as error:  # all of BASE is gone
        refused = str(error)
    assert bool(refused) == (name == "base" and len(asked.failed) == len(asked.cells))
    assert {row["side"] for row in asked.failed} == {name}
    assert all("SIGKILL" in row["reason"] for row in asked.failed)
    failed = {row["cell"] for row in asked.failed}
    assert any(dies in cell for cell in failed)
    measured = {path for side in ("base", "head") for path in (asked.out / side).glob("data/*.json")}
    assert bool(measured) == (len(failed) < len(asked.cells))


def test_all_of_base_failing_is_unusable(make: Callable[..., Duel], tmp_path: Path) -> None:
    asked = make()
    broken = tmp_path / "s" / "base" / "impls"
    broken.unlink()
    shutil.copytree(gate_check.ROOT / "impls", broken)
    (broken / "numpy_fast.py").write_text((broken / "numpy_fast.py").read_text().replace("BLOCK = 512", "BLOCK = None"))
    with pytest.raises(UserError, match="base, base, cannot be measured"):
        asked.measure(lambda look: [], far())


def test_a_directory_in_use_is_refused(make: Callable[..., Duel]) -> None:
    asked = make()
    asked.write()
    with pytest.raises(UserError, match="holds measurements already"):
        duel.refuse_used(asked.out)
