"""Users' implementations that are wrong in different ways."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from good import Linear


class WrongGradients(Linear):
    def scale(self):
        return 2.02


class Raises(Linear):
    def step(self):
        raise ValueError("no such kernel")


class Killed(Linear):
    """Dies on anything larger than the small problems of the check."""

    def step(self):
        if len(self.x) > 30:
            os.kill(os.getpid(), signal.SIGKILL)
        super().step()


class ReturnsEarly(Linear):
    """A device that works on by itself, and whose synchronize does not wait."""

    pending = None

    def step(self):
        self.wait()
        work = super().step

        def later():
            time.sleep(0.002)
            work()

        self.pending = threading.Thread(target=later)
        self.pending.start()

    def wait(self):
        if self.pending:
            self.pending.join()
            self.pending = None

    def parameters(self):
        self.wait()
        return super().parameters()

    def loss_value(self):
        self.wait()
        return super().loss_value()


class Waits(ReturnsEarly):
    """The same device, rightly waited for."""

    def synchronize(self):
        self.wait()


class NoMethods:
    def __init__(self, problem, device="cpu", dtype="float32", threads=1):
        pass

    def step(self):
        pass
