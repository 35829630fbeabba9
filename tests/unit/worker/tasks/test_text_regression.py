import numpy as np
import pyarrow as pa
import pytest

from ftbench.base.errors import WorkloadError
from tests.factories import task

TASK = task("text-regression")


def chunked(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def labelled(values):
    return pa.table({"label": values})


def read(train, evaluation=(0.5, 1.5)):
    return TASK.read_labels(train, chunked(list(evaluation)), names=None, column="score")


def test_labels_are_numbers_in_single_precision():
    found = read(chunked([1, 2, 5]))
    assert found.train.type == pa.float32()
    assert found.train.to_pylist() == [1.0, 2.0, 5.0]
    assert found.names == ()
    assert TASK.config_fields(found.names) == {"num_labels": 1, "problem_type": "regression"}


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (chunked(["1", "2"]), "a regression needs labels that are numbers"),
        (chunked([True, False]), "a regression needs labels that are numbers"),
        (chunked([1.0, float("nan")]), "1 labels are not finite numbers"),
        (chunked([1.0, float("inf"), float("inf")]), "2 labels are not finite numbers"),
        (chunked([3.0, 3.0]), "all labels of the training pool are the same number"),
    ],
)
def test_labels_that_cannot_be_learned(train, words):
    with pytest.raises(WorkloadError, match=words) as caught:
        read(train)
    assert caught.value.where == "workload.label_column score"


def test_hidden_labels_of_a_test_split_are_no_evaluation():
    """The hub's STS-B hides those of its test split as -1."""
    with pytest.raises(WorkloadError, match="all labels of the evaluation pool") as caught:
        read(chunked([1.0, 2.0]), [-1.0, -1.0, -1.0])
    assert "eval_split" in caught.value.hint


def test_decimals_are_numbers():
    from decimal import Decimal

    assert read(chunked([Decimal("1.50"), Decimal("2.25")])).train.to_pylist() == [1.5, 2.25]


def test_a_sorted_file_is_split_alike_over_its_range():
    strata = TASK.strata(labelled(list(range(200))))
    assert len(strata) == 10
    assert sorted(np.concatenate(strata)) == list(range(200))
    assert [list(rows) for rows in strata[:2]] == [list(range(20)), list(range(20, 40))]
    shuffled = np.random.default_rng(0).permutation(200)
    for rows in TASK.strata(labelled(shuffled.tolist())):
        assert np.ptp(shuffled[rows]) == 19
        assert list(rows) == sorted(rows)


def test_few_examples_are_one_group():
    assert [list(rows) for rows in TASK.strata(labelled([3.0, 1.0, 2.0]))] == [[0, 1, 2]]


def test_scores_and_guessing_the_mean_of_training():
    references = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    outputs = np.array([[1.5], [1.5], [3.0], [4.5], [4.5]])
    pearson, spearman, mse = TASK.answer(outputs, references, np.array([2.0, 3.0]))
    assert pearson.value == pytest.approx(np.corrcoef(references, outputs[:, 0])[0, 1])
    assert spearman.value == pytest.approx(0.9486833)
    assert mse.value == pytest.approx(0.2)
    assert (pearson.guess, spearman.guess, mse.guess) == (0.0, 0.0, 2.25)
    assert not mse.higher_is_better


def test_outputs_that_are_not_numbers_have_no_score():
    outputs = np.array([[1.0], [np.nan], [2.0]])
    assert TASK.answer(outputs, np.arange(3.0), np.arange(2.0)) == ()
