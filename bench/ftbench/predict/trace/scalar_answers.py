"""The values that `.item()` returns for tensors without data."""

from __future__ import annotations

from typing import Any

import torch

_ALL = (torch.ops.aten.all.default, torch.ops.aten.all.dim)
_EQUAL = torch.ops.aten.eq.Scalar
_UNSCALE = torch.ops.aten._amp_foreach_non_finite_check_and_unscale_.default


class Answers:
    """The values that training loops and models get when they read a tensor."""

    def __init__(self, *, padding: bool) -> None:
        """Make answers for batches with or without padding."""
        self._padding = padding
        self._questions: set[int] = set()  # storages that say whether every token is real
        self._overflows: set[int] = set()  # storages that say whether a gradient is infinite

    def note(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Remember a result whose value is read later."""
        if func is _UNSCALE:
            self._overflows.add(args[1].untyped_storage()._cdata)
        if func in _ALL or (
            func is _EQUAL and not args[0].dim() and not args[0].is_floating_point()
        ):
            self._questions.add(output.untyped_storage()._cdata)

    def forget(self, storage: int) -> None:
        """Forget a storage's number, which another storage has now."""
        self._questions.discard(storage)
        self._overflows.discard(storage)

    def of(self, scalar: torch.Tensor) -> Any:
        """Return a scalar's value: False, so that nothing is NaN; 0; 1.0, since Adam divides by 1 - beta ** step.

        Whether all tokens are real follows from the target's `padding`.
        """
        if scalar.dtype is torch.bool:
            asked = scalar.untyped_storage()._cdata in self._questions
            return asked and not self._padding
        if scalar.untyped_storage()._cdata in self._overflows:
            return 0.0  # GradScaler takes the optimizer's step
        return 1.0 if scalar.is_floating_point() else 0
