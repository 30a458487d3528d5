"""A device that answers before its work is done is caught; one that is waited for is not."""

from __future__ import annotations

import pytest

from bench import sync_check
from impls import registry
from impls.interface import Network
from impls.problem import make_problem
from impls.registry import Entry
from tests.test_conformance import available, thorough

PROBLEM = make_problem(Network((5, 7, 4)), 9)
BAD = "tests/own_implementations/bad.py"


@pytest.mark.parametrize(("name", "caught"), [("ReturnsEarly", True), ("Waits", False)])
def test_a_device_that_returns_early_is_caught(name: str, caught: bool) -> None:
    share = sync_check.left_over(registry.find(f"{BAD}:{name}").prepare(PROBLEM))
    assert (share > sync_check.LEFT_OVER) is caught


@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if thorough(e)], ids=lambda e: e.name)
def test_every_implementation_waits(entry: Entry) -> None:
    assert sync_check.left_over(available(entry).prepare(PROBLEM, dtype=entry.dtypes[0])) < sync_check.LEFT_OVER
