"""Copies from host memory to a device: what they cost, and what they would cost for a batch that was not copied.

A copy is no part of a step: it is measured beside it, from pageable and from pinned memory, and only ever added to it.

    seconds = latency + bytes / rate
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws import fit_relative
from analysis.load import BATCH, SERIES, parameter_bytes
from analysis.statistics import Floats
from backprop_files import TRANSFERS

#: How a copy's line is told needs so many sizes.
LEAST_SIZES = 3


@dataclass(frozen=True)
class Link:
    """seconds = ``latency_s`` + bytes / ``bytes_per_s``."""

    latency_s: float
    bytes_per_s: float

    def seconds(self, moved: Floats) -> Floats:
        """Of a copy of so many bytes."""
        return np.asarray(self.latency_s + moved / self.bytes_per_s)


def batch_bytes(rows: pd.DataFrame) -> Floats:
    """Bytes of the inputs and targets of a batch, which are kept as parameters are."""
    itemsize = rows["dtype"].map(parameter_bytes).to_numpy(float)
    return np.asarray(rows["n"].to_numpy(float) * (rows["inputs"] + rows["outputs"]).to_numpy(float) * itemsize)


def copies(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that are copies, with ``bytes``, ``bytes_per_s`` and ``share_of_step`` (NaN where the step was not measured)."""
    found = cells[cells["phase"].isin(TRANSFERS)]
    steps = cells[cells["phase"] == "step"].set_index([*SERIES, *BATCH])["time_s"]
    steps = steps[~steps.index.duplicated()]
    whole = steps.reindex(pd.MultiIndex.from_frame(found[[*SERIES, *BATCH]])).to_numpy(float)
    moved = batch_bytes(found)
    return found.assign(bytes=moved, bytes_per_s=moved / found["time_s"], share_of_step=found["time_s"] / whole)


def links(copied: pd.DataFrame) -> dict[tuple[str, str, str, str], Link]:
    """By implementation, device, dtype and phase the line through its copies, where there are sizes enough."""
    found = {}
    for key, rows in copied.groupby([*SERIES, "phase"]):
        if rows["bytes"].nunique() >= LEAST_SIZES:
            moved = rows["bytes"].to_numpy(float)
            columns = np.column_stack([np.ones_like(moved), moved])
            (latency, per_byte), _ = fit_relative(columns, rows["time_s"].to_numpy(float))
            if per_byte > 0:
                found[(str(key[0]), str(key[1]), str(key[2]), str(key[3]))] = Link(float(latency), float(1 / per_byte))
    return found


def beside(steps: pd.DataFrame, copied: pd.DataFrame) -> pd.DataFrame:
    """Of every step on a device the cheaper of its copies: ``transfer_s``, and whether it was ``transfer_measured`` or told by
    the line through others; NaN where neither is known.
    """
    known = links(copied)
    measured = copied.groupby([*SERIES, *BATCH])["time_s"].min()
    own = measured.reindex(pd.MultiIndex.from_frame(steps[[*SERIES, *BATCH]])).to_numpy(float)
    moved = batch_bytes(steps)
    told = np.full(len(steps), np.nan)
    for (impl, device, dtype, _), link in known.items():
        mine = ((steps["impl"] == impl) & (steps["device"] == device) & (steps["dtype"] == dtype)).to_numpy(bool)
        told[mine] = np.fmin(told[mine], link.seconds(moved[mine]))
    return steps.assign(transfer_s=np.where(np.isnan(own), told, own), transfer_measured=~np.isnan(own))


def table(copied: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for the smallest, the middle and the largest copy of each series and phase, and the line through all of them."""
    known = links(copied)
    found: list[dict[str, Any]] = []
    for key, rows in copied.groupby(["series", *SERIES, "phase"]):
        by_size = rows.sort_values("bytes").drop_duplicates("bytes")
        for place in sorted({0, len(by_size) // 2, len(by_size) - 1}):
            row = by_size.iloc[place]
            columns = ("series", "phase", "bytes", "time_s", "bytes_per_s", "share_of_step", "n", "layers")
            link = known.get((str(key[1]), str(key[2]), str(key[3]), str(key[4])))
            found.append({name: row[name] for name in columns} | {"link": link})
    return found
