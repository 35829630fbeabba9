"""A parent that is killed or interrupted: nothing finished is lost, nobody is left behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import FTBENCH, SMALL, run, some_long

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


@pytest.mark.parametrize(
    ("number", "code"), some_long([(signal.SIGINT, 130), (signal.SIGKILL, -9)])
)
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


VERBS = {
    "plan": ("plan", "smoke"),
    "predict": ("predict", "smoke", "--gpu", "t4"),
    "explain": ("explain", "smoke", "--cell", "max_length=16,per_device_train_batch_size=2"),
    "run": ("run", "smoke", "--out", "run"),
    "frontier": ("frontier", "smoke", "--limit", "2GiB", "--max-batch", "8", "--out", "run"),
    "estimate": ("estimate", "smoke", "--train-size", "1000", "--gpu", "l4"),
    "baseline": ("baseline", "write", "smoke", "--out", "baseline.json"),
    "gate": ("gate", "memory"),
    "report": ("report", "none"),
    "schema": ("schema",),
}


@pytest.mark.parametrize("seconds", some_long([0.08, 0.4, 5.0, 2.0]))
@pytest.mark.parametrize("verb", some_long(VERBS))
def test_ctrl_c_in_any_verb(tmp_path, verb, seconds):
    """As a terminal sends it, to all processes; while libraries are imported, and later."""
    process = subprocess.Popen(
        [FTBENCH, *VERBS[verb]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )
    time.sleep(seconds)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # It may have ended before the signal. In its first moments, before any code of ours, Python itself answers:
    # by a traceback, by the signal, or, while it imports `site`, with 1.
    early = seconds < 0.1
    if not early:
        assert "Traceback" not in out + err
        assert "Interrupt" not in out + err
    assert process.returncode in ((0, 2, 130, 1, -signal.SIGINT) if early else (0, 2, 130))
    assert ("interrupted" in err) == (process.returncode == 130)
    wait_for(lambda: not group_of(process.pid), seconds=30)


def group_of(group):
    """Return the PIDs of the processes in a group."""
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False)
    return found.stdout.split()


LOADERS = ("default", "forkserver", "spawn")


@pytest.mark.parametrize("start", some_long(LOADERS))
def test_a_cell_with_loader_processes_that_is_terminated_leaves_none(tmp_path, start):
    """Workers of a loader that starts them by a server or anew are no children of the cell's fork."""
    folder = tmp_path / "run"
    settings = {
        **SMALL,
        "training.dataloader_num_workers": 2,
        "training.num_train_epochs": 1000,
        **({} if start == "default" else {"training.dataloader_multiprocessing_context": start}),
    }
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    parent = subprocess.Popen(
        [FTBENCH, "run", "smoke", "--out", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(workers_of(folder)) >= 3)  # the cell's, and its loader's
    parent.send_signal(signal.SIGTERM)
    _, stderr = parent.communicate(timeout=120)
    assert parent.returncode == 143
    assert "Traceback" not in stderr
    wait_for(lambda: not workers_of(folder), seconds=30)


@pytest.mark.parametrize("start", some_long(LOADERS[1:]))
def test_a_killed_parent_leaves_no_loader_process_either(tmp_path, start):
    folder = tmp_path / "run"
    settings = {
        **SMALL,
        "training.dataloader_num_workers": 2,
        "training.num_train_epochs": 1000,
        "training.dataloader_multiprocessing_context": start,
    }
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    command = [FTBENCH, "run", "smoke", "--out", str(folder), *options]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(workers_of(folder)) >= 3)
    parent.kill()
    parent.wait(30)
    wait_for(lambda: not workers_of(folder), seconds=60)
