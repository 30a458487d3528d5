"""Cell by cell, how much slower HEAD is than BASE: a ratio with its interval, and one of four words.

A *session* is one pair of processes that took turns (the n-th round of one side beside the n-th of the other).  Its log ratio
is the interquartile mean of log(head / base) over the pairs of rounds: a disturbance hits both of a pair, or shows as an
outlier.  Sessions differ, since every process lies differently in memory; intervals come from that alone, with variances
moderated among the cells of a series.  Sessions further out than four robust deviations are pulled in.

Cells are judged after several looks at growing data.  Each look then has a smaller error, Pocock's (1977, *Biometrika* 64:191),
so that all looks together keep 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.load import USUAL_OPTIMIZER
from analysis.normalise import IDENTITY
from analysis.statistics import Estimate, Floats, Interval, discoveries, moderated, tamed

Word = Literal["faster", "same", "slower", "cannot tell"]

#: Two-sided error of each of so many looks, for 5 % in all.
POCOCK = {1: 0.05, 2: 0.0294, 3: 0.0221, 4: 0.0182, 5: 0.0158, 6: 0.0142, 7: 0.0130, 8: 0.0120}
#: What shares a variance.
SERIES = ["impl", "device", "dtype", "phase", "optimizer"]
#: Share of the pairs of rounds that is left out at either end.
TRIM = 0.25


@dataclass(frozen=True)
class Ratio:
    """One cell: log(head / base) estimated over sessions, its interval (ratios) and its word.

    ``cleared`` says that it is not slower than allowed, which "faster" and "same" are too.
    """

    cell: str
    estimate: Estimate  # of the log ratio
    interval: Interval  # of the ratio
    sessions: int
    word: Word
    cleared: bool
    base_s: float
    head_s: float


def session_ratio(base: Floats, head: Floats) -> float:
    """Interquartile mean of log(head / base) over pairs of neighbouring rounds (seconds)."""
    logs = np.sort(np.log(head) - np.log(base))
    cut = int(TRIM * len(logs))
    return float(logs[cut : len(logs) - cut].mean())


def label(row: Mapping[Any, Any]) -> str:
    """A cell's name, as in the files."""
    names = ("impl", "device", "dtype", "layers", "activation", "loss")
    trained = "" if row["optimizer"] == USUAL_OPTIMIZER else f" {row['optimizer']}"
    return " ".join(str(row[name]) for name in names) + f"{trained} n={row['n']} {row['phase']}"


def pairs(base: pd.DataFrame, head: pd.DataFrame) -> pd.DataFrame:
    """Rows of both sides (``analysis.load``) side by side, one a cell and session: all of BASE's columns, ``log_ratio``,
    ``base_s`` and ``head_s`` (median seconds) and ``cell``.
    """
    keys = [*IDENTITY, "pass"]
    both = base.merge(head[[*keys, "seconds", "raw_s", "peak_bytes"]], on=keys, suffixes=("", "_head"))
    ratios = [session_ratio(a, b) for a, b in zip(both["seconds"], both["seconds_head"], strict=True)]
    names = [label(row) for row in both[IDENTITY].to_dict("records")]
    return both.assign(log_ratio=ratios, base_s=both["raw_s"], head_s=both["raw_s_head"], cell=names)


def table(rows: pd.DataFrame) -> tuple[list[str], Floats]:
    """Cells, and their log ratios (cells, sessions; NaN where not measured), wild sessions pulled in."""
    wide = rows.pivot(index="cell", columns="pass", values="log_ratio")
    return list(wide.index), tamed(wide.to_numpy(float))


def error_of_look(looks: int) -> float:
    """Two-sided error of each of so many looks."""
    return POCOCK[min(max(looks, 1), max(POCOCK))]


def ratios(rows: pd.DataFrame, allow: float, looks: int) -> list[Ratio]:
    """Every cell's ratio and word, cells of a series sharing what is known of their variance.

    *slower* and *faster* hold with a false discovery rate over all cells; *same* where the interval lies within the
    allowance on either side.
    """
    error = error_of_look(looks)
    estimates: dict[str, tuple[Estimate, int]] = {}
    for _, group in rows.groupby(SERIES, sort=False):
        cells, logs = table(group)
        samples = [values[~np.isnan(values)] for values in logs]
        for cell, sample, estimate in zip(cells, samples, moderated(samples), strict=True):
            estimates[cell] = estimate, len(sample)
    seconds = {side: rows.groupby("cell")[side].median().to_dict() for side in ("base_s", "head_s")}
    words = _words([estimate for estimate, _ in estimates.values()], allow, error)
    return [
        Ratio(
            cell,
            estimate,
            _exp(estimate.interval(1 - error)),
            sessions,
            word,
            estimate.p_below(np.log1p(allow)) <= error / 2,
            seconds["base_s"][cell],
            seconds["head_s"][cell],
        )
        for (cell, (estimate, sessions)), word in zip(estimates.items(), words, strict=True)
    ]


def _words(estimates: Sequence[Estimate], allow: float, error: float) -> list[Word]:
    bound = float(np.log1p(allow))
    slower = discoveries(np.array([estimate.p_above(bound) for estimate in estimates]), error / 2)
    faster = discoveries(np.array([estimate.p_below(-bound) for estimate in estimates]), error / 2)
    same = [max(e.p_below(bound), e.p_above(-bound)) <= error / 2 for e in estimates]
    return [
        "slower" if up else "faster" if down else "same" if within else "cannot tell"
        for up, down, within in zip(slower, faster, same, strict=True)
    ]


def _exp(found: Interval) -> Interval:
    return Interval(float(np.exp(found.value)), float(np.exp(found.low)), float(np.exp(found.high)))


def more_sessions(found: Ratio, allow: float, looks: int) -> int | None:
    """Sessions in all that would tell, on average four times in five; None where no number of them would: the true ratio
    lies too near the allowance.

    margin = (z_look + z_power) · s / √K
    """
    margin = abs(float(np.log1p(allow)) - found.estimate.value)
    spread = found.estimate.error * np.sqrt(found.sessions)
    if not found.estimate.degrees > 0 or margin <= 0:
        return None
    z = float(stats.norm.isf(error_of_look(looks) / 2) + stats.norm.isf(0.2))
    needed = int(np.ceil((z * spread / margin) ** 2))
    return max(needed, found.sessions + 1) if needed <= 1000 else None
