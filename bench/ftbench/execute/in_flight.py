"""Jobs in flight: as many at a time as an engine has places, each written as one generator.

A flight yields the future of each piece of work that it needs, receives its outcome, and returns a result. All
flights run in the thread that calls `fly`; only the engine waits in other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from ftbench.execute.engines.base import Engine, Outcome

Result = TypeVar("Result")
Flight = Generator[Future[Outcome], Outcome, Result]
# Posts a call to the thread of `fly`: engines report progress from threads of their own.
Post = Callable[[Callable[[], None]], None]


def fly(engine: Engine, flights: Iterable[Callable[[Post], Flight[Result]]]) -> Iterator[Result]:
    """Yield the results of flights, in the order in which they end; each is started when a place is free.

    An exception of a flight, or an interruption, ends all workers and is raised.
    """
    posted: SimpleQueue[Callable[[], None] | Future[Outcome]] = SimpleQueue()
    waiting: dict[Future[Outcome], list[Flight[Result]]] = {}
    ended: list[Result] = []
    ahead = iter(flights)
    flying = 0

    def go_on(flight: Flight[Result], outcome: Outcome | None) -> None:
        """Run a flight until it waits for a future again, or ends."""
        nonlocal flying
        try:
            future = next(flight) if outcome is None else flight.send(outcome)
        except StopIteration as end:
            flying -= 1
            ended.append(end.value)
            return
        if future not in waiting:
            waiting[future] = []
            future.add_done_callback(posted.put)
        waiting[future].append(flight)

    try:
        while True:
            while flying < engine.places and (start := next(ahead, None)) is not None:
                flying += 1
                go_on(start(posted.put), None)
                yield from _taken(ended)
            if not flying:
                return
            event = posted.get()
            if isinstance(event, Future):
                for flight in waiting.pop(event):
                    go_on(flight, event.result())
                yield from _taken(ended)
            else:
                event()
    except BaseException:
        engine.cancel()
        raise
    finally:
        for flights_of in waiting.values():
            for flight in flights_of:
                flight.close()  # each removes its unfinished files


def _taken(ended: list[Result]) -> Iterator[Result]:
    while ended:
        yield ended.pop(0)
