"""Every round of a run in the order of the clock, as measured and as normalised, and the machine's state meanwhile."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.normalise import IDENTITY


def rounds(entries: pd.DataFrame) -> pd.DataFrame:
    """One row a round: ``minutes`` since the run began, ``impl``, and ``raw`` and ``normal``, its time over its cell's.

    A cell's time is the median of its rounds over all passes, so that drift shows.  Rounds without a time of day, from
    files that keep no single rounds, are left out.
    """
    whole = entries[[len(at) == len(s) for at, s in zip(entries["rounds_at_s"], entries["seconds"], strict=True)]]
    parts = []
    for _, cell in whole.groupby(IDENTITY, sort=False):
        raw = np.log(np.concatenate(list(cell["seconds"])))
        normal = np.concatenate(list(cell["normal_logs"]))
        at = np.concatenate([s + np.array(o) for s, o in zip(cell["started_at"], cell["rounds_at_s"], strict=True)])
        parts.append(
            pd.DataFrame(
                {"at": at, "raw": np.exp(raw - np.median(raw)), "normal": np.exp(normal - np.median(normal))}
            ).assign(impl=cell["impl"].iloc[0])
        )
    if not parts:
        return pd.DataFrame(columns=["minutes", "impl", "raw", "normal"])
    found = pd.concat(parts, ignore_index=True)
    return found.assign(minutes=(found["at"] - found["at"].min()) / 60).sort_values("minutes").drop(columns="at")


def states(entries: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and pass: ``minutes`` and the machine's ``load``, ``clock_mhz``, ``available_bytes``,
    ``memory_stall_percent``, NaN where the machine does not tell.
    """
    found: pd.DataFrame = pd.DataFrame(list(entries["machine_state"])).apply(pd.to_numeric, errors="coerce")
    at = entries["started_at"].to_numpy(float)
    return found.assign(minutes=(at - at.min()) / 60).sort_values("minutes")
