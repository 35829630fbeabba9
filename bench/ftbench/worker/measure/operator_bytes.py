"""The tensors that an operator reads and writes, with their bytes without fusion and caches; and its kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

# Operators that only allocate memory or change a shape: no kernel runs.
_NOTHING = frozenset(
    (
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "set_",
        "detach_",
    )
)
# Operators that write to a tensor without reading it.
_OVERWRITES = frozenset(
    ("zero_", "fill_", "copy_", "normal_", "uniform_", "_foreach_zero_", "_foreach_copy_")
)
# Operators that read only the selected rows of a table.
_GATHERS = frozenset(("embedding", "index_select", "gather"))


# The most tensors (by the number of lists) and chunks of one kernel launch over lists of tensors:
# ATen/native/cuda/MultiTensorApply.cuh (depth_to_max_tensors, depth_to_max_blocks, kChunkSize).
_TENSORS_PER_LAUNCH = (110, 64, 48, 36, 30)
_CHUNKS_PER_LAUNCH = 320
_CHUNK_ELEMENTS = 65536


class Touched(NamedTuple):
    """The tensors of an operator's kernels: those it reads, and those it writes, old or new.

    Of each tensor that is read, at most `most_read` bytes are; None if all are.
    """

    read: list[torch.Tensor]
    written: list[torch.Tensor]
    most_read: int | None

    def bytes_read(self, tensor: torch.Tensor) -> int:
        """Return the bytes that are read of one of the tensors."""
        nbytes = touched_bytes(tensor)
        return nbytes if self.most_read is None else min(nbytes, self.most_read)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all of them."""
        return sum(map(self.bytes_read, self.read)) + sum(map(touched_bytes, self.written))


def touched(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
    is_ours: Callable[[torch.Tensor], bool],
) -> Touched | None:
    """Return the tensors of an operator that count, each once; None for a view or a question about a shape."""
    name = func._schema.name.rpartition("::")[2]
    if name in _NOTHING:
        return None
    given = list(_distinct((args, kwargs), is_ours))
    changed = list(_distinct(_written(func, args, kwargs), is_ours))
    storages = {_storage(tensor) for tensor in given}
    made = [one for one in _distinct(output, is_ours) if _storage(one) not in storages]
    if not (changed or made):
        return None
    blind = name in _OVERWRITES or name.endswith("_like")  # its first argument is not read
    read = list(_distinct(args[1:], is_ours)) if blind else given
    return Touched(
        read, changed + made, sum(map(touched_bytes, made)) if name in _GATHERS else None
    )


def touched_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's distinct elements; an expanded dimension counts as one."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(sizes) * tensor.element_size() if tensor.numel() else 0


def launches(func: Any, args: tuple[Any, ...], output: Any) -> int:
    """Return the kernels that an operator launches on a card: one, unless it is over lists of tensors."""
    name = func._schema.name.rpartition("::")[2]
    lists = [arg for arg in (*args, output) if isinstance(arg, (list, tuple)) and arg]
    lists = [each for each in lists if all(isinstance(item, torch.Tensor) for item in each)]
    if not (lists and name.startswith(("_foreach", "_fused", "_amp_foreach"))):
        return 1
    depth = min(len(lists), len(_TENSORS_PER_LAUNCH))
    chunks = sum(math.ceil(tensor.numel() / _CHUNK_ELEMENTS) for tensor in lists[0])
    by_tensors = math.ceil(len(lists[0]) / _TENSORS_PER_LAUNCH[depth - 1])
    return max(by_tensors, math.ceil(chunks / _CHUNKS_PER_LAUNCH))


def _distinct(tree: Any, is_ours: Callable[[torch.Tensor], bool]) -> Iterator[torch.Tensor]:
    """Yield the tensors of a tree that are ours, each once."""
    seen: set[tuple[Any, ...]] = set()
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor) and is_ours(leaf):
            key = (_storage(leaf), leaf.storage_offset(), leaf.shape, leaf.stride())
            if key not in seen:
                seen.add(key)
                yield leaf


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments that an operator writes to."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[place] if place < len(args) else kwargs.get(argument.name))
    return found
