"""A run of several machines: every machine against its class, and classes against each other; no side effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis import odd_machines, words
from analysis.cells import machine_ceilings
from analysis.load import Run
from analysis.machines import cut
from analysis.normalise import IDENTITY, MACHINE, kept, own_reference_s, quiet
from analysis.odd_machines import THRESHOLD, Ratio
from analysis.statistics import Floats, Interval
from backprop_files import TRANSFERS

Finding = Literal["disagrees", "slower overall", "faster overall", "agrees", "cannot tell", "alone"]


@dataclass(frozen=True)
class MachineRow:
    """One machine on one device: what it measured (``passes`` are processes), its ceilings and reference, and how it stands to
    its class.

    ``normalised`` compares times in units of each machine's own reference, ``overall`` seconds of quiet rounds, which a
    slower clock lengthens too; ``ceiling_ratio`` and ``bandwidth_ratio`` its ceilings over theirs, as processes of the same
    implementation measured them.  ``sentence`` is empty unless the machine is named.
    """

    machine: str
    group: str
    device: str
    passes: int
    cells: int
    ceiling_flops: float
    bandwidth_bytes_per_s: float
    reference_s: float
    ceiling_ratio: float
    bandwidth_ratio: float
    normalised: Ratio
    overall: Ratio
    word: Finding
    sentence: str = ""


def several_machines(run: Run) -> bool:
    """Whether several machines measured one device, so that there is anything to compare."""
    machines = run.entries.groupby("device")[MACHINE].apply(lambda rows: len(rows.drop_duplicates()))
    return bool((machines > 1).any())


def machine_rows(run: Run) -> list[MachineRow]:
    """Every machine and device of every class, in the order of class, device and machine."""
    entries = run.entries[~run.entries["phase"].isin(TRANSFERS)]
    parts = {
        (known.id, str(device)): rows
        for known in run.classes
        for device, rows in entries[entries["machine_class"] == known.id].groupby("device")
    }
    looks = sum(_looks(rows["machine"].nunique()) for rows in parts.values())
    return [row for (group, device), rows in parts.items() for row in _of_class(group, device, rows, looks)]


def _looks(machines: int) -> int:
    """Two measures of every machine; of two machines one ratio is the other's inverse."""
    return 0 if machines < 2 else 2 if machines == 2 else 2 * machines


def _of_class(group: str, device: str, rows: pd.DataFrame, looks: int) -> list[MachineRow]:
    counted = kept(rows)
    unit = own_reference_s(counted)
    normal = (
        odd_machines.compare(_effects_of(counted, np.log((counted["time_s"] / unit).to_numpy(float))), looks)
        if unit.notna().all()
        else None
    )
    overall = odd_machines.compare(
        _effects_of(counted, np.array([quiet(times) for times in counted["seconds"]])), looks
    )
    ceilings = machine_ceilings(rows).groupby("machine").first().astype(float).to_dict()
    found = []
    for i, whole in enumerate(overall):
        own = rows[rows["machine"] == whole.machine]
        ratio = normal[i] if normal else _no_reference(whole)
        row = MachineRow(
            whole.machine,
            group,
            device,
            len(own[["impl", "dtype", "pass"]].drop_duplicates()),
            len(own[IDENTITY].drop_duplicates()),
            ceilings["ceiling_flops"][whole.machine],
            ceilings["bandwidth_bytes_per_s"][whole.machine],
            float(unit[counted["machine"] == whole.machine].median()),
            *_ceiling_ratios(rows, whole.machine, whole.others),
            ratio,
            whole,
            _finding(ratio, whole),
        )
        found.append(row)
    return [_named(row, found) for row in found]


def _ceiling_ratios(rows: pd.DataFrame, machine: str, others: Sequence[str]) -> tuple[float, float]:
    """A library has a ceiling of its own, so only processes of the same implementation compare; NaN where none do."""
    columns = ["ceiling_flops", "bandwidth_bytes_per_s"]
    numbers = rows.assign(**{column: pd.to_numeric(rows[column]) for column in columns})
    by = ["impl", "dtype"]
    own = numbers[numbers["machine"] == machine].groupby(by)[columns].median()
    each = numbers[numbers["machine"].isin(others)].groupby([*by, "machine"])[columns].median()
    ratios = (own / each.groupby(by).median()).median()
    return float(ratios["ceiling_flops"]), float(ratios["bandwidth_bytes_per_s"])


def _effects_of(rows: pd.DataFrame, logs: Floats) -> pd.DataFrame:
    """As ``odd_machines.process_effects`` takes them: a process is one pass of one implementation and dtype."""
    cell = rows[IDENTITY].astype(str).agg(" ".join, axis=1)
    series = rows[["impl", "dtype", "threads"]].astype(str).agg(" ".join, axis=1)
    process = rows["pass"].astype(str) + " " + rows["machine"]
    return pd.DataFrame({"series": series, "cell": cell, "process": process, "machine": rows["machine"], "log": logs})


def _no_reference(whole: Ratio) -> Ratio:
    nothing = Interval(np.nan, np.nan, np.nan)
    word: odd_machines.Word = "alone" if whole.word == "alone" else "cannot tell"
    return Ratio(whole.machine, nothing, whole.others, word, "no reference kernel was timed beside its cells")


def _finding(normal: Ratio, overall: Ratio) -> Finding:
    if normal.word == "disagrees" or normal.word == "alone":
        return normal.word
    if overall.word == "disagrees":
        return "slower overall" if overall.factor.value > 1 else "faster overall"
    return normal.word


# --- in words -------------------------------------------------------------------------------------------------------


def _named(row: MachineRow, all_rows: Sequence[MachineRow]) -> MachineRow:
    if row.word not in ("disagrees", "slower overall", "faster overall"):
        return row
    sentence = _disagreeing(row, all_rows) if row.word == "disagrees" else _overall(row, all_rows)
    return MachineRow(**{**vars(row), "sentence": sentence})


def _disagreeing(row: MachineRow, all_rows: Sequence[MachineRow]) -> str:
    told = f"{cut(row.machine)} is {_factor(row.normalised.factor)} than {_others(row.normalised, all_rows)}, in normalised time"
    return f"{told} ({_ceilings(row)})" + _of_two(all_rows)


def _overall(row: MachineRow, all_rows: Sequence[MachineRow]) -> str:
    told = f"{cut(row.machine)} is {_factor(row.overall.factor)} than {_others(row.overall, all_rows)}, in seconds"
    if row.normalised.word == "agrees":
        why = "not in normalised time: everything there runs at another speed, its reference kernel too"
    else:
        why = "whether in normalised time too cannot be told"
    return f"{told}, {why} ({_ceilings(row)})" + _of_two(all_rows)


def _factor(found: Interval) -> str:
    """1.18 [1.12, 1.25] times slower; of what is faster the inverse."""
    slower = found.value > 1
    ends = (found.value, found.low, found.high) if slower else (1 / found.value, 1 / found.high, 1 / found.low)
    return f"{words.with_interval(*ends)} times {'slower' if slower else 'faster'}"


def _others(found: Ratio, all_rows: Sequence[MachineRow]) -> str:
    if len(found.others) == 1:
        return cut(found.others[0])
    left_out = len(all_rows) - 1 - len(found.others)
    return f"the {len(found.others)} others of its class" + (" that are not named" if left_out else "")


def _ceilings(row: MachineRow) -> str:
    theirs = "theirs" if len(row.overall.others) > 1 else "the other's"
    share, band = row.ceiling_ratio, row.bandwidth_ratio
    told = f"matrix ceiling {share:.2f} of {theirs}" if np.isfinite(share) else "matrix ceilings cannot be compared"
    if np.isfinite(band) and abs(np.log(band)) > np.log1p(THRESHOLD):
        told += f", memory bandwidth {band:.2f}"
    return told


def _of_two(all_rows: Sequence[MachineRow]) -> str:
    return "; of two machines nobody can tell which is odd" if len(all_rows) == 2 else ""


def named(rows: Sequence[MachineRow]) -> list[str]:
    """The sentences: of two machines that differ one serves for both, and a class of which half are named falls apart."""
    found = []
    for key in dict.fromkeys((row.group, row.device) for row in rows):
        own = [row for row in rows if (row.group, row.device) == key]
        told = [row for row in own if row.sentence]
        slowest_first = sorted(told, key=lambda row: -_of_word(row).factor.value)
        found += [row.sentence for row in (slowest_first[:1] if len(own) == 2 else slowest_first)]
        apart = [row for row in told if row.word == "disagrees"]
        if len(own) > 2 and 2 * len(apart) >= len(own):
            found.append(
                f"{len(apart)} of the {len(own)} machines disagree: this class falls apart, no single machine is odd"
            )
    return found


def _of_word(row: MachineRow) -> Ratio:
    return row.normalised if row.word == "disagrees" else row.overall
