"""Scratch of products with weights of 4 bits: the weight as a whole, in the type of the product."""

from __future__ import annotations

from ftbench.prediction.simulate.workspaces.allocator_steps import (
    FLOAT_BYTES,
    Step,
    Steps,
    allocate,
    ceil_div,
    free,
)

# Up to so many rows packed weights are multiplied (`_GEMM_4BIT_CUSTOM_FLOOR_M`, backends/cuda/ops.py 921).
_PACKED_ROWS = 4
_BLOCK = 64  # weights with one scale


def four_bit_product_workspace(rows: int, outputs: int, inner: int, *, element_bytes: int) -> Steps:
    """Return what `gemm_4bit` of bitsandbytes 0.50 allocates for double-quantized weights, an upper bound.

    backends/cuda/ops.py 904, `_dequant_linear_fallback`: the scales in float32, with and without their offset, and
    the weight. It is taken for more than 1536 rows; for 5 to 1536 a table of shapes and cards may choose a kernel
    that needs none of it.
    """
    if rows <= _PACKED_ROWS:
        return ()
    scales = ceil_div(outputs * inner, _BLOCK) * FLOAT_BYTES
    return (
        allocate("absmax_dq", scales),
        allocate("absmax", scales),
        allocate("B_dq", outputs * inner * element_bytes),
        Step("output", ""),
        *free("B_dq", "absmax", "absmax_dq"),
    )
