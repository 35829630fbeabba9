import numpy as np
import pytest

from ftbench.prediction.trace.events import (
    BACKWARD,
    FORWARD,
    INPUT,
    OPTIMIZER,
    SETUP,
    Kernel,
    Kind,
    Site,
    TraceBuilder,
)

GEMM = Kernel("aten::mm", (2, 3, 4), (0, 4), False)


def site(phase, step=1, module="", operator=""):
    return Site(phase, step, module, operator)


def step_by_hand():
    """A weight; in two steps an input, an activation, a temporary, gradients; state after the first.

    Frees with nothing between them are put in the order of their blocks: the batch's comes first.
    """
    builder = TraceBuilder()
    weight = builder.allocate(100, site(SETUP, 0))
    builder.roles[weight] = "parameters"
    for step in (1, 2):
        batch = builder.allocate(10, site(INPUT, step))
        builder.roles[batch] = "inputs"
        kept = builder.allocate(50, site(FORWARD, step, "layer"))
        if step == 1:
            passing = builder.allocate(30, site(FORWARD, step, "layer"))
            builder.free(passing, 30, site(FORWARD, step, "layer"))
        gradient = builder.allocate(100, site(BACKWARD, step, "layer"))
        builder.roles[gradient] = "gradients"
        builder.free(kept, 50, site(BACKWARD, step, "layer"))
        if step == 1:
            state = builder.allocate(100, site(OPTIMIZER, step))
            builder.roles[state] = "optimizer state"
        builder.free(gradient, 100, site(OPTIMIZER, step))
        builder.free(batch, 10, site(INPUT, step))
    return builder.build()


@pytest.fixture(scope="module")
def by_hand():
    return step_by_hand()


def built(*moves):
    """A trace of allocations (positive) and frees by block (negative: ~block)."""
    builder = TraceBuilder()
    sizes = {}
    for move in moves:
        if move >= 0:
            sizes[builder.allocate(move, site(FORWARD))] = move
        else:
            builder.free(~move, sizes[~move], site(FORWARD))
    return builder.build()


def test_live_bytes_after_each_event(by_hand):
    first = [100, 110, 160, 190, 160, 260, 210, 310, 300, 200]
    second = [210, 260, 360, 350, 300, 200]
    assert by_hand.live_bytes.tolist() == first + second
    assert len(by_hand) == len(first) + len(second)


def test_the_peak_is_the_largest_and_its_event_the_first_that_reaches_it(by_hand):
    assert (by_hand.peak_bytes, by_hand.peak_event) == (360, 12)
    twice = built(5, ~0, 5)
    assert (twice.peak_bytes, twice.peak_event) == (5, 0)


def test_what_is_live_at_an_event_oldest_first(by_hand):
    live = by_hand.live_at(by_hand.peak_event)
    assert by_hand.nbytes[live].tolist() == [100, 100, 10, 50, 100]
    assert live == sorted(live)
    assert by_hand.nbytes[live].sum() == by_hand.peak_bytes
    for event, live_bytes in enumerate(by_hand.live_bytes.tolist()):
        assert by_hand.nbytes[by_hand.live_at(event)].sum() == live_bytes


def test_roles_follow_from_lifetimes_where_nothing_is_known(by_hand):
    roles = by_hand.roles()
    assert len(roles) == int((by_hand.kind == Kind.ALLOCATE).sum())
    names = [roles[block] for block in sorted(roles)]
    assert names == [
        "parameters",
        "inputs",
        "activations",
        "temporaries",
        "gradients",
        "optimizer state",
        "inputs",
        "activations",
        "gradients",
    ]


def test_what_is_kept_for_a_backward_pass_is_an_activation_whoever_frees_it():
    # Freed in the optimizer's phase: the pass it was kept for lies between.
    builder = TraceBuilder()
    output = builder.allocate(7, site(FORWARD))
    builder.free(builder.allocate(1, site(BACKWARD)), 1, site(BACKWARD))
    builder.free(output, 7, site(OPTIMIZER))
    assert builder.build().roles() == {0: "activations", 1: "temporaries"}


def test_what_is_never_freed():
    builder = TraceBuilder()
    builder.allocate(7, site(FORWARD))
    builder.allocate(7, site(OPTIMIZER))
    assert builder.build().roles() == {0: "activations", 1: "temporaries"}


def test_an_output_that_waits_for_no_backward_pass_is_a_temporary():
    builder = TraceBuilder()
    builder.free(builder.allocate(7, site(FORWARD)), 7, site(FORWARD))
    assert builder.build().roles() == {0: "temporaries"}


def test_a_kernel_takes_no_bytes_and_stands_around_its_results():
    builder = TraceBuilder()
    with builder.kernel(GEMM, site(FORWARD, operator="aten::mm")):
        builder.allocate(32, site(FORWARD, operator="aten::mm"))
    with builder.kernel(None, site(FORWARD)):
        builder.allocate(8, site(FORWARD))
    trace = builder.build()
    assert trace.kind.tolist() == [Kind.KERNEL, Kind.ALLOCATE, Kind.RESULT, Kind.ALLOCATE]
    assert trace.live_bytes.tolist() == [0, 32, 32, 40]
    assert trace.signs.tolist() == [0, 1, 0, 1]
    assert (trace.kernels, trace.block.tolist()) == ((GEMM,), [0, 0, 0, 1])
    assert trace.live_at(2) == [1]
    assert trace.roles() == {0: "activations", 1: "activations"}


def test_a_place_where_nothing_happens_is_no_part_of_the_course():
    # As a slice of a whole tensor, which is another operator than a slice of a part.
    traces = []
    for operator in ("aten::slice", "aten::alias"):
        builder = TraceBuilder()
        with builder.kernel(None, site(FORWARD, operator=operator)):
            pass
        builder.allocate(1, site(FORWARD))
        traces.append(builder.build())
    assert traces[0].same_events(traces[1])


def test_frees_with_nothing_between_come_in_the_order_of_their_blocks():
    one, other = built(1, 2, 3, ~2, ~0, 4, ~1, ~3), built(1, 2, 3, ~0, ~2, 4, ~3, ~1)
    assert one.block.tolist() == other.block.tolist() == [0, 1, 2, 0, 2, 3, 1, 3]
    assert one.nbytes.tolist() == [1, 2, 3, 1, 3, 4, 2, 4]
    assert one.same_events(other)


def test_frees_keep_their_sites_when_they_are_put_in_order():
    builder = TraceBuilder()
    for size in (1, 2):
        builder.allocate(size, site(FORWARD))
    builder.free(1, 2, site(BACKWARD))
    builder.free(0, 1, site(OPTIMIZER))
    trace = builder.build()
    phases = [trace.sites[place].phase for place in trace.site]
    assert phases == [FORWARD, FORWARD, OPTIMIZER, BACKWARD]


def test_no_event_is_moved_past_an_allocation_or_a_kernel():
    builder = TraceBuilder()
    for size in (1, 2):
        builder.allocate(size, site(FORWARD))
    builder.free(1, 2, site(FORWARD))
    with builder.kernel(GEMM, site(FORWARD)):
        pass
    builder.free(0, 1, site(FORWARD))
    assert builder.build().block.tolist() == [0, 1, 1, 0, 0, 0]


def test_the_same_course_may_have_other_sizes():
    assert built(1, 2, ~0).same_events(built(10, 20, ~0))


@pytest.mark.parametrize("moves", [(1, 2), (1, 2, ~1), (1, 2, 3), (1, ~0, 2)])
def test_another_course(moves):
    assert not built(1, 2, ~0).same_events(built(*moves))


def test_another_place_is_another_course():
    traces = []
    for phase in (FORWARD, BACKWARD):
        builder = TraceBuilder()
        builder.allocate(1, site(phase))
        traces.append(builder.build())
    assert not traces[0].same_events(traces[1])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"sizes": (5, 6, 7)}, True),
        ({"sizes": (5, 6)}, False),
        ({"traits": (1, 4)}, False),
        ({"operator": "aten::bmm"}, False),
        ({"autograd": True}, False),
    ],
)
def test_kernels_of_the_same_course_differ_in_sizes_only(change, same):
    traces = []
    for kernel in (GEMM, GEMM._replace(**change)):
        builder = TraceBuilder()
        with builder.kernel(kernel, site(FORWARD)):
            builder.allocate(1, site(FORWARD))
        traces.append(builder.build())
    assert traces[0].same_events(traces[1]) is same


def test_a_trace_of_nothing():
    trace = TraceBuilder().build([("torch", "2.13.0")])
    assert (len(trace), trace.peak_bytes, trace.roles()) == (0, 0, {})
    assert trace.versions == (("torch", "2.13.0"),)
    assert trace.nbytes.dtype == np.int64


def test_sizes_past_two_gibibytes_are_whole():
    trace = built(3 * 2**40, 2**40 + 1)
    assert trace.peak_bytes == 2**42 + 1
