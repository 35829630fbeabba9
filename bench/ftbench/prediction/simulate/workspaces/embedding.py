"""Scratch of an embedding's backward: cub's sorts and scans, and the sums of partial segments."""

from __future__ import annotations

from ftbench.prediction.simulate.workspaces.allocator_steps import (
    FLOAT_BYTES,
    Runtime,
    Step,
    Steps,
    allocate,
    ceil_div,
    free,
    round_up,
    transient,
)

# native/cuda/Embedding.cu embedding_dense_backward_cuda: up to here, a kernel without workspace
EMBEDDING_SORT_ABOVE = 3072
_ROWS_PER_THREAD = 10  # native/cuda/EmbeddingBackwardKernel.cu NROWS_PER_THREAD
_FUSED_BLOCKS_PER_MULTIPROCESSOR = 4  # the same: MAX_ATOMIC_ACCUM_BLOCKS_PER_SM
_MAX_BLOCK = 1024  # native/cuda/SortingCommon.cuh MAX_BLOCK_SIZE
_SORT_TILE = (
    3840  # keys a block sorts: 384 threads x 10 (cub's Policy800, keys and values of 8 bytes)
)


def embedding_backward_workspace(
    indices: int,
    width: int,
    rows: int,
    *,
    runtime: Runtime | None = None,
    element_bytes: int = 4,
    index_bytes: int = 8,
) -> Steps:
    """Return what embedding_dense_backward does around its result; nothing for up to 3072 indices.

    `indices` counts the tokens, `rows` the vocabulary. In the order of native/cuda/Embedding.cu
    embedding_dense_backward_cuda and EmbeddingBackwardKernel.cu embedding_backward_cuda_kernel, with
    `scale_grad_by_freq` off and a contiguous gradient. padding_idx makes no difference. Estimates:
    `sort_storage`, `unique_storage`, `scan_storage`.
    """
    if indices <= EMBEDDING_SORT_ABOVE:
        return ()
    runtime = runtime or Runtime()
    per_index = indices * index_bytes
    segments = min(indices, rows)
    partials = indices // _ROWS_PER_THREAD + segments
    return (
        allocate("sorted_indices", per_index),
        allocate("orig_indices", per_index),
        allocate("range", per_index),
        *transient("sort_storage", _sort_storage(indices, index_bytes)),
        *free("range"),
        Step("output", "grad_weight"),
        allocate("segment_offsets", per_index),
        allocate("num_of_segments", 8),
        allocate("unique_keys", per_index),  # cuda/cub.cuh unique_by_key
        *transient("unique_storage", _scan_storage(indices)),
        *free("unique_keys"),
        allocate("partials_per_segment", segments * index_bytes),
        allocate("partials_per_segment_offset", segments * index_bytes),
        *transient("scan_storage", _scan_storage(segments)),
        allocate("num_of_partial_segments", 8),
        allocate("partial_segment_offset", partials * index_bytes),
        *_embedding_sums((rows, width), segments, partials, runtime, (element_bytes, index_bytes)),
        *free(
            "partial_segment_offset",
            "num_of_partial_segments",
            "partials_per_segment_offset",
            "partials_per_segment",
            "num_of_segments",
            "segment_offsets",
            "orig_indices",
            "sorted_indices",
        ),
    )


def _embedding_sums(
    shape: tuple[int, int],
    segments: int,
    partials: int,
    runtime: Runtime,
    item_bytes: tuple[int, int],
) -> Steps:
    # From 2.11 (#170589; the version by its date), few and large segments are added up by atomic
    # operations instead (`use_fused_kernel`).
    (rows, width), (element_bytes, index_bytes) = shape, item_bytes
    warped = round_up(width, 32)
    blocks = ceil_div(segments * warped, min(warped, _MAX_BLOCK))
    fused = (
        runtime.torch_version >= (2, 11)
        and blocks < runtime.multiprocessors * _FUSED_BLOCKS_PER_MULTIPROCESSOR
        and partials > 4 * blocks
    )
    if not fused:
        accumulator = max(element_bytes, FLOAT_BYTES)
        return transient("grad_weight_per_segment", partials * width * accumulator)
    found = allocate("partial_to_segment_idx", partials * index_bytes)
    if element_bytes >= FLOAT_BYTES:
        return (found, *free("partial_to_segment_idx"))
    sums = transient("grad_weight_acc", rows * width * FLOAT_BYTES)
    return (found, *sums, *free("partial_to_segment_idx"))


def _sort_storage(count: int, index_bytes: int) -> int:
    # An estimate. cub/device/dispatch/dispatch_radix_sort.cuh InvokeOnesweep: a second buffer of keys
    # and of values, 256 bins a pass of 8 bits, the look-back of 256 integers a tile, a counter a pass.
    passes = index_bytes
    parts = (
        passes * 256 * 8,
        ceil_div(count, _SORT_TILE) * 256 * 4,
        count * index_bytes,
        count * index_bytes,
        passes * 4,
    )
    return sum(round_up(part, 256) for part in parts)


def _scan_storage(count: int) -> int:
    # An estimate: cub's decoupled look-back keeps 16 bytes a tile, of about a thousand items.
    return 16 * ceil_div(count, 1024) + 768
