"""Normalised time: what a cell would have taken had the machine run at its usual speed throughout.

Beside every round stand the times of the reference kernels.  A cell's reference is their weighted geometric mean,

    r = product^w · objects^(1 - w),

since cells that compute follow the one and cells of overhead the other: a busy neighbour on the same core slows
objects by half and a product hardly at all.  w is the share of the matrix-product ceiling that the cell reaches, that
is the share of its time in which the arithmetic units are full; it is known beforehand and not chosen by how well
passes agree, which is what the intervals are made from.  (Chosen by the smallest spread within passes, as a first version
did, w was mostly noise: passes then differed by 8 % in the median, and by 5 % with the share.)

What disturbs is one-sided, so quiet rounds are compared with quiet references: the normalised time is
q(rounds) / q(product)^w / q(objects)^(1 - w) × the run's median of r, with q the lower decile over a pass's rounds, and
still reads as seconds.  (docs/measuring.md compares q with other quantiles and with the median of ratios.)
"""

from __future__ import annotations

import numpy as np
import pandas as pd

#: What makes a cell, apart from the pass it was measured in.
IDENTITY = ["impl", "device", "dtype", "threads", "data", "layers", "activation", "loss", "optimizer", "n", "phase"]

KERNELS = ("product", "objects")
#: Rounds of a pass are told by this quantile, and so are their references.
QUIET = 0.1


def normalise(entries: pd.DataFrame) -> pd.DataFrame:
    """Add ``time_s``, ``normal_logs`` (log of every round's normalised seconds) and ``weight`` (w; NaN where no
    reference was timed and raw seconds stand in).

    ``entries`` has a row for each cell and pass, with ``seconds`` (rounds,) and ``references`` {kernel: (rounds,)}.
    """
    usual = {device: _usual(rows) for device, rows in entries.groupby("device")}
    parts = [_cell(rows, usual[str(rows["device"].iloc[0])]) for _, rows in entries.groupby(IDENTITY, sort=False)]
    return pd.concat(parts).sort_index()


def _usual(rows: pd.DataFrame) -> dict[str, float]:
    """Median time of each kernel over the whole run on a device."""
    found = {}
    for kernel in KERNELS:
        times = [reference[kernel] for reference in rows["references"] if kernel in reference]
        if times:
            found[kernel] = float(np.median(np.concatenate(times)))
    return found


def _cell(rows: pd.DataFrame, usual: dict[str, float]) -> pd.DataFrame:
    kernels = [kernel for kernel in KERNELS if all(kernel in reference for reference in rows["references"])]
    if not kernels:
        return rows.assign(time_s=rows["raw_s"], normal_logs=rows["seconds"].map(np.log), weight=np.nan)
    w = _share_of_ceiling(rows) if len(kernels) == 2 else 1.0
    logs = [
        _relative(seconds, reference, usual, w)
        for seconds, reference in zip(rows["seconds"], rows["references"], strict=True)
    ]
    return rows.assign(
        time_s=[
            float(np.exp(_relative(_quiet(seconds), {k: _quiet(v) for k, v in reference.items()}, usual, w)[0]))
            for seconds, reference in zip(rows["seconds"], rows["references"], strict=True)
        ],
        normal_logs=pd.Series(logs, rows.index),
        weight=w,
    )


def _quiet(times: np.ndarray) -> np.ndarray:
    return np.atleast_1d(np.quantile(times, QUIET))


def _share_of_ceiling(rows: pd.DataFrame) -> float:
    """Operations in products / seconds / ceiling, at most 1; 0 where no ceiling was measured."""
    ceiling = pd.to_numeric(rows["ceiling_flops"]).max()
    share = float(rows["operations_product"].iloc[0] / rows["raw_s"].median() / ceiling)
    return min(1.0, share) if np.isfinite(share) else 0.0


def _relative(
    seconds: np.ndarray, reference: dict[str, np.ndarray], usual: dict[str, float], weight: float
) -> np.ndarray:
    """Log of round / r × usual r, shape (rounds,)."""
    logs = np.log(seconds)
    for kernel, share in zip(KERNELS, (weight, 1 - weight), strict=True):
        if share:
            logs = logs - share * np.log(reference[kernel] / usual[kernel])
    return np.asarray(logs)
