"""What the torch implementations share: device, dtypes, activations as modules, optimizers, parameters in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from backprop_files import UserError
from impls import activations, optimizers
from impls.interface import AnyArray, Network, Problem

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def resolve(device: str, threads: int) -> torch.device:
    """The torch device of that name, with torch's own thread pool set.  Raises UserError where it is absent."""
    torch.set_num_threads(threads)
    resolved = torch.device(device)
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}' is absent: torch sees {torch.cuda.device_count()} CUDA devices")
    return resolved


def synchronize(device: torch.device) -> None:
    """Wait until all work handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Horner(nn.Module):
    """The polynomial of ``impls.activations`` by Horner's rule; autograd keeps what it needs."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.coefficients = activations.horner_coefficients(degree)[0]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        y = z * (1 / activations.HORNER_RADIUS)
        result = y * self.coefficients[-1] + self.coefficients[-2]
        for coefficient in self.coefficients[-3::-1]:
            result = result * y + coefficient
        return result


MODULES: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(activations.LEAK),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def activation_module(name: str) -> nn.Module:
    """The activation as a PyTorch user would write it."""
    degree = activations.horner_degree(name)
    return Horner(degree) if degree else MODULES[activations.find(name).name]()


def sequential(network: Network) -> nn.Sequential:
    """``nn.Sequential`` of linear layers with the activation between them."""
    modules: list[nn.Module] = []
    for fan_in, fan_out in network.shapes:
        modules += [nn.Linear(fan_in, fan_out), activation_module(network.activation)]
    return nn.Sequential(*modules[:-1])


def load(model: nn.Module, problem: Problem) -> None:
    """Put the problem's parameters into the model: torch keeps W as (fan_out, fan_in)."""
    with torch.no_grad():
        for target, source in zip(model.parameters(), problem.parameters, strict=True):
            target.copy_(torch.from_numpy(source.T.copy()))


#: torch's own class with the arguments of ``impls.optimizers``; foreach or fused, whatever the class takes by itself.
OPTIMIZERS: dict[str, Callable[[Any, Any, float], torch.optim.Optimizer]] = {
    "gradient-descent": lambda h, p, lr: torch.optim.SGD(p, lr=lr),
    "momentum": lambda h, p, lr: torch.optim.SGD(p, lr=lr, momentum=h.decay),
    "nesterov": lambda h, p, lr: torch.optim.SGD(p, lr=lr, momentum=h.decay, nesterov=True),
    "adagrad": lambda h, p, lr: torch.optim.Adagrad(p, lr=lr, initial_accumulator_value=h.start, eps=0.0),
    "rmsprop": lambda h, p, lr: torch.optim.RMSprop(p, lr=lr, alpha=h.decay, eps=h.eps),
    "adam": lambda h, p, lr: torch.optim.Adam(p, lr=lr, betas=(h.beta1, h.beta2), eps=h.eps),
}


def optimizer_of(problem: Problem, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """The problem's optimizer over these parameters."""
    return OPTIMIZERS[problem.optimizer](optimizers.find(problem.optimizer), parameters, problem.learning_rate)


def to_numpy(tensors: list[torch.Tensor]) -> list[AnyArray]:
    """Copies of parameters or gradients with W as (fan_in, fan_out)."""
    return [tensor.detach().cpu().numpy().T.copy() for tensor in tensors]
