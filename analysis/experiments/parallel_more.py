"""More ranks than were measured, from runs with one rank and two.

    T(k) = w·s·S(⌈n/k⌉) + q·α·(k - 1) + [(β + γ)·g + δ·(g - L2)]·(k - 1)/k + λ·log2 k
    S(n) = t0 + t1·layers + t2·hidden·p + n·(a·m + b·u·p) + c·m

S is a step of one rank, by a law with calls: a layer takes some, and each operation of an activation may.  q are the
all-reduces of a step, as the implementation tells.  gloo passes gradients round a ring, 2·(k - 1) messages one after the other,
so that α's part grows as k - 1.  γ is what a byte costs more in a step, where caches are cold, than in an all-reduce by itself.
δ is what a byte costs more that a core's own cache does not hold (g - L2, where positive).  λ is what ranks wait for the last of
them: the latest of k, if delays have exponential tails, is later by log k.

Two ranks with a core each tell s, what computing at once costs (by steps that send nothing), and α, β, γ, δ and λ (by
all-reduces and steps).  Two ranks on one core tell w, what computing costs there, and the other five where a core is shared.
Between and beyond both everything is linear in o(k) = max(1, k/c), as taking turns is, but for α: neighbours in the ring are on
different cores (rank r on core r mod c), and a hop between cores that are shared is measured by neither.  It costs at least a hop
within a shared core, and at most turns at one between cores; the geometric mean of these is taken.  No row of more than two
ranks enters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import laws
from analysis.experiments.parallel_law import (
    ALONE,
    LEAST_CELLS,
    STEP,
    Law,
    Measured,
    gradient_sized,
    numbers,
    of,
    share,
    shared,
    with_error,
)
from analysis.experiments.parallel_law import fit as declared
from analysis.statistics import Floats

#: Predictions of more ranks rest on no more than this many.
FEW = 2
#: Terms of S that every rank does anew, and that are shared out.
ANEW, SHARED_OUT = 4, 2


@dataclass(frozen=True)
class Work:
    """S(n), seconds: t0 a step, t1 a layer, t2 a hidden layer and operation, c a weight; a and b as in the declared law."""

    t0_s: float
    t1_s: float
    t2_s: float
    c_s: float
    a_s: float
    b_s: float

    def split(self, cells: pd.DataFrame) -> tuple[Floats, Floats]:
        """What every rank does anew, and what is shared out, of the slowest rank's share; a number a cell."""
        columns = design(cells) * np.array([self.t0_s, self.t1_s, self.t2_s, self.c_s, self.a_s, self.b_s])
        return np.asarray(columns[:, :ANEW].sum(axis=1)), np.asarray(columns[:, ANEW:].sum(axis=1))

    def seconds(self, cells: pd.DataFrame) -> Floats:
        """A number a cell."""
        anew, shared_out = self.split(cells)
        return anew + shared_out


def design(cells: pd.DataFrame) -> Floats:
    """Columns t0, t1, t2, c, a, b, shape (cells, 6)."""
    n, m, p, depth = share(cells), *(numbers(cells, name) for name in ("m", "p", "depth"))
    return np.column_stack([np.ones(len(cells)), depth, (depth - 1) * p, m, n * m, n * numbers(cells, "u") * p])


def beyond(cells: pd.DataFrame, size: str = "gradient_bytes") -> Floats:
    """Bytes that a core's own cache does not hold."""
    return np.maximum(0.0, numbers(cells, size) - numbers(cells, "cache_bytes"))


def single(cells: pd.DataFrame, variant: str = STEP) -> pd.DataFrame:
    """The steps of one rank."""
    return of(cells[cells["ranks"] == 1], "step", variant)


def work(cells: pd.DataFrame, variant: str = STEP) -> Work | None:
    """S by the steps of one rank; None where these are too few."""
    steps = single(cells, variant)
    if len(steps) < ANEW + SHARED_OUT + laws.SPARE_CELLS:
        return None
    found, _ = laws.fit_relative(design(steps), numbers(steps, "time_s"))
    return Work(*map(float, found))


@dataclass(frozen=True)
class Placed:
    """What two ranks pay, with a core each or on one: ``work`` times S, ``hop_s`` (α), ``byte_s`` (β), and in steps also
    ``cold_s`` a byte (γ) and ``lag_s`` (λ); ``far_s`` is what a byte costs more that a core's own cache no longer holds (δ).
    """

    work: float
    hop_s: float
    byte_s: float
    cold_s: float
    far_s: float
    lag_s: float

    def towards(self, other: Placed, x: float) -> Placed:
        """X of the way from this to the other."""
        ends = zip(vars(self).values(), vars(other).values(), strict=True)
        return Placed(*(here + (there - here) * x for here, there in ends))


@dataclass(frozen=True)
class More:
    """The law and its coefficients: ``apart`` on a core each, ``together`` on one."""

    work: Work
    apart: Placed
    together: Placed
    cache_bytes: float  # that a core has to itself

    def at(self, ranks: float, cores: float) -> Placed:
        """What k ranks on c cores pay: linear in o(k), and in the ranks that compute at once."""
        over = float(shared(np.array([ranks]), np.array([cores]))[0])
        found = self.apart.towards(self.together, (over - 1) / (FEW - 1))
        at_once = 1 + (self.apart.work - 1) * (min(ranks, cores) - 1)  # s, which on one core is 1
        waiting = 1 + (self.together.work - 1) * (over - 1) / (FEW - 1)  # w
        # between the α of a hop within a shared core and o(k)·α of one between cores
        hop = found.hop_s if cores == 1 else float(np.sqrt(found.hop_s * over * self.apart.hop_s))
        return replace(found, work=at_once * waiting, hop_s=hop)

    def parts(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Seconds by part, a row a cell, as those of the declared law (``parallel_law.Coefficients.parts``)."""
        anew, shared_out = self.work.split(cells)
        k, cores = numbers(cells, "ranks"), numbers(cells, "cores")
        placed = [self.at(*where) for where in zip(k, cores, strict=True)]
        at_once = np.array([self.at(n, n).work for n in np.minimum(k, cores)])
        slower = np.array([one.work for one in placed])
        g = numbers(cells, "gradient_bytes")
        sent = [
            q * one.hop_s * (r - 1)
            + ((one.byte_s + one.cold_s) * size + one.far_s * far) * (r - 1) / r
            + one.lag_s * np.log2(r)
            for one, q, r, size, far in zip(placed, numbers(cells, "messages"), k, g, beyond(cells), strict=True)
        ]
        found = {
            "compute": shared_out,
            "replicated": anew,
            "contention": (at_once - 1) * (anew + shared_out),
            "waiting": (slower - at_once) * (anew + shared_out),
            "communication": np.where(cells["variant"] == ALONE, 0.0, sent),
        }
        return pd.DataFrame(found, index=cells.index)

    def seconds(self, cells: pd.DataFrame) -> Floats:
        """T(k), a number a cell."""
        return np.asarray(self.parts(cells).sum(axis=1), float)

    def all_reduce_s(self, ranks: int, cores: int, sizes: Floats) -> Floats:
        """An all-reduce by itself: α·(k - 1) + β·B·(k - 1)/k."""
        there = self.at(ranks, min(ranks, cores))
        by_byte = there.byte_s * sizes + there.far_s * np.maximum(0.0, sizes - self.cache_bytes)
        return np.asarray(there.hop_s * (ranks - 1) + by_byte * (ranks - 1) / ranks)


def fit(cells: pd.DataFrame, most: int = FEW) -> More | None:
    """By the cells of at most two ranks; None where two were not measured both with a core each and on one."""
    few = cells[cells["ranks"] <= most]
    steps, alone = work(few), work(few, ALONE)
    if steps is None or alone is None:
        return None
    apart, together = (_placed(few, crowded, steps, alone) for crowded in (False, True))
    return More(steps, apart, together, float(few["cache_bytes"].iloc[0])) if apart and together else None


def _placed(cells: pd.DataFrame, crowded: bool, steps: Work, alone: Work) -> Placed | None:
    sweep = gradient_sized(cells, crowded)
    still, sending = (of(cells[cells["ranks"] == FEW], "step", variant, crowded) for variant in (ALONE, STEP))
    if len(sweep) < LEAST_CELLS or len(still) < LEAST_CELLS or len(sending) < LEAST_CELLS:
        return None
    slower = float(np.exp(np.mean(np.log(numbers(still, "time_s") / alone.seconds(still)))))
    # α, β, γ, λ: an all-reduce by itself is α + β·B/2, what a step sends q·α + (β + γ)·g/2 + λ
    half = numbers(sending, "gradient_bytes") / 2
    none, one = np.zeros(len(sweep)), np.ones(len(half))
    columns = np.vstack(
        [
            np.column_stack([none + 1, numbers(sweep, "bytes") / 2, none, beyond(sweep, "bytes") / 2, none]),
            np.column_stack([numbers(sending, "messages"), half, half, beyond(sending) / 2, one]),
        ]
    )
    times = np.concatenate([numbers(sweep, "time_s"), numbers(sending, "time_s")])
    known = np.concatenate([none, slower * steps.seconds(sending)])
    (hop, byte, cold, far, lag), _ = laws.fit_relative(columns, times, False, known)
    return Placed(slower, float(hop), float(byte), float(cold), float(far), float(lag))


# --- cells that no fit saw ------------------------------------------------------------------------------------------


def best(cells: pd.DataFrame) -> Law | None:
    """What is declared to predict more ranks: this law, or the declared one where two ranks were not measured on one core."""
    return fit(cells) or declared(cells)


def crowded(one: Measured) -> pd.DataFrame:
    """The steps of two ranks on one core with ``error``, each by a fit that did not see it: a first test of what is fitted."""
    steps = of(one.cells[one.cells["ranks"] == FEW], "step", STEP, crowded=True)
    made = [with_error(steps.loc[[at]], fit(one.cells.drop(index=[at]))) for at in steps.index]
    return pd.concat(made) if made else steps.assign(error=0.0)
