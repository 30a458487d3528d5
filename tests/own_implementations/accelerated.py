"""A user's own implementation that brings its batch along, or finds no memory: it imports nothing of ours."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from good import Linear


class Moves(Linear):
    """With a transfer, which on the CPU is a copy."""

    pins = True

    def __init__(self, problem, device="cpu", dtype="float32", threads=1):
        super().__init__(problem, device, dtype, threads)
        self.host = self.x.copy(), self.t.copy()
        self.x[:], self.t[:] = 0, 0  # what is not brought is not there

    def step(self):
        if not self.x.any():
            self.transfer(False)
        super().step()

    def transfer(self, pinned):
        self.x[:], self.t[:] = self.host


class OutOfMemoryError(RuntimeError):
    """As torch's."""


class Starved(Linear):
    """No memory for 128 examples when they are prepared, nor for 32 when they are timed."""

    def __init__(self, problem, device="cpu", dtype="float32", threads=1):
        super().__init__(problem, device, dtype, threads)
        if len(self.x) == 128:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        self.steps = 0

    def step(self):
        self.steps += 1
        if len(self.x) == 32 and self.steps > 3:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 21474836480 bytes.")
        super().step()
