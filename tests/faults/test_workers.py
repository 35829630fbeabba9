"""Workers that break: each becomes a status, the run goes on, and a resume loses and repeats nothing."""

import dataclasses
import itertools
import json
import os
import resource
from pathlib import Path

import pytest

from ftbench.execute.engines.cgroup import CgroupUnavailable, MemoryCgroup
from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.runner import Runner
from ftbench.plan.devices import Placement
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import load_profile
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.run_directory import RunDirectory
from tests.faults.conftest import GRID, Parent, nobody_left

TIMEOUT_S = 20


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    status: str
    message: str
    says: str  # in the table
    how: str


FAULTS = [
    Fault("sigkill", "crashed", "killed by signal 9", "worker killed", "SIGKILL at step 3"),
    Fault(
        "segfault", "crashed", "killed by signal 11", "crash in native code", "null pointer read"
    ),
    Fault("abort", "crashed", "killed by signal 6", "crash in native code", "abort()"),
    Fault("exception", "crashed", "ValueError: planted", "exception", "raised at step 3"),
    Fault("silent_exit", "crashed", "without an answer", "worker exits in silence", "_exit(0)"),
    Fault(
        "half_a_line", "crashed", "without an answer", "answer cut off", "half a line, then exit"
    ),
    Fault(
        "nonsense",
        "invalid",
        "not a valid measurement",
        "answer of no meaning",
        "well-formed nonsense",
    ),
    Fault("hang", "timeout", "time limit", "hang", "sleep at step 3"),
    Fault("hang_in_native_code", "timeout", "time limit", "hang", "native code that holds the GIL"),
    Fault("stopped", "timeout", "time limit", "hang", "SIGSTOP"),
    Fault("cuda_oom", "oom", "CUDA out of memory", "out of memory, CUDA", "torch.OutOfMemoryError"),
    Fault("host_oom_by_rlimit", "oom", "can't allocate memory", "out of memory, host", "RLIMIT_AS"),
    Fault("disk_full", "crashed", "No space left", "disk full in a worker", "ENOSPC at step 3"),
]
PER_RUN = 4  # faults in a grid of six cells: two stay whole


class Silent:
    def __getattr__(self, name):
        return lambda *args: None


def run(folder, monkeypatch, plan=None):
    """Run the grid in this process, cells of the plan with its faults, and return the records."""
    settings = [f"{name}={value}" for name, value in GRID.items()]
    profile = load_profile("smoke", [*settings, f"run.timeout_s={TIMEOUT_S}"])
    grid = expand(profile, resolve_model(profile.workload), resolve_data(profile.workload))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
        environment = dict(Placement(kind="cpu").environment)
        if plan is not None:
            file = Path(folder).with_suffix(".faults.json")
            file.write_text(json.dumps(plan))
            environment["FTBENCH_FAULTS"] = str(file)
            patch.setattr("ftbench.execute.runner.CELL", "tests.faults.faulty_worker")
        engine = LocalEngine("forkserver", environment)
        directory = RunDirectory.create(Path(folder))
        return Runner(profile, grid, directory, engine, Placement(kind="cpu"), Silent()).run()


def groups():
    names = [fault.name for fault in FAULTS]
    return [names[i : i + PER_RUN] for i in range(0, len(names), PER_RUN)]


@pytest.mark.parametrize("names", groups(), ids="+".join)
def test_a_broken_worker_is_a_status_and_the_run_goes_on(
    tmp_path, monkeypatch, pytestconfig, reliability, names
):
    known = {fault.name: fault for fault in FAULTS}
    cells = [f"{n}-{d}" for n, d in itertools.product((16, 24, 32), (16, 32))]
    rounds = pytestconfig.getoption("--rounds")
    for number in range(rounds):
        folder = tmp_path / f"run{number}"
        turned = cells[number % len(cells) :] + cells[: number % len(cells)]
        plan = dict(zip(turned, names, strict=False))
        records = run(folder, monkeypatch, plan)
        for record in records:
            fault = known.get(plan.get(f"{record.cell.max_length}-{record.cell.train_size}", ""))
            if fault is None:
                assert record.status == "ok"
                continue
            assert record.status == fault.status, record.failure
            assert fault.message in record.failure.message
            assert record.measurement is None
        whole = {
            file.name: file.read_bytes()
            for file in (folder / "records").iterdir()
            if json.loads(file.read_bytes())["status"] == "ok"
        }
        assert len(whole) == len(cells) - len(names)
        again = run(folder, monkeypatch)
        assert {record.status for record in again} == {"ok"}
        assert {n: (folder / "records" / n).read_bytes() for n in whole} == whole
        assert not list((folder / "checkpoints").iterdir())
    for name in names:
        fault = known[name]
        reliability(fault.says, fault.how, rounds, f"`{fault.status}`")


# Large enough that a batch of 512 needs gigabytes, small enough that one of 8 takes seconds.
WIDE = {
    "workload.weights": '"random"',
    "workload.config.num_hidden_layers": "2",
    "grid.max_length": "[128]",
    "grid.per_device_train_batch_size": "[4, 256]",
    "grid.train_size": "[512]",
    "training.max_steps": "2",
    "training.eval_strategy": '"no"',
    "training.save_strategy": '"no"',
    "run.cpu_tensors": "false",
}


def oom_run(folder, **options):
    parent = Parent(folder, settings=WIDE, **options)
    code, out, err = parent.wait()
    nobody_left(parent)
    records = RunDirectory(folder).records()
    return code, out + err, {r.cell.per_device_train_batch_size: r for r in records}


def test_memory_that_really_runs_out_under_a_control_group(tmp_path, reliability):
    """The whole run is put into a group of 2 GiB: the kernel kills the worker that wants more."""
    try:
        group = MemoryCgroup.own().make(2 * 2**30)
    except CgroupUnavailable as reason:
        reliability("out of memory, host", "control group", 0, f"not to be had here: {reason}")
        return  # the next test does the same through an rlimit
    as_one = group.path / "memory.oom.group"
    if as_one.exists():  # version 2: here the parent is in the group as well, and must live
        as_one.write_text("0")
    procs_file = str(group.procs_file)
    try:
        code, said, records = oom_run(
            tmp_path / "run", preexec=lambda: Path(procs_file).write_text(str(os.getpid()))
        )
    finally:
        group.remove()
    assert code == 1, said
    assert records[4].status == "ok"
    assert records[256].status == "oom", records[256].failure
    assert "its control group ran out of memory" in records[256].failure.message
    reliability("out of memory, host", "a real kill by the kernel (control group)", 1, "`oom`")


def test_memory_that_really_runs_out_under_an_rlimit(tmp_path, reliability):
    """The whole run gets RLIMIT_DATA: torch raises a plain RuntimeError where it wants more."""

    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, 4 * 2**30))

    code, said, records = oom_run(tmp_path / "run", preexec=limit)
    assert code == 1, said
    assert records[4].status == "ok", records[4].failure
    assert records[256].status == "oom", records[256].failure
    assert "can't allocate memory" in records[256].failure.message
    reliability("out of memory, host", "RLIMIT_DATA over the whole run", 1, "`oom`")
