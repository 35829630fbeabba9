"""Processes beside a cell's own that are killed: the sampler, the fork server, the prepare stage's worker."""

import os
import signal
from pathlib import Path

from ftbench.records.run_directory import RunDirectory
from tests.faults.conftest import CELLS, Parent, nobody_left, wait_for


def of_kind(parent, words):
    """Return the PIDs of a parent's family whose command line has these words."""
    found = set()
    for pid in parent.family():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if words in line:
            found.add(pid)
    return found


def kill_one(parent, words):
    wait_for(lambda: of_kind(parent, words), 120)
    for pid in of_kind(parent, words):
        os.kill(pid, signal.SIGKILL)


def test_a_sampler_that_is_killed(tmp_path, reliability):
    """The cell goes on; what was sampled is absent, with the reason."""
    parent = Parent(tmp_path / "run")
    kill_one(parent, "measure.sampler")
    code, out, err = parent.wait()
    assert code == 0, out + err
    records = RunDirectory(tmp_path / "run").records()
    assert [record.status for record in records] == ["ok"] * CELLS
    broken = [record for record in records if "sampling" in record.measurement.absent]
    assert len(broken) == 1
    assert broken[0].measurement.memory.peak_pss_bytes is None
    assert broken[0].measurement.memory.peak_rss_bytes > 0
    nobody_left(parent)
    reliability("sampler killed", "SIGKILL", 1, "`ok`, without sampled figures", "sampled figures")


def test_a_fork_server_that_is_killed(tmp_path, reliability):
    """Its worker ends with it; the next cell has a new server."""
    parent = Parent(tmp_path / "run")
    wait_for(lambda: len(parent.records()) >= 1, 120)
    kill_one(parent, "multiprocessing.forkserver")
    code, out, err = parent.wait()
    assert code in (0, 1), out + err
    statuses = [record.status for record in RunDirectory(tmp_path / "run").records()]
    assert len(statuses) == CELLS
    assert statuses.count("ok") >= CELLS - 1
    assert set(statuses) <= {"ok", "crashed"}
    nobody_left(parent)
    again = Parent(tmp_path / "run")
    assert again.wait()[0] == 0
    reliability("fork server killed", "SIGKILL", 1, "one cell `crashed`; resumed", "nothing")


def test_a_prepare_stage_that_is_killed(tmp_path, reliability):
    """Nothing was run: one line, exit code 2, and nobody is left."""
    parent = Parent(tmp_path / "run")
    log = tmp_path / "run" / "logs" / "prepare.log"

    def preparing():
        found = set()
        for pid in parent.family():
            try:
                if Path(f"/proc/{pid}/fd/1").readlink() == log:
                    found.add(pid)
            except OSError:
                continue
        return found

    wait_for(preparing, 120)
    for pid in preparing():
        os.kill(pid, signal.SIGKILL)
    code, _, err = parent.wait()
    assert code == 2
    assert "prepare stage" in err
    assert "Traceback" not in err
    nobody_left(parent)
    reliability("prepare stage killed", "SIGKILL", 1, "a clear refusal, exit code 2", "nothing")
