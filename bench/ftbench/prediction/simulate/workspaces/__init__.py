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
