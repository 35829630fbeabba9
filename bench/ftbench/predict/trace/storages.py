"""The storages on the traced device: when each is allocated and freed, and what it is for."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from ftbench.predict.trace.answers import Answers
from ftbench.predict.trace.events import INPUT, Origin, Site, TraceBuilder, TracedRole
from ftbench.predict.trace.position import Position
from ftbench.predict.trace.source_line import source_line


class Storages:
    """Notes each storage that it is shown, and its end."""

    def __init__(self, builder: TraceBuilder, position: Position, answers: Answers) -> None:
        self._builder = builder
        self._position = position
        self._answers = answers
        self._live: dict[int, tuple[int, int]] = {}  # storage -> (block, bytes)
        self._watched: dict[int, weakref.ref[Any]] = {}  # block -> its storage
        self.closed = True  # nothing is noted: the trace has not begun, or it is over

    def close(self) -> None:
        """Stop watching."""
        self.closed = True
        self._watched.clear()

    def block_of(self, tensor: torch.Tensor) -> int | None:
        """Return the number of a tensor's storage; None where it was not noted."""
        known = self._live.get(tensor.untyped_storage()._cdata)
        return None if known is None else known[0]

    def mark(self, tensor: torch.Tensor, role: TracedRole, module: str) -> None:
        """Note what a storage is for, and the module whose parameter it belongs to."""
        block = self.block_of(tensor)
        if block is not None:
            self._builder.roles.setdefault(block, role)
            self._builder.owners.setdefault(block, module)

    def see(self, tensor: torch.Tensor, site: Site) -> None:
        """Note a tensor's storage, unless it was seen before and has its size still."""
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is not None:
            if known[1] != nbytes:
                # Resized: what it has now is there before what it had goes (`resize_bytes_cuda`).
                self._watch(storage, key, nbytes, site, tensor.dtype)
                self._builder.free(known[0], known[1], site)
            return
        self._watch(storage, key, nbytes, site, tensor.dtype)

    def _watch(self, storage: Any, key: int, nbytes: int, site: Site, dtype: torch.dtype) -> None:
        self._answers.forget(key)
        block = self._builder.allocate(nbytes, site)
        self._builder.origins[block] = Origin(str(dtype).removeprefix("torch."), source_line())
        self._live[key] = (block, nbytes)
        if site.phase == INPUT:
            self._builder.roles[block] = "inputs"

        def freed(_: Any) -> None:
            self._watched.pop(block, None)
            if self._live.get(key, (None,))[0] == block:
                del self._live[key]
                if not self.closed:
                    self._builder.free(block, nbytes, self._position.site())

        self._watched[block] = weakref.ref(storage, freed)
