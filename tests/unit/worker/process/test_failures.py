import errno

import pytest
import torch

from ftbench.base.errors import WorkloadError
from ftbench.worker.process.failures import status_of


def raised_from(cause):
    error = WorkloadError("the model cannot be loaded")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 bytes"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "oom"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom"),
        (raised_from(MemoryError()), "oom"),
        (raised_from(RuntimeError("out of memory")), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "crashed"),
        (RuntimeError("shape mismatch"), "crashed"),
        (ValueError("out of memory"), "crashed"),
        (raised_from(ValueError("x")), "crashed"),
    ],
)
def test_status_of(error, status):
    assert status_of(error) == status
