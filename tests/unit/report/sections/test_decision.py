import pytest

from ftbench.analysis.comparisons.decision import decision
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.report.sections.decision import decision_words
from tests.factories import evaluated
from tests.unit.analysis.comparisons.test_pareto import MANY, runs, single


def said(*cells, eval_size=MANY, methods=("full",)):
    records = [one for group in cells for one in group]
    table, axes = evaluated(cells_table(records), eval_size), varying_axes(records)
    return list(decision_words(decision(table, axes), table, axes, methods))


def test_the_cell_to_take_its_reason_and_what_was_tried():
    sentence, tried = said(single(16, 0.5, 10.0), single(32, 0.7, 20.0), single(64, 0.9, 40.0))
    assert "training examples 64, method full: accuracy 0.900" in sentence
    assert "40.0 s" in sentence
    assert "above that of every other cell that learned" in sentence
    assert "training examples 16, 32, 64: 3 cells compared; 2 are known to be worse." in tried
    assert "training examples 16, takes 0.25x the time and has 0.400 less accuracy" in tried


def test_what_is_not_distinguishable_is_named():
    sentence, tried = said(
        single(16, 0.80, 10.0), single(32, 0.82, 20.0), single(64, 0.85, 30.0), eval_size=100
    )
    assert "training examples 16" in sentence
    assert "2 cost more and score higher, but are not distinguishable from it" in sentence
    assert "training examples 64 (0.850)" in sentence
    assert "each cell has one seed" in sentence
    assert "cheapest that learns" not in tried


def test_one_that_is_not_distinguishable_is_named_alone():
    sentence, _ = said(
        runs(16, (0.5, 0.5, 0.5), (10.0,) * 3),
        runs(32, (0.8, 0.81, 0.8), (20.0,) * 3),
        runs(64, (0.8, 0.81, 0.82), (40.0,) * 3),
    )
    assert "no other is known to beat it, and none that costs less scores as high" in sentence
    assert "training examples 64 (0.810) costs more and scores higher, but is not" in sentence
    assert "seed" not in sentence


@pytest.mark.parametrize("methods", [("full", "lora"), ()])
def test_a_method_that_not_all_runs_have_is_not_said(methods):
    sentence, _ = said(single(16, 0.5, 10.0), single(32, 0.7, 20.0), methods=methods)
    assert "method" not in sentence


def test_a_noisy_cell_that_costs_less_is_not_said_to_cost_more():
    sentence, tried = said(
        runs(16, (0.80, 0.80, 0.80, 0.80), (10.0,) * 4),
        runs(32, (0.95, 0.95, 0.30, 0.94), (12.0,) * 4),
        runs(64, (0.82, 0.82, 0.82, 0.82), (30.0,) * 4),
    )
    assert "training examples 64, method full" in sentence
    assert "training examples 32 (0.785) scores no higher than one of its cost" in sentence
    assert "cost more" not in sentence
    assert "has 0.020 less accuracy" in tried


def test_the_only_cell_that_learned_is_not_said_to_beat_those_that_guess():
    records = [*single(16, 0.5, 5.0), *single(32, 0.8, 10.0), *single(64, 0.9, 20.0)]
    table, axes = evaluated(cells_table(records), 100), varying_axes(records)
    table["score_guess"] = 0.5
    table.loc[table["train_size"] == 64, "status"] = "oom"
    sentence, tried = decision_words(decision(table, axes), table, axes, ("full",))
    assert "the only one that is known to be better than guessing" in sentence
    assert "training examples 16, 32: 2 cells compared" in tried
    assert "1 is no better than guessing; 1 is without a score" in tried


def test_nothing_is_said_of_one_cell():
    assert said(single(16, 0.5, 10.0)) == []
