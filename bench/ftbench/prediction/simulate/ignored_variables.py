"""Variables of the environment that change a real run's allocator or workspaces, and no prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping

_ALLOCATOR = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
)
_WORKSPACES = ("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE")


def ignored_variables(environment: Mapping[str, str] = os.environ) -> str:
    """Return in a sentence which variables are set and have no effect on a prediction; empty if none is."""
    found = [name for name in (*_ALLOCATOR, *_WORKSPACES) if environment.get(name)]
    if not found:
        return ""
    is_are = "is" if len(found) == 1 else "are"
    return (
        f"{', '.join(found)} {is_are} set and ignored: predictions are of the allocator and the workspaces that"
        " torch has by default"
    )
