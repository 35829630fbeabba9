"""The file of a program: how it is loaded, which functions are factories, and what is said of the user's errors."""

import os
import sys

import pytest
import torch

from ftbench.base.errors import PredictionError, ProfileError, ProgramError
from ftbench.plan.programs import Program
from ftbench.prediction.trace.program_file import Factory, load_factory, user_errors

DEVICE = torch.device("cpu", 0)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    """What loading a file changes in its process, which is the worker's own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load a factory of a file with this text."""
    monkeypatch.chdir(tmp_path)

    def load(text, factory="make_step", file="train.py"):
        (tmp_path / file).write_text(text)
        return load_factory(Program(file=file, factory=factory))

    return load


def refusal(call, *arguments, of=ProgramError):
    with pytest.raises(of) as raised:
        call(*arguments)
    return raised.value


def test_a_file_is_run_as_a_script_is(loaded, tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    factory = loaded(
        "import sys\nfrom dataclasses import dataclass\nfrom beside import VALUE\n"
        "@dataclass\nclass Config:\n    x: int = VALUE\n"
        "ARGUMENTS = list(sys.argv)\n"
        "if __name__ == '__main__':\n    raise SystemExit('trains')\n"
        "def make_step(device):\n    return lambda: (Config().x, ARGUMENTS)\n"
    )
    assert factory.step(DEVICE, {})() == (7, ["train.py"])


def test_an_edit_within_the_same_second_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.chdir(tmp_path)
    for value in (1, 2):
        (tmp_path / "train.py").write_text(f"def make_step(device):\n    return lambda: {value}\n")
        os.utime(tmp_path / "train.py", (10**9, 10**9))
        factory = load_factory(Program(file="train.py", factory="make_step"))
        assert factory.step(DEVICE, {})() == value
        del sys.modules["train"]
    assert not (tmp_path / "__pycache__").exists()


def test_a_file_that_is_called_like_a_module_does_not_replace_it(loaded):
    import json

    loaded("def make_step(device): ...\n", file="json.py")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("signature", "arguments", "result"),
    [
        ("device", {}, (DEVICE,)),
        ("device, batch", {"batch": 8}, (DEVICE, 8)),
        ("device, *, batch=2", {"batch": 8}, (DEVICE, 8)),
        ("batch, device", {"batch": 8}, (8, DEVICE)),
        ("where, batch=2", {}, (DEVICE, 2)),
        ("device, **rest", {"batch": 8}, (DEVICE, {"batch": 8})),
    ],
)
def test_the_device_and_the_arguments_reach_the_factory(loaded, signature, arguments, result):
    names = [part.split("=")[0].strip("* ") for part in signature.split(",")]
    returned = ", ".join(name for name in names if name)
    factory = loaded(f"def make_step({signature}):\n    return lambda: ({returned},)\n")
    factory.require(arguments)
    assert factory.step(DEVICE, arguments)() == result


@pytest.mark.parametrize("signature", ["", "*, batch", "**rest"])
def test_a_factory_takes_a_device(loaded, signature):
    error = refusal(loaded, f"def make_step({signature}): ...\n")
    assert error.what == "the factory takes no device"
    assert "def make_step(device, ...)" in error.expected


def test_arguments_that_the_factory_does_not_take_or_needs_are_named(loaded):
    factory = loaded("def make_step(device, batch, length=1): ...\n")
    error = refusal(factory.require, {"batch": 1, "lenght": 2}, of=ProfileError)
    assert (error.where, error.nearest) == ("--arg lenght", "length")
    error = refusal(factory.require, {"batch": 1, "device": "cuda"}, of=ProfileError)
    assert error.where == "--arg device"
    assert refusal(factory.require, {}, of=ProfileError).expected == "--arg batch=..."


def test_a_function_that_is_not_there_has_a_nearest_name(loaded):
    text = "from os import getcwd\ndef make_step(device): ...\ndef other(): ...\n"
    error = refusal(loaded, text, "make_stpe")
    assert (error.got, error.nearest) == ("make_stpe", "make_step")
    assert error.expected == "one of make_step, other"


def test_what_is_no_function_is_refused(loaded):
    error = refusal(loaded, "make_step = 3\n")
    assert (error.what, error.got) == ("not a function", "int")


def test_a_factory_returns_a_step(loaded):
    error = refusal(loaded("def make_step(device): ...\n").step, DEVICE, {})
    assert error.got == "NoneType"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("raise ValueError('no such corpus')", "ValueError: no such corpus"),
        ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("assert False", "AssertionError"),
    ],
)
def test_a_file_that_raises_is_one_error_with_its_line(loaded, line, what):
    error = refusal(loaded, f"x = 1\n{line}\n")
    assert error.what.startswith(what)
    assert (error.where, error.got) == ("train.py", "train.py:2, in <module>")


def test_a_file_that_is_not_python_has_the_compiler_s_line(loaded):
    error = refusal(loaded, "x = 1\ndef (\n")
    assert error.what.startswith("SyntaxError")
    assert error.got == "train.py:2"


def test_the_user_s_own_frames_are_shown_and_no_others(loaded):
    factory = loaded(
        "import torch\n"
        "def helper():\n    return torch.zeros(2) @ torch.zeros(3)\n"
        "def make_step(device):\n    return helper()\n"
    )

    def run():
        with user_errors("train.py:make_step()"):
            factory.step(DEVICE, {})

    error = refusal(run)
    assert error.what.startswith("RuntimeError")
    # Above these is this test's own frame, and below them torch's.
    assert [line.strip() for line in error.got.splitlines()[1:]] == [
        "train.py:5, in make_step",
        "train.py:3, in helper",
    ]


def test_errors_of_ours_pass():
    def run():
        with user_errors("x"):
            raise PredictionError("not covered")

    assert refusal(run, of=PredictionError).what == "not covered"


def test_a_class_is_a_factory_as_well():
    class Steps:
        def __init__(self, device, batch=2):
            self.batch = batch

        def __call__(self):
            return self.batch

    assert Factory(Program(file="a.py", factory="Steps"), Steps).step(DEVICE, {"batch": 3})() == 3


def test_a_card_by_its_number_alone_is_told_how_to_name_it():
    with pytest.raises(ProgramError) as raised, user_errors("loop.py"):
        raise RuntimeError("Cannot access accelerator device when none is available.")
    assert "torch.device('cuda', 0)" in raised.value.hint
