"""Predictions as plain data: they go through JSON unchanged, and what is no prediction is refused."""

import json

import pytest
from pydantic import ValidationError

from ftbench.plan.gpus import find_gpu
from ftbench.records.prediction import (
    CellPrediction,
    LargestBatch,
    PredictedBytes,
    Predictions,
    PredictRequest,
    Refused,
    RefusedCards,
)
from tests.factories import grid, predicted_card, predicted_cell, predictions


def test_an_answer_goes_through_json_unchanged():
    answer = predictions(grid(), "t4", "h100", explain=True)
    assert Predictions.model_validate(json.loads(answer.model_dump_json())) == answer


def test_a_request_goes_through_json_unchanged():
    request = PredictRequest(
        cells=grid().cells,
        gpus=(find_gpu("t4"), find_gpu("24GiB")),
        largest_batch=True,
        attention="flash",
        processes=3,
    )
    back = PredictRequest.model_validate(json.loads(request.model_dump_json()))
    assert back == request
    assert [cell.cell_id for cell in back.cells] == [cell.cell_id for cell in grid().cells]


def test_a_cell_is_found_by_its_id():
    of = grid()
    answer = predictions(of)
    assert [answer.of(cell.cell_id) for cell in of.cells] == list(answer.cells)
    assert answer.of("none") is None


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (PredictedBytes, {"value_bytes": 1, "low_bytes": 1, "high_bytes": 1, "certainty": "sure"}),
        (PredictedBytes, {"value_bytes": 1, "low_bytes": 1, "certainty": "exact"}),
        (CellPrediction, predicted_cell("x").model_dump() | {"source": "guessed"}),
        (CellPrediction, predicted_cell("x").model_dump() | {"speed": 1}),
        (Predictions, {"cells": [{}]}),
    ],
)
def test_what_is_no_prediction_is_refused(model, fields):
    with pytest.raises(ValidationError):
        model.model_validate(fields)


@pytest.mark.parametrize(
    ("name", "value"), [("attention", "fast"), ("cells", None), ("processes", "many")]
)
def test_what_is_no_request_is_refused(name, value):
    fields = PredictRequest(cells=grid().cells).model_dump() | {name: value}
    with pytest.raises(ValidationError):
        PredictRequest.model_validate(fields)


def test_predictions_are_frozen():
    with pytest.raises(ValidationError):
        predicted_card("t4").verdict = "fits"


def test_a_cell_that_one_card_refuses_is_refused_on_every_card():
    """Comparisons need all cards or none of them; the first reason is the cell's."""
    of = grid()
    first, second = of.cells[0].cell_id, of.cells[1].cell_id
    largest = [
        LargestBatch(cell_id=name, gpu="t4", max_length=16, certain=1, possible=2, reserved=None)
        for name in (first, second)
    ]
    before = predictions(of).model_copy(
        update={
            "refused": (Refused(cell_id="earlier", reason="its model"),),
            "refused_cards": (
                RefusedCards(cell_id=first, gpus=("t4",), reason="no bf16"),
                RefusedCards(cell_id=first, gpus=("p100",), reason="no flash attention"),
            ),
            "largest": tuple(largest),
        }
    )
    after = before.on_every_card()
    assert first not in {one.cell_id for one in after.cells}
    assert len(after.cells) == len(before.cells) - 1
    assert [one.cell_id for one in after.largest] == [second]
    assert [one.cell_id for one in after.refused] == ["earlier", first]
    assert after.refused[1].reason == before.refused_cards[0].text
    assert after.refused_cards == ()
