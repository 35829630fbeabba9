"""Traces made by hand, through workspaces and allocator."""

import pytest

from ftbench.prediction.simulate import simulation as module
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.simulation import (
    SCENARIOS,
    Scenario,
    replays_of,
    requests,
    simulate,
    simulate_all,
)
from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime
from ftbench.prediction.simulate.workspaces.cublas import cublas_workspace_bytes
from ftbench.prediction.simulate.workspaces.embedding import embedding_backward_workspace
from ftbench.prediction.trace.events import BACKWARD, FORWARD, Kernel, Site, TraceBuilder

KIB, MIB = 1024, 1024**2
AT = Site(FORWARD, 1, "layer", "aten::op")
A100 = Runtime()
CUBLAS = cublas_workspace_bytes((8, 0))
PRODUCT = Kernel("aten::mm", (2, 3, 4), (0, 4), False)
ON_AUTOGRAD = PRODUCT._replace(autograd=True)
# So many indices that they are sorted: arrays before the gradient's own, freed after it.
EMBEDDING = Kernel("aten::embedding_dense_backward", (8192, 64, 30522), (4, 8), True)


def built(*moves):
    """A trace of `(kernel or None, bytes)` for an allocation and of a block's number for its free."""
    builder, sizes = TraceBuilder(), {}
    for move in moves:
        if isinstance(move, int):
            builder.free(move, sizes[move], AT)
            continue
        kernel, nbytes = move
        with builder.kernel(kernel, AT):
            sizes[builder.allocate(nbytes, AT)] = nbytes
    return builder.build()


def moves(made):
    return list(zip(made.signs, made.nbytes, made.events, strict=True))


def played_by_hand(made):
    """Every name is free when it is taken, and taken when it is freed; the peak of what is requested."""
    live, peak = {}, 0
    for sign, block, nbytes in zip(made.signs, made.blocks, made.nbytes, strict=True):
        if sign > 0:
            assert block not in live
            live[block] = nbytes
        else:
            del live[block]
        peak = max(peak, sum(live.values()))
    return live, peak


# What the allocator is asked for


def test_without_a_runtime_there_are_the_traces_own_events_alone():
    trace = built((PRODUCT, 100), (None, 50), 0)
    made = requests(trace, None)
    # Events: kernel, allocation, result, allocation, free.
    assert moves(made) == [(1, 100, 1), (1, 50, 3), (-1, 100, 4)]
    assert made.blocks == [0, 1, 0]


def test_a_threads_first_product_takes_its_workspace_after_its_result_and_keeps_it():
    trace = built((PRODUCT, 100), (PRODUCT, 200), (ON_AUTOGRAD, 300), (ON_AUTOGRAD, 400))
    assert moves(requests(trace, A100)) == [
        (1, 100, 1),
        (1, CUBLAS, 2),  # at the event of the result
        (1, 200, 4),
        (1, 300, 7),
        (1, CUBLAS, 8),
        (1, 400, 10),
    ]


def test_what_comes_before_a_result_and_what_comes_after_it():
    trace = built((EMBEDDING, 1000))
    steps = embedding_backward_workspace(8192, 64, 30522, runtime=A100)
    place = [step.action for step in steps].index("output")
    made = moves(requests(trace, A100))
    before, after = made[:place], made[place + 1 :]
    assert made[place] == (1, 1000, 1)
    assert {event for _, _, event in before} == {0}
    assert {event for _, _, event in after} == {2}
    live, _ = played_by_hand(requests(trace, A100))
    assert list(live.values()) == [1000]  # the scratch is gone


def test_a_workspaces_name_is_no_blocks():
    trace = built((PRODUCT, 100), (EMBEDDING, 10), (EMBEDDING, 20), 0, 2)
    live, _ = played_by_hand(requests(trace, A100))
    assert sorted(live.values()) == [10, CUBLAS]


def test_a_kernel_without_a_workspace_leaves_no_mark():
    trace = built((Kernel("aten::unheard_of", (), (), False), 100))
    assert moves(requests(trace, A100)) == [(1, 100, 1)]


def test_an_empty_trace_asks_for_nothing():
    made = requests(TraceBuilder().build(), A100)
    assert moves(made) == []
    assert simulate(TraceBuilder().build()).peak_reserved_bytes == 0


# One simulation


def test_figures_of_a_trace_by_hand():
    trace = built((None, 100), (None, 3 * MIB), 1, (None, 12 * MIB + 1))
    played = simulate(trace, workspaces=False)
    # 512 B of a small segment, 3 MiB of 20, then 12 MiB in a segment of its own, in steps of 2 MiB;
    # the 3 MiB are free again by then.
    assert played.peak_requested_bytes == 100 + 12 * MIB + 1
    assert played.peak_allocated_bytes == 512 + 12 * MIB + 512
    assert played.peak_reserved_bytes == (2 + 20) * MIB
    assert (played.at_allocated, played.at_reserved, played.failed_at) == (3, 1, None)


def test_event_numbers_are_the_traces_own():
    trace = built((None, 100), (PRODUCT, 200))
    played = simulate(trace)
    assert played.at_allocated == played.at_reserved == 3  # the result of the product, row 3
    assert played.peak_requested_bytes == 300 + CUBLAS


def test_workspaces_can_be_left_out():
    trace = built((PRODUCT, 100))
    assert simulate(trace).peak_requested_bytes == 100 + CUBLAS
    assert simulate(trace, workspaces=False).peak_requested_bytes == 100


def test_the_runtime_decides_the_workspace():
    trace = built((PRODUCT, 100))
    hopper = simulate(trace, runtime=Runtime(compute_capability=(9, 0)))
    assert hopper.peak_requested_bytes == 100 + 32 * MIB


def test_a_limit_is_where_a_simulation_ends():
    trace = built((None, 30 * MIB), (None, 40 * MIB), 0, (None, 10))
    played = simulate(trace, AllocatorSettings(capacity_bytes=64 * MIB), workspaces=False)
    assert played.out_of_memory
    assert played.failed_at == 1
    assert played.peak_reserved_bytes == 30 * MIB


# All of the scenarios


def test_scenarios_begin_with_the_one_that_a_single_figure_is_given_for():
    assert SCENARIOS[0] == Scenario("descending", workspaces=True)
    assert len(set(SCENARIOS)) == 4


def order_dependent():
    """A trace in which it matters on which side of the first segment the second lies."""
    return built(
        (None, 8 * MIB),  # 0: cuts the first segment of 20 MiB
        (None, 9 * MIB),  # 1: behind it
        (None, 8 * MIB),  # 2: cuts a second segment
        1,  # now both are 8 MiB, then 12 MiB that are free
        (None, 9 * MIB),  # 3: into the one with the lower address
        0,  # the first is whole again, if that was the second
        (None, 19 * MIB),  # 4: and then has room for this
    )


def test_an_interval_is_over_the_scenarios():
    trace = built((PRODUCT, 100))
    found = simulate_all([trace], A100)
    assert found.interval("peak_requested_bytes") == (100, 100 + CUBLAS)
    assert found.first == simulate(trace)
    assert found.out_of_memory == "never"
    assert len(found.replays) == len(SCENARIOS)


def test_every_scenario_is_what_a_single_simulation_says():
    trace = order_dependent()
    found = simulate_all([trace], A100)
    one_by_one = [
        simulate(
            trace,
            AllocatorSettings(address_order=scenario.address_order),
            workspaces=scenario.workspaces,
        )
        for scenario in SCENARIOS
    ]
    assert list(found.replays) == one_by_one
    assert found.first.peak_reserved_bytes == 40 * MIB
    assert found.interval("peak_reserved_bytes") == (40 * MIB, 60 * MIB)


def test_traces_of_several_orders_are_one_interval_and_the_first_is_the_figure():
    traces = [built((None, size)) for size in (40 * MIB, 80 * MIB, 20 * MIB)]
    found = simulate_all(traces, A100)
    assert found.first.peak_reserved_bytes == 40 * MIB
    assert found.interval("peak_reserved_bytes") == (20 * MIB, 80 * MIB)


def test_expandable_segments_are_passed_on():
    trace = built((None, 20 * MIB), 0, (None, 40 * MIB))
    assert simulate_all([trace], A100).first.peak_reserved_bytes == (20 + 40) * MIB
    expandable = simulate_all([trace], A100, expandable_segments=True)
    assert expandable.first.peak_reserved_bytes == 40 * MIB


ONE = (Scenario(),)


@pytest.mark.parametrize(
    ("capacities", "verdict", "played"),
    [
        ((None,), "never", 1),
        ((100 * MIB, 90 * MIB, 110 * MIB), "never", 1),  # out of reach, all: one replay
        ((70 * MIB, 70 * MIB, 100 * MIB), "never", 1),  # just enough is enough
        ((50 * MIB, 40 * MIB, 60 * MIB), "always", 3),
        ((70 * MIB, 40 * MIB, 100 * MIB), "sometimes", 2),
        ((60 * MIB, 40 * MIB, 100 * MIB), "sometimes", 3),
        ((60 * MIB, 60 * MIB, 60 * MIB), "always", 1),  # one limit, asked for thrice
    ],
)
def test_a_limit_is_played_only_where_it_is_within_reach(capacities, verdict, played):
    trace = built((None, 30 * MIB), (None, 40 * MIB))
    found = simulate_all([trace], A100, capacities, scenarios=ONE)
    assert found.out_of_memory == verdict
    assert len(found.replays) == played


@pytest.mark.parametrize(
    ("capacities", "failed_at", "reserved"),
    [
        ((60 * MIB, 40 * MIB, 100 * MIB), 1, 30 * MIB),
        ((100 * MIB, 40 * MIB, 60 * MIB), None, 70 * MIB),
        ((20 * MIB, 10 * MIB, 100 * MIB), 0, 0),
    ],
)
def test_the_first_limit_is_what_a_single_figure_is_given_for(capacities, failed_at, reserved):
    trace = built((None, 30 * MIB), (None, 40 * MIB))
    first = simulate_all([trace], A100, capacities).first
    assert (first.failed_at, first.peak_reserved_bytes) == (failed_at, reserved)


def test_out_of_memory_in_one_scenario_of_several():
    trace = built((ON_AUTOGRAD, 100 * KIB))
    assert trace.sites[0].phase != BACKWARD  # the thread is the kernel's, not the site's
    found = simulate_all([trace], A100, (4 * MIB,))
    assert found.out_of_memory == "sometimes"  # 2 MiB, or those and a workspace of 8.1
    assert found.first.out_of_memory


# Streams


def shared_block(reusable):
    """A trace in which a second block is allocated after a shared one is freed."""
    builder = TraceBuilder()
    first = builder.allocate(20 * MIB, AT)
    builder.share(first)
    builder.free(first, 20 * MIB, AT)
    if reusable:
        builder.reuse(first, AT)
    builder.allocate(20 * MIB, AT)
    return builder.build()


@pytest.mark.parametrize(("reusable", "most"), [(True, 20 * MIB), (False, 40 * MIB)])
def test_a_shared_block_is_reused_at_once_or_when_the_host_knows(reusable, most):
    found = simulate_all([shared_block(reusable)], A100)
    assert found.first.peak_reserved_bytes == 20 * MIB
    assert found.interval("peak_reserved_bytes") == (20 * MIB, most)
    assert found.interval("peak_allocated_bytes") == (20 * MIB, 20 * MIB)


def test_blocks_of_two_streams_do_not_share_memory():
    builder = TraceBuilder()
    first = builder.allocate(20 * MIB, AT, stream=1)
    builder.free(first, 20 * MIB, AT)
    builder.allocate(20 * MIB, AT)
    trace = builder.build()
    assert trace.streams == (1, 0)
    assert simulate(trace).peak_reserved_bytes == 40 * MIB
    assert trace.peak_bytes == 20 * MIB


def test_no_more_is_replayed_than_an_answer_needs(monkeypatch):
    trace = order_dependent()
    whole = simulate_all([trace], A100)
    played = []
    original = module.replay
    monkeypatch.setattr(module, "replay", lambda *a, **k: played.append(1) or original(*a, **k))
    found = replays_of([trace], A100)
    assert found.any_fits
    assert len(played) == 1  # fits in the first scenario
    assert found.all_fit
    assert found.simulated() == whole
    assert len(played) == len(SCENARIOS)  # each once
    small = replays_of([trace], A100, (1,))
    assert not small.all_fit
    assert len(played) == len(SCENARIOS) + 2  # without a limit, and under it
    assert not small.any_fits
