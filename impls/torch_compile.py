"""``torch.compile`` over the eager implementation: model and criterion in one compiled graph, autograd behind it."""

from __future__ import annotations

import torch

from impls.interface import Problem
from impls.torch_nn import TorchNN


class TorchCompile(TorchNN):
    """Eager code and optimizer stay; forward and loss are compiled, and with them their backward.

    On a CUDA device in the mode ``reduce-overhead``, which replays the compiled kernels as CUDA graphs.
    """

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        super().__init__(problem, device, dtype, threads)
        torch.compiler.reset()  # a new problem is a new graph, not a dynamic shape of the last one
        self._graphs = self.device.type == "cuda"
        mode = "reduce-overhead" if self._graphs else None
        self._compiled_loss = torch.compile(super().loss_of, dynamic=False, mode=mode)
        self.model.compile(dynamic=False, mode=mode)

    def forward(self) -> None:
        """The model's outputs."""
        self._begin()
        super().forward()

    def loss_of(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss on these examples: one compiled graph for each batch size."""
        self._begin()
        value: torch.Tensor = self._compiled_loss(inputs, targets)
        return value

    def _begin(self) -> None:
        """Say that what CUDA graphs have put out before is of no more use: a forward pass alone may be repeated."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
