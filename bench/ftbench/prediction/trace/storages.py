"""The storages on the traced device: the allocation, the end and the role of each."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from ftbench.prediction.trace.events import INPUT, Origin, Site, TraceBuilder, TracedRole
from ftbench.prediction.trace.patches import replaced
from ftbench.prediction.trace.position import Position
from ftbench.prediction.trace.scalar_answers import Answers
from ftbench.prediction.trace.source_line import source_line
from ftbench.prediction.trace.streams import Streams


class Storages:
    """Records each storage that it is shown, and its end."""

    def __init__(
        self, builder: TraceBuilder, position: Position, answers: Answers, streams: Streams
    ) -> None:
        self._builder = builder
        self._streams = streams
        self._position = position
        self._answers = answers
        self._live: dict[int, tuple[int, int]] = {}  # storage -> (block, bytes)
        self._watched: dict[int, weakref.ref[Any]] = {}  # block -> its storage
        self.closed = True  # nothing is recorded: the trace has not begun, or has ended

    def close(self) -> None:
        """Stop watching."""
        self.closed = True
        self._watched.clear()

    def block_of(self, tensor: torch.Tensor) -> int | None:
        """Return the number of a tensor's storage; None if it was not recorded."""
        known = self._live.get(tensor.untyped_storage()._cdata)
        return None if known is None else known[0]

    def mark(self, tensor: torch.Tensor, role: TracedRole, module: str) -> None:
        """Record a storage's role, and the module whose parameter it belongs to."""
        tensor = getattr(tensor, "_local_tensor", tensor)  # of a DTensor
        if is_functorch_wrapped_tensor(tensor):  # of `torch.func`; what it stands for has a storage
            return
        block = self.block_of(tensor)
        if block is not None:
            self._builder.roles.setdefault(block, role)
            self._builder.owners.setdefault(block, module)

    def see(self, tensor: torch.Tensor, site: Site) -> None:
        """Record a tensor's storage, unless it was recorded before with the same size."""
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is not None:
            if known[1] != nbytes:
                self.resized(storage, site)
            return
        self._watch(storage, key, nbytes, site, str(tensor.dtype).removeprefix("torch."))

    def resized(self, storage: Any, site: Site) -> None:
        """Record the new size of a storage; one that was not recorded before is not on the device.

        The new memory is allocated before the old is freed (`resize_bytes_cuda`).
        """
        key, nbytes = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is None or known[1] == nbytes:
            return
        old, builder = known[0], self._builder
        block = self._watch(storage, key, nbytes, site, builder.origins[old].dtype)
        if old in builder.roles:
            builder.roles[block] = builder.roles[old]
        if old in builder.owners:
            builder.owners[block] = builder.owners[old]
        self._free(*known, site)

    def _watch(self, storage: Any, key: int, nbytes: int, site: Site, dtype: str) -> int:
        self._answers.forget(key)
        block = self._builder.allocate(nbytes, site, self._streams.current.number)
        self._builder.origins[block] = Origin(dtype, source_line())
        self._live[key] = (block, nbytes)
        if site.phase == INPUT:
            self._builder.roles[block] = "inputs"

        def freed(_: Any) -> None:
            self._watched.pop(block, None)
            if self._live.get(key, (None,))[0] == block:
                del self._live[key]
                if not self.closed:
                    self._free(block, nbytes, self._position.site())

        self._watched[block] = weakref.ref(storage, freed)
        return block

    def _free(self, block: int, nbytes: int, site: Site) -> None:
        if self._streams.freed(block):
            self._builder.share(block)
        self._builder.free(block, nbytes, site)


@contextlib.contextmanager
def storages_resized(notify: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Call `notify` with each storage that code resizes itself: `tensor.untyped_storage().resize_(0)`."""

    def make(original: Any) -> Any:
        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            resized = original(storage, size)
            notify(storage)
            return resized

        return resize

    with replaced(torch.UntypedStorage, "resize_", make):
        yield
