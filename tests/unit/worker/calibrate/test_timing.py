"""Timing on a card: what is measured are the kernels, also of calls that a host takes longer to start."""

import pytest
import torch

from ftbench.worker.calibrate import timing


class Card:
    """A host and a card with a clock each, in seconds: a product keeps the card busy for two milliseconds."""

    def __init__(self, monkeypatch):
        self.host = self.free = 0.0
        monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
        monkeypatch.setattr(torch, "mm", lambda *_: self.start(1e-5, 2e-3))
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)
        monkeypatch.setattr(torch.cuda, "Event", lambda **_: Event(self))

    def start(self, on_host, kernel):
        """Start a kernel: the host takes a time, and then the card, once it is free."""
        self.host += on_host
        self.free = max(self.free, self.host) + kernel

    def wait(self):
        """Let the host wait for the card."""
        self.host = max(self.host, self.free)


class Event:
    """A mark in the card's queue."""

    def __init__(self, card):
        self.card, self.at = card, 0.0

    def record(self):
        """Set the mark."""
        self.at = max(self.card.free, self.card.host)

    def query(self):
        """Return whether the card is past it."""
        return self.at <= self.card.host

    def elapsed_time(self, other):
        """Return milliseconds from this mark to another."""
        return 1e3 * (other.at - self.at)


@pytest.mark.parametrize(
    ("on_host", "kernel"), [(5e-6, 2e-6), (5e-4, 4e-6), (1e-6, 3e-5), (1e-5, 0.3)]
)
def test_a_call_takes_as_long_as_its_kernel(on_host, kernel, monkeypatch):
    card = Card(monkeypatch)
    device = torch.device("cuda", 0)
    found = timing.seconds_per_call(lambda: card.start(on_host, kernel), device)
    assert found == pytest.approx(kernel, rel=0.02)
