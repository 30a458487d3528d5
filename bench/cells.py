"""What can be measured: points of a sweep, and cells: a point, for one phase of one implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backprop_files import SCHEMA_VERSION
from bench import rotation
from impls import activations, counts, dtypes, optimizers
from impls.interface import TRANSFERS, Network, Phase
from impls.registry import Entry


@dataclass(frozen=True)
class Point:
    """A network and a number of examples, the axes it lies on, and whether fits may see it."""

    network: Network
    n: int
    axes: tuple[str, ...]
    heldout: bool = False
    phases: tuple[Phase, ...] = ()  # measured one by one, beside the step
    optimizer: str = optimizers.USUAL
    step: bool = True  # false: phases alone

    @property
    def label(self) -> str:
        """Short, unique and readable: ``64-128-128-10 horner-4 mse n=256``; ``… mse adam n=256`` where it is not plain
        gradient descent that trains.
        """
        network = self.network
        trained = "" if self.optimizer == optimizers.USUAL else f"{self.optimizer} "
        return f"{'-'.join(map(str, network.layers))} {network.activation} {network.loss} {trained}n={self.n}"


@dataclass(frozen=True)
class Setting:
    """Where and how an implementation runs."""

    entry: Entry
    device: str
    dtype: str
    threads: int

    @property
    def label(self) -> str:
        """``numpy cpu float32``."""
        return f"{self.entry.name} {self.device} {self.dtype}"


@dataclass(frozen=True)
class Cell:
    """One point of a sweep for one phase: what gets a row in the report."""

    setting: Setting
    point: Point
    phase: str

    @property
    def label(self) -> str:
        """The cell's name in files and messages."""
        return f"{self.setting.label} {self.point.label} {self.phase}"


def data_label(data: str) -> str:
    """What files call the data: a data file's own name, without the folders of this machine."""
    return Path(data).name


def facts(cell: Cell, data: str, seed: int) -> dict[str, Any]:
    """The part of ``extra_info`` that is known before anything is measured."""
    setting, point, network = cell.setting, cell.point, cell.point.network
    return {
        "impl": setting.entry.name,
        "device": setting.device,
        "dtype": setting.dtype,
        "threads": setting.threads,
        "data": data_label(data),
        "architecture": "mlp",
        "layers": list(network.layers),
        "activation": network.activation,
        "loss": network.loss,
        "optimizer": point.optimizer,
        "phase": cell.phase,
        "axis": ",".join(point.axes),
        "heldout": point.heldout,
        "n": point.n,
        "m": network.m,
        "p": activations.find(network.activation).p,
        "u": network.u,
        "width": network.width,
        "depth": network.depth,
        "operations": counts.operations(network, point.n, point.optimizer)
        | ({cell.phase: {}} if cell.phase in TRANSFERS else {}),
        "estimated_bytes": bytes_estimate(setting, point),
        "seed": seed,
    }


def measured(
    cell: Cell, data: str, seed: int, number: int, ceilings: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    """``extra_info`` of a cell in pass ``number``, from what its worker answered; time and state around it are added."""
    return {
        "schema_version": SCHEMA_VERSION,
        **facts(cell, data, seed),
        "reference_s": result["reference_s"],
        "pass": number,
        "first_call_s": result["first_call_s"],
        "peak_bytes": result["peak_bytes"],
        "memory_from": result["memory_from"],
        **ceilings,
        "settled": result["settled"],
        "dropped_rounds": result["dropped"],
        "started_at": result["started_at"],
        "rounds_at_s": list(result["at_s"]),
        "iterations": result["iterations"],
        "device_s": result.get("device_s"),
        "clock_hz": result.get("clock_hz"),
        "temperature_c": result.get("temperature_c"),
        "throttled_rounds": result.get("throttled", 0),
        "input_sets": result.get("input_sets", 1),
        **({"transfer_bytes": result["transfer_bytes"]} if "transfer_bytes" in result else {}),
    }


def bytes_estimate(setting: Setting, point: Point) -> int:
    """Memory that a point may need where it is computed: on an accelerator, that of the device alone."""
    itemsize = setting.entry.object_bytes or dtypes.find(setting.dtype).stored_itemsize
    whole = counts.bytes_estimate(point.network, point.n, itemsize, point.optimizer)
    return whole if setting.device == "cpu" else whole - host_bytes(point)


def host_bytes(point: Point) -> int:
    """Memory that a point of an accelerator may need on the host: the problem, and what the check compares."""
    return counts.bytes_estimate(point.network, point.n, 0, point.optimizer)


def bytes_touched(setting: Setting, point: Point) -> int:
    """Bytes that a step goes through at the least: parameters and their gradients, inputs, targets, and of every unit its
    activation and its derivative.
    """
    network, dtype = point.network, dtypes.find(setting.dtype)
    examples = network.layers[0] + network.layers[-1] + 2 * network.u
    return 2 * network.m * dtype.stored_itemsize + point.n * examples * dtype.itemsize


def input_sets(setting: Setting, point: Point, cache_bytes: int | None, free_bytes: int | None) -> int:
    """How many copies of the problem a block of steps goes through (``bench.rotation``).

    One where compiling takes long: each copy would be compiled anew.
    """
    if setting.entry.cost.first_call_s > 1:
        return 1
    room = None if free_bytes is None else free_bytes - bytes_estimate(setting, point)
    return rotation.sets_for(setting.device, bytes_touched(setting, point), cache_bytes, room)
