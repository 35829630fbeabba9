import errno
import json
import os

import pytest

from ftbench.base.errors import DamagedFile, RunDirectoryError
from ftbench.base.files import checksum, write_atomically
from ftbench.records import run_directory
from ftbench.records.batch_probe import BatchProbe
from ftbench.records.migration import OLDEST
from ftbench.records.record import SCHEMA_VERSION, Failure
from ftbench.records.run_directory import RESERVE_BYTES, Damaged, RunDirectory
from tests.factories import cell, environment, preparation, profile, record


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
        f"{record().identity.name}.json"
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
    del newer["sha256"]
    file.write_text(json.dumps({"sha256": checksum(newer), **newer}))
    before = file.read_bytes()
    with pytest.raises(RunDirectoryError, match="written by a newer ftbench"):
        directory.records()
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"schema_version": 2}',
        "\x00",
        "[" * 10**5,
        "1e999",
        "NaN",
        "9" * 5000,
    ],
)
def test_a_broken_record_is_named(directory, text):
    (directory.path / "records" / "abc-r0.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"abc-r0\.json"):
        directory.records()


def written(directory, of=None):
    """Return the file of a record that was just written."""
    of = of or record()
    directory.write_record(of)
    return directory.file("records", of.identity.name, ".json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": 0.75', '"value": 0.95'),
        ('"peak_rss_bytes": 1073741824', '"peak_rss_bytes": 73741824'),
        ('"status": "ok"', '"status": "oom"'),
        ('"untrusted": {}', '"untrusted": {"a": "b"}'),
    ],
)
def test_a_figure_that_was_changed_by_hand_is_not_believed(directory, old, new):
    file = written(directory)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(DamagedFile, match="does not match its own checksum"):
        directory.records()


def test_a_record_without_a_checksum_is_not_believed(directory):
    file = written(directory)
    data = json.loads(file.read_text())
    del data["sha256"]
    file.write_text(json.dumps(data))
    with pytest.raises(DamagedFile):
        directory.records()
    records, (damaged,) = directory.survey()
    assert (records, damaged.file) == ([], file)


def test_a_record_that_is_only_laid_out_anew_is_the_same_record(directory):
    file = written(directory)
    data = json.loads(file.read_text())
    file.write_text(json.dumps(dict(sorted(data.items(), reverse=True))))
    assert directory.records() == [record()]


def test_every_cut_of_a_record_is_noticed(directory):
    file = written(directory)
    whole = file.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedFile):
            directory.records()


def test_damage_is_surveyed_and_set_aside(directory):
    whole, broken = record(), record(cell(train_size=8))
    file = written(directory, broken)
    written(directory, whole)
    file.write_text("{")
    records, damaged = directory.survey()
    assert records == [whole]
    assert [one.file for one in damaged] == [file]
    first = directory.set_aside(damaged[0])
    assert first.read_text() == "{"
    assert directory.survey() == ([whole], [])
    file.write_text("[")
    second = directory.set_aside(Damaged(file, "again"))
    assert {first.read_text(), second.read_text()} == {"{", "["}


def test_another_schema_is_no_damage(directory):
    file = written(directory)
    whole = json.loads(file.read_text())
    del whole["sha256"]
    for version, said in ((SCHEMA_VERSION + 1, "newer"), (OLDEST - 1, "older")):
        data = whole | {"schema_version": version}
        file.write_text(json.dumps({"sha256": checksum(data), **data}))
        with pytest.raises(RunDirectoryError, match=f"written by an? {said} ftbench") as caught:
            directory.survey()
        assert not isinstance(caught.value, DamagedFile)


def test_a_digit_of_the_version_that_flipped_is_damage(directory):
    file = written(directory)
    here, other = (f'"schema_version": {v}' for v in (SCHEMA_VERSION, SCHEMA_VERSION + 1))
    assert here in file.read_text()
    file.write_text(file.read_text().replace(here, other, 1))
    assert directory.survey()[0] == []


def test_the_record_that_is_replaced_is_kept(directory):
    written(directory, record(wall_s=11.0))
    written(directory, record(wall_s=12.0, attempt=1))
    assert [one.wall_s for one in directory.records()] == [12.0]
    (kept,) = (directory.path / "superseded").iterdir()
    assert kept.name == f"{record().identity.name}.json"
    assert json.loads(kept.read_text())["wall_s"] == 11.0


def test_a_link_in_the_place_of_a_folder_is_refused(directory, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (directory.path / "steps").rmdir()
    (directory.path / "steps").symlink_to(tmp_path / "elsewhere")
    for make in (RunDirectory.create, RunDirectory.open):
        with pytest.raises(RunDirectoryError, match="a link in the place of a folder"):
            make(directory.path)


def test_a_record_that_is_a_link_is_not_read(directory, tmp_path):
    file = written(directory)
    (tmp_path / "outside.json").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "outside.json")
    with pytest.raises(DamagedFile):
        directory.records()


def test_a_pipe_in_the_place_of_a_record_does_not_hang(directory):
    os.mkfifo(directory.path / "records" / "x.json")
    with pytest.raises(DamagedFile):
        directory.records()


def test_a_huge_file_is_not_read_into_memory(directory, monkeypatch):
    monkeypatch.setattr("ftbench.base.files.MAX_JSON_BYTES", 1000)
    written(directory)
    with pytest.raises(DamagedFile, match="larger than"):
        RunDirectory.open(directory.path).records()


def test_a_write_does_not_follow_a_link_that_waits_for_it(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f".f.json.{os.getpid()}").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "f.json", "new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "f.json").read_text() == "new"


@pytest.mark.parametrize("name", ["../../x", "a/b", "/etc/passwd"])
def test_no_path_leads_out_of_the_directory(directory, name):
    with pytest.raises(AssertionError):
        directory.file("records", name, ".json")


def test_a_full_disk_does_not_take_the_record_of_the_running_cell(directory, monkeypatch):
    real = os.fsync

    def full_while_reserved(descriptor):
        if (directory.path / "reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_while_reserved)
    with directory.lock():
        assert (directory.path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
        directory.write_record(record())
    assert directory.records() == [record()]
    assert not (directory.path / "reserve").exists()


def test_a_full_disk_does_not_take_the_record_that_is_replaced_either(directory, monkeypatch):
    directory.write_record(record(wall_s=11.0))
    real = os.fsync

    def full_while_reserved(descriptor):
        if (directory.path / "reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_while_reserved)
    with directory.lock():
        directory.write_record(record(wall_s=12.0, attempt=1))
    assert [one.wall_s for one in directory.records()] == [12.0]
    assert len(list((directory.path / "superseded").iterdir())) == 1


def test_what_a_killed_writer_left_is_cleared(directory):
    half = directory.path / "records" / ".abc.json.123"
    half.write_text("{")
    with directory.lock():
        assert not half.exists()


def test_an_environment_that_was_changed_is_noticed(directory):
    directory.write_environment(environment())
    (file,) = (directory.path / "environments").iterdir()
    file.write_text(file.read_text().replace("2.13.0", "2.14.0"))
    with pytest.raises(DamagedFile, match="changed after it was written"):
        directory.environments()


def test_the_checksum_does_not_depend_on_the_order_of_keys():
    assert checksum({"a": 1, "b": [1.5]}) == checksum({"b": [1.5], "a": 1})
    assert checksum({"a": 1}) != checksum({"a": 2})


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
    with pytest.raises(RunDirectoryError, match=r"copy\.json: .*does not match its record"):
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


# Every error says where, and what to do next


def no_directory(directory, tmp_path):
    RunDirectory.open(tmp_path / "none")


def no_permission(directory, tmp_path):
    RunDirectory.create(directory.path)


def linked(directory, tmp_path):
    (directory.path / "steps").rmdir()
    (directory.path / "steps").symlink_to(tmp_path)
    RunDirectory.open(directory.path)


def edited(directory, tmp_path):
    file = written(directory)
    file.write_text(file.read_text().replace('"status": "ok"', '"status": "oom"'))
    directory.records()


def copied(directory, tmp_path):
    file = written(directory)
    file.rename(file.with_name("copy.json"))
    directory.records()


def of_version(version):
    def break_it(directory, tmp_path):
        file = written(directory)
        data = json.loads(file.read_text()) | {"schema_version": version}
        del data["sha256"]
        file.write_text(json.dumps({"sha256": checksum(data), **data}))
        directory.records()

    return break_it


def another_environment(directory, tmp_path):
    directory.write_environment(environment())
    (file,) = (directory.path / "environments").iterdir()
    file.rename(file.with_name("0123.json"))
    directory.environments()


def no_space(directory, tmp_path):
    directory.require_free(2**60)


def held(directory, tmp_path):
    with directory.lock(), RunDirectory.open(directory.path).lock():
        pass


@pytest.mark.parametrize(
    ("break_it", "where", "got", "expected"),
    [
        (no_directory, "none", None, "records"),
        (no_permission, "run", None, None),
        (linked, "run/steps", None, "folder"),
        (edited, f"run/records/{record().identity.name}.json", None, None),
        (copied, "run/records/copy.json", None, f"{record().identity.name}.json"),
        (of_version(SCHEMA_VERSION + 1), "run/records", "version", f"{OLDEST} to {SCHEMA_VERSION}"),
        (of_version(OLDEST - 1), "run/records", "version", f"{OLDEST} to {SCHEMA_VERSION}"),
        (another_environment, "run/environments/0123.json", environment().environment_id, None),
        (no_space, "run", "B free", "1048576 TiB"),
        (held, "run", None, None),
    ],
)
def test_an_error_says_where_and_what_to_do(
    directory, tmp_path, monkeypatch, break_it, where, got, expected
):
    if break_it is no_permission:
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(RunDirectoryError) as caught:
        break_it(directory, tmp_path)
    error = caught.value
    assert error.where.startswith(str(tmp_path / where))
    assert error.hint or break_it is no_directory
    assert got is None or got in error.got
    assert expected is None or expected in error.expected


@pytest.mark.parametrize(
    ("version", "hint"), [(OLDEST - 1, "--out"), (SCHEMA_VERSION + 1, "upgrade")]
)
def test_an_older_and_a_newer_version_are_told_apart(directory, tmp_path, version, hint):
    with pytest.raises(RunDirectoryError) as caught:
        of_version(version)(directory, tmp_path)
    assert hint in caught.value.hint


@pytest.mark.parametrize("version", [True, "4", None, 1.0])
def test_a_version_that_is_no_number_is_damage(directory, tmp_path, version):
    with pytest.raises(DamagedFile):
        of_version(version)(directory, tmp_path)


# What else is kept


def probe(limit_bytes=2**30, **changes):
    fields = {"cell": cell(), "batch": 8, "limit_bytes": limit_bytes, "limit": "enforced"}
    fields |= {"status": "ok", "fits": True, "peak_bytes": 2**20, "wall_s": 1.0}
    return BatchProbe(**(fields | {"environment_id": environment().environment_id} | changes))


def test_tries_of_the_frontier_come_back_but_for_the_damaged(directory):
    tries = [probe(), probe(2**31, fits=False)]
    for one in tries:
        directory.write_try(one)
    files = sorted((directory.path / "tries").iterdir())
    assert [file.name for file in files] == sorted(f"{one.name}.json" for one in tries)
    found = directory.tries()
    assert sorted(found, key=lambda one: one.limit_bytes) == tries
    text = files[0].read_text()
    files[0].write_text(text.replace('"batch": 8', '"batch": 9'))
    assert len(directory.tries()) == 1


def test_a_directory_describes_itself_by_its_profile_and_its_preparation(directory):
    assert not directory.describes_itself()
    directory.write_profile(profile())
    assert not directory.describes_itself()
    directory.write_preparation(preparation())
    assert directory.describes_itself()
    assert directory.read_preparation() == preparation()


def test_files_are_laid_out_for_reading(directory):
    """A line to a field, indented by one space: a record can be read and compared by lines."""
    directory.write_profile(profile())
    directory.write_preparation(preparation())
    directory.write_environment(environment())
    written(directory)
    files = [file for file in directory.path.rglob("*.json") if file.is_file()]
    assert len(files) == 4
    for file in files:
        first, second, *_, last = file.read_text().splitlines()
        assert (first, last) == ("{", "}")
        assert second.startswith(' "')
        assert file.read_text().endswith("}\n")


def test_damaged_files_of_one_name_are_numbered(directory):
    names = []
    for text in ("{", "[", "("):
        file = directory.path / "records" / "abc-r0.json"
        file.write_text(text)
        names.append(directory.set_aside(Damaged(file, "broken")).name)
    assert names == ["abc-r0.json", "abc-r0.json.1", "abc-r0.json.2"]


def test_a_record_in_other_letters_is_kept_as_it_was(directory):
    failure = Failure(message="störung: 令牌")
    directory.write_record(record(status="crashed", measurement=None, failure=failure))
    directory.write_record(record(attempt=1))
    (kept,) = (directory.path / "superseded").iterdir()
    assert json.loads(kept.read_text(encoding="utf-8"))["failure"]["message"] == failure.message


# A record is read once


@pytest.fixture
def reads(monkeypatch):
    """The names of the record files that were read and validated."""
    found = []
    read = run_directory._read_record

    def counted(file):
        found.append(file.name)
        return read(file)

    monkeypatch.setattr(run_directory, "_read_record", counted)
    return found


def test_what_was_written_or_read_is_not_read_again(directory, reads):
    written(directory)
    assert directory.survey() == ([record()], [])
    assert reads == []  # it is what was written
    again = RunDirectory.open(directory.path)
    assert [again.survey()[0], again.records(), again.survey()[0]] == [[record()]] * 3
    assert len(reads) == 1


def test_a_file_that_changed_is_read_again(directory, reads):
    file = written(directory)
    directory.survey()
    other = RunDirectory.open(directory.path)
    other.write_record(record(wall_s=12.0, attempt=1))
    reads.clear()
    assert [one.wall_s for one in directory.records()] == [12.0]
    file.write_text("{")
    assert [one.file for one in directory.survey()[1]] == [file]
    file.unlink()
    assert directory.records() == []
