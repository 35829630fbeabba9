"""The line of a user's code that is running, for people to read."""

from __future__ import annotations

import functools
import importlib.util
import os
import site
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

# Packages that work on behalf of their callers: their lines do not say who made an allocation.
_CARRIERS = tuple(
    f"{Path(spec.origin).parent}{os.sep}"
    for name in ("torch", "accelerate", "ftbench")
    if (spec := importlib.util.find_spec(name)) is not None and spec.origin is not None
)
_OURS = f"{Path(__file__).parents[2]}{os.sep}"
_STANDARD = f"{sysconfig.get_path('stdlib')}{os.sep}"


def source_line() -> str:
    """Return `file:line` of the innermost frame outside of these packages; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        shown = _shown(frame.f_code.co_filename)
        if shown:
            return f"{shown}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def error_line(error: BaseException) -> str:
    """Return `file:line` of the innermost frame of an error outside of these packages; empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    shown = ((_shown(frame.filename), frame.lineno) for frame in reversed(frames))
    return next((f"{file}:{line}" for file, line in shown if file), "")


def error_is_ours(error: BaseException) -> bool:
    """Return whether the innermost frame of an error is in this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_OURS)


def own_frames(error: BaseException) -> list[str]:
    """Return `file:line, in function` of the frames of an error that are in the user's own files, outermost first.

    These are the files that are neither in a package nor in the standard library. A file that is not Python has
    no frames: then it is the line that its compiler names.
    """
    frames = [
        f"{shown}:{frame.lineno}, in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if (shown := _shown(frame.filename)) and not _of_package(frame.filename)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(f"{_shown(error.filename) or error.filename}:{error.lineno}")
    return frames


def _of_package(file: str) -> bool:
    return str(Path(file).absolute()).startswith(_packages())


@functools.lru_cache(maxsize=4096)
def _shown(file: str) -> str:
    """Return a file's path relative to the folder of its package, or to the current folder.

    Empty for files of `_CARRIERS` and the standard library, and for code without a file.
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
    """Return the folders of installed packages."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(f"{folder}{os.sep}" for folder in sorted(folders))
