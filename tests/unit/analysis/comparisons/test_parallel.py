"""Weak and strong scaling with planted step times."""

import math

import pytest

from ftbench.analysis.comparisons.parallel import scaling_series
from tests.factories import cell, device, measurement, record


def run_of(processes, batch, step_s, *, threads=1, seed=0, **axes):
    """Return the record of a cell whose steps take so long on its slowest rank."""
    of = cell(num_processes=processes, per_device_train_batch_size=batch, **axes)
    one = measurement(step_median_s=step_s, device=device(threads=threads))
    ranks = [one.ranks[0].model_copy(update={"rank": number}) for number in range(processes)]
    measured = one.model_copy(update={"ranks": tuple(ranks), "together": one.ranks[0].steps})
    return record(of, replicate=seed, measurement=measured)


def series_of(records, kind):
    (found,) = [one for one in scaling_series(records) if one.kind == kind]
    return found


def test_weak_scaling_is_the_ratio_of_step_times():
    found = series_of([run_of(1, 8, 1.0), run_of(2, 8, 1.25), run_of(4, 8, 2.0)], "weak")
    assert found.batch == 8
    assert [point.processes for point in found.points] == [1, 2, 4]
    assert [point.efficiency for point in found.points] == pytest.approx([1.0, 0.8, 0.5])
    assert [point.speedup for point in found.points] == pytest.approx([1.0, 1.6, 2.0])
    assert [point.examples_per_s for point in found.points] == pytest.approx([8, 12.8, 16])


def test_strong_scaling_shares_one_batch():
    found = series_of([run_of(1, 8, 1.0), run_of(2, 4, 0.625), run_of(4, 2, 0.5)], "strong")
    assert found.batch == 8
    assert [point.batch for point in found.points] == [8, 4, 2]
    assert [point.speedup for point in found.points] == pytest.approx([1.0, 1.6, 2.0])
    assert [point.efficiency for point in found.points] == pytest.approx([1.0, 0.8, 0.5])


def test_efficiency_is_per_thread():
    # Two ranks of one thread each against a process of two: the same processors, so half the speed-up counts once.
    found = series_of([run_of(1, 8, 1.0, threads=2), run_of(2, 4, 0.8)], "strong")
    assert [point.units for point in found.points] == [2, 2]
    assert found.points[1].efficiency == pytest.approx(1.25)


def test_cells_that_differ_elsewhere_are_not_compared():
    assert scaling_series([run_of(1, 8, 1.0), run_of(2, 8, 1.0, max_length=32)]) == []
    assert scaling_series([run_of(1, 8, 1.0), run_of(1, 4, 1.0)]) == []
    two = [run_of(1, 8, 1.0), run_of(2, 8, 1.25)]
    other = two[1].model_copy(update={"environment_id": "another"})
    assert scaling_series([two[0], other]) == []


def test_one_setting_apart_makes_two_series():
    records = [run_of(n, 8, 1.0 * n, max_length=length) for n in (1, 2) for length in (16, 32)]
    found = scaling_series(records)
    assert [one.fixed["max_length"] for one in found] == [16, 32]
    assert all(one.points[1].efficiency == pytest.approx(0.5) for one in found)


def test_without_a_single_process_the_fewest_are_the_reference():
    found = series_of([run_of(2, 8, 1.0), run_of(4, 8, 1.25)], "weak")
    assert [point.efficiency for point in found.points] == pytest.approx([1.0, 0.8])


def test_an_untrusted_step_is_left_out():
    bad = run_of(2, 8, 1.0).model_copy(update={"untrusted": {"steps.median_s": "why"}})
    assert scaling_series([run_of(1, 8, 1.0), bad]) == []


def test_the_interval_is_students_over_seeds():
    steps = {1: (1.0, 1.0, 1.0), 2: (1.25, 1.25 * 1.1, 1.25 / 1.1)}
    records = [
        run_of(n, 8, step_s, seed=seed)
        for n, times in steps.items()
        for seed, step_s in enumerate(times)
    ]
    point = series_of(records, "weak").points[1]
    assert (point.seeds, point.efficiency) == (3, pytest.approx(0.8))
    # t of two degrees of freedom at 97.5 %: 4.303; the logarithms' standard deviation is log 1.1.
    half = 4.3027 * math.log(1.1) / math.sqrt(3)
    assert point.low == pytest.approx(0.8 * math.exp(-half), rel=1e-4)
    assert point.high == pytest.approx(0.8 * math.exp(half), rel=1e-4)


def test_the_efficiency_is_that_of_the_seeds_of_its_interval():
    # The third seed ran on two processes only, and was slow.
    records = [run_of(1, 8, 1.0, seed=seed) for seed in (0, 1)]
    records += [run_of(2, 8, step_s, seed=seed) for seed, step_s in enumerate((1.2, 1.3, 9.0))]
    point = series_of(records, "weak").points[1]
    assert point.efficiency == pytest.approx(1 / math.sqrt(1.2 * 1.3))
    assert point.low < point.efficiency < point.high
    assert point.speedup == pytest.approx(2 * point.efficiency)


def test_one_seed_has_no_interval():
    point = series_of([run_of(1, 8, 1.0), run_of(2, 8, 1.25)], "weak").points[1]
    assert (point.low, point.high, point.seeds) == (None, None, 1)


def test_every_strategy_has_its_own_series_from_the_same_single_process():
    records = [run_of(1, 8, 1.0), run_of(2, 8, 1.25), run_of(2, 8, 1.6, strategy="fsdp2")]
    weak = {one.strategy: one for one in scaling_series(records) if one.kind == "weak"}
    assert weak["ddp"].points[1].efficiency == pytest.approx(0.8)
    assert weak["fsdp2"].points[1].efficiency == pytest.approx(0.625)
