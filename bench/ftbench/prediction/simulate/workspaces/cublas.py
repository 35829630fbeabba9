"""Workspaces of cuBLAS and cuBLASLt: products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ftbench.base.units import KIB, MIB
from ftbench.prediction.simulate.workspaces.allocator_steps import Steps, Version, allocate


def cublas_workspace_bytes(
    compute_capability: tuple[int, int], torch_version: Version = (2, 13)
) -> int:
    """Return the bytes of one cuBLAS workspace (cuda/CublasHandlePool.cpp parseChosenWorkspaceSize).

    There is one for each (handle, stream), and a handle belongs to a host thread: a training step has
    one for the forward thread and one for the autograd thread. It is allocated at that thread's first
    product, after the product's output, and stays. 32 MiB on Hopper, and from 2.12 on Blackwell
    (#175344, merged while 2.11 was being cut: 2.11 may have it); elsewhere `:4096:2:16:8`.
    """
    major = compute_capability[0]
    if compute_capability == (9, 0) or (torch_version >= (2, 12) and major in (9, 10, 12)):
        return 32 * MIB
    return 2 * 4096 * KIB + 8 * 16 * KIB


LtLifetime = Literal["call", "handle", "shared"]


def cublaslt_lifetime(torch_version: Version) -> LtLifetime:
    """Return how long a cuBLASLt workspace lives: one call, as long as its handle, or it is cuBLAS's.

    `call` to 2.8: cuda/CUDABlas.cpp gemm_and_bias allocates it and frees it on return, before it asks
    for the cuBLAS handle (so before the workspace of that one, where it is the thread's first).
    `handle` from 2.9 (#156495): one for each (handle, stream), made after the cuBLAS workspace.
    `shared` from 2.12 (#175879): the default TORCH_CUBLASLT_UNIFIED_WORKSPACE came into effect, and
    cuBLASLt uses the workspace of cuBLAS. (#168175 in 2.11 changed the size alone.) Builds after 2.13
    may not keep workspaces at all (TORCH_CUBLAS_WORKSPACE_CACHE): unknown here.
    """
    if torch_version < (2, 9):
        return "call"
    return "handle" if torch_version < (2, 12) else "shared"


def cublaslt_workspace_bytes(compute_capability: tuple[int, int], torch_version: Version) -> int:
    """Return the bytes of a cuBLASLt workspace of its own; 0 where it shares that of cuBLAS.

    1 MiB on every card (cuda/CUDABlas.cpp _parseChosenWorkspaceSize to 2.8, then
    cuda/CublasHandlePool.cpp parseCUDABlasLtWorkspaceSize). The larger ones of #120925 (2024) were
    taken back.
    """
    del compute_capability  # no version from 2.6 on looks at it, except by way of cuBLAS's
    return 0 if cublaslt_lifetime(torch_version) == "shared" else 1 * MIB


def uses_cublaslt(
    rows: int, inner: int, columns: int, *, vector_bias: bool, torch_version: Version = (2, 13)
) -> bool:
    """Return whether `addmm(bias, (rows, inner), (inner, columns))` goes through cuBLASLt.

    native/cuda/Blas.cpp, addmm_out_cuda_impl (2.6: `useLtInterface`) and isInputCompliesAddmmCudaLt
    (from 2.10, #163955): out of place, beta 1, a contiguous bias of one dimension that is as long as
    the result is wide, a contiguous result, a float type (64, 32 or 16 bits), and more than one row
    and column in the second matrix; the later one asks that of the first matrix too. A plain product
    (mm, bmm, baddbmm) never does. The case of a fused activation (_addmm_activation) is left out.
    From 2.12 on nothing depends on it here (`cublaslt_lifetime`).
    """
    if not vector_bias or inner <= 1 or columns <= 1:
        return False
    return rows > 1 or torch_version < (2, 10)


def copies_for_cublas(elements: Sequence[int], element_bytes: int) -> tuple[Steps, tuple[str, ...]]:
    """Return the copies that a product makes of its matrices before it asks for a handle, and their names.

    They are given back when it returns. `elements` are those of each copy, 0 for a matrix that is read as it is.
    """
    made = {
        name: count * element_bytes
        for name, count in zip(("left", "right"), elements, strict=False)
        if count
    }
    return tuple(allocate(name, nbytes) for name, nbytes in made.items()), tuple(made)
