"""Results whose sizes depend on data: `nonzero`, `unique_consecutive`, a mask as an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map_only

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.batch_values import BatchValues
from ftbench.prediction.trace.source_line import source_line

# Runs an operator with its positional and keyword arguments.
Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

aten = torch.ops.aten
_READ = frozenset({aten.index.Tensor})
_WRITTEN = frozenset(
    {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
)


def result_of_known_size(
    values: BatchValues,
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
) -> Any:
    """Return an operator's result, without data, if it has the same sizes in every batch.

    Else raises PredictionError, from torch's error for a size that depends on data.
    """
    results = values.results(func, args, kwargs) or ()
    sizes = {tuple((leaf.shape, leaf.stride()) for leaf in _tensors(result)) for result in results}
    fakes = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor)]
    if len(sizes) != 1 or not fakes:
        raise PredictionError(
            "the size of a result depends on the data",
            where=str(func),
            got=source_line(),
            hint="only steps whose tensors have the same sizes for any data can be traced",
        ) from error
    device = fakes[0].fake_device
    return tree_map_only(
        torch.Tensor,
        lambda leaf: torch.empty_strided(
            leaf.size(), leaf.stride(), dtype=leaf.dtype, device=device
        ),
        results[0],
    )


def with_numbers(
    run: Run, values: BatchValues, func: Any, args: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return an operator's arguments with the numbers that a known mask selects, in place of the mask as an index.

    So does torch inside the operator (`expandTensors` in ATen/native/IndexingUtils.h). One value for all that a
    mask selects needs no numbers (`canDispatchToMaskedFill` in ATen/native/TensorAdvancedIndexing.cpp).
    """
    filled = func in _WRITTEN and args[2].numel() == 1
    if func not in _READ | _WRITTEN or filled:
        return args
    numbers: list[Any] = []
    for index in args[1]:
        if index is None or index.dtype is not torch.bool or values.of(index) is None:
            numbers.append(index)
            continue
        found = run(aten.nonzero.default, (index,), {})
        numbers += [run(aten.select.int, (found, 1, dim), {}) for dim in range(index.dim())]
    return (args[0], numbers, *args[2:])


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
