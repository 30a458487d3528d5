"""What the torch implementations share: device, precision, activations as modules, optimizers, arrays in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import nn

from backprop_files import UserError
from impls import activations, dtypes, optimizers
from impls.interface import AnyArray, Network, Problem


def resolve(device: str, threads: int) -> torch.device:
    """The torch device of that name, with torch's own thread pool set.  Raises UserError where it is absent."""
    torch.set_num_threads(threads)
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device '{device}': torch knows cpu, cuda and cuda:i") from error
    if resolved.type == "cuda" and (reason := _absent(resolved)):
        raise UserError(f"device '{device}' is absent: {reason}")
    return resolved


def _absent(device: torch.device) -> str | None:
    """Why there is no such CUDA device, in one line; None if there is."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        version = torch.__version__
        return f"torch {version} is the CPU build: pip install torch=={version.partition('+')[0]} in its CUDA build"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return _driver_trouble(str(error))
    count = torch.cuda.device_count()
    if (device.index or 0) < count:
        return None
    seen = ", ".join(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count))
    return f"torch sees {seen}" if seen else "torch sees no CUDA device (CUDA_VISIBLE_DEVICES may hide it)"


def _driver_trouble(told: str) -> str:
    """What CUDA said as it would not start, and what mends it."""
    built = f"torch {torch.__version__} for CUDA {torch.version.cuda}"
    if "no NVIDIA driver" in told:
        return "no NVIDIA driver is loaded on this machine"
    if "too old" in told:
        return f"the NVIDIA driver is too old for {built}: update it, or install torch for an older CUDA"
    return (
        f"CUDA does not start under {built}: {told.strip().splitlines()[0] if told.strip() else 'it does not say why'}"
    )


# --- precision --------------------------------------------------------------------------------------------------------

#: Around what needs no autocast; it keeps nothing, so one serves all.
_AS_STORED: AbstractContextManager[object] = nullcontext()


class Precision:
    """A dtype of ``impls.dtypes`` as torch has it on a device.

    Whether float32's products are taken in TF32 is one setting for the whole process, which every instance therefore makes
    anew before it computes: instances of different dtypes take turns in a process and do not change each other.  Compiled
    code is guarded by that setting, and a CUDA graph keeps the kernels of its capture.
    """

    def __init__(self, dtype: str, device: torch.device) -> None:
        """Raises UserError where the device cannot compute in the dtype."""
        found = dtypes.find(dtype)
        self.device = device
        self.stored: torch.dtype = getattr(torch, found.stored)
        self.tf32 = dtype == "tf32"
        #: What autocast computes products in; None without autocast.
        self.computed: torch.dtype | None = getattr(torch, found.computed) if found.mixed and not self.tf32 else None
        self.scaled = dtype == "float16"
        if found.accelerators_only and device.type == "cpu":
            raise UserError(f"dtype '{dtype}' is one of accelerators: the CPU has none")
        if device.type == "cuda":
            capability, model = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
            if reason := dtypes.lacking(dtype, capability, str(device), model):
                raise UserError(reason)

    def settle(self) -> None:
        """Make the process's setting this instance's, before a pass of any kind."""
        if self.device.type == "cuda":
            products_in_tf32(self.tf32)

    def computing(self) -> AbstractContextManager[object]:
        """To be entered around a forward pass and its loss, and left before the backward pass, as autocast wants it."""
        self.settle()
        return _AS_STORED if self.computed is None else torch.autocast(self.device.type, self.computed)


def products_in_tf32(wanted: bool) -> None:
    """Whether float32's products, convolutions and recurrent layers on CUDA devices are computed in TF32 from now on.

    torch's own default is float32 for products, but TF32 for the others.
    """
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted


def plain_precision(dtype: str, device: torch.device, who: str) -> Precision:
    """The precision of what cannot work under autocast: float32, float64, tf32.  Raises UserError for any other."""
    precision = Precision(dtype, device)
    if precision.computed is not None:
        raise UserError(f"{who}: no dtype '{dtype}'; it computes in {', '.join(dtypes.PLAIN)}, on accelerators tf32")
    return precision


def scaler_of(problem: Problem, precision: Precision) -> torch.amp.GradScaler:
    """float16's scaling of the loss, which skips a step whose gradients are infinite and halves the scale; else idle.

    It starts where gradients of the problem fit (torch's own start, 65536, would make the first steps of a small batch
    infinite), and does not grow while it is measured.
    """
    scale = dtypes.loss_scale(problem.network.loss, problem.n, problem.network.layers[-1])
    kind = precision.device.type
    return torch.amp.GradScaler(kind, init_scale=scale, growth_interval=2**31 - 1, enabled=precision.scaled)


class FixedScaler:
    """A ``GradScaler`` whose scale stays what it is, so that it never asks the device whether gradients are finite: to wait
    for an answer is what no graph can hold.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        """The loss to go back from."""
        return value * self.factor

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients scaled back, in place."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.factor)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale back, and step."""
        self.unscale_(optimizer)
        optimizer.step()

    def update(self) -> None:
        """Nothing."""


# --- host and device --------------------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    """Wait until all work handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class HostCopies:
    """Copies in host memory of what lies on a device, to be brought there again; made when first asked for."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = tensors

    @cached_property
    def pageable(self) -> list[torch.Tensor]:
        """In memory as the system hands it out."""
        return [tensor.detach().to("cpu", copy=True) for tensor in self.tensors]

    @cached_property
    def pinned(self) -> list[torch.Tensor]:
        """In page-locked memory, which the device reads by itself; on the CPU there is nothing to lock for."""
        on_device = any(tensor.is_cuda for tensor in self.tensors)
        return [tensor.pin_memory() for tensor in self.pageable] if on_device else self.pageable

    def transfer(self, pinned: bool) -> None:
        """Into the tensors they were made of; from pinned memory without waiting."""
        sources = self.pinned if pinned else self.pageable
        for tensor, source in zip(self.tensors, sources, strict=True):
            tensor.copy_(source, non_blocking=pinned)


# --- networks and optimizers ------------------------------------------------------------------------------------------


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
