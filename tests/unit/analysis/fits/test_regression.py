import numpy as np
import pytest
from scipy.optimize import nnls

from ftbench.analysis.fits.regression import (
    MOST_TRIED,
    Law,
    Sample,
    TooFewCellsError,
    fit,
    least_squares,
)
from tests.unit.analysis.made_up import BATCHES, LENGTHS, memory_bytes, step_s

AFFINE = Law("t", (("1", "B*S"),))
QUADRATIC = Law("t", (("1", "B*S", "B*S^2"),))
FLOORED = Law("m", (("1",), ("1", "B*S", "B*S^2")))
LENGTH, BATCH = (
    values.reshape(-1).astype(float) for values in np.meshgrid(LENGTHS, BATCHES, indexing="ij")
)
SEEDS = range(200)


def sample(cost, *, length=LENGTH, batch=BATCH):
    return Sample.of_runs(length, batch, cost)


def noisy(cost, seed, share=0.03):
    return cost * np.exp(np.random.default_rng(seed).normal(0, share, len(cost)))


def test_formulas():
    assert str(QUADRATIC) == "t0 + t1*B*S + t2*B*S^2"
    assert str(FLOORED) == "max(floor, m0 + m1*B*S + m2*B*S^2)"


def test_bounded_least_squares_are_those_of_lawson_and_hanson():
    draw = np.random.default_rng(0)
    for _ in range(50):
        columns, cost = draw.normal(size=(8, 3)), draw.uniform(1, 2, 8)
        ours = least_squares(columns, cost, np.ones((1, 8)), np.zeros(3, dtype=bool))[0]
        theirs, _ = nnls(columns / cost[:, None], np.ones(8))
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_a_cell_of_weight_nothing_is_not_there():
    columns, cost = np.stack([np.ones(5), np.arange(5.0)], axis=1), np.array([1.0, 2, 3, 4, 99])
    weights = np.array([[1.0, 1, 1, 1, 0]])
    found = least_squares(columns, cost, weights, np.zeros(2, dtype=bool))[0]
    assert found == pytest.approx([1, 1])


def test_a_free_coefficient_may_be_negative():
    columns, cost = np.stack([np.ones(4), np.arange(2.0, 6)], axis=1), np.arange(2.0, 6) * 2 - 1
    found = least_squares(columns, cost, np.ones((1, 4)), np.array([True, False]))[0]
    assert found == pytest.approx([-1, 2])


def test_a_law_without_noise_is_found_whole():
    model = fit([AFFINE, QUADRATIC], sample(step_s(LENGTH, BATCH)))
    assert model.law == QUADRATIC
    assert model.coefficients[0] == pytest.approx([0.05, 4e-4, 1e-6])
    assert model.cost(np.array([1024.0]), np.array([32.0])) == pytest.approx(step_s(1024, 32))


def test_the_simpler_law_is_taken_where_the_other_brings_nothing():
    affine = step_s(LENGTH, BATCH, (0.05, 4e-4, 0))
    chosen = [fit([AFFINE, QUADRATIC], sample(noisy(affine, seed))).law for seed in SEEDS]
    assert chosen.count(AFFINE) > 0.8 * len(chosen)


def test_a_floor_and_where_it_ends():
    model = fit([AFFINE, QUADRATIC, FLOORED], sample(memory_bytes(LENGTH, BATCH)))
    assert model.law == FLOORED
    assert model.constants()["floor"].value == pytest.approx(1.1e9)
    assert model.constants()["m2"].value == pytest.approx(600)


@pytest.mark.parametrize("floor", [2e8, 1.1e9, 3e9])
def test_in_a_large_grid_the_floor_ends_where_it_does(floor):
    lengths, batches = (of.reshape(-1).astype(float) for of in np.mgrid[16:512:40, 1:33:2])
    tokens = lengths * batches
    cost = np.maximum(floor, 1e8 + 3e5 * tokens + 600 * tokens * lengths)
    assert len(cost) > 3 * MOST_TRIED
    model = fit([FLOORED], sample(cost, length=lengths, batch=batches))
    assert model.constants()["floor"].value == pytest.approx(floor)
    assert model.constants()["m2"].value == pytest.approx(600)


def test_runs_of_one_cell_are_one_cell():
    found = sample(
        np.array([1.0, 3, 5]), length=np.array([8.0, 8, 16]), batch=np.array([2.0, 2, 2])
    )
    assert list(found.cost) == [2, 5]
    assert list(found.runs) == [2, 1]
    assert (found.spare, found.spread) == (1, pytest.approx(np.sqrt(0.5)))


def test_too_few_cells():
    few = sample(np.array([1.0, 2, 3]), length=np.array([8.0, 16, 32]), batch=np.full(3, 4.0))
    with pytest.raises(TooFewCellsError, match="lengths and batches make 3 cells; 4 are needed"):
        fit([AFFINE, QUADRATIC], few)


def test_terms_that_one_length_cannot_tell_apart():
    length, batch = np.full(6, 64.0), np.array([1.0, 2, 4, 8, 16, 32])
    model = fit([QUADRATIC, AFFINE], sample(step_s(length, batch), length=length, batch=batch))
    assert model.law == AFFINE


@pytest.mark.parametrize("law", [QUADRATIC, FLOORED], ids=str)
def test_intervals_hold_the_truth_as_often_as_they_say(law):
    truth = step_s if law is QUADRATIC else memory_bytes
    constants = (
        {"t0": 0.05, "t1": 4e-4, "t2": 1e-6}
        if law is QUADRATIC
        else {"floor": 1.1e9, "m0": 9e8, "m1": 3e5, "m2": 600}
    )
    held, seen, widths = dict.fromkeys(constants, 0), 0, []
    for seed in SEEDS:
        model = fit([law], sample(noisy(truth(LENGTH, BATCH), seed)))
        for name, interval in model.constants().items():
            held[name] += interval.low <= constants[name] <= interval.high
        another = noisy(truth(LENGTH, BATCH), seed + 1000)  # one more run of each cell
        off = np.abs(np.log(another / model.cost(LENGTH, BATCH)))
        seen += np.mean(off <= model.half_width(LENGTH, BATCH))
        widths.append(model.half_width(LENGTH, BATCH).mean())
    assert min(held.values()) >= 0.90 * len(SEEDS), held
    assert 0.92 <= seen / len(SEEDS) <= 0.98
    # An interval of known noise would be 1.96 * 0.03 = 0.06 to each side.
    assert 0.06 < np.median(widths) < 0.10


def test_no_interval_is_below_nothing():
    affine = step_s(LENGTH, BATCH, (0.05, 4e-4, 0))
    for seed in range(20):
        constants = fit([QUADRATIC], sample(noisy(affine, seed))).constants()
        assert constants["t2"].low == 0 < constants["t2"].high
