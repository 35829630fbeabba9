"""Scratch of the backward of fused attention: memory-efficient and flash."""

from __future__ import annotations

from ftbench.prediction.simulate.workspaces.allocator_steps import (
    FLOAT_BYTES,
    Steps,
    allocate,
    ceil_div,
    free,
    round_up,
)

# sizeof(GradQTempStorage): 16 bytes and a tile of 64 x 64 floats
_GRAD_QUERY_TILE = 16 + 64 * 64 * FLOAT_BYTES


def efficient_attention_backward_workspace(
    batch: int, heads: int, queries: int, head_size: int, *, element_bytes: int
) -> Steps | None:
    """Return what _efficient_attention_backward allocates after its gradients; None where unknown.

    native/transformers/cuda/attention_backward.cu and mem_eff_attention/kernel_backward.h, for
    capability 7.0 and later, and heads (of keys and values) of up to 64: these always get a kernel of
    64 x 64 tiles, that keeps the gradients of keys and values in registers (16 bits) or in the result
    (32 bits). The sum over keys for each query tile is kept here. `delta` is the kernel's own in 16
    bits; in 32 bits it is `(grad_out * out).sum(-1)`, transposed and copied.
    """
    if head_size > 64:
        return None
    tiles = batch * heads * ceil_div(queries, 64)
    delta = batch * heads * queries * FLOAT_BYTES
    steps: Steps = (allocate("delta", delta),)
    if element_bytes == FLOAT_BYTES:
        steps = (
            allocate("products", delta * head_size),
            allocate("sums", delta),
            allocate("delta", delta),
            *free("sums", "products"),  # temporaries of one expression
        )
    workspace = allocate("workspace", tiles * _GRAD_QUERY_TILE)
    return (*steps, workspace, *free("delta", "workspace"))


def flash_attention_backward_workspace(
    batch: int,
    heads: int,
    queries: int,
    keys: int,
    head_size: int,
    *,
    key_heads: int | None = None,
    element_bytes: int = 2,
) -> Steps:
    """Return what _flash_attention_backward allocates after its gradients (dense batches).

    native/transformers/cuda/flash_attn/flash_api.cpp mha_bwd, not deterministic: the gradient of the
    queries in float, and the gradients of keys and values for every head where heads share them.
    Head sizes above 128 are rounded up to 32 or to 64, by version; the larger is returned.
    """
    rounded = round_up(queries, 128)
    size = round_up(head_size, 32 if head_size <= 128 else 64)
    steps = [
        allocate("softmax_d", batch * heads * rounded * FLOAT_BYTES),
        allocate("dq_accum", batch * rounded * heads * size * FLOAT_BYTES),
    ]
    names = ["dq_accum", "softmax_d"]
    if key_heads is not None and key_heads != heads:
        expanded = batch * keys * heads * head_size * element_bytes
        steps += [allocate("dk_expanded", expanded), allocate("dv_expanded", expanded)]
        names = ["dv_expanded", "dk_expanded", *names]
    return (*steps, *free(*names))
