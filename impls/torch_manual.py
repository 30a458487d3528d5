"""PyTorch without autograd: the hand-written straight line with torch operations and out=."""

from __future__ import annotations

from typing import Any

import torch

from impls.interface import AnyArray, Problem
from impls.straight_line import Operations, StraightLine
from impls.torch_device import plain_precision, resolve, synchronize

#: Rows in cache on a CPU, as in ``numpy_fast``; a GPU wants all the work in one launch.
BLOCK = {"cpu": 512}
#: Parameters of an update in cache, for each thread; torch shares out what is larger than 32,768 among its threads.
UPDATE_BLOCK = {"cpu": 1 << 18}


def _writes_last(function: Any) -> Any:
    """``function(x, …, out=y)`` called as ``f(x, …, y)``."""

    def call(*operands: Any) -> object:
        return function(*operands[:-1], out=operands[-1])

    return staticmethod(call)


class TorchOperations(Operations):
    """torch functions with the output as the last positional argument."""

    multiply, add, subtract, divide = (_writes_last(f) for f in (torch.mul, torch.add, torch.sub, torch.div))
    maximum, tanh, exp, log = (_writes_last(f) for f in (torch.maximum, torch.tanh, torch.exp, torch.log))
    log1p, expm1, erf = (_writes_last(f) for f in (torch.log1p, torch.expm1, torch.erf))
    absolute, negative, sign = (_writes_last(f) for f in (torch.abs, torch.neg, torch.sign))
    sqrt = _writes_last(torch.sqrt)
    product, inner = _writes_last(torch.mm), _writes_last(torch.dot)
    strided_product = product

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.options: dict[str, Any] = {"device": device, "dtype": dtype}

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, **self.options)

    def array(self, values: AnyArray) -> torch.Tensor:
        return torch.tensor(values, **self.options).contiguous()

    def constant(self, value: float) -> torch.Tensor:
        return torch.tensor(value, **self.options)

    def numpy(self, tensor: torch.Tensor) -> AnyArray:
        array: AnyArray = tensor.cpu().numpy()
        return array

    def taken(self, rows: torch.Tensor, order: AnyArray) -> torch.Tensor:
        return rows[torch.as_tensor(order, device=rows.device)]

    def accumulate(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        out.addmm_(a, b)

    def add_number(self, c: float, out: torch.Tensor) -> None:
        out.add_(c)

    def add_scaled(self, c: float, a: torch.Tensor, out: torch.Tensor) -> None:
        out.add_(a, alpha=c)

    def add_squared(self, c: float, a: torch.Tensor, out: torch.Tensor, s: torch.Tensor) -> None:
        out.addcmul_(a, a, value=c)

    def add_quotient(self, c: float, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        out.addcdiv_(a, b, value=c)

    def total(self, a: torch.Tensor, out: torch.Tensor) -> None:
        torch.sum(a, 0, out=out)

    column_sum = total

    def column_max(self, a: torch.Tensor, out: torch.Tensor) -> None:
        torch.amax(a, 0, out=out)


class TorchManual(StraightLine):
    """``StraightLine`` over torch, on the CPU or a CUDA device."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self.device = resolve(device, threads)
        kind = self.device.type
        update_block = UPDATE_BLOCK[kind] * threads if kind in UPDATE_BLOCK else problem.network.m
        self.precision = plain_precision(dtype, self.device, "torch-manual")
        ops = TorchOperations(self.device, self.precision.stored)
        super().__init__(problem, ops, BLOCK.get(kind, problem.n), update_block)
        self.synchronize()

    def forward(self) -> None:
        """In the precision asked for."""
        self.precision.settle()
        super().forward()

    def backward(self) -> None:
        """In the precision asked for."""
        self.precision.settle()
        super().backward()

    def step(self) -> None:
        """In the precision asked for."""
        self.precision.settle()
        super().step()

    def epoch(self, order: AnyArray, batch: int) -> None:
        """In the precision asked for."""
        self.precision.settle()
        super().epoch(order, batch)

    def synchronize(self) -> None:
        """Wait for the device."""
        synchronize(self.device)
