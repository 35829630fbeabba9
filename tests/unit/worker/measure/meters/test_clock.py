import pytest

from ftbench.worker.measure.meters.clock import CudaClock, HostClock


def test_marks_are_seconds_after_the_first(monkeypatch):
    moments = iter([100.0, 100.5, 103.0])
    monkeypatch.setattr(
        "ftbench.worker.measure.meters.clock.time.perf_counter", lambda: next(moments)
    )
    clock = HostClock()
    for _ in range(3):
        clock.mark()
    assert clock.seconds() == [0.0, 0.5, 3.0]


def test_no_mark_no_seconds():
    assert HostClock().seconds() == []
    assert CudaClock().seconds() == []


class FakeEvent:
    """An event as torch.cuda's: `elapsed_time` is in milliseconds."""

    made = 0

    def __init__(self, enable_timing):
        assert enable_timing
        self.waited = False

    def record(self):
        FakeEvent.made += 1
        self.at_ms = 250.0 * FakeEvent.made

    def synchronize(self):
        self.waited = True

    def elapsed_time(self, other):
        return other.at_ms - self.at_ms


def test_events_are_read_once_at_the_end(monkeypatch):
    monkeypatch.setattr("ftbench.worker.measure.meters.clock.torch.cuda.Event", FakeEvent)
    clock = CudaClock()
    for _ in range(3):
        clock.mark()
    assert not any(event.waited for event in clock._events)
    assert clock.seconds() == pytest.approx([0.0, 0.25, 0.5])
    assert [event.waited for event in clock._events] == [False, False, True]
