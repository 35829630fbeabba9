"""Files that are not what they seem: pipes, devices, links, second names."""

import errno
import os
from pathlib import Path

import pytest

from ftbench.base.errors import DamagedFile, RunDirectoryError
from ftbench.base.files import load_json, read_regular, remove_link, write_atomically


@pytest.fixture(params=["pipe", "device", "folder"])
def odd(request, tmp_path):
    if request.param == "device":
        return tmp_path.__class__("/dev/zero")
    place = tmp_path / "odd.json"
    os.mkfifo(place) if request.param == "pipe" else place.mkdir()
    return place


def test_what_is_no_regular_file_is_refused_and_not_waited_for(odd):
    with pytest.raises((OSError, ValueError)):
        read_regular(odd, 100)
    with pytest.raises(DamagedFile):
        load_json(odd)


def test_a_file_larger_than_it_may_be(tmp_path):
    file = tmp_path / "a"
    file.write_text("x" * 11)
    assert read_regular(file, 11) == "x" * 11
    with pytest.raises(ValueError, match="larger than"):
        read_regular(file, 10)


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to", "fifo"])
def test_what_leads_elsewhere_is_removed_before_a_file_is_written(tmp_path, kind):
    precious, place = tmp_path / "precious", tmp_path / "place"
    precious.write_text("mine")
    os.mkfifo(place) if kind == "fifo" else getattr(place, kind)(precious)
    remove_link(place)
    assert not place.exists()
    assert precious.read_text() == "mine"


def test_own_files_and_folders_stay(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path, tmp_path / "none"):
        remove_link(place)
    assert (tmp_path / "file").exists()


def test_a_file_system_that_is_read_only_is_said_with_the_file(tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    for name in ("unlink", "open"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(RunDirectoryError, match="Read-only") as caught:
        write_atomically(tmp_path / "report.md", "text")
    assert caught.value.where == str(tmp_path / "report.md")
    assert "--out" in caught.value.hint
