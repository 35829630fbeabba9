"""The tensors that an operator reads and writes, and their bytes: those that move without fusion and caches."""

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
