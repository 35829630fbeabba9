"""Gives every Python process of a rehearsal the fake card: this folder is on its PYTHONPATH."""

from tests.fake_cuda import rehearsal

rehearsal.begin()
