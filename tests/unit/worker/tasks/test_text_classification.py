import numpy as np
import pyarrow as pa
import pytest

from ftbench.base.errors import WorkloadError
from tests.factories import task

TASK = task()


def chunked(values):
    return pa.chunked_array([values])


def labelled(values):
    return pa.table({"label": values})


def test_each_class_is_a_stratum_in_the_order_of_the_rows():
    found = TASK.strata(labelled(["b", "a", "b", "c", "a"]))
    assert [list(rows) for rows in found] == [[1, 4], [0, 2], [3]]


def test_labels_are_the_places_of_training_s_values():
    found = TASK.read_labels(
        chunked(["no", "yes", "no"]), chunked(["yes"]), names=None, column="label"
    )
    assert (found.train.to_pylist(), found.evaluation.to_pylist()) == ([0, 1, 0], [1])
    assert found.names == ("no", "yes")


def test_names_of_the_data_set_count_classes_that_training_lacks():
    found = TASK.read_labels(
        chunked([0, 2]), chunked([1]), names=["bad", "so so", "good"], column="label"
    )
    assert found.names == ("bad", "so so", "good")
    assert found.evaluation.to_pylist() == [1]
    assert TASK.config_fields(found.names)["num_labels"] == 3


@pytest.mark.parametrize(
    ("train", "evaluation", "words"),
    [
        ([1, 1], [1], "only one class"),
        ([0, 1], [-1, 2], "labels that the training pool does not have"),
    ],
)
def test_labels_that_cannot_be_learned(train, evaluation, words):
    with pytest.raises(WorkloadError, match=words):
        TASK.read_labels(chunked(train), chunked(evaluation), names=None, column="label")


def test_guessing_is_training_s_most_frequent_class():
    """Not the evaluation's: what is most frequent there is not known to a model that has only trained."""
    references = np.array([0, 0, 0, 1])
    accuracy, f1 = TASK.answer(np.eye(2)[references], references, np.array([1, 1, 0]))
    assert (accuracy.value, accuracy.guess) == (1.0, 0.25)
    assert f1.guess == pytest.approx(2 / 5 / 2)
