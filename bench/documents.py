"""pytest-benchmark documents of rounds that were not measured under pytest; its own statistics and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest_benchmark
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats

from backprop_files import SCHEMA_VERSION


def entry(name: str, group: str, seconds: Sequence[float], extra_info: Mapping[str, Any]) -> dict[str, Any]:
    """One benchmark: rounds in seconds, and our ``extra_info``."""
    stats: Any = Stats()  # type: ignore[no-untyped-call]
    for second in seconds:
        stats.update(second)
    return {
        "group": group,
        "name": f"test_cell[{name}]",
        "fullname": f"bench/test_sweep.py::test_cell[{name}]",
        "params": {"cell": name},
        "param": name,
        "extra_info": dict(extra_info),
        "options": {},
        "stats": {**stats.as_dict(), "data": list(stats.data), "iterations": 1},
    }


def machine_info(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What pytest-benchmark records of the machine, and our facts."""
    return {**pytest_benchmark_generate_machine_info(), **facts}  # type: ignore[no-untyped-call]


def document(
    benchmarks: Sequence[Mapping[str, Any]],
    machine: Mapping[str, Any],
    commit: Mapping[str, Any],
    ours: Mapping[str, Any],
) -> dict[str, Any]:
    """A whole document, with our top-level object."""
    return {
        "machine_info": dict(machine),
        "commit_info": dict(commit),
        "benchmarks": list(benchmarks),
        "datetime": datetime.now(UTC).isoformat(),
        "version": pytest_benchmark.__version__,
        "backprop_bench": {"schema_version": SCHEMA_VERSION, "left_out": [], "failed": [], "notes": [], **ours},
    }
