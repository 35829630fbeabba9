import os
import signal
import time

import pytest

from ftbench.records.messages import Progress
from ftbench.worker.launch import watch as watching
from ftbench.worker.launch.board import Board
from ftbench.worker.launch.watch import End, Watch


def child(board, rank, end):
    """Return the PID of a forked process that is on the board, and then does what `end` says."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        board.begin(rank, os.getpid())
        os.write(told, b".")
        end()
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return pid


def wait_for(watch, ends):
    until = time.monotonic() + 60
    while len(watch.ends) < ends:
        assert time.monotonic() < until, watch.ends
        watch.join(0.01)


def test_ends_are_seen_in_order_with_their_exit_codes():
    board = Board(2)
    pids = [child(board, rank, signal.pause) for rank in range(2)]
    watch = Watch(board, lambda progress: None)
    watch.start()
    os.kill(pids[1], signal.SIGKILL)
    wait_for(watch, 1)
    os.kill(pids[0], signal.SIGTERM)
    wait_for(watch, 2)
    watch.stop()
    assert watch.ends == [End(1, -9), End(0, -15)]
    # They are left to their parent.
    assert [os.waitpid(pid, 0)[0] for pid in pids] == pids


def test_a_rank_that_is_stopped_is_ended_after_another_has_failed(monkeypatch):
    monkeypatch.setattr(watching, "_GRACE_S", 0.0)
    board = Board(2)
    stopped = child(board, 0, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    failing = child(board, 1, lambda: os._exit(3))
    watch = Watch(board, lambda progress: None)
    watch.start()
    wait_for(watch, 2)
    watch.stop()
    assert watch.ends == [End(1, 3), End(0, -9)]
    for pid in (stopped, failing):
        os.waitpid(pid, 0)


@pytest.mark.parametrize("written", [True, False])
def test_positions_are_reported_when_they_change(monkeypatch, written):
    monkeypatch.setattr(watching, "_REPORT_EVERY_S", 0.0)
    board, reported = Board(1), []
    pid = child(board, 0, signal.pause)
    if written:
        board.advance(0, Progress(phase="train", step=2, max_steps=4))
    watch = Watch(board, reported.append)
    watch.start()
    os.kill(pid, signal.SIGKILL)
    wait_for(watch, 1)
    watch.stop()
    os.waitpid(pid, 0)
    assert [progress.step for progress in reported] == [2] * written
