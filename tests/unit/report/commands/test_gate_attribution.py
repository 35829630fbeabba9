"""The gate's attributions in words: a peak before and after, and parts that add up."""

import pytest

from ftbench.base.units import MIB
from ftbench.gating.attribution import ChangedPart
from ftbench.gating.result import Attribution
from ftbench.plan.groups import CellShape
from ftbench.records.prediction import Moment
from ftbench.report.commands.gate_attribution import (
    MOST_CHANGED_PARTS,
    attribution_words,
    changed_part_words,
)

SHAPE = CellShape(max_length=512, per_device_train_batch_size=16)
CELL = "length 512, batch 16"
SOFTMAX = ChangedPart(
    "activations",
    "layer.*.attention",
    "aten::_softmax",
    int(12.6 * MIB),
    "peak",
    dtype_before="bfloat16",
    dtype_after="float32",
    source="modeling_distilbert.py:138",
)
MOMENTS = (
    Moment(phase="forward", step=3, module="m", operator="aten::a"),
    Moment(phase="backward", step=3, module="n", operator="aten::b"),
)


def attribution(delta_bytes, *parts, remainder=None):
    settings = {"bf16": True}
    return Attribution(settings, SHAPE, 100 * MIB, delta_bytes, parts, MOMENTS, remainder or {})


def test_a_changed_part_is_named_in_full():
    assert changed_part_words(SOFTMAX) == (
        "+12.6 MiB, activations, layer.*.attention, aten._softmax saved in fp32 (was bf16)"
        " (modeling_distilbert.py:138)"
    )


def test_state_has_no_operator():
    found = ChangedPart("parameters", "pooled", "", 512, "peak")
    assert changed_part_words(found) == "+512 B, parameters, pooled"


@pytest.mark.parametrize(
    ("mark", "said"),
    [("before a step", "from one step to the next"), ("most", "largest"), ("peak", "")],
)
def test_at_which_moment_a_part_changed_is_said(mark, said):
    words = changed_part_words(ChangedPart("temporaries", "m", "aten::mul", MIB, mark))
    assert said in words.removeprefix("+1.0 MiB, temporaries, m, aten.mul")


def test_many_changed_parts_are_summed_up():
    many = tuple(
        ChangedPart("activations", f"m{n}", "aten::mm", MIB, "peak")
        for n in range(MOST_CHANGED_PARTS + 3)
    )
    said = list(attribution_words(attribution(11 * MIB, *many)))
    assert said[0].startswith(f"bf16 on: {CELL}: ")
    assert "104,857,600 to 116,391,936 bytes (+11.0 MiB)" in said[0]
    assert len(said) == MOST_CHANGED_PARTS + 3
    assert said[-2:] == ["  +3.0 MiB in 3 more parts", "  +11.0 MiB in all (+11,534,336 bytes)"]


def test_parts_of_another_moment_are_made_to_add_up():
    part = ChangedPart("activations", "m", "aten::mm", 3 * MIB, "after forward")
    rest = {"activations": MIB, "gradients": -6 * MIB}
    said = list(attribution_words(attribution(-2 * MIB, part, remainder=rest)))
    assert "fell from 104,857,600 to 102,760,448 bytes (-2.0 MiB)" in said[0]
    assert said[2:5] == [
        "  +1.0 MiB, other activations at the peak",
        "  -6.0 MiB, other gradients at the peak",
        "  -2.0 MiB in all (-2,097,152 bytes)",
    ]
    assert "forward (aten.a of m) to the phase backward (aten.b of n)" in said[5]


def test_a_peak_that_stayed_has_no_sum():
    part = ChangedPart("temporaries", "m", "aten::mm", 3 * MIB, "most")
    stayed, *parts = attribution_words(attribution(0, part, remainder={"temporaries": -3 * MIB}))
    assert "stayed at 104,857,600 bytes" in stayed
    assert len(parts) == 1


def test_without_a_changed_part_one_line_says_what_it_can_be():
    (said,) = attribution_words(attribution(512))
    assert said.startswith(f"bf16 on: {CELL}: ")
