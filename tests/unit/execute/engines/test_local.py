"""The engine against workers that do what a test asks: answer, refuse, crash, hang, fork children."""

import json
import os
import subprocess
import sys
import time
from multiprocessing import connection, spawn
from pathlib import Path

import pytest

from ftbench.base.errors import WorkerError, WorkloadError
from ftbench.execute.engines.base import Work
from ftbench.execute.engines.channel import Channel
from ftbench.execute.engines.local import SERVER, LocalEngine, _listen, _without_main, log_tail

WORKER = "tests.unit.execute.engines.odd_worker"


@pytest.fixture(params=["forkserver", "spawn"])
def engine(request, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    engine = LocalEngine(request.param, {"FTBENCH_TEST": "set"})
    if request.param == "forkserver":  # this server needn't import torch for these workers
        import multiprocessing

        multiprocessing.get_context("forkserver").set_forkserver_preload(
            [SERVER, "ftbench.worker.process.entry"]
        )
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


def test_an_answer_in_time_is_kept_if_the_parent_wakes_late(tmp_path):
    """As after Ctrl-Z, or on a starved machine: the deadline has passed before the first look."""
    receiver, sender = connection.Pipe(duplex=False)
    os.write(sender.fileno(), b'{"kind": "answer", "body": {"done": 1}}\n')
    ended, cancelled = os.eventfd(0), os.eventfd(0)
    late = time.monotonic() - 1.0
    last, timed_out = _listen(Channel(receiver.fileno()), ended, cancelled, late, lambda _: None)
    assert (last.body, timed_out) == ({"done": 1}, False)
    assert _listen(Channel(receiver.fileno()), ended, cancelled, late, lambda _: None) == (
        None,
        True,
    )


def test_a_process_of_its_own_with_the_environment_set(engine, tmp_path):
    answers = [run(engine, tmp_path, do="answer")[0].answer for _ in range(2)]
    assert len({answer["pid"] for answer in answers} | {os.getpid()}) == 3
    assert answers[0]["environment"] == "set"
    assert answers[0]["session"] == answers[0]["pid"]


def test_what_a_worker_imports_is_left_out_of_its_garbage_collections(engine, tmp_path):
    answer = run(engine, tmp_path, do="answer")[0].answer
    assert answer["collected"] < answer["frozen"] / 10


def test_its_own_processes_start_as_those_of_a_script(engine, tmp_path):
    """A loader's workers through a server of their own would import torch anew, for every epoch."""
    program = "import multiprocessing; print(multiprocessing.get_start_method())"
    script = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    answer = run(engine, tmp_path, do="answer")[0].answer
    assert answer["starts processes by"] == script.stdout.strip()


def test_workers_can_be_warmed_up_for(engine, tmp_path):
    engine.warm_up()
    engine.warm_up()
    assert run(engine, tmp_path, do="answer")[0].exit_code == 0


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


def test_grandchildren_end_with_a_worker_that_is_killed(engine, tmp_path):
    outcome, progress = run(engine, tmp_path, timeout_s=4.0, do="fork twice")
    assert outcome.timed_out
    assert gone(progress[0].step)


@pytest.mark.parametrize(
    "line",
    [
        "{..}\n",
        "3\n",
        "[" * 10**5 + "\n",
        '{"kind": "progress", "body": {"phase": 3}}\n',
        '{"kind": "answer"}\n',
        '{"kind": "answ',
        "\n",
    ],
)
def test_nonsense_on_the_channel_is_no_answer(tmp_path, monkeypatch, line):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    engine = LocalEngine("spawn", {})
    outcome, _ = run(engine, tmp_path, do="nonsense", line=line)
    assert outcome.answer is None
    assert not outcome.timed_out


def test_a_refusal_that_is_none_is_still_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    line = '{"kind": "refusal", "body": {"class": ["x"], "what": 3, "where": {}, "more": 1}}\n'
    outcome, _ = run(LocalEngine("spawn", {}), tmp_path, do="nonsense", line=line)
    assert isinstance(outcome.refusal, WorkerError)


def test_a_worker_that_stops_in_the_middle_of_a_line_ends_at_the_time_limit(engine, tmp_path):
    outcome, progress = run(engine, tmp_path, timeout_s=4.0, do="stop in the middle of a line")
    assert outcome.timed_out
    assert outcome.wall_s < 30
    assert gone(progress[0].step)


def test_an_answer_larger_than_the_pipe(engine, tmp_path):
    outcome, _ = run(engine, tmp_path, do="big", size=3 * 2**20)
    assert len(outcome.answer["text"]) == 3 * 2**20


def test_secrets_do_not_stay_in_the_log(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("FTBENCH_TOKEN", "very-secret-value")
    engine._environment["FTBENCH_TOKEN"] = "very-secret-value"
    outcome, _ = run(engine, tmp_path, do="tell")
    assert "very-secret-value" not in (tmp_path / "log").read_text() + outcome.log_tail
    assert "[redacted]" in outcome.log_tail


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to", "fifo"])
def test_a_log_that_is_a_link_or_a_pipe_is_replaced(engine, tmp_path, kind):
    precious, log = tmp_path / "precious", tmp_path / "log"
    precious.write_text("mine")
    if kind == "fifo":
        os.mkfifo(log)
    else:
        getattr(log, kind)(precious)
    outcome, _ = run(engine, tmp_path, do="answer")
    assert outcome.answer is not None
    assert precious.read_text() == "mine"
    assert log.is_file()
    assert not log.is_symlink()
    assert "printed" in log.read_text()


def test_a_log_s_tail_is_read_from_its_end(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as stream:
        stream.truncate(10**10)  # sparse: ten gigabytes that nobody may read
        stream.seek(0, os.SEEK_END)
        stream.write(b"\nlast words\n")
    assert log_tail(log).endswith("last words")
    os.mkfifo(tmp_path / "pipe")
    assert log_tail(tmp_path / "pipe") == ""


def test_a_memory_limit_that_holds_kills_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    engine = LocalEngine("spawn", {"FTBENCH_TEST": "set"})

    def eat(size):
        return engine.run(
            WORKER,
            json.dumps({"do": "eat", "size": size}),
            log_file=tmp_path / "log",
            timeout_s=60.0,
            on_progress=lambda _: None,
            memory_limit_bytes=200 * 2**20,
        )

    small, large = eat(2**20), eat(400 * 2**20)
    assert small.answer is not None
    if small.limit != "enforced":  # this machine lets nobody make a memory group
        assert small.limit
        return
    assert (large.answer, large.exit_code, large.oom_killed) == (None, -9, True)
    assert small.oom_killed is False


def test_a_kill_without_a_limit_is_not_taken_for_lack_of_memory(engine, tmp_path):
    outcome, _ = run(engine, tmp_path, do="kill")
    assert not outcome.oom_killed


def test_log_tail(tmp_path):
    (tmp_path / "log").write_bytes("\n".join(map(str, range(100))).encode() + b"\n\xff")
    lines = log_tail(tmp_path / "log").splitlines()
    assert len(lines) == 20
    assert lines[0] == "81"
    assert log_tail(tmp_path / "none") == ""


def test_a_worker_whose_parent_is_gone_before_it_begins_ends_at_once(tmp_path):
    """It can't tell by its parent's PID, which is another process's by then."""
    code = """
import os, sys
from multiprocessing.connection import Connection
from ftbench.worker import entry
reading, writing = os.pipe()
os.close(reading)
entry.start("tests.unit.execute.engines.odd_worker", '{"do": "eat", "size": 1, "sleep": 600}',
            Connection(writing, readable=False), sys.argv[1], {})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], timeout=60)
    assert done.returncode == 1


def test_two_places_run_two_workers_at_once(tmp_path, monkeypatch):
    """Each waits until it sees the other: one after the other they would never end."""
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    engine = LocalEngine("spawn", {}, places=2)
    meeting = {"do": "meet", "folder": str(tmp_path)}
    futures = [
        engine.submit(
            Work(WORKER, json.dumps({**meeting, "me": a, "you": b}), tmp_path / a, 60.0),
            lambda _: None,
        )
        for a, b in (("a", "b"), ("b", "a"))
    ]
    outcomes = [future.result() for future in futures]
    assert [outcome.answer["met"] for outcome in outcomes] == ["b", "a"]


def test_cancelling_ends_all_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    engine = LocalEngine("spawn", {"FTBENCH_TEST": "set"}, places=2)
    works = [
        Work(WORKER, json.dumps({"do": "hang"}), tmp_path / str(number), 600.0)
        for number in range(3)  # the third has no place yet
    ]
    futures = [engine.submit(work, lambda _: None) for work in works]
    time.sleep(1.0)
    engine.cancel()
    assert futures[2].cancelled()
    assert all(future.done() for future in futures)
    assert all(future.result().answer is None for future in futures[:2])
    # The engine is as good as new.
    outcome, _ = run(engine, tmp_path, do="answer")
    assert outcome.answer["asked"] == {"do": "answer"}


WITHOUT_GUARD = """
from pathlib import Path
from ftbench.execute.engines.local import LocalEngine
print("once", flush=True)
engine = LocalEngine({isolation!r}, {{"FTBENCH_TEST": "set"}})
if {isolation!r} == "forkserver":
    import multiprocessing
    multiprocessing.get_context("forkserver").set_forkserver_preload([{server!r}])
outcome = engine.run({worker!r}, '{{"do": "answer"}}', log_file=Path("log"), timeout_s=60.0, on_progress=print)
print(outcome.exit_code, outcome.answer is not None)
"""


@pytest.mark.parametrize("isolation", ["forkserver", "spawn"])
def test_a_script_without_a_guard_is_not_run_in_its_worker(tmp_path, isolation):
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_GUARD.format(isolation=isolation, server=SERVER, worker=WORKER))
    environment = os.environ | {"PYTHONPATH": f"{Path.cwd()}{os.pathsep}{Path.cwd() / 'bench'}"}
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert ended.stdout.splitlines()[0] == "once"
    assert ended.stdout.splitlines()[-1] == "0 True", (tmp_path / "log").read_text()
    assert ended.stdout.count("once") == 1
    assert "once" not in (tmp_path / "log").read_text()


def test_other_processes_of_the_program_start_as_ever(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False
    )
    name = "init_main_from_path"
    with _without_main("ours"):
        assert spawn.get_preparation_data("theirs")[name] == str(tmp_path / "script.py")
        assert name not in spawn.get_preparation_data("ours")
    assert name in spawn.get_preparation_data("ours")
