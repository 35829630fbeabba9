"""CUDA's autocast: the casts of an operator's arguments under `torch.autocast("cuda")`.

From the lists in ATen/autocast_mode.h (AT_FORALL_LOWER_PRECISION_FP, _FP32, _FP32_SET_OPT_DTYPE,
AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE, AT_FORALL_PROMOTE). The CPU's lists differ: there softmax,
layer norm, sums and powers stay in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from ftbench.base.errors import PredictionError

aten = torch.ops.aten

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
# These take no `dtype`: for each, the overload that does, and the arguments that it needs in addition.
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


def autocast_kernels() -> dict[str, Callable[..., Any]]:
    """Return CUDA's autocast as kernels for the CPU's autocast key, by operator.

    Operators that both treat alike are left out (matrix products, for which the CPU's kernel caches the casts
    of weights as CUDA's does). Operators in the CPU's list only get a fallthrough kernel: autocast still applies
    to the operators inside them.
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
    """Return a kernel inside which autocast is off."""

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
    """Arguments in float32 if one of them is, else in autocast's type."""
    operator = _operator(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.float32 if _any_float32(args) else torch.get_autocast_dtype("cpu")
        return operator(*_cast_all(args, wanted), **kwargs)

    return kernel


def _float32_dtype(name: str) -> Callable[..., Any]:
    """Arguments as they are, the result in float32 unless a type is requested."""
    operator = _operator(name)
    arguments = operator._schema.arguments
    place = next(i for i, argument in enumerate(arguments) if argument.name == "dtype")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        # The dispatcher leaves out arguments at their defaults.
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
    """Raise an error, as CUDA does."""

    def kernel(*_: Any, **__: Any) -> Any:
        raise PredictionError(
            "autocast rejects this operator on CUDA: the run would end with an error",
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

    ATen/autocast_mode.h casts them in the call of the operator, and torch's compiler evaluates the arguments
    of a call from right to left, which decides the order of allocations.
    """
    return [_cast(value, dtype) for value in reversed(args)][::-1]


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a floating-point tensor (or a list of them) in a type; double and integers stay.

    A weight is cast at each call: unlike for matrix products, the cast is not cached.
    """
    if isinstance(value, torch.Tensor):
        castable = value.is_floating_point() and value.dtype is not torch.float64
        return value.to(dtype) if castable else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value
