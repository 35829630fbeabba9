import math

import pandas as pd
import pytest
from scipy.special import stdtrit

from ftbench.analysis.comparisons.methods import method_comparison
from ftbench.analysis.tables.cells_table import cells_table
from tests.factories import cell, evaluated, measurement, record

AXES = ["max_length", "per_device_train_batch_size", "train_size", "learning_rate", "method"]


def rows(method, rate, length=16, replicates=3, **figures):
    """Return rows of one cell as a table of cells has them, with a method and a learning rate."""
    given = {"eval_accuracy": 0.8, "total_s": 100.0, "step_median_s": 1.0, "rss": 2**30} | figures
    memory = {"peak_rss_bytes": given.pop("rss")}
    records = [
        record(
            cell(max_length=length), replicate=n, measurement=measurement(memory=memory, **given)
        )
        for n in range(replicates)
    ]
    return cells_table(records).assign(method=method, learning_rate=rate)


def compared(*tables, axes=AXES, eval_size=10**6):
    table = evaluated(pd.concat(tables, ignore_index=True), eval_size)
    return method_comparison(table, axes)


def test_what_full_costs_and_brings():
    (found,) = compared(
        rows("full", 2e-5, eval_accuracy=0.85, total_s=200.0, rss=3 * 2**30),
        rows("lora", 1e-4, eval_accuracy=0.83),
    )
    assert (found.method, found.own) == ("lora", {})
    (pair,) = found.pairs
    assert (pair.full_rate, pair.other_rate) == (2e-5, 1e-4)
    assert pair.fixed["max_length"] == 16
    assert pair.ratios["total_s"].value == pytest.approx(2.0)
    assert pair.ratios["peak_rss_bytes"].value == pytest.approx(3.0)
    assert pair.ratios["total_s"].verdict == "more"
    assert pair.gain.value == pytest.approx(0.02)
    assert found.ratios["total_s"].value == pytest.approx(2.0)
    assert found.gain.verdict == "more"


def test_a_difference_within_noise_is_not_told_apart():
    (found,) = compared(
        rows("full", 2e-5, eval_accuracy=0.85),
        rows("lora", 1e-4, eval_accuracy=0.83),
        eval_size=500,
    )
    assert found.gain.verdict == "not distinguishable"


def test_each_other_method_is_beside_full():
    found = compared(rows("full", 2e-5), rows("head", 1e-3), rows("lora", 1e-4))
    assert [one.method for one in found] == ["head", "lora"]


def test_pairs_agree_in_everything_else():
    (found,) = compared(
        *(rows("full", 2e-5, n, total_s=n * 10.0) for n in (16, 32, 64)),
        *(rows("lora", 1e-4, n, total_s=n * 5.0) for n in (16, 32, 128)),
    )
    assert [pair.fixed["max_length"] for pair in found.pairs] == [16, 32]
    assert [pair.ratios["total_s"].value for pair in found.pairs] == pytest.approx([2.0, 2.0])
    assert found.ratios["total_s"].verdict == "more"


def spread(method, rate, length, middle):
    """Return three runs of one cell, the logarithms of whose total times have a deviation of 0.1."""
    times = [middle * math.exp(0.1 * n) for n in (-1, 0, 1)]
    return rows(method, rate, length).assign(total_s=times)


def test_few_pairs_have_the_mean_of_their_logarithms_with_an_interval():
    """Ratios of 2 and 8: their median is 5, and would have no interval."""
    (found,) = compared(
        *(spread("full", 2e-5, n, middle) for n, middle in ((16, 20.0), (32, 80.0))),
        *(spread("lora", 1e-4, n, 10.0) for n in (16, 32)),
    )
    assert found.averaged == "mean"
    one = found.ratios["total_s"]
    assert one.value == pytest.approx(4.0)
    # Four cells, each known to 0.1 / sqrt(3) with two degrees of freedom: half of the root of their sum.
    half = stdtrit(8, 0.975) * 0.1 / math.sqrt(3)
    assert one.interval.low == pytest.approx(4.0 * math.exp(-half))
    assert one.interval.high == pytest.approx(4.0 * math.exp(half))
    assert one.verdict == "more"


def test_pairs_of_runs_that_were_not_repeated_have_no_interval():
    (found,) = compared(
        *(rows("full", 2e-5, n, replicates=1, total_s=20.0) for n in (16, 32)),
        *(rows("lora", 1e-4, n, replicates=1, total_s=10.0) for n in (16, 32)),
    )
    one = found.ratios["total_s"]
    assert (one.value, one.interval, one.verdict) == (pytest.approx(2.0), None, "not known")


def test_six_pairs_have_an_interval():
    lengths = (16, 32, 64, 128, 256, 512)
    (found,) = compared(
        *(rows("full", 2e-5, n, total_s=20.0 + i) for i, n in enumerate(lengths)),
        *(rows("lora", 1e-4, n, total_s=20.0) for n in lengths),
    )
    assert found.averaged == "median"
    interval = found.ratios["total_s"].interval
    assert (interval.low, interval.high) == pytest.approx((1.0, 1.25))


def test_the_most_accurate_rate_stands_for_a_method():
    (found,) = compared(
        rows("full", 2e-5),
        rows("lora", 1e-4, eval_accuracy=0.7),
        rows("lora", 5e-4, eval_accuracy=0.82),
    )
    assert [pair.other_rate for pair in found.pairs] == [5e-4]


def test_settings_of_a_methods_own_are_compared_apart():
    axes = [*AXES, "lora.r"]
    full = rows("full", 2e-5).assign(**{"lora.r": "default"})
    ranks = [
        rows("lora", 1e-4, total_s=t).assign(**{"lora.r": r})
        for r, t in (("4", 50.0), ("64", 80.0))
    ]
    found = compared(full, *ranks, axes=axes)
    assert [one.own["lora.r"] for one in found] == ["4", "64"]
    assert [one.ratios["total_s"].value for one in found] == pytest.approx([2.0, 1.25])


def test_no_accuracy_is_no_difference():
    (found,) = compared(
        rows("full", 2e-5, eval_accuracy=None), rows("lora", 1e-4, eval_accuracy=None)
    )
    assert found.gain is None
    assert found.pairs[0].gain is None
    assert found.ratios["total_s"].value == pytest.approx(1.0)
    assert found.ratios["total_s"].verdict == "not distinguishable"


@pytest.mark.parametrize(
    "tables",
    [
        (rows("lora", 1e-4), rows("head", 1e-3)),
        (rows("full", 2e-5),),
        (rows("full", 2e-5, 16), rows("lora", 1e-4, 32)),
        (rows("full", 2e-5), rows("lora", 1e-4).assign(status="oom")),
    ],
    ids=["no full", "full alone", "no pair", "failed"],
)
def test_nothing_to_compare(tables):
    assert compared(*tables) == []


def test_without_the_axis_there_is_nothing_to_compare():
    table = rows("full", 2e-5).drop(columns="method")
    assert method_comparison(table, AXES[:3]) == []


def test_a_score_that_only_guesses_is_compared_with_none():
    """Its costs are: they do not depend on what was learned."""
    (found,) = compared(
        *(rows("full", 2e-5, n, eval_accuracy=0.85, total_s=200.0) for n in (16, 32)),
        rows("lora", 1e-4, 16, eval_accuracy=0.80),
        rows("lora", 1e-4, 32, eval_accuracy=0.1),  # what guessing gives here
    )
    assert found.guessing == 1
    assert [pair.gain is None for pair in found.pairs] == [False, True]
    assert found.gain.value == pytest.approx(0.05)
    assert found.ratios["total_s"].value == pytest.approx(2.0)
