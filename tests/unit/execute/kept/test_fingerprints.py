"""Fingerprints: whatever a worker read and that is now different makes its answer void."""

import os

import pytest

from ftbench.base import importable
from ftbench.base.files import stamp_of
from ftbench.base.importable import importable_names
from ftbench.execute.kept.fingerprints import fingerprints_of, unchanged
from ftbench.records.recorded import FilesRead


def read_of(*files, folders=()):
    return FilesRead(
        files={str(file): stamp_of(str(file)) for file in files},
        folders={str(folder): importable_names(str(folder)) for folder in folders},
    )


@pytest.fixture
def module(tmp_path):
    file = tmp_path / "model.py"
    file.write_text("width = 1")
    return file


def rewritten(file, text):
    """Write another content of the same size, at the same time as before."""
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_changed(module):
    found = fingerprints_of(read_of(module), known=())
    assert list(found) == [str(module)]
    assert unchanged(found)
    os.utime(module, ns=(1, 1))  # the time of a change is no change
    assert unchanged(found)


def test_a_file_of_the_user_is_compared_by_content(module):
    found = fingerprints_of(read_of(module), known=())
    rewritten(module, "width = 2")
    assert not unchanged(found)
    rewritten(module, "width = 1")
    assert unchanged(found)
    module.unlink()
    assert not unchanged(found)


def test_a_file_of_a_library_is_compared_by_size_and_time(module, monkeypatch, tmp_path):
    monkeypatch.setattr(importable, "library_folders", lambda: (f"{tmp_path}{os.sep}",))
    found = fingerprints_of(read_of(module), known=())
    assert unchanged(found)
    os.utime(module, ns=(1, 1))
    assert not unchanged(found)


def test_a_file_that_was_not_there_must_not_appear(tmp_path):
    absent = tmp_path / "config.json"
    found = fingerprints_of(read_of(absent), known=())
    assert unchanged(found)
    absent.write_text("{}")
    assert not unchanged(found)


def test_a_module_that_would_be_found_earlier_must_not_appear(tmp_path):
    found = fingerprints_of(read_of(folders=[tmp_path]), known=())
    assert unchanged(found)
    (tmp_path / "notes.txt").write_text("no module")
    assert unchanged(found)
    (tmp_path / "torch.py").write_text("")
    assert not unchanged(found)


def test_what_changed_while_it_was_read_has_no_fingerprint(module, tmp_path):
    read = read_of(module, folders=[tmp_path])
    rewritten(module, "width = 2")  # the time of the state's change cannot be set back
    assert fingerprints_of(read, known=()) is None


def test_a_folder_that_changed_while_it_was_read_has_no_fingerprint(tmp_path):
    read = read_of(folders=[tmp_path])
    (tmp_path / "torch.py").write_text("")
    assert fingerprints_of(read, known=()) is None


def test_files_with_a_revision_are_left_out(module):
    assert fingerprints_of(read_of(module), known={str(module)}) == {}
