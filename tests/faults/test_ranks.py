"""Faults of one of two ranks: the cell has a status that names the rank, and no process is left."""

import os
import signal
from pathlib import Path

from ftbench.records.run_directory import RunDirectory
from tests.faults.conftest import Parent, nobody_left, wait_for
from tests.integration.conftest import SMALL
from tests.rank_faults import (
    HUNG,
    KILLED,
    NO_MEMORY,
    RAISED,
    RANKS,
    STUCK,
    assert_nobody_lives,
    assert_told,
    run_with_faults,
)

KINDS = (KILLED, RAISED, NO_MEMORY, HUNG)


def test_a_rank_that_breaks_is_named_and_nobody_is_left(
    tmp_path, monkeypatch, pytestconfig, reliability
):
    """Each fault on each rank, twenty of them in two rounds; a single round leaves out the second kind of hang."""
    rounds = pytestconfig.getoption("--rounds")
    kinds = KINDS if rounds == 1 else (*KINDS, STUCK)
    faults = [(rank, fault) for fault in kinds for rank in range(RANKS)]
    for number in range(rounds):
        records, sessions = run_with_faults(tmp_path / f"run{number}", monkeypatch, faults)
        for record, (rank, fault) in zip(records, faults, strict=True):
            assert_told(record, rank, fault)
        assert_nobody_lives(sessions)
    for rank, fault in faults:
        how = f"{fault.how} at step 3 of rank {rank}"
        reliability(f"one of {RANKS} ranks fails", how, rounds, f"`{fault.status}`")


# Two ranks that train for as long as nobody ends them.
ENDLESS = {
    **SMALL,
    "grid.max_length": "[16, 18]",
    "grid.per_device_train_batch_size": "[4]",
    "grid.train_size": "[32]",
    "training.num_train_epochs": "100000",
    "training.eval_strategy": '"no"',
    "training.save_strategy": '"no"',
    "training.load_best_model_at_end": "false",
    "num_processes": "2",
    "run.cpu_tensors": "false",
    "run.timeout_s": "600",
}


def training(folder):
    """Return a parent whose two ranks are training, and the PID of their launcher."""
    parent = Parent(folder, settings=ENDLESS)
    wait_for(lambda: _launchers(parent), 120)
    return parent, _launchers(parent).pop()


def _launchers(parent):
    """Return the leaders of sessions in which at least two of a parent's processes are children of the leader."""
    children = {}
    for pid in parent.family():
        try:
            fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        above, session = int(fields[1]), int(fields[3])
        if above == session:
            children.setdefault(session, set()).add(pid)
    return {
        leader for leader, of in children.items() if len(of) >= RANKS and leader in parent.family()
    }


def test_no_rank_outlives_its_launcher_or_its_parent(tmp_path, reliability):
    parent, launcher = training(tmp_path / "run")
    os.kill(launcher, signal.SIGKILL)
    wait_for(lambda: parent.records(), 60)
    wait_for(lambda: _launchers(parent) - {launcher}, 60)  # those of the next cell
    (record,) = RunDirectory(tmp_path / "run").records()
    assert record.status == "crashed"
    assert_nobody_lives({launcher})
    parent.kill()
    nobody_left(parent)
    reliability("launcher of the ranks killed", "SIGKILL", 1, "`crashed`")
    reliability("parent killed while ranks train", "SIGKILL", 1, "no process left")
