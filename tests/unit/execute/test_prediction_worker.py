"""Forecasts with a fake engine: instant, and exact about what is asked and what is refused."""

import os

import pytest

from ftbench.base.errors import PredictionError, WorkerError
from ftbench.execute import prediction_worker as module
from ftbench.execute.engines.base import Outcome
from ftbench.execute.prediction_worker import (
    PREDICT,
    PREDICT_PROGRAM,
    RECORDED,
    does_not_fit,
    forecast,
    gpu_of,
    predicted_peaks,
)
from ftbench.plan.gpus import capacity_bytes, find_gpu
from ftbench.plan.programs import Program, program_grid
from ftbench.records.prediction import PredictRequest, ProgramRequest
from ftbench.records.recorded import FilesRead, RecordedRequest
from tests.factories import (
    MIB,
    cell,
    device,
    environment,
    figure,
    grid,
    predicted_card,
    predicted_cell,
    predictions,
)

GIB = 2**30
REQUEST = PredictRequest(cells=grid().cells, gpus=(find_gpu("t4"),))
ANSWER = predictions(grid(), "t4")


def outcome(**changes):
    fields = {"answer": None, "refusal": None, "exit_code": 0, "timed_out": False}
    return Outcome(**(fields | {"wall_s": 10.5, "log_tail": "the log"} | changes))


class FakeEngine:
    def __init__(self, ended):
        self.ended = ended
        self.asked = []

    def run(self, module, request, *, log_file, timeout_s, on_progress):
        self.asked.append((module, request, log_file))
        log_file.write_text("the log")
        return self.ended


class Kept:
    """In the place of a kept answer: what is to be kept."""

    def __init__(self):
        self.given = []

    def keep(self, answer, read):
        self.given.append((answer, read))


def test_an_answer_is_kept_with_the_files_that_were_read():
    read = FilesRead(files={"/model.py": (1, 2, 3), "/absent.py": None}, beyond=("os.system",))
    answer = {"answer": ANSWER.model_dump(mode="json"), "read": read.model_dump(mode="json")}
    engine, kept = FakeEngine(outcome(answer=answer)), Kept()
    assert forecast(REQUEST, engine, kept=kept) == ANSWER
    assert kept.given == [(ANSWER, read)]
    ((module, request, _),) = engine.asked
    asked = RecordedRequest.model_validate_json(request)
    assert (module, asked.module) == (RECORDED, PREDICT)
    assert PredictRequest.model_validate(asked.request) == REQUEST


def test_an_error_is_not_kept():
    kept = Kept()
    with pytest.raises(PredictionError):
        forecast(REQUEST, FakeEngine(outcome(refusal=PredictionError("no"))), kept=kept)
    assert kept.given == []


def test_an_answer_is_read():
    engine = FakeEngine(outcome(answer=ANSWER.model_dump(mode="json")))
    assert forecast(REQUEST, engine) == ANSWER
    ((module, request, log),) = engine.asked
    assert module == PREDICT
    assert PredictRequest.model_validate_json(request) == REQUEST
    assert not log.exists()  # of no use once there is an answer


def test_a_program_has_a_worker_of_its_own():
    program = program_grid(Program(file="train.py", factory="make_step"), ["batch=8"])
    request = ProgramRequest(program=program.program, cells=program.cells)
    engine = FakeEngine(outcome(answer=ANSWER.model_dump(mode="json")))
    assert forecast(request, engine) == ANSWER
    ((asked, text, _),) = engine.asked
    assert asked == PREDICT_PROGRAM == "ftbench.prediction.programs"
    assert ProgramRequest.model_validate_json(text) == request


def test_the_log_stays_where_it_was_asked_for(tmp_path):
    engine = FakeEngine(outcome(answer=ANSWER.model_dump(mode="json")))
    forecast(REQUEST, engine, log_file=tmp_path / "predict.log")
    assert (tmp_path / "predict.log").read_text() == "the log"


def test_a_refusal_is_raised_as_it_is():
    refusal = PredictionError("nothing like it", where="here")
    with pytest.raises(PredictionError, match="nothing like it") as caught:
        forecast(REQUEST, FakeEngine(outcome(refusal=refusal)))
    assert caught.value is refusal


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (outcome(exit_code=-11), "the prediction was killed by signal 11"),
        (outcome(exit_code=1), "without an answer, exit code 1"),
        (outcome(timed_out=True), "time limit"),
        (outcome(exit_code=-9, oom_killed=True), "its control group ran out of memory"),
    ],
)
def test_a_worker_without_an_answer_is_named_with_its_log(ended, said):
    with pytest.raises(WorkerError, match=said) as caught:
        forecast(REQUEST, FakeEngine(ended))
    assert caught.value.got == "the log"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"cells": "none"},
        {"cells": [{"cell_id": "x"}]},
        ANSWER.model_dump(mode="json") | {"more": 1},
    ],
)
def test_an_answer_that_is_no_prediction_is_refused(answer):
    with pytest.raises(WorkerError, match="an answer that is not valid"):
        forecast(REQUEST, FakeEngine(outcome(answer=answer)))


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_a_process_a_core_up_to_four(monkeypatch, cores, processes):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert module.processes() == processes


# The card of this machine


def card(name="Tesla T4", total=15 * GIB):
    return device(kind="cuda", name=name, total_memory_bytes=total)


def test_a_card_of_the_catalogue_has_the_memory_that_it_reports():
    gpu = gpu_of(card())
    assert gpu.name == "t4"
    assert gpu.memory_low_bytes == gpu.memory_bytes == 15 * GIB
    least, most = capacity_bytes(gpu)
    assert most - least == gpu.context_high_bytes - gpu.context_low_bytes
    assert find_gpu("t4").memory_bytes != 15 * GIB  # the catalogue has its own


def test_a_card_that_is_not_in_the_catalogue_is_refused():
    with pytest.raises(PredictionError, match="not in the catalogue"):
        gpu_of(card("NVIDIA Imaginary 9000", 30 * GIB + 1))


# Whether a cell fits

ON_CARD = environment(device=card())


def on(verdict):
    return predicted_cell("x", cards=(predicted_card(verdict=verdict),))


@pytest.mark.parametrize("verdict", ["fits", "too close to call"])
def test_a_cell_that_may_fit_is_run(verdict):
    assert does_not_fit(on(verdict), ON_CARD) is None


def test_a_cell_that_does_not_fit_says_why():
    why = does_not_fit(on("does not fit"), ON_CARD)
    assert why == "predicted not to fit: it runs out of the 14.6 GiB of the card"


@pytest.mark.parametrize(
    ("needs", "fits"),
    [(figure(100), True), (figure(101), False), (figure(200, 100, 200), True)],
)
def test_on_a_processor_its_tensors_have_to_fit_the_machines_memory(needs, fits):
    machine = environment(memory_bytes=100 * MIB)
    why = does_not_fit(predicted_cell("x", tensors=needs), machine)
    assert (why is None) == fits
    if not fits:
        assert why == "predicted not to fit: its tensors need 101 MiB of 100 MiB"


def test_figures_for_a_record():
    peaks = predicted_peaks(predicted_cell("x", "t4"), cell())
    assert peaks.tensors_bytes == 90 * MIB
    assert (peaks.allocated_bytes, peaks.reserved_bytes) == (110 * MIB, 120 * MIB)


@pytest.mark.parametrize(
    "prediction", [predicted_cell("x"), on("does not fit"), on("too close to call")]
)
def test_what_it_would_have_is_not_known_where_it_fails_or_is_no_card(prediction):
    peaks = predicted_peaks(prediction, cell())
    assert peaks.tensors_bytes == 90 * MIB
    assert (peaks.allocated_bytes, peaks.reserved_bytes) == (None, None)


@pytest.mark.parametrize(
    ("of", "ranks"),
    [
        (cell(), ()),
        (cell(num_processes=3), (90 * MIB, 90 * MIB, 90 * MIB)),
        (cell(num_processes=2, strategy="fsdp2"), (90 * MIB, 70 * MIB)),
        (cell(num_processes=3, strategy="fsdp2"), ()),
    ],
)
def test_ranks_are_known_if_all_are_alike_or_only_two(of, ranks):
    predicted = predicted_cell("x", smallest_rank_bytes=70 * MIB)
    assert predicted_peaks(predicted, of).rank_tensors_bytes == ranks


@pytest.mark.parametrize(("processes", "fits"), [(1, True), (2, True), (3, False)])
def test_processes_on_the_cpu_share_the_machines_memory(processes, fits):
    machine = environment(memory_bytes=200 * MIB)
    why = does_not_fit(predicted_cell("x", tensors=figure(100)), machine, processes)
    assert (why is None) == fits
    if not fits:
        assert why == "predicted not to fit: its tensors in 3 processes need 300 MiB of 200 MiB"


def test_ranks_that_need_less_are_counted_as_what_they_need():
    machine = environment(memory_bytes=170 * MIB)
    alike, uneven = (
        predicted_cell("x", tensors=figure(100)),
        predicted_cell("x", tensors=figure(100), smallest_rank_bytes=60 * MIB),
    )
    assert does_not_fit(alike, machine, 2) is not None
    assert does_not_fit(uneven, machine, 2) is None
