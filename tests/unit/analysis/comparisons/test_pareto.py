import math
import random

import pandas as pd
import pytest

from ftbench.analysis.comparisons.pareto import (
    FIGURES,
    cheapest_for,
    money,
    next_doublings,
    score_levels,
    standings,
)
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.records.record import Failure
from ftbench.records.scores import Score, share_variance
from tests.factories import cell, evaluated, measurement, record

MANY = 10**6  # documents: their error is nothing


def runs(train_size, accuracies, costs, **axes):
    """Return one record a seed of one cell, with these accuracies and total times."""
    one = cell(train_size=train_size, **axes)
    return [
        record(one, replicate=n, measurement=measurement(eval_accuracy=a, total_s=s))
        for n, (a, s) in enumerate(zip(accuracies, costs, strict=True))
    ]


def single(train_size, accuracy, cost, **axes):
    return runs(train_size, (accuracy,), (cost,), **axes)


def ranked(*cells, eval_size=MANY, cost="total_s"):
    records = [one for group in cells for one in group]
    table = evaluated(cells_table(records), eval_size)
    return standings(table, cost, varying_axes(records))


def standing(found):
    return dict(zip(found["train_size"], found["standing"], strict=True))


# The front


def test_a_planted_front():
    found = ranked(
        single(16, 0.5, 10.0),
        single(32, 0.7, 20.0),
        single(64, 0.6, 30.0),  # dearer and worse than 32
        single(128, 0.9, 40.0),
        single(256, 0.9, 50.0),  # as good, and dearer
    )
    assert standing(found) == {
        16: "front",
        32: "front",
        64: "dominated",
        128: "front",
        256: "dominated",
    }
    assert list(found["cost"]) == sorted(found["cost"])
    assert list(found.columns) == [
        "max_length",
        "per_device_train_batch_size",
        "train_size",
        *FIGURES,
    ]
    lead = found.set_index("train_size").loc[128]
    assert lead["lead"] == pytest.approx(0.2)
    assert lead["lead_low"] == pytest.approx(0.2, abs=0.01)
    assert pd.isna(found.iloc[0]["lead"])


def test_a_lead_within_the_evaluations_error_is_not_told_apart():
    cells = single(16, 0.70, 10.0), single(32, 0.72, 20.0), single(64, 0.95, 30.0)
    assert standing(ranked(*cells, eval_size=100)) == {
        16: "front",
        32: "not distinguishable",
        64: "front",
    }
    assert standing(ranked(*cells))[32] == "front"


def test_a_buy_is_above_every_cheaper_cell_and_not_only_above_the_last_buy():
    """0.749 for 101 s is no buy beside 0.730 for 56 s, which is within noise of it, though it is far above 0.60."""
    cells = single(16, 0.60, 10.0), single(32, 0.730, 56.0), single(64, 0.749, 101.0)
    found = ranked(*cells, eval_size=500)
    assert list(standing(found).values()) == ["front", "front", "not distinguishable"]
    assert found["lead"].tolist()[1:] == pytest.approx([0.13, 0.019])


def test_a_cheaper_cell_of_wide_spread_may_be_as_good_though_its_mean_is_lower():
    """The best cheaper cell is far below the third, the noisy one is not known to be."""
    cells = (
        runs(16, (0.700, 0.701, 0.702), (10.0,) * 3),
        runs(32, (0.50, 0.65, 0.80), (11.0,) * 3),
        runs(64, (0.755, 0.756, 0.757), (20.0,) * 3),
    )
    found = ranked(*cells)
    assert standing(found)[64] == "not distinguishable"
    assert standing(ranked(cells[0], cells[2]))[64] == "front"


def test_steps_that_are_each_within_noise_are_no_buys():
    cells = [single(16 * 2**n, 0.6 + 0.06 * n, 10.0 + n) for n in range(4)]
    found = standing(ranked(*cells, eval_size=200))
    assert list(found.values()) == ["front", *["not distinguishable"] * 3]


def scored(train_size, accuracy, cost, guess=0.5, **axes):
    """Return one record with an accuracy beside what guessing gives."""
    of = Score(name="accuracy", value=accuracy, higher_is_better=True, guess=guess)
    made = measurement(scores=(of,), total_s=cost)
    return [record(cell(train_size=train_size, **axes), measurement=made)]


def test_a_cell_that_only_guesses_is_no_buy_and_beats_nobody():
    """0.52 at the least cost is within noise of guessing, 0.48 is below it."""
    found = ranked(
        scored(16, 0.52, 10.0), scored(32, 0.48, 20.0), scored(64, 0.80, 30.0), eval_size=500
    )
    assert list(standing(found).values()) == ["no better than guessing"] * 2 + ["front"]
    assert pd.isna(found.iloc[2]["lead"])
    assert score_levels(found) == [0.8]
    assert list(cheapest_for(found, [0.5])["cost"]) == [30.0]


def test_nothing_is_bought_where_the_step_ends_at_guessing():
    cells = scored(16, 0.48, 10.0), scored(32, 0.52, 20.0), scored(64, 0.80, 40.0)
    found = doublings(*cells, eval_size=500)
    assert [(one.start, one.end) for one in found] == [(32, 64)]


@pytest.mark.parametrize("seed", range(5))
def test_no_cheaper_cell_is_within_noise_of_any_buy(seed):
    draw = random.Random(seed)
    cells = [single(n, draw.uniform(0.5, 0.9), draw.uniform(10.0, 90.0)) for n in range(1, 40)]
    found = ranked(*cells, eval_size=200)
    for buy in found[found["standing"] == "front"].to_dict("records"):
        for other in found[found["cost"] < buy["cost"]].to_dict("records"):
            error = math.hypot(*(share_variance(row["score"], 200) ** 0.5 for row in (buy, other)))
            assert buy["score"] - other["score"] > 1.95 * error


def test_a_lead_within_the_spread_of_seeds_is_not_told_apart():
    wide = (0.5, 0.7, 0.9)
    cells = runs(16, wide, (10.0,) * 3), runs(32, [a + 0.02 for a in wide], (20.0,) * 3)
    assert standing(ranked(*cells)) == {16: "front", 32: "not distinguishable"}
    narrow = (0.699, 0.7, 0.701)
    cells = runs(16, narrow, (10.0,) * 3), runs(32, [a + 0.02 for a in narrow], (20.0,) * 3)
    assert standing(ranked(*cells)) == {16: "front", 32: "front"}


def test_cells_that_agree_in_both_are_not_told_apart():
    found = ranked(single(16, 0.7, 10.0), single(32, 0.7, 10.0))
    assert sorted(standing(found).values()) == ["front", "not distinguishable"]


def test_a_cell_behind_by_no_more_than_noise_in_both_is_not_beaten():
    """Costs spread by some 10 %, and accuracies by 0.05: 1 % and 0.001 behind says nothing."""
    spread = (0.65, 0.70, 0.75)
    cells = (
        runs(16, spread, (9.0, 10.0, 11.0)),
        runs(32, [a - 0.001 for a in spread], (9.1, 10.1, 11.1)),
        runs(64, [a - 0.001 for a in spread], (90.0, 100.0, 110.0)),
    )
    assert standing(ranked(*cells, eval_size=500)) == {
        16: "front",
        32: "not distinguishable",
        64: "dominated",
    }


def test_replicates_are_one_cell():
    (row,) = ranked(runs(16, (0.6, 0.7, 0.8), (10.0, 30.0, 11.0))).to_dict("records")
    assert (row["runs"], row["seeds"]) == (3, 3)
    assert row["score"] == pytest.approx(0.7)
    assert row["cost"] == 11.0  # the median
    assert row["score_low"] < 0.6 < 0.8 < row["score_high"]


def test_an_interval_of_accuracy_stays_among_shares():
    (row,) = ranked(single(16, 1.0, 10.0), eval_size=8).to_dict("records")
    assert (row["score_high"], row["score_low"] < 1.0) == (1.0, True)


def test_without_noise_known_figures_are_taken_as_they_are():
    found = ranked(single(16, 0.70, 10.0), single(32, 0.71, 20.0), eval_size=None)
    assert standing(found) == {16: "front", 32: "front"}
    assert found["score_low"].isna().all()


@pytest.mark.parametrize(
    "records",
    [
        [record(status="oom", measurement=None, failure=Failure(message="m"))],
        [record(measurement=measurement(eval_accuracy=None))],
    ],
    ids=["all failed", "no accuracy"],
)
def test_a_front_of_nothing(records):
    found = standings(cells_table(records), "total_s", varying_axes(records))
    assert found.empty
    assert list(found.columns)[-len(FIGURES) :] == list(FIGURES)
    assert score_levels(found) == []
    assert cheapest_for(found, [0.5])["cost"].isna().all()
    assert next_doublings(cells_table(records), varying_axes(records), "total_s") == []


def test_a_thousand_cells_are_ranked_at_once():
    sizes = pd.Series(range(1, 1001))
    accuracies = 0.5 + (sizes * 7 % 400) / 1000
    table = pd.concat([cells_table(single(1, 0.5, 10.0))] * 1000, ignore_index=True)
    table = table.assign(train_size=sizes, eval_accuracy=accuracies, total_s=20.0 + sizes % 97)
    axes = ["max_length", "per_device_train_batch_size", "train_size"]
    found = standings(evaluated(table, 500), "total_s", axes)
    assert len(found) == 1000
    # No cell of the front is dominated by any other: brute force.
    front = found[found["standing"] == "front"]
    for row in front.to_dict("records"):
        better = found[(found["cost"] <= row["cost"]) & (found["score"] > row["score"])]
        assert better.empty


# The cheapest for an accuracy


def test_the_cheapest_cell_for_each_accuracy():
    cells = ranked(
        single(16, 0.62, 10.0), single(32, 0.81, 20.0), single(64, 0.90, 40.0), eval_size=1000
    )
    found = cheapest_for(cells, [0.5, 0.8, 0.85, 0.99])
    assert list(found["level"]) == [0.5, 0.8, 0.85, 0.99]
    assert list(found["train_size"].dropna()) == [16, 32, 64]
    assert list(found["sure"]) == [True, False, True, False]  # 0.81 may be less than 0.80
    assert pd.isna(found.iloc[3]["cost"])


def test_levels_are_round_and_reached():
    levels = score_levels(ranked(single(16, 0.62, 10.0), single(32, 0.87, 20.0)))
    assert levels == [0.65, 0.7, 0.75, 0.8, 0.85]
    assert score_levels(ranked(single(16, 0.7, 10.0))) == [0.7]
    assert score_levels(ranked(single(16, 0.777, 10.0))) == []


def test_money_is_time_at_a_price():
    assert money(1800.0, usd_per_hour=0.8) == pytest.approx(0.4)


# The next doubling


def doublings(*cells, eval_size=MANY, **options):
    records = [one for group in cells for one in group]
    table = evaluated(cells_table(records), eval_size)
    return next_doublings(table, varying_axes(records), "total_s", **options)


def test_the_axis_that_buys_most_comes_first():
    """Documents: +0.10 for twice the cost. Length: +0.05 for 1.5 times. Batch: a loss, for less."""
    found = doublings(
        single(16, 0.6, 10.0),
        single(32, 0.7, 20.0),
        single(16, 0.65, 15.0, max_length=32),
        single(16, 0.55, 8.0, per_device_train_batch_size=8),
    )
    assert [one.axis for one in found] == [
        "train_size",
        "max_length",
        "per_device_train_batch_size",
    ]
    documents, length, batch = found
    assert documents.gain.value == pytest.approx(0.1)
    assert documents.cost_ratio.value == pytest.approx(2.0)
    assert documents.worth == pytest.approx(0.1)
    assert length.worth == pytest.approx(0.05 / math.log2(1.5))
    assert (batch.gain.verdict, batch.worth) == ("less", None)
    assert (documents.start, documents.end) == (16, 32)
    assert documents.fixed == {"max_length": 16, "per_device_train_batch_size": 4}


def test_a_longer_step_is_taken_to_one_doubling():
    (found,) = doublings(single(16, 0.6, 10.0), single(128, 0.9, 80.0))
    assert found.gain.value == pytest.approx(0.1)
    assert found.cost_ratio.value == pytest.approx(2.0)


def test_a_gain_within_noise_comes_last_and_says_so():
    """Length would gain more for its cost by the figures, but nobody knows that it gains."""
    found = doublings(
        runs(16, (0.5, 0.5, 0.5), (10.0,) * 3),
        runs(32, (0.55, 0.55, 0.55), (30.0,) * 3),
        runs(16, (0.5, 0.6, 0.7), (11.0,) * 3, max_length=32),
    )
    assert [one.axis for one in found] == ["train_size", "max_length"]
    assert [one.gain.verdict for one in found] == ["more", "not distinguishable"]
    assert found[1].gain.interval.low < 0 < found[1].gain.interval.high


def test_more_accuracy_at_no_more_cost_is_the_best_there_is():
    found = doublings(
        single(16, 0.6, 10.0),
        single(32, 0.9, 11.0),
        single(16, 0.65, 9.0, per_device_train_batch_size=8),
    )
    assert [one.axis for one in found] == ["per_device_train_batch_size", "train_size"]
    assert found[0].worth is None


def test_they_start_where_they_are_told():
    cells = single(16, 0.6, 10.0), single(32, 0.7, 20.0), single(64, 0.75, 40.0)
    at = {"max_length": 16, "per_device_train_batch_size": 4, "train_size": 32}
    (found,) = doublings(*cells, at=at)
    assert (found.start, found.end) == (32, 64)
    assert found.gain.value == pytest.approx(0.05)
    assert doublings(*cells, at=at | {"train_size": 64}) == []


def test_an_axis_without_a_step_there_starts_elsewhere():
    found = doublings(
        single(16, 0.6, 10.0),
        single(32, 0.7, 20.0),
        single(16, 0.6, 15.0, max_length=32),
        single(512, 0.8, 90.0, per_device_train_batch_size=4, max_length=64),
        single(512, 0.8, 80.0, per_device_train_batch_size=8, max_length=64),
    )
    by_axis = {one.axis: one for one in found}
    assert set(by_axis) == {"train_size", "max_length", "per_device_train_batch_size"}
    assert by_axis["train_size"].fixed["max_length"] == by_axis["max_length"].start == 16
    assert by_axis["per_device_train_batch_size"].fixed["train_size"] == 512


def test_they_start_at_the_largest_cell_and_not_at_the_luckiest():
    found = doublings(single(16, 0.9, 10.0), single(32, 0.7, 20.0), single(64, 0.75, 40.0))
    assert [(one.start, one.end) for one in found] == [(32, 64)]


def test_settings_that_are_not_bought_have_no_doubling():
    found = doublings(
        single(16, 0.6, 10.0, learning_rate=1e-5), single(16, 0.7, 10.0, learning_rate=2e-5)
    )
    assert found == []


def test_epochs_are_bought_where_they_are_an_axis():
    (found,) = doublings(
        single(16, 0.6, 10.0, num_train_epochs=1), single(16, 0.7, 20.0, num_train_epochs=2)
    )
    assert found.axis == "num_train_epochs"
    assert found.worth == pytest.approx(0.1)
