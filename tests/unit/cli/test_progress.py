import io
import time

from rich.console import Console

from ftbench.cli import progress
from ftbench.cli.progress import RunDisplay
from ftbench.execute.jobs import Job
from ftbench.records.messages import Progress
from ftbench.records.record import Failure
from tests.factories import cell, record


def display(terminal: bool):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return RunDisplay(console, ["max_length", "train_size"]), console.file


JOBS = [Job(cell(train_size=n), 0) for n in (8, 16, 32)]


STAR = [
    Job(cell(**axes), 0)
    for axes in (
        {},
        {"train_size": 32},
        {"max_length": 32},
        {"per_device_train_batch_size": 8},
        {"learning_rate": 1e-3},
    )
]
STAR_AXES = ["max_length", "per_device_train_batch_size", "train_size", "learning_rate"]


def test_a_star_s_cells_are_named_by_what_differs_from_its_centre():
    file = io.StringIO()
    shown = RunDisplay(Console(file=file, width=120), STAR_AXES)
    shown.planned(STAR, [])
    assert [shown.name(job) for job in STAR] == [
        "the centre",
        "training examples 32",
        "length 32",
        "batch 8",
        "learning_rate 0.001",
    ]


def test_one_run_is_no_runs():
    shown, file = display(terminal=False)
    shown.planned(JOBS[:1], JOBS[1:2])
    assert file.getvalue() == "1 of 2 runs is done already\npreparing 1 run\n"


def test_a_terminal_of_80_columns_keeps_the_count_and_the_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    shown = RunDisplay(console, STAR_AXES)
    with shown:
        shown.planned(STAR, [])
        for job in STAR[:2]:
            shown.started(job)
            shown.finished(job, record(job.cell, wall_s=90.0))
        shown._live.refresh()
        last = console.file.getvalue().rpartition("2/5")[2]
    assert " left" in last.split("\n")[0]


def test_a_long_cell_has_a_line_in_a_log_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE_S", 0.0)
    shown, file = display(terminal=False)
    with shown:
        shown.planned(JOBS, [])
        shown.started(JOBS[0])
        shown.progress(JOBS[0], Progress(phase="train", step=3, max_steps=9))
        deadline = time.monotonic() + 20
        while "step 3 of 9" not in file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "    length 16, training examples 8: train, step 3 of 9" in file.getvalue()


def play(shown):
    with shown:
        shown.planned(JOBS, [])
        shown.preparing(Progress(phase="tokenising"))
        for job in JOBS:
            shown.started(job)
            shown.progress(job, Progress(phase="train", step=3, max_steps=9, epoch=0.5, loss=0.71))
            shown.finished(job, record(job.cell, wall_s=job.work / 1000))


def test_plain_lines_where_the_output_is_no_terminal():
    shown, file = display(terminal=False)
    play(shown)
    text = file.getvalue()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "preparing 3 runs"
    assert lines[1].startswith("[1/3] length 16, training examples 8: ok,")
    assert "accuracy 0.750" in lines[1]
    assert " left)" in lines[1]
    assert "left" not in lines[3]


def test_a_terminal_shows_the_step_and_the_loss():
    shown, file = display(terminal=True)
    play(shown)
    assert "\x1b" in file.getvalue()
    assert "[3/3]" in file.getvalue()


def test_time_left_is_by_the_work_of_finished_cells():
    shown, _ = display(terminal=False)
    shown.planned(JOBS, [])
    assert shown.seconds_left() is None
    shown.finished(JOBS[0], record(JOBS[0].cell, wall_s=JOBS[0].work * 2))
    assert shown.seconds_left() == 2 * (JOBS[1].work + JOBS[2].work)


def test_failures_do_not_count_for_the_time_left_and_say_why():
    shown, file = display(terminal=False)
    shown.planned(JOBS, [])
    failed = record(
        JOBS[0].cell, status="oom", measurement=None, failure=Failure(message="out of memory")
    )
    shown.finished(JOBS[0], failed)
    assert shown.seconds_left() is None
    assert "out of memory" in file.getvalue()


def test_what_is_there_already_is_said():
    shown, file = display(terminal=False)
    shown.planned(JOBS[:1], JOBS[1:])
    assert "2 of 3 runs are done already" in file.getvalue()
