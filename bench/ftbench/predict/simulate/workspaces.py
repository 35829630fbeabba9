"""Workspaces: what kernels allocate through the caching allocator, unseen by a dispatch-level trace.

Sizes follow from shapes, the card and the version of torch; each rule names the function it comes
from (below aten/src/ATen unless said otherwise). *Estimate* marks what is not exact: the temporary
storage of cub, which differs a little between architectures and versions of CUDA.

None: softmax, dropout, cross entropy, layer norm's forward, elementwise and foreach arithmetic.
Unknown, and left out: split-K inside cuBLAS (it uses the workspace it was given), cuDNN, Triton,
flash attention's forward in split-KV form (few heads x rows, no dropout), efficient attention's
backward for heads above 64, sort, topk, nonzero, cumsum, index_put with accumulation.
Environment variables (CUBLAS_WORKSPACE_CONFIG, CUBLASLT_WORKSPACE_SIZE,
TORCH_CUBLASLT_UNIFIED_WORKSPACE) are taken to be unset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ftbench.base.units import KIB, MIB
from ftbench.predict.trace.events import Kernel

Version = tuple[int, int]
FLOAT_BYTES = 4  # kernels accumulate 16-bit and 32-bit floats in this


@dataclass(frozen=True)
class Runtime:
    """The card and the torch that workspaces depend on. The default is an A100 with torch 2.13."""

    compute_capability: tuple[int, int] = (8, 0)
    torch_version: Version = (2, 13)
    multiprocessors: int = 108
    threads_per_multiprocessor: int = 2048  # 1536 for capability 8.6, 8.9 and 12.0, 1024 for 7.5

    def __post_init__(self) -> None:
        if self.multiprocessors < 1 or self.threads_per_multiprocessor < 1:
            raise ValueError(
                f"{self.multiprocessors} multiprocessors of {self.threads_per_multiprocessor} "
                "threads; expected at least 1 of either"
            )


class Step(NamedTuple):
    """One thing an operator does to the allocator; `output` is where it allocates its result."""

    action: Literal["allocate", "free", "output"]
    name: str
    nbytes: int = 0


Steps = tuple[Step, ...]


def _allocate(name: str, nbytes: int) -> Step:
    return Step("allocate", name, nbytes)


def _free(*names: str) -> Steps:
    return tuple(Step("free", name) for name in names)


def _transient(name: str, nbytes: int) -> Steps:
    return (_allocate(name, nbytes), *_free(name))


def _ceil_div(value: int, unit: int) -> int:
    return -(-value // unit)


def _round_up(value: int, unit: int) -> int:
    return _ceil_div(value, unit) * unit


# Matrix products


def cublas_workspace_bytes(
    compute_capability: tuple[int, int], torch_version: Version = (2, 13)
) -> int:
    """Return the bytes of one cuBLAS workspace (cuda/CublasHandlePool.cpp parseChosenWorkspaceSize).

    There is one for each (handle, stream), and a handle belongs to a host thread: a training step has
    one for the forward thread and one for the autograd thread. It is allocated at that thread's first
    product, after the product's output, and stays. 32 MiB on Hopper, and from 2.12 on Blackwell
    (#175344, merged while 2.11 was being cut: 2.11 may have it); elsewhere `:4096:2:16:8`.
    """
    major = compute_capability[0]
    if compute_capability == (9, 0) or (torch_version >= (2, 12) and major in (9, 10, 12)):
        return 32 * MIB
    return 2 * 4096 * KIB + 8 * 16 * KIB


LtLifetime = Literal["call", "handle", "shared"]


def cublaslt_lifetime(torch_version: Version) -> LtLifetime:
    """Return how long a cuBLASLt workspace lives: one call, as long as its handle, or it is cuBLAS's.

    `call` to 2.8: cuda/CUDABlas.cpp gemm_and_bias allocates it and frees it on return, before it asks
    for the cuBLAS handle (so before the workspace of that one, where it is the thread's first).
    `handle` from 2.9 (#156495): one for each (handle, stream), made after the cuBLAS workspace.
    `shared` from 2.12 (#175879): the default TORCH_CUBLASLT_UNIFIED_WORKSPACE came into effect, and
    cuBLASLt uses the workspace of cuBLAS. (#168175 in 2.11 changed the size alone.) Builds after 2.13
    may not keep workspaces at all (TORCH_CUBLAS_WORKSPACE_CACHE): unknown here.
    """
    if torch_version < (2, 9):
        return "call"
    return "handle" if torch_version < (2, 12) else "shared"


def cublaslt_workspace_bytes(compute_capability: tuple[int, int], torch_version: Version) -> int:
    """Return the bytes of a cuBLASLt workspace of its own; 0 where it shares that of cuBLAS.

    1 MiB on every card (cuda/CUDABlas.cpp _parseChosenWorkspaceSize to 2.8, then
    cuda/CublasHandlePool.cpp parseCUDABlasLtWorkspaceSize). The larger ones of #120925 (2024) were
    taken back.
    """
    del compute_capability  # no version from 2.6 on looks at it, except by way of cuBLAS's
    return 0 if cublaslt_lifetime(torch_version) == "shared" else 1 * MIB


def uses_cublaslt(
    rows: int, inner: int, columns: int, *, vector_bias: bool, torch_version: Version = (2, 13)
) -> bool:
    """Return whether `addmm(bias, (rows, inner), (inner, columns))` goes through cuBLASLt.

    native/cuda/Blas.cpp, addmm_out_cuda_impl (2.6: `useLtInterface`) and isInputCompliesAddmmCudaLt
    (from 2.10, #163955): out of place, beta 1, a contiguous bias of one dimension that is as long as
    the result is wide, a contiguous result, a float type (64, 32 or 16 bits), and more than one row
    and column in the second matrix; the later one asks that of the first matrix too. A plain product
    (mm, bmm, baddbmm) never does. The case of a fused activation (_addmm_activation) is left out.
    From 2.12 on nothing depends on it here (`cublaslt_lifetime`).
    """
    if not vector_bias or inner <= 1 or columns <= 1:
        return False
    return rows > 1 or torch_version < (2, 10)


# Embeddings

# native/cuda/Embedding.cu embedding_dense_backward_cuda: up to here, a kernel without workspace
EMBEDDING_SORT_ABOVE = 3072
_ROWS_PER_THREAD = 10  # native/cuda/EmbeddingBackwardKernel.cu NROWS_PER_THREAD
_FUSED_BLOCKS_PER_MULTIPROCESSOR = 4  # the same: MAX_ATOMIC_ACCUM_BLOCKS_PER_SM
_MAX_BLOCK = 1024  # native/cuda/SortingCommon.cuh MAX_BLOCK_SIZE
_SORT_TILE = (
    3840  # keys a block sorts: 384 threads x 10 (cub's Policy800, keys and values of 8 bytes)
)


def embedding_backward_workspace(
    indices: int,
    width: int,
    rows: int,
    *,
    runtime: Runtime | None = None,
    element_bytes: int = 4,
    index_bytes: int = 8,
) -> Steps:
    """Return what embedding_dense_backward does around its result; nothing for up to 3072 indices.

    `indices` counts the tokens, `rows` the vocabulary. In the order of native/cuda/Embedding.cu
    embedding_dense_backward_cuda and EmbeddingBackwardKernel.cu embedding_backward_cuda_kernel, with
    `scale_grad_by_freq` off and a contiguous gradient. padding_idx makes no difference. Estimates:
    `sort_storage`, `unique_storage`, `scan_storage`.
    """
    if indices <= EMBEDDING_SORT_ABOVE:
        return ()
    runtime = runtime or Runtime()
    per_index = indices * index_bytes
    segments = min(indices, rows)
    partials = indices // _ROWS_PER_THREAD + segments
    return (
        _allocate("sorted_indices", per_index),
        _allocate("orig_indices", per_index),
        _allocate("range", per_index),
        *_transient("sort_storage", _sort_storage(indices, index_bytes)),
        *_free("range"),
        Step("output", "grad_weight"),
        _allocate("segment_offsets", per_index),
        _allocate("num_of_segments", 8),
        _allocate("unique_keys", per_index),  # cuda/cub.cuh unique_by_key
        *_transient("unique_storage", _scan_storage(indices)),
        *_free("unique_keys"),
        _allocate("partials_per_segment", segments * index_bytes),
        _allocate("partials_per_segment_offset", segments * index_bytes),
        *_transient("scan_storage", _scan_storage(segments)),
        _allocate("num_of_partial_segments", 8),
        _allocate("partial_segment_offset", partials * index_bytes),
        *_embedding_sums((rows, width), segments, partials, runtime, (element_bytes, index_bytes)),
        *_free(
            "partial_segment_offset",
            "num_of_partial_segments",
            "partials_per_segment_offset",
            "partials_per_segment",
            "num_of_segments",
            "segment_offsets",
            "orig_indices",
            "sorted_indices",
        ),
    )


def _embedding_sums(
    shape: tuple[int, int],
    segments: int,
    partials: int,
    runtime: Runtime,
    item_bytes: tuple[int, int],
) -> Steps:
    # From 2.11 (#170589; the version by its date), few and large segments are added up by atomic
    # operations instead (`use_fused_kernel`).
    (rows, width), (element_bytes, index_bytes) = shape, item_bytes
    warped = _round_up(width, 32)
    blocks = _ceil_div(segments * warped, min(warped, _MAX_BLOCK))
    fused = (
        runtime.torch_version >= (2, 11)
        and blocks < runtime.multiprocessors * _FUSED_BLOCKS_PER_MULTIPROCESSOR
        and partials > 4 * blocks
    )
    if not fused:
        accumulator = max(element_bytes, FLOAT_BYTES)
        return _transient("grad_weight_per_segment", partials * width * accumulator)
    found = _allocate("partial_to_segment_idx", partials * index_bytes)
    if element_bytes >= FLOAT_BYTES:
        return (found, *_free("partial_to_segment_idx"))
    sums = _transient("grad_weight_acc", rows * width * FLOAT_BYTES)
    return (found, *sums, *_free("partial_to_segment_idx"))


def _sort_storage(count: int, index_bytes: int) -> int:
    # An estimate. cub/device/dispatch/dispatch_radix_sort.cuh InvokeOnesweep: a second buffer of keys
    # and of values, 256 bins a pass of 8 bits, the look-back of 256 integers a tile, a counter a pass.
    passes = index_bytes
    parts = (
        passes * 256 * 8,
        _ceil_div(count, _SORT_TILE) * 256 * 4,
        count * index_bytes,
        count * index_bytes,
        passes * 4,
    )
    return sum(_round_up(part, 256) for part in parts)


def _scan_storage(count: int) -> int:
    # An estimate: cub's decoupled look-back keeps 16 bytes a tile, of about a thousand items.
    return 16 * _ceil_div(count, 1024) + 768


# Reductions


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
    grid = _ceil_div(columns // vector, width)
    target = runtime.multiprocessors * (runtime.threads_per_multiprocessor // (width * height))
    values = _ceil_div(rows, height)
    if values < 256 or grid > target:
        return ()
    shares = max(min(_ceil_div(target, grid), _ceil_div(values, 16)), _ceil_div(values, 256))
    if shares <= 1:
        return ()
    return (
        _allocate("reduce_buffer", FLOAT_BYTES * columns * shares * width * vector),
        _allocate("reduce_semaphores", 4 * grid),
        *_free("reduce_semaphores", "reduce_buffer"),
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
    across = _ceil_div(width, 32)
    down = min(32 * KIB // across, _ceil_div(rows, 32))
    nbytes = down * width * element_bytes
    return (
        _allocate("dgamma_blocks", nbytes),
        _allocate("dbeta_blocks", nbytes),
        *_free("dbeta_blocks", "dgamma_blocks"),
    )


def foreach_norm_workspace(elements: list[int]) -> Steps:
    """Return what _foreach_norm allocates for tensors of these sizes, before its results.

    native/cuda/ForeachReduceOp.cu foreach_tensor_norm_cuda: a float for every chunk of 65,536
    elements, for each tensor as many as the largest has. It is freed after the results were made.
    """
    if not elements:
        return ()
    chunks = _ceil_div(max(elements), 64 * KIB)
    return (
        _allocate("output_per_tensor", len(elements) * chunks * FLOAT_BYTES),
        Step("output", "norms"),
        *_free("output_per_tensor"),
    )


# Attention

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
    tiles = batch * heads * _ceil_div(queries, 64)
    delta = batch * heads * queries * FLOAT_BYTES
    steps: Steps = (_allocate("delta", delta),)
    if element_bytes == FLOAT_BYTES:
        steps = (
            _allocate("products", delta * head_size),
            _allocate("sums", delta),
            _allocate("delta", delta),
            *_free("sums", "products"),  # temporaries of one expression
        )
    workspace = _allocate("workspace", tiles * _GRAD_QUERY_TILE)
    return (*steps, workspace, *_free("delta", "workspace"))


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
    rounded = _round_up(queries, 128)
    size = _round_up(head_size, 32 if head_size <= 128 else 64)
    steps = [
        _allocate("softmax_d", batch * heads * rounded * FLOAT_BYTES),
        _allocate("dq_accum", batch * rounded * heads * size * FLOAT_BYTES),
    ]
    names = ["dq_accum", "softmax_d"]
    if key_heads is not None and key_heads != heads:
        expanded = batch * keys * heads * head_size * element_bytes
        steps += [_allocate("dk_expanded", expanded), _allocate("dv_expanded", expanded)]
        names = ["dv_expanded", "dk_expanded", *names]
    return (*steps, *_free(*names))


# A trace's kernels


class Workspaces:
    """What the kernels of one process allocate, in order: it remembers which handles have a workspace."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._threads: set[bool] = set()  # that have a cuBLAS handle: forward, autograd
        self._lt_threads: set[bool] = set()  # that have a cuBLASLt workspace

    def of(self, kernel: Kernel) -> tuple[Steps, Steps]:
        """Return what a kernel does before its results are allocated, and after."""
        steps = self.steps(kernel)
        place = next((i for i, step in enumerate(steps) if step.action == "output"), -1)
        return steps[: max(place, 0)], steps[place + 1 :]

    def steps(self, kernel: Kernel) -> Steps:
        """Return what a kernel does, in order. What it allocates and does not free stays."""
        if kernel.operator in _PRODUCTS:
            return self._product(kernel)
        scratch = _SCRATCH.get(kernel.operator)
        return scratch(kernel, self._runtime) or () if scratch else ()

    def _product(self, kernel: Kernel) -> Steps:
        version, capability = self._runtime.torch_version, self._runtime.compute_capability
        handle: Steps = ()
        if kernel.autograd not in self._threads:
            self._threads.add(kernel.autograd)
            handle = (_allocate("cublas", cublas_workspace_bytes(capability, version)),)
        lifetime = cublaslt_lifetime(version)
        bias = bool(kernel.traits[0])
        rows, inner, columns = kernel.sizes
        if lifetime == "shared" or not uses_cublaslt(
            rows, inner, columns, vector_bias=bias, torch_version=version
        ):
            return handle
        own = _allocate("cublaslt", cublaslt_workspace_bytes(capability, version))
        if lifetime == "call":
            return (own, *handle, *_free("cublaslt"))
        if kernel.autograd in self._lt_threads:
            return handle
        self._lt_threads.add(kernel.autograd)
        return (*handle, own)


_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def _of_embedding(kernel: Kernel, runtime: Runtime) -> Steps:
    indices, width, rows = kernel.sizes
    element_bytes, index_bytes = kernel.traits
    return embedding_backward_workspace(
        indices,
        width,
        rows,
        runtime=runtime,
        element_bytes=element_bytes,
        index_bytes=index_bytes,
    )


def _of_column_sum(kernel: Kernel, runtime: Runtime) -> Steps:
    rows, columns = kernel.sizes
    return column_sum_workspace(rows, columns, runtime, element_bytes=kernel.traits[0])


def _of_layer_norm(kernel: Kernel, runtime: Runtime) -> Steps:
    rows, width = kernel.sizes
    return layer_norm_backward_workspace(rows, width, runtime, element_bytes=kernel.traits[0])


def _of_norms(kernel: Kernel, runtime: Runtime) -> Steps:
    count, largest = kernel.traits
    return foreach_norm_workspace([largest] * count)


def _of_efficient_attention(kernel: Kernel, runtime: Runtime) -> Steps | None:
    batch, heads, queries, _, width, _ = kernel.sizes
    return efficient_attention_backward_workspace(
        batch, heads, queries, width, element_bytes=kernel.traits[0]
    )


def _of_flash_attention(kernel: Kernel, runtime: Runtime) -> Steps:
    *sizes, key_heads = kernel.sizes
    return flash_attention_backward_workspace(
        *sizes, key_heads=key_heads, element_bytes=kernel.traits[0]
    )


_SCRATCH: dict[str, Callable[[Kernel, Runtime], Steps | None]] = {
    "aten::embedding_dense_backward": _of_embedding,
    "aten::sum": _of_column_sum,
    "aten::native_layer_norm_backward": _of_layer_norm,
    "aten::_foreach_norm": _of_norms,
    "aten::_scaled_dot_product_efficient_attention_backward": _of_efficient_attention,
    "aten::_scaled_dot_product_flash_attention_backward": _of_flash_attention,
}
