"""Scratch of reductions in ATen's own kernels: column sums, layer norm's gradients, norms of many tensors."""

from __future__ import annotations

from ftbench.base.units import KIB
from ftbench.prediction.simulate.workspaces.allocator_steps import (
    FLOAT_BYTES,
    Runtime,
    Step,
    Steps,
    allocate,
    ceil_div,
    free,
)


def column_sum_workspace(
    rows: int, columns: int, runtime: Runtime | None = None, *, element_bytes: int = 4
) -> Steps:
    """Return what a sum over the rows of a contiguous matrix allocates, such as a bias's gradient.

    native/cuda/Reduce.cuh gpu_reduce_kernel and setReduceConfig: where there are too few columns to
    fill the card, several blocks share a column and meet in global memory. The buffer has a place for
    every thread (`global_memory_size`), so it is larger than one would think: 21 MiB for (8192, 768)
    on a card of 28 multiprocessors with 1536 threads. Both are freed on return, after the result was allocated.
    A matrix of one column, or one too large for 32-bit offsets (2 GiB), is reduced in another way:
    nothing is returned for it.
    """
    if columns < 2 or rows < 2 or rows * columns * element_bytes > 2**31 - 1:
        return ()
    runtime = runtime or Runtime()
    vector = next(size for size in (4, 2, 1) if columns % size == 0)  # get_output_vec_size
    width, height = _block(columns // vector, rows, 512 // vector)
    if rows < min(height * 16, 256):
        return ()  # a warp sums a column by itself
    grid = ceil_div(columns // vector, width)
    target = runtime.multiprocessors * (runtime.threads_per_multiprocessor // (width * height))
    values = ceil_div(rows, height)
    if values < 256 or grid > target:
        return ()
    shares = max(min(ceil_div(target, grid), ceil_div(values, 16)), ceil_div(values, 256))
    if shares <= 1:
        return ()
    return (
        allocate("reduce_buffer", FLOAT_BYTES * columns * shares * width * vector),
        allocate("reduce_semaphores", 4 * grid),
        *free("reduce_semaphores", "reduce_buffer"),
    )


def _block(columns: int, rows: int, threads: int) -> tuple[int, int]:
    # ReduceConfig::set_block_dimension: powers of two, columns along a warp first
    across = min(_last_power_of_two(columns), threads)
    down = min(_last_power_of_two(rows), threads)
    width = min(across, 32)
    height = min(down, threads // width)
    return min(across, threads // height), height


def _last_power_of_two(value: int) -> int:
    return 1 << (value.bit_length() - 1)


def layer_norm_backward_workspace(
    rows: int, width: int, runtime: Runtime | None = None, *, element_bytes: int = 4
) -> Steps:
    """Return what native_layer_norm_backward allocates for the gradients of weight and bias.

    native/cuda/layer_norm_kernel.cu LaunchGammaBetaBackwardCUDAKernel, from 2.8 (#148605): partial
    sums, for more than 65,536 rows that are narrow for the card; nothing otherwise, and nothing in
    2.6. They are added up by `sum(0)`, whose own workspace is too small to matter.
    """
    runtime = runtime or Runtime()
    narrow = width // 32 < runtime.multiprocessors // 2
    if runtime.torch_version < (2, 8) or rows <= 64 * KIB or not narrow:
        return ()
    across = ceil_div(width, 32)
    down = min(32 * KIB // across, ceil_div(rows, 32))
    nbytes = down * width * element_bytes
    return (
        allocate("dgamma_blocks", nbytes),
        allocate("dbeta_blocks", nbytes),
        *free("dbeta_blocks", "dgamma_blocks"),
    )


def foreach_norm_workspace(elements: list[int]) -> Steps:
    """Return what _foreach_norm allocates for tensors of these sizes, before its results.

    native/cuda/ForeachReduceOp.cu foreach_tensor_norm_cuda: a float for every chunk of 65,536
    elements, for each tensor as many as the largest has. It is freed after the results were made.
    """
    if not elements:
        return ()
    chunks = ceil_div(max(elements), 64 * KIB)
    return (
        allocate("output_per_tensor", len(elements) * chunks * FLOAT_BYTES),
        Step("output", "norms"),
        *free("output_per_tensor"),
    )
