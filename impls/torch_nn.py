"""PyTorch as its users write it: ``nn.Sequential``, autograd, ``torch.optim``; autocast and ``GradScaler`` if mixed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from impls.interface import AnyArray, Problem
from impls.torch_device import (
    FixedScaler,
    HostCopies,
    Precision,
    load,
    optimizer_of,
    resolve,
    scaler_of,
    sequential,
    synchronize,
    to_numpy,
)


class TorchNN:
    """Eager PyTorch on the CPU or a CUDA device."""

    pins = True

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self.device = resolve(device, threads)
        self.precision = Precision(dtype, self.device)
        options: dict[str, Any] = {"device": self.device, "dtype": self.precision.stored}
        self.model = sequential(problem.network).to(**options)
        load(self.model, problem)
        self.inputs = torch.tensor(problem.inputs, **options)
        if problem.network.loss == "cross_entropy":
            self.criterion: nn.Module = nn.CrossEntropyLoss()
            self.targets = torch.tensor(problem.targets.argmax(axis=1), device=self.device)
        else:
            self.criterion = nn.MSELoss()
            self.targets = torch.tensor(problem.targets, **options)
        self.optimizer = optimizer_of(problem, self.model.parameters())
        self.scaler: torch.amp.GradScaler | FixedScaler = scaler_of(problem, self.precision)
        self.host = HostCopies([self.inputs, self.targets])
        self.synchronize()

    def forward(self) -> None:
        """The model's outputs."""
        with self.precision.computing():
            self.outputs = self.model(self.inputs)

    def loss(self) -> None:
        """The criterion."""
        with self.precision.computing():
            self.value = self.criterion(self.outputs, self.targets)

    def backward(self) -> None:
        """Autograd, into fresh gradients; a scaled loss's are scaled back, so that the update is the optimizer's alone."""
        self.precision.settle()
        self.optimizer.zero_grad()
        self.scaler.scale(self.value).backward()
        self.scaler.unscale_(self.optimizer)
        self.scaler.update()

    def update(self) -> None:
        """The optimizer's ``step``."""
        self.optimizer.step()

    def step(self) -> None:
        """The training loop's body."""
        self.train_on(self.inputs, self.targets)

    def train_on(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """One step on these examples."""
        with self.precision.computing():
            self.value = self.loss_of(inputs, targets)
        self.optimizer.zero_grad()
        self.scaler.scale(self.value).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def loss_of(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss on these examples."""
        value: torch.Tensor = self.criterion(self.model(inputs), targets)
        return value

    def transfer(self, pinned: bool) -> None:
        """Inputs and targets from host memory into their buffers again."""
        self.host.transfer(pinned)

    def epoch(self, order: AnyArray, batch: int) -> None:
        """Examples are shuffled in one gather and split into views."""
        index = torch.as_tensor(order, device=self.device)
        inputs, targets = self.inputs[index], self.targets[index]
        for x, t in zip(torch.split(inputs, batch), torch.split(targets, batch), strict=True):
            self.train_on(x, t)

    def synchronize(self) -> None:
        """Wait for the device."""
        synchronize(self.device)

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return to_numpy(list(self.model.parameters()))

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``."""
        return to_numpy([p.grad for p in self.model.parameters() if p.grad is not None])

    def loss_value(self) -> float:
        """The loss last computed."""
        return float(self.value.item())
