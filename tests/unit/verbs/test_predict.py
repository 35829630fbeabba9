"""Predict from Python: the request that a worker gets, and the tables of its answer."""

import math

import pytest

import ftbench
from ftbench.base.errors import ProfileError
from ftbench.execute import prediction_worker
from ftbench.records.prediction import Predictions, Refused
from tests.factories import predicted_cell

PROGRAM = "examples/gpt.py:make_step"


@pytest.fixture
def asked(monkeypatch):
    """The requests of workers, each answered with planted figures; its last cell is refused."""
    requests = []

    def forecast(request, engine, **_):
        requests.append(request)
        *predicted, last = request.cells
        gpus = [gpu.name for gpu in request.gpus]
        return Predictions(
            cells=tuple(predicted_cell(cell.cell_id, *gpus) for cell in predicted),
            refused=(Refused(cell_id=last.cell_id, reason="no reason"),),
        )

    monkeypatch.setenv("FTBENCH_CACHE", "off")
    monkeypatch.setattr(prediction_worker, "forecast", forecast)
    return requests


def test_the_request_is_the_command_s(asked):
    found = ftbench.predict(
        "smoke", gpu="t4", only={"max_length": 16}, settings={"training.bf16": True}
    )
    (request,) = asked
    assert {cell.max_length for cell in request.cells} == {16}
    assert all(cell.settings["bf16"] is True for cell in request.cells)
    assert [gpu.name for gpu in request.gpus] == ["t4"]
    assert request.largest_batch
    assert found.name == "smoke"


def test_one_row_per_cell_and_card(asked):
    found = ftbench.predict("smoke", gpu=["t4", "l4"])
    table = found.to_pandas()
    cells = len(found.grid.cells)
    assert len(table) == 2 * (cells - 1) + 1
    first = found.predictions.cells[0]
    row = table[(table["cell_id"] == first.cell_id) & (table["gpu"] == "l4")].iloc[0]
    card = next(card for card in first.cards if card.gpu == "l4")
    assert row["reserved_bytes"] == card.reserved.value_bytes
    assert row["reserved_high_bytes"] == card.reserved.high_bytes
    assert row["tensors_bytes"] == first.tensors.value_bytes
    assert row["verdict"] == card.verdict
    assert table["not_predicted"].dropna().tolist() == ["no reason"]
    assert math.isnan(table.iloc[-1]["tensors_bytes"])


def test_without_a_card_there_is_a_row_per_cell(asked):
    found = ftbench.predict("smoke")
    assert len(found.to_pandas()) == len(found.grid.cells)
    assert not asked[0].largest_batch


def test_several_gpus_are_processes(asked):
    ftbench.predict("smoke", gpu="t4", gpus=[1, 2])
    assert {cell.num_processes for cell in asked[0].cells} == {1, 2}


def test_a_program_has_arguments(asked):
    found = ftbench.predict(PROGRAM, arguments={"batch": [2, 4]}, steps=2)
    assert [cell.value("batch") for cell in found.grid.cells] == [2, 4]
    assert [cell.steps for cell in asked[0].cells] == [2, 2]


def test_a_notebook_shows_a_row_per_cell_whatever_its_training_examples(asked):
    found = ftbench.predict("smoke", gpu="t4")
    lengths = {cell.max_length for cell in found.grid.cells}
    refused = len(found.predictions.refused)
    assert found._repr_html_().count("<tr") == 1 + len(lengths) + refused


@pytest.mark.parametrize(
    ("subject", "options", "said"),
    [
        ("smoke", {"gpu": "h1"}, "h100"),
        ("smoke", {"only": {"max_lengt": 16}}, "max_length"),
        ("smoke", {"arguments": {"batch": 2}}, "arguments"),
        (PROGRAM, {"settings": {"training.bf16": True}}, "settings"),
        (PROGRAM, {"steps": 0}, "steps"),
        ("smoke", {"gpus": 0}, "gpus"),
        ("smoke", {"gpus": [1, -1]}, "gpus"),
        ("smoke", {"gpus": "2"}, "gpus"),
        ("smoke", {"attention": "flashh"}, "flash"),
    ],
)
def test_what_is_wrong_is_named(asked, subject, options, said):
    with pytest.raises(ProfileError, match=said):
        ftbench.predict(subject, **options)
    assert not asked
