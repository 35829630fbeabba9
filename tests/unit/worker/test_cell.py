"""From a request to a measurement, with the recipe planted: what is noted on the way is all in the result."""

import math

import pytest
import torch
from datasets import Dataset

import ftbench.worker.cell as worker
from ftbench.records.messages import CellRequest
from ftbench.worker.recipe.finetune import Result
from tests.factories import cell, preparation, score

STEPS = 30


@pytest.fixture
def request_of(tmp_path):
    def make(**axes):
        return CellRequest(
            cell=cell(**axes),
            replicate=0,
            seed=42,
            device="cpu",
            preparation=preparation(),
            output=str(tmp_path / "output"),
            steps_file=str(tmp_path / "steps.parquet"),
            samples_file=str(tmp_path / "samples.parquet"),
            reports=str(tmp_path / "reports"),
        ).model_dump(mode="json")

    return make


@pytest.fixture
def planted(monkeypatch):
    """Put a recipe of `STEPS` steps and one epoch in the place of the real one; returns its losses."""
    losses = {"train_loss": 0.6, "eval_loss": 0.5, "epoch": 0.5}
    batch = {name: torch.ones(4, 16, dtype=torch.int64) for name in ("input_ids", "attention_mask")}

    def recipe(request, device, phases, steps, emit):
        with phases.phase("first_steps"):
            pass
        with phases.phase("train"):
            steps.start(Ticking(), device, STEPS)
            for _ in range(STEPS):
                steps.begin(0.0)
                steps.fetched([batch])
                steps.loss(torch.tensor(losses["train_loss"]))
                steps.end()
        with phases.phase("evaluation"):
            pass
        evaluation = {"eval_loss": losses["eval_loss"], "eval_accuracy": 0.75}
        of_epoch = {"epoch": 1.0, "eval_loss": losses["epoch"], "eval_accuracy": 0.7}
        result = Result(
            log=[of_epoch, evaluation | {"epoch": 1.0}],
            train_loss=losses["train_loss"],
            evaluation=evaluation,
            scores=(score(),),
            model_device="cpu",
            parameters=10,
            trainable_parameters=10,
        )
        pool = Dataset.from_dict({"attention_mask": [[1] * 16] * 8, "labels": [0, 1] * 4})
        return result, (pool, pool)

    monkeypatch.setattr(worker, "_finetune", recipe)
    return losses


class Ticking:
    """Steps of 1 and 2 seconds, one after the other: a spread of two thirds of the median."""

    def __init__(self):
        self._marks = [0.0]

    def mark(self):
        last, number = self._marks[-1], len(self._marks)
        self._marks.append(last + (0.0 if number % 2 else 1.0 + number // 2 % 2))

    def seconds(self):
        return self._marks[1:]


def measured(body):
    answer = worker.main(body, lambda progress: None)
    assert answer["status"] == "ok", answer
    return answer["measurement"]


def names(found):
    return {one["name"] for one in found["warnings"]}


def test_warnings_of_every_part_of_a_cell_are_in_its_measurement(planted, request_of):
    """Of the epochs, of the steps, and of the machine: none is lost, whichever is worked out last."""
    planted["epoch"] = math.nan
    found = measured(request_of(dataloader_num_workers=2))
    assert {"diverged", "spread", "loader_processes"} <= names(found)
    assert found["epochs"][0]["eval_loss"] is None
    assert "epochs.1.eval_loss" in found["absent"]


@pytest.mark.parametrize("loss", ["train_loss", "eval_loss"])
def test_a_loss_that_is_no_number_is_absent_with_a_warning(planted, request_of, loss):
    planted[loss] = math.inf
    found = measured(request_of())
    assert "diverged" in names(found)
    assert found[loss] is None
    assert loss in found["absent"]


def test_a_cell_that_went_well_has_its_figures_and_no_such_warning(planted, request_of):
    found = measured(request_of())
    assert not {"diverged", "loader_processes"} & names(found)
    assert (found["train_loss"], found["eval_loss"]) == (0.6, 0.5)
    assert [(one["name"], one["value"]) for one in found["scores"]] == [("accuracy", 0.75)]
    assert found["epochs"][0]["scores"] == {"accuracy": 0.7}
    assert "scores.f1_macro" in found["absent"]  # the planted recipe has none
    assert found["epochs"][0]["eval_loss"] == 0.5
    assert found["ranks"][0]["steps"]["samples"] == 4 * (STEPS - 2)


def test_a_recipe_that_raises_is_a_failure_with_its_phase(planted, request_of, monkeypatch):
    def broken(request, device, phases, steps, emit):
        with phases.phase("train"):
            raise RuntimeError("no such operator")

    monkeypatch.setattr(worker, "_finetune", broken)
    answer = worker.main(request_of(), lambda progress: None)
    assert answer["status"] == "crashed"
    assert (answer["failure"]["phase"], answer["failure"]["step"]) == ("train", 0)
