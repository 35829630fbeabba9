"""Operators: replacements for those that run differently on a card and on the CPU, for tensors without data.

A trace of a card's memory runs on fake CPU tensors, so it needs neither a CUDA build of torch nor its
runtime. A few operators choose another path, or save other tensors for backward, depending on the kind of
device. These are replaced in torch's dispatcher (`torch.library`) while a trace runs, for every
caller: a model's Python, torch's own C++, and the recomputation of checkpointed blocks.
A tensor that has data is passed to the CPU's own kernels; only `torch.autocast("cpu")` has CUDA's
lists for it as well while a trace runs.

The replacements are checked, event by event, against a fake CUDA device on which torch's own C++ takes its
CUDA branches (tests/fake_cuda).
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from ftbench.prediction.trace.attention import scaled_dot_product_attention
from ftbench.prediction.trace.autocast import autocast_kernels
from ftbench.records.prediction import AttentionKernel

aten = torch.ops.aten


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
        for name, kernel in autocast_kernels().items():
            override(name, kernel, "AutocastCPU")
        yield


class _AddedInPlace(TorchDispatchMode):
    """Adds to the first operand in place, and returns it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is aten.add.Tensor:
            func = aten.add_.Tensor
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def attention_masked_in_place() -> Iterator[None]:
    """Let attention by its formula add the mask in place, as torch does to tensors with data.

    `_scaled_dot_product_attention_math` in ATen/native/transformers/attention.cpp adds it to a copy if a tensor is
    like a subclass of Tensor (`areAnyTensorSubclassLike`), as one without data is. It has no other addition.
    """

    def formula(query: Any, *args: Any, **kwargs: Any) -> Any:
        inside = _AddedInPlace() if isinstance(query, FakeTensor) else contextlib.nullcontext()
        with inside:
            return _composite(
                aten._scaled_dot_product_attention_math.default, query, *args, **kwargs
            )

    with _overriding() as override:
        for key in ("AutogradCPU", "AutogradCUDA"):
            override("_scaled_dot_product_attention_math", formula, key)
        yield


@contextlib.contextmanager
def _overriding() -> Iterator[Callable[[str, Callable[..., Any], str], None]]:
    """Yield a function that registers a kernel for (operator, function, key) until the context ends."""
    with torch.library._scoped_library("aten", "IMPL") as library, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "overriding a previously registered kernel" is intended

        def override(name: str, function: Callable[..., Any], key: str) -> None:
            library.impl(name, function, key)

        yield override


def _composite(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the result of torch's own C++ code for a composite operator.

    Not `operator.decompose`, whose Python version of dropout makes a copy while C++ returns the input.
    """
    return operator._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)


def _dropout(input: torch.Tensor, p: float, train: bool) -> torch.Tensor:  # noqa: A002
    """Dropout as CUDA fuses it: the saved mask has one byte per element (on the CPU, the input's type).

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


# Operators that are one kernel on CUDA and composed of others on the CPU (CompositeImplicitAutograd
# and CUDA in native_functions.yaml; silu_backward and mish_backward are kernels on both). With a kernel for
# the CPU's key, even a composed one, autograd treats the operator as one, and saves the same tensors.
_FUSED: dict[str, Callable[..., Any]] = {
    "_fused_rms_norm": decomposition_table[aten._fused_rms_norm.default],
    "_fused_rms_norm_backward": decomposition_table[aten._fused_rms_norm_backward.default],
}


# Operators that reduce their result in a storage made for one value per element: the tensor is resized
# to a scalar, its storage is not (ATen/native/BinaryOps.cpp and Loss.cpp: `resize_({})`, `resize_as_`).
# Without data, torch allocates only the scalar.
_REDUCED_IN_PLACE = {
    aten.mse_loss.default: 2,  # the position of the reduction among the arguments
    aten.smooth_l1_loss.default: 2,
    aten.binary_cross_entropy.default: 3,
}
_NO_REDUCTION, _MEAN = 0, 1


def result_in_its_storage(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    """Return a loss in a storage as large as torch's real one, on a card and on the CPU."""
    place = _REDUCED_IN_PLACE.get(func)
    if place is None or not isinstance(output, FakeTensor):
        return output
    reduction = kwargs.get("reduction", args[place] if len(args) > place else _MEAN)
    if reduction == _NO_REDUCTION:
        return output
    elements = torch.broadcast_shapes(args[0].shape, args[1].shape)
    return output.new_empty(elements).as_strided((), ())


def safe_softmax(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    scores: torch.Tensor,
    dim: int,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return softmax with rows of zeros where all is masked, each of its operators by `run`.

    To torch it is one operator, in whose inside a trace sees nothing (`_safe_softmax` in
    ATen/native/transformers/attention.cpp); the masks are allocated there.
    """
    if dtype is not None and dtype != scores.dtype:
        scores = run(aten._to_copy.default, (scores,), {"dtype": dtype})
    like = {"dtype": scores.dtype, "device": scores.fake_device}  # type: ignore[attr-defined]
    softmax = run(aten._softmax.default, (scores, dim, False), {})
    masked = run(aten.isneginf.default, (softmax,), {})
    rows = run(aten.all.dim, (masked, dim, True), {})
    zero = run(aten.scalar_tensor.default, (0.0,), like)
    run(aten.where.self_out, (rows, zero, softmax), {"out": softmax})
    return softmax


def grouped_product(
    left: torch.Tensor,
    right: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return the result of `_grouped_mm`, a product per expert, which without data torch has for bfloat16 only.

    The sizes do not depend on which tokens an expert gets. Rows begin at multiples of 16 bytes
    (`create_grouped_gemm_output_tensor` in ATen/native/GroupedMMUtils.h).
    """
    groups = [] if left.dim() != right.dim() else [left.shape[0] if offs is None else offs.shape[0]]
    if left.dim() == right.dim() == 3:
        groups = [left.shape[0]]
    if left.dim() == 3 and right.dim() == 2:
        size = [left.shape[1], right.shape[-1]]
    else:
        size = [*groups, left.shape[-2], right.shape[-1]]
    dtype = out_dtype or left.dtype
    aligned = 16 // dtype.itemsize
    row = -(-size[-1] // aligned) * aligned
    strides = [row, 1] if len(size) == 2 else [size[1] * row, row, 1]
    return left.new_empty_strided(size, strides, dtype=dtype)


# Arithmetic whose inputs have one type while it runs.
_PROMOTED = frozenset((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor))


def promoted(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any], func: Any, args: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return the arguments of an operator on the CPU, those of another type than its result copied to that type.

    On the CPU the copies live as long as the operator runs; on CUDA the kernel converts each element as it
    reads it (`TensorIteratorBase::compute_types` in ATen/TensorIterator.cpp, `promote_inputs_to_common_dtype`).
    """
    if func not in _PROMOTED or not all(isinstance(one, FakeTensor) for one in args[:2]):
        return args
    common = torch.result_type(args[0], args[1])
    return tuple(
        run(aten._to_copy.default, (one,), {"dtype": common}) if one.dtype != common else one
        for one in args[:2]
    ) + tuple(args[2:])


def indices_copied(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    func: Any,
    args: tuple[Any, ...],
    *,
    on_card: bool,
) -> tuple[Any, ...]:
    """Return an operator's arguments, with copies of the indices that torch copies; they live as long as it runs.

    An embedding reshapes its indices to one row (ATen/native/Embedding.cpp, `embedding_symint`). On CUDA, several
    index tensors get the same strides (`AdvancedIndex` in ATen/native/TensorAdvancedIndexing.cpp).
    """
    if func is aten.embedding.default and not _is_one_row(args[1]):
        return (args[0], _copy(run, args[1]), *args[2:])
    if func is aten.index.Tensor and on_card:
        return (args[0], _with_one_stride(run, args[1]))
    return args


def _is_one_row(tensor: torch.Tensor) -> bool:
    """Return whether a tensor can be viewed as one row."""
    sides = [(n, step) for n, step in zip(tensor.shape, tensor.stride(), strict=True) if n != 1]
    return all(step == n * inner for (_, step), (n, inner) in itertools.pairwise(sides))


def _with_one_stride(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any], given: list[torch.Tensor | None]
) -> list[torch.Tensor | None]:
    """Return indices, broadcast and copied if their strides differ; truths are another matter, and left alone."""
    there = [one for one in given if one is not None]
    if len(there) < 2 or any(one.dtype in (torch.bool, torch.uint8) for one in there):
        return given
    shape = torch.broadcast_shapes(*(one.shape for one in there))
    if len({_broadcast_strides(one, len(shape), shape) for one in there}) == 1:
        return given
    return [
        one
        if one is None or (one.shape == shape and one.is_contiguous())
        else _copy(run, one, shape)
        for one in given
    ]


def _broadcast_strides(tensor: torch.Tensor, dims: int, shape: torch.Size) -> tuple[int, ...]:
    """Return the strides that a tensor has when it is expanded to a shape."""
    missing = dims - tensor.dim()
    own = zip(tensor.shape, tensor.stride(), shape[missing:], strict=True)
    return (*(0,) * missing, *(0 if n == 1 and n != wide else step for n, step, wide in own))


def _copy(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    tensor: torch.Tensor,
    shape: torch.Size | None = None,
) -> torch.Tensor:
    wide = tensor if shape is None else run(aten.expand.default, (tensor, list(shape)), {})
    copied: torch.Tensor = run(
        aten.clone.default, (wide,), {"memory_format": torch.contiguous_format}
    )
    return copied


def runnable(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, on_card: bool
) -> Callable[..., Any]:
    """Return an operator, or what stands for it if torch cannot run it without data or without a card.

    A product into a tensor of its size leaves that as it is without data. DistributedDataParallel makes one for
    each gradient, for which torch runs a decomposition that took a tenth of a trace's time.
    """
    if func is aten._grouped_mm.default:
        return grouped_product
    if on_card and func is aten.histc.default and not args[0].is_floating_point():
        return whole_number_counts
    if func is aten.mul.out and isinstance(args[1], float) and _alike(args[0], kwargs["out"]):
        return lambda *_, out: out
    return func


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def whole_number_counts(values: torch.Tensor, bins: int = 100, *_: float) -> torch.Tensor:
    """Return the result of `histc` of whole numbers, which torch has on CUDA only (`_histc_template_cuda`)."""
    return values.new_empty((bins,))


def results_on_card(func: Any, output: Any) -> Any:
    """Return an operator's output with the types that it has on CUDA.

    Layer norm keeps mean and deviation in float32 on CUDA (ATen/native/cuda/layer_norm_kernel.cu), and in the
    input's type on the CPU.
    """
    if func is aten.native_layer_norm.default:
        normed, *moments = output
        return (normed, *(moment.float() for moment in moments))
    return output
