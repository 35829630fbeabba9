import numpy as np
from transformers import EvalPrediction

from ftbench.worker.tasks.accuracy import Accuracy
from ftbench.worker.recipe.metrics import ComputeScores


def test_planted_accuracy():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [9.0, 0.0, 0.0]])
    labels = np.array([0, 1, 0, 2])
    assert ComputeScores()(EvalPrediction(logits, labels)) == {"accuracy": 0.5}


def test_a_model_that_returns_more_than_logits():
    prediction = EvalPrediction((np.array([[0.0, 1.0]]), np.zeros(3)), np.array([1]))
    assert ComputeScores()(prediction) == {"accuracy": 1.0}


def test_it_can_be_called_again():
    compute = ComputeScores()
    for _ in range(2):
        assert compute(EvalPrediction(np.eye(2), np.array([0, 1]))) == {"accuracy": 1.0}


def test_it_is_a_metric_of_evaluate():
    metric = Accuracy(keep_in_memory=True)
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=[1, 1], references=[1, 1])
    assert metric.compute() == {"accuracy": 0.75}
