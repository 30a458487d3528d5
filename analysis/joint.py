"""One law for machines of several classes: the declared laws on dimensionless time.

A machine's unit of time is made of its own quiet reference kernels (``CALIBRATION``), so that t / unit is the same on a
machine that does everything at another speed, or products at another than the rest.  On it the analysis is that of one machine,
with **machines in the place of passes**: a machine's passes are joined into one time for each cell, and what intervals rest on
is how machines differ (cluster-robust, by Student's t) and how cells lie about the law.  With fewer than ``ENOUGH`` machines
there is no telling how machines differ, so there are no intervals.

The test of a joint law is a class that it has not seen: laws are chosen and fitted anew on all others, and asked about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import cells as cell_table
from analysis import laws, verdicts
from analysis.claims import HELDOUT_BAND
from analysis.costs import Cost, costs
from analysis.hypotheses import Law, declared
from analysis.load import GROUP, usual
from analysis.normalise import IDENTITY, MACHINE, kept, own_reference_s
from analysis.statistics import Floats
from analysis.verdicts import Verdict, Word

#: Fewer machines do not tell how machines differ.
ENOUGH = 3
CACHES = ("L1", "L2", "L3")


def _products(entries: pd.DataFrame) -> pd.Series:
    return own_reference_s(entries, "product")


def _objects(entries: pd.DataFrame) -> pd.Series:
    return own_reference_s(entries, "objects")


def _both(entries: pd.DataFrame) -> pd.Series:
    """The machine's slowness in products and in objects, each over the mean machine's (geometric), mixed by what a cell is
    made of, product^w · objects^(1 - w), w the share of the ceiling it reaches on all machines together; times the mean
    machine's product kernel, so that the unit of a cell depends on the machine alone and a law keeps its form.
    """
    share = entries["weight"].groupby([entries[column] for column in IDENTITY]).transform("median")
    product, objects = np.log(_products(entries)), np.log(_objects(entries))
    of_machine = entries.assign(product=product, objects=objects).drop_duplicates([*MACHINE, "device", "dtype"])
    mean = of_machine.groupby(["device", "dtype"])[["product", "objects"]].mean()
    means = mean.reindex(pd.MultiIndex.from_frame(entries[["device", "dtype"]])).to_numpy()
    slower = share * (product - means[:, 0]) + (1 - share) * (objects - means[:, 1])
    return pd.Series(np.exp(means[:, 0] + slower.to_numpy(float)), entries.index)


def _ceiling(entries: pd.DataFrame) -> pd.Series:
    """Seconds of 10⁶ operations at the machine's own matrix ceiling."""
    own = cell_table.machine_ceilings(entries)["ceiling_flops"]
    return pd.Series(1e6 / own.reindex(pd.MultiIndex.from_frame(entries[own.index.names])).to_numpy(), entries.index)


#: Seconds of a machine's unit of time, by row.
CALIBRATIONS: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
    "product": _products,
    "objects": _objects,
    "both": _both,
    "ceiling": _ceiling,
}
#: Chosen by what predicts another machine best (docs/fleet.md has the figures).
CALIBRATION = "both"
#: The same in words, behind "in units of each machine's own reference".
UNIT = "the machine's quiet reference kernels, product and objects, by what a cell is made of"


@dataclass(frozen=True, eq=False)
class ClassError:
    """How a class's cells lie about the joint law, and about the law that the other classes alone make: medians of
    |t̂/t - 1|, and the median of t/t̂, above 1 where the class is slower than its reference promises.  ``times`` of its cells
    are in units of the reference, ``ratios`` t̂/t by the law it was left out of.
    """

    group: str
    cells: int
    joint_median: float
    left_out_law: str
    left_out_median: float
    left_out_p90: float
    slower: float
    word: Word
    times: Floats
    ratios: Floats


@dataclass(frozen=True, eq=False)
class Joint:
    """The joint analysis of one implementation's steps; times of ``verdict`` and ``cells`` are in units of the reference."""

    verdict: Verdict
    cells: pd.DataFrame
    machines: int
    classes: tuple[str, ...]
    errors: tuple[ClassError, ...]

    @property
    def enough(self) -> bool:
        """Whether intervals can be told."""
        return self.machines >= ENOUGH

    @property
    def costs(self) -> list[Cost]:
        """Of the winning law, in units of the reference (the product kernel of the mean machine)."""
        found = costs(self.verdict.choice, "step", self.cells)
        return [replace(cost, share=None, ceiling="") for cost in found]


def joint(
    entries: pd.DataFrame, hypotheses: Sequence[Law] | None = None, calibration: str = CALIBRATION
) -> list[Joint]:
    """For every series whose steps machines of two classes at least measured, with a reference; entries are a whole run's."""
    hypotheses = declared() if hypotheses is None else hypotheses
    frame = dimensionless(usual(entries[entries["phase"] == "step"]), calibration)
    return [
        _joint(rows, hypotheses)
        for _, rows in frame.groupby(GROUP, sort=True)
        if rows["machine_class"].nunique() > 1 and rows["time_s"].notna().all()
    ]


def dimensionless(entries: pd.DataFrame, calibration: str = CALIBRATION) -> pd.DataFrame:
    """A row for each cell and machine: ``time_s`` and ceilings in the machine's own unit of time, ``pass`` its number.

    Sizes of caches are kept where all classes have the same, since a cell's row stands for all of them.
    """
    parts = [kept(rows) for _, rows in entries.groupby("machine_class", sort=True)]
    counted = pd.concat(parts) if parts else entries
    unit = CALIBRATIONS[calibration](counted)
    number = counted.groupby(MACHINE).ngroup() + 1
    counted = counted.assign(
        time_s=counted["time_s"] / unit,
        ceiling_flops=pd.to_numeric(counted["ceiling_flops"]) * unit,
        bandwidth_bytes_per_s=pd.to_numeric(counted["bandwidth_bytes_per_s"]) * unit,
        peak_bytes=np.nan,
        disturbed=False,
        **{"pass": number},
    )
    where = [*IDENTITY, *MACHINE]
    logs = np.log(counted["time_s"]).groupby([counted[column] for column in where]).transform("mean")
    found = counted.assign(time_s=np.exp(logs)).drop_duplicates(where)
    unlike = [size for size in CACHES if len(found[["machine_class", size]].drop_duplicates()[size].unique()) > 1]
    return found.assign(**dict.fromkeys(unlike, np.nan)).reset_index(drop=True)


def _joint(rows: pd.DataFrame, hypotheses: Sequence[Law]) -> Joint:
    cells = cell_table.table(rows)
    machines = int(rows["pass"].nunique())
    (verdict,) = verdicts.judge(rows, cells, hypotheses, laws.DRAWS if machines >= ENOUGH else 0)
    classes = tuple(sorted(rows["machine_class"].unique()))
    if machines < ENOUGH:
        verdict = _without_intervals(verdict, machines)
    errors = tuple(_error(rows, group, verdict.choice, hypotheses) for group in classes)
    return Joint(verdict, cells, machines, classes, errors)


def _without_intervals(verdict: Verdict, machines: int) -> Verdict:
    why = f"too few machines ({machines}) to tell how machines differ"
    bare = {
        name: replace(found, ci_low=None, ci_high=None, reason=why) if found.value is not None else found
        for name, found in verdict.exponents.items()
    }
    reason = f"Inconclusive, because {machines} machines are too few to tell how machines differ."
    return replace(verdict, exponents=bare, word="inconclusive", reason=reason)


def _error(rows: pd.DataFrame, group: str, choice: laws.Choice, hypotheses: Sequence[Law]) -> ClassError:
    own = rows["machine_class"] == group
    asked = cell_table.table(rows[own])
    asked = asked[asked["axis"] != "functions"]
    others = laws.choose(cell_table.table(rows[~own]), "step", hypotheses)
    off = _errors(others, asked)
    median, p90 = (float(np.quantile(np.abs(off), q)) if len(off) else np.nan for q in (0.5, 0.9))
    joint_off = _errors(choice, asked)
    return ClassError(
        group,
        len(asked),
        float(np.median(np.abs(joint_off))) if len(joint_off) else np.nan,
        others.final.law.name if others.final else "",
        median,
        p90,
        float(np.median(1 / (1 + off))) if len(off) else np.nan,
        _word(median, p90),
        asked["time_s"].to_numpy(float),
        1 + off,
    )


def _errors(choice: laws.Choice, cells: pd.DataFrame) -> Floats:
    """t̂/t - 1 by the law fitted to all its cells; none where no law could be chosen."""
    if choice.final is None:
        return np.empty(0)
    return np.asarray(choice.final.predict(cells) / cells["time_s"].to_numpy(float) - 1)


def _word(median: float, p90: float) -> Word:
    """As with held-out cells: nine cells in ten within the band, or not even the half of them."""
    if p90 <= HELDOUT_BAND:
        return "supported"
    return "refuted" if median > HELDOUT_BAND else "inconclusive"
