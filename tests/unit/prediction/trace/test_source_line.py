"""Which line of code asks for something, as people know it."""

import sysconfig
from pathlib import Path

import accelerate
import pytest
import torch

import ftbench
from ftbench.prediction.trace.source_line import source_line


def asked_from(file, within=lambda f: f()):
    """Return the line that is said of a call from line 3 of a file."""
    told = []
    code = compile("\n\ndef ask():\n    note()\n", str(file), "exec")
    note = compile("def note():\n    told.append(source_line())\n", "<string>", "exec")
    names = {"told": told, "source_line": source_line}
    exec(note, names)
    exec(code, names)
    within(names["ask"])
    return told[0]


def test_a_file_of_the_current_folder_is_named_from_there():
    assert asked_from(Path.cwd() / "train" / "loop.py") == "train/loop.py:4"


def test_a_package_is_named_from_its_own_name():
    folder = Path(sysconfig.get_path("purelib"))
    assert asked_from(folder / "transformers" / "model.py") == "transformers/model.py:4"


@pytest.mark.parametrize("package", [torch, accelerate, ftbench])
def test_code_that_carries_out_is_looked_through(package):
    inner = Path(package.__file__).parent / "inner.py"
    assert asked_from(inner).startswith("tests/unit/prediction/trace/test_source_line.py:")


def test_code_that_is_in_no_file_is_looked_through():
    assert asked_from("<string>").startswith("tests/unit/prediction/trace/test_source_line.py:")
