"""The eager step captured as a CUDA graph: one launch replays all kernels of forward, loss, backward and optimizer.

Source: Ng et al. (2021), "Accelerating PyTorch with CUDA Graphs"; https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import torch

from backprop_files import UserError
from impls import optimizers
from impls.interface import AnyArray, Problem
from impls.torch_device import FixedScaler, load, resolve
from impls.torch_nn import TorchNN

#: Steps before the capture: libraries choose their kernels and allocate their workspaces, optimizers their states.
WARM_UPS = 3


def make_capturable(eager: TorchNN) -> None:
    """Nothing in a step then asks the device anything: counts of steps lie on the device too, and the scale is fixed.

    To be called before the first step.
    """
    for group in eager.optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    if isinstance(eager.scaler, torch.amp.GradScaler) and eager.scaler.is_enabled():
        eager.scaler = FixedScaler(eager.scaler.get_scale())


def rewind(eager: TorchNN, problem: Problem) -> None:
    """Parameters and the optimizer's states as before the first step, where they lie.

    Counts of steps are made anew: torch keeps them in float32, in which Adam's 1 - β2^t is off by 6e-5 at first; where
    parameters are in float64 so are they.
    """
    load(eager.model, problem)
    counting = torch.float64 if eager.precision.stored is torch.float64 else torch.float32
    starts = optimizers.find(problem.optimizer).starts
    for state in eager.optimizer.state.values():
        if "step" in state:
            state["step"] = torch.zeros_like(state["step"], dtype=counting)
        kept = [tensor for name, tensor in state.items() if name != "step" and tensor is not None]
        for tensor, start in zip(kept, starts, strict=True):
            tensor.fill_(start)


class TorchGraph:
    """Whole steps alone, on a CUDA device alone; inputs and targets stay in the buffers that the capture has seen.

    Cost: one copy of all activations and gradients in the graph's own pool, held as long as the graph.
    """

    pins = True

    def __init__(self, problem: Problem, device: str = "cuda", dtype: str = "float32", threads: int = 1) -> None:
        self.device = resolve(device, threads)
        if self.device.type != "cuda":
            raise UserError(f"torch-graph captures a CUDA graph: it has no device '{device}'")
        self._held_before = torch.cuda.memory_allocated(self.device)
        self._eager = TorchNN(problem, device, dtype, threads)
        make_capturable(self._eager)
        with torch.cuda.device(self.device):
            stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._warm_up(stream)
            rewind(self._eager, problem)
            self._graph, self._peak = self._captured(stream)
        self.synchronize()

    def _warm_up(self, stream: torch.cuda.Stream) -> None:
        """Some steps beside the default stream, as a capture wants them."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._eager.step()
        torch.cuda.current_stream().wait_stream(stream)
        self._eager.optimizer.zero_grad()  # the capture's gradients come to lie in the graph's own pool
        del self._eager.value  # and nothing of the warm-up's autograd graph lives on in it

    def _captured(self, stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, int]:
        """The step as a graph, which has not run yet, and the bytes allocated at its peak."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._eager.step()
        return graph, torch.cuda.max_memory_allocated()

    def step(self) -> None:
        """One replay."""
        self._graph.replay()

    def transfer(self, pinned: bool) -> None:
        """Into the buffers that the graph reads."""
        self._eager.transfer(pinned)

    def synchronize(self) -> None:
        """Wait for the device."""
        self._eager.synchronize()

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return self._eager.parameters()

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``: those of the last step."""
        return self._eager.gradients()

    def loss_value(self) -> float:
        """The loss last computed."""
        return self._eager.loss_value()

    def peak_bytes(self) -> int | None:
        """What a step needs at its peak: as the graph was captured, since a replay allocates nothing."""
        return self._peak - self._held_before
