"""Failures: what a worker answers after an error, and which status the error stands for."""

from __future__ import annotations

import errno
import traceback
from typing import Any

import torch

from ftbench.records.record import Failure, PhaseName, Status

# In lower case, as torch's allocators, cuBLAS and cuDNN, and the kernel say it.
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
    """Return `oom` for the ways in which memory runs out, `crashed` for anything else.

    What an error was raised from counts too: a model that can't be loaded for lack of memory.
    """
    found: BaseException | None = error
    while found is not None:
        if _is_lack_of_memory(found):
            return "oom"
        found = found.__cause__ or found.__context__
    return "crashed"


def _is_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in said for text in _OUT_OF_MEMORY)
