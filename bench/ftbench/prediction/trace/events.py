"""Events: the allocations and frees of training steps in order. Plain data.

A `Trace` is a table with one row per event: a storage is allocated, a storage is freed, or a kernel
runs that may allocate a workspace of its own (`Kernel`; its size depends on the card and is decided by the
simulation, not by the trace).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Role = Literal["parameters", "gradients", "optimizer state", "inputs", "activations", "temporaries"]
# The roles that a tracer observes; the other two follow from lifetimes (`Trace.roles`).
TracedRole = Literal["parameters", "gradients", "optimizer state", "inputs"]

SETUP, INPUT, FORWARD, BACKWARD, OPTIMIZER = "setup", "input", "forward", "backward", "optimizer"
EVALUATION = "evaluation"
AFTER_BACKWARD = "after backward"  # clipping, until the optimizer or the next forward


# The role of a block without an observed role, by the phase that made it and that it has outlived.
_UNSEEN: dict[str, Role] = {FORWARD: "activations", SETUP: "inputs"}


class Kind(IntEnum):
    """The kind of an event."""

    FREE = 0
    ALLOCATE = 1
    KERNEL = 2  # a kernel that may need a workspace begins; its results are allocated next
    RESULT = 3  # its results are allocated, and the kernel runs
    REUSE = 4  # the host knows that no other stream uses a block any more, which was freed earlier


class Site(NamedTuple):
    """The origin of an event: phase, step (counted from 1; 0 before the first), module, operator."""

    phase: str
    step: int
    module: str
    operator: str


class Origin(NamedTuple):
    """A block's element type, and the line of code that allocated it.

    `source` is `file:line` of the innermost frame outside of torch, accelerate and ftbench; empty if there is
    none, as in a backward pass.
    """

    dtype: str
    source: str


class Kernel(NamedTuple):
    """A kernel that may need a workspace: its operator, the sizes that decide the workspace, its thread.

    `sizes` may vary with batch and length; `traits` (flags, element sizes) may not. `autograd` says in which of
    the two host threads of a training step it runs: each has a cuBLAS handle of its own.
    """

    operator: str
    sizes: tuple[int, ...]
    traits: tuple[int, ...]
    autograd: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Every allocation and free of a few training steps, in order.

    `kind`, `block`, `nbytes` and `site` have one entry per event. `block` numbers storages from 0 in
    order of allocation (for a kernel: its index in `kernels`); `nbytes` is the requested size, equal at
    allocation and free, 0 for a kernel; `site` is an index in `sites`. `owners` has the module of the
    parameter that a block belongs to, as the parameter, its gradient or its optimizer state; `origins` are for
    people to read, and decide nothing. `streams` has the number of the CUDA stream that each block was allocated
    on, 0 for the default one; it is empty if all were allocated there. `shared` are the blocks that other streams
    may still use when they are freed; an event `REUSE` says from when on the host knows that none does.
    `managed_bytes` are in CUDA's managed memory, which is in no event: the allocator does not know it, and the
    driver moves it to the host if the card is full. `communicators` is the number of groups of ranks that have
    communicated.
    """

    kind: NDArray[np.int8]
    block: NDArray[np.int32]
    nbytes: NDArray[np.int64]
    site: NDArray[np.int32]
    sites: tuple[Site, ...]
    kernels: tuple[Kernel, ...]
    traced_roles: dict[int, TracedRole]
    owners: dict[int, str] = dataclasses.field(default_factory=dict)
    versions: tuple[tuple[str, str], ...] = ()
    origins: dict[int, Origin] = dataclasses.field(default_factory=dict)
    managed_bytes: int = 0
    communicators: int = 0
    streams: tuple[int, ...] = ()
    shared: frozenset[int] = frozenset()

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.kind)

    @property
    def live_bytes(self) -> NDArray[np.int64]:
        """Return the bytes requested and not yet freed after each event."""
        return np.cumsum(self.signs * self.nbytes)

    @property
    def signs(self) -> NDArray[np.int64]:
        """Return +1 for an allocation, -1 for a free and 0 for all else."""
        return np.array([-1, 1, 0, 0, 0], dtype=np.int64)[self.kind]

    @property
    def peak_bytes(self) -> int:
        """Return the largest sum of live requested bytes, without workspaces."""
        return int(self.live_bytes.max(initial=0))

    @property
    def peak_event(self) -> int:
        """Return the number of the event that first reaches the peak."""
        return int(self.live_bytes.argmax()) if len(self) else 0

    @property
    def peak_blocks(self) -> int:
        """Return the number of storages that are live at the peak; empty ones take nothing on a card."""
        counted = self.signs * (self.nbytes > 0)
        return int(np.cumsum(counted)[self.peak_event]) if len(self) else 0

    def live_at(self, event: int) -> list[int]:
        """Return the rows of the allocations that are live after an event, oldest first."""
        live: dict[int, int] = {}
        rows = zip(self.kind[: event + 1].tolist(), self.block[: event + 1].tolist(), strict=True)
        for row, (kind, block) in enumerate(rows):
            if kind == Kind.ALLOCATE:
                live[block] = row
            elif kind == Kind.FREE:
                del live[block]
        return list(live.values())

    def roles(self) -> dict[int, Role]:
        """Return the role of each block.

        A block without an observed role is an activation if it was made in a forward pass and lives until the
        backward pass, an input if it was made before the first step and lives in it, else a temporary.
        """
        found: dict[int, Role] = dict(self.traced_roles)
        allocated: dict[int, int] = {}
        backward = [site.phase == BACKWARD for site in self.sites]
        passes = np.cumsum(np.diff(np.array([backward[s] for s in self.site]), prepend=False) > 0)
        for row, (kind, block, site) in enumerate(self.rows()):
            if kind == Kind.ALLOCATE:
                allocated[block] = row
            elif kind == Kind.FREE and block not in found:
                born, ended = allocated[block], self.sites[site].phase
                began = self.sites[self.site[born]].phase
                waited = passes[row] > passes[born] or ended == BACKWARD
                outlived = waited if began == FORWARD else ended != began
                found[block] = _UNSEEN.get(began, "temporaries") if outlived else "temporaries"
        for block, row in allocated.items():
            began = self.sites[self.site[row]].phase
            found.setdefault(block, _UNSEEN.get(began, "temporaries"))
        return found

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Yield (kind, block, site) of each event, as plain integers."""
        yield from zip(self.kind.tolist(), self.block.tolist(), self.site.tolist(), strict=True)

    def same_events(self, other: Trace) -> bool:
        """Return whether another trace has the same events, apart from their sizes."""
        return (
            len(self) == len(other)
            and np.array_equal(self.kind, other.kind)
            and np.array_equal(self.block, other.block)
            and np.array_equal(self.site, other.site)
            and self.sites == other.sites
            and self.streams == other.streams
            and self.shared == other.shared
            and [(k.operator, k.traits, k.autograd, len(k.sizes)) for k in self.kernels]
            == [(k.operator, k.traits, k.autograd, len(k.sizes)) for k in other.kernels]
        )


class TraceBuilder:
    """Collects events while they happen."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._sites: dict[Site, int] = {}
        self._kernels: list[Kernel] = []
        self._streams: list[int] = []  # of each block
        self._shared: set[int] = set()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.managed_bytes = 0
        self.roles: dict[int, TracedRole] = {}
        self.owners: dict[int, str] = {}
        self.origins: dict[int, Origin] = {}

    @property
    def blocks(self) -> int:
        """Return the number of blocks so far."""
        return len(self._streams)

    def allocate(self, nbytes: int, site: Site, stream: int = 0) -> int:
        """Record an allocation on a stream and return its block."""
        block = len(self._streams)
        self._streams.append(stream)
        self._rows.append((Kind.ALLOCATE, block, nbytes, self._number(site)))
        self.live_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return block

    def free(self, block: int, nbytes: int, site: Site) -> None:
        """Record that a block is freed."""
        self._rows.append((Kind.FREE, block, nbytes, self._number(site)))
        self.live_bytes -= nbytes

    @property
    def events(self) -> int:
        """Return the number of events so far."""
        return len(self._rows)

    def share(self, block: int) -> None:
        """Note that other streams may use a block when it is freed."""
        self._shared.add(block)

    def reuse(self, block: int, site: Site) -> None:
        """Record that no other stream uses a block any more, which was freed earlier."""
        self._rows.append((Kind.REUSE, block, 0, self._number(site)))

    def stream_of(self, block: int) -> int:
        """Return the number of the stream on which a block was allocated."""
        return self._streams[block]

    @contextlib.contextmanager
    def kernel(self, kernel: Kernel | None, site: Site) -> Iterator[None]:
        """Record a kernel whose results are allocated in the body; nothing for None."""
        if kernel is None:  # no site either, since sites without events may depend on the shape
            yield
            return
        number, place = len(self._kernels), self._number(site)
        self._kernels.append(kernel)
        self._rows.append((Kind.KERNEL, number, 0, place))
        yield
        self._rows.append((Kind.RESULT, number, 0, place))

    def _number(self, site: Site) -> int:
        return self._sites.setdefault(site, len(self._sites))

    def build(self, versions: Sequence[tuple[str, str]] = ()) -> Trace:
        """Return the trace so far.

        Frees without other events between them are sorted by block: autocast drops its cache of weights in the
        order of a hash table, and the order makes no difference to an allocator.
        """
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 4)
        frees = rows[:, 0] == Kind.FREE
        run = np.cumsum(np.diff(frees, prepend=False) | ~frees)
        rows = rows[np.lexsort((np.where(frees, rows[:, 1], 0), run))]
        return Trace(
            kind=rows[:, 0].astype(np.int8),
            block=rows[:, 1].astype(np.int32),
            nbytes=rows[:, 2].copy(),
            site=rows[:, 3].astype(np.int32),
            sites=tuple(self._sites),
            kernels=tuple(self._kernels),
            traced_roles=dict(self.roles),
            owners=dict(self.owners),
            versions=tuple(versions),
            origins=dict(self.origins),
            managed_bytes=self.managed_bytes,
            streams=tuple(self._streams) if any(self._streams) else (),
            shared=frozenset(self._shared),
        )
