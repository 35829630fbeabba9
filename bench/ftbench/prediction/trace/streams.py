"""Streams: the CUDA streams of the traced card, which stand for `torch.cuda.Stream` and `torch.cuda.Event`.

Nothing runs on them. Two things about them decide memory. The caching allocator gives a block back only to the
stream that was current when it was allocated, so each stream has a number. And a block for which
`Tensor.record_stream` was called is not reused before that stream has passed the point at which the block was
freed. When that is, only the card knows; the host knows it from the moment at which it waits for a later point of
that stream, and these moments are recorded. Times are counted in events of the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftbench.prediction.trace.shown_device import SHOWN

DEFAULT = 0
Clock = dict[int, int]  # a stream's number -> the time up to which its work has ended


class Streams:
    """The streams of one trace, and the blocks that wait for them.

    `now` returns the time; `reusable` is called with each block as soon as the host knows that no stream uses it.
    """

    def __init__(self, now: Callable[[], int], reusable: Callable[[int], None]) -> None:
        self._now = now
        self._reusable = reusable
        self._last = DEFAULT
        self._host: Clock = {}
        self._users: dict[int, set[int]] = {}  # block -> the streams of its `record_stream`
        self._waiting: dict[int, Clock] = {}  # freed block -> what has to end first
        self.default = Stream(self, DEFAULT)
        self.current = self.default

    def new_class(self) -> type[Stream]:
        """Return a class whose instances are further streams of this trace: `torch.cuda.Stream`."""
        streams = self

        class NewStream(Stream):
            def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
                streams._last += 1
                super().__init__(streams, streams._last)

        return NewStream

    def new_event_class(self) -> type[Event]:
        """Return a class whose instances are events of this trace: `torch.cuda.Event`."""
        streams = self

        class NewEvent(Event):
            def __init__(self, *_: Any, **__: Any) -> None:
                super().__init__(streams)

        return NewEvent

    def current_stream(self, device: Any = None) -> Stream:
        """Return the stream on which blocks are allocated now."""
        return self.current

    def set_stream(self, stream: Stream | None) -> None:
        """Make a stream the current one; does nothing for None, as torch."""
        if stream is not None:
            self.current = stream

    def now(self) -> int:
        """Return the time, which is that of the work that a stream is given now."""
        return self._now()

    def used(self, block: int, owner: int, stream: Stream) -> None:
        """Note that `record_stream` was called with a stream for a block that `owner` allocated."""
        if stream.number != owner:
            self._users.setdefault(block, set()).add(stream.number)

    def freed(self, block: int) -> bool:
        """Note that a block is freed; return whether other streams may still use it."""
        users = self._users.pop(block, None)
        if users is None:
            return False
        self._waiting[block] = dict.fromkeys(users, self._now())
        return True

    def host_waits(self, clock: Clock | None = None) -> None:
        """Note that the host waits for work to end: up to a clock, or all of it."""
        if not self._waiting:
            return
        if clock is None:
            clock = dict.fromkeys(range(self._last + 1), self._now())
        _advance(self._host, clock)
        for block, needed in list(self._waiting.items()):
            if all(self._host.get(number, -1) >= time for number, time in needed.items()):
                del self._waiting[block]
                self._reusable(block)


class Stream:
    """A stream: its number, and what has ended if its last work has."""

    device = SHOWN

    def __init__(self, streams: Streams, number: int) -> None:
        self.number = self.stream_id = self.cuda_stream = number
        self._streams = streams
        self._after: Clock = {}  # of other streams, for which this one has waited
        self._before: list[Stream] = []

    def clock(self) -> Clock:
        """Return what has ended if all that was given to this stream so far has."""
        return {**self._after, self.number: self._streams.now()}

    def query(self) -> bool:
        """Return that everything has ended."""
        return True

    def is_capturing(self) -> bool:
        """Return that no graph is recorded."""
        return False

    def synchronize(self) -> None:
        """Let the host wait for all work of this stream."""
        self._streams.host_waits(self.clock())

    def wait_stream(self, stream: Stream) -> None:
        """Let later work of this stream wait for what another one was given so far."""
        _advance(self._after, stream.clock())

    def wait_event(self, event: Event) -> None:
        """Let later work of this stream wait for an event."""
        _advance(self._after, event.clock)

    def record_event(self, event: Event | None = None) -> Event:
        """Record the event, or a new one, and return it."""
        return (event or Event(self._streams)).record(self)

    def __enter__(self) -> Stream:
        """Make this stream the current one, as `with torch.Stream()` does."""
        self._before.append(self._streams.current)
        self._streams.set_stream(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Return to the stream before."""
        self._streams.set_stream(self._before.pop())


class Event:
    """An event: what has ended when it happens. Its time does not pass."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> Event:
        """Let this event happen after what a stream, or the current one, was given so far."""
        self.clock = (stream or self._streams.current).clock()
        return self

    def wait(self, stream: Stream | None = None) -> None:
        """Let later work of a stream, or of the current one, wait for this event."""
        (stream or self._streams.current).wait_event(self)

    def synchronize(self) -> None:
        """Let the host wait for this event."""
        self._streams.host_waits(self.clock)

    def query(self) -> bool:
        """Return that the event has happened."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return a time in milliseconds by which code can divide."""
        return 1.0


def _advance(clock: Clock, by: Clock) -> None:
    for number, time in by.items():
        clock[number] = max(clock.get(number, -1), time)
