"""What the rooms share without importing each other: the file contract, whole writes, one-line errors.

``bench`` writes these files and ``analysis`` reads them; neither imports the other.  The data format is
pytest-benchmark's JSON.  Ours on top of it:

* a top-level object ``"backprop_bench"``: ``{"schema_version", "run": {...}, "left_out": [...], "failed": [...]}``;
* in each entry of ``"benchmarks"`` an ``extra_info`` with the keys of ``CELL_KEYS``.

Times end in ``_s`` (seconds), sizes in ``_bytes``, rates in ``_flops`` (floating-point operations per second)
or ``_bytes_per_s``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
#: The optimizer that trains unless another is named; names of cells leave it out.
USUAL_OPTIMIZER = "gradient-descent"
#: Phases that copy a batch from host memory to a device, pageable and pinned: measured beside steps, and no part of one.
TRANSFERS = ("transfer", "transfer-pinned")

#: Experiments beside the sweeps, in the order of the report; each is a file in ``bench.experiments`` and one in
#: ``analysis.experiments``.
EXPERIMENTS = ("epochs", "progress", "gradients", "approximation", "minima", "architectures", "parallel")
#: Not among ``all`` of them: one goes beyond the article's network, and takes as long as the others together; the other
#: takes several cores.
ON_REQUEST = ("architectures", "parallel")

#: Keys of every entry's ``extra_info``; a file that lacks one of them is of another schema.
CELL_KEYS = (
    "schema_version",
    "impl",
    "device",
    "dtype",
    "threads",
    "data",  # synthetic, a data set's name, or a data file's without its folders
    "architecture",  # mlp
    "layers",  # [64, 128, 128, 10]
    "activation",
    "loss",
    "optimizer",
    "phase",  # step | forward | loss | backward | update
    "axis",  # every axis the cell lies on, comma-separated: "examples,width"
    "heldout",  # true: never used to fit, only to judge
    "n",
    "m",
    "p",
    "u",
    "width",  # units of a hidden layer; 0 where there is none
    "depth",  # number of weight layers
    "operations",  # {phase: {kind: count}}, for the whole step
    "reference_s",  # {kernel: [one per round: mean of its times just before and just after the round]}
    "pass",
    "seed",
    "first_call_s",
    "peak_bytes",  # of arrays, held and made, over one step; null after pass 1: it does not change
    "memory_from",  # who told it: "tracemalloc", "torch profiler", "XLA", "device counter", "itself"; null: nobody
    "estimated_bytes",  # the estimate made beforehand, by which cells are left out
    "ceiling_flops",  # matrix-product rate measured in the same process
    "bandwidth_bytes_per_s",  # memory bandwidth measured in the same process
    "settled",  # false: warm-up never became steady
    "dropped_rounds",  # rounds thrown away because the clock jumped
    "started_at",  # seconds since the epoch, when measuring began
    "iterations",  # steps in each round
    "rounds_at_s",  # when each round began, from started_at
    "call_floor_s",  # the smallest call into the library, measured in the same process
    "wall_s",  # what the cell took in all, preparation and check included
    "machine_state",  # {load, clock_mhz, available_bytes, memory_stall_percent} after the cell
)

#: Type of every key of ``extra_info`` that computations rest on.
CELL_TYPES: dict[str, type | tuple[type, ...]] = {
    "impl": str,
    "device": str,
    "dtype": str,
    "threads": int,
    "data": str,
    "layers": list,
    "activation": str,
    "loss": str,
    "optimizer": str,
    "phase": str,
    "axis": str,
    "heldout": bool,
    "n": int,
    "m": int,
    "p": int,
    "u": int,
    "width": int,
    "depth": int,
    "operations": dict,
    "pass": int,
    "started_at": (int, float),
    "rounds_at_s": list,
    "machine_state": dict,
}
#: Those that are 1 at the least.
CELL_POSITIVE = ("n", "m", "depth", "threads", "pass")
#: Between them lies whatever a clock tells, in seconds or Hz; sums and quotients of it are finite.
_LEAST, _MOST = 1e-15, 1e15


class UserError(Exception):
    """Bad input: one clear line that says what, where and what to do.  The command line exits with 2."""


def check_cell(where: str, info: Any, seconds: Any) -> None:
    """Raises UserError, one line that begins with ``where``, unless ``extra_info`` and the times of its rounds are such that
    computations can rest on them: keys, types, counts, and positive finite times.
    """
    if not isinstance(info, dict):
        raise UserError(f"{where}: has no 'extra_info'; it is not one of ours")
    if missing := [key for key in CELL_KEYS if key not in info]:
        raise UserError(f"{where}: misses {', '.join(missing)}")
    if info["schema_version"] != SCHEMA_VERSION:
        raise UserError(f"{where}: has schema {info['schema_version']!r}, this version reads {SCHEMA_VERSION}")
    _check_types(where, info)
    _check_counts(where, info)
    _check_operations(where, info)
    check_times(where, "stats.data", seconds)
    for kernel, times in _object(where, info, "reference_s").items():
        check_times(where, f"reference_s.{kernel}", times)
    if info.get("device_s") is not None:  # what only accelerators tell
        check_times(where, "device_s", info["device_s"])
    if isinstance(info.get("clock_hz"), list):
        check_times(where, "clock_hz", [c for c in info["clock_hz"] if isinstance(c, int | float)] or [1.0])


def check_times(where: str, what: str, values: Any) -> None:
    """Raises UserError for anything but a list of positive numbers, one at the least, that a clock can have told."""
    if values == []:
        raise UserError(f"{where}: {what} has no times")
    good = isinstance(values, list) and all(type(v) in (int, float) and _LEAST < v < _MOST for v in values)
    if not good:
        raise UserError(f"{where}: {what} has times that are not positive numbers, or beyond any clock")


def _is(value: Any, kind: Any) -> bool:
    """As ``isinstance``, but that true and false are no numbers."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _object(where: str, info: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(info[key], dict):
        raise UserError(f"{where}: {key} is no object")
    found: dict[str, Any] = info[key]
    return found


def _check_types(where: str, info: Mapping[str, Any]) -> None:
    for key, kind in CELL_TYPES.items():
        if not _is(info[key], kind):
            raise UserError(f"{where}: {key} is {info[key]!r}, which is no {getattr(kind, '__name__', 'number')}")


def _check_counts(where: str, info: Mapping[str, Any]) -> None:
    for key in CELL_POSITIVE:
        if info[key] < 1:
            raise UserError(f"{where}: {key} is {info[key]}; it must be positive")
    if min(info["p"], info["u"], info["width"]) < 0:
        raise UserError(f"{where}: p, u and width must not be negative")
    if len(info["layers"]) < 2 or not all(_is(units, int) and units > 0 for units in info["layers"]):
        raise UserError(f"{where}: layers are {info['layers']!r}; they must be two or more positive sizes")
    for key in ("throttled_rounds", "input_sets"):
        if info.get(key) is not None and not (_is(info[key], int) and info[key] >= 0):
            raise UserError(f"{where}: {key} is {info[key]!r}, which is no count")


def _check_operations(where: str, info: Mapping[str, Any]) -> None:
    if info["phase"] in TRANSFERS:
        return
    counts = info["operations"].values() if info["phase"] == "step" else [info["operations"].get(info["phase"])]
    for kinds in counts:
        if not isinstance(kinds, dict) or not all(_is(count, int | float) and count >= 0 for count in kinds.values()):
            raise UserError(f"{where}: operations have no counts for phase {info['phase']!r}")


def write_whole(path: Path, text: str | bytes) -> None:
    """Write ``path`` whole or not at all: into a temporary file beside it, flushed to disk, then renamed over it."""
    data = text.encode() if isinstance(text, str) else text
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; finished files are untouched") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write strict JSON (no NaN) whole or not at all."""
    write_whole(path, json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")
