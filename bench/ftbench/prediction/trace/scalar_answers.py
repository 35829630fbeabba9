"""The values that `.item()` returns for tensors without data."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.batch_values import BatchValues
from ftbench.prediction.trace.source_line import source_line

_ALL = (torch.ops.aten.all.default, torch.ops.aten.all.dim)
# Asked by torch.distributions of its arguments, and by assertions: all is as it should be.
_VALID = torch.ops.aten._is_all_true.default
_EQUAL = torch.ops.aten.eq.Scalar
_UNSCALE = torch.ops.aten._amp_foreach_non_finite_check_and_unscale_.default


class Answers:
    """The values that training loops and models get when they read a tensor."""

    def __init__(self, values: BatchValues, *, padding: bool) -> None:
        """Make answers for batches with or without padding."""
        self._values = values
        self._padding = padding
        self._questions: set[int] = set()  # storages that say whether every token is real
        self._valid: set[int] = set()  # storages that say whether values are as they should be
        self._overflows: set[int] = set()  # storages that say whether a gradient is infinite

    def note(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Remember a result whose value is read later."""
        if func is _UNSCALE:
            self._overflows.add(args[1].untyped_storage()._cdata)
        if func is _VALID:
            self._valid.add(output.untyped_storage()._cdata)
        if func in _ALL or (
            func is _EQUAL and not args[0].dim() and not args[0].is_floating_point()
        ):
            self._questions.add(output.untyped_storage()._cdata)

    def forget(self, storage: int) -> None:
        """Forget a storage's number, which another storage has now."""
        self._questions.discard(storage)
        self._valid.discard(storage)
        self._overflows.discard(storage)

    def of(self, scalar: torch.Tensor, *, in_model: bool = False) -> Any:
        """Return a scalar's value: that of every batch, if it follows from the batch alone.

        Else False, so that nothing is NaN; 0; 1.0, since Adam divides by 1 - beta ** step. For a tensor without
        known values, whether all tokens are real follows from the target's `padding`. A model (`in_model`) is not
        told a number that other batches would answer differently, or that is computed from weights: that raises
        PredictionError.
        """
        answers = self._values.numbers(scalar)
        if len(answers) == 1:
            return answers.pop()
        if _counts(scalar) and (number := getattr(scalar, "constant", None)) is not None:
            with _disable_current_modes():
                return number.item()  # of Python numbers alone, which torch computes itself
        if in_model and (answers or (self._values.known and _counts(scalar))):
            raise PredictionError(
                "the model reads a number that depends on "
                + ("the content of a batch" if answers else "computed values"),
                where="aten._local_scalar_dense.default",
                got=source_line(),
                hint="only steps whose tensors have the same sizes for any data can be traced",
            )
        if scalar.dtype is torch.bool:
            storage = scalar.untyped_storage()._cdata
            return storage in self._valid or (storage in self._questions and not self._padding)
        if scalar.untyped_storage()._cdata in self._overflows:
            return 0.0  # GradScaler takes the optimizer's step
        return 1.0 if scalar.is_floating_point() else 0


def _counts(scalar: torch.Tensor) -> bool:
    return scalar.dtype is not torch.bool and not scalar.is_floating_point()
