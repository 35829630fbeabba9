"""The gate's sentences: every type of change and of reason has one, with the figures that it holds."""

import typing

import pytest

from ftbench.base.units import MIB
from ftbench.gating import reasons
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.reasons import Reason
from ftbench.gating.result import (
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
from ftbench.report.commands.gate import _TYPES
from ftbench.report.commands.gate_sentences import (
    cell_words,
    change_words,
    reason_words,
    settings_words,
    signed,
)

SHAPE = CellShape(max_length=512, per_device_train_batch_size=16)
PLACE = Place({"bf16": True}, SHAPE)
CELL = "length 512, batch 16"
BATCH = "per_device_train_batch_size"
VERSIONS = (reasons.VersionChange("torch", "2.13.0", None),)

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


@pytest.mark.parametrize(("delta", "text"), [(512, "+512 B"), (-MIB, "-1.0 MiB")])
def test_signed(delta, text):
    assert signed(delta) == text
