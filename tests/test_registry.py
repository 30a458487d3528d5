"""Names, laziness, and implementations that users bring."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backprop_files import UserError
from bench import plan, profiles
from bench.worker import Worker
from impls import registry
from impls.conformance import Mismatch
from impls.interface import PHASES
from impls.numpy_fast import NumpyFast

OWN = Path(__file__).parent / "own_implementations"


def test_listing_imports_no_library() -> None:
    code = (
        "import sys; from impls import registry; found = [(e.name, e.missing()) for e in registry.ENTRIES]\n"
        "assert len(found) >= 9\n"
        "print([m for m in ('torch', 'jax', 'jaxlib', 'sklearn', 'autograd', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_library_is_a_reason_not_an_error() -> None:
    entry = registry.Entry("x", "no:Where", "", requires=("no_such_library",), extra="torch")
    assert entry.missing() == "no_such_library not installed: pip install -c constraints.txt -e '.[torch]'"


def test_a_missing_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(registry.find("numpy"), programs=("g++", "clang++"))
    monkeypatch.setattr("shutil.which", lambda program: None)
    assert entry.missing() == "none of g++, clang++ on the path: install a C++ compiler"
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/" + program)
    assert entry.missing() is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (plan.Settings(impls=("numpi",)), "unknown implementation 'numpi': did you mean 'numpy'"),
        (plan.Settings(profile="quikc"), "unknown profile 'quikc': did you mean 'quick'"),
        (plan.Settings(device="cpuu"), "unknown device 'cpuu': did you mean 'cpu'"),
        (plan.Settings(dtype="floatt16"), "unknown dtype 'floatt16': did you mean 'float16'"),
        (plan.Settings(phases=("stepp",)), "unknown phase 'stepp': did you mean 'step'"),
        (plan.Settings(data="digit"), "unknown data set 'digit': did you mean 'digits'"),
        (plan.Settings(device="cuda:99"), "device 'cuda:99' is absent"),
        (plan.Settings(passes=-1), "--passes -1"),
        (plan.Settings(budget_s=0.0), "--budget 0"),
        (plan.Settings(impls=("python",), dtype="float32"), "no cell is selected: python computes in float64 only"),
        (plan.Settings(impls=("sklearn",), phases=("forward",)), "no cell is selected"),
    ],
)
def test_bad_settings_name_what_and_the_nearest(settings: plan.Settings, words: str) -> None:
    with pytest.raises(UserError) as caught:
        plan.make(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_implementation_by_file_and_by_module(monkeypatch: pytest.MonkeyPatch) -> None:
    by_file = registry.own(f"{OWN / 'good.py'}:Linear")
    assert by_file.name == "Linear"
    assert by_file.phases == ("step",)
    assert by_file.losses == ("mse",)
    monkeypatch.syspath_prepend(str(OWN))
    assert registry.own("good:Linear").activations == ("tanh",)
    whole = registry.own("impls.numpy_fast:NumpyFast")
    assert whole.phases == ("step", *PHASES)
    assert whole.optimizers == ("gradient-descent",)  # one that reads problem.optimizer says so
    monkeypatch.setattr(NumpyFast, "optimizers", ("gradient-descent", "adam"), raising=False)
    assert registry.own("impls.numpy_fast:NumpyFast").optimizers == ("gradient-descent", "adam")


def test_own_optimizers_are_held_to_ten_steps() -> None:
    """An implementation that says it does Adam, and goes down the gradient all the same, is told before it is timed."""
    start = {"impl": f"{OWN / 'good.py'}:Linear", "device": "cpu", "dtype": "float64", "threads": 1, "seed": 0}
    worker = Worker(start | {"data": "synthetic", "kernels": ["product"], "ceilings": False})
    assert worker.answer({"op": "check"}) == {}
    worker.entry = replace(worker.entry, optimizers=("gradient-descent", "adam"))
    with pytest.raises(Mismatch, match=r"what 10 steps moved differs .* adam, n=9"):
        worker.answer({"op": "check"})


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (f"{OWN / 'bad.py'}:NoMethods", "misses synchronize, parameters, loss_value"),
        (f"{OWN / 'bad.py'}:Nothing", "no class 'Nothing'"),
        (f"{OWN / 'none.py'}:X", "no file"),
        ("no_such_module:X", "cannot import no_such_module"),
    ],
)
def test_own_implementation_that_is_none(target: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        registry.own(target)


def test_points_fall_back_to_tanh_where_horner_is_unknown() -> None:
    entry = registry.find("sklearn")
    points = profiles.points(profiles.find("smoke"), entry, 0)
    able = [point for point in points if not entry.cannot(point.network)]
    assert {point.network.activation for point in able} == {"tanh"}
    assert {axis for point in able for axis in point.axes} == {"examples", "depth", "width"}


def test_an_optimizer_whose_library_is_absent_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optax" else found(name, *a))
    entry = registry.find("jax")
    assert "optax" not in (entry.missing() or "")
    assert entry.cannot_train_by("gradient-descent") is None
    assert entry.cannot_train_by("adam") == "jax has 'adam' from optax, which is not installed"
