"""The line of a user's code behind a stack is found as the lines of a prediction are."""

from pathlib import Path

import pytest

from ftbench.snapshot.frames import NO_FRAME, Frame, LineNames, frame_of

PACKAGES = "/opt/env/lib/python3.11/site-packages/"


def _stack(*files: str) -> list[dict[str, object]]:
    return [{"filename": file, "line": 3, "name": "f"} for file in files]


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (["/home/me/train.py"], "/home/me/train.py:3"),
        ([f"{PACKAGES}torch/nn/modules/linear.py", "/home/me/train.py"], "/home/me/train.py:3"),
        ([f"{PACKAGES}accelerate/a.py", f"{PACKAGES}transformers/b.py"], "transformers/b.py:3"),
        (["/usr/lib/python3/dist-packages/torch/a.py", "/x/m.py"], "/x/m.py:3"),
        (["/usr/lib/python3.11/contextlib.py", "/x/m.py"], "/x/m.py:3"),
        (["<frozen importlib>", "??", "/pytorch/aten/src/x.cpp", "/x/m.py"], "/x/m.py:3"),
        (["<ipython-input-3-abc>", "/x/m.py"], "<ipython-input-3-abc>:3"),
        # All of it in packages: the innermost.
        ([f"{PACKAGES}torch/a.py", f"{PACKAGES}torch/b.py"], "torch/a.py:3"),
        (["??", "/pytorch/x.cpp"], ""),
        ([], ""),
    ],
)
def test_the_innermost_line_outside_of_torch_is_shown(files: list[str], source: str) -> None:
    assert frame_of(_stack(*files)).source == source


def test_a_file_under_the_current_folder_is_relative_to_it() -> None:
    here = str(Path.cwd() / "loops" / "mine.py")
    assert frame_of(_stack(here)) == Frame("loops/mine.py:3", "f")


def test_a_stack_that_is_none_has_no_frame() -> None:
    assert frame_of(None) == frame_of(7) == frame_of(["x"]) == NO_FRAME


def test_control_characters_are_not_shown() -> None:
    stack = [{"filename": "/x/\x1b[2J.py", "line": 1, "name": "\x07"}]
    assert not {"\x1b", "\x07"} & set(frame_of(stack).source + frame_of(stack).function)


def test_a_predicted_line_gets_the_recordings_path_if_only_one_fits() -> None:
    names = LineNames(["/home/me/a/train.py:3", "/home/me/b/model.py:4", "/home/me/c/model.py:4"])
    assert names.of("train.py:9") == "/home/me/a/train.py:9"
    assert names.of("a/train.py:9") == "/home/me/a/train.py:9"
    assert names.of("model.py:9") == "model.py:9"
    assert names.of("rain.py:9") == "rain.py:9"
    assert names.of("") == ""


def test_a_line_that_is_no_number_is_left_out() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    stack = [{"filename": "/x/m.py", "line": nested, "name": nested}]
    assert frame_of(stack) == Frame("/x/m.py:0", "")
