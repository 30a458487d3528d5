"""Sizes of a network that was never measured, as columns of the cell table: what laws need to predict it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from analysis.load import ITEMSIZE


def row(layers: Sequence[int], n: int, p: float, dtype: str, caches: dict[str, float]) -> pd.DataFrame:
    """One row with every variable of ``analysis.expressions``, for a fully connected network of these layers."""
    pairs = list(pairwise(layers))
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairs)
    units, hidden = sum(layers[1:-1]), len(layers) - 2
    # once forward, once for the gradient of the weights, once for that of the inputs but in the first layer
    products = 3 * weights - layers[0] * layers[1]
    return pd.DataFrame(
        [
            {
                "n": n,
                "m": weights + sum(layers[1:]),
                "p": p,
                "u": units,
                "width": max(layers[1:-1], default=0),
                "depth": len(pairs),
                "hidden": hidden,
                "inputs": layers[0],
                "outputs": layers[-1],
                "units": sum(layers),
                "products": float(products),
                "itemsize": ITEMSIZE.get(dtype, float("nan")),
                "operations_product": 2.0 * n * products,
                **caches,
            }
        ]
    )
