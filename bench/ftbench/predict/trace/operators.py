"""Operators: what a card would run where the CPU's dispatch differs, for tensors without data.

A trace of a card's memory runs on fake CPU tensors: no CUDA build of torch is needed, nor its
runtime. A few operators choose another path, or save something else for backward, by the kind of
device; those are replaced in torch's dispatcher (`torch.library`) while a trace runs, so every
caller gets them: a model's Python, torch's own C++, and the recomputation of checkpointed blocks.
A tensor that has data is passed on to the CPU's own kernels; only `torch.autocast("cpu")` has CUDA's
lists for it too, as long as a trace runs.

What is replaced is checked, event by event, against a fake CUDA device on which torch's own C++ takes its
CUDA branches (tests/fake_cuda).
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensor

from ftbench.base.errors import PredictionError
from ftbench.records.prediction import AttentionKernel

aten = torch.ops.aten

# The fused kernels want rows of a mask to begin at multiples of this many elements
# (`preprocess_mask` in ATen/native/transformers/attention.cpp, mem_eff_alignment).
MASK_ALIGNMENT = 8
# Flash attention pads heads to a multiple of this (`pad_last_dim<8>` in the same file).
HEAD_ALIGNMENT = 8


@contextlib.contextmanager
def cuda_operators(
    attention: AttentionKernel | None, capability: tuple[int, int]
) -> Iterator[None]:
    """Replace the operators whose path on CUDA differs; `attention` forces one fused kernel."""

    def sdpa(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(query, FakeTensor):
            return _composite(
                aten.scaled_dot_product_attention.default, query, key, value, *args, **kwargs
            )
        return scaled_dot_product_attention(
            query, key, value, *args, kernel=attention, capability=capability, **kwargs
        )

    with _overriding() as override:
        override("dropout", _dropout, "AutogradCPU")
        override("scaled_dot_product_attention", sdpa, "AutogradCPU")
        override("softmax.int", _softmax, "AutogradCPU")
        override("log_softmax.int", _log_softmax, "AutogradCPU")
        for name, kernel in _FUSED.items():
            override(name, kernel, "CPU")
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


def _composite(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what torch's own C++ makes of a composite operator.

    Not `operator.decompose`: its Python version of dropout copies where C++ returns the input.
    """
    return operator._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)


def _dropout(input: torch.Tensor, p: float, train: bool) -> torch.Tensor:  # noqa: A002
    """Dropout as CUDA fuses it: the mask that is kept has one byte an element (CPU: the input's type).

    ATen/native/Dropout.cpp, `is_fused_kernel_acceptable`: on CUDA, in training, 0 < p < 1.
    """
    if not isinstance(input, FakeTensor) or not (train and 0 < p < 1 and input.numel()):
        return _composite(aten.dropout.default, input, p, train)
    return torch.native_dropout(input, p, train)[0]


def _softmax(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:  # noqa: A002
    """Softmax; on CUDA one of float16 into float32 is one kernel (ATen/native/SoftMax.cpp)."""
    if _half_to_float(input, dtype):
        return aten._softmax(input, dim, True)
    return _composite(aten.softmax.int, input, dim, dtype)


def _log_softmax(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:  # noqa: A002
    """Log-softmax, with the same fusion."""
    if _half_to_float(input, dtype):
        return aten._log_softmax(input, dim, True)
    return _composite(aten.log_softmax.int, input, dim, dtype)


def _half_to_float(input: torch.Tensor, dtype: torch.dtype | None) -> bool:  # noqa: A002
    fused = input.dtype is torch.float16 and dtype is torch.float32
    return fused and isinstance(input, FakeTensor)


# Operators that are one kernel on CUDA and a formula of others on the CPU (CompositeImplicitAutograd
# and CUDA in native_functions.yaml; silu_backward and mish_backward are kernels on both). A kernel on
# the CPU's key, even a formula, has autograd take the operator as one, with what that saves.
_FUSED: dict[str, Callable[..., Any]] = {
    "_fused_rms_norm": decomposition_table[aten._fused_rms_norm.default],
    "_fused_rms_norm_backward": decomposition_table[aten._fused_rms_norm_backward.default],
}


def results_on_card(func: Any, output: Any) -> Any:
    """Return what an operator gives on CUDA, where the CPU's gives other types.

    Layer norm keeps mean and deviation in float32 there, whatever its input
    (ATen/native/cuda/layer_norm_kernel.cu), and in the input's type on the CPU.
    """
    if func is aten.native_layer_norm.default:
        normed, *moments = output
        return (normed, *(moment.float() for moment in moments))
    return output


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

    It is the strides that count (`aligned_tensor`): one row for all queries has a stride of 0, and a
    mask whose rows are a multiple long already may still be padded, by a whole multiple.
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
    """A call of attention, as the constraints of the kernels see it (`sdp_params`)."""

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
        """Whether the type is one of flash's and cuDNN's (`check_dtypes_low_precision`)."""
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
        """Whether any fused kernel takes shapes and strides like these.

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
        """Whether a kernel that can or cannot group queries takes the numbers of heads.

        `check_batch_size_and_num_heads_dense`: a kernel that cannot takes `enable_gqa` all the same
        where there is nothing to group.
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
    """Return the kernel that CUDA takes: the first that can, of its order.

    ATen/native/transformers/cuda/sdp_utils.cpp, `select_sdp_backend` and the constraints it lists. The
    order is flash, memory-efficient, math; on compute capability 9 and 10 cuDNN comes first
    (`check_prefer_cudnn_attention`; torch 2.10 and later, with the cuDNN that its wheels bring).

    A kernel asked for by name goes first and is held to the same constraints, as under `sdpa_kernel`;
    PredictionError where cuDNN is asked for and cannot run.
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
    """Return whether flash attention takes a call: no mask, half precision, heads up to 256.

    Neither a causal mask that isn't square, nor, on the cards with less shared memory
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
    """Return whether memory-efficient attention takes a call (`check_head_dim_size_mem_efficient`).

    bfloat16 needs Ampere; rows of a head must be aligned to 16 bytes there (float32: through TF32
    tiles), to 16 for half precision on Volta and Turing, to one element otherwise.
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
    """Return whether cuDNN's attention takes a call (`can_use_cudnn_attention`).

    Dropout is held in sixteenths there (`check_cudnn_dropout`, torch 2.12), so that the usual 0.1
    sends a call to the next kernel.
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


# Autocast. What is done to an operator's arguments under `torch.autocast("cuda")`, from the lists
# in ATen/autocast_mode.h (AT_FORALL_LOWER_PRECISION_FP, _FP32, _FP32_SET_OPT_DTYPE,
# AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE, AT_FORALL_PROMOTE).
# The CPU's lists differ: there softmax, layer norm, sums and powers stay in half precision.
Policy = Literal["lower_precision", "float32", "float32_dtype", "norm", "promote", "banned"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FLOAT32 = _words("""
acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar
pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim
nuclear_norm nuclear_norm.dim cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss
nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss
margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss
binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest1d
_upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d upsample_nearest3d
_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
upsample_trilinear3d upsample_bicubic2d _upsample_bicubic2d_aa
""")
_FLOAT32_DTYPE = _words("""
prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm
linalg_matrix_norm.str_ord sum sum.dim_IntList
""")
# Take no `dtype`; the overload that does, and what it wants said that these may leave out.
_NORMS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "norm.Scalar": ("norm.ScalarOpt_dtype", (2,)),
    "norm.ScalarOpt_dim": ("norm.ScalarOpt_dim_dtype", (2, (), False)),
}
_PROMOTE = _words("""
addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
""")
_LOWER_PRECISION = _words("""
_convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d
conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul einsum mm mv
linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell
_thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
_scaled_dot_product_flash_attention scaled_dot_product_attention cudnn_convolution
cudnn_convolution_transpose
""")
_BANNED = ("binary_cross_entropy",)


def autocast_policies() -> dict[str, Policy]:
    """Return the policy of every operator that autocast knows on CUDA, by the operator's name."""
    policies: dict[Policy, Iterable[str]] = {
        "float32": _FLOAT32,
        "float32_dtype": _FLOAT32_DTYPE,
        "norm": _NORMS,
        "promote": _PROMOTE,
        "lower_precision": _LOWER_PRECISION,
        "banned": _BANNED,
    }
    return {name: policy for policy, names in policies.items() for name in names}


def _autocast_kernels() -> dict[str, Callable[..., Any]]:
    """Return CUDA's autocast as kernels for the CPU's autocast key, by operator.

    Left out: operators to which both do the same (the products of matrices, whose weights' casts
    the CPU's kernel caches as CUDA's does). What only the CPU's list has, falls through: the
    operators inside it see autocast still.
    """
    policies = autocast_policies()
    kernels: dict[str, Callable[..., Any]] = {}
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith("aten::"):
            continue
        short = name.removeprefix("aten::")
        on_cpu = torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCPU")
        policy = policies.get(short)
        if policy is None:
            if on_cpu:
                kernels[short] = torch.library.fallthrough_kernel
        elif not (policy == "lower_precision" and on_cpu):
            kernels[short] = _without_autocast(_POLICIES[policy](short))
    return kernels


def _without_autocast(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel inside which autocast does nothing more."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return kernel(*args, **kwargs)

    return guarded


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _lower_precision(name: str) -> Callable[..., Any]:
    """Arguments in autocast's type."""
    operator = _operator(name)
    return lambda *args, **kwargs: operator(
        *_cast_all(args, torch.get_autocast_dtype("cpu")), **kwargs
    )


def _float32(name: str) -> Callable[..., Any]:
    """Arguments in float32."""
    operator = _operator(name)
    return lambda *args, **kwargs: operator(*_cast_all(args, torch.float32), **kwargs)


def _promote(name: str) -> Callable[..., Any]:
    """Arguments in float32 where one of them is, else in autocast's type."""
    operator = _operator(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.float32 if _any_float32(args) else torch.get_autocast_dtype("cpu")
        return operator(*_cast_all(args, wanted), **kwargs)

    return kernel


def _float32_dtype(name: str) -> Callable[..., Any]:
    """Arguments as they are, the result in float32 unless a type is asked for."""
    operator = _operator(name)
    arguments = operator._schema.arguments
    place = next(i for i, argument in enumerate(arguments) if argument.name == "dtype")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        # The dispatcher leaves out what has its default.
        if _is_half(args[0]) and len(args) <= place and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.float32}
        return operator(*args, **kwargs)

    return kernel


def _norm(name: str) -> Callable[..., Any]:
    """A norm in float32, by the overload that takes a type."""
    overload, defaults = _NORMS[name]
    operator = _operator(overload)

    def kernel(tensor: torch.Tensor, *args: Any) -> Any:
        dtype = torch.float32 if _is_half(tensor) else tensor.dtype
        return operator(tensor, *args, *defaults[len(args) :], dtype=dtype)

    return kernel


def _banned(name: str) -> Callable[..., Any]:
    """Refuse, as CUDA does."""

    def kernel(*_: Any, **__: Any) -> Any:
        raise PredictionError(
            "autocast refuses this operator on CUDA: the run would end with an error",
            where=f"aten.{name}",
            hint="use binary_cross_entropy_with_logits",
        )

    return kernel


_POLICIES: dict[Policy, Callable[[str], Callable[..., Any]]] = {
    "lower_precision": _lower_precision,
    "float32": _float32,
    "float32_dtype": _float32_dtype,
    "norm": _norm,
    "promote": _promote,
    "banned": _banned,
}


def _is_half(value: Any) -> bool:
    halves = (torch.float16, torch.bfloat16)
    return isinstance(value, torch.Tensor) and value.dtype in halves


def _any_float32(args: tuple[Any, ...]) -> bool:
    flat = [item for arg in args for item in (arg if isinstance(arg, (list, tuple)) else (arg,))]
    return any(isinstance(item, torch.Tensor) and item.dtype is torch.float32 for item in flat)


def _cast_all(args: tuple[Any, ...], dtype: torch.dtype) -> list[Any]:
    """Return arguments in a type, the last one cast first.

    ATen/autocast_mode.h casts them where it calls the operator, and the compiler that torch is built with
    evaluates a call's arguments from right to left: the order in which memory is taken.
    """
    return [_cast(value, dtype) for value in reversed(args)][::-1]


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a floating-point tensor (or a list of them) in a type; double and integers stay.

    A weight is cast at each call: unlike for matrix products, nothing keeps it for the next.
    """
    if isinstance(value, torch.Tensor):
        castable = value.is_floating_point() and value.dtype is not torch.float64
        return value.to(dtype) if castable else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value
