import pytest

from bench.worker.phases import PhaseBook


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class FakeMeter:
    """A peak that a test plants; `start` begins a new one, as the real meters do."""

    def __init__(self, reasons=()):
        self.peak = 0
        self._reasons = dict(reasons)

    def start(self):
        self.peak = 0

    def read(self):
        return {} if self._reasons else {"peak_rss_bytes": self.peak}

    def absent(self):
        return self._reasons


@pytest.fixture
def clock():
    return Clock()


def book_with(clock, *meters, **options):
    return PhaseBook(meters, clock=clock, cpu_clock=lambda: clock.now / 2, **options)


def test_time_belongs_to_the_phase_that_is_running(clock):
    book = book_with(clock)
    for name, seconds in (("load", 1), ("train", 5), ("save", 2), ("train", 3), (None, 100)):
        book.enter(name)
        clock.now += seconds
    walls = {
        name: (phase.wall_s, phase.cpu_s, phase.entries) for name, phase in book.phases().items()
    }
    assert walls == {"load": (1, 0.5, 1), "train": (8, 4, 2), "save": (2, 1, 1)}


def test_a_phase_interrupts_and_gives_back(clock):
    book = book_with(clock)
    book.enter("train")
    clock.now += 1
    with book.phase("evaluation"):
        clock.now += 10
        with book.phase("save"):
            clock.now += 100
    clock.now += 2
    book.enter(None)
    assert {n: p.wall_s for n, p in book.phases().items()} == {
        "train": 3,
        "evaluation": 10,
        "save": 100,
    }


def test_an_error_in_a_phase_gives_back_too(clock):
    book = book_with(clock)
    book.enter("train")
    with pytest.raises(ValueError, match="x"), book.phase("evaluation"):
        raise ValueError("x")
    assert book.running == "train"
    assert book.failed == "evaluation"


def test_an_error_outside_of_any_inner_phase_is_the_running_ones(clock):
    book = book_with(clock)
    book.enter("train")
    assert book.failed == "train"


def test_a_peak_belongs_to_the_phase_in_which_it_was_reached(clock):
    meter = FakeMeter()
    book = book_with(clock, meter)
    for name, peak in (("load", 10), ("train", 50), ("evaluation", 90), ("train", 40), (None, 0)):
        book.enter(name)
        meter.peak = peak
    peaks = {name: phase.memory.peak_rss_bytes for name, phase in book.phases().items()}
    assert peaks == {"load": 10, "train": 50, "evaluation": 90}
    assert book.peaks().peak_rss_bytes == 90


def test_the_device_is_waited_for_at_every_change(clock):
    waits = []
    book = book_with(clock, synchronize=lambda: waits.append(clock.now))
    book.enter("load")
    clock.now += 1
    book.enter(None)
    assert waits == [0, 1]


def test_absent_figures_have_their_reason(clock):
    book = book_with(clock, FakeMeter({"peak_process_bytes": "no driver"}))
    book.enter("load")
    book.enter(None)
    assert book.absent() == {"memory.peak_process_bytes": "no driver"}
    assert book.peaks().peak_process_bytes is None
