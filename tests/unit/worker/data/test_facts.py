"""What the pools are like: classes, rows left out, and examples in both."""

import pytest

from ftbench.records.messages import DataFacts
from ftbench.worker.data.facts import choice_warning, data_warnings, describe_pools
from tests.factories import cell, data_source
from tests.unit.worker.data.sources import csv_text, pools_of, written


def cell_of(train_size=16, eval_size=4, **axes):
    of = cell(train_size=train_size, **axes)
    return of.model_copy(update={"data": data_source(eval_size=eval_size)})


def facts_of(path, *cells, **changes):
    return describe_pools(pools_of(path, **changes), cells or [cell_of()])


POOL = 48


def warnings_of(facts, of):
    return {found.name: found.value for found in data_warnings(facts, of, POOL)}


def test_classes_are_counted_in_the_pools_and_among_the_evaluated(tmp_path):
    facts = facts_of(written(tmp_path / "d.csv", csv_text(["a"] * 30 + ["b"] * 10)))
    a, b = facts.classes
    assert (a.name, a.train_pool, a.eval_pool, b.train_pool, b.eval_pool) == ("a", 24, 6, 8, 2)
    assert a.evaluated + b.evaluated == 4
    assert facts.majority_share == max(a.evaluated, b.evaluated) / 4
    assert warnings_of(facts, cell_of()) == {}


def test_an_evaluation_of_one_class_is_a_warning(tmp_path):
    """One row of the class: none of it is held out."""
    facts = facts_of(written(tmp_path / "d.csv", csv_text([1] + [0] * 39)))
    assert facts.majority_share == 1
    assert warnings_of(facts, cell_of()) == {"one_class": 4}


def test_the_evaluated_examples_of_training_are_counted_for_each_size(tmp_path):
    """Ten texts, again and again."""
    content = "text,label\n" + "".join(f"text {n % 10},{n % 2}\n" for n in range(60))
    cells = [cell_of(train_size=size) for size in (1, 48)]
    facts = facts_of(written(tmp_path / "d.csv", content), *cells)
    assert facts.evaluated_in_training[48] == 4
    assert facts.evaluated_in_training[1] <= 1
    assert warnings_of(facts, cells[1]) == {"trained_on": 4}


def test_evaluating_on_the_training_split_is_a_warning(tmp_path):
    file = written(tmp_path / "d.csv", csv_text([0, 1] * 20))
    facts = facts_of(file, cell_of(train_size=40), eval_split="train")
    assert warnings_of(facts, cell_of(train_size=40)) == {"trained_on": 4}


def test_rows_left_out_are_counted(tmp_path):
    content = csv_text([0, 1] * 20) + "no label,\n,1\n  ,0\ntext 3,1\n"
    asked = {f"drop_rows_without_{what}": True for what in ("label", "text")}
    file = written(tmp_path / "d.csv", content)
    facts = facts_of(file, drop_duplicates=True, **asked)
    assert facts.left_out == {"without a label": 1, "without a text": 2, "seen before": 1}
    assert [w.value for w in data_warnings(facts, cell_of(), POOL) if w.name == "left_out"] == [
        1,
        2,
        1,
    ]


def test_rows_that_are_trained_and_evaluated_on_are_left_out_once(tmp_path):
    file = written(tmp_path / "d.csv", csv_text([0, 1] * 20) + "no label,\n")
    facts = facts_of(file, eval_split="train", drop_rows_without_label=True)
    assert facts.left_out == {"without a label": 1}


def test_a_regression_has_no_classes(tmp_path):
    facts = facts_of(
        written(tmp_path / "d.csv", csv_text([n / 7 for n in range(40)])), task="text-regression"
    )
    assert facts.classes == ()
    assert facts.majority_share is None


@pytest.mark.parametrize(("evaluations", "warned"), [(3, True), (1, False), (0, False)])
def test_a_model_chosen_on_the_examples_that_score_it(evaluations, warned):
    assert [w.value for w in choice_warning(cell(), evaluations)] == [evaluations] * warned
    assert not choice_warning(cell(load_best_model_at_end=False), evaluations)


def test_the_facts_of_older_run_directories_are_empty():
    assert data_warnings(DataFacts(), cell(), POOL) == []
