"""Trial: two versions of a program, and what the gate says of the second."""

import functools

from ftbench.gating.compare import compare
from ftbench.prediction.breakdown.growth import growth
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.tracer import trace
from ftbench.pytest_plugin import baseline_of_trace
from tests.mutations.subjects import sharded_subject, subject

RANKS = Ranks(8)


def judged(before, after, loop="training"):
    """Return what the gate says of the program with the second edits, by a baseline with the first."""
    return compare(found(before, loop), found(after, loop))


@functools.cache
def found(edits, loop="training"):
    """Return the baseline of the program with these edits: of one GPU, or of a rank of a loop on several."""
    of_one = loop == "training"
    made = subject(edits) if of_one else sharded_subject(loop, edits)
    traced = trace(made, ranks=None if of_one else RANKS)
    return baseline_of_trace("training", traced, growth(traced))
