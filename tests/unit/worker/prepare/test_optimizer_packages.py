"""Optimizers whose package is missing are refused before the first cell."""

import importlib.util

import pytest
from transformers.training_args import OptimizerNames

from ftbench.base.errors import ProfileError
from ftbench.worker.prepare.optimizer_packages import refuse_batched_scores, require_optimizer

# Those that torch and transformers have themselves.
OWN = {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}


@pytest.mark.parametrize("name", [optimizer.value for optimizer in OptimizerNames])
def test_every_optimizer_of_another_package_is_refused_without_it(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    if name in OWN:
        require_optimizer({"optim": name})
        return
    with pytest.raises(ProfileError, match="needs the package") as caught:
        require_optimizer({"optim": name})
    assert (caught.value.where, caught.value.got) == ("training.optim", name)
    assert caught.value.hint.startswith("python -m pip install ")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    require_optimizer({"optim": name})


def test_the_default_needs_nothing():
    require_optimizer({})


def test_scores_batch_by_batch_are_refused():
    refuse_batched_scores({"batch_eval_metrics": False})
    with pytest.raises(ProfileError, match="all evaluation examples at once"):
        refuse_batched_scores({"batch_eval_metrics": True})
