"""The position of a trace: the current phase, step and module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ftbench.prediction.trace.autograd import in_backward
from ftbench.prediction.trace.events import (
    AFTER_BACKWARD,
    BACKWARD,
    EVALUATION,
    FORWARD,
    SETUP,
    Site,
)
from ftbench.prediction.trace.module_path import ModulePath


class Position:
    """The phase, the step and the module of the next event."""

    def __init__(self) -> None:
        self.phase = SETUP
        self.step = 0
        self._modules = ModulePath()
        self._part: tuple[str, str | None] | None = None  # an operator, and a module if it is known
        self._after_forward = FORWARD  # the phase that follows the model's forward

    @property
    def period(self) -> int | str:
        """Return the number of the current step, or `EVALUATION`."""
        return EVALUATION if self.phase == EVALUATION else self.step

    @property
    def in_model(self) -> bool:
        """Return whether a module's forward is running."""
        return self._modules.running

    def site(self, func: Any = None) -> Site:
        """Return the site of an operator, or of an event without an operator."""
        module: str | None = None
        operator = "" if func is None else str(func._schema.name)
        if self._part is not None:
            operator, module = self._part
        if in_backward():
            self._after_forward = AFTER_BACKWARD
            inner = self._modules.of_backward() if module is None else module
            return Site(BACKWARD, self.step, inner, operator)
        forward = self.phase == FORWARD and not self._modules.running
        phase = self._after_forward if forward else self.phase
        return Site(phase, self.step, self._modules.current if module is None else module, operator)

    @contextlib.contextmanager
    def part(self, operator: str, module: str | None) -> Iterator[None]:
        """Name the sites of events in the body: an operator of our own, and its module unless that is None."""
        before, self._part = self._part, (operator, module)
        try:
            yield
        finally:
            self._part = before

    def enter(self, module: torch.nn.Module) -> bool:
        """Record the beginning of a module's forward; return whether it is the model's, outside of backward."""
        begins = self._modules.enter(module) and not in_backward()
        if begins:
            self.phase = FORWARD if torch.is_grad_enabled() else EVALUATION
            self._after_forward = FORWARD
        return begins

    def leave(self) -> None:
        """Record the end of the innermost module's forward."""
        self._modules.leave()
