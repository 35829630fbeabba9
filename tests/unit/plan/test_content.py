"""Files of a source: hashed by name and content, and never one that cannot be read twice."""

import os
import socket

import pytest

from ftbench.base.errors import WorkloadError
from ftbench.plan.content import hash_files, hashed_files, nearest_path


def revision(path):
    return hash_files(*hashed_files(path, "workload.dataset"))[1]


@pytest.mark.parametrize(
    "place", ["d.csv", "ds/train.csv", "ds/.huggingface.yaml", "ds/a/README.md"]
)
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(file)
    for of in {file, tmp_path / place.split("/")[0]}:
        with pytest.raises(WorkloadError, match="not a file with content") as caught:
            hashed_files(of, "workload.dataset")
        assert "a FIFO" in caught.value.got
        assert caught.value.where == "workload.dataset"


def test_devices_sockets_and_links_to_them_are_refused(tmp_path):
    (tmp_path / "link.csv").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
    for path in ("/dev/zero", tmp_path / "link.csv", tmp_path / "s", f"{tmp_path}/*.csv"):
        with pytest.raises(WorkloadError, match="not a file with content"):
            hashed_files(type(tmp_path)(path), "workload.dataset")


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "d.csv").symlink_to("gone.csv")
    with pytest.raises(WorkloadError, match="a link to a file that does not exist") as caught:
        hashed_files(tmp_path, "workload.dataset")
    assert caught.value.got.endswith("d.csv -> gone.csv")


def test_a_name_with_brackets_is_a_file_if_there_is_one(tmp_path):
    (tmp_path / "d[1].csv").write_text("a")
    (tmp_path / "d1.csv").write_text("b")
    assert hashed_files(tmp_path / "d[1].csv", "")[1] == [tmp_path / "d[1].csv"]
    assert hashed_files(tmp_path / "d[12].csv", "")[1] == [tmp_path / "d1.csv"]


def test_a_link_counts_by_the_content_of_its_file(tmp_path):
    (tmp_path / "ds").mkdir()
    (tmp_path / "blob").write_text("a")
    (tmp_path / "ds/d.csv").symlink_to(tmp_path / "blob")
    before = revision(tmp_path / "ds")
    (tmp_path / "blob").write_text("b")
    assert revision(tmp_path / "ds") != before


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("models/tinny", "models/tiny"), ("modls/tiny", "models"), ("other/place", None)],
)
def test_the_nearest_path_is_that_of_the_first_part_that_is_missing(tmp_path, path, nearest):
    (tmp_path / "models/tiny").mkdir(parents=True)
    (tmp_path / "modls.py").touch()  # a file, where a folder is sought
    found = nearest_path(tmp_path / path)
    assert found == (nearest and str(tmp_path / nearest))
