"""A baton between two processes, so that their training steps take turns on one machine.

Each side has a FIFO of its own. A side holds the baton during one optimizer step, gives it away at
the end of the step, and waits for it before the next: drift of the machine hits both alike.
"""

import json
import os
import time
from pathlib import Path

from transformers import TrainerCallback


class Baton(TrainerCallback):
    """Takes turns with the other side; keeps each step's seconds, from baton to baton."""

    def __init__(self, mine: Path, other: Path, *, first: bool) -> None:
        self._mine = os.open(mine, os.O_RDWR)  # read and write: opening doesn't wait for the other
        self._other = os.open(other, os.O_RDWR)
        self._first = first
        self._began = 0.0
        self.seconds: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs):
        if not self._first:
            os.read(self._mine, 1)
        self._began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self._began)
        os.write(self._other, b".")
        if state.global_step < state.max_steps:
            os.read(self._mine, 1)
        self._began = time.perf_counter()

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(self.seconds))
