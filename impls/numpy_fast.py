"""NumPy vectorised by hand: a straight line of BLAS and ufunc calls, out= everywhere, nothing allocated in a step."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.linalg import get_blas_funcs
from scipy.special import erf

from impls.interface import AnyArray, Problem
from impls.straight_line import Operations, StraightLine

#: Examples worked on at a time within a step: 128 to 4,096 were tried on networks 64 to 512 wide; 512 was within a few
#: per cent of the best for each, because a layer's block then stays in a 1 MiB L2 cache.
BLOCK = 512
#: Bytes of each buffer that an update works on at a time.  2¹⁶ to 2²² were tried for momentum and Adam on one and four
#: million parameters: shorter blocks pay for more calls and more first touches, longer ones for memory that has left the
#: caches between two calls; 2²⁰ was within a few per cent of the best for each.
UPDATE_BLOCK_BYTES = 1 << 20


class NumpyOperations(Operations):
    """NumPy's ufuncs take their output as the last positional argument; products go to BLAS."""

    multiply, add, subtract, divide = np.multiply, np.add, np.subtract, np.divide
    tanh, exp, log, log1p, expm1, erf = np.tanh, np.exp, np.log, np.log1p, np.expm1, erf
    sqrt = np.sqrt
    absolute, negative, sign = np.absolute, np.negative, np.sign
    product = inner = staticmethod(np.dot)
    strided_product = np.matmul  # np.dot would copy the view first

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.gemm, self.axpy = get_blas_funcs(("gemm", "axpy"), dtype=self.dtype)

    def empty(self, *shape: int) -> AnyArray:
        return np.empty(shape, self.dtype)

    def array(self, values: AnyArray) -> AnyArray:
        return np.array(values, self.dtype, order="C")

    def constant(self, value: float) -> AnyArray:
        return np.array(value, self.dtype)

    def numpy(self, tensor: AnyArray) -> AnyArray:
        return tensor

    def taken(self, rows: AnyArray, order: AnyArray) -> AnyArray:
        return rows.take(order, axis=0)

    def accumulate(self, a: AnyArray, b: AnyArray, out: AnyArray) -> None:
        # BLAS counts in columns: out^T += b^T a^T, with beta = 1.  b is handed over as it lies in memory, column by
        # column, and transposed by the flag where it is itself a transpose: any other way scipy would copy it.
        if b.flags.c_contiguous:
            self.gemm(1.0, b.T, a.T, beta=1.0, c=out.T, overwrite_c=1)
        else:
            self.gemm(1.0, b, a.T, trans_a=1, beta=1.0, c=out.T, overwrite_c=1)

    @cached_property
    def number(self) -> AnyArray:
        """Holds a number for a ufunc, which takes longer to convert one of Python's itself."""
        return np.empty((), self.dtype)

    def add_number(self, c: float, out: AnyArray) -> None:
        self.number[()] = c
        np.add(out, self.number, out)

    def add_scaled(self, c: float, a: AnyArray, out: AnyArray) -> None:
        self.axpy(a, out, len(out), c)

    def add_squared(self, c: float, a: AnyArray, out: AnyArray, s: AnyArray) -> None:
        np.multiply(a, a, s)
        self.axpy(s, out, len(out), c)

    def add_quotient(self, c: float, a: AnyArray, b: AnyArray, out: AnyArray) -> None:
        np.divide(a, b, b)
        self.axpy(b, out, len(out), c)

    def maximum(self, a: AnyArray, b: AnyArray, out: AnyArray) -> None:
        np.maximum(a, b, out=out)  # the one ufunc that wants its output named

    def total(self, a: AnyArray, out: AnyArray) -> None:
        np.add.reduce(a, axis=0, out=out)

    column_sum = total

    def column_max(self, a: AnyArray, out: AnyArray) -> None:
        np.maximum.reduce(a, axis=0, out=out)


class NumpyFast(StraightLine):
    """``StraightLine`` over NumPy and BLAS."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        ops = NumpyOperations(dtype)
        super().__init__(problem, ops, BLOCK, UPDATE_BLOCK_BYTES // ops.dtype.itemsize)

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""
