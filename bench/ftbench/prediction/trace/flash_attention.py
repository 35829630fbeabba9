"""The memory of the package flash-attn, which `flash_attention_2` of transformers calls, for tensors without data.

The package needs CUDA to be installed, so its functions are emulated. Every buffer, from the source of flash-attn
2.8.3 (flash_attn/flash_attn_interface.py: .py; csrc/flash_attn/flash_api.cpp: .cpp). B is the number of sequences,
S and T are the tokens of one and of all, H and K the heads of queries and of keys. D is the head size, D8 and D32
are the head size rounded up (to 8; to 32, above 128 to 64), S128 is the length rounded up to 128.

    buffer                      elements             type     source               lives until
    query, key, value, padded   [B, S, H or K, D8]   input's  .py 831, 922         backward; if D is not D8
    out                         [B, S, H, D8]        input's  .cpp 431, 643        backward
    softmax_lse                 [B, H, S]            float32  .cpp 441             backward
      of variable lengths       [H, T]               float32  .cpp 652             backward
    rng_state                   [2]                  int64    .cpp 483, 723        backward
    softmax_lse_accum           [splits, B, H, S]    float32  .cpp 320             the call; not with dropout
    out_accum                   [splits, ..., D32]   float32  .cpp 321             the call; not with dropout
    dq, dk, dv                  as query, key, value input's  .py 862, 963         their use
    gradient of out, padded     [B, S, H, D8]        input's  .py 866, 967         the call; if D is not D8
    softmax_d                   [B, H, S128]         float32  .cpp 883             the call
      of variable lengths       [H, T + 128 B]       float32  .cpp 1100            the call
    dq_accum                    [B, S128, H, D32]    float32  .cpp 888             the call
      of variable lengths       [T + 128 B, H, D32]  float32  .cpp 1113            the call
    dk_expanded, dv_expanded    [B, S, H, D]         input's  .cpp 899, 1122       the call; if K is not H

Those that live as long as a call in C++ are workspaces of kernels, which the simulation adds
(`ftbench.prediction.simulate.workspaces.flash_attention`); all others are allocated here.

`ftbench.prediction.trace.flash_attention_package` lets transformers find these functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ftbench.base.errors import PredictionError

# Names of one set of functions: the package's, and the kernels hub's, which has the same source.
FLASH_ATTENTION_2 = ("flash_attention_2", "kernels-community/flash-attn2")
_LARGEST_HEAD = 256  # "head dimension at most 256", .cpp 393
_HEAD_ALIGNMENT = 8
_TYPES = (torch.float16, torch.bfloat16)  # .cpp 373

_DENSE = 0  # in place of the number of sequences: all have one length

_LIBRARY = torch.library.Library("ftbench", "DEF")
_LIBRARY.define(
    "flash_attention(Tensor query, Tensor key, Tensor value, int sequences, float dropout)"
    " -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "flash_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor(a!) dq, Tensor(b!) dk,"
    " Tensor(c!) dv, int sequences) -> Tensor"
)


def _outputs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: int, dropout: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the output, the log of the sum of exponentials of each row, and the state of the random generator."""
    *outer, heads, _ = query.shape
    rows = (heads, *outer) if sequences else (outer[0], heads, outer[1])
    return (
        torch.empty_like(query),
        query.new_empty(rows, dtype=torch.float32),
        query.new_empty((2,), dtype=torch.int64),
    )


def _no_output(grad: torch.Tensor, *_: Any) -> torch.Tensor:
    """Return a tensor without elements, which takes no memory: the gradients are written into tensors given."""
    return grad.new_empty((0,))


_LIBRARY.impl("flash_attention", _outputs, "Meta")
_LIBRARY.impl("flash_attention_backward", _no_output, "Meta")
flash_attention = torch.ops.ftbench.flash_attention
flash_attention_backward = torch.ops.ftbench.flash_attention_backward


def flash_attention_flop(
    query: tuple[int, ...], key: tuple[int, ...], value: Any, sequences: int, *_: Any, **__: Any
) -> int:
    """Return the FLOPs of a forward pass by the shapes of its tensors: two products, as torch counts them.

    Sequences of various lengths are taken to be of one length.
    """
    tokens = query[0] if sequences else query[0] * query[1]
    keys = key[0] // sequences if sequences else key[1]
    heads, width = query[-2:]
    return 4 * tokens * keys * heads * width


def flash_attention_backward_flop(
    grad: Any,
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: Any,
    dq: Any,
    dk: Any,
    dv: Any,
    sequences: int,
    **_: Any,
) -> int:
    """Return the FLOPs of a backward pass: five products, one of which is recomputed (`sdpa_backward_flop`)."""
    return flash_attention_flop(query, key, value, sequences) * 5 // 2


class _Attention(torch.autograd.Function):
    """Attention that saves and allocates what the package's own function does (.py 807 and 893)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sequences: int,
        dropout: float,
    ) -> torch.Tensor:
        width = query.shape[-1]
        query, key, value = (_aligned(tensor) for tensor in (query, key, value))
        # `maybe_contiguous` (.py 19): the kernel reads a copy, autograd keeps the original.
        output, logsumexp, state = flash_attention(
            *(_readable(tensor) for tensor in (query, key, value)), sequences, dropout
        )
        ctx.save_for_backward(query, key, value, output, logsumexp, state)
        ctx.sequences = sequences
        return output[..., :width]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        width = grad.shape[-1]
        gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
        read = [_readable(tensor) for tensor in (_aligned(grad), query, key, value)]
        flash_attention_backward(*read, *gradients, ctx.sequences)
        return *(gradient[..., :width] for gradient in gradients), None, None


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose heads are padded to a multiple of eight."""
    padding = -tensor.shape[-1] % _HEAD_ALIGNMENT
    return functional.pad(tensor, (0, padding)) if padding else tensor


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor:
    """Return attention over sequences of one length: [batch, length, heads, head size].

    The parameters are those of the package, since transformers looks at their names. Raises PredictionError for
    what the package rejects, and for the deterministic backward pass.
    """
    _check(q, deterministic)
    return _attention(q, k, v, _DENSE, dropout_p)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: Any,
    max_seqlen_k: Any,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return attention over sequences one after the other: [tokens, heads, head size].

    Raises as `flash_attn_func` does.
    """
    _check(q, deterministic)
    return _attention(q, k, v, cu_seqlens_q.numel() - 1, dropout_p)


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: int, dropout: float
) -> torch.Tensor:
    attended: torch.Tensor = _Attention.apply(query, key, value, sequences, dropout)
    return attended


def _check(query: torch.Tensor, deterministic: bool) -> None:
    if deterministic:
        raise PredictionError(
            "prediction does not cover the deterministic backward pass of flash attention",
            where="FLASH_ATTENTION_DETERMINISTIC",
        )
    if query.dtype not in _TYPES or query.shape[-1] > _LARGEST_HEAD:
        raise PredictionError(
            "flash attention does not run here",
            where="attn_implementation",
            got=f"{query.dtype}, heads of {query.shape[-1]}",
            expected=f"float16 or bfloat16, heads of at most {_LARGEST_HEAD}",
        )
