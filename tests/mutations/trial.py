"""Trial: two versions of a program, and what the gate says of the second."""

import functools

from bench.analysis.gate import compare
from bench.baseline import baseline_of_steps
from bench.predict.parts import makeup
from bench.predict.tracer import trace
from tests.mutations.subjects import subject


def judged(before, after):
    """Return what the gate says of the program with the second edits, by a baseline with the first."""
    return compare(found(before), found(after))


@functools.cache
def found(edits):
    """Return the baseline of the program with these edits."""
    traced = trace(subject(edits))
    return baseline_of_steps("training", traced.peak_bytes, makeup(traced), traced.versions)
