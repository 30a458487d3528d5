"""How well cells repeat from process to process, and which reference kernel makes them repeat best.

``python -m analysis.repeatability DIR`` prints the table of a run of many passes (``make repeatability``);
``--precision`` prints instead how many cells of a run have a 95 % interval as narrow as that, and their memory;
``--kernels FIGURE`` compares the kernels of a run that timed them all (``make kernels``) and draws the comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from analysis import cells, figures, load
from analysis.normalise import IDENTITY, kept
from backprop_files import UserError

#: Steps shorter than the first are small cells, longer than the second large ones (seconds).
SIZES = (1e-4, 4e-4)
#: How many rounds away the reference is taken; a round and its references take about 5 ms.
DISTANCES = (0, 1, 3, 10)


def table(entries: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: ``raw`` and ``normal``, standard deviation of log time between the passes that count (CV), and
    how many those are.
    """
    entries = kept(entries)
    logs = entries.assign(raw=np.log(entries["raw_s"]), normal=np.log(entries["time_s"]))
    grouped = logs.groupby(IDENTITY, sort=False)
    found = grouped[["raw", "normal"]].std()
    return found.assign(passes=grouped.size(), step_s=grouped["time_s"].median()).reset_index()


def harness_share(entries: pd.DataFrame) -> float:
    """What the harness adds: (time a cell took in all - time measured) / time measured, over all cells but the first
    of each process, in which libraries finish loading.
    """
    measured = entries["iterations"] * entries["seconds"].map(np.sum)
    first = entries.groupby(["impl", "pass"])["started_at"].transform("min") == entries["started_at"]
    return float((entries["wall_s"][~first].sum() - measured[~first].sum()) / measured[~first].sum())


def memory_share(entries: pd.DataFrame, largest: int = 10) -> float:
    """Most that one of the largest cells took of the memory estimated beforehand; NaN where nothing tells."""
    told = entries.assign(peak_bytes=pd.to_numeric(entries["peak_bytes"])).dropna(subset=["peak_bytes"])
    big = told.sort_values("estimated_bytes").tail(largest)  # traced in the first pass only
    return float((big["peak_bytes"] / big["estimated_bytes"]).max())


def narrow(table: pd.DataFrame, half_width: float) -> pd.DataFrame:
    """Share of cells whose 95 % interval is at most ``half_width`` to either side: implementations by phases, and all."""
    good = (table["precision"] <= half_width).rename("narrow")
    joined = pd.concat([table[["impl", "phase"]], good], axis=1)
    return joined.pivot_table(index="impl", columns="phase", values="narrow", aggfunc="mean", margins=True)


def size(seconds: float) -> str:
    """Small, middle or large."""
    return "small" if seconds < SIZES[0] else "large" if seconds > SIZES[1] else "middle"


def by_kernel(entries: pd.DataFrame, distance: int = 0) -> pd.DataFrame:
    """CV of every cell for each kernel in the place of ``objects``; columns are kernels, and ``none`` for raw times.

    ``distance`` takes the reference times from so many rounds further on.
    """
    kernels = sorted({kernel for references in entries["references"] for kernel in references} - {"product"})
    found = pd.DataFrame({"none": entries["seconds"].map(lambda s: float(np.median(np.log(s))))})
    for kernel in kernels:
        found[kernel] = [
            _log_time(seconds, references, kernel, weight, distance)
            for seconds, references, weight in zip(
                entries["seconds"], entries["references"], entries["weight"], strict=True
            )
        ]
    return found.groupby([entries[column] for column in IDENTITY], sort=False).std()


def _log_time(
    seconds: np.ndarray, references: dict[str, np.ndarray], kernel: str, weight: float, distance: int
) -> float:
    shares = {"product": weight, kernel: 1 - weight}
    reference = sum(share * np.roll(np.log(references[name]), -distance) for name, share in shares.items())
    return float(np.median(np.log(seconds) - reference))


def comparison(entries: pd.DataFrame) -> pd.DataFrame:
    """Median CV of small, middle and large cells (columns) by kernel (rows), best first."""
    sizes = entries.groupby(IDENTITY, sort=False)["time_s"].median().map(size)
    medians = by_kernel(entries).groupby(sizes).median().T
    return medians.assign(all=by_kernel(entries).median()).sort_values("all")


def draw(entries: pd.DataFrame) -> Figure:
    """CV of every cell by kernel, and by the distance of the reference."""
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        spreads = by_kernel(entries)
        order = spreads.median().sort_values().index
        left.boxplot([100 * spreads[kernel] for kernel in order], tick_labels=list(order), showfliers=False)
        left.set(ylabel="CV between processes, %", title="kernel beside product", yscale="log")
        left.tick_params(axis="x", rotation=30)
        far = [100 * by_kernel(entries, distance)["objects"] for distance in DISTANCES]
        right.boxplot(far, tick_labels=[f"{distance}" for distance in DISTANCES], showfliers=False)
        right.set(xlabel="rounds between a round and its reference", title="objects, further and further away")
        right.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        return figure


def main(
    run: Annotated[Path, typer.Argument(help="a run directory of many passes")],
    kernels: Annotated[Path | None, typer.Option(help="compare the kernels, and draw the comparison there")] = None,
    precision: Annotated[float | None, typer.Option(help="how many cells have an interval so narrow")] = None,
) -> None:
    """Print as Markdown how well the cells of a run repeat."""
    entries = load.load([run]).entries
    if precision:
        shares = narrow(cells.table(entries), precision)
        print(
            f"| half-width ≤ {precision:.0%} | {' | '.join(shares.columns)} |\n|{' --- |' * (len(shares.columns) + 1)}"
        )
        for impl, row in shares.iterrows():
            print(f"| {impl} | " + " | ".join("" if np.isnan(share) else f"{share:.0%}" for share in row) + " |")
        print(f"\nThe largest cells took at most {memory_share(entries):.0%} of the memory estimated for them.")
        return
    if kernels:
        print("| kernel beside product | small | middle | large | all |\n| --- | --- | --- | --- | --- |")
        for kernel, row in comparison(entries).iterrows():
            told = " | ".join(f"{100 * row.get(name, np.nan):.1f} %" for name in ("small", "middle", "large", "all"))
            print(f"| {kernel} | {told} |")
        draw(entries).savefig(kernels, dpi=110)
        return
    spreads = table(entries)
    print("| cell | passes | raw CV | normalised CV |\n| --- | --- | --- | --- |")
    for _, row in spreads.iterrows():
        label = f"{row['impl']} {row['layers']} {row['activation']} n={row['n']} {row['phase']}"
        print(f"| {label} | {row['passes']} | {row['raw']:.1%} | {row['normal']:.1%} |")
    print(f"| **median** | | {spreads['raw'].median():.1%} | {spreads['normal'].median():.1%} |")
    print(f"| **worst** | | {spreads['raw'].max():.1%} | {spreads['normal'].max():.1%} |")
    for impl, rows in spreads.groupby("impl"):
        print(f"| {impl!s}, median | | {rows['raw'].median():.1%} | {rows['normal'].median():.1%} |")
    print(f"\n{entries['disturbed'].sum()} of {len(entries)} passes of cells saw no quiet moment and do not count.")
    print(f"The harness adds {harness_share(entries):.0%} to the time measured, reference kernels included.")


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        sys.exit(f"error: {error}")
