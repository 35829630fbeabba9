"""Failures: a worker's answer after an error, with the status of the error."""

from __future__ import annotations

import errno
import traceback
from typing import Any

import torch

from ftbench.records.readings import PhaseName
from ftbench.records.record import Failure, Status

# In lower case: messages of torch's allocators, cuBLAS, cuDNN and the kernel.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "_status_alloc_failed",
)


def failure_answer(
    error: BaseException, *, phase: PhaseName | None, step: int | None
) -> dict[str, Any]:
    """Return the answer of a worker that failed, as JSON data; the traceback goes to its log."""
    traceback.print_exception(error)
    failure = Failure(message=f"{type(error).__name__}: {error}", phase=phase, step=step)
    return {"status": status_of(error), "failure": failure.model_dump(mode="json")}


def status_of(error: BaseException) -> Status:
    """Return `oom` if an error means that memory ran out, `crashed` for any other error.

    The causes of an error count as well, such as lack of memory while a model was loaded.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_lack_of_memory(cause):
            return "oom"
        cause = cause.__cause__ or cause.__context__
    return "crashed"


def _is_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in message for text in _OUT_OF_MEMORY)
