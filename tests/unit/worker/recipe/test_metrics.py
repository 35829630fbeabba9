import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from ftbench.worker.recipe.metrics import ComputeScores
from ftbench.worker.tasks.accuracy import Accuracy
from tests.factories import task

LABELS = np.array([0, 1, 2])


def computing(name="text-classification", train_labels=LABELS):
    return ComputeScores(task(name), np.asarray(train_labels))


def test_planted_accuracy():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [9.0, 0.0, 0.0]])
    labels = np.array([0, 1, 0, 2])
    compute = computing()
    # Class 0: 1 of 2 right and 1 wrong answer; class 1: all right; class 2: none.
    assert compute(EvalPrediction(logits, labels)) == pytest.approx(
        {"accuracy": 0.5, "f1_macro": (0.5 + 1 + 0) / 3}
    )
    assert [score.name for score in compute.scores] == ["accuracy", "f1_macro"]


def test_a_model_that_returns_more_than_logits():
    prediction = EvalPrediction((np.array([[0.0, 1.0]]), np.zeros(3)), np.array([1]))
    assert computing()(prediction) == {"accuracy": 1.0, "f1_macro": 1.0}


def test_it_can_be_called_again_and_has_the_last_scores():
    compute = computing()
    for logits, expected in ((np.eye(2), 1.0), (np.eye(2)[::-1], 0.0)):
        found = compute(EvalPrediction(logits, np.array([0, 1])))
        assert found == {"accuracy": expected, "f1_macro": expected}
        assert [score.value for score in compute.scores] == [expected, expected]


def test_batch_by_batch_it_gives_the_same():
    """As the Trainer calls it with `batch_eval_metrics`: tensors, and a result with the last batch only."""
    outputs, references = np.array([0.1, 0.4, 0.5, 0.9]), np.array([0.0, 1.0, 2.0, 2.5])
    whole, parts = (computing("text-regression", [0.0, 1.0]) for _ in range(2))
    expected = whole(EvalPrediction(outputs[:, None], references))
    found = {}
    for place in (0, 2):
        batch = slice(place, place + 2)
        prediction = EvalPrediction(
            torch.tensor(outputs[batch, None]), torch.tensor(references[batch])
        )
        assert found == {}
        found = parts(prediction, compute_result=place == 2)
    assert found == expected
    assert parts.scores == whole.scores


def test_a_score_that_is_not_defined_is_nothing_to_choose_by():
    compute = computing("text-regression", [0.0, 1.0])
    found = compute(EvalPrediction(np.full((4, 1), 0.5), np.array([0.0, 1.0, 2.0, 3.0])))
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)
    assert [score.name for score in compute.scores] == ["mse"]


def test_it_is_a_metric_of_evaluate():
    metric = Accuracy(keep_in_memory=True)
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=[1, 1], references=[1, 1])
    assert metric.compute() == {"accuracy": 0.75}
