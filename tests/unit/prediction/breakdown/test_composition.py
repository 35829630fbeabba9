"""What a planted trace's peak consists of."""

import dataclasses

import pytest

from ftbench.prediction.breakdown.composition import (
    LARGEST,
    OUTSIDE,
    REST,
    TIMELINE_POINTS,
    UNKNOWN_LINE,
    compose,
)
from ftbench.prediction.trace.events import (
    BACKWARD,
    EVALUATION,
    FORWARD,
    INPUT,
    OPTIMIZER,
    SETUP,
    Kernel,
    Origin,
    Site,
    TraceBuilder,
)

LAYERS = 3
WEIGHT, BATCH, KEPT, PASSING, STATE, TOP = 1000, 16, 600, 50, 2000, 7000


def planted(steps=2):
    """Three layers of a stack and a head; the second step's first backward temporary is the peak."""
    builder = TraceBuilder()

    def make(nbytes, phase, step, module, operator, role=None, owner=None):
        block = builder.allocate(nbytes, Site(phase, step, module, operator))
        if role:
            builder.roles[block] = role
        if owner:
            builder.owners[block] = owner
        return block

    def drop(block, nbytes, phase, step):
        builder.free(block, nbytes, Site(phase, step, "", ""))

    names = [f"encoder.layer.{i}.dense" for i in range(LAYERS)]
    for name in names:
        make(WEIGHT, SETUP, 0, "", "aten::empty", "parameters", name)
    for step in range(1, steps + 1):
        batch = make(BATCH, INPUT, step, "", "aten::_to_copy", "inputs")
        kept = []
        for name in names:
            with builder.kernel(
                Kernel("aten::mm", (1, 2, 3), (0, 4), False), Site(FORWARD, step, name, "aten::mm")
            ):
                kept.append(make(KEPT, FORWARD, step, name, "aten::mm"))
            drop(make(PASSING, FORWARD, step, name, "aten::gelu"), PASSING, FORWARD, step)
        drop(make(TOP, BACKWARD, step, names[-1], "aten::mm_backward"), TOP, BACKWARD, step)
        gradients = []
        for name, block in zip(reversed(names), reversed(kept), strict=True):
            gradients.append(make(WEIGHT, BACKWARD, step, name, "aten::t", "gradients", name))
            drop(block, KEPT, BACKWARD, step)
        if step == 1:
            for name in names:
                make(STATE, OPTIMIZER, step, "", "aten::zeros_like", "optimizer state", name)
        for block in gradients:
            drop(block, WEIGHT, OPTIMIZER, step)
        drop(batch, BATCH, INPUT, step)
    drop(make(PASSING, EVALUATION, steps, names[0], "aten::mm"), PASSING, EVALUATION, steps)
    return builder.build()


@pytest.fixture(scope="module")
def trace():
    return planted()


@pytest.fixture(scope="module")
def composition(trace):
    return compose(trace)


def shares(of):
    return {share.name: share.nbytes for share in of}


def test_roles_at_the_peak(composition):
    assert shares(composition.roles) == {
        "parameters": LAYERS * WEIGHT,
        "optimizer state": LAYERS * STATE,
        "activations": LAYERS * KEPT,
        "inputs": BATCH,
        "temporaries": TOP,
    }


def test_each_way_to_part_it_adds_up_to_the_peak(trace, composition):
    for parts in (composition.roles, composition.modules, composition.operators):
        assert sum(share.nbytes for share in parts) == trace.peak_bytes
        sizes = [share.nbytes for share in parts]
        assert sizes == sorted(sizes, reverse=True)


def test_layers_of_a_stack_are_one_name_and_owners_have_what_is_theirs(composition):
    # Weights are made outside of any module, their states by the optimizer: both are the layer's.
    assert shares(composition.modules) == {
        "encoder.layer.*.dense": LAYERS * (WEIGHT + STATE + KEPT) + TOP,
        OUTSIDE: BATCH,
    }


def test_operators_are_those_that_made_it(composition):
    assert shares(composition.operators) == {
        "aten::mm_backward": TOP,
        "aten::zeros_like": LAYERS * STATE,
        "aten::empty": LAYERS * WEIGHT,
        "aten::mm": LAYERS * KEPT,
        "aten::_to_copy": BATCH,
    }


def test_the_moment_of_the_peak(composition):
    moment = composition.moment
    assert (moment.phase, moment.step, moment.operator) == (BACKWARD, 2, "aten::mm_backward")
    assert moment.module == f"encoder.layer.{LAYERS - 1}.dense"


def test_phases_are_the_steps_and_what_is_around_them(trace, composition):
    assert [name for _, name in composition.phases] == ["setup", "step 1", "step 2", "evaluation"]
    events = [event for event, _ in composition.phases]
    assert events[0] == 0
    for event, name in composition.phases:
        site = trace.sites[trace.site[event]]
        assert name in (site.phase, f"step {site.step}")


@pytest.mark.parametrize("steps", [1, 2, 17, 60])
def test_a_timeline_never_misses_the_peak(steps):
    trace = planted(steps)
    timeline = compose(trace).timeline
    assert len(timeline) == min(len(trace), TIMELINE_POINTS)
    assert max(timeline, key=lambda point: point[1]) == (trace.peak_event, trace.peak_bytes)
    assert [event for event, _ in timeline] == sorted({event for event, _ in timeline})
    live = trace.live_bytes
    assert all(int(live[event]) == nbytes for event, nbytes in timeline)


def test_the_smaller_ones_are_one_line():
    builder = TraceBuilder()
    for number in range(LARGEST + 3):
        builder.allocate(100 + number, Site(FORWARD, 1, f"m{chr(97 + number)}", f"aten::o{number}"))
    found = compose(builder.build())
    for parts in (found.modules, found.operators):
        assert len(parts) == LARGEST + 1
        assert parts[-1].name == REST
        assert parts[-1].nbytes == 100 + 101 + 102
        assert sum(share.nbytes for share in parts) == sum(100 + n for n in range(LARGEST + 3))


def test_an_owner_goes_before_the_place_and_no_place_has_a_name():
    builder = TraceBuilder()
    block = builder.allocate(10, Site(FORWARD, 1, "made.here", "aten::op"))
    builder.allocate(5, Site(FORWARD, 1, "", "aten::op"))
    assert shares(compose(builder.build()).modules) == {"made.here": 10, OUTSIDE: 5}
    builder.owners[block] = "belongs.0.there"
    assert shares(compose(builder.build()).modules) == {"belongs.*.there": 10, OUTSIDE: 5}


def test_lines_of_code_are_those_that_made_it():
    builder = TraceBuilder()
    for nbytes, line in ((10, "loop.py:3"), (20, "loop.py:7"), (40, "loop.py:3"), (5, "")):
        block = builder.allocate(nbytes, Site(FORWARD, 1, "m", "aten::op"))
        builder.origins[block] = Origin("float32", line)
    builder.allocate(1, Site(FORWARD, 1, "m", "aten::op"))
    lines = compose(builder.build()).lines
    assert [(share.name, share.nbytes) for share in lines] == [
        ("loop.py:3", 50), ("loop.py:7", 20), (UNKNOWN_LINE, 6)
    ]  # fmt: skip


def test_a_trace_without_lines_has_none(trace):
    assert compose(trace).lines == ()


def test_kernels_are_no_memory(trace):
    without = dataclasses.replace(trace, kernels=())
    assert compose(without) == compose(trace)
