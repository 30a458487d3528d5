"""PyTorch's derivatives in three ways: autograd, ``torch.func.jvp`` under ``vmap``, and losses without autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import functional_call, jvp, vmap

from impls.derivatives import Shifts, flat
from impls.interface import AnyArray, Problem
from impls.torch_device import plain_precision, to_numpy
from impls.torch_nn import TorchNN

Named = dict[str, torch.Tensor]


class TorchDerivatives:
    """Eager PyTorch; the model's parameters are views of one flat tensor, as torch lays them out: W as (fan_out, fan_in)."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self.eager = TorchNN(problem, device, dtype, threads)
        self._precision = plain_precision(dtype, self.eager.device, "derivatives by torch")
        self.model, self.criterion = self.eager.model, self.eager.criterion
        self.inputs, self.targets = self.eager.inputs, self.eager.targets
        self.theta = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])
        self.parameters = self._named(self.theta)
        for parameter, view in zip(self.model.parameters(), self.parameters.values(), strict=True):
            parameter.data = view
        # where each parameter lies in the flat tensor
        self._places = torch.as_tensor(flat(to_numpy(list(self._named(torch.arange(problem.network.m)).values()))))
        self._start = flat(self.eager.parameters())
        self._shifts = Shifts.of(self._start)
        self._apart = torch.as_tensor(self._shifts.apart, device=self.theta.device)
        self._tangents: dict[
            int, torch.Tensor
        ] = {}  # by their number: to allocate and clear them took as long as the pass

    @torch.inference_mode()
    def loss(self) -> None:
        """The criterion without autograd."""
        self._precision.settle()
        self._value = self.criterion(self.model(self.inputs), self.targets)

    def reverse(self) -> None:
        """Autograd into fresh gradients, as in a step."""
        self._precision.settle()
        self._value = self.criterion(self.model(self.inputs), self.targets)
        self.eager.optimizer.zero_grad()
        self._value.backward()

    @torch.no_grad()
    def forward(self, start: int, count: int) -> None:
        """Unit tangents are set, carried through, and taken back; vmap is left out where there is one alone."""
        self._precision.settle()
        if count not in self._tangents:
            self._tangents[count] = self.theta.new_zeros(count, len(self.theta))
        tangents = self._tangents[count]
        ones = torch.arange(count), self._places[start : start + count]
        tangents[ones] = 1.0
        if count == 1:
            self._found = self._push(self._named(tangents[0]))[None]
        else:
            self._found = vmap(self._push)(self._named(tangents))
        tangents[ones] = 0.0

    @torch.inference_mode()
    def central(self, start: int, count: int) -> None:
        """A parameter is moved up, down and back where it lies."""
        self._precision.settle()
        # on the CPU through NumPy's view of the same memory: torch takes µs to assign one number, and a loss some tens
        theta: Any = self.theta.numpy() if self.theta.device.type == "cpu" else self.theta
        before, up, down = self._start, self._shifts.up, self._shifts.down
        losses = []
        for k, place in enumerate(self._places[start : start + count].tolist(), start):
            for value in (up[k], down[k]):
                theta[place] = value
                losses.append(self.criterion(self.model(self.inputs), self.targets))
            theta[place] = before[k]
        above, below = torch.stack(losses).double().view(count, 2).T
        self._found = (above - below) / self._apart[start : start + count]  # (L(θ + h) - L(θ - h)) / 2h

    def synchronize(self) -> None:
        """Wait for the device."""
        self.eager.synchronize()

    def value(self) -> float:
        """The loss last computed."""
        return float(self._value.item())

    def gradients(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return self.eager.gradients()

    def derivatives(self) -> AnyArray:
        """Those last computed."""
        found: AnyArray = self._found.cpu().numpy().copy()
        return found

    def _push(self, tangents: Named) -> torch.Tensor:
        # dL = (∂L/∂θ) dθ, one direction dθ
        def loss_of(parameters: Named) -> Any:
            return self.criterion(functional_call(self.model, parameters, (self.inputs,)), self.targets)

        pushed: torch.Tensor = jvp(loss_of, (self.parameters,), (tangents,))[1]
        return pushed

    def _named(self, buffer: torch.Tensor) -> Named:
        """A tensor (…, m) as the model's parameters by name, each (…, *shape)."""
        named = dict(self.model.named_parameters())
        parts = torch.split(buffer, [p.numel() for p in named.values()], dim=-1)
        return {
            name: part.view(*buffer.shape[:-1], *p.shape) for part, (name, p) in zip(parts, named.items(), strict=True)
        }
