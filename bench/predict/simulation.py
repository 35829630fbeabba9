"""Simulation: a trace, replayed through the allocator of a card: peak requested, allocated, reserved.

The trace says what was asked for; the card and its torch decide the workspaces of kernels, and the
allocator what is reserved for it all. What nobody documents (on which side of earlier segments the
driver places a new one, whether a kernel's estimated scratch is really there) is simulated both ways,
and the figures come as intervals over these scenarios.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Literal

from bench.predict.allocator import AllocatorSettings, Replay, replay
from bench.predict.events import Kind, Trace
from bench.predict.workspaces import Runtime, Workspaces


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One answer to each question that has no documented one."""

    address_order: Literal["ascending", "descending"] = "descending"
    workspaces: bool = True  # of kernels: their estimated scratch space


# The first is the one a single figure is given for.
SCENARIOS = tuple(
    Scenario(order, workspaces)
    for workspaces, order in itertools.product((True, False), ("descending", "ascending"))
)


@dataclasses.dataclass(frozen=True)
class Requests:
    """What an allocator is asked for, in order: (sign, block, bytes), and the event each comes from."""

    signs: list[int]
    blocks: list[int]
    nbytes: list[int]
    events: list[int]


def requests(trace: Trace, runtime: Runtime, *, workspaces: bool = True) -> Requests:
    """Return a trace's allocations and frees with those of its kernels' workspaces in between."""
    made = Requests([], [], [], [])
    spaces = Workspaces(runtime, scratch=workspaces)
    names = itertools.count(int(trace.block.max(initial=0)) + 1)
    columns = (trace.kind.tolist(), trace.block.tolist(), trace.nbytes.tolist())
    for event, (kind, block, nbytes) in enumerate(zip(*columns, strict=True)):
        steps: Iterator[tuple[int, int, int]]
        if kind == Kind.KERNEL:
            steps = spaces.of(trace.kernels[block], names)
        else:
            steps = iter([(1 if kind == Kind.ALLOCATE else -1, block, nbytes)])
        for sign, name, size in steps:
            made.signs.append(sign)
            made.blocks.append(name)
            made.nbytes.append(size)
            made.events.append(event)
    return made


def simulate(
    trace: Trace,
    allocator: AllocatorSettings | None = None,
    runtime: Runtime | None = None,
    *,
    workspaces: bool = True,
) -> Replay:
    """Return what a trace comes to on a card: peaks in bytes, and the events that reach them.

    `allocator` has the card's limit and the allocator's settings, `runtime` its compute capability
    and its version of torch, which decide the workspaces. Event numbers are the trace's.
    """
    made = requests(trace, runtime or Runtime(), workspaces=workspaces)
    played = replay(made.signs, made.blocks, made.nbytes, allocator or AllocatorSettings())

    def event(index: int | None) -> int | None:
        return None if index is None else made.events[index]

    return dataclasses.replace(
        played,
        at_allocated=event(played.at_allocated),
        at_reserved=event(played.at_reserved),
        failed_at=event(played.failed_at),
    )
