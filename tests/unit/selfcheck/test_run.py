"""Rows one after another: each in a process of its own, whatever becomes of it."""

import os
from pathlib import Path

import pytest

from ftbench.selfcheck import run
from ftbench.selfcheck.packages import Needed
from tests.unit.selfcheck.made import machine, row


@pytest.fixture
def processes(monkeypatch):
    """Have the rows' processes be those of `row_process.py`."""
    monkeypatch.setattr(run, "ROW", "tests.unit.selfcheck.row_process")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def rows_of(folder, *rows, **options):
    pages = []
    page = run.run_rows(folder, machine(torch="2.13"), on_row=pages.append, rows=rows, **options)
    assert page.rows == pages[-1].rows
    return page, pages


@pytest.mark.parametrize(
    ("name", "reason"),
    [("crashes", "exit code -6"), ("silent", "exit code 0"), ("garbles", "exit code 0")],
)
def test_a_row_without_an_answer_fails_and_the_next_one_runs(processes, tmp_path, name, reason):
    page, pages = rows_of(tmp_path, row(name), row("passes"))
    first, second = page.rows
    assert (first.answer.status, second.answer.status) == ("failed", "ok")
    assert reason in first.answer.reason
    assert f"{name}/row.log" in first.answer.send
    assert (tmp_path / name / "row.log").read_text().startswith("it began")
    assert [len(one.rows) for one in pages] == [1, 2]
    assert [one.complete for one in pages] == [False, True]
    assert page.failed == (first,)


def test_a_row_that_hangs_is_ended(processes, tmp_path):
    page, _ = rows_of(tmp_path, row("hangs", limit_s=3))
    assert page.failed[0].answer.reason == "did not end within 3 s"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_answer_of_an_earlier_check_is_not_taken_for_a_new_one(processes, tmp_path):
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent/answer.json").write_text('{"status": "ok"}')
    page, _ = rows_of(tmp_path, row("silent"))
    assert page.rows[0].answer.status == "failed"


def test_what_no_longer_fits_into_the_budget_is_left_out(processes, tmp_path):
    seconds = iter(range(0, 1000, 20))  # 20 s are left after the first row
    page, _ = rows_of(
        tmp_path,
        row("passes", least_s=40),
        row("waits", least_s=40),
        budget_s=100,
        clock=lambda: next(seconds),
    )
    assert [one.answer.status for one in page.rows] == ["ok", "left out"]
    assert page.rows[1].answer.reason.startswith("time")


def test_a_row_whose_packages_or_cards_are_not_there_is_left_out():
    here = machine(cards=1, datasets=None)
    assert run.left_out(row("a", needs=(Needed("datasets"),)), here) == "needs datasets"
    assert run.left_out(row("a", cards=2), here) == "needs 2 cards, there is 1"
    assert run.left_out(row("a", cards=2), machine(cards=2)) == ""
