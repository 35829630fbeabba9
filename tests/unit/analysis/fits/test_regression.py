import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.stats import t as student_t

from ftbench.analysis.fits.reasons import CellsTooAlike, TooFewCells
from ftbench.analysis.fits.regression import (
    MOST_TRIED,
    CellMeans,
    Law,
    TooFewCellsError,
    cells_of,
    fit,
    least_squares,
    student,
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
    return CellMeans.of_runs(length, batch, cost)


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
    with pytest.raises(TooFewCellsError) as refused:
        fit([AFFINE, QUADRATIC], few)
    assert refused.value.reason == TooFewCells(3, 4)


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
    covered, seen, widths = dict.fromkeys(constants, 0), 0, []
    for seed in SEEDS:
        model = fit([law], sample(noisy(truth(LENGTH, BATCH), seed)))
        for name, interval in model.constants().items():
            covered[name] += interval.low <= constants[name] <= interval.high
        another = noisy(truth(LENGTH, BATCH), seed + 1000)  # one more run of each cell
        off = np.abs(np.log(another / model.cost(LENGTH, BATCH)))
        seen += np.mean(off <= model.half_width(LENGTH, BATCH))
        widths.append(model.half_width(LENGTH, BATCH).mean())
    assert min(covered.values()) >= 0.90 * len(SEEDS), covered
    assert 0.92 <= seen / len(SEEDS) <= 0.98
    # An interval of known noise would be 1.96 * 0.03 = 0.06 to each side.
    assert 0.06 < np.median(widths) < 0.10


def test_no_interval_is_below_nothing():
    affine = step_s(LENGTH, BATCH, (0.05, 4e-4, 0))
    for seed in range(20):
        constants = fit([QUADRATIC], sample(noisy(affine, seed))).constants()
        assert constants["t2"].low == 0 < constants["t2"].high


# Intervals, by the formulas of weighted least squares in a textbook


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (10, 2.228)])
def test_student_s_quantiles(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, abs=5e-4)


def textbook(rows, constants, freedom=None):
    """Coefficients and normal matrix's inverse of 1 = rows @ coefficients, with the residuals' deviation."""
    inverse = np.linalg.inv(rows.T @ rows)
    found = inverse @ rows.sum(axis=0)
    residuals = rows @ found - 1
    left = freedom if freedom is not None else len(rows) - constants
    return found, inverse, np.sqrt((residuals**2).sum() / left)


def terms(length, batch, quadratic=True):
    columns = [np.ones_like(length), batch * length, batch * length**2]
    return np.stack(columns if quadratic else columns[:2], axis=1)


AT = (np.array([200.0, 1000.0]), np.array([6.0, 20.0]))


def test_intervals_of_a_law_are_the_textbook_s():
    cost = noisy(step_s(LENGTH, BATCH, (0.5, 4e-4, 0)), 1)
    model = fit([AFFINE], sample(cost))
    found, inverse, deviation = textbook(terms(LENGTH, BATCH, False) / cost[:, None], 2)
    assert model.coefficients[0] == pytest.approx(found)
    assert (model.freedom, model.deviation) == (10, pytest.approx(deviation))
    quantile = student_t.ppf(0.975, 10)
    errors = deviation * np.sqrt(np.diag(inverse))
    constants = model.constants()
    assert list(constants) == ["t0", "t1"]
    for value, error, interval in zip(found, errors, constants.values(), strict=True):
        assert interval.value == pytest.approx(value)
        assert interval.low == pytest.approx(max(value - quantile * error, 0))
        assert interval.high == pytest.approx(value + quantile * error)
    at = terms(*AT, False)
    rows = at / (at @ found)[:, None]
    leverage = np.array([row @ inverse @ row for row in rows])
    expected = quantile * deviation * np.sqrt(1 + leverage)
    assert model.cost(*AT) == pytest.approx(at @ found)
    assert model.half_width(*AT) == pytest.approx(expected)


def test_each_piece_has_the_interval_of_its_own_cells():
    cost = noisy(memory_bytes(LENGTH, BATCH, m=(1e8, 3e5, 600.0), floor=6e8), 0, 0.002)
    model = fit([FLOORED], sample(cost))
    assert model.law == FLOORED
    order = np.argsort(cost)
    flat = order[: int((memory_bytes(LENGTH, BATCH, (1e8, 3e5, 600.0), 6e8) == 6e8).sum())]
    steep = np.setdiff1d(order, flat)
    first, _, _ = textbook(1 / cost[flat][:, None], 1)
    rest = terms(LENGTH[steep], BATCH[steep])
    second, inverse, _ = textbook(rest / cost[steep][:, None], 3)
    assert model.constants()["floor"].value == pytest.approx(first[0])
    assert [model.constants()[f"m{n}"].value for n in range(3)] == pytest.approx(list(second))
    told = np.maximum(first[0], terms(LENGTH, BATCH) @ second)
    deviation = np.sqrt(((told / cost - 1) ** 2).sum() / (len(cost) - 5))
    assert (model.freedom, model.deviation) == (len(cost) - 5, pytest.approx(deviation))
    quantile = student_t.ppf(0.975, len(cost) - 5)
    at = terms(np.array([1000.0]), np.array([20.0]))[0]
    row = at / (at @ second)
    small, large = model.half_width(np.array([8.0, 1000.0]), np.array([1.0, 20.0]))
    assert small == pytest.approx(
        quantile * deviation * np.sqrt(1 + 1 / (first[0] ** 2 * (1 / cost[flat] ** 2).sum()))
    )
    assert large == pytest.approx(quantile * deviation * np.sqrt(1 + row @ inverse @ row))
    error = quantile * deviation * np.sqrt(np.diag(inverse))
    assert model.constants()["m2"].high == pytest.approx(second[2] + error[2])


def test_the_spread_of_a_cell_s_runs_is_in_the_interval_of_one_more():
    """Of two runs each the mean has half of the spread's variance; the residual has that, one run all."""
    base = step_s(LENGTH, BATCH)
    once = fit([AFFINE], sample(base))
    length, batch = np.tile(LENGTH, 2), np.tile(BATCH, 2)
    twice = fit(
        [AFFINE], sample(np.concatenate([0.9 * base, 1.1 * base]), length=length, batch=batch)
    )
    # Each run is a tenth from its mean: of 24 runs in 12 cells the spread is sqrt(24 / 12) / 10.
    assert once.run_deviation == 0
    assert twice.run_deviation == pytest.approx(np.sqrt(0.5 * 2) / 10)
    more = twice.half_width(*AT) ** 2 - once.half_width(*AT) ** 2
    assert more == pytest.approx((student_t.ppf(0.975, 10) * 0.1) ** 2)


def test_a_free_constant_may_have_an_interval_below_nothing():
    law = Law("t", (("1", "B*S"),), frozenset(["1"]))
    cost = noisy(4e-4 * BATCH * LENGTH - 0.05, 0, 0.01)
    constants = fit([law], sample(cost)).constants()
    assert constants["t0"].low < constants["t0"].value < 0


def test_cells_and_the_cell_of_each_run():
    cells, cell = cells_of([np.array([8.0, 16, 8, 8]), np.array([2.0, 1, 2, 1])])
    assert cells.tolist() == [[8, 1], [8, 2], [16, 1]]
    assert cell.tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("law", "constants", "formula"),
    [
        (Law("e", (("S",),)), 1, "eS*S"),
        (Law("e", (("1", "S", "S^2"),)), 3, "e0 + eS*S + eSS*S^2"),
        (Law("t", (("1",), ("1", "B*S"))), 4, "max(floor, t0 + t1*B*S)"),
        (
            Law("m", (("1", "B"), ("1", "B", "B*S^2"))),
            6,
            "max(small_m0 + small_mB*B, m0 + mB*B + m2*B*S^2)",
        ),
    ],
)
def test_a_law_s_constants_are_its_terms_and_where_it_bends(law, constants, formula):
    assert law.constants == constants
    assert str(law) == formula


@pytest.mark.parametrize(("cells", "carried"), [(3, False), (4, True)])
def test_a_law_needs_two_cells_more_than_it_has_constants(cells, carried):
    length = np.array([8.0, 16, 32, 64])[:cells]
    few = sample(step_s(length, 4.0), length=length, batch=np.full(cells, 4.0))
    if carried:
        assert fit([AFFINE], few).freedom == 2
        return
    with pytest.raises(TooFewCellsError) as refused:
        fit([QUADRATIC, AFFINE], few)
    assert refused.value.reason == TooFewCells(3, 4)


def test_cells_that_are_enough_but_all_alike_carry_no_law():
    length, batch = np.full(5, 64.0), np.full(5, 4.0)
    size = CellMeans(length, batch, np.arange(1.0, 6), np.ones(5))
    with pytest.raises(TooFewCellsError) as refused:
        fit([AFFINE], size)
    assert refused.value.reason == CellsTooAlike()


@pytest.mark.parametrize(
    ("terms_of", "expected"),
    [("S", [8, 16]), ("S^2", [64, 256]), ("B", [2, 3]), ("B*S^2", [128, 768]), ("1", [1, 1])],
)
def test_terms(terms_of, expected):
    from ftbench.analysis.fits.regression import TERMS

    assert TERMS[terms_of](np.array([8.0, 16]), np.array([2.0, 3])).tolist() == expected
