"""Trial: two versions of a program, and what the gate says of the second."""

import functools

from ftbench.gate.compare import compare
from ftbench.predict.breakdown.growth import growth
from ftbench.predict.trace.tracer import trace
from ftbench.pytest_plugin import baseline_of_trace
from tests.mutations.subjects import subject


def judged(before, after):
    """Return what the gate says of the program with the second edits, by a baseline with the first."""
    return compare(found(before), found(after))


@functools.cache
def found(edits):
    """Return the baseline of the program with these edits."""
    traced = trace(subject(edits))
    return baseline_of_trace("training", traced, growth(traced))
