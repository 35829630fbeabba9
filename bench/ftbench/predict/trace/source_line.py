"""Source: which line of a user's code is running, for people to read."""

from __future__ import annotations

import functools
import importlib.util
import os
import site
import sys
import sysconfig
from pathlib import Path
from types import FrameType

# Code that carries out what others ask for: a line of it says nothing of who asked.
_CARRIERS = tuple(
    f"{Path(spec.origin).parent}{os.sep}"
    for name in ("torch", "accelerate", "ftbench")
    if (spec := importlib.util.find_spec(name)) is not None and spec.origin is not None
)
_STANDARD = f"{sysconfig.get_path('stdlib')}{os.sep}"


def source_line() -> str:
    """Return `file:line` of the innermost frame whose code asks for something; empty without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        shown = _shown(frame.f_code.co_filename)
        if shown:
            return f"{shown}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@functools.lru_cache(maxsize=4096)
def _shown(file: str) -> str:
    """Return a file's name as people know it: from its package on, or from the current folder on.

    Empty for files that only carry out, and for code that is in no file.
    """
    if file.startswith(("<", *_CARRIERS)):
        return ""
    path = str(Path(file).absolute())
    for folder in _packages():
        if path.startswith(folder):
            return path[len(folder) :].replace(os.sep, "/")
    if path.startswith(_STANDARD):
        return ""
    here = f"{Path.cwd()}{os.sep}"
    return (path[len(here) :] if path.startswith(here) else path).replace(os.sep, "/")


@functools.cache
def _packages() -> tuple[str, ...]:
    """Return the folders that packages are installed in."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(f"{folder}{os.sep}" for folder in sorted(folders))
