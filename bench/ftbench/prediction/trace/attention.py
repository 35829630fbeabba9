"""Scaled dot product attention as the CUDA build of torch computes it, for tensors without data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ftbench.base.errors import PredictionError
from ftbench.records.prediction import AttentionKernel

aten = torch.ops.aten

# The fused kernels require the rows of a mask to begin at multiples of this many elements
# (`preprocess_mask` in ATen/native/transformers/attention.cpp, mem_eff_alignment).
MASK_ALIGNMENT = 8
# Flash attention pads heads to a multiple of this (`pad_last_dim<8>` in the same file).
HEAD_ALIGNMENT = 8


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    kernel: AttentionKernel | None = None,
    capability: tuple[int, int] = (8, 0),
) -> torch.Tensor:
    """Return attention as the CUDA build computes it: mask preparation, then one kernel.

    ATen/native/transformers/attention.cpp, `scaled_dot_product_attention`.
    """
    chosen = choose_attention(
        query,
        key,
        value,
        attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        enable_gqa=enable_gqa,
        kernel=kernel,
        capability=capability,
    )
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = _additive(attn_mask, query)
    if chosen == "flash":
        return _flash(query, key, value, dropout_p, is_causal, scale)
    needs_logsumexp = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    if chosen == "efficient":
        if attn_mask is not None:
            attn_mask = _aligned(attn_mask, query, key)
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, needs_logsumexp, dropout_p, is_causal, scale=scale
        )[0]
    if chosen == "cudnn":
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
        return aten._scaled_dot_product_cudnn_attention(
            query, key, value, attn_mask, needs_logsumexp, dropout_p, is_causal, False, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]


def _additive(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Return a mask of truths as one of numbers to add (`convert_boolean_attn_mask`)."""
    minus_infinity = torch.scalar_tensor(float("-inf"), dtype=query.dtype, device=query.device)
    return torch.where(mask, 0.0, minus_infinity)


def _aligned(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return a mask whose rows begin at aligned places, expanded to heads (`preprocess_mask`).

    The strides matter (`aligned_tensor`): one row for all queries has a stride of 0, and a mask whose row
    length is a multiple already may still be padded, by a whole multiple.
    """
    *outer, inner = mask.stride()
    if inner != 1 or any(stride % MASK_ALIGNMENT for stride in outer):
        length = mask.shape[-1]
        padding = MASK_ALIGNMENT - length % MASK_ALIGNMENT
        mask = torch.nn.functional.pad(mask, (0, padding))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """Return flash attention, with heads padded to a multiple of eight elements (`pad_last_dim`)."""
    width = query.shape[-1]
    scale = scale if scale is not None else width**-0.5
    padding = -width % HEAD_ALIGNMENT
    if padding:
        query, key, value = (
            torch.nn.functional.pad(tensor, (0, padding)) for tensor in (query, key, value)
        )
    output = aten._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, False, scale=scale
    )[0]
    return output[..., :width] if padding else output


@dataclasses.dataclass(frozen=True)
class _Call:
    """The arguments of a call of attention that the kernels' constraints depend on (`sdp_params`)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    is_causal: bool
    enable_gqa: bool
    capability: tuple[int, int]

    @property
    def half(self) -> bool:
        return self.query.dtype in (torch.float16, torch.bfloat16)

    @property
    def low_precision(self) -> bool:
        """Whether flash and cuDNN accept the type (`check_dtypes_low_precision`)."""
        return self.half and self.capability >= (8, 0)

    @property
    def widths(self) -> tuple[int, int, int]:
        """The head sizes of query, key and value."""
        return (self.query.shape[-1], self.key.shape[-1], self.value.shape[-1])

    @property
    def requires_grad(self) -> bool:
        return torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (self.query, self.key, self.value)
        )

    @property
    def fusable(self) -> bool:
        """Whether any fused kernel accepts the shapes and strides.

        `check_tensor_shapes`, `check_nonzero_sequence_lengths_dense`,
        `check_last_dim_stride_equals_1_dense`, in ATen/native/transformers/sdp_utils_cpp.h.
        """
        tensors = (self.query, self.key, self.value)
        if any(tensor.dim() != 4 for tensor in tensors):
            return False
        batches = {tensor.shape[0] for tensor in tensors}
        inner = {tensor.stride(-1) for tensor in tensors}
        if self.mask is not None:
            inner.add(self.mask.stride(-1))
        return len(batches) == 1 and self.query.shape[2] > 0 < self.key.shape[2] and inner == {1}

    def heads_match(self, *, grouped: bool) -> bool:
        """Whether a kernel accepts the numbers of heads; `grouped` says whether it can group queries.

        `check_batch_size_and_num_heads_dense`: a kernel that cannot still accepts `enable_gqa` if there is
        nothing to group.
        """
        queries, keys, values = (t.shape[1] for t in (self.query, self.key, self.value))
        if self.enable_gqa and grouped:
            return keys == values and queries % keys == 0
        return queries == keys == values


def choose_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool,
    kernel: AttentionKernel | None,
    capability: tuple[int, int],
) -> AttentionKernel:
    """Return the kernel that CUDA chooses: the first one in its order that accepts the call.

    ATen/native/transformers/cuda/sdp_utils.cpp, `select_sdp_backend` and the constraints it lists. The
    order is flash, memory-efficient, math; on compute capability 9 and 10 cuDNN comes first
    (`check_prefer_cudnn_attention`; torch 2.10 and later, with the cuDNN of its wheels).

    A kernel requested by name goes first under the same constraints, as with `sdpa_kernel`. Raises
    PredictionError if cuDNN is requested and cannot run.
    """
    call = _Call(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa, capability)
    order: list[AttentionKernel] = ["flash", "efficient", "math"]
    if kernel is not None:
        order = ["efficient", "math"] if kernel in ("flash", "efficient") else ["math"]
        order.insert(0, kernel)
    elif capability[0] in (9, 10):
        order.insert(0, "cudnn")
    if kernel == "cudnn" and not _cudnn_runs(call):
        raise PredictionError(
            "cudnn attention does not run here",
            got=f"{query.dtype}, heads of {query.shape[-1]}, dropout {dropout_p}, "
            f"compute capability {capability}",
            expected="float16 or bfloat16, heads of a multiple of 8 up to 128, dropout of a multiple "
            "of 1/16, compute capability 8.0 or later",
        )
    return next(name for name in order if _RUNS[name](call))


def _flash_runs(call: _Call) -> bool:
    """Return whether flash attention accepts a call: no mask, half precision, heads up to 256.

    It accepts neither a causal mask that is not square nor, on cards with less shared memory
    (8.6 to 8.9, 12.x), the gradient of heads above 192.
    """
    small = (8, 6) <= call.capability <= (8, 9) or (12, 0) <= call.capability <= (12, 1)
    width = call.widths[0]
    return (
        call.mask is None
        and call.low_precision
        and call.capability <= (12, 1)
        and call.fusable
        and len(set(call.widths)) == 1
        and width <= 256
        and not (call.is_causal and call.query.shape[2] != call.key.shape[2])
        and not (small and call.requires_grad and width > 192 and (call.dropout or width <= 224))
        and call.heads_match(grouped=True)
    )


def _efficient_runs(call: _Call) -> bool:
    """Return whether memory-efficient attention accepts a call (`check_head_dim_size_mem_efficient`).

    bfloat16 needs Ampere. Rows of a head must be aligned to 16 bytes on Ampere and later (float32: through
    TF32 tiles), and for half precision on Volta and Turing; otherwise to one element.
    """
    types = {torch.float32, torch.float16}
    if call.capability >= (8, 0):
        types.add(torch.bfloat16)
    tensor_cores = call.capability >= (8, 0) or (call.capability >= (7, 0) and call.half)
    alignment = 16 // call.query.element_size() if tensor_cores else 1
    queries, keys, _ = call.widths
    return (
        call.query.dtype in types
        and (5, 0) <= call.capability <= (12, 1)
        and call.fusable
        and queries == keys
        and all(width > 0 and width % alignment == 0 for width in call.widths)
        and call.heads_match(grouped=False)
    )


def _cudnn_runs(call: _Call) -> bool:
    """Return whether cuDNN's attention accepts a call (`can_use_cudnn_attention`).

    cuDNN accepts only multiples of 1/16 as dropout (`check_cudnn_dropout`, torch 2.12), so with the usual 0.1
    the next kernel is taken.
    """
    return (
        call.low_precision
        and call.fusable
        and (call.mask is None or (call.mask.dim() in (2, 4) and not call.mask.requires_grad))
        and all(width % 8 == 0 and width <= 128 for width in call.widths)
        and call.dropout * 16 == int(call.dropout * 16)
        and call.key.shape[2] != 1
        and not (call.dropout and call.query.shape[2] == 1)
        and call.heads_match(grouped=True)
    )


_RUNS: dict[AttentionKernel, Callable[[_Call], bool]] = {
    "flash": _flash_runs,
    "efficient": _efficient_runs,
    "cudnn": _cudnn_runs,
    "math": lambda call: True,
}
