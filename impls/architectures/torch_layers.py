"""Architectures in PyTorch: ``torch.nn`` modules, autograd and ``torch.optim``, as users write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from impls import optimizers
from impls.architectures.layers import (
    Activation,
    Architecture,
    Attention,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    Pool2D,
    Positions,
    Recurrent,
    Residual,
    Shape,
    walk,
)
from impls.architectures.problem import Adversarial, ArchitectureProblem, Objective, Supervised, TemporalDifference
from impls.interface import AnyArray
from impls.torch_device import OPTIMIZERS, activation_module, plain_precision, resolve, synchronize

Masks = Iterator[torch.Tensor]


# --- modules that torch has no ready class for ------------------------------------------------------------------------


class Cell(nn.Module):
    """A recurrent module that hands on its states alone, without the last one beside them."""

    CLASSES: Mapping[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

    def __init__(self, cell: str, features: int, units: int) -> None:
        super().__init__()
        self.cell = self.CLASSES[cell](features, units, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.cell(x)[0]
        return states


class SelfAttention(nn.Module):
    """``nn.MultiheadAttention`` of a sequence with itself."""

    mask: torch.Tensor | None

    def __init__(self, length: int, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.causal = causal
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length) if causal else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(x, x, x, need_weights=False, attn_mask=self.mask, is_causal=self.causal)[0]
        return y


class LearnedPositions(nn.Module):
    """x + P."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


class MaskedDropout(nn.Module):
    """Dropout by a mask that is part of the problem, where ``nn.Dropout`` would draw one."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


class Skip(nn.Module):
    """x + what a module makes of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.inner(x)
        return y


#: A module of a layer on a shape.
MODULES: dict[type[Layer], Callable[[Any, Shape], nn.Module]] = {
    Dense: lambda layer, shape: nn.Linear(shape[-1], layer.units),
    Activation: lambda layer, shape: activation_module(layer.name),
    Conv2D: lambda layer, shape: nn.Conv2d(shape[0], layer.channels, layer.kernel, layer.stride, layer.padding),
    Pool2D: lambda layer, shape: (nn.MaxPool2d if layer.how == "max" else nn.AvgPool2d)(layer.window, layer.step),
    Flatten: lambda layer, shape: nn.Flatten(),
    Recurrent: lambda layer, shape: Cell(layer.cell, shape[1], layer.units),
    Embedding: lambda layer, shape: nn.Embedding(layer.vocabulary, layer.width),
    Positions: lambda layer, shape: LearnedPositions(shape),
    LayerNorm: lambda layer, shape: nn.LayerNorm(shape[-1]),
    Attention: lambda layer, shape: SelfAttention(shape[0], shape[1], layer.heads, layer.causal),
}


def sequential(layers: Sequence[Layer], shape: Shape, masks: Masks) -> nn.Sequential:
    """``nn.Sequential`` of the layers' modules."""
    modules: list[nn.Module] = []
    for layer, before, _ in walk(tuple(layers), shape):
        if isinstance(layer, Residual):
            modules.append(Skip(sequential(layer.layers, before, masks)))
        elif isinstance(layer, Dropout):
            modules.append(MaskedDropout(next(masks)))
        else:
            modules.append(MODULES[type(layer)](layer, before))
    return nn.Sequential(*modules)


# --- parameters in and out: torch keeps the matrices of products transposed --------------------------------------------


def transposed(objective: Objective) -> list[bool]:
    """Of every parameter, in order, whether torch keeps it transposed: matrices of products, but no kernels or tables."""
    return [len(p.shape) == 2 and p.name not in ("E", "P") for p in objective.parameters]


# --- losses -----------------------------------------------------------------------------------------------------------


def _policy_gradient(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    # -1/n Σ t log softmax(y)
    return -(t * F.log_softmax(y, dim=1)).sum() / len(y)


# -1/n Σ (t log σ(y) + (1 - t) log(1 - σ(y)))
_log_loss = F.binary_cross_entropy_with_logits


def _tokens(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(y.flatten(0, 1), t.flatten())


#: Losses of outputs and targets, and how targets are handed over.
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": F.mse_loss,
    "cross_entropy": F.cross_entropy,
    "token_cross_entropy": _tokens,
    "policy_gradient": _policy_gradient,
}


class TorchLayers:
    """PyTorch on CPU or CUDA, whatever the objective."""

    def __init__(
        self, problem: ArchitectureProblem, device: str = "cpu", dtype: str = "float32", threads: int = 1
    ) -> None:
        self.device = resolve(device, threads)
        self.precision = plain_precision(dtype, self.device, "architectures by torch")
        self.dtype = self.precision.stored
        self.problem, self.objective = problem, problem.objective
        drawn = [self._tensor(mask) for mask in problem.masks]
        masks = iter(drawn)
        self.models = [self._model(architecture, masks) for architecture in self.objective.architectures]
        self._load(self._parameters(), problem.parameters)
        self.target: nn.Module | None = None
        if isinstance(self.objective, TemporalDifference):
            self.target = self._model(self.objective.architecture, iter(drawn)).requires_grad_(False)
            self._load(list(self.target.parameters()), problem.target)
        make = OPTIMIZERS[problem.optimizer]
        self.optimizers = [
            make(optimizers.find(problem.optimizer), model.parameters(), problem.learning_rate) for model in self.models
        ]
        self.hold(problem.arrays)
        self.value = torch.tensor(torch.nan)
        self.synchronize()

    def _model(self, architecture: Architecture, masks: Masks) -> nn.Sequential:
        return sequential(architecture.layers, architecture.inputs, masks).to(self.device, self.dtype)

    def _tensor(self, array: AnyArray) -> torch.Tensor:
        tensor = torch.tensor(array, device=self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _parameters(self) -> list[nn.Parameter]:
        return [p for model in self.models for p in model.parameters()]

    def _load(self, into: Sequence[torch.Tensor], arrays: Sequence[AnyArray]) -> None:
        with torch.no_grad():
            for tensor, array, turned in zip(into, arrays, transposed(self.objective), strict=True):
                tensor.copy_(torch.from_numpy(array.T.copy() if turned else array))

    def hold(self, arrays: Mapping[str, AnyArray]) -> None:
        """Another batch in place of the problem's."""
        self.arrays = {name: self._tensor(array) for name, array in arrays.items()}
        if isinstance(self.objective, Supervised) and self.objective.architecture.loss == "cross_entropy":
            self.arrays["targets"] = self.arrays["targets"].argmax(dim=1)

    def renew_target(self) -> None:
        """Q⁻ ← Q."""
        if self.target is not None:
            self.target.load_state_dict(self.models[0].state_dict())

    # --- phases of an objective with one stage

    def forward(self) -> None:
        """The outputs."""
        self.precision.settle()
        self.outputs = self.models[0](self.arrays["inputs"])

    def loss(self) -> None:
        """The objective's loss; for temporal differences Q⁻ too."""
        if isinstance(self.objective, Supervised):
            self.value = LOSSES[self.objective.architecture.loss](self.outputs, self.arrays["targets"])
        else:
            self.value = self._temporal_difference(self.outputs)

    def _temporal_difference(self, q: torch.Tensor) -> torch.Tensor:
        assert self.target is not None and isinstance(self.objective, TemporalDifference)
        a = self.arrays
        with torch.no_grad():
            after = self.target(a["next_inputs"]).max(dim=1).values
            wanted = a["rewards"] + self.objective.discount * a["ongoing"] * after
        return F.mse_loss(q.gather(1, a["actions"][:, None])[:, 0], wanted)

    def backward(self) -> None:
        """Autograd, into fresh gradients."""
        self.precision.settle()
        self.optimizers[0].zero_grad()
        self.value.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """The optimizer's ``step``."""
        self.optimizers[0].step()

    # --- the step

    def step(self) -> None:
        """The training loop's body."""
        if isinstance(self.objective, Adversarial):
            self._adversaries()
            return
        self.forward()
        self.loss()
        self.backward()
        self.update()

    def _adversaries(self) -> None:
        """As in PyTorch's own DCGAN example, but that D's parameters ask for no gradient in the generator's turn.  That example
        and many users let them be computed, and zeroed at the next step; to leave them out spares work, and those of D's own
        turn stay to be seen.
        """
        self.precision.settle()
        generator, discriminator = self.models
        of_generator, of_discriminator = self.optimizers
        of_discriminator.zero_grad()
        fake = generator(self.arrays["noise"])
        on_real, on_fake = discriminator(self.arrays["real"]), discriminator(fake.detach())
        value = _log_loss(on_real, torch.ones_like(on_real)) + _log_loss(on_fake, torch.zeros_like(on_fake))
        value.backward()  # type: ignore[no-untyped-call]
        of_discriminator.step()

        discriminator.requires_grad_(False)
        of_generator.zero_grad()
        judged = discriminator(fake)
        self.value = _log_loss(judged, torch.ones_like(judged))
        self.value.backward()  # type: ignore[no-untyped-call]
        of_generator.step()
        discriminator.requires_grad_(True)

    def synchronize(self) -> None:
        """Wait for the device."""
        synchronize(self.device)

    # --- out

    def parameters(self) -> list[AnyArray]:
        """NumPy copies, in the problem's order and shapes."""
        return self._out(self._parameters())

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``, of the last step or backward phase."""
        return self._out([p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters()])

    def _out(self, tensors: Sequence[torch.Tensor]) -> list[AnyArray]:
        arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
        return [(a.T if turned else a).copy() for a, turned in zip(arrays, transposed(self.objective), strict=True)]

    def loss_value(self) -> float:
        """The loss last computed: of the last stage."""
        return float(self.value.item())
