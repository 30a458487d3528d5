"""The other tools are asked as they should be, and say what they must of exact data."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from backprop_files import UserError
from tests import other_tools, selftest

N = np.array([2.0**k for k in range(4, 13)])


@pytest.mark.parametrize("name", other_tools.CURVES)
def test_googles_rule_finds_each_of_its_curves(name: str) -> None:
    assert other_tools.google(N, 3e-6 * other_tools.CURVES[name](N)) == name


def test_googles_rule_takes_a_linear_cost_beneath_overhead_for_constant() -> None:
    n = other_tools.FAILING_N.astype(float)
    assert other_tools.google(n, 1e-4 + 1e-9 * n) == "O(1)"


def test_big_o_on_exact_data() -> None:
    pytest.importorskip("big_o")
    assert other_tools.big_o(N, 1e-4 + 1e-5 * N) == "O(N)"
    assert other_tools.big_o(N, 1e-9 * N) == "O(1)"  # its bias towards simple classes is in squared seconds
    assert other_tools.big_o(N, 1e-9 * N, bias=0.0) == "O(N)"


def test_ours_says_what_overhead_hides_and_what_it_does_not() -> None:
    told = [
        other_tools.ours(next(other_tools.failing_trials(seconds, 0.01, 1)))
        for seconds in (lambda n: 1e-4 + 1e-9 * n, lambda n: 1e-9 * n)
    ]
    assert told == ["inconclusive", "supported"]


def test_shares_are_by_frequency() -> None:
    assert other_tools.shares(Counter({"O(1)": 1, "O(N)": 3, "power": 0})) == "O(N) 75%, O(1) 25%"


def modelled(*terms: dict[str, tuple[float, float]]) -> other_tools.Modelled:
    return other_tools.Modelled(terms, np.zeros(1))


def test_a_model_is_the_planted_law_only_where_nothing_is_added() -> None:
    product = {"n": (1.0, 0.0), "m": (1.0, 0.0), "p": (1.0, 0.0)}
    assert modelled(product).is_planted("n·m·p")
    assert modelled(product, {"n": (1.0, 0.0)}).leads("n·m·p")
    assert not modelled(product, {"n": (1.0, 0.0)}).is_planted("n·m·p")
    assert not modelled(product, {"n": (1.0, 1.0)}).leads("n·m·p")
    assert not modelled(product | {"n": (0.75, 1.0)}).leads("n·m·p")
    assert modelled(product | {"n": (0.75, 1.0)}, {"m": (0.0, 2.0)}).form == "1 + n^0.75·lg n·m·p + lg^2 m"


@pytest.mark.parametrize("python", ["nowhere/bin/python", "this one"])
def test_where_extrap_is_missing_it_says_so(python: str) -> None:
    path = Path(sys.executable if python == "this one" else python)
    with pytest.raises(UserError, match=r"Extra-P is not installed at .*: run 'make other-tools'"):
        other_tools.extrap(path, [])


def test_the_command_ends_with_2_where_extrap_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_tools, "tell_axis", lambda trials: None)
    app = typer.Typer()
    app.command()(other_tools.main)
    done = CliRunner().invoke(app, ["--extrap-python", "nowhere/bin/python", "--extrap-trials", "1"])
    assert done.exit_code == 2
    assert "Extra-P is not installed at nowhere/bin/python" in done.output


def test_our_law_on_exact_data() -> None:
    table = selftest.base(selftest.WORLDS["additive"])
    fit = other_tools.our_law(table)
    assert fit is not None
    assert fit.law.name == "additive"
    assert fit.heldout_median < 1e-6


@pytest.mark.skipif(not other_tools.EXTRAP_PYTHON.exists(), reason="needs Extra-P: make other-tools")
def test_extrap_models_an_exact_product() -> None:
    grid = pd.DataFrame(
        [(n, m, p) for n in N[:5] for m in (10, 100, 300, 1000, 3000) for p in (4, 8, 16, 32, 64)],
        columns=other_tools.PARAMETERS,
    )
    cells = grid.assign(time_s=1e-5 + 2e-12 * grid["n"] * grid["m"] * grid["p"])
    (model,) = other_tools.extrap(other_tools.EXTRAP_PYTHON, [(cells, cells.tail(3))])
    assert model.is_planted("n·m·p")
    assert np.abs(model.errors).max() < 1e-6
    assert model.form == "1 + n·m·p"
