"""`ftbench check-snapshot` with a planted worker: what it asks for, prints and refuses."""

import json
import pickle
from pathlib import Path

import pytest

from ftbench.execute import prediction_worker
from ftbench.records.prediction import Predictions, Refused
from tests.factories import predicted_card
from tests.simulated_snapshot import Act, Recorder, record, snapshot_of, written
from tests.unit.snapshot.made import acts, predicted, prediction, run

LOOP = "def make(device, batch=4):\n    pass\n"


@pytest.fixture
def loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop.py").write_text(LOOP)
    return "loop.py:make"


@pytest.fixture
def worker(monkeypatch):
    asked = []

    def forecast(request, engine, *, kept, on_progress):
        asked.append(request)
        cards = tuple(predicted_card(gpu.name) for gpu in request.gpus)
        one = prediction(predicted(run(3)), cards=cards)
        assert set(request.allocations_of) == {cell.cell_id for cell in request.cells}
        return Predictions(cells=(one,), versions=(("torch", "2.13.0"),), notes=("a note",))

    monkeypatch.setattr(prediction_worker, "forecast", forecast)
    return asked


def _file(folder, *recorders, **options):
    return written(snapshot_of(*recorders, **options), folder / "snapshot.pickle")


def test_a_snapshot_as_predicted_ends_with_0(worker, command, loop, tmp_path):
    file = _file(tmp_path, record(acts(run(5))))
    code, out, err = command("check-snapshot", file, loop, "--gpu", "t4")
    assert (code, err) == (0, "")
    assert [gpu.name for gpu in worker[0].gpus] == ["t4"]
    assert not worker[0].expandable_segments
    rows = [line.split() for line in out.splitlines()]
    assert ["figure", "recorded", "peak", "at", "the", "end", "predicted", "peak"] in rows
    assert "a note" in out


def test_a_difference_ends_with_1_and_its_line_and_bytes(worker, command, loop, tmp_path):
    made = [*acts(run(3))]
    made.insert(20, Act("more", 6 << 20, 0, "/home/me/hook.py:8"))
    file = _file(tmp_path, record(made))
    code, out, _ = command("check-snapshot", file, loop)
    assert code == 1
    row = next(line for line in out.splitlines() if line.startswith("not predicted"))
    assert "/home/me/hook.py:8" in row
    assert "6.0 MiB" in row


def test_json_is_one_document(worker, command, loop, tmp_path):
    recorder = record(acts(run(3)))
    recorder.out_of_memory(7, 9, "/home/me/train.py:3")
    file = _file(tmp_path, recorder)
    code, out, _ = command("check-snapshot", file, loop, "--json", "--observed", "300MiB")
    data = json.loads(out)
    assert (code, data["agrees"]) == (1, False)
    assert data["subject"] == loop
    assert data["versions"] == {"torch": "2.13.0"}
    (failure,) = data["out_of_memory"]
    assert (failure["nbytes"], failure["device_free"]) == (7, 9)
    assert failure["frame"]["source"] == "/home/me/train.py:3"
    assert data["agreement"]["equal"] == len(predicted(run(3)).nbytes)
    assert data["nearest"][0]["observed_bytes"] == 300 << 20


def test_expandable_segments_are_predicted_as_the_snapshot_has_them(
    worker, command, loop, tmp_path
):
    recorder = record(acts(run(3)), Recorder(expandable=True))
    file = _file(tmp_path, recorder, expandable=True)
    assert command("check-snapshot", file, loop)[0] == 0
    assert worker[0].expandable_segments


def test_a_device_is_chosen(worker, command, loop, tmp_path):
    right, other = record(acts(run(3))), Recorder(device=1)
    other.alloc("a", 5)
    file = _file(tmp_path, right, other)
    assert command("check-snapshot", file, loop)[0] == 2
    assert command("check-snapshot", file, loop, "--device", "0")[0] == 0
    assert command("check-snapshot", file, loop, "--device", "1")[0] == 1


def test_a_profile_has_one_cell(worker, command, tmp_path):
    file = _file(tmp_path, record(acts(run(3))))
    code, _, err = command("check-snapshot", file, "quick")
    assert (code, worker) == (2, [])
    assert err.startswith("ftbench: --cell: ")
    cell = "max_length=64,per_device_train_batch_size=16,train_size=64"
    code, _, err = command("check-snapshot", file, "quick", "--cell", cell)
    assert (code, err) == (0, "")
    assert len(worker[0].cells) == 1


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (None, (), "snapshot.pickle: cannot be read"),
        (b"no snapshot", (), "snapshot.pickle: neither a pickle nor JSON"),
        (pickle.dumps(print), (), "snapshot.pickle: refused"),
        (pickle.dumps([]), (), "snapshot.pickle: an empty snapshot"),
        (b"", ("--observed", "much"), "--observed: not a size"),
        (b"", ("--gpu", "all"), "--gpu: a snapshot is of one card"),
    ],
)
def test_what_cannot_be_is_an_error(worker, command, loop, tmp_path, content, arguments, said):
    file = tmp_path / "snapshot.pickle"
    if content is not None:
        file.write_bytes(content)
    code, out, err = command("check-snapshot", file, loop, *arguments)
    assert (code, out, worker) == (2, "", [])
    assert said in err


def test_a_cell_that_is_not_predicted_is_an_error(monkeypatch, command, loop, tmp_path):
    refused = Predictions(cells=(), refused=(Refused(cell_id="made", reason="no such thing"),))
    monkeypatch.setattr(prediction_worker, "forecast", lambda *_, **__: refused)
    file = _file(tmp_path, record(acts(run(3))))
    code, _, err = command("check-snapshot", file, loop)
    assert code == 2
    assert "no such thing" in err
