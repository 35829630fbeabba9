"""The runner with a fake engine: instant, and exact about what is asked of the workers."""

import json
from pathlib import Path

import pytest

from ftbench.analysis.tables.cells_table import cells_table
from ftbench.base.errors import (
    EnvironmentMismatch,
    ProfileError,
    RunDirectoryError,
    WorkerError,
    WorkloadError,
)
from ftbench.execute.cpu_tensors import TWO_STEP_PASS
from ftbench.execute.engines.base import Outcome
from ftbench.execute.jobs import Job, plan_jobs
from ftbench.execute.prediction_worker import PREDICT
from ftbench.execute.prepare import PREPARE
from ftbench.execute.ranks import LAUNCH
from ftbench.execute.runner import CELL, Runner, checkpoint_bytes
from ftbench.plan.devices import Placement
from ftbench.records.messages import Progress
from ftbench.records.prediction import PredictRequest, Refused
from ftbench.records.run_directory import RunDirectory
from tests.engines import InstantEngine
from tests.factories import (
    MIB,
    cell,
    device,
    environment,
    figure,
    grid,
    measurement,
    predicted_card,
    predicted_cell,
    predictions,
    preparation,
    profile,
    run_warning,
)


def outcome(**changes):
    fields = {"answer": None, "refusal": None, "exit_code": 0, "timed_out": False}
    return Outcome(**(fields | {"wall_s": 10.5, "log_tail": "the log"} | changes))


OK = {"status": "ok", "measurement": measurement().model_dump(mode="json")}


TRIED = {
    "status": "ok",
    "two_step": {
        "phases": {
            "first_steps": {"peak_cpu_tensors_bytes": 700},
            "evaluation": {"peak_cpu_tensors_bytes": 900},
        },
        "memory": {"peak_cpu_tensors_bytes": 900},
        "absent": {"save": "nothing is saved"},
    },
}


class FakeEngine(InstantEngine):
    """Answers prepare from a factory and cells from a script, by their place in the run."""

    def __init__(self, script=(), **prepared):
        self.requests = []
        self._script = list(script)
        self._prepared = preparation(**prepared).model_dump(mode="json")
        self.prepare_outcome = None
        self.two_step_outcome = outcome(answer=TRIED)
        self.predict_outcome = None

    def run(self, module, request, *, log_file, timeout_s, on_progress):
        self.requests.append((module, json.loads(request), timeout_s))
        if module == PREPARE:
            return self.prepare_outcome or outcome(answer=self._prepared)
        if module == TWO_STEP_PASS:
            return self.two_step_outcome
        if module == PREDICT:
            return self.predict_outcome
        return self._script.pop(0) if self._script else outcome(answer=OK)

    def cells(self):
        return [body for module, body, _ in self.requests if module == CELL]

    def two_steps(self):
        return [body for module, body, _ in self.requests if module == TWO_STEP_PASS]


class Silent:
    def __getattr__(self, name):
        return lambda *args: None


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run")


def run(directory, engine, profile_=None, grid_=None, device_="cpu", how=None, **options):
    choice = Placement(kind=device_, devices=("GPU-1",) if device_ == "cuda" else ())
    cells, how = grid_ or grid(), how or {}
    runner = Runner(profile_ or profile(), cells, directory, engine, choice, Silent(), **how)
    return runner.run(**options)


def test_every_cell_becomes_a_record(directory):
    records = run(directory, FakeEngine())
    assert [r.status for r in records] == ["ok"] * 4
    assert sorted(r.identity for r in directory.records()) == sorted(r.identity for r in records)


def test_the_same_command_again_does_nothing(directory):
    first = run(directory, FakeEngine())
    engine = FakeEngine()
    assert run(directory, engine) == first
    assert engine.requests == []


def test_only_missing_cells_are_run(directory):
    part = grid().only({"max_length": 16})
    run(directory, FakeEngine(), grid_=part)
    engine = FakeEngine()
    assert len(run(directory, engine)) == 4
    assert {body["cell"]["max_length"] for body in engine.cells()} == {32}


def test_a_cell_that_failed_is_tried_again(directory):
    crashed = outcome(exit_code=-11)
    run(directory, FakeEngine([crashed]))
    engine = FakeEngine()
    records = run(directory, engine)
    assert len(engine.cells()) == 1
    assert {r.status for r in records} == {"ok"}


def test_replicates_run_with_their_own_seed(directory):
    engine = FakeEngine()
    records = run(directory, engine, profile(run={"replicates": 3}))
    assert len(records) == 12
    assert {(b["replicate"], b["seed"]) for b in engine.cells()} == {(0, 42), (1, 43), (2, 44)}
    assert len({r.cell_id for r in records}) == 4


def test_the_order_is_random_but_seeded():
    data = {
        "grid": [
            {
                "max_length": list(range(1, 30)),
                "per_device_train_batch_size": [1],
                "train_size": [1],
            }
        ]
    }
    lengths = [
        [j.cell.max_length for j in plan_jobs(profile(run={"order_seed": s}), grid(**data))]
        for s in (0, 0, 1)
    ]
    assert lengths[0] == lengths[1] != lengths[2]
    assert sorted(lengths[0]) == list(range(1, 30)) != lengths[0]


@pytest.mark.parametrize(
    ("ended", "status", "message"),
    [
        (outcome(exit_code=-9), "crashed", "killed by signal 9"),
        (outcome(exit_code=3), "crashed", "exit code 3"),
        (outcome(timed_out=True, exit_code=-9), "timeout", "time limit"),
        (outcome(refusal=WorkloadError("gone")), "invalid", "gone"),
        (
            outcome(answer={"status": "ok", "measurement": {"speed": 1}}),
            "invalid",
            "not a valid measurement",
        ),
        (outcome(answer={"nothing": 1}), "invalid", "not a valid measurement"),
        (
            outcome(answer={"status": "oom", "failure": {"message": "out of memory", "step": 7}}),
            "oom",
            "out of memory",
        ),
    ],
)
def test_failure_is_data_and_the_run_goes_on(directory, ended, status, message):
    records = run(directory, FakeEngine([ended]))
    (failed,) = (r for r in records if r.status != "ok")
    assert failed.status == status
    assert message in failed.failure.message
    assert failed.failure.log_tail == "the log"
    assert failed.measurement is None
    assert len(records) == 4


def test_a_refusal_of_the_workload_is_raised_before_any_cell(directory):
    engine = FakeEngine()
    engine.prepare_outcome = outcome(refusal=WorkloadError("no such column"))
    with pytest.raises(WorkloadError, match="no such column"):
        run(directory, engine)
    assert engine.cells() == []
    assert directory.records() == []


def test_a_prepare_stage_that_dies_is_named(directory):
    engine = FakeEngine()
    engine.prepare_outcome = outcome(exit_code=-11)
    with pytest.raises(WorkerError, match="killed by signal 11"):
        run(directory, engine)


def test_another_environment_is_refused_unless_allowed(directory):
    run(directory, FakeEngine(), grid_=grid().only({"max_length": 16}))
    other = environment(packages={"torch": "2.14.0"})
    with pytest.raises(EnvironmentMismatch, match=r"packages.torch 2.13.0 -> 2.14.0"):
        run(directory, FakeEngine(environment=other))
    records = run(directory, FakeEngine(environment=other), allow_other_environment=True)
    assert len({r.environment_id for r in records}) == 2


def test_another_commit_is_no_other_environment(directory):
    run(directory, FakeEngine(), grid_=grid().only({"max_length": 16}))
    assert len(run(directory, FakeEngine(environment=environment(git_commit="abc")))) == 4


def test_disk_space_is_checked_before_the_grid(directory):
    engine = FakeEngine(parameters=10**15)
    with pytest.raises(RunDirectoryError, match="not enough free disk space"):
        run(directory, engine)
    assert engine.cells() == []


def test_checkpoints_go_unless_kept_by_name(directory):
    class Saves(FakeEngine):
        def run(self, module, request, **options):
            if module == CELL:
                asked = json.loads(request)
                folder = Path(asked["workspace"]) / asked["output"] / "checkpoint-1"
                folder.mkdir(parents=True)
            return super().run(module, request, **options)

    one = grid().only({"max_length": 16, "per_device_train_batch_size": 8}).cells[0]
    remains = directory.path / "checkpoints" / "0123456789ab-r0"  # of a run that was killed
    remains.mkdir()
    run(directory, Saves(), how={"kept": frozenset({one})})
    kept = [path.name for path in (directory.path / "checkpoints").iterdir()]
    assert kept == [f"{one.cell_id}-r0"]


def test_where_a_worker_was_when_it_died_is_recorded(directory):
    last = Progress(phase="evaluation", step=7)
    records = run(directory, FakeEngine([outcome(exit_code=-9, last=last)]))
    (failed,) = (r for r in records if r.status == "crashed")
    assert (failed.failure.phase, failed.failure.step) == ("evaluation", 7)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 4 + 3 * 12),
        ({"save_strategy": "no"}, 4),
        ({"save_total_limit": 1}, 4 + 2 * 12),
        ({"save_only_model": True}, 4 + 3 * 4),
        ({"num_train_epochs": 1.5}, 4 + 2 * 12),
        ({"save_strategy": "steps", "save_steps": 5}, 4 + 3 * 12),
        ({"save_strategy": "steps", "save_steps": 0.5}, 4 + 2 * 12),
        ({"save_strategy": "best"}, 4 + 3 * 12),
        ({"max_steps": 6}, 4 + 2 * 12),
        ({"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2}, 4 + 3 * 12),
    ],
)
def test_checkpoint_bytes_a_parameter(settings, expected):
    # 16 documents in batches of 4 over 3 epochs are 12 steps.
    one = grid(
        training=settings,
        grid=[
            {
                k: [v]
                for k, v in {
                    "max_length": 16,
                    "per_device_train_batch_size": 4,
                    "train_size": 16,
                }.items()
            }
        ],
    ).cells[0]
    assert checkpoint_bytes(one, 1) == expected


def test_checkpoints_of_a_head_have_next_to_no_optimizer_state():
    assert checkpoint_bytes(cell(method="head"), 1) == 4 + 3 * 4


def test_work_counts_training_thrice():
    job = Job(cell(train_size=10), 0)
    assert job.work == (3 * 3 * 10 + 4 * 8) * 16


NOISE = measurement(warnings=(run_warning(name="others_busy"),))
NOISY = outcome(answer={"status": "ok", "measurement": NOISE.model_dump(mode="json")})


def test_repeats_keep_the_seed_and_replicates_change_it(directory):
    engine = FakeEngine()
    records = run(directory, engine, profile(run={"replicates": 2, "repeats": 2}))
    assert len(records) == 16
    assert {(r.replicate, r.repeat, r.seed) for r in records} == {
        (0, 0, 42),
        (0, 1, 42),
        (1, 0, 43),
        (1, 1, 43),
    }
    assert len({r.identity for r in directory.records()}) == 16


def test_more_repeats_later_are_added_to_those_that_are_there(directory):
    run(directory, FakeEngine(), profile(run={"replicates": 2}))
    engine = FakeEngine()
    run(directory, engine, profile(run={"replicates": 2, "repeats": 2}))
    assert len(engine.cells()) == 8
    assert {(b["replicate"], b["seed"]) for b in engine.cells()} == {(0, 42), (1, 43)}


def test_noisy_cells_are_run_again_only_when_asked_for(directory):
    run(directory, FakeEngine([NOISY]))
    engine = FakeEngine()
    run(directory, engine)
    assert engine.cells() == []
    records = run(directory, engine, rerun_noisy=True)
    assert len(engine.cells()) == 1
    assert sorted(r.attempt for r in records) == [0, 0, 0, 1]
    assert not any(r.noisy for r in records)
    assert len(list((directory.path / "superseded").iterdir())) == 1
    assert run(directory, FakeEngine(), rerun_noisy=True) == records


def test_a_later_attempt_leaves_the_files_of_the_earlier_alone(directory):
    first, second = FakeEngine([NOISY]), FakeEngine()
    run(directory, first)
    run(directory, second, rerun_noisy=True)
    (again,) = second.cells()
    before = {body["steps_file"] for body in first.cells()}
    assert again["steps_file"] not in before
    assert again["steps_file"].endswith(".1.parquet")


def test_a_run_reports_under_the_name_of_its_record(directory):
    first, second = FakeEngine([NOISY]), FakeEngine()
    records = run(directory, first)
    remains = directory.path / "logs" / records[0].identity.name / "events"
    remains.parent.mkdir()
    remains.touch()
    (noisy,) = (record for record in records if record.noisy)
    run(directory, second, rerun_noisy=True)
    asked = {body["reports"] for body in first.cells()}
    assert asked == {f"logs/{record.identity.name}" for record in records}
    assert [body["reports"] for body in second.cells()] == [f"logs/{noisy.identity.name}.1"]
    assert {body["workspace"] for body in first.cells()} == {str(directory.path)}
    assert remains.exists()  # an earlier attempt's


def test_what_a_try_that_was_cut_off_reported_is_removed(directory):
    of = grid().only({"max_length": 16, "per_device_train_batch_size": 4})
    remains = directory.path / "logs" / f"{of.cells[0].cell_id}-r0" / "events"
    remains.parent.mkdir()
    remains.touch()
    run(directory, FakeEngine(), grid_=of)
    assert not remains.exists()


def test_a_rerun_that_fails_takes_nothing_away(directory):
    run(directory, FakeEngine([NOISY]))
    before = directory.records()
    records = run(directory, FakeEngine([outcome(exit_code=-9)]), rerun_noisy=True)
    assert directory.records() == before
    assert {r.status for r in records} == {"ok"}


def test_a_record_that_breaks_an_invariant_says_so_and_counts_as_noisy(directory):
    wrong = measurement(memory={"peak_rss_bytes": 2**40})
    answer = {"status": "ok", "measurement": wrong.model_dump(mode="json")}
    records = run(directory, FakeEngine([outcome(answer=answer)]))
    (bad,) = (r for r in records if r.untrusted)
    assert "more memory than the machine has" in bad.untrusted["memory.peak_rss_bytes"]
    assert bad.status == "ok"
    engine = FakeEngine()
    assert not any(r.untrusted for r in run(directory, engine, rerun_noisy=True))
    assert len(engine.cells()) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", None])
def test_a_damaged_record_is_moved_away_and_its_cell_run_again(directory, damage):
    run(directory, FakeEngine())
    file = sorted((directory.path / "records").iterdir())[1]
    others = {f: f.read_bytes() for f in (directory.path / "records").iterdir() if f != file}
    file.write_bytes(file.read_bytes().replace(b"0.75", b"0.95") if damage is None else damage)
    engine = FakeEngine()
    records = run(directory, engine)
    assert [r.status for r in records] == ["ok"] * 4
    assert len(engine.cells()) == 1
    assert {f: f.read_bytes() for f in others} == others
    assert len(list((directory.path / "damaged").iterdir())) == 1


def test_a_full_disk_ends_the_run_and_keeps_what_was_finished(directory, monkeypatch):
    engine = FakeEngine()
    real, written = directory.write_record, []

    def full_after_two(record):
        if len(written) == 2:
            raise RunDirectoryError("the disk is full")
        written.append(record)
        real(record)

    monkeypatch.setattr(directory, "write_record", full_after_two)
    with pytest.raises(RunDirectoryError, match="the disk is full"):
        run(directory, engine)
    monkeypatch.undo()
    engine = FakeEngine()
    assert len(run(directory, engine)) == 4
    assert len(engine.cells()) == 2


def test_cpu_tensors_come_from_a_pass_of_their_own(directory):
    engine = FakeEngine()
    records = run(directory, engine)
    for one in records:
        measured = one.measurement
        assert measured.memory.peak_cpu_tensors_bytes == 900
        assert measured.phases["first_steps"].memory.peak_cpu_tensors_bytes == 700
        assert measured.phases["save"].memory.peak_cpu_tensors_bytes is None
        assert measured.absent["phases.save.memory.peak_cpu_tensors_bytes"] == "nothing is saved"
        assert "two-step pass" in measured.sources["peak_cpu_tensors_bytes"]


def test_one_pass_serves_the_cells_that_differ_only_in_seed_and_size(directory):
    engine = FakeEngine()
    block = {"max_length": [16, 32], "per_device_train_batch_size": [4], "train_size": [8, 16]}
    cells = grid(grid=[block])
    run(directory, engine, profile(run={"replicates": 3}), cells)
    assert len(engine.cells()) == 12
    assert sorted(body["cell"]["max_length"] for body in engine.two_steps()) == [16, 32]
    assert all(body["tensors"] for body in engine.two_steps())


def test_a_pass_that_fails_costs_nothing_but_its_figure(directory):
    engine = FakeEngine()
    engine.two_step_outcome = outcome(exit_code=-9)
    for one in run(directory, engine):
        assert one.status == "ok"
        assert one.measurement.memory.peak_cpu_tensors_bytes is None
        assert "failed" in one.measurement.absent["memory.peak_cpu_tensors_bytes"]
        assert one.untrusted == {}


def test_the_pass_can_be_left_out(directory):
    engine = FakeEngine()
    records = run(directory, engine, profile(run={"cpu_tensors": False}))
    assert engine.two_steps() == []
    reason = records[0].measurement.absent["memory.peak_cpu_tensors_bytes"]
    assert "run.cpu_tensors" in reason


@pytest.mark.parametrize("damage", ["", None, "{}"])
@pytest.mark.parametrize("name", ["preparation.json", "profile.json"])
def test_side_files_that_are_damaged_or_gone_are_made_anew(directory, name, damage):
    run(directory, FakeEngine())
    file = directory.path / name
    file.unlink() if damage is None else file.write_text(damage)
    engine = FakeEngine()
    run(directory, engine)
    assert engine.cells() == []
    assert directory.describes_itself()


def test_links_that_wait_for_a_cells_files_are_not_followed(directory, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    one = grid().cells[0]
    name = f"{one.cell_id}-r0"
    for place in ("checkpoints", "steps", "samples"):
        suffix = "" if place == "checkpoints" else ".parquet"
        (directory.path / place / f"{name}{suffix}").symlink_to(victim)
    (directory.path / "checkpoints" / f"{name}-two-steps").symlink_to(victim)
    (directory.path / "logs" / name).symlink_to(victim)
    run(directory, FakeEngine())
    assert not any(path.is_symlink() for path in directory.path.rglob("*"))


# Cells that are predicted not to fit

CUDA = {"device": device(kind="cuda", name="Tesla T4", total_memory_bytes=15000 * MIB)}


def predicting(verdicts, engine=None, **changes):
    """An engine on a machine with a card, that predicts a verdict for each length."""
    engine = engine or FakeEngine(environment=environment(**CUDA))
    of = grid()
    cells = [
        predicted_cell(one.cell_id, cards=(predicted_card("t4", verdict=verdicts[one.max_length]),))
        for one in of.cells
    ]
    answer = predictions(of, **({"cells": cells} | changes))
    engine.predict_outcome = outcome(answer=answer.model_dump(mode="json"))
    return engine


def asked(engine):
    return [body for module, body, _ in engine.requests if module == PREDICT]


VERDICTS = {16: "fits", 32: "does not fit"}


def skipping(directory, engine, **options):
    return run(directory, engine, device_="cuda", skip_unfit=True, **options)


def test_a_cell_that_does_not_fit_is_recorded_and_not_run(directory):
    engine = predicting(VERDICTS)
    records = skipping(directory, engine)
    by_length = {(r.cell.max_length, r.status) for r in records}
    assert by_length == {(16, "ok"), (32, "unfit")}
    assert {body["cell"]["max_length"] for body in engine.cells()} == {16}
    for record in records:
        if record.status == "unfit":
            assert record.failure.message.startswith("predicted not to fit: it runs out of the")
            assert record.measurement is None
            assert record.wall_s == 0
    assert sorted(r.identity for r in directory.records()) == sorted(r.identity for r in records)


def test_the_prediction_is_of_this_machines_card_and_of_the_missing_cells(directory):
    engine = predicting(VERDICTS)
    records = skipping(directory, engine, grid_=grid().only({"max_length": 32}))
    assert len(records) == 2
    (body,) = asked(engine)
    request = PredictRequest.model_validate(body)
    assert {cell.max_length for cell in request.cells} == {32}
    (gpu,) = request.gpus
    assert (gpu.name, gpu.memory_low_bytes, gpu.memory_bytes) == ("t4", 15000 * MIB, 15000 * MIB)
    assert not request.on_cpu
    assert not request.largest_batch


def test_records_hold_what_was_predicted_and_so_does_the_table(directory):
    records = skipping(directory, predicting(VERDICTS))
    for record in records:
        assert record.predicted.tensors_bytes == 90 * MIB
    fits, unfit = ([r for r in records if r.status == status] for status in ("ok", "unfit"))
    for record in fits:
        assert record.predicted.allocated_bytes == 110 * MIB
        assert record.predicted.reserved_bytes == 120 * MIB
    assert {r.predicted.reserved_bytes for r in unfit} == {None}
    table = cells_table(directory.records()).set_index("max_length")
    assert set(table.loc[16, "predicted_reserved_bytes"]) == {120 * MIB}
    assert set(table.loc[16, "predicted_allocated_bytes"]) == {110 * MIB}
    assert table.loc[32, "predicted_reserved_bytes"].isna().all()
    assert set(table.loc[32, "status"]) == {"unfit"}
    assert all("predicted not to fit" in said for said in table.loc[32, "failure"])


@pytest.mark.parametrize("verdict", ["fits", "too close to call"])
def test_what_may_fit_is_run(directory, verdict):
    records = skipping(directory, predicting(dict.fromkeys((16, 32), verdict)))
    assert [r.status for r in records] == ["ok"] * 4


def test_without_the_flag_nothing_is_predicted(directory):
    engine = predicting(VERDICTS)
    records = run(directory, engine, device_="cuda")
    assert asked(engine) == []
    assert {r.predicted for r in records} == {None}
    assert {r.status for r in records} == {"ok"}


def test_what_did_not_fit_is_run_by_a_command_without_the_flag(directory):
    skipping(directory, predicting(VERDICTS))
    engine = predicting(VERDICTS)
    records = run(directory, engine, device_="cuda")
    assert {body["cell"]["max_length"] for body in engine.cells()} == {32}
    assert [r.status for r in records] == ["ok"] * 4
    assert {r.attempt for r in records if r.cell.max_length == 32} == {1}
    again = FakeEngine(environment=environment(**CUDA))
    assert skipping(directory, again) == records
    assert again.requests == []


def test_what_did_not_fit_is_predicted_again_under_the_flag(directory):
    skipping(directory, predicting(VERDICTS))
    engine = predicting(dict.fromkeys((16, 32), "fits"))
    records = skipping(directory, engine)
    assert {one["max_length"] for one in asked(engine)[0]["cells"]} == {32}
    assert [r.status for r in records] == ["ok"] * 4


def test_a_noisy_record_is_kept_where_its_cell_no_longer_fits(directory):
    engine = FakeEngine([NOISY] * 4, environment=environment(**CUDA))
    run(directory, engine, device_="cuda")
    before = directory.records()
    records = skipping(directory, predicting(VERDICTS), rerun_noisy=True)
    kept = [r for r in directory.records() if r.cell.max_length == 32]
    assert kept == [r for r in before if r.cell.max_length == 32]
    assert [r.status for r in records] == ["ok"] * 4


def test_every_replicate_of_a_cell_that_does_not_fit_is_recorded(directory):
    engine = predicting(VERDICTS)
    records = skipping(directory, engine, profile_=profile(run={"replicates": 2, "repeats": 2}))
    unfit = [r for r in records if r.status == "unfit"]
    assert len(unfit) == 8
    assert {(r.replicate, r.repeat, r.seed) for r in unfit} == {
        (replicate, repeat, 42 + replicate) for replicate in (0, 1) for repeat in (0, 1)
    }
    assert len(asked(engine)[0]["cells"]) == 4


def test_a_cell_that_is_not_predicted_is_run(directory):
    refused = [Refused(cell_id=one.cell_id, reason="not covered") for one in grid().cells]
    engine = predicting(VERDICTS, cells=[], refused=refused)
    records = skipping(directory, engine)
    assert [(r.status, r.predicted) for r in records] == [("ok", None)] * 4


def test_a_prediction_that_dies_ends_the_run_before_any_cell(directory):
    engine = predicting(VERDICTS)
    engine.predict_outcome = outcome(exit_code=-9)
    with pytest.raises(WorkerError, match="the prediction was killed by signal 9") as caught:
        skipping(directory, engine)
    assert caught.value.where.endswith("predict.log")
    assert engine.cells() == []


def test_on_a_processor_tensors_have_to_fit_its_memory(directory):
    engine = FakeEngine(environment=environment(memory_bytes=100 * MIB))
    cells = [
        predicted_cell(one.cell_id, tensors=figure(6 * one.max_length, certainty="exact"))
        for one in grid().cells
    ]
    predicting(VERDICTS, engine, cells=cells)
    records = run(directory, engine, skip_unfit=True)
    assert {(r.cell.max_length, r.status) for r in records} == {(16, "ok"), (32, "unfit")}
    (body,) = asked(engine)
    assert (body["on_cpu"], body["gpus"]) == (True, [])
    (said,) = {r.failure.message for r in records if r.failure}
    assert said == "predicted not to fit: its tensors need 192 MiB of 100 MiB"


# What others are told


class Noting:
    """Notes all that it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *given: self.told.append((name, *given))


class Progressing(FakeEngine):
    """Reports a step of each cell, and notes the files and limits that it is given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def run(self, module, request, *, log_file, timeout_s, on_progress):
        self.given.append((module, log_file, timeout_s))
        on_progress(Progress(phase="train", step=len(self.given)))
        return super().run(
            module, request, log_file=log_file, timeout_s=timeout_s, on_progress=on_progress
        )


def told(directory, engine, **profile_changes):
    listener = Noting()
    of = profile(**profile_changes)
    Runner(of, grid(), directory, engine, Placement(kind="cpu"), listener).run()
    return listener.told


def test_a_listener_is_told_of_each_job_by_name(directory):
    engine = Progressing()
    heard = told(directory, engine)
    (planned,) = (given for name, *given in heard if name == "planned")
    jobs = plan_jobs(profile(), grid())
    assert planned == [jobs, []]
    for name in ("started", "finished"):
        assert [given[0] for told_of, *given in heard if told_of == name] == jobs
    records = {record.identity: record for record in directory.records()}
    assert [given[1] for name, *given in heard if name == "finished"] == [
        records[job.identity] for job in jobs
    ]
    of_cells = [given for name, *given in heard if name == "progress"]
    assert [job for job, _ in of_cells] == jobs
    assert all(progress.phase == "train" and progress.step for _, progress in of_cells)
    assert any(name == "preparing" and given[0].phase == "train" for name, *given in heard)


def test_workers_have_a_log_of_their_own_and_the_profile_s_limit(directory):
    engine = Progressing()
    told(directory, engine, run={"timeout_s": 77})
    logs = {module: log for module, log, _ in engine.given}
    assert logs[TWO_STEP_PASS].name.endswith("-r0-two-steps.log")
    assert logs[CELL].parent == logs[TWO_STEP_PASS].parent == directory.path / "logs"
    cells = [(log.name, limit) for module, log, limit in engine.given if module == CELL]
    assert {name for name, _ in cells} == {
        f"{job.identity.name}.log" for job in plan_jobs(profile(), grid())
    }
    assert {limit for module, _, limit in engine.given if module != PREPARE} == {77.0}


def test_a_record_began_at_a_time_of_day_that_has_its_zone(directory):
    import datetime

    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    run(directory, FakeEngine())
    for record in directory.records():
        began = datetime.datetime.fromisoformat(record.started_at)
        assert began.utcoffset() == datetime.timedelta(0)
        assert before <= began <= datetime.datetime.now(datetime.UTC)


def test_the_disk_must_hold_what_stays_beside_the_largest_that_passes(directory, monkeypatch):
    asked = []
    monkeypatch.setattr(RunDirectory, "require_free", lambda self, nbytes: asked.append(nbytes))
    cells = grid().cells
    run(directory, FakeEngine(parameters=1000), how={"kept": frozenset(cells[:2])})
    each = checkpoint_bytes(cells[0], 1000)
    assert each > 1000 * 4
    assert asked[0] == 3 * each  # two that stay, and one that runs
    assert asked[-1] == each


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_requests_are_kept_beside_the_logs_only_if_asked_for(tmp_path, device):
    engine = FakeEngine()
    for asked_for in (False, True):
        directory = RunDirectory.create(tmp_path / str(asked_for))
        engine.requests.clear()
        run(directory, engine, device_=device, how={"keep_requests": asked_for})
        files = list((directory.path / "logs").glob("*.request.json"))
        sent = [(module, body) for module, body, _ in engine.requests if module != PREPARE]
        assert len(files) == asked_for * len(sent)
    for file in files:
        kept = json.loads(file.read_text())
        assert (kept["module"], kept["request"]) in sent
        assert kept["environment"]["CUDA_VISIBLE_DEVICES"] == ("GPU-1" if device == "cuda" else "")


def test_the_two_step_pass_leaves_nothing_behind(directory):
    class Leaving(FakeEngine):
        def run(self, module, request, **options):
            body = json.loads(request)
            if module in (CELL, TWO_STEP_PASS):
                (Path(body["workspace"]) / body["output"]).mkdir(parents=True)
            return super().run(module, request, **options)

    run(directory, Leaving())
    assert list((directory.path / "checkpoints").iterdir()) == []


def two_ranks(**axes):
    block = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [16]}
    return grid(grid=[block | {"num_processes": [2]} | axes])


def launched(*peaks):
    """Return an engine whose launcher answers with a rank for each of these peaks of CPU tensors."""
    ranks = [
        measurement().ranks[0].model_copy(update={"rank": number}) for number in range(len(peaks))
    ]
    of_all = measurement().model_copy(update={"ranks": tuple(ranks)})
    passes = [{"phases": {}, "memory": {"peak_cpu_tensors_bytes": peak}} for peak in peaks]
    answers = {
        CELL: {"status": "ok", "measurement": of_all.model_dump(mode="json")},
        TWO_STEP_PASS: {"status": "ok", "two_step": {"ranks": passes}},
    }

    class Launcher(FakeEngine):
        def run(self, module, request, **options):
            if module != LAUNCH:
                return super().run(module, request, **options)
            body = json.loads(request)
            self.requests.append((module, body, options["timeout_s"]))
            return outcome(answer=answers[body["module"]])

    return Launcher()


def test_a_cell_of_several_processes_goes_to_their_launcher(directory):
    engine = launched(700, 900)
    (record,) = run(directory, engine, grid_=two_ranks())
    assert record.status == "ok"
    asked = [body for module, body, _ in engine.requests if module == LAUNCH]
    assert [body["module"] for body in asked] == [CELL, TWO_STEP_PASS]
    assert {body["processes"] for body in asked} == {2}
    assert asked[0]["request"]["steps_file"] == f"steps/{record.file_name}.parquet"
    assert engine.cells() == engine.two_steps() == []


def test_every_rank_has_the_peak_of_its_own_two_step_pass(directory):
    (record,) = run(directory, launched(700, 900), grid_=two_ranks())
    peaks = [rank.memory.peak_cpu_tensors_bytes for rank in record.measurement.ranks]
    assert peaks == [700, 900]
    assert record.measurement.memory.peak_cpu_tensors_bytes == 900


def test_a_finished_cell_of_several_processes_is_not_run_again(directory):
    first = run(directory, launched(700, 900), grid_=two_ranks())
    engine = launched(1, 1)
    assert run(directory, engine, grid_=two_ranks()) == first
    assert engine.requests == []


def test_what_cannot_be_sharded_is_refused_before_anything_is_launched(directory):
    engine = launched(700, 900)
    with pytest.raises(ProfileError, match="cards only"):
        run(directory, engine, grid_=two_ranks(strategy=["fsdp2"]))
    assert engine.requests == []
