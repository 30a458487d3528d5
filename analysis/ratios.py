"""Cell by cell, how much slower HEAD is than BASE: a ratio with its interval, and one of four words.

A *session* is one pair of processes that took turns (the n-th round of one side beside the n-th of the other).  Its log ratio
is the interquartile mean of log(head / base) over the pairs of rounds: a disturbance hits both of a pair, or shows as an
outlier.  Sessions differ, since every process lies differently in memory; intervals come from that alone, with variances
moderated among the cells of a series.  Sessions further out than four robust deviations are pulled in.

Cells are judged after several looks at growing data.  Each look then has a smaller error, the same for all after Pocock
(1977, *Biometrika* 64:191), so that all looks together keep 5 %; nobody is accused before the second, cleared before the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.normalise import IDENTITY
from analysis.statistics import Estimate, Floats, Interval, discoveries, moderated, tamed
from backprop_files import USUAL_OPTIMIZER, UserError

Word = Literal["faster", "same", "slower", "cannot tell"]

#: Two-sided error of each look, for 5 % in all: at 4, 6, 9, 14, 21, 32 and 48 sessions, by simulation; fewer looks err less.
ERROR_OF_LOOK = 0.011
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
    ``base_s`` and ``head_s`` (median seconds) and ``cell``.  Raises UserError where rounds are not in pairs.
    """
    keys = [*IDENTITY, "pass"]
    both = base.merge(head[[*keys, "seconds", "raw_s", "peak_bytes"]], on=keys, suffixes=("", "_head"))
    names = [label(row) for row in both[IDENTITY].to_dict("records")]
    for name, a, b in zip(names, both["seconds"], both["seconds_head"], strict=True):
        if len(a) != len(b):
            raise UserError(f"{name}: BASE has {len(a)} rounds and HEAD {len(b)} in one session; they stand in pairs")
    ratios = [session_ratio(a, b) for a, b in zip(both["seconds"], both["seconds_head"], strict=True)]
    return both.assign(log_ratio=ratios, base_s=both["raw_s"], head_s=both["raw_s_head"], cell=names)


def table(rows: pd.DataFrame) -> tuple[list[str], Floats]:
    """Cells, and their log ratios (cells, sessions; NaN where not measured), wild sessions pulled in."""
    wide = rows.pivot(index="cell", columns="pass", values="log_ratio")
    return list(wide.index), tamed(wide.to_numpy(float), own=True)


def estimated(logs: Floats) -> list[tuple[Estimate, int]]:
    """Every cell's mean log ratio with what all of them tell of its variance, and the sessions it rests on."""
    samples = [values[~np.isnan(values)] for values in logs]
    return [(estimate, len(sample)) for estimate, sample in zip(moderated(samples), samples, strict=True)]


def least_to_accuse(looks: Sequence[int]) -> int:
    """Sessions before which nobody is accused: those of the second look."""
    return looks[:2][-1]


def ratios(rows: pd.DataFrame, allow: float, looks: Sequence[int], error: float = ERROR_OF_LOOK) -> list[Ratio]:
    """Every cell's ratio and word, cells of a series sharing what is known of their variance.  ``looks`` are the numbers of
    sessions at which is looked, ``error`` that of each look.

    *slower* and *faster* hold with a false discovery rate over all cells; *same* where the interval lies within the
    allowance on either side.
    """
    estimates: dict[str, tuple[Estimate, int]] = {}
    for _, group in rows.groupby(SERIES, sort=False):
        cells, logs = table(group)
        estimates |= zip(cells, estimated(logs), strict=True)
    seconds = {side: rows.groupby("cell")[side].median().to_dict() for side in ("base_s", "head_s")}
    words = _words(list(estimates.values()), allow, looks, error)
    return [
        Ratio(
            cell,
            estimate,
            estimate.interval(1 - error).exp(),
            sessions,
            word,
            sessions >= looks[0] and estimate.p_below(np.log1p(allow)) <= error / 2,
            seconds["base_s"][cell],
            seconds["head_s"][cell],
        )
        for (cell, (estimate, sessions)), word in zip(estimates.items(), words, strict=True)
    ]


def _words(found: Sequence[tuple[Estimate, int]], allow: float, looks: Sequence[int], error: float) -> list[Word]:
    bound = float(np.log1p(allow))
    slower = discoveries(np.array([estimate.p_above(bound) for estimate, _ in found]), error / 2)
    faster = discoveries(np.array([estimate.p_below(-bound) for estimate, _ in found]), error / 2)
    words: list[Word] = []
    for (estimate, sessions), up, down in zip(found, slower, faster, strict=True):
        again, enough = sessions >= least_to_accuse(looks), sessions >= looks[0]
        within = max(estimate.p_below(bound), estimate.p_above(-bound)) <= error / 2
        words.append(
            "slower" if up and again else "faster" if down and again else "same" if within and enough else "cannot tell"
        )
    return words


def more_sessions(found: Ratio, allow: float) -> int | None:
    """Sessions in all that would tell, on average four times in five; None where no number of them would: the true ratio
    lies too near the allowance.  Where it may be 1 still, so many as would clear it were it 1.

    margin = (z_look + z_power) · s / √K
    """
    bound = float(np.log1p(allow))
    margin = bound if found.interval.low <= 1 <= found.interval.high else abs(bound - found.estimate.value)
    spread = found.estimate.error * np.sqrt(found.sessions)
    if not found.estimate.degrees > 0 or margin <= 0:
        return None
    z = float(stats.norm.isf(ERROR_OF_LOOK / 2) + stats.norm.isf(0.2))
    return max(int(np.ceil((z * spread / margin) ** 2)), found.sessions + 1)
