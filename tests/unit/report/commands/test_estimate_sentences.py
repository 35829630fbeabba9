"""Sources, reasons for absence and notes of an estimate in words: each type once."""

import dataclasses

import pytest

from ftbench.analysis.fits.laws import HeldOut
from ftbench.analysis.fits.reasons import NoneHeldOut, OneValueOf, TooFewCells
from ftbench.estimation import reasons
from ftbench.estimation.reasons import SettingDifference
from ftbench.report.commands.estimate_sentences import absence_words, note_words, source_words

BEYOND = HeldOut("extrapolation", 2, 0.11, 0.2, 0.5)
RATE = SettingDifference("learning_rate", 1e-3, None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (reasons.RunsFit(1, None, extrapolated=False), "fit of 1 measured run"),
        (
            reasons.RunsFit(12, BEYOND, extrapolated=True),
            "extrapolated: fit of 12 measured runs, off by 11.0% on held-out cells (extrapolation)",
        ),
        (
            reasons.RooflineRates("fp32", 30.3e12, 300e9),
            "roofline, not measured: 30.3 TFLOP/s fp32, 300 GB/s",
        ),
        (reasons.OneDevice(), "time on one device"),
        (reasons.HourlyPrice(0.8), "hours x 0.8 USD"),
        (reasons.MeasuredPower(70.4), "time x the 70 W of measured runs"),
        (reasons.TracedOnCpu(), "traced, on the CPU"),
        (reasons.PredictedForCard("requests"), "predicted, requested by tensors and kernels"),
        (reasons.PredictedForCard("NVML"), "predicted, as NVML counts"),
        (reasons.CurveOfRuns(4, 1000, 1000, {}), "learning curve of 4 sizes"),
        (
            reasons.CurveOfRuns(
                4, 1000, 25_000, {"per_device_train_batch_size": 8}, (NoneHeldOut(),)
            ),
            "extrapolated 25.00x beyond 1,000 training examples: learning curve of 4 sizes, measured at batch 8;"
            " weak: too few cells to hold any out",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_where_a_figure_comes_from(source, words):
    assert source_words(source) == words


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (TooFewCells(2, 4), "the lengths and batches make 2 cells; 4 are needed"),
        (reasons.NotMeasured(), "no run measured it"),
        (reasons.NoSuchRun(), "no run of this kind was measured"),
        (
            reasons.NoSimilarRun((RATE, SettingDifference("train_size", 8, 9))),
            "no run is similar enough: learning_rate is 0.001 in the runs, default here;"
            " training examples is 8 in the runs, 9 here",
        ),
        (reasons.NoTrustedRun(), "no run of this kind has figures to be trusted"),
        (
            reasons.SameInAllCells(),
            "it is the same in all measured cells, so how it grows beyond them is not known",
        ),
        (
            reasons.UntestedBeyond(),
            "it lies outside the measured cells, and these are too few to test how far off a law is there",
        ),
        (reasons.NotPredicted(), "it was not predicted"),
        (reasons.NotPredicted("optim: not covered"), "optim: not covered"),
        (
            reasons.CardSpeedUnknown("24GiB"),
            "the speed of a card of 24GiB is not known: name one",
        ),
        (
            reasons.RateUnknown("t4", "bf16", ("fp32", "fp16")),
            "the catalogue has no speed of t4 in bf16, only in fp32, fp16",
        ),
        (reasons.NoPrice(), "no --usd-per-hour was given, and the catalogue has no list price"),
        (reasons.NoEnergy(), "the runs on this device did not measure energy"),
        (reasons.NoRunOnDevice(), "no run on this device was measured"),
        (
            reasons.FollowsFromTime(reasons.NotMeasured()),
            "it follows from time: no run measured it",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_why_a_figure_is_absent(why, words):
    assert absence_words(why) == words


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (
            reasons.Outside("train_size", 25_000, 32, 1_000),
            "training examples 25,000 lies outside the measured 32 to 1,000: extrapolated 25.00x",
        ),
        (
            reasons.Outside("max_length", 16, 64, 64),
            "length 16 lies outside the measured 64: extrapolated 4.00x",
        ),
        (
            reasons.WeakFit("total_s", (OneValueOf("max_length"),)),
            "the fit of total time is weak: only one value of length",
        ),
        (
            reasons.NoTimeFromRuns(reasons.NotMeasured()),
            "runs on this device give no time: no run measured it",
        ),
        (
            reasons.MayNotFit(certain=True),
            "it does not fit: the costs are of a run that ends out of memory",
        ),
        (
            reasons.MayNotFit(certain=False),
            "too close to call: it may run out of memory",
        ),
        (reasons.NoRunFinished("runs"), "no run in runs has finished"),
        (
            reasons.OtherWorkload("runs", SettingDifference("eval_size", 8, 99)),
            "runs is left out, its workload is another: eval_size is 8 in the runs, 99 here",
        ),
        (reasons.DamagedRecords(1, "runs"), "1 record in runs cannot be read"),
        (
            reasons.RunsUntrusted(1, 10, "runs"),
            "1 of 10 runs in runs left out: figures of them cannot be right",
        ),
        (
            reasons.TooFewExamples(1000, 1001),
            "the data has 1,000 training examples, fewer than 1,001",
        ),
        (reasons.FromPrediction("a note"), "a note"),
        (
            reasons.CalibratedWithOtherTorch("2.13.0", "2.12.1"),
            "the calibration was made with torch 2.13.0, and 2.12.1 is installed here: kernels may take"
            " another time",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_notes(note, words):
    assert note_words(note) == words


def test_a_time_of_kernels_names_its_evidence_and_where_it_ends():
    source = reasons.KernelTimes("bf16", 121e12, 300e9, 1.6, ("low-power half",), 159, 22)
    words = source_words(source)
    for part in ("not measured", "121 TFLOP/s bf16", "300 GB/s", "1.6 up and down", "159", "22"):
        assert part in words
    assert "half precision on a card below 100 W" in words
    assert "wider" not in source_words(dataclasses.replace(source, gaps=()))
    assert note_words(reasons.TimeFromKernels()).startswith("time was not measured on such a card")


def test_the_note_on_the_roofline_names_both_ends():
    words = note_words(reasons.TimeFromRoofline())
    assert words.startswith("roofline: time was not measured on such a card.")
    assert "low end" in words
    assert "high end" in words


@pytest.mark.parametrize("words", [source_words, absence_words, note_words])
def test_a_type_without_words_is_an_error(words):
    with pytest.raises(TypeError):
        words("text")
