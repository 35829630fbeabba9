"""Files of calibrations: what was written is read, and what was changed is not."""

import json
import socket
from pathlib import Path

import pytest

from ftbench.base.errors import DamagedFile, RunDirectoryError
from ftbench.records.calibration_files import (
    make_folder,
    read_calibration,
    read_calibrations,
    write_calibration,
)
from tests.calibrated import calibration


def test_what_was_written_is_read(tmp_path):
    file = write_calibration(calibration(), tmp_path / "calibration")
    assert file.name == "nvidia-l4.json"
    assert read_calibration(file) == calibration()
    assert read_calibrations(file.parent) == (calibration(),)


def test_no_folder_has_no_calibrations(tmp_path):
    assert read_calibrations(tmp_path / "calibration") == ()


def test_a_changed_file_is_not_believed(tmp_path):
    file = write_calibration(calibration(), tmp_path)
    data = json.loads(file.read_text())
    data["products"][0]["seconds"] /= 2
    file.write_text(json.dumps(data))
    with pytest.raises(DamagedFile):
        read_calibration(file)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', "{", '"text"'])
def test_another_file_is_refused(tmp_path, text):
    file = tmp_path / "cpu.json"
    file.write_text(text)
    with pytest.raises(DamagedFile):
        read_calibration(file)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"camera": 1}', '{"schema_version": 2}', "{", '"text"']
)
def test_the_files_of_another_program_are_left_alone(tmp_path, text):
    """A folder named `calibration` may be a project's own."""
    write_calibration(calibration(), tmp_path)
    (tmp_path / "camera.json").write_text(text)
    (tmp_path / "folder.json").mkdir()
    assert read_calibrations(tmp_path) == (calibration(),)


def test_a_file_that_is_cut_off_is_named(tmp_path):
    file = write_calibration(calibration(), tmp_path)
    file.write_text(file.read_text()[:500])
    with pytest.raises(DamagedFile) as raised:
        read_calibrations(tmp_path)
    assert raised.value.where == str(file)


def test_a_newer_schema_is_named(tmp_path):
    file = write_calibration(calibration(), tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 2}))
    with pytest.raises(DamagedFile, match="schema version 2"):
        read_calibration(file)


def test_nothing_of_the_machine_is_in_it(tmp_path):
    text = write_calibration(calibration(), tmp_path).read_text()
    assert socket.gethostname() not in text


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "calibration", Path("/proc/calibration")):
        with pytest.raises(RunDirectoryError) as raised:
            make_folder(folder)
        assert raised.value.where == str(folder)
    make_folder(tmp_path / "new" / "calibration")
    assert list((tmp_path / "new" / "calibration").iterdir()) == []
