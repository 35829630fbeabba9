"""The module of the model in which an operator runs."""

from __future__ import annotations

from bisect import bisect_right

import torch

from ftbench.prediction.trace import patches
from ftbench.prediction.trace.autograd import in_backward


class ModulePath:
    """The module in which an operator runs; in the backward pass, the module of the forward operator."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._stack: list[str] = []
        # The autograd sequence numbers from which on each entry of `_path` was the current module.
        self._since: list[int] = []
        self._path: list[str] = []

    @property
    def running(self) -> bool:
        """Return whether a module's forward is running."""
        return bool(self._stack)

    @property
    def current(self) -> str:
        """Return the path of the innermost running module; empty outside of modules and for the root."""
        return self._stack[-1] if self._stack else ""

    def enter(self, module: torch.nn.Module) -> bool:
        """Record the beginning of a module's forward; return whether it is the outermost."""
        outermost = not self._stack
        if outermost and (not in_backward() or id(module) not in self._names):
            self._names = {id(part): name for name, part in module.named_modules()}
        self._stack.append(self._names.get(id(module), self.current))
        self._note()
        return outermost

    def leave(self) -> None:
        """Record the end of the innermost module's forward."""
        if self._stack:
            self._stack.pop()
        self._note()

    def _note(self) -> None:
        number = _sequence_number()
        if self._since and number < self._since[-1]:  # the number of another thread
            return
        self._since.append(number)
        self._path.append(self.current)

    def of_backward(self) -> str:
        """Return the path of the module whose forward made autograd's current node."""
        if self._stack:  # a checkpointed block is being recomputed
            return self.current
        node = torch._C._current_autograd_node()
        if node is None or not self._since:
            return ""
        place = bisect_right(self._since, node._sequence_nr()) - 1
        return self._path[place] if place >= 0 else ""


def _sequence_number() -> int:
    """Return the sequence number of the next node in autograd's graph."""
    number: int = patches.require(torch.autograd, "_get_sequence_nr")()
    return number
