"""The cell table: one row for each cell, its passes joined into an estimate with an interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.core.groupby import SeriesGroupBy

from analysis.load import GROUP
from analysis.normalise import IDENTITY, MACHINE, kept
from analysis.statistics import moderated_intervals

_CONSTANT = [
    "architecture", "axis", "heldout", "m", "p", "u", "width", "depth", "inputs", "outputs", "seed",
    "operations_product", "operations_total", "hidden", "units", "products", "itemsize", "L1", "L2", "L3",
]  # fmt: skip


def table(entries: pd.DataFrame) -> pd.DataFrame:
    """Join the passes that count (``analysis.normalise.kept``).  Adds ``time_s`` (geometric mean over passes, normalised),
    ``ci_low_s``, ``ci_high_s``, ``precision`` (half-width / time), ``raw_s``, ``between_cv`` and ``raw_between_cv`` (CV
    between passes), ``passes``, ``rounds``, ``settled``, ``share_of_ceiling``.
    """
    counted = kept(entries)
    grouped = counted.groupby(IDENTITY, sort=False)
    cells = grouped[_CONSTANT].first()
    cells = cells.join(_intervals(grouped["time_s"]))
    cells["precision"] = (cells["ci_high_s"] - cells["ci_low_s"]) / 2 / cells["time_s"]
    cells["raw_s"] = grouped["raw_s"].agg(lambda times: float(np.exp(np.log(times).mean())))
    cells["between_cv"] = grouped["time_s"].agg(lambda times: np.log(times).std())  # between passes; NaN for one
    cells["raw_between_cv"] = grouped["raw_s"].agg(lambda times: np.log(times).std())
    cells["passes"] = grouped["pass"].nunique()
    cells["rounds"] = grouped["rounds"].sum()
    cells["settled"] = grouped["settled"].all()
    cells["dropped_rounds"] = grouped["dropped_rounds"].sum()
    every = entries.groupby(IDENTITY, sort=False)  # the first pass tells these, disturbed or not
    cells["first_call_s"] = every["first_call_s"].max()  # later passes find compiled code
    cells["peak_bytes"] = every["peak_bytes"].max()
    cells["estimated_bytes"] = grouped["estimated_bytes"].first()
    cells = _with_series(cells.reset_index())
    ceiling = ceilings(entries)
    keys = pd.MultiIndex.from_frame(cells[["device", "dtype"]])
    cells["ceiling_flops"] = ceiling["ceiling_flops"].reindex(keys).to_numpy(float)
    cells["bandwidth_bytes_per_s"] = ceiling["bandwidth_bytes_per_s"].reindex(keys).to_numpy(float)
    cells["share_of_ceiling"] = cells["operations_product"] / cells["time_s"] / cells["ceiling_flops"]
    return cells


def _intervals(times: SeriesGroupBy[Any, Any]) -> pd.DataFrame:
    """Geometric means over passes with 95 % intervals, on the log scale since passes differ by factors.

    Variances are moderated among the cells of one implementation, phase and optimizer: a loss of 5 µs between two products of a
    millisecond repeats far worse than a step, and must not lend the step its variance.
    """
    logs = times.agg(list).map(lambda values: np.log(values))
    parts = []
    for _, rows in logs.groupby(GROUP, sort=False):
        found = moderated_intervals(list(rows))
        ends = np.exp([[interval.value, interval.low, interval.high] for interval in found])
        parts.append(pd.DataFrame(ends, index=rows.index, columns=["time_s", "ci_low_s", "ci_high_s"]))
    return pd.concat(parts)


def _with_series(cells: pd.DataFrame) -> pd.DataFrame:
    """Add ``full_series`` (impl, device, dtype) and ``series``, its short name where an implementation has only one."""
    full = cells["impl"] + " " + cells["device"] + " " + cells["dtype"]
    several = full.groupby(cells["impl"]).transform("nunique") > 1
    return cells.assign(full_series=full, series=full.where(several, cells["impl"]))


def ceilings(entries: pd.DataFrame) -> pd.DataFrame:
    """The ceilings by device and dtype; of several machines the median of each one's own (``machine_ceilings``)."""
    where = ["device", "dtype"]
    return machine_ceilings(entries).groupby(where).median()


def machine_ceilings(entries: pd.DataFrame) -> pd.DataFrame:
    """Every machine's own ceilings by device and dtype: of each implementation's processes the median, of those the best."""
    columns = ["ceiling_flops", "bandwidth_bytes_per_s"]
    numbers = entries.assign(**{column: pd.to_numeric(entries[column]) for column in columns})
    where = [*(column for column in MACHINE if column in entries), "device", "dtype"]
    return numbers.groupby([*where, "impl"])[columns].median().groupby(where).max()


def on_axis(cells: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The rows that lie on an axis."""
    return cells.loc[np.array([axis in names.split(",") for names in cells["axis"]], bool)]
