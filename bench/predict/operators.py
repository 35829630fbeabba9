"""Operators: what a card would run where the CPU's dispatch differs, for tensors without data.

A trace of a card's memory runs on fake CPU tensors: no CUDA build of torch is needed, nor its
runtime. A few operators choose another path, or save something else for backward, by the kind of
device; those are replaced in torch's dispatcher (`torch.library`) while a trace runs, so every
caller gets them: a model's Python, torch's own C++, and the recomputation of checkpointed blocks.
A tensor that has data is passed on to the CPU's own kernels.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensor

from bench.errors import PredictionError

aten = torch.ops.aten

AttentionKernel = Literal["math", "efficient", "flash", "cudnn"]

# The fused kernels want rows of a mask to begin at multiples of this many elements
# (`preprocess_mask` in ATen/native/transformers/attention.cpp, mem_eff_alignment).
MASK_ALIGNMENT = 8
# Flash attention pads heads to a multiple of this (`pad_last_dim<8>` in the same file).
HEAD_ALIGNMENT = 8


@contextlib.contextmanager
def cuda_operators(attention: AttentionKernel | None, capability: tuple[int, int]) -> Iterator[None]:
    """Replace the operators whose path on CUDA differs; `attention` forces one fused kernel."""

    def sdpa(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(query, FakeTensor):
            return aten.scaled_dot_product_attention.default.decompose(
                query, key, value, *args, **kwargs
            )
        return scaled_dot_product_attention(
            query, key, value, *args, kernel=attention, capability=capability, **kwargs
        )

    with _overriding() as override:
        override("dropout", _dropout, "AutogradCPU")
        override("scaled_dot_product_attention", sdpa, "AutogradCPU")
        override("softmax.int", _softmax, "AutogradCPU")
        override("log_softmax.int", _log_softmax, "AutogradCPU")
        for name, kernel in _autocast_kernels().items():
            override(name, kernel, "AutocastCPU")
        yield


@contextlib.contextmanager
def _overriding() -> Iterator[Callable[[str, Callable[..., Any], str], None]]:
    """Yield a function that registers a kernel for (operator, function, key) until the context ends."""
    with torch.library._scoped_library("aten", "IMPL") as library, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "overriding a previously registered kernel": we mean to

        def override(name: str, function: Callable[..., Any], key: str) -> None:
            library.impl(name, function, key)

        yield override


def _dropout(input: torch.Tensor, p: float, train: bool) -> torch.Tensor:  # noqa: A002
    """Dropout as CUDA fuses it: the mask that is kept has one byte an element (CPU: the input's type).

    ATen/native/Dropout.cpp, `is_fused_kernel_acceptable`: on CUDA, in training, 0 < p < 1.
    """
    if not isinstance(input, FakeTensor) or not (train and 0 < p < 1 and input.numel()):
        return aten.dropout.default.decompose(input, p, train)
    return torch.native_dropout(input, p, train)[0]


def _softmax(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:  # noqa: A002
    """Softmax; on CUDA one of half precision into float32 is one kernel (ATen/native/SoftMax.cpp)."""
    if _half_to_float(input, dtype):
        return _HalfSoftmax.apply(input, dim, aten._softmax, aten._softmax_backward_data)
    return aten.softmax.int.decompose(input, dim, dtype)


def _log_softmax(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:  # noqa: A002
    """Log-softmax, with the same fusion."""
    if _half_to_float(input, dtype):
        return _HalfSoftmax.apply(input, dim, aten._log_softmax, aten._log_softmax_backward_data)
    return aten.log_softmax.int.decompose(input, dim, dtype)


def _half_to_float(input: torch.Tensor, dtype: torch.dtype | None) -> bool:  # noqa: A002
    fused = input.dtype is torch.float16 and dtype is torch.float32
    return fused and isinstance(input, FakeTensor)


class _HalfSoftmax(torch.autograd.Function):
    """A softmax from float16 to float32: keeps its output only, and its gradient is float16.

    The operator itself refuses half-to-float on the CPU, so the output is made here and the
    backward has the operator's shapes.
    """

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, dim: int, forward: Any, backward: Any) -> Any:  # noqa: A002
        output = torch.empty_like(input, dtype=torch.float32)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return torch.empty_like(grad, dtype=torch.float16), None, None, None


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
        query, key, value, attn_mask, enable_gqa=enable_gqa, kernel=kernel, capability=capability
    )
    if attn_mask is not None and attn_mask.dtype is torch.bool and chosen != "math":
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
    """Return a mask with rows of aligned length, expanded to heads (`preprocess_mask`)."""
    length = mask.shape[-1]
    if length % MASK_ALIGNMENT:
        padded = torch.nn.functional.pad(mask, (0, MASK_ALIGNMENT - length % MASK_ALIGNMENT))
        mask = padded[..., :length]
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


def choose_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    *,
    enable_gqa: bool,
    kernel: AttentionKernel | None,
    capability: tuple[int, int],
) -> AttentionKernel:
    """Return the kernel that CUDA takes, in its order: flash, memory-efficient, math.

    ATen/native/transformers/cuda/sdp_utils.cpp, `select_sdp_backend` and the constraints it lists.
    A kernel asked for by name is held to the same constraints: PredictionError where it cannot run.
    """
    usable: dict[AttentionKernel, bool] = {
        "flash": attn_mask is None and _flash_runs(query, key, value, capability),
        "efficient": not enable_gqa and _efficient_runs(query, key, value, capability),
        "cudnn": _half(query) and capability >= (8, 0) and query.shape[-1] <= 128,
        "math": True,
    }
    if kernel is None:
        return next(name for name in ("flash", "efficient", "math") if usable[name])
    if not usable[kernel] and kernel != "cudnn":
        # As with `sdpa_kernel`, a call that the kernel cannot take goes to the next one.
        return next(name for name in ("efficient", "math") if usable[name])
    if not usable[kernel]:
        raise PredictionError(
            "cudnn attention does not run here",
            got=f"{query.dtype}, heads of {query.shape[-1]}, compute capability {capability}",
            expected="float16 or bfloat16, heads of at most 128, compute capability 8.0 or later",
        )
    return kernel


def _half(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _flash_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, capability: tuple[int, int]
) -> bool:
    """Return whether flash attention takes these: half precision, Ampere or later, heads up to 256."""
    widths = {tensor.shape[-1] for tensor in (query, key, value)}
    return _half(query) and capability >= (8, 0) and len(widths) == 1 and max(widths) <= 256


def _efficient_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, capability: tuple[int, int]
) -> bool:
    """Return whether memory-efficient attention takes these (`check_head_dim_size_mem_efficient`).

    bfloat16 needs Ampere; rows of a head must be aligned to 16 bytes there (float32: through TF32
    tiles), to 16 for half precision on Volta and Turing, to one element otherwise.
    """
    if query.dtype is torch.bfloat16 and capability < (8, 0):
        return False
    tensor_cores = capability >= (8, 0) or (capability >= (7, 0) and _half(query))
    bytes_an_element = query.element_size()
    aligned = 16 // bytes_an_element if tensor_cores else 1
    return all(tensor.shape[-1] % aligned == 0 for tensor in (query, key, value))


# Autocast. What is done to an operator's arguments under `torch.autocast("cuda")`, from the lists
# in ATen/autocast_mode.h (AT_FORALL_LOWER_PRECISION_FP, _FP32, _FP32_SET_OPT_DTYPE, _PROMOTE).
# The CPU's lists differ: there softmax, layer norm, sums and powers stay in half precision.
_FLOAT32 = """
acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar
pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim
nuclear_norm nuclear_norm.dim cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss
nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss
margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss
binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest1d
_upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d upsample_nearest3d
_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
upsample_trilinear3d upsample_bicubic2d _upsample_bicubic2d_aa
""".split()
_FLOAT32_DTYPE = """
prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm
linalg_matrix_norm.str_ord sum sum.dim_IntList
""".split()
_NORMS = ("norm.Scalar", "norm.ScalarOpt_dim")
_PROMOTE = """
addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
""".split()
_LOWER_PRECISION = """
_convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d
conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul einsum mm mv
linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell
_thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
_scaled_dot_product_flash_attention scaled_dot_product_attention cudnn_convolution
cudnn_convolution_transpose
""".split()
_BANNED = ("binary_cross_entropy",)


def autocast_policies() -> dict[str, str]:
    """Return the policy of every operator that autocast knows on CUDA, by the operator's name."""
    policies = {
        "float32": _FLOAT32,
        "float32_dtype": [*_FLOAT32_DTYPE, *_NORMS],
        "promote": _PROMOTE,
        "lower_precision": _LOWER_PRECISION,
        "banned": _BANNED,
    }
    return {name: policy for policy, names in policies.items() for name in names}


def _autocast_kernels() -> dict[str, Callable[..., Any]]:
    """Return CUDA's autocast as kernels for the CPU's autocast key, by operator.

    Left out: operators to which both do the same (the products of matrices, whose weights' casts
    the CPU's kernel caches as CUDA's does).
    """
    policies = autocast_policies()
    kernels: dict[str, Callable[..., Any]] = {}
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith("aten::"):
            continue
        short = name.removeprefix("aten::")
        on_cpu = torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCPU")
        policy = policies.get(short)
        if policy is None and not on_cpu:
            continue
        if policy in ("lower_precision", "banned"):
            if not on_cpu and policy == "lower_precision":
                kernels[short] = _autocast(_operator(short), "lower_precision")
            continue
        kernels[short] = _autocast(_operator(short), policy or "none")
    return kernels


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


def _autocast(operator: Any, policy: str) -> Callable[..., Any]:
    """Return the operator's kernel under autocast: arguments cast by its policy, then the operator."""
    takes_dtype = any(argument.name == "dtype" for argument in operator._schema.arguments)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            if policy == "none":
                return operator(*args, **kwargs)
            if policy == "float32_dtype":
                given = kwargs.get("dtype") is None
                if takes_dtype and given and _is_half(args[0]) and len(args) < _dtype_place(operator):
                    kwargs = {**kwargs, "dtype": torch.float32}
                return operator(*args, **kwargs)
            if policy == "float32":
                wanted = torch.float32
            elif policy == "promote":
                wanted = torch.float32 if _any_float32(args) else torch.get_autocast_dtype("cpu")
            else:
                wanted = torch.get_autocast_dtype("cpu")
            return operator(*(_cast(argument, wanted) for argument in args), **kwargs)

    return kernel


def _dtype_place(operator: Any) -> int:
    """Return how many positional arguments come before `dtype`, which is past them all if keyword-only."""
    names = [argument.name for argument in operator._schema.arguments if not argument.kwarg_only]
    return names.index("dtype") + 1 if "dtype" in names else len(names) + 1


def _is_half(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and _half(value)


def _any_float32(args: tuple[Any, ...]) -> bool:
    flat = [item for arg in args for item in (arg if isinstance(arg, (list, tuple)) else (arg,))]
    return any(isinstance(item, torch.Tensor) and item.dtype is torch.float32 for item in flat)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a floating-point tensor (or a list of them) in a type; double and integers stay."""
    if isinstance(value, torch.Tensor):
        castable = value.is_floating_point() and value.dtype is not torch.float64
        return value.to(dtype) if castable else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value
