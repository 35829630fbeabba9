"""Frames: the line of a user's code behind an event, from the stack that torch recorded."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ftbench.base.text import printable

# Packages that work on behalf of their callers, as in the lines of a prediction (`predict.trace.source_line`).
_CARRIERS = ("torch/", "accelerate/", "ftbench/")
_PACKAGES = re.compile(r".*/(?:site|dist)-packages/")
_STANDARD = re.compile(r".*/lib/python3(?:\.\d+)?/|<frozen ")


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """A line of Python code: `file:line`, and the function; both empty if none is known."""

    source: str
    function: str


NO_FRAME = Frame("", "")


def frame_of(stack: object) -> Frame:
    """Return the innermost Python frame outside of torch, accelerate and the standard library.

    `stack` is a list of dictionaries with `filename`, `line` and `name`, innermost first. If all Python frames
    are in those packages, the innermost of them is returned; `NO_FRAME` if there is none, as in a backward
    pass, which torch runs in a thread without Python.
    """
    if not isinstance(stack, Sequence):
        return NO_FRAME
    within = NO_FRAME
    for entry in stack:
        if not isinstance(entry, dict):
            continue
        shown, own = _shown(str(entry.get("filename", "")))
        if not shown:
            continue
        line, name = entry.get("line"), entry.get("name")
        frame = Frame(
            printable(f"{shown}:{line if type(line) is int else 0}"),
            printable(name) if isinstance(name, str) else "",
        )
        if own:
            return frame
        within = within if within.source else frame
    return within


@functools.lru_cache(maxsize=65536)
def _shown(file: str) -> tuple[str, bool]:
    """Return a Python file's path, and whether its lines are shown first; an empty path for other code.

    A path is relative to the folder of its package, or to the current folder.
    """
    if not (file.endswith(".py") or file.startswith("<ipython")):
        return "", False
    packaged = _PACKAGES.sub("", file)
    if packaged != file:
        return packaged, not packaged.startswith(_CARRIERS)
    if _STANDARD.match(file):
        return file, False
    here = f"{Path.cwd()}{os.sep}"
    return file.removeprefix(here), True


class LineNames:
    """The lines of code as a recording names them: its paths may begin elsewhere than those of a prediction."""

    def __init__(self, sources: Iterable[str]) -> None:
        self._files = {source.rpartition(":")[0] for source in sources}
        self._known: dict[str, str] = {}

    def of(self, source: str) -> str:
        """Return a predicted line under the path that the recording has for the same file, if only one fits."""
        file, colon, line = source.rpartition(":")
        if file not in self._known:
            fitting = [
                one for one in self._files if one and f"/{one}".endswith(f"/{file}") and file
            ]
            self._known[file] = fitting[0] if len(fitting) == 1 else file
        return f"{self._known[file]}{colon}{line}"
