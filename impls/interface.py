"""Types every implementation shares: the network as data, the problem as data, and the protocol.  No code runs here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from backprop_files import USUAL_OPTIMIZER

Array = NDArray[np.float64]
AnyArray = NDArray[Any]
Phase = Literal["step", "forward", "loss", "backward", "update"]

#: The four phases of a step, in order.
PHASES: tuple[Phase, ...] = ("forward", "loss", "backward", "update")
#: Phases of their own, beside a step: the batch from pageable and from pinned host memory to the device (``Transfers``).
TRANSFERS = ("transfer", "transfer-pinned")


@dataclass(frozen=True)
class Network:
    """A fully connected network as data, so that every library builds the same thing from it.

    ``layers`` are the units of every layer, input first: ``(64, 128, 10)``.  Hidden layers have ``activation``;
    the output layer is linear and ``loss`` (``mse`` or ``cross_entropy``, which holds the softmax) is put on it.
    """

    layers: tuple[int, ...]
    activation: str = "tanh"
    loss: str = "mse"

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Shape ``(fan_in, fan_out)`` of every weight matrix."""
        return tuple(zip(self.layers, self.layers[1:], strict=False))

    @property
    def weights(self) -> int:
        """Weights without biases: one multiply-add each per example in a forward pass."""
        return sum(fan_in * fan_out for fan_in, fan_out in self.shapes)

    @property
    def m(self) -> int:
        """Weights and biases."""
        return self.weights + sum(self.layers[1:])

    @property
    def u(self) -> int:
        """Units that have an activation, all layers together."""
        return sum(self.layers[1:-1])

    @property
    def width(self) -> int:
        """Units of the widest hidden layer; 0 where there is none."""
        return max(self.layers[1:-1], default=0)

    @property
    def depth(self) -> int:
        """Number of weight layers."""
        return len(self.layers) - 1


@dataclass(frozen=True, eq=False)
class Problem:
    """One seeded problem: a network, its starting parameters and one batch, all float64.

    ``inputs`` is (n, layers[0]); ``targets`` is (n, layers[-1]), one-hot rows for cross entropy; ``parameters`` is
    ``(W1, b1, W2, b2, …)`` with ``W`` of shape (fan_in, fan_out), so that ``z = x W + b``.  ``optimizer`` is a name of
    ``impls.optimizers``; its state starts afresh with the problem.
    """

    network: Network
    inputs: Array
    targets: Array
    parameters: tuple[Array, ...]
    learning_rate: float
    optimizer: str = USUAL_OPTIMIZER

    @property
    def n(self) -> int:
        """Training examples in one step."""
        return len(self.inputs)


class Backprop(Protocol):
    """One prepared problem on one device; parameters, batch and workspace are in place.

    Built as ``Class(problem, device=..., dtype=..., threads=...)``: the constructor casts, moves and synchronises,
    untimed.  Phases may be asynchronous; only the harness calls ``synchronize``, inside the timed region.
    ``gradients`` and the single phases may be left out by an implementation that can only do whole steps;
    ``peak_bytes`` may be added (``TellsMemory``), and ``transfer`` (``Transfers``).
    """

    def forward(self) -> object: ...
    def loss(self) -> object: ...
    def backward(self) -> object: ...
    def update(self) -> object: ...

    def step(self) -> object:
        """Do the four together, the way a user of that library would write it for speed."""

    def synchronize(self) -> object:
        """Return when all work handed out so far is done."""

    def parameters(self) -> list[AnyArray]:
        """NumPy copies in the order and the shapes of ``Problem.parameters``."""

    def gradients(self) -> list[AnyArray]:
        """NumPy copies, as ``parameters``."""

    def loss_value(self) -> float:
        """The loss that the last ``loss`` or ``step`` computed, before its update."""


@runtime_checkable
class TellsMemory(Protocol):
    """What an implementation adds whose memory no allocator of Python, NumPy or torch hands out."""

    def peak_bytes(self) -> int | None:
        """Bytes that the library itself says a step needs at its peak, all that the problem holds included; None if it
        does not say.  Asked after a step, which it must not undo or repeat.
        """


@runtime_checkable
class Transfers(Protocol):
    """What an implementation adds that can bring its batch from host memory to the device again."""

    pins: bool  # whether the library offers pinned (page-locked) host memory

    def transfer(self, pinned: bool) -> object:
        """Copy inputs and targets from host memory to where the next step reads them; may be asynchronous.

        The copies in host memory are made at the first call, of either kind, which is not to be timed.  On the CPU, host
        and device memory are the same: a plain copy, ``pinned`` or not.
        """


@runtime_checkable
class Trains(Protocol):
    """What an implementation adds that can go through the problem's examples in batches."""

    def epoch(self, order: NDArray[np.intp], batch: int) -> object:
        """Take one step for each ``batch`` examples in this ``order`` (indices of rows); the last takes what is left.

        Losses and gradients are means over the examples of a batch, as those of a step are.  What ``loss_value`` tells
        afterwards is the library's own affair.
        """

    def synchronize(self) -> object:
        """As of ``Backprop``."""

    def parameters(self) -> list[AnyArray]:
        """As of ``Backprop``."""


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a data-parallel implementation find each other, and what this one may listen on."""

    rank: int
    ranks: int  # processes in all
    place: str  # a file that all can reach, or the HOST:PORT on which process 0 waits for the others
    address: str = "127.0.0.1"  # this process's own, to which its sockets are bound
    interface: str = "lo"  # the network interface that has it


@runtime_checkable
class DataParallel(Protocol):
    """What an implementation adds whose ranks share the rows of one batch: every rank keeps all parameters, computes the
    gradients of its own rows, and all-reduces them before its update.

    Every rank is built on the same, whole problem.  Loss and gradients are those of the mean over all its rows, however
    they are split; ``gradients``, ``parameters`` and ``loss_value`` tell these on every rank.  All methods but ``alone``'s
    are collective: they return when every rank has called them.
    """

    rank: int  # of this process
    ranks: int  # that share the rows: processes, or all devices of all processes

    @classmethod
    def join(cls, meeting: Meeting) -> object:
        """Meet the other processes, before any instance is built.  A process that joins nobody is a rank alone."""

    @classmethod
    def leave(cls) -> object:
        """Part, once all are done; the process is to end then."""

    def step_in_turn(self) -> object:
        """The same step, but nothing is sent before all gradients are computed: then they are all-reduced at one go."""

    def step_alone(self) -> object:
        """The same step on the rank's own share, and nothing is sent.

        Parameters of the ranks drift apart: an instance that has stepped alone is good for nothing else.
        """

    def messages(self) -> int:
        """All-reduces that a step makes, once it has been taken a few times: a library may send its gradients in pieces."""

    def all_reduce(self, size_bytes: int) -> Callable[[], object]:
        """A call that sums a buffer of so many bytes over all ranks, the way gradients are; ``synchronize`` waits for it."""

    def gather(self, numbers: Sequence[float]) -> Array:
        """What every process has to say, on every one of them: (processes, len(numbers))."""
