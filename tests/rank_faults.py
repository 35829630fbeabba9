"""Faults of one of two ranks: how each is injected, and what must become of it."""

import dataclasses
import json
import multiprocessing.forkserver
import os
import time
from pathlib import Path

from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.runner import Runner
from ftbench.plan.devices import Placement
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import load_profile
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.run_directory import RunDirectory
from tests.integration.conftest import SMALL

RANKS = 2
TIMEOUT_S = 25  # for the prepare stage, too, also beside other work
_LENGTHS = tuple(range(16, 36, 2))
_EXAMPLES = 32


@dataclasses.dataclass(frozen=True)
class RankFault:
    """A fault of a rank: its name in `faulty_worker`, the status of the cell, what the failure says."""

    name: str
    status: str
    message: str
    how: str


KILLED = RankFault("sigkill", "crashed", "rank {rank} was killed by signal 9", "SIGKILL")
RAISED = RankFault("exception", "crashed", "rank {rank}: ValueError: planted", "an exception")
HUNG = RankFault("hang", "timeout", "waited for rank {rank}", "sleep")
STUCK = RankFault(
    "hang_in_native_code", "timeout", "waited for rank {rank}", "native code that holds the GIL"
)
NO_MEMORY = RankFault("host_oom_by_rlimit", "oom", "can't allocate memory", "RLIMIT_AS")


def main(body, emit):
    """Do nothing, as a worker: its engine has one ready then."""
    return {}


class Silent:
    def __getattr__(self, name):
        return lambda *args: None


def run_with_faults(folder, monkeypatch, faults):
    """Run a cell of two processes for each (rank, fault); return the records in order, and the ranks' sessions."""
    lengths = _LENGTHS[: len(faults)]
    settings = {
        **SMALL,
        "grid.max_length": list(lengths),
        "grid.per_device_train_batch_size": [4],
        "grid.train_size": [_EXAMPLES],
        "num_processes": RANKS,
        "run.cpu_tensors": "false",
        "run.timeout_s": TIMEOUT_S,
    }
    profile = load_profile("smoke", [f"{name}={value}" for name, value in settings.items()])
    grid = expand(profile, resolve_model(profile.workload), resolve_data(profile.workload))
    plan = {
        f"{n}-{_EXAMPLES}": (rank, fault.name)
        for n, (rank, fault) in zip(lengths, faults, strict=True)
    }
    sessions = Path(folder).with_suffix(".sessions")
    file = Path(folder).with_suffix(".faults.json")
    file.write_text(json.dumps({**plan, "sessions": str(sessions)}))
    environment = {**Placement(kind="cpu").environment, "FTBENCH_FAULTS": str(file)}
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
        patch.setattr("ftbench.execute.runner.CELL", "tests.faults.faulty_rank")
        # A server that another test started may not have this path.
        multiprocessing.forkserver._forkserver._stop()
        engine = LocalEngine("forkserver", environment)
        # The server imports torch, for longer than a cell may take.
        engine.run(__name__, "{}", log_file=file.with_suffix(".log"), timeout_s=120.0)
        directory = RunDirectory.create(Path(folder))
        records = Runner(profile, grid, directory, engine, Placement(kind="cpu"), Silent()).run()
    by_length = {record.cell.max_length: record for record in records}
    return [by_length[n] for n in lengths], set(map(int, sessions.read_text().split()))


def assert_nobody_lives(sessions, seconds=10.0):
    """Assert that all processes in these sessions end; a killed one takes a moment."""
    deadline = time.monotonic() + seconds
    while left := _living(sessions):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def _living(sessions):
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (process / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        except (OSError, ValueError):
            continue
        if state != "Z" and int(session) in sessions:
            found.add(int(process.name))
    return found


def assert_told(record, rank, fault):
    """Assert that a record says which rank failed, and how."""
    assert record.status == fault.status, record.failure
    assert record.failure.rank == rank, record.failure
    assert fault.message.format(rank=rank) in record.failure.message
    assert record.measurement is None
    if fault is RAISED:
        assert "planted" in record.failure.log_tail
    if fault is HUNG:
        assert record.failure.step is not None
