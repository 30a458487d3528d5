"""Laws as data: expressions are arithmetic and nothing else, files say what is wrong in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.expressions import FUNCTIONS, LONGEST, VARIABLES, parse
from analysis.hypotheses import declared
from backprop_files import UserError

FRAME = pd.DataFrame({name: [float(i + 2), float(3 * i + 5)] for i, name in enumerate(VARIABLES)})
COLUMNS: dict[str, Any] = {name: FRAME[name].to_numpy(float) for name in VARIABLES}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n·m·p", lambda f: f["n"] * f["m"] * f["p"]),
        ("1", lambda f: f["n"] * 0 + 1),
        ("-n + 2*m^2 / (p - 1)", lambda f: -f["n"] + 2 * f["m"] ** 2 / (f["p"] - 1)),
        ("m·log2(width)", lambda f: f["m"] * np.log2(f["width"])),
        ("max(n, m) × min(p, 3)", lambda f: np.maximum(f["n"], f["m"]) * np.minimum(f["p"], 3)),
        ("n/ceil(n/2)", lambda f: f["n"] / np.ceil(f["n"] / 2)),
        ("reaches(n, 3)", lambda f: (f["n"] >= 3) * 1.0),
        ("beyond(4·m, n)", lambda f: np.maximum(0, 1 - f["n"] / (4 * f["m"]))),
    ],
)
def test_expressions_are_what_they_read(text: str, value: object) -> None:
    expected = value(FRAME)  # type: ignore[operator]
    assert np.allclose(parse(text, "here")(COLUMNS), expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('true')", "is not arithmetic"),
        ("open('x')", "unknown function 'open'"),
        ("n.real", "is not arithmetic"),
        ("n if m else p", "is not arithmetic"),
        ("[n for n in m]", "is not arithmetic"),
        ("lambda: n", "is not arithmetic"),
        ("n[0]", "is not arithmetic"),
        ("q·n", "unknown name 'q'"),
        ("n**m", "a power is a number"),
        ("9**9**9**9", "a power is a number"),
        ("n**99", "at most 8"),
        ("log(n, m)", "takes 1 argument"),
        ("n*'a'", "is no number"),
        ("True", "is no number"),
        ("1e999", "is no number"),
        ("n +", "no arithmetic expression"),
        ("n = 1", "no arithmetic expression"),
        ("", "1 to 200 characters"),
        ("n+" * LONGEST + "n", "1 to 200 characters"),
    ],
)
def test_anything_but_arithmetic_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=r"^file: ") as caught:
        parse(text, "file")
    assert words in str(caught.value)


def test_what_fills_no_vector() -> None:
    sizes = np.array([1, 4, 5, 6, 7, 8, 9, 15, 16, 17, 23, 24, 31, 32, 33, 100], float)
    loose = parse("loose(n, 8)", "here")({"n": sizes})
    assert loose.tolist() == [0, 0, 0, 6, 7, 0, 9, 15, 0, 1, 7, 0, 7, 0, 0, 0]


def test_functions_do_not_include_anything_that_runs_code() -> None:
    assert set(FUNCTIONS) == {"log", "log2", "sqrt", "ceil", "min", "max", "mod", "beyond", "reaches", "loose"}


def test_our_own_laws_are_whole() -> None:
    laws = declared()
    for phase in ("step", "forward", "loss", "backward", "update", "memory", "epoch"):
        names = [law.name for law in laws if phase in law.phases]
        assert len(names) == len(set(names)) >= 2
    for law in laws:
        fixed = ("1", "steps") if law.phases == ("epoch",) else ("1",)  # an epoch's fixed part is paid once a step
        assert law.terms[0].text in fixed  # none loses for want of an intercept
        assert law.design(FRAME).shape == (2, len(law.terms))


def test_an_unknown_cache_makes_a_column_of_nan() -> None:
    law = next(law for law in declared() if law.name == "exact products with cache")
    assert np.isnan(law.design(FRAME.drop(columns="L2"))).any()


GOOD = """
[[law]]
name = "quadratic in width"
statement = "width squared for every example"
phases = ["step"]
terms = ["1", "n·width^2"]
exponents = { n = 1, p = 0 }
"""


def test_a_law_of_ones_own_joins_ours(tmp_path: Path) -> None:
    file = tmp_path / "laws.toml"
    file.write_text(GOOD)
    mine = declared(file)[-1]
    assert mine.name == "quadratic in width"
    assert np.allclose(mine.design(FRAME)[:, 1], FRAME["n"] * FRAME["width"] ** 2)
    assert mine.exponents == {"n": 1.0, "p": 0.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[[law]]", "[[laws]]"), "holds [[law]] tables and nothing else"),
        (('name = "quadratic in width"', ""), "'name' is missing"),
        (('name = "quadratic in width"', 'name = "n·m"'), "law 'n·m' is declared already"),
        (('phases = ["step"]', 'phases = ["stride"]'), "unknown phase 'stride'"),
        (('phases = ["step"]', 'phases = "step"'), "'phases' is a list of texts"),
        (('"n·width^2"', '"n·breadth"'), "unknown name 'breadth'"),
        (('"n·width^2"', '"1"'), "a term stands twice"),
        (("{ n = 1, p = 0 }", "{ q = 1 }"), "exponents are numbers for n, m and p"),
        (("exponents", "exponent"), "unknown key 'exponent'"),
        (("[[law]]", "[[law]"), "is no TOML"),
        (('terms = ["1", "n·width^2"]', f"terms = {[f'n+{i}' for i in range(13)]}"), "13 terms"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    file = tmp_path / "laws.toml"
    file.write_text(GOOD.replace(*change))
    with pytest.raises(UserError) as caught:
        declared(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        declared(tmp_path / "none.toml")
