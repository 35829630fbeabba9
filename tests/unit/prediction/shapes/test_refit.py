"""A known fit, corrected for another number of ranks: held against planted steps."""

import functools

import pytest

from ftbench.prediction.shapes.fit import FitError, fit_events
from ftbench.prediction.shapes.refit import refit
from ftbench.prediction.trace.events import FORWARD, Kernel, Site, TraceBuilder

AT = Site(FORWARD, 1, "layer", "aten::op")
GATHERED = AT._replace(operator="all_gather")
SHAPES = [(3, 40), (5, 80), (7, 200), (2, 136), (4, 320)]
FIRST, OTHERS = (3, 40), ((11, 320), (2, 8), (64, 512))
ROWS = 1002  # no multiple of 4 or 8: the last shards are smaller


def step(batch, length, *, ranks, rank=0):
    """A step with a shard, activations, a gathered output, and one small tensor for each rank."""
    per_rank = -(-ROWS // ranks)
    shard = 256 * max(0, min(per_rank, ROWS - rank * per_rank))
    sizes = [shard, 3072 * batch * length, 12 * length * ranks, 2048, shard * ranks]
    builder = TraceBuilder()
    with builder.kernel(Kernel("aten::mm", (batch * length, shard, 64), (0, 4), False), AT):
        blocks = [builder.allocate(size, AT) for size in sizes]
    for _ in range(ranks):
        blocks.append(builder.allocate(4, GATHERED))
    for block, size in zip(blocks, [*sizes, *[4] * ranks], strict=True):
        builder.free(block, size, AT)
    return builder.build()


def fit_of(at):
    return fit_events({shape: at(*shape) for shape in SHAPES})


def assert_the_same(one, other):
    assert one.same_events(other)
    assert one.nbytes.tolist() == other.nbytes.tolist()
    assert one.kernels == other.kernels
    assert one.peak_bytes == other.peak_bytes


@pytest.mark.parametrize(
    ("ranks", "rank"), [(2, 1), (4, 0), (4, 3), (8, 0), (8, 7), (512, 0), (512, 511)]
)
def test_a_step_of_other_ranks_is_its_own_trace_at_every_shape(ranks, rank):
    other = functools.partial(step, ranks=ranks, rank=rank)
    found = refit(fit_of(functools.partial(step, ranks=2)), FIRST, other(*FIRST))
    for shape in OTHERS:
        assert_the_same(found.at(*shape), other(*shape))
        assert found.peak_bytes(*shape) == other(*shape).peak_bytes


def test_what_is_empty_in_a_fit_is_found_in_another_rank():
    empty = functools.partial(step, ranks=512, rank=511)
    found = refit(fit_of(empty), FIRST, step(*FIRST, ranks=4))
    for shape in OTHERS:
        assert_the_same(found.at(*shape), step(*shape, ranks=4))


def summed(batch, length, *, ranks):
    builder = TraceBuilder()
    builder.allocate(4096 // ranks + 12 * batch, AT)
    return builder.build()


def test_a_sum_of_two_terms_that_changes_is_refused():
    fitted = fit_of(functools.partial(summed, ranks=2))
    with pytest.raises(FitError, match="ranks"):
        refit(fitted, FIRST, summed(*FIRST, ranks=4))


def test_a_size_that_is_no_multiple_of_its_term_is_refused():
    builder = TraceBuilder()
    for size in (*step(*FIRST, ranks=2).nbytes[1:6].tolist(),):
        builder.allocate(size + 1, AT)
    made = builder.build()
    with pytest.raises(FitError, match="ranks"):
        refit(fit_of(functools.partial(step, ranks=2)), FIRST, made)
