"""What ranks buy, read from measured cells: efficiency by k, what overlap hides, where the time goes, how compute shrinks.

Each quantity is a function of the cells, so that its interval over passes is the quantity told without each pass in turn
(``parallel_law.over_passes``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.experiments.parallel_law import (
    ALONE,
    IN_TURN,
    STEP,
    Law,
    Measured,
    fit,
    of,
    over_passes,
    scaled,
    shared,
)
from analysis.statistics import Interval

NETWORK = ["layers", "activation", "loss"]
SCALINGS = ("strong", "weak")
#: The growth of compute in k is asked of networks where compute is so much of a step over any number of ranks.
MOSTLY_COMPUTE = 0.5


@dataclass(frozen=True)
class Network:
    """A network as it stands in tables and legends."""

    layers: str
    activation: str
    loss: str
    m: float

    @property
    def name(self) -> str:
        """Layers and activation."""
        return f"{self.layers} {self.activation}"

    def cells(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of the network."""
        return rows[
            (rows["layers"] == self.layers) & (rows["activation"] == self.activation) & (rows["loss"] == self.loss)
        ]


def networks(one: Measured, scaling: str) -> list[Network]:
    """The networks scaled in that way over more than one rank, small ones first."""
    steps = scaled(one.steps(STEP), scaling)
    found = steps[steps["ranks"] > 1].drop_duplicates(NETWORK).sort_values(["m", "p"])
    keys = found[[*NETWORK, "m"]].itertuples(index=False, name=None)
    return [Network(str(layers), str(activation), str(loss), float(m)) for layers, activation, loss, m in keys]


def line(one: Measured, network: Network, scaling: str, variant: str = STEP) -> pd.DataFrame:
    """The cells of one network along k in one way of scaling, one rank first.

    A single rank stands on the line whatever it was measured for: with the same n (strong), or with n/k examples (weak).
    """
    steps = network.cells(one.steps(variant))
    many = scaled(steps[steps["ranks"] > 1], scaling)
    base = many["n"] if scaling == "strong" else many["n"] / many["ranks"]
    one_rank = steps[(steps["ranks"] == 1) & steps["n"].isin(base.unique())]
    if len(base.unique()) > 1:  # several such lines: the one with the most examples
        largest = max(base.unique())
        many, one_rank = many[base == largest], one_rank[one_rank["n"] == largest]
    return pd.concat([one_rank, many]).sort_values("ranks")


# --- efficiency -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Efficiency:
    """Strong: T(1)/(k·T(k)); weak: T(1)/T(k).  ``allowed`` is the same over what the cores allow, times o(k)."""

    network: Network
    scaling: str
    ranks: int
    n: int
    time_s: float
    plain: Interval
    allowed: Interval


def efficiencies(one: Measured) -> list[Efficiency]:
    """Of every line and k > 1 that has its single rank."""
    made = []
    for scaling in SCALINGS:
        for network in networks(one, scaling):
            cells = line(one, network, scaling)
            if not (cells["ranks"] == 1).any():
                continue
            single = int(cells.index[cells["ranks"] == 1][0])
            for at, cell in cells[cells["ranks"] > 1].iterrows():
                k = int(cell["ranks"])
                over = float(shared(np.array([float(k)]), np.array([float(cell["cores"])]))[0])
                found = _ratio(one, single, int(str(at)), 1 / k if scaling == "strong" else 1.0)
                allowed = Interval(found.value * over, found.low * over, found.high * over)
                made.append(Efficiency(network, scaling, k, int(cell["n"]), float(cell["time_s"]), found, allowed))
    return made


def _ratio(one: Measured, upper: int, lower: int, times: float) -> Interval:
    def told(cells: pd.DataFrame) -> float:
        there = cells["time_s"]
        return float(there[upper] / there[lower]) * times if {upper, lower} <= set(there.index) else np.nan

    return over_passes(one, told)


# --- overlap --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """What starting to send before backward has ended saves, over k ranks: ``saved_s`` is in_turn - step, ``communication_s``
    is in_turn - alone, ``hidden`` the one over the other.
    """

    name: str
    ranks: int
    n: int
    saved_s: Interval
    communication_s: Interval
    hidden: Interval


def overlaps(one: Measured) -> list[Overlap]:
    """Of every network in strong scaling, and over all of them together (``name`` empty) for each k."""
    made = []
    wide = _variants(one.cells)
    for k in one.ranks:
        rows = [wide_row for wide_row in wide.index if wide_row[-1] == k]
        if k == 1 or not rows:
            continue
        for network in networks(one, "strong"):
            ns = line(one, network, "strong").query("ranks == @k")["n"]
            own = [row for row in rows if row[:2] == (network.layers, network.activation) and row[3] in set(ns)]
            if own:
                made.append(_overlap(one, network.name, k, int(ns.iloc[0]), own))
        made.append(_overlap(one, "", k, 0, rows))
    return made


def hidden(one: Measured, k: int | None = None) -> Interval:
    """The share of communication hidden over all steps over k ranks, or over any number."""
    rows = [row for row in _variants(one.cells).index if row[-1] > 1 and k in (None, row[-1])]
    return _overlap(one, "", k or 0, 0, rows).hidden if rows else Interval(np.nan, np.nan, np.nan)


def _variants(cells: pd.DataFrame) -> pd.DataFrame:
    """Time by variant, a row for each step that has all three."""
    steps = of(cells, "step")
    wide = steps.pivot_table("time_s", [*NETWORK, "n", "ranks"], "variant", sort=False)
    return wide.reindex(columns=[STEP, IN_TURN, ALONE]).dropna()


def _overlap(one: Measured, name: str, k: int, n: int, rows: Sequence[tuple[object, ...]]) -> Overlap:
    def totals(cells: pd.DataFrame) -> tuple[float, float]:
        wide = _variants(cells)
        wide = wide.loc[wide.index.isin(rows)]
        saved, sent = wide[IN_TURN] - wide[STEP], wide[IN_TURN] - wide[ALONE]
        return float(saved.mean()), float(sent.mean())

    return Overlap(
        name,
        k,
        n,
        _signed(one, lambda cells: totals(cells)[0]),
        _signed(one, lambda cells: totals(cells)[1]),
        _signed(one, lambda cells: totals(cells)[0] / totals(cells)[1]),
    )


def _signed(one: Measured, told: Callable[[pd.DataFrame], float]) -> Interval:
    return over_passes(one, told, signed=True)


# --- where the time goes --------------------------------------------------------------------------------------------


def shares(cells: pd.DataFrame, found: Law) -> pd.DataFrame:
    """Of every cell the share of its time by part, as the law has it; a row sums to 1."""
    parts = found.parts(cells)
    return parts.div(parts.sum(axis=1), axis=0)


# --- how compute shrinks --------------------------------------------------------------------------------------------


def shrinking(one: Measured) -> Interval:
    """The x of compute ∝ (1/k)^x at the same n: steps that send nothing, over o(k), less what every rank does anew (t0 + c·m, as
    fitted to them); slope through all networks that mostly compute, each with a level of its own.
    """
    return over_passes(one, _exponent)


def _exponent(cells: pd.DataFrame) -> float:
    found = fit(cells, ALONE)
    alone = scaled(of(cells, "step", ALONE), "strong")
    single = of(cells[cells["ranks"] == 1], "step", ALONE)
    alone = pd.concat([alone, single]).drop_duplicates([*NETWORK, "n", "ranks"])
    if found is None or not len(alone):
        return np.nan
    over = shared(alone["ranks"].to_numpy(float), alone["cores"].to_numpy(float))
    whole = alone["time_s"] / over
    rest = whole - (found.t0_s + found.c_s * alone["m"])
    alone = alone.assign(x=-np.log(alone["ranks"]), rest=rest, mostly=rest >= MOSTLY_COMPUTE * whole)
    above = below = 0.0
    for _, network in alone.groupby([*NETWORK, "n"]):
        if network["mostly"].all() and network["ranks"].nunique() > 1:
            x = (network["x"] - network["x"].mean()).to_numpy(float)
            above += float(x @ np.log(network["rest"].to_numpy(float)))
            below += float(x @ x)
    return above / below if below else np.nan
