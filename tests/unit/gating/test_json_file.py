"""JSON files that others wrote: what is read, and what is refused without waiting for it."""

import os

import pytest

from ftbench.gating.json_file import read_json_file


def test_a_plain_file_is_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"a": [1, {"a": 2}]}')
    assert read_json_file(file, 20) == {"a": [1, {"a": 2}]}
    with pytest.raises(ValueError, match="larger than 19 B"):
        read_json_file(file, 19)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 1}}', '{"a": NaN}', ""])
def test_what_json_cannot_hold_is_refused(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_json_file(file, 100)


def test_pipes_devices_and_links_are_refused(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    (tmp_path / "x.json").write_text("{}")
    link.symlink_to("x.json")
    for file in (pipe, tmp_path):
        with pytest.raises((ValueError, OSError)):
            read_json_file(file, 100)
    with pytest.raises(OSError, match="symbolic links"):
        read_json_file(link, 100)
