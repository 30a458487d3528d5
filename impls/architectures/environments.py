"""A small environment with Gymnasium's interface, for the workloads that learn from rewards.

This file needs Gymnasium; nothing else of the package does, and nothing imports this file before it is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backprop_files import UserError

try:
    import gymnasium
    from gymnasium import spaces
except ModuleNotFoundError as error:
    line = "pip install -c constraints.txt -e '.[environments]'"
    raise UserError(f"gymnasium not installed, which environments need: {line}") from error

Board = NDArray[np.float32]


class Catch(gymnasium.Env[Board, np.int64]):
    """A ball falls down a board, a row each step; the paddle on the last row moves left, stays or moves right under it.

    The board is seen as ``rows · columns`` numbers, row by row: 1 where the ball and the paddle are, else 0.  The episode ends
    as the ball reaches the last row, with a reward of 1 if it is caught and -1 if not; every other reward is 0.  So a
    reward comes ``rows - 1`` steps after the first move that mattered (Osband et al. 2020, bsuite's ``catch``).
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, rows: int = 10, columns: int = 5) -> None:
        if rows < 2 or columns < 2:
            raise UserError(f"Catch of {rows} rows and {columns} columns: give 2 or more of both")
        self.rows, self.columns = rows, columns
        self.observation_space = spaces.Box(0.0, 1.0, (rows * columns,), np.float32)
        self.action_space = spaces.Discrete(3)
        self._row = rows  # no episode has begun
        self._ball = self._paddle = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Board, dict[str, Any]]:
        """A ball above a column drawn at random, the paddle in the middle."""
        super().reset(seed=seed)
        self._row, self._ball = 0, int(self.np_random.integers(self.columns))
        self._paddle = self.columns // 2
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[Board, float, bool, bool, dict[str, Any]]:
        """Move the paddle by -1, 0 or 1, within the board, and let the ball fall.  An episode that ended must be reset."""
        if self._row >= self.rows - 1:
            raise gymnasium.error.ResetNeeded("the ball is down: call reset() first")
        if action not in (0, 1, 2):
            raise gymnasium.error.InvalidAction(f"action {action}: give 0 (left), 1 (stay) or 2 (right)")
        self._paddle = min(max(self._paddle + int(action) - 1, 0), self.columns - 1)
        self._row += 1
        down = self._row == self.rows - 1
        reward = (1.0 if self._paddle == self._ball else -1.0) if down else 0.0
        return self._seen(), reward, down, False, {}

    def _seen(self) -> Board:
        board = np.zeros((self.rows, self.columns), np.float32)
        board[self._row, self._ball] = board[-1, self._paddle] = 1.0
        return board.ravel()
