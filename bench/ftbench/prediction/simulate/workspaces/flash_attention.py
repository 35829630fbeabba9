"""Scratch of the package flash-attn: forward in split-KV form, and backward.

Sizes and source lines are in the table of `ftbench.prediction.trace.flash_attention`.
"""

from __future__ import annotations

import math

from ftbench.prediction.simulate.workspaces.allocator_steps import (
    FLOAT_BYTES,
    Steps,
    allocate,
    ceil_div,
    free,
    round_up,
)
from ftbench.prediction.simulate.workspaces.attention_backward import (
    flash_attention_backward_workspace,
)

_BLOCK = 128  # rows of queries that sequences of various lengths are apart
_SPLIT_ROWS = 64  # rows of queries in a block of the split-KV kernel
_MOST_SPLITS = 128
# Keys are split below this share of busy multiprocessors; the fewest parts with this share of the best are taken.
_FULL, _AS_GOOD = 0.8, 0.85


def flash_forward_workspace(
    batch: int, heads: int, queries: int, keys: int, head_size: int, *, multiprocessors: int
) -> Steps:
    """Return what `mha_fwd` allocates beside its results without dropout: partial results, if it splits keys.

    flash_api.cpp 299, `set_params_splitkv`.
    """
    block = 256 if head_size <= 64 else 128 if head_size <= 128 else 64
    splits = _splits(
        batch * heads * ceil_div(queries, _SPLIT_ROWS), 2 * multiprocessors, ceil_div(keys, block)
    )
    if splits == 1:
        return ()
    rows = splits * batch * heads * queries * FLOAT_BYTES
    return (
        allocate("softmax_lse_accum", rows),
        allocate("out_accum", rows * _rounded(head_size)),
        *free("out_accum", "softmax_lse_accum"),
    )


def _splits(blocks: int, multiprocessors: int, key_blocks: int) -> int:
    """Return the number of parts that keys are split into (flash_api.cpp 263, `num_splits_heuristic`)."""
    if blocks >= _FULL * multiprocessors:
        return 1
    most = min(_MOST_SPLITS, multiprocessors, key_blocks)
    shares = {
        splits: (waves := blocks * splits / multiprocessors) / math.ceil(waves)
        for splits in range(1, most + 1)
        if splits == 1 or ceil_div(key_blocks, splits) != ceil_div(key_blocks, splits - 1)
    }
    best = max(shares.values(), default=0.0)
    return next((splits for splits, share in shares.items() if share >= _AS_GOOD * best), 1)


def flash_backward_workspace(
    sequences: int,
    heads: int,
    queries: int,
    keys: int,
    head_size: int,
    *,
    key_heads: int,
    element_bytes: int,
    varying: bool,
) -> Steps:
    """Return what `mha_bwd` and `mha_varlen_bwd` allocate; with varying lengths, tokens are those of all sequences.

    flash_api.cpp 883 and 1100.
    """
    if not varying:
        return flash_attention_backward_workspace(
            sequences,
            heads,
            queries,
            keys,
            head_size,
            key_heads=key_heads,
            element_bytes=element_bytes,
        )
    rows = (queries + _BLOCK * sequences) * heads * FLOAT_BYTES
    steps = [allocate("softmax_d", rows), allocate("dq_accum", rows * _rounded(head_size))]
    names = ["dq_accum", "softmax_d"]
    if key_heads != heads:
        expanded = keys * heads * head_size * element_bytes
        steps += [allocate("dk_expanded", expanded), allocate("dv_expanded", expanded)]
        names = ["dv_expanded", "dk_expanded", *names]
    return (*steps, *free(*names))


def _rounded(head_size: int) -> int:
    """Return the head size as the kernels round it (flash_api.cpp 435)."""
    return round_up(head_size, 32 if head_size <= 128 else 64)
