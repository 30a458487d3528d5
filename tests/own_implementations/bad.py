"""Users' implementations that are wrong in different ways."""

import os
import signal
import sys
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


class NoMethods:
    def __init__(self, problem, device="cpu", dtype="float32", threads=1):
        pass

    def step(self):
        pass
