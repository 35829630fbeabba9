import numpy as np
import pandas as pd
import pytest

from ftbench.analysis.fits.total_time import PARTS, Alike, Constant, Count, Total
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


def test_intervals_hold_one_more_run_as_often_as_they_say():
    new = {}
    for length, batch, documents in ((128, 8, 200), (256, 16, 3000)):
        more = table(1000, lengths=(length,), batches=(batch,), sizes=(documents,), repeats=200)
        new[length, batch, documents] = more["total_s"].to_numpy()
    held, widths = dict.fromkeys(new, 0), []
    for seed in SEEDS:
        total = Total.of(columns(table(seed, sizes=(100, 400), batches=(4, 16))))
        for at, more in new.items():
            (seconds,), (half,) = total.predict(point(*at))
            held[at] += abs(np.log(more[seed] / seconds)) <= half
            widths.append(half)
    assert min(held.values()) >= 0.90 * len(SEEDS), held
    # One run's own noise is 1.96 * 0.03 = 0.06 to each side.
    assert 0.06 < np.median(widths) < 0.15


def test_what_all_runs_of_a_cell_share_is_not_averaged_away_by_repeats():
    """Of the training alone: a new cell has a share of its own, like those that were measured."""
    at, held, noise = (128, 8, 200), 0, {"noise": 0.005, "own": 0.04}
    for seed in SEEDS:
        runs = table(seed, sizes=(100, 400), batches=(4, 16), repeats=5, **noise)
        (new,) = table(1000 + seed, lengths=(at[0],), batches=(at[1],), sizes=(at[2],), **noise)[
            "total_s"
        ]
        (seconds,), (half,) = Total.of(columns(runs)).predict(point(*at))
        held += abs(np.log(new / seconds)) <= half
    assert held >= 0.90 * len(SEEDS), held
