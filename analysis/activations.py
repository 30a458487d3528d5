"""What real activations cost, calibrated on the dial ``horner-K``: p by count, and p by measured cost.

Along the activation axis only p moves: t = base + price · p.  A real function at the same point takes t_f, so one element
of it costs (t_f - base) / (n·u) seconds; over the seconds of a multiply-add that is its cost in multiply-adds, and
(t_f - base) / price is the p at which ``horner-K`` would take as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.cells import on_axis
from analysis.laws import fit_relative

LEAST_CELLS = 3


@dataclass(frozen=True)
class Calibrated:
    """An activation of one series: operations counted, as many of ``horner-K``'s as it costs, and multiply-adds an element."""

    activation: str
    p: int
    time_s: float
    equivalent_p: float | None
    multiply_adds: float | None


def calibrate(steps: pd.DataFrame, multiply_add_s: float | None) -> list[Calibrated]:
    """The real activations of one series' step cells, cheapest by count first."""
    real = on_axis(steps, "functions")
    return sorted((_one(row, steps, multiply_add_s) for _, row in real.iterrows()), key=lambda found: found.p)


def _one(row: pd.Series, steps: pd.DataFrame, multiply_add_s: float | None) -> Calibrated:
    plain = Calibrated(str(row["activation"]), int(row["p"]), float(row["time_s"]), None, None)
    dial = on_axis(steps, "activation")
    dial = dial[(dial["layers"] == row["layers"]) & (dial["n"] == row["n"])]
    if len(dial) < LEAST_CELLS or dial["p"].nunique() < LEAST_CELLS:
        return plain
    columns = np.column_stack([np.ones(len(dial)), dial["p"].to_numpy(float)])
    (base, price), _ = fit_relative(columns, dial["time_s"].to_numpy(float))
    above = max(0.0, plain.time_s - base)
    elements = float(row["n"] * row["u"])
    return Calibrated(
        plain.activation,
        plain.p,
        plain.time_s,
        above / price if price > 0 else None,
        above / elements / multiply_add_s if multiply_add_s else None,
    )
