"""Streams of traced code: the stream of each block, and from when on a shared block is reused."""

import pytest
import torch

from ftbench.prediction.trace.events import Kind
from ftbench.prediction.trace.tracer import trace

ELEMENTS = 1024


def events_of(body):
    """Return the trace of one step that runs a function of the device."""
    return trace(lambda device: lambda: body(device), steps=1)


def new(device):
    return torch.empty(ELEMENTS, device=device)


def test_a_block_has_the_stream_that_it_was_allocated_on():
    def body(device):
        first = new(device)
        with torch.cuda.stream(torch.cuda.Stream()):
            second = new(device)
            with torch.cuda.stream(torch.cuda.Stream()):
                third = new(device)
        return first, second, third, new(device)

    assert events_of(body).streams == (0, 1, 2, 0)


def test_streams_of_every_interface_are_those_of_the_trace():
    def body(device):
        stream = torch.Stream(device)
        with stream:
            first = new(device)
        torch.accelerator.set_stream(stream)
        second = new(device)
        torch.cuda.set_stream(torch.cuda.default_stream())
        assert torch.cuda.current_stream() is torch.cuda.default_stream()
        with torch.cuda.stream(None):
            third = new(device)
        return first, second, third

    assert events_of(body).streams == (1, 1, 0)


def test_one_stream_is_no_stream():
    assert events_of(new).streams == ()


def shared(wait):
    """Return a body that frees a block while another stream uses it, and later waits in some way."""

    def body(device):
        side = torch.cuda.Stream()
        block = new(device)
        block.record_stream(side)
        del block
        marker = new(device)
        wait(side, marker)
        return marker

    return body


def synchronized_event(side, marker):
    side.record_event().synchronize()


def event_on_a_stream_that_waits(side, marker):
    other, event = torch.cuda.Stream(), torch.cuda.Event()
    other.wait_stream(side)
    event.record(other)
    event.synchronize()


@pytest.mark.parametrize(
    "wait",
    [
        lambda side, marker: side.synchronize(),
        lambda side, marker: torch.cuda.synchronize(),
        synchronized_event,
        event_on_a_stream_that_waits,
    ],
)
def test_a_shared_block_is_reusable_once_the_host_has_waited(wait):
    traced = events_of(shared(wait))
    assert traced.shared == {0}
    rows = [(int(kind), int(block)) for kind, block in zip(traced.kind, traced.block, strict=True)]
    assert rows.index((Kind.FREE, 0)) < rows.index((Kind.ALLOCATE, 1))
    assert rows.index((Kind.ALLOCATE, 1)) < rows.index((Kind.REUSE, 0))


@pytest.mark.parametrize(
    "wait",
    [
        lambda side, marker: torch.cuda.current_stream().synchronize(),
        lambda side, marker: marker[0].item(),
        lambda side, marker: side.wait_stream(torch.cuda.current_stream()),
        lambda side, marker: torch.cuda.current_stream().wait_stream(side),
    ],
)
def test_waiting_for_something_else_does_not_help(wait):
    traced = events_of(shared(wait))
    assert traced.shared == {0}
    assert Kind.REUSE not in traced.kind


def test_an_event_before_the_free_does_not_help():
    def body(device):
        side, block = torch.cuda.Stream(), new(device)
        block.record_stream(side)
        event = side.record_event()
        other = new(device)
        del block
        event.synchronize()
        return other

    assert Kind.REUSE not in events_of(body).kind


def test_reading_a_number_waits_for_the_current_stream():
    def body(device):
        side, block = torch.cuda.Stream(), new(device)
        block.record_stream(side)
        del block
        torch.cuda.current_stream().wait_stream(side)
        return new(device).sum().item()

    assert Kind.REUSE in events_of(body).kind


def test_a_block_that_its_own_stream_uses_is_not_shared():
    def body(device):
        block = new(device)
        block.record_stream(torch.cuda.current_stream())

    assert events_of(body).shared == frozenset()
