"""`ftbench estimate-memory` with a planted worker: what it asks for, prints and refuses."""

import json
import tomllib

import pytest

from ftbench.execute import prediction_worker
from ftbench.plan.gpus import load_gpus
from ftbench.records.prediction import Refused
from tests.factories import predictions


@pytest.fixture
def worker(monkeypatch):
    asked = []

    def forecast(request, engine, *, kept, on_progress):
        asked.append(request)
        names = [gpu.name for gpu in request.gpus]
        return predictions(request, *names, explain=request.explain)

    monkeypatch.setattr(prediction_worker, "forecast", forecast)
    return asked


def test_one_cell_is_predicted_on_the_cards(worker, command):
    code, out, _ = command(
        "estimate-memory", "offline:minilm-l6", "--length", "128", "--batch", "4", "--gpu", "t4",
        "--optim", "sgd", "--set", "training.bf16=true",
    )  # fmt: skip
    assert code == 0
    (request,) = worker
    (cell,) = request.cells
    assert (cell.max_length, cell.per_device_train_batch_size) == (128, 4)
    assert (cell.settings["optim"], cell.settings["bf16"]) == ("sgd", True)
    assert [gpu.name for gpu in request.gpus] == ["t4"]
    rows = [line.split() for line in out.splitlines()]
    assert ["card", "needed", "total", "fits"] in rows
    assert "weights 60.0 MiB, activations 30.0 MiB" in out


def test_what_follows_the_comment_is_the_profile(worker, command):
    _, out, _ = command("estimate-memory", "offline:minilm-l6", "--gpu", "t4", "--method", "lora")
    _, _, text = out.partition("# The profile that says the same.")
    profile = tomllib.loads(f"#{text}")
    assert profile["method"] == "lora"
    assert profile["workload"]["dataset"] == "synthetic:full-length"


def test_without_a_card_all_are_shown(worker, command):
    command("estimate-memory", "offline:minilm-l6")
    command("estimate-memory", "offline:minilm-l6", "--gpu", "all")
    for request in worker:
        assert [gpu.name for gpu in request.gpus] == list(load_gpus())


def test_json_is_one_document_with_the_profile(worker, command):
    _, out, _ = command("estimate-memory", "offline:minilm-l6", "--gpu", "l4", "--json")
    data = json.loads(out)
    assert tomllib.loads(data["profile_toml"])["grid"][0]["max_length"] == [512]
    assert [card["gpu"] for card in data["cells"][0]["cards"]] == ["l4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-model-here", "--gpu", "t4"), "workload.model: "),
        (("offline:minilm-l6", "--task", "guess"), "--task: not usable"),
        (("offline:minilm-l6", "--optim", "adam"), "--optim: not usable"),
        (("offline:minilm-l6", "--gpu", "l5"), "--gpu: no such GPU"),
    ],
)
def test_what_cannot_be_is_an_error(worker, command, arguments, said):
    code, _, err = command("estimate-memory", *arguments)
    assert code == 2
    assert err.startswith(f"ftbench: {said}")
    assert worker == []


def test_a_refusal_of_the_prediction_is_an_error(monkeypatch, command):
    def forecast(request, engine, *, kept, on_progress):
        reason = Refused(cell_id=request.cells[0].cell_id, reason="not covered")
        return predictions(request, cells=(), refused=(reason,))

    monkeypatch.setattr(prediction_worker, "forecast", forecast)
    code, out, err = command("estimate-memory", "offline:minilm-l6", "--gpu", "t4")
    assert (code, out, err) == (2, "", "ftbench: not covered\n")
