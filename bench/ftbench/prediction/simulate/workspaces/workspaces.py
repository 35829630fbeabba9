"""The workspaces of a trace's kernels, in the order in which a process runs them."""

from __future__ import annotations

from collections.abc import Callable

from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime, Steps, allocate, free
from ftbench.prediction.simulate.workspaces.attention_backward import (
    efficient_attention_backward_workspace,
    flash_attention_backward_workspace,
)
from ftbench.prediction.simulate.workspaces.cublas import (
    copies_for_cublas,
    cublas_workspace_bytes,
    cublaslt_lifetime,
    cublaslt_workspace_bytes,
    uses_cublaslt,
)
from ftbench.prediction.simulate.workspaces.embedding import embedding_backward_workspace
from ftbench.prediction.simulate.workspaces.flash_attention import (
    flash_backward_workspace,
    flash_forward_workspace,
)
from ftbench.prediction.simulate.workspaces.four_bits import four_bit_product_workspace
from ftbench.prediction.simulate.workspaces.reductions import (
    column_sum_workspace,
    foreach_norm_workspace,
    layer_norm_backward_workspace,
)
from ftbench.prediction.trace.events import Kernel


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
        copies, names = copies_for_cublas(kernel.sizes[3:], kernel.traits[1])
        return (*copies, *self._product_itself(kernel), *free(*names))

    def _product_itself(self, kernel: Kernel) -> Steps:
        version, capability = self._runtime.torch_version, self._runtime.compute_capability
        handle: Steps = ()
        if kernel.autograd not in self._threads:
            self._threads.add(kernel.autograd)
            handle = (allocate("cublas", cublas_workspace_bytes(capability, version)),)
        lifetime = cublaslt_lifetime(version)
        bias = bool(kernel.traits[0])
        rows, inner, columns = kernel.sizes[:3]
        if lifetime == "shared" or not uses_cublaslt(
            rows, inner, columns, vector_bias=bias, torch_version=version
        ):
            return handle
        own = allocate("cublaslt", cublaslt_workspace_bytes(capability, version))
        if lifetime == "call":
            return (own, *handle, *free("cublaslt"))
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


def _of_package_forward(kernel: Kernel, runtime: Runtime) -> Steps:
    return flash_forward_workspace(*kernel.sizes, multiprocessors=runtime.multiprocessors)


def _of_package_backward(kernel: Kernel, runtime: Runtime) -> Steps:
    *sizes, key_heads = kernel.sizes
    element_bytes, varying = kernel.traits
    return flash_backward_workspace(
        *sizes, key_heads=key_heads, element_bytes=element_bytes, varying=bool(varying)
    )


def _of_four_bit_product(kernel: Kernel, runtime: Runtime) -> Steps:
    return four_bit_product_workspace(*kernel.sizes, element_bytes=kernel.traits[0])


_SCRATCH: dict[str, Callable[[Kernel, Runtime], Steps | None]] = {
    "aten::embedding_dense_backward": _of_embedding,
    "aten::sum": _of_column_sum,
    "aten::native_layer_norm_backward": _of_layer_norm,
    "aten::_foreach_norm": _of_norms,
    "aten::_scaled_dot_product_efficient_attention_backward": _of_efficient_attention,
    "aten::_scaled_dot_product_flash_attention_backward": _of_flash_attention,
    "bitsandbytes::gemm_4bit": _of_four_bit_product,
    "ftbench::flash_attention": _of_package_forward,
    "ftbench::flash_attention_backward": _of_package_backward,
}
