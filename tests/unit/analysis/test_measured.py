"""Runs of two versions: each figure by its own noise; time by rank, at the stated rate of false alarms."""

import numpy as np
import pytest

from bench.analysis.measured import (
    FALSE_ALARMS,
    FEWEST_PAIRS,
    Samples,
    compare_measured,
    elsewhere,
    interleaved,
    kept_samples,
    machine_of,
    measured_of,
    samples_of,
    slowdown,
    untrusted,
)
from bench.units import GIB, MIB
from tests.factories import cell, device, environment, measurement, record

PLACE = ("", "length 16, batch 4")


def samples(*, started=(), accuracies=(), **figures):
    values = {name: tuple(value) for name, value in figures.items()}
    count = max(map(len, values.values()), default=0)
    seeds = {str(seed): value for seed, value in enumerate(accuracies)}
    return Samples(values, tuple(started) or ("a",) * count, seeds)


def compared(before, after, **options):
    return compare_measured("quick", {PLACE: before}, {PLACE: after}, **options)


def alternating(count):
    """When the runs of two versions began, each after the other."""
    return [[f"2026-01-01T{n:05d}{letter}" for n in range(count)] for letter in "ab"]


# The runs of a directory


def test_runs_are_gathered_by_cell_in_the_order_they_began():
    later = record(
        repeat=1, measurement=measurement(step_median_s=2.0), started_at="2026-01-02T00:00:00"
    )
    first = record(measurement=measurement(step_median_s=1.0), started_at="2026-01-01T00:00:00")
    found = samples_of([later, first])
    assert found[PLACE].figures["step_median_s"] == (1.0, 2.0)
    assert found[PLACE].started == ("2026-01-01T00:00:00", "2026-01-02T00:00:00")


def test_accuracy_has_a_value_a_seed():
    runs = [
        record(replicate=0, measurement=measurement(eval_accuracy=0.7)),
        record(replicate=0, repeat=1, measurement=measurement(eval_accuracy=0.7)),
        record(replicate=1, measurement=measurement(eval_accuracy=0.8)),
    ]
    assert samples_of(runs)[PLACE].accuracies == {"42": 0.7, "43": 0.8}


def test_runs_that_cannot_be_trusted_are_left_out_and_counted():
    wrong = record(replicate=1, untrusted={"total_s": "the clock jumped"})
    assert len(samples_of([record(), wrong])[PLACE].started) == 1
    assert untrusted([record(), wrong]) == 1


def test_cells_are_named_within_their_group():
    runs = [record(cell(attn_implementation=name)) for name in ("eager", "sdpa")]
    assert set(samples_of(runs)) == {
        ("attn_implementation eager", PLACE[1]),
        ("attn_implementation sdpa", PLACE[1]),
    }


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


@pytest.mark.parametrize(("more", "code"), [(0, 0), (25 * MIB, 0), (27 * MIB, 1)])
def test_nvml_s_may_move_as_far_as_its_readings_differ(more, code):
    before = samples(peak_process_bytes=[GIB, GIB + 12 * MIB, GIB + 24 * MIB])
    after = samples(peak_process_bytes=[GIB + 12 * MIB + more])
    assert compared(before, after).exit_code == code


def test_nvml_s_noise_is_not_known_from_two_runs():
    two = samples(peak_process_bytes=[GIB, GIB])
    result = compared(two, two)
    assert result.exit_code == 2
    assert "known from 2 runs only" in result.unjudged[0]


# Accuracy


@pytest.mark.parametrize(
    ("after", "code"),
    [((0.80, 0.81, 0.79), 0), ((0.60, 0.61, 0.59), 1), ((0.95, 0.96, 0.94), 0), ((0.5,), 0)],
)
def test_accuracy_may_not_fall_below_what_seeds_explain(after, code):
    before = samples(accuracies=(0.81, 0.80, 0.80))
    assert compared(before, samples(accuracies=after)).exit_code == code


# Time


def test_a_slower_version_is_found_by_its_pairs():
    starts = alternating(8)
    base = np.linspace(1.0, 1.4, 8)  # the machine gets slower, for both
    before = samples(step_median_s=base, started=starts[0])
    after = samples(step_median_s=1.05 * base, started=starts[1])
    (change,) = compared(before, after).changes
    assert (change.kind, change.of, change.verdict) == ("time", "step_median_s", "regression")
    assert "1.050x over 8 pairs" in change.note


def test_a_faster_version_holds():
    starts = alternating(8)
    before = samples(step_median_s=np.linspace(1.0, 1.4, 8), started=starts[0])
    after = samples(step_median_s=np.linspace(0.9, 1.3, 8), started=starts[1])
    assert compared(before, after, judge_time=True).exit_code == 0


def test_runs_that_do_not_alternate_say_nothing_of_time():
    series = np.linspace(1.0, 1.1, 8)
    before = samples(step_median_s=series, started=[f"a{n}" for n in range(8)])
    after = samples(step_median_s=2 * series, started=[f"b{n}" for n in range(8)])
    result = compared(before, after)
    assert (result.exit_code, result.changes) == (0, ())
    assert "do not alternate" in result.notes[0]
    assert compared(before, after, judge_time=True).exit_code == 2


def test_too_few_pairs_say_nothing_of_time():
    starts = alternating(FEWEST_PAIRS - 1)
    before, after = (
        samples(step_median_s=[1.0 * n] * len(starts[0]), started=began)
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
        alarms += bool(compare_measured("quick", *sides).changes)
    assert alarms <= 8  # a tenth of 60 and more would be 25, without the correction


# What a baseline keeps


def test_kept_runs_are_compared_but_for_time():
    before = {PLACE: samples(peak_allocated_bytes=[GIB], step_median_s=[1.0])}
    kept = kept_samples(measured_of(before, {"device": "T4"}))
    assert kept[PLACE].figures["peak_allocated_bytes"] == (GIB,)
    result = compare_measured("quick", kept, before)
    assert result.exit_code == 0
    assert "two run directories" in result.notes[0]


def test_cells_without_runs_are_not_judged():
    one = {PLACE: samples(peak_allocated_bytes=[GIB])}
    assert "no run of it now" in compare_measured("quick", one, {}).unjudged[0]
    assert "in the baseline" in compare_measured("quick", {}, one).unjudged[0]
    assert compare_measured("quick", one, one, distrusted=2).exit_code == 2


def test_where_runs_were_measured():
    card = device(kind="cuda", name="T4", uuid="GPU-1")
    here = environment(device=card, driver="550", packages={"torch": "2.13.0", "rich": "14"})
    found = machine_of([here, here.model_copy(update={"packages": {"torch": "2.14.0"}})])
    assert found == {"device": "T4", "driver": "550", "torch": "2.13.0 and 2.14.0"}
    assert elsewhere(found, {"device": "L4", "driver": "550"}) == [
        "device T4 -> L4",
        "torch 2.13.0 and 2.14.0 -> absent",
    ]
