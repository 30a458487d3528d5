"""The sweep as benchmarks: ``pytest --benchmark-only`` runs it, plain ``pytest`` does not collect it.

Measuring happens in worker processes; the timer given to pytest-benchmark replays their rounds, so that its
statistics, tables, comparisons and JSON are its own.
"""

from __future__ import annotations

import pytest

from bench.plugin import Replay, Sweep, sweep_of

replay = Replay()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each cell and pass, in the plan's shuffled order.

    The ids are given: pytest numbers parameters of more than 100 characters, so that a deep network's cell had another
    name in every run, and ``pytest-benchmark compare`` lost it.
    """
    names = sweep_of(metafunc.config).names
    metafunc.parametrize("cell", names, ids=names)


@pytest.mark.benchmark(timer=replay)
def test_cell(benchmark: pytest.FixtureRequest, cell: str, sweep: Sweep) -> None:
    """Measure one cell; fails with one line if its process died or its numbers are wrong."""
    sweep.record(cell, benchmark, replay)
