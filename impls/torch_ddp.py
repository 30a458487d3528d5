"""PyTorch's ``DistributedDataParallel``: each rank has its rows, gradients are averaged while backward still goes on.

On CPUs ranks talk by gloo, on CUDA devices by NCCL (a device a rank; that path was not run on several devices yet).  A
process that torchrun did not start, and that joined nobody, is a group of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import FileStore, HashStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from impls import gloo
from impls.interface import AnyArray, Array, Meeting, Problem
from impls.shares import share
from impls.torch_device import (
    load,
    optimizer_of,
    plain_precision,
    resolve,
    sequential,
    synchronize,
    to_numpy,
)

#: A rank that waits for another gives up after so long; whoever launched it gives up before.
PATIENCE = timedelta(minutes=30)


def _backends() -> str:
    """By the device that a tensor is on."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def _be_in_a_group() -> None:
    """The group that was joined, torchrun's, or one of this process alone."""
    if dist.is_initialized():
        return
    if dist.is_torchelastic_launched():
        dist.init_process_group(_backends(), timeout=PATIENCE)
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo listens even if nobody is to call
    dist.init_process_group(_backends(), store=HashStore(), rank=0, world_size=1)


def _own(device: str) -> str:
    """A CUDA device for each of a machine's ranks, as torchrun counts them, unless one is named."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


class TorchDDP:
    """Eager PyTorch, data parallel."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self.device = resolve(_own(device), threads)
        self.precision = plain_precision(dtype, self.device, "torch-ddp")
        _be_in_a_group()
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        model = sequential(problem.network).to(device=self.device, dtype=self.precision.stored)
        load(model, problem)
        self.model = DistributedDataParallel(model, init_sync=False)  # every rank has loaded the same problem
        rows = share(problem.n, self.ranks, self.rank)
        self.inputs = self._placed(problem.inputs[rows])
        self.targets, self.criterion = self._targets(problem, rows)
        # DDP averages over ranks, whatever rows each has: k Σ_own / N averages to Σ_all / N
        self.factor = self.ranks / (problem.n if problem.network.loss == "cross_entropy" else problem.targets.size)
        self.optimizer = optimizer_of(problem, self.model.parameters())
        self.flat = torch.zeros(problem.network.m, device=self.device, dtype=self.precision.stored)
        self.pieces = _pieces(self.flat, list(self.model.parameters()))
        self.value = torch.tensor(torch.nan, device=self.device, dtype=self.precision.stored)
        self.synchronize()

    def _placed(self, array: Array) -> torch.Tensor:
        return torch.tensor(array, device=self.device, dtype=self.precision.stored)

    def _targets(self, problem: Problem, rows: slice) -> tuple[torch.Tensor, nn.Module]:
        """Those of the rank's own rows, and the sum of losses over them."""
        if problem.network.loss == "cross_entropy":
            classes = torch.tensor(problem.targets[rows].argmax(axis=1), device=self.device)
            return classes, nn.CrossEntropyLoss(reduction="sum")
        return self._placed(problem.targets[rows]), nn.MSELoss(reduction="sum")

    @classmethod
    def join(cls, meeting: Meeting) -> None:
        """Meet in a file, which listens nowhere; gloo's own sockets are bound to the meeting's interface."""
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = meeting.interface
        store = FileStore(meeting.place, meeting.ranks)
        dist.init_process_group(_backends(), store=store, rank=meeting.rank, world_size=meeting.ranks, timeout=PATIENCE)
        gloo.let_others_first(gloo.named())

    @classmethod
    def leave(cls) -> None:
        """When all are here.  The group ends with the process: to take gloo's apart while its threads run aborts now and
        then ("terminate called without an active exception").
        """
        dist.barrier()

    def forward(self) -> None:
        """The model's outputs for the rank's own rows."""
        self.precision.settle()
        self.outputs = self.model(self.inputs)

    def loss(self) -> None:
        """The rank's share of the loss, k times: DDP averages."""
        self.value = self.criterion(self.outputs, self.targets) * self.factor

    def backward(self) -> None:
        """Autograd, into fresh gradients; DDP all-reduces each bucket of them as soon as it is full."""
        self.precision.settle()
        self.optimizer.zero_grad()
        self.value.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """The optimizer's ``step``, the same on every rank."""
        self.optimizer.step()

    def step(self) -> None:
        """The training loop's body."""
        self.forward()
        self.loss()
        self.backward()
        self.update()

    def step_in_turn(self) -> None:
        """Backward under ``no_sync``; then all gradients are averaged as one flat tensor."""
        gradients = self._own_gradients()
        torch.cat([g.reshape(-1) for g in gradients], out=self.flat)
        dist.all_reduce(self.flat)
        self.flat /= self.ranks
        torch._foreach_copy_(gradients, self.pieces)
        self.update()

    def step_alone(self) -> None:
        """Backward under ``no_sync``, and the update."""
        self._own_gradients()
        self.update()

    def _own_gradients(self) -> list[torch.Tensor]:
        """Of the rank's own rows; nothing is sent."""
        with self.model.no_sync():
            self.forward()
            self.loss()
            self.backward()
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def messages(self) -> int:
        """One a bucket, as DDP fills them since its second step."""
        told = self.model._get_ddp_logging_data()  # type: ignore[no-untyped-call]
        sizes = str(told.get("rebuilt_bucket_sizes") or told["bucket_sizes"])
        return len(sizes.split(","))

    def all_reduce(self, size_bytes: int) -> Callable[[], object]:
        """The sum in place, of zeros, which stay zeros."""
        buffer = torch.zeros(max(1, size_bytes // 4), device=self.device)
        return lambda: dist.all_reduce(buffer)

    def gather(self, numbers: Sequence[float]) -> Array:
        """(ranks, len(numbers))."""
        own = torch.tensor(numbers, device=self.device, dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.ranks)]
        dist.all_gather(every, own)
        found: Array = torch.stack(every).cpu().numpy()
        return found

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
        """The mean over all rows, of what was last computed."""
        return float(self.gather([float(self.value.item()) / self.ranks]).sum())


def _pieces(flat: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Views into a flat tensor, shaped as the parameters."""
    parts = torch.split(flat, [p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
