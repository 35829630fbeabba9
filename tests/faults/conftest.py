"""Faults: what is broken on purpose, how often, and what was lost. Run by `nox -s faults`.

Every test says what it injected into `reliability`, and the session ends with the table that the
README has.
"""

import dataclasses
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from ftbench.records.run_directory import RunDirectory
from tests.integration.conftest import FTBENCH, SMALL

# Six cells of about a second each, on a model that is tiny.
GRID = {
    **SMALL,
    "grid.max_length": "[16, 24, 32]",
    "grid.train_size": "[16, 32]",
    "run.cpu_tensors": "false",
}
CELLS = 6


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=30, help="how often the parent is killed")
    parser.addoption(
        "--rounds", type=int, default=2, help="how often each worker fault is injected"
    )


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a fault, how it was made, how often, how it ended, what was lost."""

    fault: str
    injected: str
    times: int
    became: str
    lost: str


_ROWS: list[Row] = []


@pytest.fixture
def reliability():
    """Return a function that books a fault, once its test has seen that it holds."""

    def book(fault, injected, times, became, lost="nothing"):
        _ROWS.append(Row(fault, injected, times, became, lost))

    return book


def pytest_terminal_summary(terminalreporter):
    if not _ROWS:
        return
    terminalreporter.section("reliability")
    terminalreporter.line("| fault | how it was injected | times | what it became | lost |")
    terminalreporter.line("| --- | --- | ---: | --- | --- |")
    merged = {}
    for row in _ROWS:
        key = (row.fault, row.injected, row.became, row.lost)
        merged[key] = merged.get(key, 0) + row.times
    for (fault, injected, became, lost), times in merged.items():
        terminalreporter.line(f"| {fault} | {injected} | {times} | {became} | {lost} |")


class Parent:
    """An `ftbench run` of the grid as a process of its own, all of whose descendants can be found."""

    def __init__(self, folder, *arguments, settings=GRID, wrapper=(), preexec=None, **options):
        def prepare():
            # A shell's background job, and what it starts, ignores Ctrl-C; a user's command does not.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if preexec is not None:
                preexec()

        self.folder = Path(folder)
        self.mark = uuid.uuid4().hex
        given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        self.process = subprocess.Popen(
            [*wrapper, FTBENCH, "run", "smoke", "--out", str(folder), *given, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"FTBENCH_MARK": self.mark},
            preexec_fn=prepare,
            **options,
        )

    def family(self):
        """Return the PIDs of all living processes that come from this parent, itself included."""
        mark = f"FTBENCH_MARK={self.mark}".encode()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and mark in (process / "environ").read_bytes():
                    found.add(int(process.name))
            except (OSError, IndexError):
                continue
        return found

    def records(self):
        """Return the bytes of each record file, by name."""
        files = sorted((self.folder / "records").glob("*.json"))
        return {file.name: file.read_bytes() for file in files}

    def wait(self, seconds=300):
        """Return (exit code, stdout, stderr) once it has ended."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def kill(self, number=signal.SIGKILL):
        """Send a signal to the parent alone, and wait for its end."""
        self.process.send_signal(number)
        return self.wait(60)


def wait_for(condition, seconds=60.0, pause=0.02):
    """Wait until a condition holds; fail after some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)


def nobody_left(parent, seconds=15.0):
    """Assert that no process of a parent lives on."""
    wait_for(lambda: not parent.family(), seconds)


def figures(folder):
    """Return what must be the same however often a run was interrupted, by identity.

    Not times and peaks, which are measured; losses to the last bits that threads may move.
    """
    return {
        record.identity: (
            record.status,
            record.seed,
            record.attempt,
            record.measurement.scores,
            round(record.measurement.eval_loss, 5),
            round(record.measurement.train_loss, 5),
            {n: (p.samples, p.real_tokens, p.padded_tokens, p.entries) for n, p in phases.items()},
        )
        for record in RunDirectory(Path(folder)).records()
        if (phases := record.measurement.phases)
    }


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory):
    """Keep what these runs tokenise out of the user's cache."""
    before = os.environ.get("HF_DATASETS_CACHE")
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))
    yield
    if before is None:
        del os.environ["HF_DATASETS_CACHE"]
    else:
        os.environ["HF_DATASETS_CACHE"] = before


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The figures of the grid, run once without any fault, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    parent = Parent(folder)
    code, out, err = parent.wait()
    assert code == 0, out + err
    found = figures(folder)
    assert len(found) == CELLS
    return found, time.monotonic() - began
