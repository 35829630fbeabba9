import errno
import json
import os

import pytest

from bench.errors import RunDirectoryError
from bench.record import SCHEMA_VERSION
from bench.store import RunDirectory, record_name, write_atomically
from tests.factories import cell, environment, profile, record


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run")


def test_records_come_back(directory):
    records = [record(), record(replicate=1), record(cell(train_size=8))]
    for one in records:
        directory.write_record(one)
    assert sorted(directory.records(), key=lambda r: r.identity) == sorted(
        records, key=lambda r: r.identity
    )


def test_a_record_is_one_file_that_a_later_one_replaces(directory):
    directory.write_record(record(wall_s=1.0))
    directory.write_record(record(wall_s=2.0))
    assert [one.wall_s for one in directory.records()] == [2.0]
    assert [file.name for file in (directory.path / "records").iterdir()] == [
        f"{record_name(*record().identity)}.json"
    ]


def test_profile_and_environment(directory):
    directory.write_profile(profile(training={"weight_decay": 0.5}))
    assert directory.read_profile().training["weight_decay"] == 0.5
    assert directory.read_profile().training["logging_steps"] == 100  # the recipe's, resolved
    directory.write_environment(environment())
    assert directory.environments() == {environment().environment_id: environment()}


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "f.json"
    write_atomically(file, "old")

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RunDirectoryError, match="the disk is full") as caught:
        write_atomically(file, "new")
    assert "finished cells are kept" in caught.value.hint
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


def test_a_place_that_cannot_be_written():
    with pytest.raises(RunDirectoryError, match="cannot be written") as caught:
        RunDirectory.create(__import__("pathlib").Path("/proc/ftbench"))
    assert "--out" in caught.value.hint


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        RunDirectory.create(tmp_path / "run")


def test_not_a_run_directory(tmp_path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        RunDirectory.open(tmp_path)


def test_a_newer_schema_is_refused_and_not_touched(directory):
    directory.write_record(record())
    (file,) = (directory.path / "records").iterdir()
    newer = json.loads(file.read_text()) | {"schema_version": SCHEMA_VERSION + 1}
    file.write_text(json.dumps(newer))
    before = file.read_bytes()
    with pytest.raises(RunDirectoryError, match="written by a newer ftbench"):
        directory.records()
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema_version": 1}', "\x00"])
def test_a_broken_record_is_named(directory, text):
    (directory.path / "records" / "abc-r0.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"abc-r0\.json"):
        directory.records()


def test_one_parent_at_a_time(directory):
    with directory.lock(), pytest.raises(RunDirectoryError, match="another ftbench"):  # noqa: SIM117
        with RunDirectory.open(directory.path).lock():
            pass
    with directory.lock():
        pass


def test_free_space_is_asked_for_before_a_grid(directory):
    directory.require_free(1)
    with pytest.raises(RunDirectoryError, match="not enough free disk space") as caught:
        directory.require_free(2**60)
    assert caught.value.expected == "1048576 TiB"


@pytest.mark.parametrize("name", ["profile", "preparation"])
def test_broken_side_files_are_named(directory, name):
    (directory.path / f"{name}.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=rf"{name}\.json: not a {name}"):
        getattr(directory, f"read_{name}")()


def test_a_broken_environment_is_named(directory):
    (directory.path / "environments" / "x.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"x\.json: not a environment"):
        directory.environments()


def test_a_copy_of_a_record_does_not_count_twice(directory):
    directory.write_record(record())
    (file,) = (directory.path / "records").iterdir()
    file.with_name("copy.json").write_bytes(file.read_bytes())
    with pytest.raises(RunDirectoryError, match=r"copy\.json: not the file of its record"):
        directory.records()


def test_a_lock_that_cannot_be_written(directory):
    (directory.path / "lock").mkdir()
    with pytest.raises(RunDirectoryError, match="cannot be written"), directory.lock():
        pass


def test_a_directory_made_for_nothing_is_removed_again(directory, tmp_path):
    directory.discard()
    assert not directory.path.exists()
    kept = RunDirectory.create(tmp_path / "run")
    kept.write_record(record())
    kept.discard()
    RunDirectory.create(tmp_path / "run").discard()
    assert kept.records() == [record()]
