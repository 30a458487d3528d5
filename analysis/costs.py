"""What things cost, in physical units: the coefficients of the winning law with intervals, against the ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import Choice
from analysis.load import parameter_bytes
from analysis.statistics import Interval
from backprop_files import USUAL_OPTIMIZER

#: Of a term: what one of it is, and how many of the physical unit one of the term stands for, by phase.  A weight is
#: multiplied and added once forward and twice backward, in the gradients of weights and of inputs.
_MULTIPLY_ADDS = {"step": 3.0, "forward": 1.0, "backward": 2.0}
UNITS: Mapping[str, str] = {
    "1": "fixed",
    "depth": "layer",
    "hidden·p": "call of an activation's operation",
    "n·depth": "layer and example",
    "n·hidden·p": "call and example",
    "n·m": "multiply-add",
    "n·products": "multiply-add",
    "n·u·p": "unit-operation",
    "n·u": "unit",
    "m": "parameter",
    "n·m·p": "parameter-operation",
    "n": "example",
}
#: A parameter's update reads it and its gradient and writes it; what the optimizer keeps of it is read and written too.
MOVES_PER_PARAMETER: Mapping[str, int] = {
    USUAL_OPTIMIZER: 3,
    "momentum": 5,
    "nesterov": 5,
    "adagrad": 5,
    "rmsprop": 5,
    "adam": 7,
}


@dataclass(frozen=True)
class Cost:
    """Seconds of one ``unit`` with a 95 % interval; ``share`` of a measured ceiling where one applies, and which."""

    unit: str
    seconds: Interval
    share: float | None
    ceiling: str


def costs(choice: Choice, phase: str, cells: pd.DataFrame) -> list[Cost]:
    """Of the winning law of a group; ``cells`` are its rows."""
    found: list[Cost] = []
    if choice.final is None:
        return found
    for i, (term, value) in enumerate(zip(choice.final.law.terms, choice.final.coefficients, strict=True)):
        if term.text not in UNITS:
            continue
        scale = 1 / _MULTIPLY_ADDS.get(phase, 1.0) if term.text == "n·m" else 1.0
        low, high = (np.nan, np.nan) if choice.draws is None else np.quantile(choice.draws[:, i], [0.025, 0.975])
        seconds = Interval(scale * value, scale * float(low), scale * float(high))
        found.append(Cost(UNITS[term.text], seconds, *_against(term.text, seconds.value, cells)))
    return found


def _against(term: str, seconds: float, cells: pd.DataFrame) -> tuple[float | None, str]:
    if seconds <= 0:
        return None, ""
    if term in ("n·m", "n·products"):
        return 2 / seconds / float(cells["ceiling_flops"].median()), "matrix-product rate"
    if term == "m":
        moves = MOVES_PER_PARAMETER.get(str(cells["optimizer"].iloc[0]))
        if moves is None:
            return None, ""
        moved = moves * parameter_bytes(str(cells["dtype"].iloc[0]))
        return moved / seconds / float(cells["bandwidth_bytes_per_s"].median()), "memory bandwidth"
    return None, ""
