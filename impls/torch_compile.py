"""``torch.compile`` over the eager implementation: model and criterion in one compiled graph, autograd behind it."""

from __future__ import annotations

import torch

from impls.interface import Problem
from impls.torch_nn import TorchNN


class TorchCompile(TorchNN):
    """Eager code and optimizer stay; forward and loss are compiled, and with them their backward."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        super().__init__(problem, device, dtype, threads)
        torch.compiler.reset()  # a new problem is a new graph, not a dynamic shape of the last one
        self.model.compile(dynamic=False)
        self.compiled_loss = torch.compile(self._loss_of, dynamic=False)

    def _loss_of(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.criterion(self.model(inputs), targets)
        return value

    def train_on(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """The training loop's body over one compiled graph for each batch size."""
        self.value = self.compiled_loss(inputs, targets)
        self.optimizer.zero_grad()
        self.value.backward()
        self.optimizer.step()
