import pytest

from ftbench.analysis.comparisons.decision import decision
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from tests.factories import evaluated
from tests.unit.analysis.comparisons.test_pareto import MANY, runs, single


def decided(*cells, eval_size=MANY, guess=None):
    records = [one for group in cells for one in group]
    table = evaluated(cells_table(records), eval_size)
    if guess is not None:
        table["score_guess"] = guess
    return decision(table, varying_axes(records))


def size(option):
    return option.point["train_size"]


def test_the_highest_is_chosen_if_nothing_is_noise():
    found = decided(single(16, 0.5, 10.0), single(32, 0.7, 20.0), single(64, 0.9, 40.0))
    assert size(found.chosen) == 64
    assert (found.as_good, found.worse, found.guessing, found.unscored) == ((), 2, 0, 0)
    assert [point["train_size"] for point in found.points] == [16, 32, 64]
    assert size(found.cheaper) == 16
    assert found.lost == pytest.approx(0.4)


def test_the_cheapest_of_those_that_noise_does_not_tell_apart():
    # 100 examples: a standard error of about 0.04, and 0.06 of a difference.
    found = decided(
        single(16, 0.60, 10.0),
        single(32, 0.82, 20.0),
        single(64, 0.85, 30.0),
        single(128, 0.80, 40.0),
        eval_size=100,
    )
    assert size(found.chosen) == 32
    assert [size(one) for one in found.dearer] == [64]
    assert [size(one) for one in found.alike] == [128]  # costs more than 64, with a lower mean
    assert found.worse == 1


def test_a_noisy_cell_does_not_hide_that_a_dearer_one_beats_the_cheapest():
    # Nothing is told from 32, so it keeps 64 off the front; 64 beats 16 all the same.
    found = decided(
        runs(16, (0.60, 0.60, 0.60, 0.60), (10.0,) * 4),
        runs(32, (0.40, 0.99, 0.50, 0.95), (20.0,) * 4),
        runs(64, (0.72, 0.72, 0.72, 0.72), (30.0,) * 4),
    )
    assert size(found.chosen) == 32
    assert [size(one) for one in found.as_good] == [64]
    assert found.worse == 1


def test_a_noisy_cell_is_not_taken_if_a_cheaper_one_has_a_higher_mean():
    found = decided(
        runs(16, (0.80, 0.80, 0.80, 0.80), (10.0,) * 4),
        runs(32, (0.95, 0.95, 0.30, 0.94), (12.0,) * 4),
        runs(64, (0.82, 0.82, 0.82, 0.82), (30.0,) * 4),
    )
    assert size(found.chosen) == 64
    assert [size(one) for one in found.alike] == [32]
    assert size(found.cheaper) == 16
    assert found.lost == pytest.approx(0.02)


def test_a_cost_within_noise_decides_nothing():
    unstable, stable = (0.95, 0.94, 0.51), (0.93, 0.93, 0.94)
    found = decided(runs(16, unstable, (9.99, 9.0, 11.0)), runs(32, stable, (10.0, 9.1, 11.1)))
    assert size(found.chosen) == 32
    assert found.dearer == ()
    assert [size(one) for one in found.alike] == [16]
    once = decided(single(16, 0.80, 10.0), single(32, 0.81, 10.2), eval_size=100)
    assert size(once.chosen) == 32  # 2 % of one run each


def test_the_time_of_all_devices_counts():
    records = [*single(16, 0.8, 100.0), *single(32, 0.8, 60.0)]
    table = evaluated(cells_table(records), MANY)
    table["num_processes"] = [1, 4]
    found = decision(table, [*varying_axes(records), "num_processes"])
    assert size(found.chosen) == 16
    assert found.alike[0].device_s == 240.0


def test_runs_of_several_machines_allow_no_decision():
    records = [*single(16, 0.5, 1.0), *single(32, 0.9, 2.0)]
    table = evaluated(cells_table(records), MANY)
    assert decision(table, [*varying_axes(records), "environment_id"]) is None


def test_cells_without_a_score_are_counted():
    records = [*single(16, 0.5, 1.0), *single(32, 0.9, 2.0), *single(64, 0.9, 3.0)]
    table = evaluated(cells_table(records), MANY)
    table.loc[table["train_size"] == 64, "status"] = "oom"
    found = decision(table, varying_axes(records))
    assert (found.unscored, len(found.points)) == (1, 2)


def test_the_cheapest_is_chosen_if_none_is_known_to_be_better():
    found = decided(single(16, 0.80, 10.0), single(32, 0.81, 20.0), eval_size=100)
    assert size(found.chosen) == 16
    assert found.cheaper is None
    assert found.one_seed


def test_cells_that_guess_are_not_chosen():
    found = decided(
        single(16, 0.52, 10.0),
        single(32, 0.8, 20.0),
        single(64, 0.5, 5.0),
        eval_size=100,
        guess=0.5,
    )
    assert size(found.chosen) == 32
    assert (found.guessing, found.worse) == (2, 0)
    assert found.cheaper is None


def test_no_decision_if_all_guess_or_there_is_one_cell():
    assert decided(single(16, 0.51, 1.0), single(32, 0.5, 2.0), eval_size=100, guess=0.5) is None
    assert decided(single(16, 0.8, 1.0)) is None


def test_seeds_are_averaged_and_costs_are_medians():
    found = decided(
        runs(16, (0.6, 0.6, 0.6), (10.0, 11.0, 13.0)),
        runs(32, (0.8, 0.8, 0.8), (30.0, 31.0, 41.0)),
    )
    assert found.chosen.total_s == 31.0
    assert found.cheaper.total_s == 11.0
    assert not found.one_seed
