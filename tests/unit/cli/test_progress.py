import io

from rich.console import Console

from ftbench.cli.progress import RunDisplay
from ftbench.execute.jobs import Job
from ftbench.records.messages import Progress
from ftbench.records.record import Failure
from tests.factories import cell, record


def display(terminal: bool):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return RunDisplay(console, ["max_length", "train_size"]), console.file


JOBS = [Job(cell(train_size=n), 0) for n in (8, 16, 32)]


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
