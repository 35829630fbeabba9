import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from ftbench.analysis.fits.total_time import PARTS, Alike, Apart, Constant, Count, Line, Total
from tests.unit.analysis.made_up import (
    CHECKPOINTS,
    EPOCHS,
    EVAL_SIZE,
    EVALUATIONS,
    table,
    total_s,
)

SIZES = (100, 300, 1000)
SEEDS = range(200)


def columns(runs: pd.DataFrame):
    return {name: runs[name].to_numpy(float) for name in PARTS}


def point(length, batch, documents):
    at = {
        "max_length": length,
        "per_device_train_batch_size": batch,
        "train_size": documents,
        "examples_per_step": batch,
        "examples_per_epoch": documents,
        "optimizer_steps": EPOCHS * np.ceil(documents / batch),
    }
    return {name: np.array([float(value)]) for name, value in at.items()}


def truth(length, batch, documents):
    parts = total_s(*map(float, (length, batch)), float(documents))
    return float(sum(parts.values()))


def test_the_parts_of_a_total_without_noise():
    total = Total.of(columns(table(noise=0, sizes=SIZES)))
    at = point(1024, 32, 25000)
    parts = {name: float(value[0]) for name, (value, _) in total.parts(at).items()}
    assert parts == pytest.approx(
        {k.removesuffix("_s"): float(v) for k, v in total_s(1024.0, 32.0, 25000.0).items()}
    )
    constants = total.constants()
    assert constants["r"].value == pytest.approx(1.02)
    assert constants["warm_up"].value == pytest.approx(0.3)
    assert constants["e0"].value == pytest.approx(0.001)


def test_the_last_step_of_an_epoch_costs_as_the_documents_in_it():
    total = Total.of(columns(table(noise=0, sizes=SIZES)))
    seconds = [total.predict(point(128, 16, n))[0][0] for n in (1600, 1601, 1616)]
    assert seconds[0] < seconds[1] < seconds[2]
    assert seconds[1] == pytest.approx(truth(128, 16, 1601))


def test_more_evaluations_than_the_runs_had():
    total = Total.of(columns(table(noise=0, sizes=SIZES)))
    at = point(128, 16, 100)
    more = at | {"eval_documents": np.array([EVALUATIONS * EVAL_SIZE + 1000.0])}
    difference = total.predict(more)[0] - total.predict(at)[0]
    assert difference == pytest.approx(1000 * (0.001 + 1e-4 * 128))


def test_documents_that_make_no_full_batch_are_no_step():
    total = Total.of(columns(table(noise=0, sizes=SIZES)))
    at = point(128, 16, 1600)
    dropped = point(128, 16, 1601) | {
        "examples_per_epoch": np.array([1600.0]),
        "optimizer_steps": at["optimizer_steps"],
    }
    assert total.predict(dropped)[0] == pytest.approx(total.predict(at)[0])


@pytest.mark.parametrize(("last", "each"), [(0.0, 1 / 3), (0.1, 0.3), (0.25, 0.25)])
def test_more_checkpoints_than_all_runs_had_lie_between_what_they_may_have_been(last, each):
    assert last + CHECKPOINTS * each == pytest.approx(1.0)  # what the runs took, without noise
    saving = Total.of(columns(table(noise=0, sizes=SIZES))).saving
    seconds, half = saving.at(np.array([15.0]))
    assert seconds - half - 1e-9 <= last + 15 * each <= seconds + half + 1e-9
    assert half < 0.15 * seconds


def test_as_many_checkpoints_as_all_runs_had_take_what_they_took():
    seconds, half = Alike(3.0, Constant(2.0, 0.1)).at(np.array([3.0]))
    assert (seconds, half) == (pytest.approx(2.0), pytest.approx(0.1))


def test_runs_without_checkpoints_say_little_of_them():
    seconds, half = Alike(0.0, Constant(1.0, 0.1)).at(np.array([0.0, 4.0]))
    assert (seconds[0], half[0]) == (pytest.approx(1.0), pytest.approx(0.1))
    assert seconds[1] - half[1] < 1 + 4 * 1
    assert seconds[1] + half[1] > 1 + 4 * 3


def test_checkpoints_that_runs_differ_in_are_told_from_the_last_save():
    runs = table(noise=0, sizes=SIZES)
    checkpoints = runs["optimizer_steps"] / 5
    runs = runs.assign(checkpoints=checkpoints, save_s=0.4 + 0.2 * checkpoints)
    total = Total.of(columns(runs))
    saving, _ = total.parts(point(128, 16, 16000))["save"]
    assert saving == pytest.approx(0.4 + 0.2 * 3000 / 5)
    assert total.constants()["checkpoint"].value == pytest.approx(0.2)
    assert total.constants()["last_save"].value == pytest.approx(0.4)


def test_a_count_that_goes_with_the_steps():
    steps = np.array([10.0, 20, 40])
    assert Count.of(steps, 2 + steps / 5).at(np.array([100.0])) == pytest.approx(22)
    assert Count.of(steps, np.full(3, 4.0)) == Count(4.0, 0.0)


def test_a_constant_has_the_interval_of_one_more_run():
    """Of 1, 2 and 6 seconds the mean is 3 and the standard deviation sqrt(7); t of 2 is 4.303."""
    found = Constant.of(np.array([1.0, 2, 6]))
    assert found.mean == 3
    assert found.half == pytest.approx(4.303 * np.sqrt(7) * np.sqrt(4 / 3), rel=1e-3)
    assert (found.interval.low, found.interval.high) == (0, pytest.approx(3 + found.half))
    assert Constant(3.0, 1.0).interval.low == 2


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_line_has_the_textbook_s_intervals(repeats):
    """Weighted least squares through the means of cells, each weight 1 / seconds^2."""
    amounts, draw = np.array([10.0, 20, 40, 80]), np.random.default_rng(2)
    amount = np.repeat(amounts, repeats)
    seconds = (3 + 0.5 * amount) * np.exp(draw.normal(0, 0.05, len(amount)))
    line = Line.of(amount, seconds, np.repeat(np.arange(4), repeats))
    mean = seconds.reshape(4, repeats).mean(axis=1)
    rows = np.stack([amounts, np.ones(4)], axis=1) / mean[:, None]
    inverse = np.linalg.inv(rows.T @ rows)
    slope, constant = inverse @ rows.sum(axis=0)
    assert (line.slope, line.constant) == (pytest.approx(slope), pytest.approx(constant))
    assert line.freedom == 2
    deviation = np.sqrt(((rows @ [slope, constant] - 1) ** 2).sum() / 2)
    assert line.deviation == pytest.approx(deviation)
    off = seconds.reshape(4, repeats) / mean[:, None] - 1
    spread = (off**2).sum() / (4 * (repeats - 1)) if repeats > 1 else 0.0
    assert line.run_deviation == pytest.approx(np.sqrt(spread * (1 - 1 / repeats)))
    quantile, at = student_t.ppf(0.975, 2), np.array([100.0, 15.0])
    assert line.seconds(at) == pytest.approx(constant + slope * at)
    row = np.stack([at, np.ones(2)], axis=1) / line.seconds(at)[:, None]
    leverage = np.array([one @ inverse @ one for one in row])
    expected = quantile * np.sqrt(deviation**2 * (1 + leverage) + line.run_deviation**2)
    assert line.half_width(at) == pytest.approx(expected)
    errors = quantile * deviation * np.sqrt(np.diag(inverse))
    found = line.constants("r", "w")
    assert (found["r"].value, found["w"].value) == (line.slope, line.constant)
    assert found["r"].high - found["r"].value == pytest.approx(errors[0])
    assert found["w"].value - found["w"].low == pytest.approx(min(errors[1], constant))
    seconds, half = Apart(line).at(at)
    assert half == pytest.approx(seconds * expected)


def test_a_line_through_two_cells_has_one_degree_of_freedom():
    line = Line.of(np.array([1.0, 2]), np.array([3.0, 4]), np.array([0, 1]))
    assert (line.slope, line.constant, line.freedom) == (pytest.approx(1), pytest.approx(2), 1)


def test_saves_of_runs_alike_lie_between_two_ways_of_sharing_them():
    """3 checkpoints and the last save took 2 s: for 7 it is 2 * 8 / 4 = 4 s, or 2 * 7 / 3 = 4.67 s."""
    seconds, half = Alike(3.0, Constant(2.0, 0.1)).at(np.array([7.0]))
    middle = (4 + 14 / 3) / 2
    assert seconds == pytest.approx(middle)
    assert half == pytest.approx((14 / 3 - 4) / 2 + 0.1 * middle / 2)
    fewer, half = Alike(3.0, Constant(2.0, 0.1)).at(np.array([1.0]))
    assert fewer == pytest.approx((1 + 2 / 3) / 2)
    assert half == pytest.approx((1 - 2 / 3) / 2 + 0.1)  # no surer than what was seen
    none, half = Alike(0.0, Constant(1.0, 0.1)).at(np.array([4.0]))
    assert none == pytest.approx((5 + 13) / 2)  # as dear as the last save, or thrice
    assert half == pytest.approx((13 - 5) / 2 + 0.1 * 9)
    nothing, half = Alike(3.0, Constant(0.0, 0.1)).at(np.array([7.0]))
    assert (nothing, half) == (0, pytest.approx(0.1))
    assert list(Alike(3.0, Constant(2.0, 0.1)).constants()) == ["save"]


def test_errors_of_the_parts_are_added_in_quadrature():
    total = Total.of(columns(table(3, sizes=SIZES)))
    at = point(300, 10, 555)
    parts = total.parts(at)
    assert list(parts) == ["load", "train", "evaluation", "save"]
    (seconds,), (half,) = total.predict(at)
    assert seconds == pytest.approx(sum(value[0] for value, _ in parts.values()))
    summed = np.sqrt(sum(width[0] ** 2 for _, width in parts.values()))
    assert half == pytest.approx(np.log(1 + summed / seconds))
    length, batch = at["max_length"], at["per_device_train_batch_size"]
    (train,), (spread,) = parts["train"]
    work = (train - total.training.constant) / total.training.slope
    own = np.hypot(
        total.step.half_width(length, batch)[0], total.training.half_width(np.array([work]))[0]
    )
    assert spread == pytest.approx(train * (np.exp(own) - 1))
    (evaluation,), (spread,) = parts["evaluation"]
    own = total.evaluation.half_width(length, batch)[0]
    assert spread == pytest.approx(evaluation * (np.exp(own) - 1))
    assert parts["load"][1][0] == total.load.half


def test_documents_evaluated_and_checkpoints_go_with_the_steps_unless_they_are_said():
    runs = table(noise=0, sizes=SIZES)
    steps = runs["optimizer_steps"]
    runs = runs.assign(checkpoints=steps / 5, save_s=0.4 + 0.2 * steps / 5, eval_documents=steps)
    runs["evaluation_s"] = runs["eval_documents"] * (0.001 + 1e-4 * runs["max_length"])
    total = Total.of(columns(runs))
    at = point(128, 16, 16000)  # 3000 steps
    assert total.parts(at)["evaluation"][0] == pytest.approx(3000 * (0.001 + 1e-4 * 128))
    fewer = total.parts(at | {"checkpoints": np.array([10.0])})
    assert fewer["save"][0] == pytest.approx(0.4 + 0.2 * 10)


def test_intervals_hold_one_more_run_as_often_as_they_say():
    new = {}
    for length, batch, documents in ((128, 8, 200), (256, 16, 3000)):
        more = table(1000, lengths=(length,), batches=(batch,), sizes=(documents,), repeats=200)
        new[length, batch, documents] = more["total_s"].to_numpy()
    covered, widths = dict.fromkeys(new, 0), []
    for seed in SEEDS:
        total = Total.of(columns(table(seed, sizes=(100, 400), batches=(4, 16))))
        for at, more in new.items():
            (seconds,), (half,) = total.predict(point(*at))
            covered[at] += abs(np.log(more[seed] / seconds)) <= half
            widths.append(half)
    assert min(covered.values()) >= 0.90 * len(SEEDS), covered
    # One run's own noise is 1.96 * 0.03 = 0.06 to each side.
    assert 0.06 < np.median(widths) < 0.15


def test_what_all_runs_of_a_cell_share_is_not_averaged_away_by_repeats():
    """Of the training alone: a new cell has a share of its own, like those that were measured."""
    at, covered, noise = (128, 8, 200), 0, {"noise": 0.005, "own": 0.04}
    for seed in SEEDS:
        runs = table(seed, sizes=(100, 400), batches=(4, 16), repeats=5, **noise)
        (new,) = table(1000 + seed, lengths=(at[0],), batches=(at[1],), sizes=(at[2],), **noise)[
            "total_s"
        ]
        (seconds,), (half,) = Total.of(columns(runs)).predict(point(*at))
        covered += abs(np.log(new / seconds)) <= half
    assert covered >= 0.90 * len(SEEDS), covered
