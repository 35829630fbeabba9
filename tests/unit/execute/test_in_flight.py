"""As many flights at a time as an engine has places, in the thread that called."""

import threading
import time
from concurrent.futures import Future

import pytest

from ftbench.execute.engines.base import Engine, Work
from ftbench.execute.in_flight import fly


class ByHand(Engine):
    """An engine whose work ends when the test says so."""

    def __init__(self, places):
        self.places = places
        self.open = {}
        self.most = 0
        self.cancelled = False

    def submit(self, work, on_progress):
        future = self.open[work.module] = Future()
        self.most = max(self.most, sum(not one.done() for one in self.open.values()))
        return future

    def cancel(self):
        self.cancelled = True

    def end(self, name, outcome="done"):
        threading.Timer(0.01, self.open[name].set_result, [outcome]).start()


def work(name):
    return Work(name, "{}", None, 1.0)


def flight(engine, name, *, then=(), log=None):
    def started(post):
        outcomes = []
        for step in (name, *then):
            outcomes.append((yield engine.submit(work(step), None)))
        return name, outcomes

    return started


def test_a_place_is_filled_when_a_flight_ends():
    engine = ByHand(places=4)
    names = [str(number) for number in range(6)]
    landing = fly(engine, [flight(engine, name) for name in names])
    order = ["2", "0", "5", "4", "1", "3"]

    def end_all():
        for name in order:
            while name not in engine.open:
                time.sleep(0.001)
            engine.open[name].set_result(name.upper())

    threading.Thread(target=end_all, daemon=True).start()
    found = [name for name, _ in landing]
    assert found == order
    assert engine.most == 4


def test_one_place_flies_one_after_the_other():
    engine = ByHand(places=1)
    landing = fly(engine, [flight(engine, name) for name in "abc"])
    threading.Thread(target=ends_in_turn, args=(engine, "abc"), daemon=True).start()
    assert [name for name, _ in landing] == ["a", "b", "c"]
    assert engine.most == 1


def ends_in_turn(engine, names):
    for name in names:
        while name not in engine.open:
            time.sleep(0.001)
        assert len(engine.open) == names.index(name) + 1  # nobody else was started
        engine.open[name].set_result(None)


def test_a_flight_of_two_pieces_of_work_keeps_its_place():
    engine = ByHand(places=1)
    flights = [flight(engine, "a", then=("b",)), flight(engine, "c")]
    threading.Thread(target=ends_in_turn, args=(engine, "abc"), daemon=True).start()
    assert [(name, len(outcomes)) for name, outcomes in fly(engine, flights)] == [
        ("a", 2),
        ("c", 1),
    ]


def test_two_flights_wait_for_one_piece_of_work():
    engine = ByHand(places=2)
    shared = Future()

    def started(post):
        return (yield shared)

    threading.Timer(0.02, shared.set_result, ["once"]).start()
    assert list(fly(engine, [started, started])) == ["once", "once"]


def test_what_is_posted_is_called_in_the_thread_of_the_caller():
    engine = ByHand(places=1)
    told = []

    def started(post):
        future = engine.submit(work("a"), None)

        def progress():
            post(lambda: told.append(threading.current_thread()))
            future.set_result(None)

        threading.Thread(target=progress).start()
        yield future
        return "ended"

    assert list(fly(engine, [started])) == ["ended"]
    assert told == [threading.main_thread()]


def test_an_error_ends_all_workers_and_lets_flights_clear_away():
    engine = ByHand(places=2)
    cleared = []

    def waits(post):
        try:
            yield engine.submit(work("long"), None)
        finally:
            cleared.append("long")

    def fails(post):
        yield engine.submit(work("short"), None)
        raise OSError("the disk is full")

    landing = fly(engine, [waits, fails])
    threading.Thread(target=lambda: end_when_there(engine, "short"), daemon=True).start()
    with pytest.raises(OSError, match="disk"):
        list(landing)
    assert engine.cancelled
    assert cleared == ["long"]


def end_when_there(engine, name):
    while name not in engine.open:
        time.sleep(0.001)
    engine.open[name].set_result(None)
