"""pytest-benchmark JSON with our ``extra_info`` -> one validated, tidy frame: a row for each cell and pass."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import machines
from analysis.machines import Machine, MachineClass
from analysis.normalise import IDENTITY, normalise
from backprop_files import CELL_KEYS, SCHEMA_VERSION, TRANSFERS, USUAL_OPTIMIZER, UserError, check_cell

#: What is fitted and judged together.
GROUP = ["impl", "device", "dtype", "phase", "optimizer"]
#: What makes a series, and what a step is taken of, whoever takes it.
SERIES = ["impl", "device", "dtype"]
BATCH = ["data", "layers", "activation", "loss", "n"]
#: Machine facts that must agree before files may stand in one report.
SAME_MACHINE = ("cpu_model", "machine", "system", "python_version", "libraries", "accelerators", "memory_bytes")

#: Bytes of a number.
ITEMSIZE = {"float64": 8.0, "float32": 4.0, "tf32": 4.0, "bfloat16": 2.0, "float16": 2.0}


@dataclass(frozen=True)
class Run:
    """Everything a report is made from.

    ``entries`` has the columns of ``CELL_KEYS`` (``layers`` as text, ``64-128-10``), ``machine`` and ``machine_class`` (id) by
    which it was measured, ``raw_s`` (median seconds), ``time_s`` (normalised, see ``analysis.normalise``), ``rounds``,
    ``operations_product`` and ``operations_total`` of the row's phase, ``inputs`` and ``outputs``.  ``commit`` is
    pytest-benchmark's ``commit_info``, dirty if any file's was, with the ids of ``others`` where files are of several.
    """

    entries: pd.DataFrame
    settings: dict[str, Any]
    left_out: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    notes: list[str]
    machine: dict[str, Any]
    measured_at: str
    commit: dict[str, Any] = field(default_factory=dict)
    other_machines: list[dict[str, Any]] = field(default_factory=list)  # of runs on other devices
    machines: tuple[Machine, ...] = ()
    classes: tuple[MachineClass, ...] = ()


def parameter_bytes(dtype: str) -> float:
    """Bytes of a parameter: what computes in fewer keeps them in float32, as users do."""
    return 8.0 if dtype == "float64" else 4.0


def on_accelerator(device: str) -> bool:
    """Whether a device is another than the CPU, the host of all of them."""
    return device.split(":")[0] != "cpu"


def usual_optimizer(rows: pd.DataFrame) -> str:
    """The optimizer whose cells tell of everything but optimizers: gradient descent where it is there, else the first."""
    names = list(rows["optimizer"].unique())
    return USUAL_OPTIMIZER if USUAL_OPTIMIZER in names or not names else str(names[0])


def usual(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows trained by ``usual_optimizer``."""
    return rows[rows["optimizer"] == usual_optimizer(rows)]


def load(paths: Sequence[Path]) -> Run:
    """Read files and run directories into one ``Run``.

    Raises UserError, one line that names the file, for anything that is not whole, ours, and of one machine.
    """
    documents: list[tuple[Path, dict[str, Any]]] = []
    notes: list[str] = []
    sources = []
    for path in paths:
        found = _documents(Path(path), notes)
        sources.append(_Source(*found[0], _devices(found)))
        documents += found
    notes += _same_machine(
        sources
    )  # within a run directory they may differ where the run was resumed, which it then says
    groups = machines.grouped([_info(document) for _, document in documents])
    rows = _once(
        row
        for (path, document), group in zip(documents, groups, strict=True)
        for row in _rows(path, document, machines.node_of(_info(document)), group)
    )
    if not rows:
        raise UserError(f"{_name(paths)}: no benchmark in it; run 'backprop-bench run' first")
    ours = [document["backprop_bench"] for _, document in documents]
    newest = max(documents, key=lambda pair: str(pair[1].get("datetime", "")))[1]
    fleet = _machines([document for _, document in documents], groups)
    return Run(
        entries=normalise(pd.DataFrame(rows)),
        settings=dict(newest["backprop_bench"].get("run") or {}),
        left_out=_distinct(row for part in ours for row in part.get("left_out") or []),
        failed=_distinct(row for part in ours for row in part.get("failed") or []),
        notes=list(
            dict.fromkeys(
                [*(str(note) for part in ours for note in part.get("notes") or []), *notes, *_unlike_versions(fleet)]
            )
        ),
        machine=dict(newest.get("machine_info") or {}),
        measured_at=str(newest.get("datetime", "")),
        commit=_commit(newest, [document for _, document in documents]),
        other_machines=_others(newest, [source.document for source in sources]),
        machines=fleet,
        classes=tuple(machines.classes({machine.group: dict(machine.info) for machine in fleet})),
    )


def _info(document: dict[str, Any]) -> dict[str, Any]:
    info = document.get("machine_info")
    return info if isinstance(info, dict) else {}


def _machines(documents: Sequence[dict[str, Any]], groups: Sequence[str]) -> tuple[Machine, ...]:
    """Every machine that measured something once, by its newest file, in the order of class and name."""
    found: dict[tuple[str, str], Machine] = {}
    measured = [pair for pair in zip(documents, groups, strict=True) if pair[0]["benchmarks"]]
    for document, group in sorted(measured, key=lambda pair: str(pair[0].get("datetime", ""))):
        info = _info(document)
        found[(group, machines.node_of(info))] = Machine(machines.node_of(info), group, info)
    return tuple(found[key] for key in sorted(found))


def _unlike_versions(fleet: Sequence[Machine]) -> list[str]:
    """A note for each of Python and the libraries of which machines have several versions."""
    versions: dict[str, dict[str, list[str]]] = {}
    for machine in fleet:
        libraries = machine.info.get("libraries")
        told = {"Python": machine.info.get("python_version"), **(libraries if isinstance(libraries, dict) else {})}
        for name, version in told.items():
            versions.setdefault(str(name), {}).setdefault(str(version), []).append(machines.cut(machine.node))
    return [
        f"machines have different versions of {machines.cut(name)}: "
        + "; ".join(f"{machines.cut(version)} on {_few(nodes)}" for version, nodes in found.items())
        for name, found in versions.items()
        if len(found) > 1
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def of_several_classes(run: Run) -> bool:
    """Whether machines of several classes measured one device.  Runs on devices that they do not have in common stand side by
    side, as nothing is fitted across devices.
    """
    return bool((run.entries.groupby("device")["machine_class"].nunique() > 1).any())


def of_class(run: Run, own: str) -> Run:
    """What one class (its id) measured of a run."""
    fleet = tuple(machine for machine in run.machines if machine.group == own)
    newest = fleet[-1] if run.machine not in [machine.info for machine in fleet] else None
    return replace(
        run,
        entries=run.entries[run.entries["machine_class"] == own].reset_index(drop=True),
        machine=dict(newest.info) if newest else run.machine,
        machines=fleet,
        classes=tuple(known for known in run.classes if known.id == own),
    )


def one_class(run: Run, wanted: str = "") -> Run:
    """The run where it is of one machine class; of several the one ``wanted`` names, by id, slug or a part of its name.

    Raises UserError, one line with the classes there are, where none was named or the name fits none or several.
    """
    if not wanted and not of_several_classes(run):
        return run
    exact = [known for known in run.classes if wanted in (known.id, known.slug, known.short, known.name)]
    fitting = exact or [known for known in run.classes if wanted and wanted.lower() in known.name.lower()]
    if len(fitting) == 1:
        return of_class(run, fitting[0].id)
    there = _few([f"{known.slug} ({machines.cut(known.name)})" for known in run.classes])
    if not wanted:
        raise UserError(
            f"machines of {len(run.classes)} classes measured this run: choose one with --machine-class, of {there}"
        )
    raise UserError(f"--machine-class {machines.cut(wanted)!r} fits {len(fitting) or 'none'} of the run's: {there}")


def _commit(newest: dict[str, Any], documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The newest file's ``commit_info``; empty where there is none."""
    found = [info if isinstance(info := document.get("commit_info"), dict) else {} for document in documents]
    own = newest.get("commit_info")
    own = own if isinstance(own, dict) else {}
    others = sorted({str(info["id"]) for info in found if info.get("id")} - {str(own.get("id"))})
    return own | {"dirty": any(info.get("dirty") for info in found), "others": others}


def _name(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "no path"


def holds_cells(path: Path) -> bool:
    """Whether a sweep's cells may lie there: a file, or a directory with some, not one of experiments alone."""
    return not path.is_dir() or any(path.glob("data/**/*.json")) or not (path / "experiments").is_dir()


def _documents(path: Path, notes: list[str]) -> list[tuple[Path, dict[str, Any]]]:
    if path.is_dir():
        return _directory(path, notes)
    if not path.exists():
        raise UserError(f"{path}: no such file or run directory")
    return [(path, _document(path))]


def _directory(path: Path, notes: list[str]) -> list[tuple[Path, dict[str, Any]]]:
    """A run directory's data: gathered files, and cells a killed run had finished."""
    if (path / "duel.json").exists():
        raise UserError(f"{path}: is a comparison of two sides; give one of them, {path / 'base'} or {path / 'head'}")
    files = [*sorted(path.glob("data/*.json")), *sorted(path.glob("data/cells/*.json"))] or sorted(path.glob("*.json"))
    files = [file for file in files if file.name != "fits.json"]
    if not files:
        raise UserError(f"{path}: no data/*.json in it; is it a run directory?")
    if any(file.parent.name == "cells" for file in files):
        notes.append("the run was cut short: this report holds the cells that were finished")
    return [(file, _document(file)) for file in files]


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not text.strip():
        raise UserError(f"{path}: is empty")
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise UserError(f"{path}: is not whole JSON ({error}); was its writing cut off?") from error
    if not isinstance(document, dict) or not isinstance(document.get("benchmarks"), list):
        raise UserError(f"{path}: is not a pytest-benchmark file (no list 'benchmarks')")
    ours = document.get("backprop_bench")
    if not isinstance(ours, dict):
        raise UserError(f"{path}: comes from another tool or another benchmark (no 'backprop_bench' object)")
    if ours.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path}: has schema {ours.get('schema_version')!r}, this version reads {SCHEMA_VERSION}")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


@dataclass(frozen=True)
class _Source:
    """A path given, its first document, and the devices all of it was measured on."""

    path: Path
    document: dict[str, Any]
    devices: frozenset[str]

    def fact(self, key: str) -> Any:
        return (self.document.get("machine_info") or {}).get(key)


def _devices(documents: list[tuple[Path, dict[str, Any]]]) -> frozenset[str]:
    infos = [
        entry.get("extra_info") if isinstance(entry, dict) else None
        for _, document in documents
        for entry in document["benchmarks"]
    ]
    return frozenset(str(info.get("device")) for info in infos if isinstance(info, dict))


def _same_machine(sources: list[_Source]) -> list[str]:
    """Refuse to mix machines or library versions: a law fitted across them means nothing.  Runs that have no device in
    common may differ, since nothing is fitted across devices; a note says in what.
    """
    notes = []
    for i, second in enumerate(sources):
        for first in sources[:i]:
            unlike = [key for key in SAME_MACHINE if first.fact(key) != second.fact(key)]
            if unlike and first.devices & second.devices:
                a, b = (source.fact(unlike[0]) for source in (first, second))
                raise UserError(
                    f"{first.path} and {second.path} are of different machines: {unlike[0]} is {a!r} and {b!r}"
                )
            if unlike:
                a, b = (", ".join(sorted(source.devices)) for source in (first, second))
                what = ", ".join(key.replace("_", " ") for key in unlike)
                notes.append(f"{a} and {b} were measured on different machines or versions ({what} differ)")
    return notes


def _others(newest: dict[str, Any], documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Machines beside the newest document's, each once."""

    def told(document: dict[str, Any]) -> dict[str, Any]:
        info = document.get("machine_info") or {}
        return {key: info[key] for key in SAME_MACHINE if key in info}

    found: list[dict[str, Any]] = []
    for document in documents:
        if told(document) not in (told(newest), *found):
            found.append(told(document))
    return found


def _rows(path: Path, document: dict[str, Any], node: str, group: str) -> list[dict[str, Any]]:
    of_machine = {**cache_bytes(_info(document).get("caches")), "machine": node, "machine_class": group}
    return [_row(f"{path}: benchmark {i + 1}", entry) | of_machine for i, entry in enumerate(document["benchmarks"])]


def cache_bytes(found: Any) -> dict[str, float]:
    """Bytes of the data caches by level; NaN where the machine did not tell."""
    names = {"L1": "L1d", "L2": "L2", "L3": "L3"}
    sizes = found if isinstance(found, dict) else {}
    return {level: _bytes(sizes.get(name)) for level, name in names.items()}


def _bytes(text: Any) -> float:
    match = re.fullmatch(r"(\d+)([KMG]?)", str(text))
    return float(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2]] if match else math.nan


def _row(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("stats"), dict):
        raise UserError(f"{where}: has no 'stats'")
    info = entry.get("extra_info")
    times = entry["stats"].get("data") or [entry["stats"].get("median")]
    check_cell(where, info, times)
    assert isinstance(info, dict)
    seconds = np.array(times, float)
    # a copy over the link does not follow the device's speed at arithmetic: its raw seconds stand
    kernels = {} if info["phase"] in TRANSFERS else info["reference_s"]
    row = {key: info[key] for key in CELL_KEYS if key not in ("operations", "reference_s", "layers", "schema_version")}
    row |= {
        "layers": "-".join(map(str, info["layers"])),
        "inputs": info["layers"][0],
        "outputs": info["layers"][-1],
        "units": sum(info["layers"]),
        "hidden": info["depth"] - 1,
        "itemsize": ITEMSIZE.get(info["dtype"], math.nan),
        "raw_s": float(np.median(seconds)),
        "rounds": len(seconds),
        "seconds": seconds,
        # none where the file keeps no single rounds
        "references": {name: np.array(t, float) for name, t in kernels.items() if len(t) == len(seconds)},
        **_on_device(info, len(seconds)),
        **_operations(info),
    }
    return row


def _on_device(info: dict[str, Any], rounds: int) -> dict[str, Any]:
    """What only accelerators tell; neutral where a file does not: device seconds and clock by round (None), the highest
    temperature (NaN), rounds dropped for throttling, prepared problems that a block rotates through.
    """
    device, clock = info.get("device_s"), info.get("clock_hz")
    temperature, throttled, sets = (info.get(key) for key in ("temperature_c", "throttled_rounds", "input_sets"))
    clocks = [c for c in clock if isinstance(c, int | float)] if isinstance(clock, list) else []
    return {
        "device_seconds": np.array(device, float) if device is not None and len(device) == rounds else None,
        "clock_hz": np.array(clocks, float) if clocks else None,
        "temperature_c": float(temperature) if isinstance(temperature, int | float) else math.nan,
        "throttled_rounds": 0 if throttled is None else throttled,
        "input_sets": 1 if sets is None else sets,
    }


def _operations(info: dict[str, Any]) -> dict[str, float]:
    if info["phase"] in TRANSFERS:
        return {"operations_product": 0, "products": 0.0, "operations_total": 0}
    operations = info["operations"]
    chosen = operations.values() if info["phase"] == "step" else [operations[info["phase"]]]
    products = sum(int(kinds.get("product", 0)) for kinds in chosen)
    return {
        "operations_product": products,
        "products": products / 2 / info["n"],  # multiply-adds for one example
        "operations_total": sum(int(count) for kinds in chosen for count in kinds.values()),
    }


def _once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each cell once a pass: a file gathered twice is the same to the letter, anything else is two runs mixed up."""
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (*(row[column] for column in IDENTITY), row["pass"])
        if key in known and known[key]["raw_s"] != row["raw_s"]:
            raise UserError(
                f"{row['impl']} {row['layers']} n={row['n']} {row['phase']} pass {row['pass']} stands twice with "
                "different times: these are two runs, report them one by one"
            )
        known[key] = row
    return list(known.values())


def _distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(row, sort_keys=True, default=str): row for row in rows}.values())


def by_reason(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells with the same implementation and reason in one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key = (str(row.get("impl", "?")), str(row.get("reason", "no reason given")))
        groups.setdefault(key, []).append(str(row.get("cell", "?")))
    return [
        {"impl": impl, "reason": reason, "cells": list(dict.fromkeys(names)), "count": len(names)}
        for (impl, reason), names in groups.items()
    ]
