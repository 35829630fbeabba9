import numpy as np
import pandas as pd
import pytest

from ftbench.analysis.fits.laws import LearningCurve, Refusal
from ftbench.analysis.fits.learning import WEAK_ACCURACY, Power, learning_curves
from ftbench.analysis.fits.learning import Seeds as Sizes
from ftbench.analysis.fits.reasons import (
    ExponentUnknown,
    NoRise,
    NoScore,
    NoSizesToCompare,
    TooFewSeeds,
    TooFewSizes,
)
from ftbench.analysis.fits.regression import TooFewCellsError
from ftbench.plan.scores import ACCURACY
from tests.unit.analysis.made_up import AXES

LAW = (0.08, 1.5, 0.4)
SIZES = (100, 200, 400, 800, 1600, 3200)
SEEDS = range(200)


def error(documents, law=LAW):
    return law[0] + law[1] * np.asarray(documents, dtype=float) ** -law[2]


def runs(seed=0, *, sizes=SIZES, seeds=5, sd=0.012, law=LAW):
    """Return runs of one length and batch, whose accuracy has the noise of a share's standard deviation."""
    documents = np.repeat(sizes, seeds)
    mean = error(documents, law)
    noise = np.random.default_rng(seed).normal(0, 2 * sd, len(mean)) * np.sqrt(mean * (1 - mean))
    return pd.DataFrame(
        {
            "max_length": 128,
            "per_device_train_batch_size": 16,
            "train_size": documents,
            "seed": list(range(seeds)) * len(sizes),
            "eval_accuracy": 1 - mean - noise,
            "score_se": np.sqrt(mean * (1 - mean) / 500),
        }
    )


def curve(table, axes=AXES):
    (found,) = learning_curves(table, axes)
    assert isinstance(found, LearningCurve), found
    return found


def reason(table, axes=AXES):
    (found,) = learning_curves(table, axes)
    assert isinstance(found, Refusal), found
    assert found.cost == "eval_accuracy"
    return found.reason


def test_a_law_without_noise_comes_back():
    found = curve(runs(sd=1e-5))
    assert found.floor.value == pytest.approx(0.08, abs=1e-3)
    assert found.a.value == pytest.approx(1.5, rel=0.01)
    assert found.b.value == pytest.approx(0.4, abs=2e-3)
    assert found.predict(25600).value == pytest.approx(1 - error(25600), abs=1e-3)
    assert found.fixed == {"max_length": 128, "per_device_train_batch_size": 16}
    assert found.weak == ()


def test_points_are_means_over_seeds():
    table = runs()
    found = curve(table)
    assert list(found.points) == list(SIZES)
    mean, seeds = found.points[400]
    assert seeds == 5
    assert mean.value == pytest.approx(table[table["train_size"] == 400]["eval_accuracy"].mean())
    # Student's t of 24 degrees of freedom, of the standard deviation of a mean over five.
    spread = 2.064 * 0.024 * np.sqrt(error(400) * (1 - error(400)) / 5)
    assert mean.high - mean.value == pytest.approx(spread, rel=0.3)
    assert mean.value - mean.low == pytest.approx(mean.high - mean.value)


@pytest.mark.parametrize(
    ("sizes", "seeds", "sd"), [(SIZES, 5, 0.012), ((100, 300, 1000, 3000), 3, 0.008)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(sizes, seeds, sd):
    covered, between, beyond, widths = dict.fromkeys(["floor", "a", "b"], 0), 0, 0, []
    for seed in SEEDS:
        table = runs(seed, sizes=sizes, seeds=seeds, sd=sd)
        power = Power.of(
            Sizes.of({n: table[n].to_numpy(float) for n in ("train_size", "eval_accuracy")})
        )
        for name, interval in power.constants().items():
            covered[name] += (
                interval.low <= dict(zip(covered, LAW, strict=True))[name] <= interval.high
            )
        new = runs(seed + 1000, sizes=(600, 12800), seeds=1, sd=sd)
        accuracy, half = power.predict({"train_size": new["train_size"].to_numpy(float)})
        off = np.abs(np.log(new["eval_accuracy"].to_numpy() / accuracy))
        between += off[0] <= half[0]
        beyond += off[1] <= half[1]
        widths.append(half)
    assert min(covered.values()) >= 0.90 * len(SEEDS), covered
    assert between >= 0.90 * len(SEEDS)
    assert beyond >= 0.90 * len(SEEDS)
    # One run's own noise at 600 documents, as a share of its accuracy, is 1.96 * 0.024 * 0.4 / 0.8.
    assert 1.5 * sd < np.median(widths, axis=0)[0] < 6 * sd
    assert np.median(widths, axis=0)[1] < 10 * sd


def test_it_is_the_same_every_time():
    assert curve(runs()).b == curve(runs()).b


def test_an_accuracy_is_a_share():
    found = curve(runs(law=(0.0, 2.0, 0.6)))
    assert found.predict(10**7).high <= 1
    assert found.floor.low == 0


def test_beyond_the_largest_size_it_is_less_sure():
    found = curve(runs())
    widths = [found.predict(n).high - found.predict(n).low for n in (1600, 25600, 400000)]
    assert widths == sorted(widths)


def test_sizes_are_left_out_in_turn_and_the_largest_last():
    found = curve(runs())
    assert found.interpolation.cells == 4  # all but the smallest and the largest
    assert found.extrapolation.cells == 1
    assert found.interpolation.median_error < WEAK_ACCURACY


def test_an_accuracy_that_jumps_is_weak():
    table = runs(sd=0.002)
    table["eval_accuracy"] = np.where(table["train_size"] < 800, 0.5, 0.9)
    table["eval_accuracy"] += np.random.default_rng(0).normal(0, 0.002, len(table))
    (weak,) = curve(table).weak
    assert weak.threshold == WEAK_ACCURACY < weak.median_error


def test_another_evaluation_set_would_move_it():
    found = curve(runs())
    largest = error(100)
    expected = 1.96 * np.sqrt(largest * (1 - largest) / 500)
    assert found.evaluation_error == pytest.approx(expected, rel=0.05)
    assert curve(runs().drop(columns="score_se")).evaluation_error is None


def test_repeats_of_a_seed_are_no_replicates():
    repeated = pd.concat([runs(seeds=1)] * 3)
    assert reason(repeated) == TooFewSeeds(0, 3)
    thrice, once = (curve(table).points[400] for table in (pd.concat([runs()] * 3), runs()))
    assert thrice[1] == once[1] == 5
    assert thrice[0].low == pytest.approx(once[0].low)


def test_few_sizes_are_refused():
    assert reason(runs(sizes=(100, 400, 1600))) == TooFewSizes(3, 4)


def test_an_accuracy_that_does_not_rise_is_refused():
    flat = reason(runs(law=(0.3, 1e-9, 0.4)))
    assert isinstance(flat, NoRise)
    assert (flat.first_size, flat.last_size) == (SIZES[0], SIZES[-1])
    assert (flat.first, flat.last) == pytest.approx((0.7, 0.7), abs=0.02)
    falling = runs().assign(eval_accuracy=lambda table: 1 - table["eval_accuracy"])
    assert isinstance(reason(falling), NoRise)


def test_an_exponent_that_may_be_anything_is_refused():
    refusals = [
        found.reason
        for seed in range(20)
        for found in learning_curves(runs(seed, sizes=SIZES[:4], seeds=2, sd=0.05), AXES)
        if isinstance(found, Refusal)
    ]
    (unknown, *_) = (one for one in refusals if isinstance(one, ExponentUnknown))
    assert 0.05 <= unknown.low < unknown.high <= 2


def test_a_curve_for_every_other_setting():
    table = pd.concat([runs(0).assign(learning_rate=1e-5), runs(1).assign(learning_rate=1e-4)])
    found = learning_curves(table, [*AXES, "learning_rate"])
    assert [one.fixed["learning_rate"] for one in found] == [1e-5, 1e-4]


def test_cells_of_one_size_are_no_curve_and_no_refusal():
    lone = runs(sizes=(100,)).assign(max_length=64)
    assert curve(pd.concat([runs(), lone])).fixed["max_length"] == 128
    assert reason(lone) == NoSizesToCompare()


def test_no_accuracy():
    assert reason(runs().assign(eval_accuracy=np.nan)) == NoScore(ACCURACY)
    assert learning_curves(runs()[:0], AXES) == ()


# By hand

ONE_PAIR = {  # errors 0.5 and 0.3 with 100 documents, 0.2 twice with 200
    "train_size": np.array([100.0, 100, 200, 200]),
    "eval_accuracy": np.array([0.5, 0.7, 0.8, 0.8]),
}


def test_the_spread_of_seeds_is_that_of_a_share():
    found = Sizes.of(ONE_PAIR)
    assert found.size.tolist() == [100, 200]
    assert found.error == pytest.approx([0.4, 0.2])
    assert found.seeds.tolist() == [2, 2]
    assert found.freedom == 2
    # Residuals of 0.1 / sqrt(0.4 * 0.6), twice, over two degrees of freedom.
    assert found.dispersion == pytest.approx(0.01 / 0.24)
    assert found.variance == pytest.approx([0.01 / 2, 0.01 / 0.24 * 0.16 / 2])
    # A residual of two seeds has half the variance of one: it is grown by sqrt(2).
    assert sorted(found.residuals) == pytest.approx(
        [-np.sqrt(0.02 / 0.24), 0, 0, np.sqrt(0.02 / 0.24)]
    )
    mean, seeds = found.points()[100]
    assert (mean.value, seeds) == (pytest.approx(0.6), 2)
    assert mean.high - 0.6 == pytest.approx(4.303 * np.sqrt(0.005), rel=1e-3)
    assert 0.6 - mean.low == pytest.approx(4.303 * np.sqrt(0.005), rel=1e-3)


def test_a_size_with_one_seed_has_the_spread_of_the_others_and_no_residual():
    found = Sizes.of(
        {
            "train_size": np.array([100.0, 100, 200]),
            "eval_accuracy": np.array([0.5, 0.7, 0.8]),
        }
    )
    assert found.freedom == 1
    assert found.dispersion == pytest.approx(0.02 / 0.24)
    assert found.variance == pytest.approx([0.01, 0.02 / 0.24 * 0.16])
    assert len(found.residuals) == 2


def test_without_a_second_seed_nothing_is_known_of_the_spread():
    found = Sizes.of({"train_size": np.array([100.0, 200]), "eval_accuracy": np.array([0.5, 0.7])})
    assert (found.freedom, found.dispersion) == (0, 0)
    assert 0 < max(found.variance) < 1e-9
    with pytest.raises(TooFewCellsError):
        Power.of(found)


def test_no_share_is_nearer_to_all_or_nothing_than_half_a_per_cent():
    sure = Sizes.of(
        {
            "train_size": np.array([100.0, 100, 200, 200]),
            "eval_accuracy": np.array([0.5, 0.7, 1.0, 1.0]),
        }
    )
    assert sure.variance[1] == pytest.approx(0.01 / 0.24 * 0.005 * 0.995 / 2)


def of_draws(floor, a, b, runs):
    return Power(ACCURACY, *(np.array(values, dtype=float) for values in (floor, a, b, runs)))


def test_a_prediction_has_the_spread_of_its_draws_and_of_one_more_run():
    power = of_draws([0.1] * 3, [1] * 3, [0.5] * 3, [-0.1, 0.1])
    accuracy, half = power.predict({"train_size": np.array([100.0])})
    assert accuracy == pytest.approx(0.8)  # 1 - 0.1 - 100 ** -0.5
    # One more run is 0.1 * sqrt(0.2 * 0.8) off: 95 % of two draws, 0.04 to either side, are within 0.038.
    assert half == pytest.approx(-np.log(0.762 / 0.8))
    lower = of_draws([0.1, 0.1, 0.2], [1] * 3, [0.5] * 3, [0, 0])
    accuracy, half = lower.predict({"train_size": np.array([100.0, 1e8])})
    assert accuracy == pytest.approx([0.8, 0.8999])
    ends = [0.3 - 0.1 * 0.025, 0.2001 - 0.1 * 0.025]
    assert half == pytest.approx(
        [-np.log((1 - e) / a) for e, a in zip(ends, accuracy, strict=True)]
    )


def test_an_accuracy_is_never_less_than_one_in_a_hundred():
    accuracy, _ = of_draws([0.5] * 3, [9] * 3, [0.1] * 3, [0, 0]).predict(
        {"train_size": np.array([10.0])}
    )
    assert accuracy == 0.01


def test_constants_have_the_ends_of_their_draws_and_hold_the_fit_s_own():
    found = of_draws([0.2, 0.1, 0.3], [5, 1, 3], [0.5, 1, 3], [0, 0]).constants()
    assert (found["floor"].low, found["floor"].high) == pytest.approx((0.105, 0.295))
    assert (found["a"].low, found["a"].value, found["a"].high) == pytest.approx((1.05, 5, 5))
    assert (found["b"].low, found["b"].value, found["b"].high) == pytest.approx((0.5, 0.5, 2.95))


@pytest.mark.parametrize(
    ("law", "expected"),
    [((0.1, 2.0, 0.5), (0.1, 2.0, 0.5)), ((0.0, 2.0, 0.5), (0.0, 2.0, 0.5))],
)
def test_a_law_is_found_as_it_is(law, expected):
    power = Power.of(Sizes.of(exactly(error(SIZES, law))))
    found = power.constants()
    assert found["b"].value == pytest.approx(expected[2], rel=2e-3)
    assert found["a"].value == pytest.approx(expected[1], rel=1e-2)
    assert found["floor"].value == pytest.approx(expected[0], abs=1e-3)


def exactly(errors, spread=1e-4):
    """Return runs of two seeds to each size, whose means are these errors."""
    sizes = np.array(SIZES[: len(errors)], dtype=float)
    return {
        "train_size": np.repeat(sizes, 2),
        "eval_accuracy": 1 - np.repeat(errors, 2) + np.tile([-spread, spread], len(errors)),
    }


def test_a_floor_below_nothing_is_none_and_a_rise_is_flat():
    below = Power.of(Sizes.of(exactly(2 * np.array(SIZES, dtype=float) ** -0.4 - 0.05)))
    assert below.floor[0] == 0
    assert below.a[0] > 0
    rising = Power.of(Sizes.of(exactly(np.linspace(0.2, 0.3, 6))))
    assert rising.a[0] == 0
    weight = 1 / Sizes.of(exactly(np.linspace(0.2, 0.3, 6))).variance
    assert rising.floor[0] == pytest.approx((np.linspace(0.2, 0.3, 6) @ weight) / weight.sum())


def test_three_sizes_are_the_fewest_that_a_law_is_fitted_to():
    assert Power.of(Sizes.of(exactly(error(SIZES[:3])))).b[0] == pytest.approx(0.4, rel=0.05)
    with pytest.raises(TooFewCellsError):
        Power.of(Sizes.of(exactly(error(SIZES[:2]))))


@pytest.mark.parametrize(("spare", "refused"), [(2, True), (3, False)])
def test_three_runs_with_another_seed_are_needed(spare, refused):
    table = runs(seeds=1, sd=0.001)
    again = runs(1, seeds=1, sd=0.001).assign(seed=1)[:spare]
    (found,) = learning_curves(pd.concat([table, again]), AXES)
    assert isinstance(found, Refusal) is refused
    if refused:
        assert found.reason == TooFewSeeds(2, 3)


def test_an_evaluation_set_s_error_is_that_of_the_least_certain_run():
    table = runs().assign(score_se=lambda one: np.where(one["train_size"] == 100, 0.03, 0.02))
    assert curve(table).evaluation_error == pytest.approx(1.959964 * 0.03, rel=1e-6)
    assert curve(table.assign(score_se=np.nan)).evaluation_error is None


def test_an_interval_is_no_narrower_than_the_errors_seen_and_ends_at_one():
    found = curve(runs())
    for documents in (400, 10**6):
        interval = found.predict(documents)
        assert interval.value / interval.low == pytest.approx(
            max(interval.high / interval.value, interval.value / interval.low)
        )
    inside = found.predict(400)
    assert np.log(inside.high / inside.value) == pytest.approx(np.log(inside.value / inside.low))
    assert inside.high / inside.value >= 1 + found.interpolation.median_error


def test_means_that_miss_the_law_by_more_than_seeds_explain_widen_it():
    smooth, rough = (error(SIZES) + off for off in (0, 0.02 * np.array([1, -1, 1, -1, 1, -1])))
    widths = []
    for errors in (smooth, rough):
        interval = Power.of(Sizes.of(exactly(errors, 0.005))).constants()["b"]
        widths.append(np.log(interval.high / interval.low))
    assert widths[1] > 2 * widths[0]
