"""Simulation: a trace, replayed through the allocator of a card: peak requested, allocated, reserved.

The trace has the requests; the card and the version of torch decide the workspaces of kernels, and the
allocator decides the memory that is reserved. Behaviour that is not documented (whether addresses of new segments
rise or fall), or known only by an upper bound (workspaces), is simulated both ways, and the figures are
intervals over these scenarios.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.replay import ALLOCATE, FREE, REUSE, WAIT, Replay, replay
from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime, Steps
from ftbench.prediction.simulate.workspaces.workspaces import Workspaces
from ftbench.prediction.trace.events import Kind, Trace


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One assumption for each behaviour that is not documented, or that only the card's clock decides.

    `late_reuse` is about blocks that another stream may still use when they are freed: they are reused as late as
    the host's waiting for that stream allows, or else at once.
    """

    address_order: Literal["ascending", "descending"] = "descending"
    workspaces: bool = True
    late_reuse: bool = False


_ORDERS: tuple[Literal["descending", "ascending"], ...] = ("descending", "ascending")
# The single figure is that of the first scenario: its address order agrees with the published cells measured
# on two consumer cards (`nox -s validate`).
SCENARIOS = tuple(
    Scenario(order, workspaces) for workspaces, order in itertools.product((True, False), _ORDERS)
)


@dataclasses.dataclass(frozen=True)
class Requests:
    """The requests to an allocator, in order: (sign, block, bytes, stream), and the event of each."""

    signs: list[int]
    blocks: list[int]
    nbytes: list[int]
    streams: list[int]
    events: list[int]

    def add(self, sign: int, block: int, nbytes: int, event: int, stream: int = 0) -> None:
        """Append a request."""
        self.signs.append(sign)
        self.blocks.append(block)
        self.nbytes.append(nbytes)
        self.streams.append(stream)
        self.events.append(event)


def requests(trace: Trace, runtime: Runtime | None, *, late_reuse: bool = False) -> Requests:
    """Return a trace's allocations and frees, with those of its kernels' workspaces in between.

    With `late_reuse`, a block that other streams may use when it is freed is not reused until the host knows that
    none does. Without a runtime there are no workspaces. Products run on the default stream, and so have their
    workspaces there, also in a sharded step.
    """
    made = Requests([], [], [], [], [])
    spaces = None if runtime is None else Workspaces(runtime)
    names = itertools.count(int(trace.block.max(initial=0)) + 1)
    columns = (trace.kind.tolist(), trace.block.tolist(), trace.nbytes.tolist())
    stream_of = trace.streams
    scratch: dict[str, tuple[int, int]] = {}
    left: Steps = ()
    for event, (kind, block, nbytes) in enumerate(zip(*columns, strict=True)):
        steps: Steps = ()
        if kind == Kind.ALLOCATE:
            made.add(ALLOCATE, block, nbytes, event, stream_of[block] if stream_of else 0)
        elif kind == Kind.FREE:
            made.add(WAIT if late_reuse and block in trace.shared else FREE, block, nbytes, event)
        elif kind == Kind.REUSE:
            if late_reuse:
                made.add(REUSE, block, nbytes, event)
        elif spaces is None:
            continue
        elif kind == Kind.KERNEL:
            steps, left = spaces.of(trace.kernels[block])
            scratch.clear()
        else:
            steps = left
        for step in steps:
            if step.action == "allocate":
                scratch[step.name] = (next(names), step.nbytes)
                made.add(ALLOCATE, *scratch[step.name], event)
            else:
                made.add(FREE, *scratch.pop(step.name), event)
    return made


def simulate(
    trace: Trace,
    allocator: AllocatorSettings | None = None,
    runtime: Runtime | None = None,
    *,
    workspaces: bool = True,
) -> Replay:
    """Return the replay of a trace on a card: peaks in bytes, and the events that reach them.

    `allocator` has the card's limit and the allocator's settings, `runtime` its compute capability
    and its version of torch, which decide the workspaces. Event numbers are the trace's.
    """
    return _played(requests(trace, (runtime or Runtime()) if workspaces else None), allocator)


def _played(made: Requests, allocator: AllocatorSettings | None) -> Replay:
    settings = allocator or AllocatorSettings()
    played = replay(made.signs, made.blocks, made.nbytes, settings, streams=made.streams)

    def event(index: int | None) -> int | None:
        return None if index is None else made.events[index]

    return dataclasses.replace(
        played,
        at_allocated=event(played.at_allocated),
        at_reserved=event(played.at_reserved),
        failed_at=event(played.failed_at),
    )


@dataclasses.dataclass(frozen=True)
class Simulated:
    """A trace under every scenario, for the least and the most memory that a process may reserve on a card.

    `replays` begins with the first scenario; replays known to be equal are in it once.
    """

    replays: tuple[Replay, ...]
    out_of_memory: Literal["never", "always", "sometimes"]

    @property
    def first(self) -> Replay:
        """Return the replay of the single figure."""
        return self.replays[0]

    def interval(self, name: str) -> tuple[int, int]:
        """Return the least and the largest value of a peak, over the first replay and all that completed.

        A replay that ran out of memory has lower peaks than the cell needs, so others of these are left out.
        """
        ended = [played for played in self.replays if not played.out_of_memory]
        values = [getattr(played, name) for played in ended or self.replays]
        first = getattr(self.first, name)
        return min(first, *values), max(first, *values)


class Replays:
    """The replays of a trace's scenarios, each made when it is first looked at.

    Whether all of them fit, or any does, is often known after the first.
    """

    def __init__(self, replays: Iterator[Replay]) -> None:
        self._made: list[Replay] = []
        self._left = replays

    def __iter__(self) -> Iterator[Replay]:
        """Yield the replays in their order."""
        yield from self._made
        for played in self._left:
            self._made.append(played)
            yield played

    @property
    def all_fit(self) -> bool:
        """Return whether no replay runs out of memory."""
        return not any(played.out_of_memory for played in self)

    @property
    def any_fits(self) -> bool:
        """Return whether a replay does not run out of memory."""
        return not all(played.out_of_memory for played in self)

    def simulated(self) -> Simulated:
        """Return all of them."""
        replays = tuple(self)
        failed = [played.out_of_memory for played in replays]
        verdict: Literal["never", "always", "sometimes"] = "sometimes"
        if all(failed) or not any(failed):
            verdict = "always" if failed[0] else "never"
        return Simulated(replays, verdict)


def simulate_all(
    traces: Iterable[Trace],
    runtime: Runtime,
    capacities: Sequence[int | None] = (None,),
    *,
    expandable_segments: bool = False,
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> Simulated:
    """Return the traces of one cell under every scenario, as `replays_of` makes them."""
    return replays_of(
        traces,
        runtime,
        capacities,
        expandable_segments=expandable_segments,
        scenarios=scenarios,
    ).simulated()


def replays_of(
    traces: Iterable[Trace],
    runtime: Runtime,
    capacities: Sequence[int | None] = (None,),
    *,
    expandable_segments: bool = False,
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> Replays:
    """Return the replays of one cell's traces (one per order of lengths) under every scenario.

    `capacities` are the limits of a process's reserved memory: the likeliest first, then the ends. A limit that
    the unlimited replay does not reach changes nothing, so most traces are replayed once per scenario.
    """

    def replays() -> Iterator[Replay]:
        for trace in traces:
            made: dict[tuple[bool, bool], Requests] = {}
            for scenario in _with_late_reuse(scenarios) if trace.shared else scenarios:
                key = scenario.workspaces, scenario.late_reuse
                if key not in made:
                    used = runtime if scenario.workspaces else None
                    made[key] = requests(trace, used, late_reuse=scenario.late_reuse)
                settings = AllocatorSettings(None, scenario.address_order, expandable_segments)
                yield from _under_limits(made[key], settings, capacities)

    return Replays(replays())


def _with_late_reuse(scenarios: Sequence[Scenario]) -> list[Scenario]:
    return [*scenarios, *(dataclasses.replace(one, late_reuse=True) for one in scenarios)]


def _under_limits(
    made: Requests, settings: AllocatorSettings, capacities: Sequence[int | None]
) -> Iterator[Replay]:
    """Yield the replays under each limit, in their order; limits that are not reached share one replay."""
    unlimited = _played(made, settings)
    seen: set[int | None] = set()
    for capacity in capacities:
        reached = capacity if capacity and capacity < unlimited.peak_reserved_bytes else None
        if reached in seen:
            continue
        seen.add(reached)
        limited = dataclasses.replace(settings, capacity_bytes=reached)
        yield unlimited if reached is None else _played(made, limited)
