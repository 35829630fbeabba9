"""The engine against workers that do what a test asks: answer, refuse, crash, hang, fork children."""

import json
import os
import time
from pathlib import Path

import pytest

from bench.engines.local import LocalEngine, log_tail
from bench.errors import WorkloadError

WORKER = "tests.unit.engines.odd_worker"


@pytest.fixture(params=["forkserver", "spawn"])
def engine(request, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    engine = LocalEngine(request.param, {"FTBENCH_TEST": "set"})
    if request.param == "forkserver":  # this server needn't import torch for these workers
        import multiprocessing

        multiprocessing.get_context("forkserver").set_forkserver_preload(["bench.worker.entry"])
    return engine


def run(engine, tmp_path, timeout_s=60.0, **what):
    progress = []
    outcome = engine.run(
        WORKER,
        json.dumps(what),
        log_file=tmp_path / "log",
        timeout_s=timeout_s,
        on_progress=progress.append,
    )
    return outcome, progress


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_an_answer_and_the_progress_before_it(engine, tmp_path):
    outcome, progress = run(engine, tmp_path, do="answer")
    assert outcome.answer["asked"] == {"do": "answer"}
    assert outcome.exit_code == 0
    assert [p.step for p in progress] == [1, 2, 3]


def test_a_process_of_its_own_with_the_environment_set(engine, tmp_path):
    answers = [run(engine, tmp_path, do="answer")[0].answer for _ in range(2)]
    assert len({answer["pid"] for answer in answers} | {os.getpid()}) == 3
    assert answers[0]["environment"] == "set"
    assert answers[0]["session"] == answers[0]["pid"]


def test_what_it_prints_goes_to_the_log(engine, tmp_path):
    outcome, _ = run(engine, tmp_path, do="answer")
    assert "printed" in outcome.log_tail
    assert "from the shell" in outcome.log_tail


def test_a_refusal_is_an_error_to_raise(engine, tmp_path):
    outcome, _ = run(engine, tmp_path, do="refuse")
    assert isinstance(outcome.refusal, WorkloadError)
    assert outcome.answer is None


@pytest.mark.parametrize(
    ("do", "code"), [("raise", 1), ("exit", 3), ("kill", -9), ("segfault", -11)]
)
def test_an_end_without_an_answer(engine, tmp_path, do, code):
    outcome, _ = run(engine, tmp_path, do=do)
    assert (outcome.answer, outcome.exit_code, outcome.timed_out) == (None, code, False)
    if do == "segfault":
        assert "Segmentation fault" in outcome.log_tail
    if do == "raise":
        assert "ZeroDivisionError" in outcome.log_tail


@pytest.mark.parametrize("do", ["hang", "hang natively"])
def test_a_hang_ends_at_the_time_limit(engine, tmp_path, do):
    outcome, progress = run(engine, tmp_path, timeout_s=4.0, do=do)
    assert outcome.timed_out
    assert outcome.answer is None
    assert gone(progress[0].step)


def test_children_of_a_worker_end_with_it(engine, tmp_path):
    outcome, progress = run(engine, tmp_path, do="fork")
    assert outcome.answer is not None
    assert gone(progress[0].step)


def test_nonsense_on_the_channel_is_no_answer(engine, tmp_path):
    outcome, _ = run(engine, tmp_path, do="nonsense")
    assert outcome.answer is None


def test_log_tail(tmp_path):
    (tmp_path / "log").write_bytes("\n".join(map(str, range(100))).encode() + b"\n\xff")
    lines = log_tail(tmp_path / "log").splitlines()
    assert len(lines) == 20
    assert lines[0] == "81"
    assert log_tail(tmp_path / "none") == ""
