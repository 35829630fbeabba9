"""The gate's sentences: every type of change and of reason has one, with the figures that it holds."""

import typing

import pytest

from ftbench.base.units import MIB
from ftbench.gating import reasons
from ftbench.gating.attribution import ChangedPart
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.reasons import Reason
from ftbench.gating.result import (
    Attribution,
    BytesChange,
    Change,
    FitChange,
    LargestBatchChange,
    MeasuredPeakChange,
    OutOfMemory,
    ScoreChange,
    SlopeChange,
    TimeChange,
)
from ftbench.plan.groups import CellShape
from ftbench.records.prediction import Moment
from ftbench.report.commands.gate import _TYPES
from ftbench.report.commands.gate_sentences import (
    MOST_CHANGED_PARTS,
    attribution_words,
    cell_words,
    change_words,
    changed_part_words,
    reason_words,
    settings_words,
    signed,
)

SHAPE = CellShape(max_length=512, per_device_train_batch_size=16)
PLACE = Place({"bf16": True}, SHAPE)
CELL = "length 512, batch 16"
BATCH = "per_device_train_batch_size"
VERSIONS = (reasons.VersionChange("torch", "2.13.0", None),)
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


def attribution(delta_bytes, *parts, moments=MOMENTS):
    return Attribution({"bf16": True}, SHAPE, 100 * MIB, delta_bytes, parts, moments)


CHANGES = [
    (
        BytesChange(PLACE, "requested", None, 100, 612, "regression"),
        (CELL, "tensors", "100", "612", "+512 B", ""),
    ),
    (
        BytesChange(PLACE, "reserved", "t4", 2000, 1000, "explained"),
        (CELL, "t4 reserved", "2,000", "1,000", "-1000 B", ""),
    ),
    (
        FitChange(PLACE, "t4", "fits", "does not fit", "regression"),
        (CELL, "fits on t4", "fits", "does not fit", "–", ""),  # noqa: RUF001
    ),
    (
        SlopeChange({}, BATCH, 512, 16, 32, 23010312.0, 23010312.5, "regression"),
        (
            "length 512, batch 16 to 32",
            "bytes per sample",
            "23,010,312",
            "23,010,312.5",
            "+0.5",
            "",
        ),
    ),
    (
        SlopeChange({}, "max_length", 4, 256, 512, 22.5, 22.0, "improvement"),
        ("batch 4, length 256 to 512", "bytes per token", "22.5", "22", "-0.5", ""),
    ),
    (
        LargestBatchChange({}, "t4", 512, 2800, 24, "regression"),
        ("length 512", "t4 largest batch", "2,800", "24", "-2,776", ""),
    ),
    (
        OutOfMemory(PLACE),
        (CELL, "outcome", "ok", "out of memory", "–", ""),  # noqa: RUF001
    ),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_change_in_words(change, words):
    assert tuple(change_words(change)) == words


@pytest.mark.parametrize(
    ("change", "shown", "noted"),
    [
        (
            MeasuredPeakChange(
                PLACE, "peak_allocated_bytes", 1000.0, 2000.0, 5.0, None, "regression"
            ),
            ("1,000", "2,000", "+1000 B"),
            ["0.5%"],
        ),
        (
            MeasuredPeakChange(PLACE, "peak_rss_bytes", 0.0, MIB, 62.4 * MIB, 3, "regression"),
            ("0", "1,048,576", "+1.0 MiB"),
            ["62 MiB", "3 runs"],
        ),
        (
            ScoreChange(PLACE, "accuracy", 0.8, 0.75, (3, 2), 0.0123),
            ("0.800", "0.750", "-0.050"),
            ["3 and 2 seeds", "p = 0.012"],
        ),
        (
            TimeChange(PLACE, "step_min_s", 2.0, 2.1, 1.0512, 8, 0.004),
            ("2.00 s", "2.10 s", "1.05x"),
            ["1.051x", "8 pairs", "p = 0.004"],
        ),
    ],
)
def test_a_measured_change_has_a_note_of_how_it_was_judged(change, shown, noted):
    words = change_words(change)
    assert words[2:5] == shown
    assert all(part in words.note for part in noted)


REASONS = [
    (reasons.Failed("no such file"), ["no such file"]),
    (reasons.OtherVersions(VERSIONS), ["torch 2.13.0 -> none"]),
    (
        reasons.Differs("workload", "padding", "longest", None),
        ["workload", "padding longest -> absent"],
    ),
    (reasons.Differs("attention kernel", "", None, "math"), ["attention kernel", ": any -> math"]),
    (reasons.GroupMissing({"optim": "sgd"}, "now", "why"), ["optim sgd: ", " now", "(why)"]),
    (reasons.GroupMissing({}, "baseline"), ["baseline"]),
    (reasons.CellMissing(PLACE, "baseline"), [f"bf16 on: {CELL}: ", "baseline"]),
    (reasons.CellMissing(PLACE, "now"), [f"bf16 on: {CELL}: ", " now"]),
    (reasons.CardMissing(PLACE, "t4", "now"), [CELL, "t4", " now"]),
    (reasons.CardMissing(PLACE, "t4", "baseline"), [CELL, "baseline", "t4"]),
    (reasons.LargestBatchMissing({}, "t4", 512, "now"), ["length 512: ", "t4 now"]),
    (reasons.LargestBatchMissing({}, "t4", 512, "baseline"), ["length 512: ", "baseline", "t4"]),
    (reasons.OtherKernels({}, ("a", "b"), ()), ["a, b -> none"]),
    (reasons.OtherReference({}, SHAPE, NamedSteps(name="step")), ["baseline", CELL, "step"]),
    (reasons.FigureMissing(PLACE, "eval_accuracy"), [CELL, "accuracy"]),
    (reasons.NoMemoryFigure(PLACE), [CELL]),
    (reasons.TooFewReadings(PLACE, "peak_rss_bytes", 2, 3), [CELL, "2 runs", "3"]),
    (reasons.SingleSeed(), ["scores", "seed"]),
    (reasons.NoTimes(PLACE), ["time", CELL]),
    (reasons.NotAlternating(kept=True), ["time", "--base"]),
    (reasons.NotAlternating(kept=False), ["time", "alternate"]),
    (reasons.TooFewPairs(4, 5), ["time", "4 pairs", "5"]),
    (
        reasons.TooFewPairsForAll(7, 4, (PLACE, PLACE)),
        ["time", f"{CELL}; bf16", "4 figures", "7 pairs"],
    ),
    (reasons.RunsLeftOut(1, "crashed"), ["1 run ", "crashed"]),
    (reasons.RunsLeftOut(2, "untrusted"), ["2 runs ", "cannot be right"]),
    (reasons.RecordsUnreadable(2), ["2 records"]),
    (reasons.CellsNotRun(1), ["1 cell "]),
    (reasons.EnvironmentsUnknown(("a", "b")), ["a, b"]),
]


@pytest.mark.parametrize(("reason", "figures"), REASONS)
def test_a_reason_has_its_figures_in_words(reason, figures):
    said = reason_words(reason)
    places = [said.index(figure) for figure in figures]
    assert places == sorted(places)
    assert "  " not in said


def test_every_type_has_words():
    assert {type(reason) for reason, _ in REASONS} == set(typing.get_args(Reason))
    every = set(typing.get_args(Change))
    assert set(_TYPES) == every <= change_words.registry.keys()
    for words in (change_words, reason_words):
        with pytest.raises(TypeError):
            words("a text")


def test_cells_and_groups_in_words():
    assert cell_words(SHAPE) == CELL
    assert (
        cell_words(SHAPE.model_copy(update={"train_size": 64})) == f"{CELL}, training examples 64"
    )
    assert cell_words(NamedSteps(name="step")) == "step"
    assert settings_words({}) == ""
    settings = {"attn_implementation": "eager", "bf16": True, "tf32": False, "optim": None}
    assert settings_words(settings) == (
        "attn_implementation eager, bf16 on, tf32 off, optim default"
    )


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


@pytest.mark.parametrize(("delta", "text"), [(512, "+512 B"), (-MIB, "-1.0 MiB")])
def test_signed(delta, text):
    assert signed(delta) == text


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
    said = list(attribution_words(attribution(-2 * MIB, part)))
    assert "fell from 104,857,600 to 102,760,448 bytes (-2.0 MiB)" in said[0]
    assert said[2].startswith("  -5.0 MiB, since ")
    assert "forward (aten.a of m) to the phase backward (aten.b of n)" in said[2]
    assert said[3:] == ["  -2.0 MiB in all (-2,097,152 bytes)"]


def test_parts_of_no_moment_are_said_to_be_at_their_own_largest():
    part = ChangedPart("temporaries", "m", "aten::mm", 3 * MIB, "most")
    same = Moment(phase="forward", step=3, module="m", operator="aten::a")
    said = list(attribution_words(attribution(2 * MIB, part, moments=(same, same))))
    assert said[2] == "  -1.0 MiB, since parts are at their own largest, not at the peak"
    stayed, *parts = attribution_words(attribution(0, part))
    assert "stayed at 104,857,600 bytes" in stayed
    assert len(parts) == 1


def test_without_a_changed_part_one_line_says_what_it_can_be():
    (said,) = attribution_words(attribution(512))
    assert said.startswith(f"bf16 on: {CELL}: ")
