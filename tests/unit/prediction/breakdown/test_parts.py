"""The parts of a planted trace at each mark, by hand."""

import pytest

from ftbench.prediction.breakdown.parts import breakdown
from ftbench.prediction.trace.events import (
    BACKWARD,
    EVALUATION,
    FORWARD,
    OPTIMIZER,
    SETUP,
    Origin,
    Site,
    TraceBuilder,
)

WEIGHT, KEPT, PASSING, GRADIENT, STATE, SCRATCH, LOGITS = 1000, 600, 50, 1000, 2000, 900, 70
STEPS = 3


def planted():
    """A stack of two layers, three steps, an evaluation; the peak is in the last optimizer step."""
    builder = TraceBuilder()

    def make(nbytes, phase, step, module, operator, dtype="float32", source="", role=None):
        block = builder.allocate(nbytes, Site(phase, step, module, operator))
        builder.origins[block] = Origin(dtype, source)
        if role:
            builder.roles[block] = role
            builder.owners[block] = module
        return block

    def drop(block, nbytes, phase, step):
        builder.free(block, nbytes, Site(phase, step, "", ""))

    layers = ("layer.0", "layer.1")
    for name in layers:
        make(WEIGHT, SETUP, 0, name, "aten::empty", role="parameters")
    for step in range(1, STEPS + 1):
        kept = []
        for name in layers:
            passing = make(PASSING, FORWARD, step, name, "aten::gelu", source="model.py:7")
            kept.append(
                make(KEPT, FORWARD, step, name, "aten::mm", dtype="bfloat16", source="model.py:8")
            )
            drop(passing, PASSING, FORWARD, step)
        gradients = []
        for name, block in zip(reversed(layers), reversed(kept), strict=True):
            gradients.append(make(GRADIENT, BACKWARD, step, name, "aten::t", role="gradients"))
            drop(block, KEPT, BACKWARD, step)
        if step == 1:
            for name in layers:
                make(STATE, OPTIMIZER, step, name, "aten::zeros_like", role="optimizer state")
        scratch = make(SCRATCH, OPTIMIZER, step, "", "aten::_foreach_mul")
        drop(scratch, SCRATCH, OPTIMIZER, step)
        for block in gradients:
            drop(block, GRADIENT, OPTIMIZER, step)
        logits = make(LOGITS, EVALUATION, step, "", "aten::mm")
        drop(logits, LOGITS, EVALUATION, step)
    return builder.build()


@pytest.fixture(scope="module")
def found():
    return breakdown(planted())


def part(found, **wanted):
    (one,) = (part for part in found.parts if all(getattr(part, k) == v for k, v in wanted.items()))
    return one


def at(found, mark):
    return sum(part.nbytes.get(mark, 0) for part in found.parts)


STATE_BYTES = 2 * WEIGHT + 2 * STATE


@pytest.mark.parametrize(
    ("mark", "nbytes"),
    [
        ("peak", STATE_BYTES + 2 * GRADIENT + SCRATCH),
        ("before a step", STATE_BYTES),
        ("after forward", STATE_BYTES + 2 * KEPT),
        ("after backward", STATE_BYTES + 2 * GRADIENT),
        ("in the optimizer", STATE_BYTES + 2 * GRADIENT + SCRATCH),
        ("in evaluation", STATE_BYTES + LOGITS),
    ],
)
def test_what_is_live_at_each_mark(found, mark, nbytes):
    assert at(found, mark) == nbytes


def test_the_parts_at_the_peak_are_the_peak(found):
    assert at(found, "peak") == planted().peak_bytes
    assert found.moment.phase == OPTIMIZER


def test_layers_of_a_stack_are_one_part_with_its_type_and_line(found):
    kept = part(found, role="activations", operator="aten::mm")
    assert (kept.module, kept.dtype, kept.source) == ("layer.*", "bfloat16", "model.py:8")
    assert kept.nbytes == {"after forward": 2 * KEPT, "most": 2 * KEPT}


def test_what_is_never_there_at_a_mark_shows_in_the_most_it_is(found):
    assert part(found, operator="aten::gelu").nbytes == {"most": PASSING}


def test_state_is_named_by_its_module_alone(found):
    assert part(found, role="optimizer state").operator == ""
    assert part(found, role="gradients").nbytes["in the optimizer"] == 2 * GRADIENT


def test_the_largest_at_the_peak_comes_first(found):
    assert found.parts[0].role == "optimizer state"


def test_a_trace_without_steps_has_a_peak():
    builder = TraceBuilder()
    builder.allocate(8, Site(SETUP, 0, "", "aten::empty"))
    (only,) = breakdown(builder.build()).parts
    assert only.nbytes == {"peak": 8, "most": 8}
