"""What autograd kept in older versions of torch, in a trace by the installed one."""

from __future__ import annotations

import weakref
from typing import Any

import torch

aten = torch.ops.aten

# pytorch/pytorch#65242: from 1.11 on, the gradient of a softmax needs its result only.
INPUT_KEPT_BEFORE = (1, 11)
_SOFTMAXES = frozenset({aten._softmax.default, aten._log_softmax.default})


class KeptInputs:
    """Keeps the inputs of softmax as long as their results, as autograd did before 1.11."""

    def __init__(self, assumed: tuple[int, int] | None) -> None:
        """Keep nothing for a version that does not."""
        self._keeps = assumed is not None and assumed < INPUT_KEPT_BEFORE
        self._inputs: dict[int, tuple[Any, weakref.ref[Any]]] = {}

    def note(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Keep the input of an operator that has just run, if autograd would."""
        if not (self._keeps and func in _SOFTMAXES and torch.is_grad_enabled()):
            return
        storage = output.untyped_storage()
        key = storage._cdata
        self._inputs[key] = (args[0], weakref.ref(storage, lambda _: self._inputs.pop(key, None)))
