import pytest

from ftbench.worker.measure.meters.processor import ProcessorUse
from ftbench.worker.measure.phases import PhaseBook


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def processor(self):
        return ProcessorUse(self.now / 2, self.now / 8, int(self.now) * 100)


class FakeMeter:
    """A peak that a test plants; `start` begins a new one, as the real meters do."""

    def __init__(self, reasons=(), name="peak_rss_bytes"):
        self.peak = 0
        self.began = []
        self._reasons = dict(reasons)
        self._name = name

    def idle(self):
        return {} if self._reasons else {self._name: 7}

    def start(self, phase):
        self.began.append(phase)
        self.peak = 0

    def read(self):
        return {} if self._reasons else {self._name: self.peak}

    def sources(self):
        return {self._name: "planted"}

    def absent(self):
        return self._reasons


@pytest.fixture
def clock():
    return Clock()


def book_with(clock, *meters, **options):
    return PhaseBook(meters, clock=clock, processor=clock.processor, **options)


def test_time_belongs_to_the_phase_that_is_running(clock):
    book = book_with(clock)
    for name, seconds in (("load", 1), ("train", 5), ("save", 2), ("train", 3), (None, 100)):
        book.enter(name)
        clock.now += seconds
    walls = {
        name: (phase.wall_s, phase.cpu_s, phase.entries) for name, phase in book.phases().items()
    }
    assert walls == {"load": (1, 0.5, 1), "train": (8, 4, 2), "save": (2, 1, 1)}
    kernel = {name: (phase.kernel_s, phase.page_faults) for name, phase in book.phases().items()}
    assert kernel == {"load": (0.125, 100), "train": (1, 800), "save": (0.25, 200)}


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


def test_of_nested_phases_the_innermost_is_the_one_that_failed(clock):
    book = book_with(clock)
    book.enter("train")
    with pytest.raises(ValueError, match="x"), book.phase("evaluation"), book.phase("save"):
        raise ValueError("x")
    assert (book.failed, book.running) == ("save", "train")


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
    assert meter.began == ["load", "train", "evaluation", "train"]
    assert book.idle.peak_rss_bytes == 7
    assert book.sources() == {"peak_rss_bytes": "planted"}


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
    assert book.absent() == {
        "memory.peak_process_bytes": "no driver",
        "memory.context_bytes": "no driver",
    }
    assert book.peaks().peak_process_bytes is None


def test_the_context_is_what_the_process_has_beyond_the_reservation(clock):
    process, reserved = (FakeMeter(name=f"peak_{name}_bytes") for name in ("process", "reserved"))
    book = book_with(clock, process, reserved)
    for name, peaks in (("load", (500, 100)), ("train", (900, 450)), (None, (0, 0))):
        book.enter(name)
        process.peak, reserved.peak = peaks
    contexts = {name: phase.memory.context_bytes for name, phase in book.phases().items()}
    assert contexts == {"load": 400, "train": 450}
    assert book.peaks().context_bytes == 450
    assert book.sources()["context_bytes"] == "peak process less peak reserved"


def test_no_context_without_both_of_its_parts(clock):
    book = book_with(
        clock,
        FakeMeter({"peak_process_bytes": "a container"}),
        FakeMeter(name="peak_reserved_bytes"),
    )
    book.enter("load")
    book.enter(None)
    assert book.peaks().context_bytes is None
    assert book.absent()["memory.context_bytes"] == "a container"


def test_energy_of_a_phase_is_what_the_counter_rose_by(clock):
    counter = iter([10.0, 15.0, 15.0, 40.0, 40.0, 41.0])
    book = book_with(clock, energy_j=lambda: next(counter))
    for name in ("load", "train", "load", None):
        book.enter(name)
    joules = {name: phase.energy_j for name, phase in book.phases().items()}
    assert joules == {"load": 5.0 + 1.0, "train": 25.0}


def test_a_card_without_a_counter_has_no_energy(clock):
    book = book_with(clock)
    book.enter("load")
    book.enter(None)
    assert book.phases()["load"].energy_j is None


def test_reading_the_meters_is_in_no_phase(clock):
    class Slow(FakeMeter):
        def read(self):
            clock.now += 3
            return super().read()

    book = book_with(clock, Slow())
    book.enter("load")
    clock.now += 1
    book.enter("train")
    clock.now += 2
    book.enter(None)
    assert {n: p.wall_s for n, p in book.phases().items()} == {"load": 1, "train": 2}
    assert book.metering_s == 6


def test_what_a_meter_takes_back_is_in_no_phase_and_no_total(clock):
    class Lost(FakeMeter):
        def withdrawn(self):
            return {"peak_device_bytes": "the card was lost"} if lost else {}

    lost = False
    book = book_with(clock, Lost(name="peak_device_bytes"))
    book.enter("load")
    book.enter(None)
    assert book.peaks().peak_device_bytes == 0
    lost = True
    assert book.peaks().peak_device_bytes is None
    assert book.phases()["load"].memory.peak_device_bytes is None
    assert book.absent() == {"memory.peak_device_bytes": "the card was lost"}
