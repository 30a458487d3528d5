"""What goes to a worker and what comes back, checked as a file is: nothing is taken on trust.

Requests and answers are JSON text.  An answer that is not as it should be raises ``BadAnswer``, one line that says what.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backprop_files import SCHEMA_VERSION, USUAL_OPTIMIZER, UserError, check_cell
from bench.fleet.dispatcher import Cells, Flight
from bench.fleet.scratch import MARK, MOST_BYTES
from bench.plan import Settings
from impls import datasets

#: Characters of a reason that are kept, cells of an implementation that a worker may have, and seconds it may want for them.
MOST_TEXT, MOST_CELLS, MOST_S = 500, 100_000, 1e9


class BadAnswer(ValueError):
    """What came back is no answer of ours."""


@dataclass(frozen=True)
class Cell:
    """One that was measured."""

    name: str  # without its pass
    group: str
    seconds: list[float]
    extra_info: dict[str, Any]


@dataclass(frozen=True)
class Implementation:
    """What a worker can measure of one implementation, and what it takes."""

    label: str
    cells: Cells
    cold: tuple[float, int]  # seconds beside the timed ones, and timed loops, of a pass where nothing is compiled yet
    warm: tuple[float, int]
    cell_s: float


@dataclass(frozen=True)
class Survey:
    """What a worker is, and what it can measure."""

    node: str
    machine: dict[str, Any]
    versions: dict[str, str]
    impls: dict[str, Implementation]
    left_out: list[dict[str, Any]]


# --- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Requests:
    """All that is asked in one run."""

    run: str
    settings: dict[str, Any]
    files: tuple[dict[str, Any], ...]  # with their bytes

    @classmethod
    def of(cls, settings: Settings, run: str) -> Requests:
        """Files that the settings name travel with them.  Raises UserError where one cannot."""
        files: dict[str, dict[str, Any]] = {}
        own = tuple(_travelling(target, files) if _is_file(target) else target for target in settings.own)
        data = _travelling(settings.data, files) if datasets.is_file(settings.data) else settings.data
        told = asdict(replace(settings, own=own, data=data, precision=None))
        return cls(run, told, tuple(files.values()))

    @functools.cached_property
    def survey(self) -> str:
        """What can be measured there?  Brings the files."""
        return self._text("survey", files=self.files)

    def measure(self, flight: Flight) -> str:
        """Measure these cells."""
        job = flight.job
        asked = {"impl": job.impl, "pass": job.number, "cells": sorted(flight.missing), "share_s": flight.share_s}
        return self._text("measure", job=asked)

    def clean(self) -> str:
        """The run is over."""
        return self._text("clean")

    def _text(self, op: str, **more: Any) -> str:
        told = {"op": op, "schema_version": SCHEMA_VERSION, "run": self.run, "settings": self.settings, **more}
        return json.dumps(told, allow_nan=False)


def _is_file(target: str) -> bool:
    return target.rpartition(":")[0].endswith(".py")


def _travelling(target: str, files: dict[str, dict[str, Any]]) -> str:
    """How a setting names a file that travels: ``sha256:<digest>/<name>[:Class]``."""
    path, colon, class_name = target.rpartition(":") if _is_file(target) else (target, "", "")
    try:
        size = Path(path).stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path}: {size / 2**20:.0f} MiB, {MOST_BYTES >> 20} MiB travel to workers at most")
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(data).hexdigest()
    packed = base64.b64encode(zlib.compress(data)).decode()
    files[path] = {"sha256": digest, "name": Path(path).name, "data": packed}
    return f"{MARK}{digest}/{Path(path).name}{colon}{class_name}"


# --- answers --------------------------------------------------------------------------------------------------------


def parse(line: str) -> dict[str, Any]:
    """A line as an object of strict JSON, without numbers that JSON does not have."""
    try:
        found = json.loads(line, parse_constant=_no_constant, parse_float=_finite, parse_int=_bounded)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"no JSON: {text(error)[:200]}") from error
    if not isinstance(found, dict):
        raise BadAnswer("no JSON object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


def _bounded(digits: str) -> int:
    if len(digits) > 20:  # no count, and no time, that any machine reaches
        raise ValueError("a whole number of more than 20 digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is not finite")
    return number


def check_schema(answer: Mapping[str, Any]) -> None:
    """Raises BadAnswer for another schema than ours."""
    if answer.get("schema_version") != SCHEMA_VERSION:
        raise BadAnswer(f"schema {text(repr(answer.get('schema_version')))}, this version reads {SCHEMA_VERSION}")


def survey(answer: Mapping[str, Any]) -> Survey:
    """A worker's answer to the survey."""
    check_schema(answer)
    machine, versions, impls = (_dict(answer, key) for key in ("machine", "versions", "impls"))
    _dict(machine, "libraries")
    node = machine.get("node")
    if not isinstance(node, str) or not node or node != text(node):
        raise BadAnswer("the survey does not name its machine")
    return Survey(
        node=node,
        machine=machine,
        versions={text(name): text(version) for name, version in versions.items()},
        impls={str(name): _implementation(str(name), told) for name, told in impls.items()},
        left_out=rows(answer.get("left_out")),
    )


def _implementation(name: str, told: Any) -> Implementation:
    try:
        label = str(told["label"])
        cells = frozenset(f"{label} {point} {phase}" for point, phases in told["cells"] for phase in phases)
        wishes = [(float(told[key][0]), int(told[key][1])) for key in ("cold", "warm")]
        cell_s = float(told["cell_s"])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise BadAnswer(
            f"the survey of '{text(name)}' cannot be read ({type(error).__name__}: {text(error)})"
        ) from error
    if not cells or len(cells) > MOST_CELLS or label.split(" ")[0] != name or not all(map(str.isprintable, cells)):
        raise BadAnswer(f"the survey of '{text(name)}' has no usable cells")
    if not all(0 <= value < MOST_S for value in (*wishes[0], *wishes[1], cell_s)):  # NaN is neither
        raise BadAnswer(f"the survey of '{text(name)}' has times below 0, or beyond all measure")
    return Implementation(label, cells, wishes[0], wishes[1], cell_s)


def cells(answer: Mapping[str, Any], flight: Flight, threads: int) -> list[Cell]:
    """Cells of a line, each one that was asked for there."""
    check_schema(answer)
    found = answer.get("cells")
    if not isinstance(found, list):
        raise BadAnswer("cells are no list")
    return [_cell(told, flight, threads) for told in found]


def settled(answer: Mapping[str, Any], flight: Flight) -> list[str]:
    """Names of cells that were asked for and will not be measured."""
    found = answer.get("settled")
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise BadAnswer("settled cells are no list of names")
    return [name for name in found if name in flight.job.cells]


def text(found: Any, most: int = MOST_TEXT) -> str:
    """Whatever it is as text on one line, of bounded length, that a terminal shows and does not obey."""
    plain = "".join(c if c.isprintable() else " " for c in str(found)[: 2 * most])
    return " ".join(plain.split())[:most]


def rows(found: Any) -> list[dict[str, Any]]:
    """What is left out or failed: where and why, as text."""
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise BadAnswer("reasons are no list of objects")
    kept = []
    for row in found:
        told: dict[str, Any] = {key: text(row.get(key, "")) for key in ("impl", "cell", "reason")}
        kept.append(told | ({"pass": row["pass"]} if type(row.get("pass")) is int else {}))
    return kept


def texts(found: Any) -> list[str]:
    """Notes."""
    return list(map(text, found)) if isinstance(found, list) else []


def _dict(answer: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = answer.get(key)
    if not isinstance(found, dict):
        raise BadAnswer(f"'{key}' is no object")
    return found


def _cell(told: Any, flight: Flight, threads: int) -> Cell:
    if not isinstance(told, dict) or not isinstance(told.get("cell"), str):
        raise BadAnswer("a cell without a name")
    name, info, seconds = told["cell"], told.get("extra_info"), told.get("seconds")
    if name not in flight.job.cells:
        raise BadAnswer(f"cell '{text(name)}' was not asked for")
    try:
        check_cell(name, info, seconds)
    except UserError as error:
        raise BadAnswer(text(error)) from error
    assert isinstance(info, dict) and isinstance(seconds, list)
    if info["pass"] != flight.job.number or info["threads"] != threads or name_of(info) != name:
        raise BadAnswer(f"{name}: its extra_info is of another cell")
    for kernel, times in info["reference_s"].items():
        if len(times) != len(seconds):
            raise BadAnswer(f"{name}: reference_s.{text(kernel)} has not one time a round")
    return Cell(name, str(told.get("group", "")), [float(value) for value in seconds], info)


def name_of(info: Mapping[str, Any]) -> str:
    """A cell's name, from what it says of itself (as ``bench.cells.Cell.label``)."""
    layers = "-".join(map(str, info["layers"]))
    optimizer = "" if info["optimizer"] == USUAL_OPTIMIZER else f"{info['optimizer']} "
    setting = f"{info['impl']} {info['device']} {info['dtype']}"
    return f"{setting} {layers} {info['activation']} {info['loss']} {optimizer}n={info['n']} {info['phase']}"
