"""Products with weights of 8 bits (LLM.int8, Dettmers et al. 2022), as bitsandbytes 0.50.2 makes them on a card.

`MatMul8bitLt` (autograd/_functions.py 101), the layers and their parameters are the package's own; what it calls is
here, since torch cannot run it without data. For r rows of k inputs, o outputs and h bytes per input:

    int8_vectorwise_quant      backends/cuda/ops.py 213
      row_stats                r float32                      227
      out_row                  r * k bytes                    228
      abs, outliers            r * k float16, r * k bytes     234, while the columns are looked for
    int8_mixed_scaled_mm       backends/default/ops.py 64
      subA                     r * c * h                      78, kept until the backward pass; c outlier columns
      subB                     o * c * h                      82, dequantized by way of float32
      out_i32                  r * o int32                    112 and backends/cuda/ops.py 81
      out                      r * o float16                  backends/cuda/ops.py 188, then in the inputs' type
      output                   r * o * h                      98, the outliers' product added

Which columns are outliers depends on the data. A trace has the most that the paper found, or none
(`Target.outlier_columns`).
"""

from __future__ import annotations

from typing import Any

import torch

# The paper's section 4: at most 7 dimensions have outliers in each model of up to 13 billion parameters.
MOST_OUTLIER_COLUMNS = 7
_STEP = 1 / 127
# cuBLASLt's products of 8 bits need inner dimensions that are multiples of this (backends/cuda/ops.py 126).
_INNER_MULTIPLE = 4


class EightBitProducts:
    """What bitsandbytes calls for weights of 8 bits, with this many outlier columns."""

    def __init__(self, outlier_columns: int) -> None:
        """Make products whose inputs have so many outlier columns."""
        self._columns = outlier_columns

    def quantize(self, values: torch.Tensor, threshold: float = 0.0) -> tuple[Any, ...]:
        """Return rows of 8 bits, their scales, and the numbers of outlier columns, None without a threshold."""
        width = values.shape[-1]
        scales = values.new_empty(values.numel() // width, dtype=torch.float32)
        rows = torch.empty(values.shape, device=values.device, dtype=torch.int8)
        if not threshold:
            return rows, scales, None
        outliers = values.abs() >= threshold
        outliers.any()
        columns = torch.zeros(min(self._columns, width), device=values.device, dtype=torch.int64)
        del outliers
        return rows, scales, columns

    def multiply(
        self,
        values: torch.Tensor,
        rows: torch.Tensor,
        weight: torch.Tensor,
        row_scales: torch.Tensor,
        weight_scales: torch.Tensor,
        columns: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the product, and the inputs' outlier columns, which autograd keeps."""
        if not columns.numel():
            return _scaled_product(values, rows, weight, bias), values.new_empty(0)
        outliers = values[:, columns].contiguous()
        whole = weight[:, columns].contiguous() * weight_scales.view(-1, 1) * _STEP
        whole = whole.to(values.dtype).t()
        product = _scaled_product(values, rows, weight, bias)
        return product.addmm(outliers, whole), outliers


def _scaled_product(
    values: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the product of rows and weight, both of 8 bits, in the type of the inputs."""
    size = (*rows.shape[:-1], weight.shape[0])
    product = torch.empty(size, device=rows.device, dtype=torch.int32)
    if rows.shape[-1] % _INNER_MULTIPLE:
        product.copy_(torch.matmul(rows.float(), weight.float().t()).to(torch.int32))
    scaled = torch.empty_like(product, dtype=torch.float16)
    if bias is not None and bias.dtype is not torch.float16:
        scaled.add_(bias)
    return scaled.to(values.dtype)
