"""Where a trace is: the phase, the step and the module that what is seen belongs to."""

from __future__ import annotations

from typing import Any

import torch

from ftbench.predict.trace.autograd import in_backward
from ftbench.predict.trace.events import (
    AFTER_BACKWARD,
    BACKWARD,
    EVALUATION,
    FORWARD,
    SETUP,
    Site,
)
from ftbench.predict.trace.module_path import ModulePath


class Position:
    """The phase, the step and the module of what happens next."""

    def __init__(self) -> None:
        self.phase = SETUP
        self.step = 0
        self._modules = ModulePath()
        self._after_forward = FORWARD  # what follows the model's forward, outside of it

    @property
    def period(self) -> int | str:
        """Return the step that runs, or `EVALUATION`."""
        return EVALUATION if self.phase == EVALUATION else self.step

    def site(self, func: Any = None) -> Site:
        """Return the site of an operator, or of what no operator does."""
        operator = "" if func is None else str(func._schema.name)
        if in_backward():
            self._after_forward = AFTER_BACKWARD
            return Site(BACKWARD, self.step, self._modules.of_backward(), operator)
        forward = self.phase == FORWARD and not self._modules.running
        phase = self._after_forward if forward else self.phase
        return Site(phase, self.step, self._modules.current, operator)

    def enter(self, module: torch.nn.Module) -> bool:
        """Note that a module's forward begins; returns whether it is the model's, outside of backward."""
        begins = self._modules.enter(module) and not in_backward()
        if begins:
            self.phase = FORWARD if torch.is_grad_enabled() else EVALUATION
            self._after_forward = FORWARD
        return begins

    def leave(self) -> None:
        """Note that the innermost module's forward ended."""
        self._modules.leave()
