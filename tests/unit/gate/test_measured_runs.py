"""Runs of two versions: each figure by its own noise; time by rank, at the stated rate of false alarms."""

import numpy as np
import pytest

from ftbench.base.units import GIB, MIB
from ftbench.gate.measured_runs import (
    FALSE_ALARMS,
    FEWEST_PAIRS,
    Runs,
    Samples,
    compare_measured,
    interleaved,
    kept_runs,
    machine_of,
    measured_of,
    runs_of,
    slowdown,
    told_apart,
)
from tests.factories import cell, device, environment, measurement, record

PLACE = ("", "length 16, batch 4")


def samples(*, started=(), accuracies=(), **figures):
    values = {name: tuple(value) for name, value in figures.items()}
    count = max(map(len, values.values()), default=0)
    seeds = {str(seed): value for seed, value in enumerate(accuracies)}
    return Samples(values, tuple(started) or ("a",) * count, seeds)


HERE = {"device": "T4", "torch": "2.13.0"}
WORK = {"weights": "pretrained", "eval_size": 100_000}


def runs(samples, machine=HERE, workload=WORK, **fields):
    return Runs(samples, machine, workload, **fields)


def compared(before, after, **options):
    return compare_measured("quick", runs({PLACE: before}), runs({PLACE: after}), **options)


def gathered(*records, damaged=0):
    here = environment()
    return runs_of(records, {here.environment_id: here}, damaged)


def alternating(count):
    """When the runs of two versions began, each after the other."""
    return [[f"2026-01-01T{n:05d}{letter}" for n in range(count)] for letter in "ab"]


# The runs of a directory


def test_runs_are_gathered_by_cell_in_the_order_they_began():
    later = record(
        repeat=1, measurement=measurement(step_median_s=2.0), started_at="2026-01-02T00:00:00"
    )
    first = record(measurement=measurement(step_median_s=1.0), started_at="2026-01-01T00:00:00")
    found = gathered(later, first).samples
    assert found[PLACE].figures["step_median_s"] == (1.0, 2.0)
    assert found[PLACE].started == ("2026-01-01T00:00:00", "2026-01-02T00:00:00")


def test_accuracy_has_a_value_a_seed():
    found = gathered(
        record(replicate=0, measurement=measurement(eval_accuracy=0.7)),
        record(replicate=0, repeat=1, measurement=measurement(eval_accuracy=0.7)),
        record(replicate=1, measurement=measurement(eval_accuracy=0.8)),
    )
    assert found.samples[PLACE].accuracies == {"42": 0.7, "43": 0.8}


def test_runs_that_are_not_judged_are_told():
    wrong = record(replicate=1, untrusted={"total_s": "the clock jumped"})
    crashed = record(replicate=2, status="crashed", measurement=None)
    found = gathered(record(), wrong, crashed, damaged=2)
    assert len(found.samples[PLACE].started) == 1
    assert sorted(found.doubts) == [
        "1 runs ended as crashed",
        "1 runs have figures that cannot be right",
        "2 records cannot be read",
    ]
    assert compare_measured("quick", gathered(record()), found).exit_code == 2


def test_a_cell_that_runs_out_of_memory_now_is_a_regression():
    after = gathered(record(status="oom", measurement=None))
    for before in (record(),), (record(), record(replicate=1, status="oom", measurement=None)):
        result = compare_measured("quick", gathered(*before), after)
        assert [(c.kind, c.after) for c in result.changes] == [("fits", "oom")]
        assert result.exit_code == 1


def test_a_new_cell_that_runs_out_of_memory_has_no_baseline():
    new = gathered(record(), record(cell(max_length=32), status="oom", measurement=None))
    result = compare_measured("quick", gathered(record()), new)
    assert result.exit_code == 2
    assert "no run of it in the baseline" in result.unjudged[0]


def test_a_part_of_the_cells_has_the_names_of_the_grid():
    here = environment()
    both = [cell(attn_implementation=name) for name in ("eager", "sdpa")]
    of = {here.environment_id: here}
    full = runs_of([record(one) for one in both], of, grid=both)
    part = runs_of([record(both[0])], of, grid=both)
    chosen = runs_of([record(one) for one in both], of, grid=both, chosen=both[:1])
    place = ("attn_implementation eager", PLACE[1])
    assert set(part.samples) == set(chosen.samples) == set(full.only(both, both[:1]).samples)
    assert set(part.samples) == {place}


def test_runs_of_an_environment_that_is_gone_are_not_judged():
    lost = runs_of([record()], {})
    assert "no environment" in lost.doubts[0]
    assert compare_measured("quick", lost, lost).exit_code == 2


def test_cells_that_were_not_run_on_either_side_are_told():
    here = environment()
    wanted = [cell(), cell(max_length=32)]
    found = runs_of([record()], {here.environment_id: here}, wanted=wanted)
    assert found.doubts == ("1 cells of the profile have no run",)


def test_cells_are_named_within_their_group():
    found = gathered(*(record(cell(attn_implementation=name)) for name in ("eager", "sdpa")))
    assert set(found.samples) == {
        ("attn_implementation eager", PLACE[1]),
        ("attn_implementation sdpa", PLACE[1]),
    }


def test_a_learning_rate_tells_cells_apart():
    found = gathered(*(record(cell(learning_rate=rate)) for rate in (1e-5, 1e-3)))
    assert len(found.samples) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workload": {"weights": "random", "eval_size": 100_000}}, "weights pretrained -> random"),
        ({"machine": {"device": "L4", "torch": "2.13.0"}}, "device T4 -> L4"),
    ],
)
def test_runs_of_something_else_are_never_judged(changes, said):
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    result = compare_measured("quick", runs(one), runs(one, **changes), across_versions=True)
    assert result.exit_code == 2
    assert said in result.unjudged[0]


def test_other_versions_are_judged_where_that_is_asked_for():
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    other = runs(one, {"device": "T4", "torch": "2.14.0"})
    assert compare_measured("quick", runs(one), other).exit_code == 2
    result = compare_measured("quick", runs(one), other, across_versions=True)
    assert (result.exit_code, result.versions[0].package) == (0, "torch")


# Memory


@pytest.mark.parametrize(
    ("factor", "kinds"), [(1.004, []), (1.006, ["regression"]), (0.99, ["drop"])]
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
    assert "known from 2 runs only" in result.unjudged[0]


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
    assert result.unjudged == (f"{PLACE[1]}: peak_reserved_bytes was not measured now",)


def test_runs_without_any_figure_are_not_judged():
    assert compared(samples(total_s=[1.0]), samples(total_s=[1.0])).exit_code == 2


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
    assert (result.exit_code, result.notes[0]) == (0, "accuracy: one seed says nothing of others")


def test_a_fall_beyond_the_documents_error_is_found_with_two_seeds():
    """Of 2,000 documents a share of 0.9 has a standard error of 0.0067: 0.06 is six of the difference's."""
    memory = {"peak_allocated_bytes": [GIB]}
    sides = [
        runs({PLACE: samples(accuracies=(a, a), **memory)}, workload={"eval_size": 2000})
        for a in (0.9, 0.84)
    ]
    assert compare_measured("quick", *sides).exit_code == 1


def test_accuracy_has_one_rate_of_false_alarms_over_many_cells():
    draw, alarms = np.random.default_rng(5), 0
    for _ in range(60):
        sides = [
            {
                ("", f"cell {n}"): samples(
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
    sides = [
        runs({PLACE: samples(accuracies=(a, a), **memory)}, workload={"eval_size": 100})
        for a in (0.8, 0.79)
    ]
    assert compare_measured("quick", *sides).exit_code == 0


# Time


def test_a_slower_version_is_found_by_its_pairs():
    starts = alternating(8)
    base = np.linspace(1.0, 1.4, 8)  # the machine gets slower, for both
    before = samples(peak_allocated_bytes=[GIB], step_median_s=base, started=starts[0])
    after = samples(peak_allocated_bytes=[GIB], step_median_s=1.05 * base, started=starts[1])
    (change,) = compared(before, after).changes
    assert (change.kind, change.of, change.verdict) == ("time", "step_median_s", "regression")
    assert "1.050x over 8 pairs" in change.note


def test_the_fastest_steps_and_the_whole_run_are_judged():
    starts, base = alternating(8), np.linspace(1.0, 1.4, 8)
    steady = {"peak_allocated_bytes": [GIB], "step_median_s": base, "step_min_s": base}
    before = samples(**steady, total_s=base, started=starts[0])
    slow_step = samples(**steady | {"step_min_s": 1.05 * base}, total_s=base, started=starts[1])
    slow_rest = samples(**steady, total_s=1.05 * base, started=starts[1])
    found = [compared(before, after).changes for after in (slow_step, slow_rest)]
    assert [change.of for (change,) in found] == ["step_min_s", "total_s"]


def test_a_faster_version_holds():
    starts = alternating(8)
    before = samples(
        peak_allocated_bytes=[GIB], step_median_s=np.linspace(1.0, 1.4, 8), started=starts[0]
    )
    after = samples(
        peak_allocated_bytes=[GIB], step_median_s=np.linspace(0.9, 1.3, 8), started=starts[1]
    )
    assert compared(before, after, judge_time=True).exit_code == 0


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
    assert "do not alternate" in result.notes[0]
    assert compared(before, after, judge_time=True).exit_code == 2


def test_too_few_pairs_say_nothing_of_time():
    starts = alternating(FEWEST_PAIRS - 1)
    before, after = (
        samples(peak_allocated_bytes=[GIB], step_median_s=[1.0 * n] * len(starts[0]), started=began)
        for n, began in zip((1, 2), starts, strict=True)
    )
    assert "4 pairs of runs" in compared(before, after).notes[0]


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
                ("", f"cell {n}"): samples(
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
                ("", f"cell {n}"): samples(
                    peak_allocated_bytes=[GIB], step_median_s=[t] * 5, started=began
                )
                for n in range(4)
            }
        )
        for t, began in zip((1.0, 10.0), starts, strict=True)
    ]
    said = "time: 7 pairs are needed to judge 4 figures: cell 0, cell 1, cell 2, cell 3"
    assert said in compare_measured("quick", *sides).notes
    assert compare_measured("quick", *sides, judge_time=True).exit_code == 2


def test_a_cell_of_few_pairs_takes_no_slowdown_from_another():
    sides = []
    for side, factor in enumerate((1.0, 1.5)):
        made = {}
        for name, pairs in (("many", 12), ("few", 5)):
            times = factor * np.linspace(1.0, 1.1, pairs)
            made["", name] = samples(
                peak_allocated_bytes=[GIB], step_median_s=times, started=alternating(pairs)[side]
            )
        sides.append(runs(made))
    result = compare_measured("quick", *sides)
    assert [change.where for change in result.changes] == ["many"]
    assert "6 pairs are needed to judge 2 figures: few" in result.notes[0]


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
    assert "two run directories" in result.notes[0]


def test_cells_without_runs_are_not_judged():
    one = runs({PLACE: samples(peak_allocated_bytes=[GIB])})
    assert "no run of it now" in compare_measured("quick", one, runs({})).unjudged[0]
    assert "in the baseline" in compare_measured("quick", runs({}), one).unjudged[0]
    assert compare_measured("quick", runs({}), runs({})).exit_code == 2


def test_where_runs_were_measured():
    card = device(kind="cuda", name="T4", uuid="GPU-1")
    here = environment(device=card, driver="550", packages={"torch": "2.13.0", "rich": "14"})
    found = machine_of([here, here.model_copy(update={"packages": {"torch": "2.14.0"}})])
    assert found == {"device": "T4", "driver": "550", "torch": "2.13.0 and 2.14.0"}


# Whole changes, field by field


def test_a_peak_that_moved_says_by_what_it_was_judged():
    before = samples(peak_allocated_bytes=[GIB, GIB, 3 * GIB])
    (change,) = compared(before, samples(peak_allocated_bytes=[2 * GIB, 4 * GIB])).changes
    assert (change.group, change.where) == PLACE
    assert (change.kind, change.of) == ("measured peak", "peak_allocated_bytes")
    assert (change.before, change.after) == (GIB, 3 * GIB)  # medians
    assert "0.5%" in change.note
    readings = [GIB, GIB + 12 * MIB, GIB + 24 * MIB]
    sampled = samples(peak_process_bytes=readings)
    (change,) = compared(sampled, samples(peak_process_bytes=[2 * GIB])).changes
    assert (change.before, change.after) == (GIB + 12 * MIB, 2 * GIB)
    assert "62 MiB" in change.note  # as in the test of NVML's above
    assert "3 runs" in change.note


def test_a_fall_of_accuracy_says_over_how_many_seeds():
    memory = {"peak_allocated_bytes": [GIB]}
    before = samples(accuracies=(0.81, 0.80, 0.79), **memory)
    (change,) = compared(before, samples(accuracies=(0.61, 0.59), **memory)).changes
    assert (change.kind, change.of, change.verdict) == ("accuracy", "", "regression")
    assert (change.before, change.after) == (pytest.approx(0.80), pytest.approx(0.60))
    assert "3 and 2 seeds" in change.note


def test_accuracies_without_any_spread_fall_or_do_not():
    """All seeds have the same, and there is no number of documents to say how exact that is."""
    for after, code in ((0.8, 0), (0.9, 0), (0.7, 1)):
        sides = [
            runs({PLACE: samples(accuracies=(a, a), peak_allocated_bytes=[GIB])}, workload={})
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
    assert change.of == "step_median_s"
    assert change.before == pytest.approx(np.median(base))
    assert change.after == pytest.approx(1.05 * np.median(base))
    none = samples(**memory, total_s=base, started=starts[1])
    result = compared(before, none)
    assert (result.changes, result.exit_code) == ((), 0)
    assert any("none on both sides" in note for note in result.notes)


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


def test_versions_that_one_side_has_not_are_told_as_none():
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    old, new = runs(one, {"device": "T4"}), runs(one, {"device": "T4", "torch": "2.13.0"})
    result = compare_measured("quick", old, new)
    assert (result.judged, result.exit_code) == ((), 2)
    (moved,) = result.versions
    assert (moved.package, moved.before, moved.after) == ("torch", "none", "2.13.0")
    (back,) = compare_measured("quick", new, old, across_versions=True).versions
    assert (back.before, back.after) == ("2.13.0", "none")
    (said,) = compare_measured("quick", old, runs(one, {})).unjudged
    assert "device T4 -> absent" in said
    (said,) = compare_measured("quick", runs(one, {}), old).unjudged
    assert "device absent -> T4" in said


def test_the_workload_of_runs_is_what_all_cells_have_in_common_but_for_the_seed():
    found = gathered(record(), record(cell(max_length=32)))
    assert "seed" not in found.workload
    assert found.workload["eval_size"] == 8


def test_cuda_is_that_of_the_card_and_no_package():
    card = device(kind="cuda", name="T4", uuid="GPU-1")
    here = environment(device=card, cuda="12.8", packages={"torch": "2.13.0", "cuda": "11"})
    assert machine_of([here])["cuda"] == "12.8"
