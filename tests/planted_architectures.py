"""Rows of the experiment ``architectures`` from laws that are known: a workload's own points, times made from a law."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.experiments.found import Found
from bench.experiments.architectures import stated
from impls.architectures import workloads

Columns = Mapping[str, int]
#: Seconds of a step, or its bytes, by what laws may name.
Cost = Callable[[Columns], float]
PRODUCT_S = 1e-4


def rows(
    workload: str,
    seconds: Cost,
    impl: str = "planted",
    passes: int = 3,
    noise: float = 0.01,
    seed: int = 0,
    profile: str = "full",
    bytes_: Cost = lambda c: 1e5 + 12.0 * c["m"] + 8.0 * c["n"] * c["kept"],
    disturbed: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """A process is slower than another by as much as its kernel; a size is off its law by ``noise`` in all of them, and by as
    much again in each.
    """
    found = workloads.find(workload)
    rng = np.random.default_rng([seed, len(workload)])
    points = found.points(profile)
    own = np.exp(noise * rng.standard_normal(len(points)))
    made = []
    for number in range(1, passes + 1):
        speed = 1 + 0.2 * rng.random()
        for point, off in zip(points, own, strict=True):
            columns = found.columns(point.sizes)
            slow = speed * off * np.exp(noise * rng.standard_normal()) * (1.5 if number in disturbed else 1.0)
            rounds = seconds(columns) * slow * (1 + 0.03 * rng.random(6))
            made.append(
                {"impl": impl, "pass": number, "key": f"{workload} {number}", "workload": workload}
                | {"stated": stated(found), "sizes": dict(point.sizes), "on": list(point.axes)}
                | {"heldout": point.heldout, "columns": columns, "first_call_s": 0.01, "ceiling_flops": 1e11}
                | ({"peak_bytes": int(bytes_(columns))} if number == 1 else {})
                | {"seconds": rounds.tolist(), "reference_s": {"product": [PRODUCT_S * speed] * 6}}
                | {"quiet": 0 if number in disturbed else 6, "settled": True}
            )
    return made


def found(made: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]] = ()) -> Found:
    """As read from a file."""
    impls = list(dict.fromkeys(row["impl"] for row in made))
    return Found("architectures", {"impls": impls, "dtype": "float32"}, {}, "now", made, failed)
