"""The gate: what fails, what is explained, what cannot be judged."""

import pytest

from ftbench.gating.baseline import Baseline, CardBytes, CellBytes, Group, LargestFit, Slope
from ftbench.gating.compare import compare, compare_peaks
from ftbench.gating.peaks import Peaks
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.predicted import RefusedGroup, Steps, baseline_of_steps
from ftbench.gating.reasons import (
    CardMissing,
    CellMissing,
    Differs,
    GroupMissing,
    LargestBatchMissing,
    OtherKernels,
    OtherReference,
    OtherVersions,
    SettingChange,
    VersionChange,
)
from ftbench.gating.result import (
    Attribution,
    BytesChange,
    FitChange,
    LargestBatchChange,
    SlopeChange,
)
from tests.factories import breakdown, part
from tests.unit.gating.made import place, shape

KIB = 1024
EAGER = SettingChange("attn_implementation", None, "eager")
OPTIMIZER = SettingChange("optim", "sgd", "adafactor")
ONE, TWO = shape(16, 4), shape(16, 8)


def cells(sizes):
    return tuple(CellBytes(cell=cell, tensors_bytes=nbytes) for cell, nbytes in sizes.items())


def slope(nbytes):
    return Slope(axis="per_device_train_batch_size", fixed=16, low=4, high=8, bytes_per_unit=nbytes)


def fit(batch, length=16):
    return LargestFit(gpu="t4", max_length=length, batch=batch)


def card(requested=100, allocated=110, reserved=120, verdict="fits"):
    return CardBytes(
        requested_bytes=requested * KIB,
        allocated_bytes=allocated * KIB,
        reserved_bytes=reserved * KIB,
        verdict=verdict,
    )


def group(tensors=90 * KIB, cards=None, *, own=None, parts=(), **changes):
    parts_of = breakdown(*parts)
    fields = {
        "settings": {},
        "cells": own or (CellBytes(cell=ONE, tensors_bytes=tensors, cards=cards or {}),),
        "reference": ONE,
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
    return [(kind_of(change), change.verdict) for change in result.changes]


def kind_of(change):
    return change.kind if isinstance(change, BytesChange) else type(change)


def test_the_same_holds():
    result = compare(baseline(), baseline())
    assert (result.exit_code, result.changes, result.unjudged) == (0, (), ())
    assert result.judged == (place(16, 4),)


def test_one_byte_more_is_a_regression():
    result = compare(baseline(), baseline(group(90 * KIB + 1)))
    (change,) = result.changes
    assert (change.verdict, change.after - change.before) == ("regression", 1)
    assert result.exit_code == 1


def test_an_improvement_fails_too():
    result = compare(baseline(), baseline(group(90 * KIB - 1)))
    assert kinds(result) == [("requested", "improvement")]
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
    assert kinds(result) == [(FitChange, "regression")]  # its bytes are those of where it failed
    assert result.exit_code == 1


def test_a_card_that_only_one_side_has_is_not_judged():
    one, none = baseline(group(cards={"t4": card()})), baseline(group())
    assert compare(one, none).unjudged == (CardMissing(place(16, 4), "t4", "now"),)
    assert compare(none, one).unjudged == (CardMissing(place(16, 4), "t4", "baseline"),)
    assert compare(one, none).exit_code == 2


def test_allocated_bytes_fail_where_the_largest_batch_moved():
    before = group(cards={"t4": card()}, largest=(fit(28),))
    after = group(cards={"t4": card(allocated=111)}, largest=(fit(24),))
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("allocated", "regression"), (LargestBatchChange, "regression")]


def test_bytes_of_a_cell_that_does_not_fit_are_not_compared():
    before, after = (
        group(cards={"t4": card(requested=n, verdict="does not fit")}) for n in (100, 90)
    )
    assert compare(baseline(before), baseline(after)).exit_code == 0


@pytest.mark.parametrize(("sides", "side"), [((0, 1), "now"), ((1, 0), "baseline")])
def test_a_largest_batch_that_one_side_has_not_is_not_judged(sides, side):
    both = (group(largest=(fit(28, 512),)), group())
    result = compare(*(baseline(both[side]) for side in sides))
    assert result.exit_code == 2
    assert result.unjudged == (LargestBatchMissing({}, "t4", 512, side),)


def test_another_kernel_of_attention_is_said():
    fused = part("aten::_scaled_dot_product_efficient_attention", KIB)
    result = compare(baseline(group(parts=(part(), fused))), baseline(group(parts=(part(),))))
    assert result.notes == (OtherKernels({}, (fused.operator,), ()),)


def test_nothing_that_was_judged_is_no_success():
    assert (
        compare(
            baseline(group(own=cells({ONE: 1}))),
            baseline(group(own=cells({TWO: 1}), reference=TWO)),
        ).exit_code
        == 2
    )
    assert compare_peaks("x", Peaks({}, {}), Peaks({}, {})).exit_code == 2


@pytest.mark.parametrize(("now", "verdict"), [(24, "regression"), (30, "improvement")])
def test_the_largest_batch_is_gated(now, verdict):
    before, after = (group(largest=(fit(n, 512),)) for n in (28, now))
    result = compare(baseline(before), baseline(after))
    assert result.changes == (LargestBatchChange({}, "t4", 512, 28, now, verdict),)
    assert result.exit_code == 1


def test_slopes_are_said_with_the_peaks():
    before = group(slopes=(slope(22.5),))
    after = group(91 * KIB, slopes=(slope(23.0),))
    result = compare(baseline(before), baseline(after))
    assert kinds(result) == [("requested", "regression"), (SlopeChange, "regression")]


def test_slopes_move_with_the_peaks_and_never_alone():
    before = group(slopes=(slope(22.5),))
    after = group(90 * KIB + 100, slopes=(slope(23.0),))
    result = compare(baseline(before), baseline(after), tolerance_bytes=512)
    assert (result.exit_code, kinds(result)) == (0, [(SlopeChange, "explained")])


def test_parts_of_two_cells_are_not_subtracted():
    before = group(own=cells({ONE: 1, TWO: 2}), reference=TWO)
    after = group(own=cells({ONE: 9}))
    result = compare(baseline(before), baseline(after))
    assert result.exit_code == 1
    assert result.attributions == ()
    assert result.notes == (OtherReference({}, TWO, ONE),)


def test_what_moved_is_attributed_in_the_largest_cell():
    before = group(parts=(part("aten::mm", 90 * KIB),))
    after = group(95 * KIB, parts=(part("aten::mm", 90 * KIB), part("aten::gelu", 5 * KIB)))
    (attribution,) = compare(baseline(before), baseline(after)).attributions
    assert (attribution.reference, attribution.delta_bytes) == (ONE, 5 * KIB)
    assert [one.operator for one in attribution.changed_parts] == ["aten::gelu"]


# What cannot be judged


def test_other_versions_are_not_judged():
    result = compare(baseline(), baseline(versions={"torch": "2.14.0", "transformers": "5.23.0"}))
    assert result.exit_code == 2
    assert result.judged == ()
    assert result.unjudged == (OtherVersions(result.versions),)
    assert result.versions == (VersionChange("torch", "2.13.0", "2.14.0"),)


@pytest.mark.parametrize(("nbytes", "code"), [(90 * KIB, 0), (91 * KIB, 1)])
def test_other_versions_are_judged_where_that_is_asked_for(nbytes, code):
    after = baseline(group(nbytes), versions={"torch": "2.14.0", "transformers": "5.23.0"})
    result = compare(baseline(), after, across_versions=True)
    assert result.exit_code == code
    assert result.versions == (VersionChange("torch", "2.13.0", "2.14.0"),)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workload": {"eval_size": 8}}, Differs("workload", "eval_size", None, 8)),
        (
            {"workload": {"model revision": "sha256:1"}},
            Differs("workload", "model revision", None, "sha256:1"),
        ),
        ({"workload": {"config.n_layers": 2}}, Differs("workload", "config.n_layers", None, 2)),
        ({"workload": {"steps": 12}}, Differs("workload", "steps", None, 12)),
        ({"architectures": {"t4": "8.0"}}, Differs("card", "t4", "7.5", "8.0")),
        ({"architectures": {}}, Differs("card", "t4", "7.5", None)),
        ({"attention_kernel": "math"}, Differs("attention kernel", "", None, "math")),
    ],
)
def test_another_thing_is_not_judged(changes, expected):
    result = compare(baseline(), baseline(**changes))
    assert (result.exit_code, result.judged) == (2, ())
    assert result.unjudged == (expected,)


def test_an_update_shows_what_changes_under_another_workload():
    after = baseline(group(91 * KIB), workload={"eval_size": 8})
    result = compare(baseline(), after, across_workloads=True)
    assert kinds(result) == [("requested", "regression")]
    assert result.notes == (Differs("workload", "eval_size", None, 8),)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        # In all cells.
        (
            ({"bf16": True}, {}),
            ({}, {}),
            (SettingChange("bf16", True, None),),
        ),
        ({}, ({}, {}), ()),
        (({}, {}), ({"attn_implementation": "eager"}, {}), (EAGER,)),
        # Written out at its default, or as a list of one value.
        (({}, {}), ({"attn_implementation": "sdpa"}, {}), ()),
        (({"attn_implementation": "sdpa"}, {}), ({}, {"attn_implementation": "sdpa"}), ()),
        # Of the only group that is told apart by it.
        (({}, {"optim": "sgd"}), ({}, {"optim": "adafactor"}), (OPTIMIZER,)),
    ],
)
def test_a_changed_setting_is_compared_and_named(before, after, changes):
    sides = [
        baseline(group(size * KIB, settings=own), workload=common)
        for size, (common, own) in zip((90, 91), (before or ({}, {}), after), strict=True)
    ]
    result = compare(*sides)
    assert (result.exit_code, result.unjudged, result.settings) == (1, (), changes)
    assert kinds(result) == [("requested", "regression")]
    assert compare(sides[0], sides[0]).settings == ()


def test_a_new_value_of_an_axis_has_no_baseline_and_the_old_one_is_compared():
    """The setting was the same in all cells; now it tells two groups apart."""
    before = baseline(group(), workload={"bf16": True})
    after = baseline(
        group(91 * KIB, settings={"bf16": True}), group(settings={"bf16": False}), workload={}
    )
    result = compare(before, after)
    assert result.unjudged == (GroupMissing({"bf16": False}, "baseline"),)
    assert kinds(result) == [("requested", "regression")]
    assert result.settings == ()


def steps(nbytes=KIB, blocks=5, growth=0):
    found = Steps(nbytes, blocks, growth)
    return baseline_of_steps("net", found, breakdown(part("aten::mm", nbytes)), [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"blocks": 6}, ["regression"]),
        ({"blocks": 4}, ["improvement"]),
        ({"growth": 1}, ["regression"]),
        ({"nbytes": 2 * KIB, "blocks": 6}, ["regression", "regression"]),
    ],
)
def test_tensors_are_counted_and_growth_is_compared(changes, expected):
    result = compare(steps(), steps(**changes))
    assert [one.verdict for one in result.failures] == expected
    assert result.exit_code == bool(expected)
    # Without more bytes at the peak no part is larger.
    assert len(result.attributions) == ("nbytes" in changes)


def test_a_baseline_without_counts_is_judged_by_its_bytes():
    old = steps().groups[0]
    cell = old.cells[0].model_copy(update={"live_blocks": None, "growth_bytes": None})
    before = steps().model_copy(update={"groups": (old.model_copy(update={"cells": (cell,)}),)})
    assert compare(before, steps(blocks=9, growth=9)).exit_code == 0
    assert compare(before, steps(nbytes=2)).exit_code == 1


def test_a_tolerance_in_bytes_counts_512_for_each_tensor():
    assert compare(steps(), steps(blocks=7), tolerance_bytes=1024).exit_code == 0
    assert compare(steps(), steps(blocks=8), tolerance_bytes=1024).exit_code == 1


def test_cells_that_only_one_side_has_are_not_judged():
    before = group(own=cells({ONE: 1}))
    after = group(own=cells({ONE: 1, TWO: 2}))
    result = compare(baseline(before), baseline(after))
    assert result.unjudged == (CellMissing(place(16, 8), "baseline"),)
    back = compare(baseline(after), baseline(before))
    assert back.unjudged == (CellMissing(place(16, 8), "now"),)
    assert (result.exit_code, result.judged) == (2, (place(16, 4),))


def test_a_group_that_was_refused_says_why():
    sgd = {"optim": "sgd"}
    result = compare(
        baseline(group(settings=sgd)),
        baseline(group(settings={})),
        refused=[RefusedGroup({"optim": "adafactor"}, "other"), RefusedGroup(sgd, "not covered")],
    )
    assert result.unjudged == (
        GroupMissing(sgd, "now", "not covered"),
        GroupMissing({}, "baseline"),
    )


def test_a_regression_is_found_though_something_else_is_not_judged():
    before, after = group(own=cells({ONE: 1, TWO: 2})), group(own=cells({ONE: 9}))
    assert compare(baseline(before), baseline(after)).exit_code == 1


# Benchmarks


def named_place(name):
    return Place({}, NamedSteps(name=name))


def test_peaks_of_benchmarks_are_compared_by_name():
    before = Peaks({"a": 100, "gone": 1}, {"torch": "2.13.0"})
    after = Peaks({"a": 101, "new": 1}, {"torch": "2.13.0"})
    result = compare_peaks("bench", before, after)
    assert result.changes == (
        BytesChange(named_place("a"), "requested", None, 100, 101, "regression"),
    )
    assert result.unjudged == (
        CellMissing(named_place("gone"), "now"),
        CellMissing(named_place("new"), "baseline"),
    )
    within = compare_peaks(
        "bench", before, Peaks({"a": 101, "gone": 1}, before.versions), tolerance_bytes=1
    )
    assert within.exit_code == 0


def test_benchmarks_of_other_versions_are_not_judged():
    before, after = Peaks({"a": 1}, {"torch": "2.13.0"}), Peaks({"a": 1}, {"torch": "2.14.0"})
    assert compare_peaks("bench", before, after).exit_code == 2
    assert compare_peaks("bench", before, after, across_versions=True).exit_code == 0


# Whole changes, field by field

SGD = {"optim": "sgd"}
HERE = place(16, 4, **SGD)
EDGE = ("per_device_train_batch_size", 16, 4, 8)


def named(*args, **fields):
    return group(*args, settings=SGD, **fields)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (named(100), named(90), BytesChange(HERE, "requested", None, 100, 90, "improvement")),
        (
            named(cards={"t4": card(requested=100)}),
            named(cards={"t4": card(requested=101)}),
            BytesChange(HERE, "requested", "t4", 100 * KIB, 101 * KIB, "regression"),
        ),
        (
            named(cards={"t4": card(allocated=110)}),
            named(cards={"t4": card(allocated=109)}),
            BytesChange(HERE, "allocated", "t4", 110 * KIB, 109 * KIB, "explained"),
        ),
        (
            named(cards={"t4": card(reserved=120)}),
            named(cards={"t4": card(reserved=121)}),
            BytesChange(HERE, "reserved", "t4", 120 * KIB, 121 * KIB, "explained"),
        ),
        (
            named(cards={"t4": card(verdict="too close to call")}),
            named(cards={"t4": card(verdict="fits")}),
            FitChange(HERE, "t4", "too close to call", "fits", "improvement"),
        ),
        (
            named(cards={"t4": card(verdict="fits")}),
            named(cards={"t4": card(verdict="too close to call")}),
            FitChange(HERE, "t4", "fits", "too close to call", "regression"),
        ),
        (
            named(slopes=(slope(2.0),)),
            named(slopes=(slope(1.5),)),
            SlopeChange(SGD, *EDGE, 2.0, 1.5, "explained"),
        ),
        (
            named(largest=(fit(8),)),
            named(largest=(fit(9),)),
            LargestBatchChange(SGD, "t4", 16, 8, 9, "improvement"),
        ),
    ],
)
def test_a_change_says_where_of_what_and_how_much(before, after, expected):
    result = compare(baseline(before), baseline(after))
    assert result.changes == (expected,)
    assert result.changes[0].settings == SGD
    assert result.judged == (HERE,)
    assert result.profile == "quick"


def test_slopes_of_one_edge_only_are_compared():
    other = Slope(axis="max_length", fixed=4, low=16, high=32, bytes_per_unit=9)
    before, after = group(slopes=(slope(2.0), other)), group(slopes=(slope(2.0),))
    assert compare(baseline(before), baseline(after)).changes == ()


def test_an_attribution_is_of_its_group_and_its_peak():
    """Parts that are not live at the peak are no part of the difference."""
    held = part("aten::gelu", {"most": 7 * KIB})
    before = named(parts=(part("aten::mm", 90 * KIB), held))
    after = named(95 * KIB, parts=(part("aten::mm", 95 * KIB), held))
    (found,) = compare(baseline(before), baseline(after)).attributions
    moments = before.moment, after.moment
    assert found == Attribution(SGD, ONE, 90 * KIB, 5 * KIB, found.changed_parts, moments)
    assert (found.after_bytes, found.remainder, found.is_elsewhere) == (95 * KIB, {}, False)


def test_groups_and_cells_that_are_not_judged_are_named_with_their_group():
    before = named(cards={"t4": card()}, largest=(fit(8),))
    result = compare(baseline(before), baseline(named()))
    assert result.unjudged == (
        CardMissing(HERE, "t4", "now"),
        LargestBatchMissing(SGD, "t4", 16, "now"),
    )


def test_a_library_that_is_new_or_gone_is_another_version():
    one, other = baseline(), baseline(versions={"torch": "2.13.0", "accelerate": "1.15.0"})
    result = compare(one, other)
    assert result.versions == (
        VersionChange("accelerate", None, "1.15.0"),
        VersionChange("transformers", "5.23.0", None),
    )
    assert result.unjudged == (OtherVersions(result.versions),)


def test_peaks_of_benchmarks_have_all_that_a_change_has():
    before, after = Peaks({"a": 100, "b": 7}, {"torch": "2.13.0"}), Peaks({"a": 90, "b": 7}, {})
    result = compare_peaks("bench", before, after, across_versions=True)
    assert result.changes == (
        BytesChange(named_place("a"), "requested", None, 100, 90, "improvement"),
    )
    assert result.judged == (named_place("a"), named_place("b"))
    assert (result.profile, result.versions) == ("bench", (VersionChange("torch", "2.13.0", None),))
    refused = compare_peaks("bench", before, after)
    assert (refused.profile, refused.versions) == ("bench", result.versions)
    assert refused.unjudged == (OtherVersions(result.versions),)
    assert compare_peaks("bench", before, before).versions == ()
