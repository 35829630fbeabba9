import numpy as np
import pandas as pd
import pytest

from bench.analysis.total_time import PARTS, Count, Total
from tests.unit.analysis.made_up import EPOCHS, EVAL_SIZE, EVALUATIONS, table, total_s

SIZES = (100, 300, 1000)
SEEDS = range(200)


def columns(runs: pd.DataFrame):
    return {name: runs[name].to_numpy(float) for name in PARTS}


def point(length, batch, documents):
    at = {
        "max_length": length,
        "per_device_train_batch_size": batch,
        "train_size": documents,
        "documents_a_step": batch,
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


def test_more_checkpoints_than_the_runs_had():
    total = Total.of(columns(table(noise=0, sizes=SIZES)))
    at = point(128, 16, 100)
    difference = total.predict(at | {"saves": np.array([15.0])})[0] - total.predict(at)[0]
    assert difference == pytest.approx(10 * 0.2)  # five took a second


def test_checkpoints_every_so_many_steps():
    runs = table(noise=0, sizes=SIZES)
    saves = 2 + runs["optimizer_steps"] / 5
    runs = runs.assign(saves=saves, save_s=0.2 * saves)
    saving, _ = Total.of(columns(runs)).parts(point(128, 16, 16000))["save"]
    assert saving == pytest.approx(0.2 * (2 + 3000 / 5))


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
