"""Do predictions hold?  ``python -m analysis.predict_check RUN OTHER`` predicts from RUN every step of OTHER, a run of cells
that RUN has not measured, and tells how many lie inside their intervals (``make predict-check``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from analysis import cells, load, predict
from backprop_files import UserError


def check(run: load.Run, other: load.Run) -> pd.DataFrame:
    """One row a step of ``other`` that ``run`` lacks: measured and predicted seconds and bytes, and whether they are inside.

    Normalised seconds of two runs differ by how fast the machine was meanwhile: each counts in its own usual time of the
    product kernel, so those of ``other`` are brought to that of ``run``.
    """
    known = load.usual(run.entries[run.entries["phase"] == "step"])
    new = cells.table(load.usual(other.entries[other.entries["phase"] == "step"]))
    pace = _usual_product(run.entries) / _usual_product(other.entries)
    rows = []
    for impl, group in new.groupby("impl"):
        series = predict.series(run, str(impl))
        seen = set(known.loc[known["impl"] == impl, ["layers", "activation", "n"]].itertuples(index=False, name=None))
        for _, cell in group.iterrows():
            if (cell["layers"], cell["activation"], cell["n"]) in seen:
                continue
            layers = tuple(int(units) for units in str(cell["layers"]).split("-"))
            found = predict.predict(series, layers, int(cell["n"]), str(cell["activation"]))
            time_s, peak = float(cell["time_s"]) * pace, float(cell["peak_bytes"] or np.nan)
            rows.append(
                {
                    "impl": impl,
                    "layers": cell["layers"],
                    "activation": cell["activation"],
                    "n": int(cell["n"]),
                    "time_s": time_s,
                    "predicted_s": found.time_s.value,
                    "inside": found.time_s.low <= time_s <= found.time_s.high,
                    "width": found.time_s.high / found.time_s.low,
                    "error": found.time_s.value / time_s - 1,
                    "memory_error": found.memory_bytes.value / peak - 1,
                    "beyond": found.extrapolates,
                }
            )
    if not rows:
        raise UserError("the second run has no step that the first one lacks: give it another --seed")
    return pd.DataFrame(rows)


def _usual_product(entries: pd.DataFrame) -> float:
    """Median seconds of the product kernel in a quiet moment."""
    times = [found["product"].min() for found in entries["references"] if "product" in found]
    return float(np.median(times)) if times else 1.0


def main(
    run: Annotated[Path, typer.Argument(help="the run to predict from")],
    other: Annotated[Path, typer.Argument(help="a run of other cells")],
) -> None:
    """Print as Markdown how many new cells lie inside their intervals."""
    found = check(load.load([run]), load.load([other]))
    print(
        "| implementation | new cells | inside the 95 % interval | median error | p90 | interval, high / low | memory, p90 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in [*found.groupby("impl"), ("all", found)]:
        errors, memory = rows["error"].abs(), rows["memory_error"].abs()
        print(
            f"| {name!s} | {len(rows)} | {rows['inside'].mean():.0%} | {errors.median():.1%} | {errors.quantile(0.9):.1%} | "
            f"{rows['width'].median():.2f} | {memory.quantile(0.9):.1%} |"
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        sys.exit(f"error: {error}")
