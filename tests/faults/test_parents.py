"""Parents that are killed, interrupted, doubled or out of disk: finished cells stay, nobody is left."""

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ftbench.records.run_directory import RunDirectory
from tests.faults.conftest import CELLS, GRID, Parent, figures, nobody_left, wait_for

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def test_a_parent_killed_at_random_points(tmp_path, pytestconfig, undisturbed, reliability):
    """Kill, resume, kill again, then let the last one finish: the grid is the undisturbed one.

    Half of the moments are drawn from the whole run, half from shortly after a record was written.
    A grid that is done before all kills are used up is begun anew in another folder.
    """
    expected, whole_s = undisturbed
    kills = pytestconfig.getoption("--kills")
    rng = random.Random(20261124)
    used, grids = 0, 0
    while used < kills:
        folder = tmp_path / f"run{grids}"
        grids += 1
        kept = {}
        while True:
            parent = Parent(folder)
            killed = used < kills and interrupt(parent, rng, whole_s, len(kept))
            used += killed
            code, out, err = parent.wait()
            nobody_left(parent)
            now = parent.records()
            assert {name: now.get(name) for name in kept} == kept, "a finished cell was touched"
            kept = now
            if not killed:
                assert code == 0, out + err
                break
        assert figures(folder) == expected
        assert not list((folder / "damaged").iterdir())
        assert not list((folder / "superseded").iterdir()), "a finished cell was run twice"
        assert not list((folder / "checkpoints").iterdir())
    reliability(
        "parent killed in the middle of a grid",
        f"SIGKILL, SIGTERM or SIGINT at random points ({grids} grids)",
        used,
        "resumed; the grid is the undisturbed one",
    )


def interrupt(parent, rng, whole_s, there):
    """Kill a parent at a random point; return whether it was still running."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, whole_s))
    else:
        target = there + rng.randint(1, 2)
        with contextlib.suppress(AssertionError):
            wait_for(
                lambda: parent.process.poll() is not None or len(parent.records()) >= target,
                60,
                0.002,
            )
        time.sleep(rng.choice((0, rng.uniform(0, 0.05), rng.uniform(0, 1))))
    if parent.process.poll() is not None:
        return False
    parent.process.send_signal(rng.choice(SIGNALS))
    return True


def test_ctrl_c_as_a_terminal_sends_it(tmp_path, reliability):
    """A terminal sends SIGINT to the whole foreground group; the worker has a session of its own."""
    parent = Parent(tmp_path / "run", start_new_session=True)
    wait_for(lambda: len(parent.records()) >= 1)
    os.killpg(parent.process.pid, signal.SIGINT)
    code, _, err = parent.wait()
    assert code == 130
    assert "finished cells are kept" in err
    assert "Traceback" not in err
    nobody_left(parent)
    kept = parent.records()
    again = Parent(tmp_path / "run")
    assert again.wait()[0] == 0
    assert {name: again.records()[name] for name in kept} == kept
    reliability("Ctrl-C", "SIGINT to the foreground process group", 1, "exit code 130; resumed")


def test_a_worker_in_native_code_when_its_parent_is_killed(tmp_path, reliability):
    """The worker holds the GIL in native code and hears nothing; the kernel ends it all the same."""
    program = """
import sys
from pathlib import Path
from ftbench.execute.engines.local import LocalEngine
engine = LocalEngine(sys.argv[1], {})
engine.run("tests.faults.deaf_worker", "{}", log_file=Path(sys.argv[2]), timeout_s=600,
           on_progress=lambda p: Path(sys.argv[3]).write_text(str(p.step)))
"""
    for isolation in ("forkserver", "spawn"):
        log, told = tmp_path / f"{isolation}.log", tmp_path / f"{isolation}.pid"
        path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path}
        code = ["python", "-c", program, isolation, str(log), str(told)]
        import sys

        code[0] = sys.executable
        parent = subprocess.Popen(code, env=environment)
        wait_for(lambda told=told: told.exists() and told.read_text(), 120)
        worker = int(told.read_text())
        children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        assert len(children) == 1  # a data-loader process, so to speak
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for pid in (worker, *map(int, children)):
            wait_for(lambda pid=pid: not alive(pid), 15)
    reliability(
        "parent killed while a worker is in native code",
        "SIGKILL while worker and a child of it hold the GIL in C",
        2,
        "no process left",
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_two_parents_on_one_run_directory(tmp_path, reliability):
    folder = tmp_path / "run"
    rounds = 3
    for _ in range(rounds):
        parents = [Parent(folder), Parent(folder)]
        ends = [parent.wait() for parent in parents]
        codes = sorted(code for code, _, _ in ends)
        # Either one is refused, or the second came so late that all was there.
        assert codes in ([0, 2], [0, 0])
        for code, _, err in ends:
            assert code == 0 or "another ftbench is running here" in err
        assert len(parents[0].records()) == CELLS
        for record in RunDirectory(folder).records():
            assert (record.status, record.attempt) == ("ok", 0)
        for file in sorted((folder / "records").iterdir())[:3]:
            file.unlink()
    reliability("two parents on one run directory", "started together", rounds, "one is refused")


DAMAGE = {
    "emptied": lambda data, rng: b"",
    "cut off": lambda data, rng: data[: rng.randrange(1, len(data) - 2)],
    "a byte changed": lambda data, rng: flip(data, rng),
    "a figure edited by hand": lambda data, rng: data.replace(b'"train_s": ', b'"train_s": 1'),
    "overwritten with zeros": lambda data, rng: bytes(len(data)),
}


def flip(data, rng):
    at = data.index(b'"measurement"') + rng.randrange(50, 500)
    while data[at] in b' \n"':
        at += 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_damaged_records(tmp_path, undisturbed, pytestconfig, reliability):
    folder = tmp_path / "run"
    rng = random.Random(7)
    assert Parent(folder).wait()[0] == 0
    rounds = pytestconfig.getoption("--rounds")
    for _ in range(rounds):
        files = sorted((folder / "records").iterdir())
        rng.shuffle(files)
        broken, whole = files[: len(DAMAGE)], files[len(DAMAGE) :]
        kept = {file.name: file.read_bytes() for file in whole}
        for file, damage in zip(broken, DAMAGE.values(), strict=True):
            file.write_bytes(damage(file.read_bytes(), rng))
        before = len(list((folder / "damaged").iterdir()))
        parent = Parent(folder)
        code, out, err = parent.wait()
        assert code == 0, out + err
        assert out.count("moved to") == len(DAMAGE)
        assert len(list((folder / "damaged").iterdir())) == before + len(DAMAGE)
        assert {name: parent.records()[name] for name in kept} == kept
        assert figures(folder) == undisturbed[0]
    for name in DAMAGE:
        reliability("damaged record", name, rounds, "moved away, its cell run again", "that record")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB; None where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=64m"):
        yield None
        return
    yield folder
    libc.umount2(str(folder).encode(), 2)  # MNT_DETACH


def test_a_disk_that_fills_up(small_disk, undisturbed, reliability):
    if small_disk is None:  # the unit tests of the store raise ENOSPC all the same
        reliability("full disk", "tmpfs", 0, "not to be had here: no right to mount")
        return
    folder = small_disk / "run"
    settings = GRID | {"training.save_strategy": '"no"'}
    parent = Parent(folder, settings=settings)
    wait_for(lambda: len(parent.records()) >= 2 or parent.process.poll() is not None)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    code, _, err = parent.wait()
    assert code == 2, err
    assert "disk" in err
    assert "Traceback" not in err
    kept = {name: data for name, data in parent.records().items() if b'"status": "ok"' in data}
    assert len(kept) >= 2
    filler.unlink()
    again = Parent(folder, settings=settings)
    code, out, err = again.wait()
    assert code == 0, out + err
    now = again.records()
    assert {name: now[name] for name in kept} == kept
    assert len(now) == CELLS
    reliability(
        "full disk",
        "a 64 MiB file system filled to the last byte in the middle of a grid",
        1,
        "a clear refusal; resumed",
        "at most the running cell",
    )
