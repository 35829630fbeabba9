"""The worker's side of a forecast: JSON in, JSON out."""

import gc
import json
import os
import subprocess
import sys

import pytest

from ftbench.base.errors import HubUnreachable, WorkloadError
from ftbench.plan.gpus import find_gpu
from ftbench.prediction import lengths, predict_cells
from ftbench.prediction import main as module
from ftbench.prediction.lengths import SequenceLengths
from ftbench.records.prediction import Predictions, PredictRequest
from tests.factories import DATA_SOURCE, data_source, grid

KNOWN = SequenceLengths(labels=("a", "b", "c"), lengths=(3, 4))
ANSWER = Predictions(cells=(), notes=("a note",))


@pytest.fixture
def calls(monkeypatch):
    """What is asked of `read_lengths` and of `predict`."""
    found = {}

    def read_lengths(cells, *, hypothetical):
        found["read"] = cells
        found["hypothetical"] = hypothetical
        return KNOWN

    def predict(cells, gpus, **options):
        found["predict"] = (cells, gpus, options)
        found["collecting"] = gc.isenabled()
        options["on_progress"]("tracing m")
        return ANSWER

    monkeypatch.setattr(lengths, "read_lengths", read_lengths)
    monkeypatch.setattr(predict_cells, "predict", predict)
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    yield found
    gc.enable()
    gc.unfreeze()


def ask(kind="path", **options):
    hub = data_source(source=DATA_SOURCE.model_copy(update={"kind": kind}))
    cells = tuple(cell.model_copy(update={"data": hub}) for cell in grid().cells)
    request = PredictRequest(cells=cells, gpus=(find_gpu("t4"),), **options)
    said = []
    answer = module.main(json.loads(request.model_dump_json()), said.append)
    return request, answer, [progress.phase for progress in said]


def test_a_request_goes_through_json_and_back(calls):
    request, answer, said = ask(largest_batch=True, attention="math")
    cells, gpus, options = calls["predict"]
    assert (cells, gpus) == (request.cells, request.gpus)
    assert [cell.cell_id for cell in cells] == [cell.cell_id for cell in grid().cells]
    assert options["request"] == request
    assert options["sequence_lengths"] == KNOWN
    assert calls["read"] == request.cells
    assert Predictions.model_validate(json.loads(json.dumps(answer))) == ANSWER
    assert said == ["reading the data", "tracing m"]


def test_data_that_are_not_at_hand_are_not_read(calls):
    _, _, said = ask(data_at_hand=False)
    assert "read" not in calls
    assert calls["predict"][2]["sequence_lengths"] == SequenceLengths()
    assert said == ["tracing m"]


@pytest.mark.parametrize("asked", [{"full_batches": True}, {"kind": "synthetic"}])
def test_full_batches_need_no_data(calls, asked):
    ask(**asked)
    documents = calls["predict"][2]["sequence_lengths"]
    assert "read" not in calls
    assert not any(documents.padded(cell.max_length) for cell in grid().cells)


@pytest.mark.parametrize("kind", ["path", "hub"])
def test_data_that_cannot_be_used_are_an_error(calls, monkeypatch, kind):
    """Of a hub data set, too: a missing column is none that the hub's absence explains."""

    def gone(cells, *, hypothetical):
        raise WorkloadError("no such column")

    monkeypatch.setattr(lengths, "read_lengths", gone)
    with pytest.raises(WorkloadError, match="no such column"):
        ask(kind=kind)


def test_a_hub_data_set_that_cannot_be_loaded_is_done_without(calls, monkeypatch):
    def gone(cells, *, hypothetical):
        raise HubUnreachable("no network")

    monkeypatch.setattr(lengths, "read_lengths", gone)
    ask()
    assert calls["predict"][2]["sequence_lengths"] == SequenceLengths()
    assert not calls["predict"][2]["request"].data_at_hand


def test_more_examples_than_there_are_may_be_hypothetical(calls):
    ask()
    assert not calls["hypothetical"]
    ask(hypothetical=True)
    assert calls["hypothetical"]


def test_tokenizers_do_not_complain_of_forks(calls):
    ask()
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_the_collector_is_off_while_it_works(calls):
    ask()
    assert calls["collecting"] is False


def test_nothing_heavy_is_imported_before_the_collector_is_off():
    code = "import ftbench.prediction.main, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
