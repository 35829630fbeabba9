"""Runs of two versions: each figure by its own noise; time by rank, at the stated rate of false alarms."""

import math

import numpy as np
import pytest

from ftbench.base.units import GIB, MIB
from ftbench.gating.baseline import SeedScore
from ftbench.gating.compare_runs import (
    FALSE_ALARMS,
    FEWEST_PAIRS,
    compare_measured,
    interleaved,
    slowdown,
    told_apart,
)
from ftbench.gating.measured_runs import Runs, Samples, kept_runs, measured_of
from ftbench.gating.reasons import (
    CellMissing,
    Differs,
    FigureMissing,
    NoMemoryFigure,
    NotAlternating,
    NoTimes,
    SingleSeed,
    TooFewPairs,
    TooFewPairsForAll,
    TooFewReadings,
    VersionChange,
)
from ftbench.gating.result import MeasuredPeakChange, ScoreChange, TimeChange
from ftbench.records.scores import share_variance
from tests.unit.gating.made import place

PLACE = place(16, 4)


def samples(*, started=(), accuracies=(), examples=100_000, score="accuracy", **figures):
    values = {name: tuple(value) for name, value in figures.items()}
    count = max(map(len, values.values()), default=0)
    scores = {
        str(seed): SeedScore(
            value=value,
            standard_error=math.sqrt(share_variance(value, examples)) if examples else None,
        )
        for seed, value in enumerate(accuracies)
    }
    return Samples(values, tuple(started) or ("a",) * count, score, scores)


HERE = {"device": "T4", "torch": "2.13.0"}
WORK = {"weights": "pretrained", "eval_size": 100_000}


def runs(samples, machine=HERE, workload=WORK, **fields):
    return Runs(samples, machine, workload, **fields)


def compared(before, after, **options):
    return compare_measured("quick", runs({PLACE: before}), runs({PLACE: after}), **options)


def alternating(count):
    """When the runs of two versions began, each after the other."""
    return [[f"2026-01-01T{n:05d}{letter}" for n in range(count)] for letter in "ab"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"workload": {"weights": "random", "eval_size": 100_000}},
            Differs("workload", "weights", "pretrained", "random"),
        ),
        (
            {"machine": {"device": "L4", "torch": "2.13.0"}},
            Differs("machine", "device", "T4", "L4"),
        ),
    ],
)
def test_runs_of_something_else_are_never_judged(changes, expected):
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    result = compare_measured("quick", runs(one), runs(one, **changes), across_versions=True)
    assert result.exit_code == 2
    assert result.unjudged == (expected,)


def test_other_versions_are_judged_where_that_is_asked_for():
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    other = runs(one, {"device": "T4", "torch": "2.14.0"})
    assert compare_measured("quick", runs(one), other).exit_code == 2
    result = compare_measured("quick", runs(one), other, across_versions=True)
    assert (result.exit_code, result.versions[0].package) == (0, "torch")


# Memory


@pytest.mark.parametrize(
    ("factor", "kinds"), [(1.004, []), (1.006, ["regression"]), (0.99, ["improvement"])]
)
def test_torch_s_peaks_may_move_by_half_a_percent(factor, kinds):
    result = compared(
        samples(peak_allocated_bytes=[GIB]), samples(peak_allocated_bytes=[GIB * factor])
    )
    assert [change.verdict for change in result.changes] == kinds
    assert result.exit_code == (1 if kinds else 0)


@pytest.mark.parametrize(("more", "code"), [(0, 0), (61 * MIB, 0), (62 * MIB, 1)])
def test_nvml_s_may_move_within_what_one_more_reading_would(more, code):
    """Three readings 12 MiB apart: 4.303 x 12 x sqrt(4/3) MiB is 59.6, and a page of 2."""
    before = samples(peak_process_bytes=[GIB, GIB + 12 * MIB, GIB + 24 * MIB])
    after = samples(peak_process_bytes=[GIB + 12 * MIB + more])
    assert compared(before, after).exit_code == code


def test_nvml_s_noise_is_not_known_from_two_runs():
    two = samples(peak_process_bytes=[GIB, GIB])
    result = compared(two, two)
    assert result.exit_code == 2
    assert result.unjudged == (TooFewReadings(PLACE, "peak_process_bytes", 2, 3),)


def test_rss_stands_in_where_torch_counts_nothing():
    before = samples(peak_rss_bytes=[GIB, GIB + MIB, GIB + 2 * MIB])
    assert compared(before, samples(peak_rss_bytes=[2 * GIB])).exit_code == 1
    both = samples(peak_allocated_bytes=[GIB], peak_rss_bytes=[GIB])
    assert (
        compared(both, samples(peak_allocated_bytes=[GIB], peak_rss_bytes=[9 * GIB])).exit_code == 0
    )


def test_a_figure_that_is_missing_now_is_not_judged():
    before = samples(peak_allocated_bytes=[GIB], peak_reserved_bytes=[GIB])
    result = compared(before, samples(peak_allocated_bytes=[GIB]))
    assert result.unjudged == (FigureMissing(PLACE, "peak_reserved_bytes"),)


def test_runs_without_any_figure_are_not_judged():
    result = compared(samples(total_s=[1.0]), samples(total_s=[1.0]))
    assert (result.exit_code, result.unjudged) == (2, (NoMemoryFigure(PLACE),))


# Accuracy


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ((0.80, 0.81, 0.79), 0),
        ((0.60, 0.61, 0.59), 1),
        ((0.95, 0.96, 0.94), 0),
        ((0.5,), 1),
        ((), 2),
    ],
)
def test_accuracy_may_not_fall_below_what_seeds_explain(after, code):
    memory = {"peak_allocated_bytes": [GIB]}
    before = samples(accuracies=(0.81, 0.80, 0.80), **memory)
    assert compared(before, samples(accuracies=after, **memory)).exit_code == code


def test_a_fall_of_one_seed_in_all_may_be_the_seed_s():
    before, after = (samples(accuracies=(a,), peak_allocated_bytes=[GIB]) for a in (0.9, 0.5))
    result = compared(before, after)
    assert (result.exit_code, result.notes[0]) == (0, SingleSeed())


def test_a_fall_beyond_the_documents_error_is_found_with_two_seeds():
    """Of 2,000 documents a share of 0.9 has a standard error of 0.0067: 0.06 is six of the difference's."""
    memory = {"peak_allocated_bytes": [GIB]}
    sides = [
        runs({PLACE: samples(accuracies=(a, a), examples=2000, **memory)}) for a in (0.9, 0.84)
    ]
    assert compare_measured("quick", *sides).exit_code == 1


def test_accuracy_has_one_rate_of_false_alarms_over_many_cells():
    draw, alarms = np.random.default_rng(5), 0
    for _ in range(60):
        sides = [
            {
                place(16, n + 1): samples(
                    accuracies=draw.normal(0.8, 0.01, 5), peak_allocated_bytes=[1]
                )
                for n in range(10)
            }
            for _ in range(2)
        ]
        alarms += bool(compare_measured("quick", *map(runs, sides)).changes)
    assert alarms <= 8  # uncorrected, two in five would alarm


def test_one_document_less_is_no_fall():
    memory = {"peak_allocated_bytes": [GIB]}
    sides = [runs({PLACE: samples(accuracies=(a, a), examples=100, **memory)}) for a in (0.8, 0.79)]
    assert compare_measured("quick", *sides).exit_code == 0


# Time


def test_a_slower_version_is_found_by_its_pairs():
    starts = alternating(8)
    base = np.linspace(1.0, 1.4, 8)  # the machine gets slower, for both
    before = samples(peak_allocated_bytes=[GIB], step_median_s=base, started=starts[0])
    after = samples(peak_allocated_bytes=[GIB], step_median_s=1.05 * base, started=starts[1])
    (change,) = compared(before, after).changes
    assert isinstance(change, TimeChange)
    assert (change.figure, change.verdict) == ("step_median_s", "regression")
    assert (change.ratio, change.pairs) == (pytest.approx(1.05), 8)
    assert change.p_value == pytest.approx(1 / 256)


def test_the_fastest_steps_and_the_whole_run_are_judged():
    starts, base = alternating(8), np.linspace(1.0, 1.4, 8)
    steady = {"peak_allocated_bytes": [GIB], "step_median_s": base, "step_min_s": base}
    before = samples(**steady, total_s=base, started=starts[0])
    slow_step = samples(**steady | {"step_min_s": 1.05 * base}, total_s=base, started=starts[1])
    slow_rest = samples(**steady, total_s=1.05 * base, started=starts[1])
    found = [compared(before, after).changes for after in (slow_step, slow_rest)]
    assert [change.figure for (change,) in found] == ["step_min_s", "total_s"]


def test_a_faster_version_holds():
    starts = alternating(8)
    before = samples(
        peak_allocated_bytes=[GIB], step_median_s=np.linspace(1.0, 1.4, 8), started=starts[0]
    )
    after = samples(
        peak_allocated_bytes=[GIB], step_median_s=np.linspace(0.9, 1.3, 8), started=starts[1]
    )
    assert compared(before, after, require_time=True).exit_code == 0


def test_runs_that_do_not_alternate_say_nothing_of_time():
    series = np.linspace(1.0, 1.1, 8)
    before = samples(
        peak_allocated_bytes=[GIB], step_median_s=series, started=[f"a{n}" for n in range(8)]
    )
    after = samples(
        peak_allocated_bytes=[GIB], step_median_s=2 * series, started=[f"b{n}" for n in range(8)]
    )
    result = compared(before, after)
    assert (result.exit_code, result.changes) == (0, ())
    assert result.notes == (NotAlternating(kept=False),)
    assert compared(before, after, require_time=True).exit_code == 2


def test_too_few_pairs_say_nothing_of_time():
    starts = alternating(FEWEST_PAIRS - 1)
    before, after = (
        samples(peak_allocated_bytes=[GIB], step_median_s=[1.0 * n] * len(starts[0]), started=began)
        for n, began in zip((1, 2), starts, strict=True)
    )
    assert compared(before, after).notes == (TooFewPairs(4, 5),)


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [("ace", "bdf", True), ("ade", "bcf", True), ("abc", "def", False), ("ac", "bd", True)],
)
def test_interleaved(before, after, holds):
    assert interleaved(before, after) is holds


def test_false_alarms_are_as_rare_as_they_are_said_to_be_and_slowdowns_are_found():
    draw = np.random.default_rng(0)
    alarms = found = 0
    for _ in range(400):
        drift = np.exp(np.cumsum(draw.normal(0, 0.01, 20)))
        one, other = (drift * np.exp(draw.normal(0, 0.03, 20)) for _ in range(2))
        alarms += slowdown(one, other).p_value <= FALSE_ALARMS
        found += slowdown(one, 1.05 * other).p_value <= FALSE_ALARMS
    assert alarms <= 0.08 * 400  # 0.05, and three standard errors of it
    assert found >= 0.9 * 400


def test_many_cells_have_one_rate_of_false_alarms():
    starts, draw = alternating(10), np.random.default_rng(3)
    alarms = 0
    for _ in range(60):
        sides = [
            {
                place(16, n + 1): samples(
                    step_median_s=np.exp(draw.normal(0, 0.03, 10)), started=began
                )
                for n in range(10)
            }
            for began in starts
        ]
        alarms += bool(compare_measured("quick", *map(runs, sides)).changes)
    assert alarms <= 8  # a tenth of 60 and more would be 25, without the correction


def test_few_pairs_cannot_judge_many_cells():
    starts = alternating(5)
    sides = [
        runs(
            {
                place(16, n + 1): samples(
                    peak_allocated_bytes=[GIB], step_median_s=[t] * 5, started=began
                )
                for n in range(4)
            }
        )
        for t, began in zip((1.0, 10.0), starts, strict=True)
    ]
    few = TooFewPairsForAll(7, 4, tuple(place(16, n + 1) for n in range(4)))
    assert few in compare_measured("quick", *sides).notes
    assert compare_measured("quick", *sides, require_time=True).exit_code == 2


def test_a_cell_of_few_pairs_takes_no_slowdown_from_another():
    many, few, sides = place(16, 8), place(16, 4), []
    for side, factor in enumerate((1.0, 1.5)):
        made = {}
        for of, pairs in ((many, 12), (few, 5)):
            times = factor * np.linspace(1.0, 1.1, pairs)
            made[of] = samples(
                peak_allocated_bytes=[GIB], step_median_s=times, started=alternating(pairs)[side]
            )
        sides.append(runs(made))
    result = compare_measured("quick", *sides)
    assert [change.place for change in result.changes] == [many]
    assert result.notes[0] == TooFewPairsForAll(6, 2, (few,))


@pytest.mark.parametrize(
    ("p_values", "found"),
    [
        # Holm's limits for three are 0.05 / 3, 0.05 / 2 and 0.05; Bonferroni's is 0.05 / 3 for each.
        ({"a": 0.04, "b": 0.01, "c": 0.02}, ["b", "c", "a"]),
        (
            {"a": 0.01, "b": 0.03, "c": 0.04},
            ["a"],
        ),  # the second fails, so the third is not looked at
        ({"a": 0.02, "b": 0.02, "c": 0.02}, []),
        ({"a": 0.05}, ["a"]),
        ({"a": 0.051}, []),
        ({}, []),
    ],
)
def test_many_figures_are_told_apart_by_holms_steps(p_values, found):
    assert told_apart(p_values) == found


# What a baseline keeps


def test_kept_runs_are_compared_but_for_time():
    before = runs({PLACE: samples(peak_allocated_bytes=[GIB], step_median_s=[1.0])})
    kept = kept_runs(measured_of(before))
    assert kept.samples[PLACE].figures["peak_allocated_bytes"] == (GIB,)
    result = compare_measured("quick", kept, before)
    assert result.exit_code == 0
    assert result.notes == (NotAlternating(kept=True),)


def test_cells_without_runs_are_not_judged():
    one = runs({PLACE: samples(peak_allocated_bytes=[GIB])})
    assert compare_measured("quick", one, runs({})).unjudged == (CellMissing(PLACE, "now"),)
    assert compare_measured("quick", runs({}), one).unjudged == (CellMissing(PLACE, "baseline"),)
    assert compare_measured("quick", runs({}), runs({})).exit_code == 2


# Whole changes, field by field


def test_a_peak_that_moved_says_by_what_it_was_judged():
    before = samples(peak_allocated_bytes=[GIB, GIB, 3 * GIB])
    (change,) = compared(before, samples(peak_allocated_bytes=[2 * GIB, 4 * GIB])).changes
    assert change == MeasuredPeakChange(
        PLACE, "peak_allocated_bytes", GIB, 3 * GIB, 0.005 * GIB, None, "regression"
    )  # by medians
    readings = [GIB, GIB + 12 * MIB, GIB + 24 * MIB]
    sampled = samples(peak_process_bytes=readings)
    (change,) = compared(sampled, samples(peak_process_bytes=[2 * GIB])).changes
    assert (change.before, change.after) == (GIB + 12 * MIB, 2 * GIB)
    assert 61 * MIB < change.allowed_bytes < 62 * MIB  # as in the test of NVML's above
    assert change.readings == 3


def test_a_fall_of_accuracy_says_over_how_many_seeds():
    memory = {"peak_allocated_bytes": [GIB]}
    before = samples(accuracies=(0.81, 0.80, 0.79), **memory)
    (change,) = compared(before, samples(accuracies=(0.61, 0.59), **memory)).changes
    assert isinstance(change, ScoreChange)
    assert (change.score, change.verdict) == ("accuracy", "regression")
    assert (change.before, change.after) == (pytest.approx(0.80), pytest.approx(0.60))
    assert change.seeds == (3, 2)
    assert 0 < change.p_value < FALSE_ALARMS


def test_another_score_than_the_baseline_s_is_a_missing_one():
    memory = {"peak_allocated_bytes": [GIB]}
    before = samples(accuracies=(0.8, 0.8), score="pearson", **memory)
    assert (
        compared(before, samples(accuracies=(0.8, 0.8), score="pearson", **memory)).exit_code == 0
    )
    (change,) = compared(before, samples(accuracies=(0.6, 0.6), score="pearson", **memory)).changes
    assert change.score == "pearson"
    other = compared(before, samples(accuracies=(0.9, 0.9), **memory))
    assert other.exit_code == 2
    assert FigureMissing(PLACE, "eval_pearson") in other.unjudged


def test_accuracies_without_any_spread_fall_or_do_not():
    """All seeds have the same, and there is no number of documents to say how exact that is."""
    for after, code in ((0.8, 0), (0.9, 0), (0.7, 1)):
        sides = [
            runs({PLACE: samples(accuracies=(a, a), examples=None, peak_allocated_bytes=[GIB])})
            for a in (0.8, after)
        ]
        assert compare_measured("quick", *sides).exit_code == code


def test_a_time_is_judged_where_both_sides_have_it():
    starts, base = alternating(8), np.linspace(1.0, 1.4, 8)
    memory = {"peak_allocated_bytes": [GIB]}
    # The fastest steps are known of one side only: the medians are compared.
    before = samples(**memory, step_median_s=base, step_min_s=base, started=starts[0])
    after = samples(**memory, step_median_s=1.05 * base, started=starts[1])
    (change,) = compared(before, after).changes
    assert change.figure == "step_median_s"
    assert change.before == pytest.approx(np.median(base))
    assert change.after == pytest.approx(1.05 * np.median(base))
    none = samples(**memory, total_s=base, started=starts[1])
    result = compared(before, none)
    assert (result.changes, result.exit_code) == ((), 0)
    assert NoTimes(PLACE) in result.notes


def test_times_that_are_the_same_are_no_slowdown():
    found = slowdown([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.pairs, found.ratio, found.p_value) == (3, 1.0, 1.0)
    # Of five pairs that are all slower, the one order of 2 ** 5 that is as rare.
    slower = slowdown([1.0] * 5, [1.1, 1.2, 1.3, 1.4, 1.5])
    assert slower.ratio == pytest.approx(1.3)
    assert slower.p_value == pytest.approx(1 / 32)


def test_all_that_could_not_be_judged_is_told_together():
    """One seed, and runs that do not alternate: neither note hides the other."""
    memory = {"peak_allocated_bytes": [GIB]}
    before = samples(accuracies=(0.8,), total_s=[1.0] * 5, started=("a",) * 5, **memory)
    after = samples(accuracies=(0.8,), total_s=[1.0] * 5, started=("b",) * 5, **memory)
    result = compared(before, after)
    assert len(result.notes) == 2
    assert (result.profile, result.judged, result.versions) == ("quick", (PLACE,), ())


def test_versions_that_one_side_does_not_have_are_none():
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    old, new = runs(one, {"device": "T4"}), runs(one, {"device": "T4", "torch": "2.13.0"})
    result = compare_measured("quick", old, new)
    assert (result.judged, result.exit_code) == ((), 2)
    assert result.versions == (VersionChange("torch", None, "2.13.0"),)
    back = compare_measured("quick", new, old, across_versions=True)
    assert back.versions == (VersionChange("torch", "2.13.0", None),)
    gone = compare_measured("quick", old, runs(one, {}))
    assert gone.unjudged == (Differs("machine", "device", "T4", None),)
    come = compare_measured("quick", runs(one, {}), old)
    assert come.unjudged == (Differs("machine", "device", None, "T4"),)


def test_running_out_of_memory_now_and_then_on_both_sides_is_no_change():
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    for before, after, code in (((PLACE,), (PLACE,), 0), ((), (PLACE,), 1), ((PLACE,), (), 0)):
        result = compare_measured("quick", runs(one, oom=before), runs(one, oom=after))
        assert result.exit_code == code


def test_changes_are_in_the_order_of_the_cells():
    places = [place(16, 8), place(16, 4), place(32, 4)]
    sides = [
        runs({one: samples(peak_allocated_bytes=[n], peak_reserved_bytes=[n]) for one in places})
        for n in (GIB, 2 * GIB)
    ]
    changed = [(c.place, c.figure) for c in compare_measured("quick", *sides).changes]
    figures = ("peak_allocated_bytes", "peak_reserved_bytes")
    assert [one for one, _ in changed] == [one for one in places for _ in figures]
