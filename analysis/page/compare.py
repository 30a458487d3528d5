"""Two or more runs side by side: machines, versions or commits, ratios with intervals, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import cells as cell_table
from analysis import load, verdicts, words
from analysis.figures import COLOURS, MARKERS
from analysis.hypotheses import Law
from analysis.load import Run
from analysis.normalise import reference_s
from analysis.page import data, write
from analysis.statistics import Interval, t_quantile
from backprop_files import TRANSFERS, UserError, write_whole

SCRIPTS = (*write.READING, "explore", "compare")
#: Facts of a run that stand side by side.
_FACTS = ("cpu model", "memory", "accelerators", "system", "release", "python version", "libraries")
#: In the order of a step.
PHASES = ("step", "forward", "loss", "backward", "update")
#: Of a cell; threads and data may differ from run to run, and are told.
_CELL = ["impl", "device", "dtype", "layers", "activation", "loss", "optimizer", "n", "phase"]


@dataclass(frozen=True, eq=False)
class Side:
    """One run of a comparison: its name in the page, and its cells."""

    name: str
    run: Run
    cells: pd.DataFrame


def sides(paths: Sequence[Path]) -> list[Side]:
    """Read every run by itself; one that machines of several classes measured is a side for each of them.

    Raises UserError for fewer than two sides, or for a run that is not whole.
    """
    found = []
    for path, name in zip(paths, names(paths), strict=True):
        run = load.load([path])
        several = load.of_several_classes(run)
        parts = (
            {f"{name}, {known.short}": load.of_class(run, known.id) for known in run.classes}
            if several
            else {name: run}
        )
        for told, part in parts.items():
            entries = part.entries[~part.entries["phase"].isin(TRANSFERS)]
            found.append(Side(told, part, cell_table.table(entries).drop_duplicates(_CELL)))
    if len(found) < 2:
        raise UserError("--compare takes two runs or more: backprop-bench report A B --compare")
    return found


def names(paths: Sequence[Path]) -> list[str]:
    """Every path's last part, or as much of its end as tells it from the others."""
    parts = [path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        told = ["/".join(part[-count:]) for part in parts]
        if len(set(told)) == len(told):
            return told
    return [f"{i}: {part[-1]}" for i, part in enumerate(parts, 1)]  # the same run twice


def write_comparison(paths: Sequence[Path], out: Path, hypotheses: Sequence[Law] | None = None) -> Path:
    """Write ``compare.html`` into ``out``; ratios are over the first run."""
    found = sides(paths)
    block = document(found, hypotheses)
    context = {"data": block, "facts": facts(found), "summary": summary(found), "page": write.parts(block, SCRIPTS)}
    page = out / "compare.html"
    write_whole(page, words.environment().get_template("compare.html").render(context))
    return page


def document(found: Sequence[Side], hypotheses: Sequence[Law] | None = None) -> dict[str, Any]:
    """The JSON block: every cell that any run has, and of each run its time, interval, bytes and reference kernel."""
    joined = joined_cells(found)
    series = list(dict.fromkeys(joined["series"]))
    names_ = {name: i for i, name in enumerate(series)}
    lists = {
        name: sorted({str(v) for v in joined[name]}) for name in ("layers", "activation", "optimizer", "phase", "axis")
    }
    first = [joined[joined["series"] == name].iloc[0] for name in series]
    return {
        "schema": 1,
        "runs": [_run(side, i, joined) for i, side in enumerate(found)],
        "series": [data.series_of(name, cell, i) for i, (name, cell) in enumerate(zip(series, first, strict=True))],
        "lists": lists,
        "cells": data.placed(joined, lists, names_, ("n", "m", "p", "u", "width", "depth")),
        "verdicts": _verdicts(found, hypotheses),
    }


def joined_cells(found: Sequence[Side]) -> pd.DataFrame:
    """Every cell once, whichever run has it, in the order they first come."""
    every = pd.concat([side.cells for side in found], ignore_index=True).drop_duplicates(_CELL)
    full = every["impl"] + " " + every["device"] + " " + every["dtype"]
    several = full.groupby(every["impl"]).transform("nunique") > 1
    return every.assign(series=full.where(several, every["impl"])).reset_index(drop=True)


def _run(side: Side, place: int, joined: pd.DataFrame) -> dict[str, Any]:
    own = joined[_CELL].merge(side.cells, on=_CELL, how="left")
    return {
        "name": side.name,
        "colour": place % len(COLOURS),
        "marker": place % len(MARKERS),
        "reference_s": {device: data.plain(seconds) for device, seconds in reference_s(side.run.entries).items()},
        **{name: data.rounded(own[name], 6) for name in ("time_s", "ci_low_s", "ci_high_s", "raw_s")},
        "peak_bytes": data.bytes_of(own),
    }


def _verdicts(found: Sequence[Side], hypotheses: Sequence[Law] | None) -> list[dict[str, Any]]:
    """Of whole steps, run by run."""
    return [
        {
            "run": side.name,
            "series": f"{verdict.impl} {verdict.device} {verdict.dtype}",
            "word": verdict.word,
            "law": verdict.choice.winner.law.name if verdict.choice.winner else "–",
            "exponents": {name: words.exponent(verdict.exponents[name]) for name in "nmp"},
        }
        for side in found
        for verdict in verdicts.judge(side.run.entries, side.cells, hypotheses, resamples=0)
        if verdict.phase == "step"
    ]


def facts(found: Sequence[Side]) -> list[dict[str, Any]]:
    """What the runs are: machine, versions, commit, settings; ``differs`` where they are not the same."""
    rows = {"run": [side.name for side in found]}
    machines = [words.machine_rows(side.run.machine) for side in found]
    for key in _FACTS:
        values = [machine.get(key, "–") for machine in machines]
        if set(values) != {"–"}:
            rows[key] = values
    rows["measured at"] = [side.run.measured_at or "–" for side in found]
    rows["commit"] = [_commit(side.run) for side in found]
    rows["profile"] = [str(side.run.settings.get("profile", "–")) for side in found]
    rows["cells"] = [str(len(side.cells)) for side in found]
    return [{"fact": key, "values": values, "differs": len(set(values)) > 1} for key, values in rows.items()]


def _commit(run: Run) -> str:
    name = str(run.commit.get("id") or "–")[:12]
    return name + (", tree not clean" if run.commit.get("dirty") else "")


def summary(found: Sequence[Side]) -> list[dict[str, Any]]:
    """For every series and phase the geometric mean over cells of each run's time over the first run's, with a 95 % interval
    over cells: a run's own luck, shared by all its cells, is not in it.
    """
    base = found[0].cells
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for side in found[1:]:
        both = base.merge(side.cells, on=_CELL, suffixes=("", "_other"))
        for key, cells in both.groupby(["impl", "device", "dtype", "phase"], sort=False):
            name = (" ".join(map(str, key[:3])), str(key[3]))
            row = rows.setdefault(name, {"series": name[0], "phase": name[1], "ratios": {}})
            logs = np.log(cells["time_s_other"].to_numpy(float) / cells["time_s"].to_numpy(float))
            row["ratios"][side.name] = {"interval": mean_ratio(logs), "cells": len(logs)}
    return sorted(rows.values(), key=lambda row: (row["series"], PHASES.index(row["phase"])))


def mean_ratio(logs: np.ndarray) -> Interval:
    """Exp of the mean with Student's t; without an interval for a single cell."""
    mean = float(logs.mean())
    if len(logs) < 2:
        return Interval(float(np.exp(mean)), float("nan"), float("nan"))
    half = t_quantile(len(logs) - 1) * float(logs.std(ddof=1)) / float(np.sqrt(len(logs)))
    return Interval(*(float(np.exp(mean + sign * half)) for sign in (0, -1, 1)))
