import math

import numpy as np
import pytest

from ftbench.analysis.comparisons.contrast import (
    MeanEstimate,
    MeanScore,
    combined,
    contrast,
    difference,
    log_costs,
    mean_difference,
    mean_ratio,
    mean_scores,
    median_ratio,
    points,
    ratio,
    separating_axes,
)
from ftbench.analysis.fits.laws import Interval
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.records.record import Failure
from tests.factories import cell, evaluated, measurement, record

ACCURACY = "eval_accuracy"


def runs_of(records, examples=8):
    """Return the runs by point, their accuracies over so many evaluation examples."""
    return points(evaluated(cells_table(records), examples), varying_axes(records))


def run(length=16, replicate=0, **figures):
    return record(cell(max_length=length), replicate=replicate, measurement=measurement(**figures))


def only(found):
    (one,) = found.values()
    return one


# Estimates


def test_a_known_variance_is_normal():
    found = MeanEstimate(1.0, 0.25).interval
    assert (found.low, found.high) == (
        pytest.approx(1 - 0.5 * 1.95996, abs=1e-4),
        pytest.approx(1 + 0.5 * 1.95996, abs=1e-4),
    )


def test_few_runs_are_students_t():
    assert MeanEstimate(0.0, 1.0, 2).interval.high == pytest.approx(4.3027, abs=1e-4)


def test_without_a_variance_there_is_no_interval():
    assert MeanEstimate(1.0, None).interval is None
    assert difference(MeanEstimate(1.0, None), MeanEstimate(0.5, 0.1)).verdict == "not known"


def test_degrees_of_freedom_are_welchs():
    # Welch's example: variances of means 4 (9 df) and 1 (4 df).
    found = combined((1.0, -1.0), (MeanEstimate(3.0, 4.0, 9), MeanEstimate(1.0, 1.0, 4)))
    assert (found.value, found.variance) == (2.0, 5.0)
    assert found.df == pytest.approx(25 / (16 / 9 + 1 / 4))


def test_no_variance_at_all_is_an_interval_of_one_point():
    found = difference(MeanEstimate(3.0, 0.0, 2), MeanEstimate(3.0, 0.0, 2))
    assert (found.interval.low, found.interval.high) == (0.0, 0.0)
    assert found.verdict == "not distinguishable"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.3, "more"),
        (-0.3, -0.1, "less"),
        (-0.1, 0.3, "not distinguishable"),
        (0.0, 0.3, "not distinguishable"),
    ],
)
def test_verdicts(low, high, verdict):
    assert contrast(0.0, Interval(0.0, low, high), same=0.0).verdict == verdict


def test_a_ratio_of_one_doubling():
    a, b = MeanEstimate(math.log(9.0), 0.01), MeanEstimate(math.log(1.0), 0.0)
    assert ratio(a, b).value == pytest.approx(9.0)
    root = ratio(a, b, doublings=2)
    assert root.value == pytest.approx(3.0)
    assert root.interval.high == pytest.approx(3.0 * math.exp(1.95996 * 0.05), rel=1e-4)


def test_a_difference_holds_the_truth_at_its_rate():
    """Three seeds of spread 0.02 and 0.05: the interval holds the true difference in about 95 %."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        a, b = generator.normal(0.7, 0.02, 3), generator.normal(0.6, 0.05, 3)
        estimates = [MeanEstimate(x.mean(), x.var(ddof=1) / 3, 2) for x in (a, b)]
        found = difference(*estimates).interval
        covered += found.low <= 0.1 <= found.high
    assert 0.93 <= covered / 1000 <= 0.985  # Welch is a little wide with three runs each


def test_a_pooled_spread_is_one_spread_however_many_pairs_have_it():
    """One cell was run three times; nine pairs of cells have its spread: the interval still holds the truth."""
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(1000):
        runs = {("again",): [{"cost": math.exp(x)} for x in generator.normal(0.0, 0.1, 3)]}
        logs = generator.normal(0.0, 0.1, 18)
        runs |= {(n,): [{"cost": math.exp(x)}] for n, x in enumerate(logs)}
        found = log_costs(runs, "cost")
        ratios = mean_ratio([(found[n,], found[n + 1,]) for n in range(0, 18, 2)])
        covered += ratios.interval.low <= 1.0 <= ratios.interval.high
    assert 0.93 <= covered / 1000 <= 0.97


# Medians of ratios


def test_six_ratios_have_an_interval_and_five_have_none():
    six = median_ratio([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    assert six.value == pytest.approx(1.25)
    assert (six.interval.low, six.interval.high) == (1.0, 1.5)
    assert six.verdict == "not distinguishable"  # 1.0 is in it
    assert median_ratio([1.1] * 5).verdict == "not known"
    assert median_ratio([1.1] * 6).verdict == "more"


def test_the_medians_interval_is_that_of_the_tables():
    # Order statistics of a sign test, n = 20: the 6th from either end (95.9 %).
    found = median_ratio([float(n) for n in range(1, 21)]).interval
    assert (found.low, found.high) == (6.0, 15.0)


def test_a_mean_of_ratios_is_geometric_and_of_one_pair_the_ratio_itself():
    pairs = [
        (MeanEstimate(math.log(a), 0.02), MeanEstimate(math.log(b), 0.02))
        for a, b in ((2.0, 1.0), (24.0, 3.0))
    ]
    found = mean_ratio(pairs)
    assert found.value == pytest.approx(4.0)
    assert found.interval.high == pytest.approx(4.0 * math.exp(1.95996 * math.sqrt(0.02)), rel=1e-4)
    assert mean_ratio(pairs[:1]) == ratio(*pairs[0])
    assert (
        mean_ratio([pairs[0], (MeanEstimate(1.0, None), MeanEstimate(0.0, 0.1))]).verdict
        == "not known"
    )


# From tables


def test_accuracy_has_the_spread_of_seeds_and_of_documents():
    records = [run(replicate=n, eval_accuracy=a) for n, a in enumerate((0.6, 0.7, 0.8))]
    found = only(mean_scores(runs_of(records, None), ACCURACY))
    of_seeds = found.of_seeds
    assert (of_seeds.value, of_seeds.df) == (pytest.approx(0.7), 2)
    assert of_seeds.variance == pytest.approx(0.01 / 3)
    assert found.evaluation is None
    assert found.estimate == of_seeds
    both = only(mean_scores(runs_of(records, 100), ACCURACY)).estimate
    shares = [(n + 2) / 104 for n in (60, 70, 80)]
    of_examples = sum(share * (1 - share) / 100 for share in shares) / 3
    assert both.variance == pytest.approx(0.01 / 3 + of_examples)
    assert both.df > 2


def test_a_perfect_score_is_not_certain():
    found = only(mean_scores(runs_of([run(eval_accuracy=1.0)], 16), ACCURACY)).estimate
    assert found.variance > 0


def test_repeats_of_a_seed_are_no_evidence_on_accuracy():
    records = [run(eval_accuracy=0.7).model_copy(update={"repeat": n}) for n in range(4)]
    assert only(mean_scores(runs_of(records, None), ACCURACY)).estimate.variance is None


def test_one_seed_has_the_spread_of_the_others():
    several = [run(16, n, eval_accuracy=a) for n, a in enumerate((0.6, 0.7, 0.8))]
    found = mean_scores(runs_of([*several, run(32, eval_accuracy=0.9)], None), ACCURACY)
    assert found[32, 4, 16].estimate.variance == pytest.approx(0.01)
    assert found[32, 4, 16].estimate.df == 2


def test_costs_are_logarithms_over_all_runs():
    records = [run(replicate=n, total_s=s) for n, s in enumerate((10.0, 20.0, 40.0))]
    found = only(log_costs(runs_of(records), "total_s"))
    assert math.exp(found.value) == pytest.approx(20.0)
    assert found.variance == pytest.approx(math.log(2) ** 2 / 3)


def test_a_cost_that_was_read_once_has_no_variance():
    assert only(log_costs(runs_of([run()]), "total_s")).variance is None
    assert log_costs(runs_of([run()]), "peak_allocated_bytes") == {}


def test_a_single_step_time_has_its_own_interval():
    steps = measurement().steps.model_copy(update={"median_low_s": 0.4, "median_high_s": 0.6})
    found = only(log_costs(runs_of([run(steps=steps)]), "step_median_s"))
    assert math.sqrt(found.variance) == pytest.approx(math.log(0.6 / 0.4) / (2 * 1.95996), rel=1e-4)


def test_failed_and_untrusted_runs_do_not_count():
    failed = record(
        cell(max_length=64), status="oom", measurement=None, failure=Failure(message="m")
    )
    untrusted = run(32, eval_accuracy=1.5)
    assert list(runs_of([run(16), failed, untrusted])) == [(16, 4, 16)]


def test_runs_of_two_environments_are_no_replicates():
    here, elsewhere = run(total_s=10.0), run(replicate=1, total_s=40.0)
    elsewhere = elsewhere.model_copy(update={"environment_id": "elsewhere"})
    table = cells_table([here, elsewhere])
    axes = varying_axes([here, elsewhere])
    assert separating_axes(table, axes) == [*axes, "environment_id"]
    found = points(table, separating_axes(table, axes))
    assert {point[-1]: len(runs) for point, runs in found.items()} == {
        here.environment_id: 1,
        "elsewhere": 1,
    }
    assert separating_axes(table[:1], axes) == axes


def test_an_empty_table_has_no_point():
    table = cells_table([run()])
    assert points(table[table["status"] == "none"], ["max_length", "train_size"]) == {}


def test_pairs_share_their_evaluation_documents():
    """A hundred pairs know the seeds' part a hundred times better, but not the documents' part."""
    pair = (
        MeanScore(MeanEstimate(0.8, 0.0001), 0.0003),
        MeanScore(MeanEstimate(0.6, 0.0001), 0.0005),
    )
    one, many = (mean_difference([pair] * n) for n in (1, 100))
    documents = 0.0003 + 0.0005
    assert many.value == pytest.approx(0.2)
    half = (many.interval.high - many.interval.low) / 2
    assert half == pytest.approx(1.95996 * math.sqrt(documents + 0.0002 / 100), rel=1e-4)
    assert half < (one.interval.high - one.interval.low) / 2


def test_no_pair_has_no_difference():
    assert mean_difference([]) is None
    pair = (MeanScore(MeanEstimate(0.8, None), None), MeanScore(MeanEstimate(0.6, None), None))
    assert mean_difference([pair]).verdict == "not known"
