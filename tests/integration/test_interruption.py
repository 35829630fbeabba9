"""A parent that is killed or interrupted: nothing finished is lost, nobody is left behind."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import FTBENCH, run

pytestmark = pytest.mark.integration


def workers_of(folder):
    """Return the PIDs of live processes that hold a log of this run directory open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "fd" / "1").readlink()).startswith(str(folder)):
                found.add(int(process.name))
        except OSError:
            continue
    return found


def wait_for(condition, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_parent_that_ends_in_mid_grid(tmp_path, number, code):
    folder = tmp_path / "run"
    records = folder / "records"
    parent = subprocess.Popen(
        [FTBENCH, "run", "smoke", "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, and what it starts, ignores Ctrl-C; a user's command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: records.is_dir() and len(list(records.glob("*.json"))) == 1)
    wait_for(lambda: workers_of(folder))
    parent.send_signal(number)
    _, stderr = parent.communicate(timeout=120)
    assert parent.returncode == code
    if number == signal.SIGINT:
        assert "finished cells are kept" in stderr
        assert "Traceback" not in stderr
    wait_for(lambda: not workers_of(folder), seconds=30)
    finished = {file: file.stat().st_mtime_ns for file in records.glob("*.json")}
    assert 1 <= len(finished) < 4
    again = run("smoke", folder)
    assert again.process.returncode == 0, again.process.stderr
    assert [record.status for record in again.records] == ["ok"] * 4
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert not list((folder / "checkpoints").glob("*-r*"))
