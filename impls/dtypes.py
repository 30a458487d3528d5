"""Dtypes as data: what parameters are kept in, what products are computed in, how near to float64 that must be.

``float32`` means float32 everywhere: products on an accelerator do not fall back to TF32.  The mixed ones are what users of
accelerators train in: parameters, their gradients and the optimizer's states stay in float32, products and activations are
computed in fewer bits.  No library is imported here.

Source: Micikevicius et al. (2018), "Mixed precision training".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from backprop_files import UserError
from impls.names import nearest


@dataclass(frozen=True)
class Dtype:
    """One dtype: ``stored`` is what parameters are kept in (a NumPy name), ``computed`` what products are computed in.

    ``tolerance`` is the largest relative norm of the difference to the float64 reference; ``itemsize`` are the bytes of a
    number that goes into a product, so of an activation; ``stored_itemsize`` those of a parameter; ``epsilon`` is how far
    apart numbers beside 1 are in a product.
    """

    name: str
    stored: str
    computed: str
    tolerance: float
    itemsize: int
    epsilon: float
    accelerators_only: bool = False

    @property
    def stored_itemsize(self) -> int:
        """Bytes of a parameter, a gradient or a state."""
        return 8 if self.stored == "float64" else 4

    @property
    def mixed(self) -> bool:
        """Whether products are computed in fewer bits than parameters have."""
        return self.stored != self.computed

    @property
    def steps_tolerance(self) -> float:
        """As ``tolerance``, of what several steps have moved: errors of one carry into the gradients of the next."""
        return 10 * self.tolerance


#: Measured on the CPU, down to 33 layers: at most 0.021 in bfloat16 and 0.0022 in float16, array by array.
_ALL = (
    Dtype("float32", "float32", "float32", 1e-4, 4, 2.0**-23),
    Dtype("float64", "float64", "float64", 1e-10, 8, 2.0**-52),
    Dtype("tf32", "float32", "tf32", 1e-2, 4, 2.0**-10, accelerators_only=True),
    Dtype("bfloat16", "float32", "bfloat16", 3e-2, 2, 2.0**-7),
    Dtype("float16", "float32", "float16", 1e-2, 2, 2.0**-10),
)
_BY_NAME = {dtype.name: dtype for dtype in _ALL}

NAMES = tuple(_BY_NAME)
#: Those that every CPU and every library has.
PLAIN = tuple(dtype.name for dtype in _ALL if not dtype.mixed)
MIXED = tuple(dtype.name for dtype in _ALL if dtype.mixed)
#: Compute capability (major, minor) of an NVIDIA device from which on it has them in hardware; the others are everywhere.
CAPABILITY = {"tf32": (8, 0), "bfloat16": (8, 0)}


def find(name: str) -> Dtype:
    """The dtype of that name.  Raises UserError with the nearest known one."""
    if name not in _BY_NAME:
        raise UserError(nearest("dtype", name, NAMES))
    return _BY_NAME[name]


def lacking(name: str, capability: tuple[int, int], device: str, model: str) -> str | None:
    """Why a device of this compute capability cannot compute in the dtype; None if it can."""
    wanted = CAPABILITY.get(name)
    if wanted is None or capability >= wanted:
        return None
    needed, has = (".".join(map(str, pair)) for pair in (wanted, capability))
    return f"dtype '{name}' needs compute capability {needed} or newer: {device} is a {model} with {has}"


#: What the largest δ of an output may be in float16: far from 65504, which sums over examples must not reach either.
_LARGEST_DELTA = 1 / 16


def loss_scale(loss: str, n: int, outputs: int) -> float:
    """What float16 needs a loss to be multiplied by, so that gradients become neither 0 nor infinite: a power of two, ≥ 1.

    δ of the outputs is of order 1/n, for ``mse`` 1/(n outputs): the scale undoes that, whatever the size of the batch.
    """
    divisor = n * outputs if loss == "mse" else n
    return 2.0 ** max(0, math.floor(math.log2(divisor * _LARGEST_DELTA)))
