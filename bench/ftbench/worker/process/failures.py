"""Failures: which status an error in a worker stands for."""

from __future__ import annotations

import errno

import torch

from ftbench.records.record import Status

# In lower case, as torch's allocators, cuBLAS and cuDNN, and the kernel say it.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "_status_alloc_failed",
)


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
