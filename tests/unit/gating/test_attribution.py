"""Which parts moved: at one moment, between two, in other types, under other names."""

import pytest

from ftbench.base.units import MIB
from ftbench.gating.attribution import changed_parts, remainder
from tests.factories import breakdown, part

STATE = part("", 100 * MIB, role="parameters", module="embeddings")


def only(before, after):
    (found,) = changed_parts(before, after)
    return found


def test_nothing_moved():
    assert changed_parts(breakdown(STATE, part()), breakdown(part(), STATE)) == []


def test_of_one_moment_the_difference_of_what_is_live_is_the_answer():
    before = breakdown(STATE, part("aten::mm", 30 * MIB))
    after = breakdown(STATE, part("aten::mm", 42 * MIB, source="net.py:7"))
    found = only(before, after)
    assert (found.module, found.operator, found.delta_bytes) == ("layer.*", "aten::mm", 12 * MIB)
    assert (found.mark, found.source, found.dtype_after) == ("peak", "net.py:7", "")


def test_what_explains_a_rise_comes_first_and_a_fall_the_other_way_round():
    small, large = part("aten::a", 10 * MIB), part("aten::b", 20 * MIB)
    grown = breakdown(STATE, part("aten::a", 9 * MIB), part("aten::b", 30 * MIB))
    assert [c.operator for c in changed_parts(breakdown(STATE, small, large), grown)] == [
        "aten::b",
        "aten::a",
    ]
    shrunk = breakdown(STATE, part("aten::a", 11 * MIB), part("aten::b", 10 * MIB))
    first, _ = changed_parts(breakdown(STATE, small, large), shrunk)
    assert (first.operator, first.delta_bytes) == ("aten::b", -10 * MIB)


def test_a_part_in_another_type_is_one_change():
    before = breakdown(STATE, part("aten::_softmax", 10 * MIB, dtype="bfloat16"))
    after = breakdown(STATE, part("aten::_softmax", 20 * MIB, dtype="float32"))
    found = only(before, after)
    assert found.delta_bytes == 10 * MIB
    assert (found.dtype_before, found.dtype_after) == ("bfloat16", "float32")


def test_a_new_type_beside_the_old_one_is_what_changed():
    half = part("aten::gelu", 10 * MIB, dtype="bfloat16")
    full = part("aten::gelu", 4 * MIB, dtype="float32")
    found = only(breakdown(STATE, half), breakdown(STATE, half, full))
    assert (found.delta_bytes, found.dtype_after) == (4 * MIB, "")


def test_another_name_of_a_module_is_no_change():
    before = breakdown(STATE, part(module="old.layer.*"), part("aten::gelu", MIB))
    after = breakdown(STATE, part(module="new.layer.*"), part("aten::gelu", 3 * MIB))
    assert only(before, after).operator == "aten::gelu"


def test_of_two_moments_the_parts_are_compared_at_the_fixed_one_nearby():
    """The peak was the optimizer's; now activations are above it. What is exchanged is no changed."""
    gradients = part("", {"peak": 80 * MIB, "in the optimizer": 80 * MIB}, role="gradients")
    kept = part("aten::mm", {"after forward": 70 * MIB, "most": 70 * MIB})
    before = breakdown(STATE, gradients, kept, phase="optimizer", operator="aten::_fused_adamw_")
    after = breakdown(
        STATE,
        part("", {"in the optimizer": 80 * MIB}, role="gradients"),
        part("aten::mm", {"peak": 70 * MIB, "after forward": 70 * MIB, "most": 70 * MIB}),
        part("aten::gelu", {"peak": 20 * MIB, "after forward": 20 * MIB, "most": 20 * MIB}),
    )
    found = only(before, after)
    assert (found.operator, found.delta_bytes, found.mark) == (
        "aten::gelu",
        20 * MIB,
        "after forward",
    )


def test_a_moment_at_which_little_moved_does_not_explain_the_peak():
    """A buffer of 512 bytes is there always; what moves the peak is a temporary of 100 MiB in backward."""
    always = {"peak": 512, "before a step": 512, "after forward": 512, "most": 512}
    before = breakdown(STATE, phase="backward")
    after = breakdown(
        STATE,
        part("", always, role="parameters", module="head"),
        part("aten::mul", {"peak": 100 * MIB, "most": 100 * MIB}, role="temporaries"),
        phase="backward",
        operator="aten::mul",
    )
    first, *_ = changed_parts(before, after)
    assert (first.operator, first.delta_bytes, first.mark) == ("aten::mul", 100 * MIB, "most")


def test_what_is_at_no_mark_shows_in_the_most_it_is():
    before = breakdown(STATE, part("aten::mul", {"most": MIB}), phase="forward")
    after = breakdown(
        STATE, part("aten::mul", {"most": 5 * MIB}), phase="forward", operator="aten::x"
    )
    assert (only(before, after).mark, only(before, after).delta_bytes) == ("most", 4 * MIB)


@pytest.mark.parametrize(
    ("kept", "mark", "first"),
    [
        (40, "most", ("aten::mul", 60 * MIB)),
        (49, "most", ("aten::mul", 51 * MIB)),
        (50, "after forward", ("aten::mm", 50 * MIB)),
        (60, "after forward", ("aten::mm", 60 * MIB)),
    ],
)
def test_a_moment_explains_a_peak_where_at_least_half_of_its_change_is_seen(kept, mark, first):
    """Of a peak that is another by 100 MiB, `kept` are there after forward too."""
    both = {"peak": kept * MIB, "after forward": kept * MIB, "most": kept * MIB}
    rest = {"peak": (100 - kept) * MIB, "most": (100 - kept) * MIB}
    after = breakdown(
        STATE, part("aten::mm", both), part("aten::mul", rest), phase="backward", operator="aten::x"
    )
    found = changed_parts(breakdown(STATE, phase="backward"), after)
    if mark == "most":
        found = [one for one in found if one.operator == "aten::mul"]
    assert (found[0].operator, found[0].delta_bytes) == first
    assert {one.mark for one in found} == {mark}


def test_what_moves_at_no_fixed_moment_nor_at_the_peak_shows_in_the_most_it_is():
    """The peak stays where it was; a buffer beside it grew."""
    before, after = (breakdown(STATE, part("aten::mul", {"most": n * MIB})) for n in (1, 5))
    found = only(before, after)
    assert (found.mark, found.delta_bytes) == ("most", 4 * MIB)


def test_what_moved_at_a_moment_is_the_difference_there():
    """At both marks 30 MiB were there before: 60 more explain half of 100, and 30 would not."""
    both = {"peak": 30 * MIB, "after forward": 30 * MIB, "most": 30 * MIB}
    grown = {"peak": 130 * MIB, "after forward": 70 * MIB, "most": 130 * MIB}
    before = breakdown(STATE, part("aten::mm", both), phase="backward")
    after = breakdown(STATE, part("aten::mm", grown), phase="backward", operator="aten::x")
    assert only(before, after).mark == "most"  # 40 of 100
    grown["after forward"] = 80 * MIB
    after = breakdown(STATE, part("aten::mm", grown), phase="backward", operator="aten::x")
    assert only(before, after).mark == "after forward"


def test_a_part_that_is_gone_and_one_that_is_new():
    before = breakdown(STATE, part("aten::a", 3 * MIB, source="net.py:1"))
    after = breakdown(STATE, part("aten::b", 4 * MIB, source="net.py:2"))
    new, gone = changed_parts(before, after)
    assert (new.operator, new.delta_bytes, new.source) == ("aten::b", 4 * MIB, "net.py:2")
    assert (gone.operator, gone.delta_bytes, gone.source) == ("aten::a", -3 * MIB, "net.py:1")
    assert {one.dtype_before + one.dtype_after for one in (new, gone)} == {""}


def test_a_part_in_several_types_is_named_by_the_one_that_moved_most_and_its_largest_line():
    def typed(half, full):
        return breakdown(
            STATE,
            part("aten::x", half * MIB, dtype="bfloat16", source="half.py:1"),
            part("aten::x", full * MIB, dtype="float32", source="full.py:1"),
        )

    found = only(typed(9, 2), typed(1, 30))
    assert (found.dtype_before, found.dtype_after) == ("bfloat16", "float32")
    assert (found.delta_bytes, found.source) == (20 * MIB, "full.py:1")
    back = only(typed(1, 30), typed(9, 2))
    assert (back.dtype_before, back.dtype_after) == ("float32", "bfloat16")
    assert (back.delta_bytes, back.source) == (-20 * MIB, "half.py:1")


def test_a_renamed_part_is_one_that_is_alike_at_every_mark():
    at_marks = {"peak": MIB, "after forward": MIB}
    before = breakdown(STATE, part("aten::mm", at_marks, module="old"))
    alike = breakdown(STATE, part("aten::mm", at_marks | {"most": 0}, module="new"))
    assert changed_parts(before, alike) == []
    other = breakdown(STATE, part("aten::mm", at_marks | {"most": MIB}, module="new"))
    assert {one.module for one in changed_parts(before, other)} == {"old", "new"}


def test_parts_and_the_remainder_by_role_add_up_to_the_change_of_the_peak():
    """A peak that moves from the backward pass into the optimizer exchanges most of what is live."""
    kept = {"peak": 30 * MIB, "after forward": 30 * MIB}
    before = breakdown(STATE, part("aten::mm", kept), phase="backward")
    state = part("", {"peak": 50 * MIB, "before a step": 50 * MIB}, role="optimizer state")
    after = breakdown(
        STATE, state, part("aten::mm", {"after forward": 30 * MIB}), phase="optimizer"
    )
    found = changed_parts(before, after)
    assert [(one.role, one.delta_bytes) for one in found] == [("optimizer state", 50 * MIB)]
    assert remainder(before, after, found) == {"activations": -30 * MIB}
    assert remainder(before, before, []) == {}
