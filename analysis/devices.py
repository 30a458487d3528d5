"""Where an accelerator wins: the best implementation on the CPU against the best on the device, cell by cell.

A cell takes part where both sides measured it: the same network, the same n.  Ratios are CPU seconds over device seconds:
above 1 the device wins.  Times in fewer bits than float32 stand against the CPU's float32, in which their parameters are
kept too; float64 stands against float64.  "With transfer" adds what copying the batch to the device takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import sizes, transfers
from analysis.cells import on_axis
from analysis.load import BATCH, on_accelerator
from analysis.statistics import Floats, Interval
from analysis.verdicts import Verdict

#: What the ratio is called without and with the copy.
KINDS = ("ratio", "ratio_with_transfer")


@dataclass(frozen=True, eq=False)
class Match:
    """CPU and device in one dtype of the device.

    ``cells`` has a row for each common cell: its network, ``host`` and ``device`` (series), ``host_s``, ``device_s``,
    ``ratio`` and ``ratio_with_transfer`` with their ``_low`` and ``_high``, ``transfer_measured``.
    """

    dtype: str
    host_dtype: str
    cells: pd.DataFrame
    only_host: int
    only_device: int


@dataclass(frozen=True)
class Crossing:
    """Where along an axis the device begins to win: ``at`` in ``variable``; NaN where it does not change, as ``words`` say."""

    axis: str
    variable: str
    fixed: str
    at: Interval
    words: str


def matches(steps: pd.DataFrame, copied: pd.DataFrame) -> list[Match]:
    """One for each dtype measured on an accelerator; none where a side is missing altogether."""
    far = steps["device"].map(on_accelerator).to_numpy(bool)
    found = []
    for dtype, rows in steps[far].groupby("dtype"):
        near = _host_dtype(str(dtype))
        host = steps[~far & (steps["dtype"] == near).to_numpy(bool)]
        if len(host):
            found.append(_match(str(dtype), near, host, transfers.beside(rows, copied)))
    return found


def _host_dtype(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _match(dtype: str, near: str, host: pd.DataFrame, device: pd.DataFrame) -> Match:
    a = _best(host, "time_s").set_index(BATCH)
    b = _best(device, "time_s").set_index(BATCH)
    whole = device.assign(whole_s=device["time_s"] + device["transfer_s"])
    c = _best(whole.dropna(subset=["whole_s"]), "whole_s").set_index(BATCH)
    common = a.index.intersection(b.index)
    both = a.loc[common, ["width", "depth", "m", "p", "axis", "inputs", "outputs"]].assign(
        host=a.loc[common, "series"], device=b.loc[common, "series"], host_s=a["time_s"], device_s=b["time_s"]
    )
    half = np.hypot(_half(a.loc[common]), _half(b.loc[common]))
    with_copy = c.reindex(common)
    both = _with_ratio(both, "ratio", both["host_s"] / both["device_s"], half)
    both = _with_ratio(both, "ratio_with_transfer", both["host_s"] / with_copy["whole_s"], half)
    both["transfer_measured"] = with_copy["transfer_measured"].eq(True)
    ordered = both.reset_index().sort_values(["width", "n", "depth", "p"], ignore_index=True)
    return Match(dtype, near, ordered, len(a.index.difference(b.index)), len(b.index.difference(a.index)))


def _best(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The fastest row of every cell."""
    return rows.loc[rows.groupby(BATCH)[by].idxmin()] if len(rows) else rows


def _half(rows: pd.DataFrame) -> Floats:
    """Half-width of a time's interval on the log scale."""
    return np.asarray((np.log(rows["ci_high_s"]) - np.log(rows["ci_low_s"])) / 2, float)


def _with_ratio(rows: pd.DataFrame, name: str, ratio: pd.Series, half: Floats) -> pd.DataFrame:
    ends = {f"{name}_low": ratio * np.exp(-half), f"{name}_high": ratio * np.exp(half)}
    return rows.assign(**{name: ratio, **ends})


# --- where it changes -----------------------------------------------------------------------------------------------


def crossings(match: Match, kind: str) -> list[Crossing]:
    """Along the examples and the width axis, between cells measured on both sides."""
    found = []
    for axis, variable, other in (("examples", "n", "width"), ("width", "width", "n")):
        rows = on_axis(match.cells, axis).dropna(subset=[kind]).sort_values(variable)
        if len(rows) >= 2:
            found.append(_crossing(rows, axis, variable, f"{other} = {rows[other].iloc[0]:,.0f}", kind))
    return found


def _crossing(rows: pd.DataFrame, axis: str, variable: str, fixed: str, kind: str) -> Crossing:
    x = rows[variable].to_numpy(float)
    # where even the upper end of the ratio begins to exceed 1 is the lower end of the place
    at = Interval(*(_where_one(x, rows[name].to_numpy(float)) for name in (kind, f"{kind}_high", f"{kind}_low")))
    wins = rows[kind].to_numpy(float) > 1
    span = f"{variable} from {x[0]:,.0f} to {x[-1]:,.0f}"
    if np.isfinite(at.value):
        return Crossing(axis, variable, fixed, at, f"the device wins from {variable} ≈ {at.value:,.0f} on")
    return Crossing(axis, variable, fixed, at, f"the {'device' if wins.all() else 'CPU'} wins throughout, {span}")


def _where_one(x: Floats, ratio: Floats) -> float:
    """The x after which a ratio stays above 1, between two cells, straight on log-log paper; NaN where it never changes."""
    below = np.nonzero(ratio <= 1)[0]
    if not len(below) or below[-1] == len(x) - 1:
        return float("nan")
    i = int(below[-1])
    (a, b), (u, v) = np.log(ratio[[i, i + 1]]), np.log(x[[i, i + 1]])
    return float(np.exp(u + (v - u) * -a / (b - a)))


def predicted(
    match: Match, verdicts: Sequence[Verdict], copied: pd.DataFrame, rows: pd.DataFrame
) -> tuple[Floats, Floats]:
    """Ratios without and with transfer that the winning laws predict for ``rows``; NaN where a side has no law."""
    steps = [v for v in verdicts if v.phase == "step" and v.choice.winner is not None]
    host = [v.choice for v in steps if not on_accelerator(v.device) and v.dtype == match.host_dtype]
    far = [v for v in steps if on_accelerator(v.device) and v.dtype == match.dtype]
    known = transfers.links(copied)
    moved = transfers.batch_bytes(rows.assign(dtype=match.dtype))
    near_s = _fastest([choice.seconds(rows) for choice in host], len(rows))
    far_s = _fastest([v.choice.seconds(rows) for v in far], len(rows))
    whole = [
        v.choice.seconds(rows) + link.seconds(moved)
        for v in far
        for (impl, device, dtype, _), link in known.items()
        if (impl, device, dtype) == (v.impl, v.device, v.dtype)
    ]
    return near_s / far_s, near_s / _fastest(whole, len(rows))


def _fastest(times: Sequence[Floats], rows: int) -> Floats:
    return np.asarray(np.min(times, axis=0) if len(times) else np.full(rows, np.nan))


def networks(match: Match, steps: pd.DataFrame, n: Floats, width: Floats) -> pd.DataFrame:
    """Networks of the depth and activation of the examples axis, for a grid of n and width (width in rows)."""
    centre = on_axis(match.cells, "examples")
    like = (centre if len(centre) else match.cells).iloc[0]
    cell = steps.iloc[0]
    w, x = (a.ravel() for a in np.meshgrid(width, n, indexing="ij"))
    hidden = [w] * (int(like["depth"]) - 1)
    return sizes.like(cell, (like["inputs"], *hidden, like["outputs"]), x, float(like["p"]))
