"""Failures: which status an error in a worker stands for."""

from __future__ import annotations

import torch

from bench.record import Status

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def status_of(error: BaseException) -> Status:
    """Return `oom` for the ways in which memory runs out, `crashed` for anything else."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "oom"
    said = str(error).lower()
    return (
        "oom"
        if isinstance(error, RuntimeError) and any(s in said for s in _OUT_OF_MEMORY)
        else "crashed"
    )
