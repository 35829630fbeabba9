"""Records of schema 3, from a run directory that ftbench wrote before tasks, scores and ranks."""

import json
import math
from pathlib import Path

import pytest

from ftbench.base.errors import DamagedFile
from ftbench.base.files import checksum
from ftbench.records.invariants import broken_invariants
from ftbench.records.migration import migrated
from ftbench.records.record import SCHEMA_VERSION
from ftbench.records.run_directory import RunDirectory
from ftbench.report.write import load_document

OLD = Path(__file__).with_name("schema-3")


def old_record():
    file = min((OLD / "records").glob("*.json"))
    return json.loads(file.read_text())


def test_an_old_run_directory_still_reads():
    directory = RunDirectory.open(OLD)
    records, damaged = directory.survey()
    assert damaged == []
    assert len(records) == 4
    environments = directory.environments()
    for record in records:
        assert record.schema_version == SCHEMA_VERSION
        assert broken_invariants(record, environments[record.environment_id]) == {}
        assert record.cell.data.task == "text-classification"
        assert record.measurement.ranks[0].rank == 0


def test_its_figures_are_where_they_were():
    """Every number of the old record is in the new one, under the name that it has now."""
    old = old_record()
    (new,) = (r for r in RunDirectory.open(OLD).records() if r.cell_id == old["cell_id"])
    before, after = old["measurement"], new.measurement
    (score,) = after.scores
    assert (score.name, score.value) == ("accuracy", before["eval_accuracy"])
    near = (score.value * 16 + 2) / 20  # of 16 evaluation examples
    assert score.standard_error == pytest.approx(math.sqrt(near * (1 - near) / 16))
    assert score.guess is None
    assert [one.scores["accuracy"] for one in after.epochs] == [
        one["eval_accuracy"] for one in before["epochs"]
    ]
    for name in ("device", "memory", "idle", "steps", "sampling"):
        assert getattr(after, name).model_dump(mode="json") == before[name]
    assert {n: p.model_dump(mode="json") for n, p in after.phases.items()} == before["phases"]
    assert after.absent == before["absent"]
    for name in ("total_s", "train_s", "train_loss", "eval_loss", "worker_s"):
        assert getattr(after, name) == before[name]


def test_a_report_is_made_of_it():
    document = load_document(RunDirectory.open(OLD))
    assert list(document.cells["status"]) == ["ok"] * 4
    assert document.cells["eval_accuracy"].notna().all()


def test_reasons_follow_their_figures():
    old = old_record()
    measured = old["measurement"] | {
        "eval_accuracy": None,
        "absent": {"eval_accuracy": "random", "epochs.eval_accuracy": "random", "steps.mfu": "no"},
    }
    new = migrated(old | {"measurement": measured, "untrusted": {"eval_accuracy": "1.5"}})
    assert new["measurement"]["scores"] == []
    assert new["measurement"]["absent"] == {
        "scores": "random",
        "epochs.scores": "random",
        "steps.mfu": "no",
    }
    assert new["untrusted"] == {"scores.accuracy": "1.5"}
    other = migrated(old | {"untrusted": {"steps.mfu": "above 1"}})
    assert other["untrusted"] == {"steps.mfu": "above 1"}


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_an_old_accuracy_gets_its_standard_error(value):
    old = old_record()
    (score,) = migrated(old | {"measurement": old["measurement"] | {"eval_accuracy": value}})[
        "measurement"
    ]["scores"]
    near = (value * 16 + 2) / 20
    assert score["standard_error"] == pytest.approx(math.sqrt(near * (1 - near) / 16))
    assert score["higher_is_better"] is True


@pytest.mark.parametrize(("value", "examples"), [(1.5, 16), (-0.1, 16), ("high", 16), (0.5, 0)])
def test_an_accuracy_that_is_no_share_has_no_error(value, examples):
    old = old_record()
    old["cell"]["data"]["eval_size"] = examples
    (score,) = migrated(old | {"measurement": old["measurement"] | {"eval_accuracy": value}})[
        "measurement"
    ]["scores"]
    assert score["standard_error"] is None


def test_one_evaluated_example_has_an_error():
    old = old_record()
    old["cell"]["data"]["eval_size"] = 1
    (score,) = migrated(old)["measurement"]["scores"]
    assert score["standard_error"] > 0


def test_an_epoch_without_accuracy_has_no_scores():
    old = old_record()
    epochs = [epoch | {"eval_accuracy": None} for epoch in old["measurement"]["epochs"]]
    new = migrated(old | {"measurement": old["measurement"] | {"epochs": epochs}})
    assert [epoch["scores"] for epoch in new["measurement"]["epochs"]] == [{}] * len(epochs)


def test_a_failure_has_no_measurement_to_turn():
    old = old_record() | {"measurement": None, "status": "oom"}
    assert migrated(old)["measurement"] is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("cell"),
        lambda data: data["measurement"].pop("phases"),
        lambda data: data["measurement"].update(absent=[]),
        lambda data: data["measurement"].update(epochs=[1]),
    ],
    ids=["no cell", "no phases", "reasons in a list", "an epoch that is a number"],
)
def test_an_old_record_that_is_not_whole_is_damage(tmp_path, change):
    old = old_record()
    name = f"{old['cell_id']}-r0.json"
    del old["sha256"]
    change(old)
    directory = RunDirectory.create(tmp_path / "run")
    file = directory.path / "records" / name
    file.write_text(json.dumps({"sha256": checksum(old), **old}))
    with pytest.raises(DamagedFile) as caught:
        directory.records()
    assert caught.value.where == str(file)
