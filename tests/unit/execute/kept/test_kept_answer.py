"""Kept answers: found while all that they depend on is the same, and not kept if that is not known."""

import pytest

from ftbench.base.files import stamp_of
from ftbench.execute.kept import kept_answer
from ftbench.execute.kept.kept_answer import KeptAnswer, default_store
from ftbench.execute.kept.store import Store
from ftbench.plan.programs import Program, program_grid
from ftbench.records.prediction import PredictRequest, ProgramRequest, Refused, RefusedCards
from ftbench.records.recorded import FilesRead
from tests.factories import grid, predictions

REQUEST = PredictRequest(cells=grid().cells)
ANSWER = predictions(grid())
NOTHING = FilesRead()
PROGRAM = Program(file="loop.py", factory="make")
OF_PROGRAM = ProgramRequest(program=PROGRAM, cells=program_grid(PROGRAM, ()).cells)


@pytest.fixture(autouse=True)
def no_sources(monkeypatch):
    """The model and the data of a made-up cell are in no file."""
    monkeypatch.setattr(kept_answer, "_hashed_files", lambda _: frozenset())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "answers")


def test_an_answer_is_found_again(store):
    assert KeptAnswer(store, REQUEST).find() is None
    KeptAnswer(store, REQUEST).keep(ANSWER, NOTHING)
    assert KeptAnswer(store, REQUEST).find() == ANSWER
    other = REQUEST.model_copy(update={"explain": True})
    assert KeptAnswer(store, other).find() is None


def test_an_answer_is_void_after_a_change_of_a_file(store, tmp_path):
    file = tmp_path / "module.py"
    file.write_text("a")
    KeptAnswer(store, REQUEST).keep(ANSWER, FilesRead(files={str(file): stamp_of(str(file))}))
    assert KeptAnswer(store, REQUEST).find() == ANSWER
    file.write_text("b")
    assert KeptAnswer(store, REQUEST).find() is None


def test_what_is_kept_but_no_answer_is_not_found(store):
    kept = KeptAnswer(store, REQUEST)
    kept.keep(ANSWER, NOTHING)
    store.write(kept._key, {"files": {}, "answer": {"cells": 7}})
    assert kept.find() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"refused": (Refused(cell_id="a", reason="a hub is out of reach"),)},
        {"refused_cards": (RefusedCards(cell_id="a", gpus=("t4",), reason="no"),)},
        {"data_at_hand": False},
    ],
)
def test_what_may_be_different_the_next_time_is_not_kept(store, changes):
    KeptAnswer(store, REQUEST).keep(ANSWER.model_copy(update=changes), NOTHING)
    assert store.usage().entries == 0


def test_what_was_asked_without_data_is_kept(store):
    asked = REQUEST.model_copy(update={"data_at_hand": False})
    answer = ANSWER.model_copy(update={"data_at_hand": False})
    KeptAnswer(store, asked).keep(answer, NOTHING)
    assert KeptAnswer(store, asked).find() == answer


def read(file):
    file.write_text("{}")
    return FilesRead(files={str(file): stamp_of(str(file))})


def test_a_program_that_reads_modules_is_kept(store, tmp_path):
    KeptAnswer(store, OF_PROGRAM).keep(ANSWER, read(tmp_path / "model.py"))
    assert KeptAnswer(store, OF_PROGRAM).find() == ANSWER


def test_a_program_that_reads_other_files_is_not_kept(store, tmp_path):
    KeptAnswer(store, OF_PROGRAM).keep(ANSWER, read(tmp_path / "config.json"))
    assert store.usage().entries == 0


@pytest.mark.parametrize("event", ["subprocess.Popen", "socket.connect", "a list of /data"])
def test_a_program_that_looks_further_is_not_kept(store, event):
    KeptAnswer(store, OF_PROGRAM).keep(ANSWER, FilesRead(beyond=(event,)))
    assert store.usage().entries == 0


def test_a_model_that_changed_after_its_revision_was_made_is_not_kept(store, tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    weights.write_text("new")  # later than this process began to hash files
    monkeypatch.setattr(kept_answer, "_hashed_files", lambda _: frozenset({str(weights)}))
    KeptAnswer(store, REQUEST).keep(ANSWER, NOTHING)
    assert store.usage().entries == 0
    monkeypatch.setattr(kept_answer, "FIRST_HASHED_AFTER_NS", stamp_of(str(weights))[2] + 1)
    KeptAnswer(store, REQUEST).keep(ANSWER, NOTHING)
    assert store.usage().entries == 1


def test_the_users_store(monkeypatch, tmp_path):
    monkeypatch.setenv("FTBENCH_CACHE", "off")
    assert default_store() is None
    monkeypatch.setenv("FTBENCH_CACHE", str(tmp_path / "own"))
    assert default_store().folder == tmp_path / "own"
    monkeypatch.delenv("FTBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store().folder == tmp_path / "ftbench" / "answers"
