"""The gate: what fails, what is explained, what cannot be judged."""

import pytest

from ftbench.gate.baseline import Baseline, CardBytes, CellBytes, Group
from ftbench.gate.compare import Attribution, Change, Moved, compare, compare_peaks
from ftbench.gate.pytest_benchmark import Peaks
from tests.factories import breakdown, part

KIB = 1024


def card(requested=100, allocated=110, reserved=120, verdict="fits"):
    return CardBytes(
        requested_bytes=requested * KIB,
        allocated_bytes=allocated * KIB,
        reserved_bytes=reserved * KIB,
        verdict=verdict,
    )


def group(tensors=90 * KIB, cards=None, *, cells=None, parts=(), **changes):
    parts_of = breakdown(*parts)
    fields = {
        "settings": {},
        "cells": cells
        or {"length 16, batch 4": CellBytes(tensors_bytes=tensors, cards=cards or {})},
        "slopes": {},
        "largest": {},
        "reference": "length 16, batch 4",
        "moment": parts_of.moment,
        "parts": parts_of.parts,
    }
    return Group(**(fields | changes))


def baseline(*groups, **changes):
    fields = {
        "profile": "quick",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "architectures": {"t4": "7.5"},
        "workload": {"padding": "max_length"},
        "groups": groups or (group(),),
    }
    return Baseline(**(fields | changes))


def kinds(result):
    return [(change.kind, change.verdict) for change in result.changes]


def test_the_same_holds():
    result = compare(baseline(), baseline())
    assert (result.exit_code, result.changes, result.unjudged) == (0, (), ())
    assert result.judged == (("", "length 16, batch 4"),)


def test_one_byte_more_is_a_regression():
    result = compare(baseline(), baseline(group(90 * KIB + 1)))
    (change,) = result.changes
    assert (change.verdict, change.after - change.before) == ("regression", 1)
    assert result.exit_code == 1


def test_a_drop_fails_too():
    result = compare(baseline(), baseline(group(90 * KIB - 1)))
    assert kinds(result) == [("requested", "drop")]
    assert result.exit_code == 1


@pytest.mark.parametrize(("moved", "code"), [(512, 0), (-512, 0), (513, 1)])
def test_a_tolerance_is_to_both_sides(moved, code):
    found = baseline(group(90 * KIB + moved))
    assert compare(baseline(), found, tolerance_bytes=512).exit_code == code


def test_another_order_of_what_is_asked_for_is_explained():
    before, after = (
        group(cards={"t4": card()}),
        group(cards={"t4": card(allocated=111, reserved=122)}),
    )
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("allocated", "explained"), ("reserved", "explained")]
    assert result.exit_code == 0
    assert result.attributions == ()


def test_what_a_card_asks_for_is_gated():
    before, after = (
        group(cards={"t4": card()}),
        group(cards={"t4": card(requested=101, reserved=121)}),
    )
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("requested", "regression"), ("reserved", "regression")]


def test_what_fits_no_longer_fails_though_nothing_more_is_asked_for():
    before = group(cards={"t4": card()})
    after = group(cards={"t4": card(reserved=130, verdict="does not fit")})
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("fits", "regression")]  # its bytes are those of where it failed
    assert result.exit_code == 1


def test_a_card_that_only_one_side_has_is_not_judged():
    one, none = baseline(group(cards={"t4": card()})), baseline(group())
    assert compare(one, none).unjudged == ("length 16, batch 4: nothing of t4 now",)
    assert compare(none, one).unjudged == ("length 16, batch 4: nothing of t4 in the baseline",)
    assert compare(one, none).exit_code == 2


def test_allocated_bytes_fail_where_the_largest_batch_moved():
    before = group(cards={"t4": card()}, largest={"t4": {"length 16": 28}})
    after = group(cards={"t4": card(allocated=111)}, largest={"t4": {"length 16": 24}})
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("allocated", "regression"), ("largest batch", "regression")]


def test_bytes_of_a_cell_that_does_not_fit_are_not_compared():
    before, after = (
        group(cards={"t4": card(requested=n, verdict="does not fit")}) for n in (100, 90)
    )
    assert compare(baseline(before), baseline(after)).exit_code == 0


@pytest.mark.parametrize(("sides", "said"), [((0, 1), "now"), ((1, 0), "in the baseline")])
def test_a_largest_batch_that_one_side_has_not_is_not_judged(sides, said):
    both = (group(largest={"t4": {"length 512": 28}}), group())
    result = compare(*(baseline(both[side]) for side in sides))
    assert result.exit_code == 2
    assert result.unjudged == (f"length 512: no largest batch of t4 {said}",)


def test_another_kernel_of_attention_is_said():
    fused = part("aten::_scaled_dot_product_efficient_attention", KIB)
    result = compare(baseline(group(parts=(part(), fused))), baseline(group(parts=(part(),))))
    assert "efficient_attention -> none" in result.notes[0]


def test_nothing_that_was_judged_is_no_success():
    assert (
        compare(
            baseline(group(cells={"a": CellBytes(tensors_bytes=1)}, reference="a")),
            baseline(group(cells={"b": CellBytes(tensors_bytes=1)}, reference="b")),
        ).exit_code
        == 2
    )
    assert compare_peaks("x", Peaks({}, {}), Peaks({}, {})).exit_code == 2


@pytest.mark.parametrize(("now", "verdict"), [(24, "regression"), (30, "drop")])
def test_the_largest_batch_is_gated(now, verdict):
    before, after = (group(largest={"t4": {"length 512": n}}) for n in (28, now))
    result = compare(baseline(before), baseline(after))
    (change,) = result.changes
    assert (change.kind, change.of, change.before, change.after) == (
        "largest batch",
        "t4",
        28,
        now,
    )
    assert change.verdict == verdict
    assert result.exit_code == 1


def test_slopes_are_said_with_the_peaks():
    before = group(slopes={"bytes a sample at length 16": 22.5})
    after = group(91 * KIB, slopes={"bytes a sample at length 16": 23.0})
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("requested", "regression"), ("slope", "regression")]


def test_slopes_move_with_the_peaks_and_never_alone():
    before = group(slopes={"bytes a sample at length 16, batch 4 to 8": 22.5})
    after = group(90 * KIB + 100, slopes={"bytes a sample at length 16, batch 4 to 8": 23.0})
    result = compare(baseline(before), baseline(after), tolerance_bytes=512)
    assert (result.exit_code, kinds(result)) == (0, [("slope", "explained")])


def test_parts_of_two_cells_are_not_subtracted():
    one, two = ("length 16, batch 4", "length 16, batch 8")
    sized = {one: CellBytes(tensors_bytes=1), two: CellBytes(tensors_bytes=2)}
    before = group(cells=sized, reference=two)
    after = group(cells={one: CellBytes(tensors_bytes=9)}, reference=one)
    result = compare(baseline(before), baseline(after))
    assert result.exit_code == 1
    assert result.attributions == ()
    assert "what moved is not told" in result.notes[0]


def test_what_moved_is_attributed_in_the_largest_cell():
    before = group(parts=(part("aten::mm", 90 * KIB),))
    after = group(95 * KIB, parts=(part("aten::mm", 90 * KIB), part("aten::gelu", 5 * KIB)))
    (attribution,) = compare(baseline(before), baseline(after)).attributions
    assert (attribution.reference, attribution.delta_bytes) == ("length 16, batch 4", 5 * KIB)
    assert [one.operator for one in attribution.changed_parts] == ["aten::gelu"]


# What cannot be judged


def test_other_versions_are_not_judged():
    result = compare(baseline(), baseline(versions={"torch": "2.14.0", "transformers": "5.23.0"}))
    assert result.exit_code == 2
    assert result.judged == ()
    assert result.unjudged == ("other versions than the baseline's: torch 2.13.0 -> 2.14.0",)


@pytest.mark.parametrize(("nbytes", "code"), [(90 * KIB, 0), (91 * KIB, 1)])
def test_other_versions_are_judged_where_that_is_asked_for(nbytes, code):
    after = baseline(group(nbytes), versions={"torch": "2.14.0", "transformers": "5.23.0"})
    result = compare(baseline(), after, across_versions=True)
    assert result.exit_code == code
    assert result.versions == (Moved("torch", "2.13.0", "2.14.0"),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workload": {"padding": "longest"}}, "padding max_length -> longest"),
        ({"workload": {"eval_size": 8}}, "eval_size absent -> 8"),
        ({"architectures": {"t4": "8.0"}}, "t4 7.5 -> 8.0"),
        ({"attention_kernel": "math"}, "any -> math"),
    ],
)
def test_another_thing_is_not_judged(changes, said):
    result = compare(baseline(), baseline(**changes))
    assert result.exit_code == 2
    assert said in result.unjudged[0]


def test_an_update_shows_what_moves_under_another_workload():
    after = baseline(group(91 * KIB), workload={"padding": "longest"})
    result = compare(baseline(), after, across_workloads=True)
    assert kinds(result) == [("requested", "regression")]
    assert "padding max_length -> longest" in result.notes[0]


def test_cells_that_only_one_side_has_are_not_judged():
    one, two = ("length 16, batch 4", "length 16, batch 8")
    before = group(cells={one: CellBytes(tensors_bytes=1)})
    after = group(cells={one: CellBytes(tensors_bytes=1), two: CellBytes(tensors_bytes=2)})
    result = compare(baseline(before), baseline(after))
    assert result.unjudged == (f"{two}: there is no baseline",)
    assert compare(baseline(after), baseline(before)).unjudged == (f"{two}: it was not found",)
    assert result.exit_code == 2


def test_a_group_that_was_refused_says_why():
    before = baseline(group(settings={"optim": "sgd"}))
    result = compare(before, baseline(group(settings={})), refused={"optim sgd": "not covered"})
    assert "optim sgd: it was not found now (not covered)" in result.unjudged
    assert "there is no baseline" in result.unjudged[1]


def test_a_regression_is_found_though_something_else_is_not_judged():
    one, two = ("length 16, batch 4", "length 16, batch 8")
    before = group(cells={one: CellBytes(tensors_bytes=1), two: CellBytes(tensors_bytes=2)})
    after = group(cells={one: CellBytes(tensors_bytes=9)})
    assert compare(baseline(before), baseline(after)).exit_code == 1


# Benchmarks


def test_peaks_of_benchmarks_are_compared_by_name():
    before = Peaks({"a": 100, "gone": 1}, {"torch": "2.13.0"})
    after = Peaks({"a": 101, "new": 1}, {"torch": "2.13.0"})
    result = compare_peaks("bench", before, after)
    assert [(c.where, c.verdict) for c in result.changes] == [("a", "regression")]
    assert result.unjudged == ("gone: it was not found now", "new: there is no baseline")
    within = compare_peaks(
        "bench", before, Peaks({"a": 101, "gone": 1}, before.versions), tolerance_bytes=1
    )
    assert within.exit_code == 0


def test_benchmarks_of_other_versions_are_not_judged():
    before, after = Peaks({"a": 1}, {"torch": "2.13.0"}), Peaks({"a": 1}, {"torch": "2.14.0"})
    assert compare_peaks("bench", before, after).exit_code == 2
    assert compare_peaks("bench", before, after, across_versions=True).exit_code == 0


# Whole changes, field by field

HERE = ("optim sgd", "length 16, batch 4")


def named(*args, **fields):
    return group(*args, settings={"optim": "sgd"}, **fields)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (named(100), named(90), Change(*HERE, "requested", "", 100, 90, "drop")),
        (
            named(cards={"t4": card(requested=100)}),
            named(cards={"t4": card(requested=101)}),
            Change(*HERE, "requested", "t4", 100 * KIB, 101 * KIB, "regression"),
        ),
        (
            named(cards={"t4": card(allocated=110)}),
            named(cards={"t4": card(allocated=109)}),
            Change(*HERE, "allocated", "t4", 110 * KIB, 109 * KIB, "explained"),
        ),
        (
            named(cards={"t4": card(reserved=120)}),
            named(cards={"t4": card(reserved=121)}),
            Change(*HERE, "reserved", "t4", 120 * KIB, 121 * KIB, "explained"),
        ),
        (
            named(cards={"t4": card(verdict="too close to call")}),
            named(cards={"t4": card(verdict="fits")}),
            Change(*HERE, "fits", "t4", "too close to call", "fits", "drop"),
        ),
        (
            named(cards={"t4": card(verdict="fits")}),
            named(cards={"t4": card(verdict="too close to call")}),
            Change(*HERE, "fits", "t4", "fits", "too close to call", "regression"),
        ),
        (
            named(slopes={"bytes a token": 2.0}),
            named(slopes={"bytes a token": 1.5}),
            Change("optim sgd", "bytes a token", "slope", "", 2.0, 1.5, "explained"),
        ),
        (
            named(largest={"t4": {"length 16": 8}}),
            named(largest={"t4": {"length 16": 9}}),
            Change("optim sgd", "length 16", "largest batch", "t4", 8, 9, "drop"),
        ),
    ],
)
def test_a_change_says_where_of_what_and_how_much(before, after, expected):
    result = compare(baseline(before), baseline(after))
    assert result.changes == (expected,)
    assert result.judged == (HERE,)
    assert result.profile == "quick"


def test_an_attribution_is_of_its_group_and_its_peak():
    """Parts that are not live at the peak are no part of the difference."""
    held = part("aten::mm", {"most": 7 * KIB})
    before = named(parts=(part("aten::mm", 90 * KIB), held))
    after = named(95 * KIB, parts=(part("aten::mm", 95 * KIB), held))
    (found,) = compare(baseline(before), baseline(after)).attributions
    assert found == Attribution("optim sgd", HERE[1], 5 * KIB, found.changed_parts)


def test_groups_and_cells_that_are_not_judged_are_named_with_their_group():
    before = named(cards={"t4": card()}, largest={"t4": {"length 16": 8}})
    result = compare(baseline(before), baseline(named()))
    assert result.unjudged == (
        "optim sgd: length 16, batch 4: nothing of t4 now",
        "optim sgd: length 16: no largest batch of t4 now",
    )


def test_a_library_that_is_new_or_gone_is_another_version():
    one, other = baseline(), baseline(versions={"torch": "2.13.0", "accelerate": "1.15.0"})
    result = compare(one, other)
    assert result.versions == (
        Moved("accelerate", "none", "1.15.0"),
        Moved("transformers", "5.23.0", "none"),
    )
    assert "accelerate none -> 1.15.0, transformers 5.23.0 -> none" in result.unjudged[0]


@pytest.mark.parametrize(
    ("field", "there", "what"),
    [
        ("workload", {"model": "offline:minilm-l6"}, "workload model"),
        ("architectures", {"t4": "7.5"}, "card t4"),
    ],
)
def test_what_is_another_thing_is_named(field, there, what):
    kind, name = what.split()
    one, none = baseline(**{field: there}), baseline(**{field: {}})
    for sides, moved in (((one, none), "-> absent"), ((none, one), "absent ->")):
        (said,) = compare(*sides).unjudged
        assert said.startswith(f"another {kind} ")
        assert name in said
        assert moved in said


def test_peaks_of_benchmarks_have_all_that_a_change_has():
    before, after = Peaks({"a": 100, "b": 7}, {"torch": "2.13.0"}), Peaks({"a": 90, "b": 7}, {})
    result = compare_peaks("bench", before, after, across_versions=True)
    assert result.changes == (Change("", "a", "requested", "", 100, 90, "drop"),)
    assert result.judged == (("", "a"), ("", "b"))
    assert (result.profile, result.versions) == ("bench", (Moved("torch", "2.13.0", "none"),))
    refused = compare_peaks("bench", before, after)
    assert (refused.profile, refused.versions) == ("bench", result.versions)
    assert "torch 2.13.0 -> none" in refused.unjudged[0]
    assert compare_peaks("bench", before, before).versions == ()
