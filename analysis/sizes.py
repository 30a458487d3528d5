"""Sizes of networks that were never measured, as columns of the cell table: what laws need to predict them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import ITEMSIZE

LEVELS = ("L1", "L2", "L3")


def like(cell: pd.Series, layers: Sequence[Any], n: Any, p: float) -> pd.DataFrame:
    """Rows with every variable of ``analysis.expressions`` for fully connected networks in the dtype and on the machine of
    ``cell``.  ``n`` and the entries of ``layers`` are numbers or arrays of one shape (rows,).
    """
    sides = [np.asarray(side, float) for side in layers]
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(sides))
    # once forward, once for the gradient of the weights, once for that of the inputs but in the first layer
    products = 3 * weights - sides[0] * sides[1]
    columns = {
        "n": n,
        "m": weights + sum(sides[1:]),
        "p": p,
        "u": sum(sides[1:-1]),
        "width": np.max(np.broadcast_arrays(*sides[1:-1]), axis=0) if len(sides) > 2 else 0,
        "depth": len(sides) - 1,
        "hidden": len(sides) - 2,
        "inputs": sides[0],
        "outputs": sides[-1],
        "units": sum(sides),
        "products": products,
        "itemsize": ITEMSIZE.get(str(cell["dtype"]), np.nan),
        "operations_product": 2.0 * np.asarray(n) * products,
        **{level: float(cell[level]) for level in LEVELS},
    }
    rows = max(np.size(value) for value in columns.values())
    return pd.DataFrame({name: np.broadcast_to(value, rows) for name, value in columns.items()})
