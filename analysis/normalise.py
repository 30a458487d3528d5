"""Normalised time: what a cell would have taken on a quiet machine running at its usual speed.

Three things change a time on a shared machine, and each has its remedy (docs/measuring.md has the experiments):

* **Disturbance**, somebody else's work on the same core, in bouts of a tenth of a second to seconds.  It only ever slows,
  so a pass of a cell is told by its fastest rounds, q = the mean log of the fastest one in five, three at most; while
  measuring, a visit goes on until the telltale kernel ``objects`` has shown enough quiet rounds (``bench.quiet``).
* **Speed**, the clock of the core.  Everything follows it, and so does the product kernel timed beside the rounds, which
  repeats to half a per cent in a quiet moment: time = q(rounds) / q(product) × the run's median of q(product).
* **Disturbance throughout**, where no quiet moment came: q(objects) / q(product) tells, which stays within 5 % of its
  quiet level in 99 passes of 100.  Such passes are marked ``disturbed`` and left out where two others at least remain
  (``kept``).  Where they do not, the telltale's excess is divided out with the exponent 1 - w, w the share of the
  matrix-product ceiling the cell reaches, since a disturbed core multiplies matrices nearly as fast as ever.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from backprop_files import TRANSFERS

#: What makes a cell, apart from the pass it was measured in.
IDENTITY = ["impl", "device", "dtype", "threads", "data", "layers", "activation", "loss", "optimizer", "n", "phase"]

#: Whose speed a time is divided by: every machine has a reference, quiet levels and ceilings of its own.
MACHINE = ["machine_class", "machine"]

KERNELS = ("product", "objects")
#: A pass of a cell is told by its fastest rounds: one in five, three at most.
ONE_IN, MOST = 5, 3
#: A pass of a cell whose telltale stays so much above its quiet level is disturbed; that level is this quantile over the
#: cells of its process, unless the process was disturbed itself.
TOLERANCE, LEVEL = 1.12, 0.25
#: So many undisturbed passes of a cell make the disturbed ones superfluous.
ENOUGH = 2


def normalise(entries: pd.DataFrame) -> pd.DataFrame:
    """Add ``time_s``, ``disturbed``, ``weight`` (w; NaN where no reference was timed and raw seconds stand in) and
    ``normal_logs`` (log of every round over its references: w of the product, 1 - w of the objects).

    ``entries`` has a row for each cell and pass, with ``seconds`` (rounds,) and ``references`` {kernel: (rounds,)}.  Nothing
    of one machine enters another's times.
    """
    level = [*_machine_columns(entries), "device", "dtype"]  # a kernel's work may be by dtype
    usual = {key: _usual(rows) for key, rows in entries.groupby(level)}
    calm = _quiet_levels(entries)
    parts = [
        _cell(rows.assign(calm=calm[rows.index]), usual[tuple(rows[level].iloc[0])])
        for _, rows in entries.groupby([*IDENTITY, *_machine_columns(entries)], sort=False)
    ]
    return pd.concat(parts).sort_index().drop(columns="calm")


def _machine_columns(entries: pd.DataFrame) -> list[str]:
    """Columns that tell machines apart; none where there is one machine, of which nobody need speak."""
    return [column for column in MACHINE if column in entries]


def quiet(times: np.ndarray) -> float:
    """Mean log of the fastest."""
    count = max(1, min(MOST, len(times) // ONE_IN))
    return float(np.log(np.sort(times)[:count]).mean())


def reference_s(entries: pd.DataFrame) -> dict[str, float]:
    """Seconds of the product kernel in the run's quiet moments, by device: what normalised times are multiples of.

    Devices on which some cell has no product beside it are left out, since there raw seconds may stand in.  Of several
    machines it is the median (``levelled`` brings their times to it).
    """
    found = {}
    copies = entries["phase"].isin(TRANSFERS)  # they have no kernel beside them, anywhere
    for device, rows in entries[~copies].groupby("device"):
        if rows["references"].map(lambda times: "product" in times).all():
            own = [_usual(part)["product"] for part in _by_machine(rows)]
            found[str(device)] = float(np.exp(np.median(own)))
    return found


def _by_machine(rows: pd.DataFrame) -> list[pd.DataFrame]:
    columns = _machine_columns(rows)
    return [part for _, part in rows.groupby(columns)] if columns else [rows]


def own_reference_s(entries: pd.DataFrame, kernel: str = "product") -> pd.Series:
    """Of every row the quiet kernel of its own machine, device and dtype, in seconds; NaN where none was timed.

    ``time_s`` over it is dimensionless: the same on a machine with another clock.
    """
    found = pd.Series(np.nan, entries.index)
    for _, rows in entries.groupby([*_machine_columns(entries), "device", "dtype"]):
        found[rows.index] = np.exp(_usual(rows).get(kernel, np.nan))
    return found


def levelled(entries: pd.DataFrame) -> pd.DataFrame:
    """Times of several machines as one machine of the median reference would have taken them; those of one as they are."""
    columns = _machine_columns(entries)
    if not columns or len(entries[columns].drop_duplicates()) < 2:
        return entries
    own = own_reference_s(entries)
    shared = own.groupby([entries["device"], entries["dtype"]]).transform("median")
    return entries.assign(time_s=(entries["time_s"] * shared / own).where(own.notna(), entries["time_s"]))


def _usual(rows: pd.DataFrame) -> dict[str, float]:
    """Of every kernel, the log of its usual quiet time over the whole run on a device."""
    return {
        kernel: float(np.median([quiet(found[kernel]) for found in rows["references"] if kernel in found]))
        for kernel in KERNELS
        if any(kernel in found for found in rows["references"])
    }


def kept(entries: pd.DataFrame) -> pd.DataFrame:
    """The passes that count: without the disturbed ones of cells that have enough others."""
    if "disturbed" not in entries:
        return entries
    calm = (~entries["disturbed"]).groupby([entries[column] for column in IDENTITY], sort=False).transform("sum")
    return entries[~entries["disturbed"] | (calm < ENOUGH)]


def _telltale(references: dict[str, np.ndarray]) -> float:
    """Log of quiet objects over quiet products: the clock moves both alike, a neighbour on the core the one alone."""
    if not references.keys() >= {"objects", "product"}:
        return float("nan")
    return quiet(references["objects"]) - quiet(references["product"])


def _quiet_levels(entries: pd.DataFrame) -> pd.Series:
    """The telltale's quiet level in the row's process: its own, unless that was disturbed from start to end.

    Processes of one implementation differ by a few per cent (memory layout), disturbances by half.
    """
    series = [entries[key] for key in ("impl", "device", "dtype", *_machine_columns(entries))]
    own = (
        entries["references"]
        .map(_telltale)
        .groupby([*series, entries["pass"]])
        .transform(lambda cells: cells.quantile(LEVEL))
    )
    usual = own.groupby(series).transform("median")
    return own.where(own <= usual + np.log(TOLERANCE), usual)


def _cell(rows: pd.DataFrame, usual: dict[str, float]) -> pd.DataFrame:
    kernels = [kernel for kernel in KERNELS if all(kernel in found for found in rows["references"])]
    if not kernels:
        return rows.assign(
            time_s=rows["raw_s"], disturbed=False, normal_logs=rows["seconds"].map(np.log), weight=np.nan
        )
    w = _share_of_ceiling(rows) if len(kernels) == 2 else 1.0
    excess = _excess(rows) if len(kernels) == 2 else pd.Series(0.0, rows.index)
    logs = rows["seconds"].map(quiet) - (1 - w) * excess
    if "product" in kernels:
        logs -= rows["references"].map(lambda found: quiet(found["product"])) - usual["product"]
    return rows.assign(
        time_s=np.exp(logs),
        disturbed=excess > 0,
        normal_logs=pd.Series(
            [_relative(s, r, usual, w) for s, r in zip(rows["seconds"], rows["references"], strict=True)], rows.index
        ),
        weight=w,
    )


def _excess(rows: pd.DataFrame) -> pd.Series:
    """How far (log) the telltale stayed above its quiet level throughout; 0 where there was a quiet moment."""
    above = rows["references"].map(_telltale) - rows["calm"]
    return above.where(above > np.log(TOLERANCE), 0.0)


def _share_of_ceiling(rows: pd.DataFrame) -> float:
    """Operations in products / seconds / ceiling, at most 1; 0 where no ceiling was measured."""
    ceiling = pd.to_numeric(rows["ceiling_flops"]).max()
    share = float(rows["operations_product"].iloc[0] / rows["raw_s"].median() / ceiling)
    return min(1.0, share) if np.isfinite(share) else 0.0


def _relative(
    seconds: np.ndarray, reference: dict[str, np.ndarray], usual: dict[str, float], weight: float
) -> np.ndarray:
    """Log of round / r × usual r with r = product^w · objects^(1 - w), shape (rounds,)."""
    logs = np.log(seconds)
    for kernel, share in zip(KERNELS, (weight, 1 - weight), strict=True):
        if share and kernel in reference:
            logs = logs - share * (np.log(reference[kernel]) - usual[kernel])
    return np.asarray(logs)
