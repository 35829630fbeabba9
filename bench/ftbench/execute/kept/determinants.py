"""Determinants: all that an answer of a predicting worker depends on and that is known before it is asked.

What it reads meanwhile is known only afterwards (`fingerprints.py`). Rather too much is part of a key than too
little: a question that is asked anew costs seconds, an answer that no longer holds is wrong.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import ftbench
from ftbench.base.importable import importable_names, in_library
from ftbench.plan.devices import cpu_name

FORMAT = 1  # of keys and of kept answers; another number makes all of them void
# Variables that say where a command was typed. All others are part of a key: torch and the libraries of Hugging
# Face read hundreds.
OF_A_SESSION = frozenset(
    {
        "_",
        "COLUMNS",
        "LINES",
        "OLDPWD",
        "PS1",
        "PWD",
        "SHLVL",
        "STY",
        "TERM",
        "TERM_PROGRAM",
        "TERM_PROGRAM_VERSION",
        "TERM_SESSION_ID",
        "TMUX",
        "TMUX_PANE",
        "WINDOW",
        "WINDOWID",
    }
)
_OF_SSH = "SSH_"
_PACKAGES = (".dist-info", ".egg-info", ".egg-link", ".pth")


def key_of(request: BaseModel) -> str:
    """Return the key of a worker's answer: a SHA-256 of the question and of its surroundings.

    The number of processes that work on the answer is no part of it.
    """
    question = request.model_dump(mode="json") | {"processes": None}
    text = json.dumps([FORMAT, type(request).__name__, question, _surroundings()], sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _surroundings() -> dict[str, Any]:
    """Return the surroundings of a worker: Python, its packages, this program, the processor, the environment."""
    return {
        "python": [sys.version, sys.executable, sys.prefix, list(map(os.path.abspath, sys.path))],
        "packages": sorted(_packages()),
        "modules": {
            folder: importable_names(folder) for folder in sys.path if not has_packages(folder)
        },
        "program": _own_sources(),
        "processor": [os.uname().machine, cpu_name(), len(os.sched_getaffinity(0))],
        "folder": os.getcwd(),  # noqa: PTH109 - of the files of programs, and of lines of code
        "environment": environment_of(os.environ),
    }


def environment_of(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an answer may depend on."""
    return {
        name: value
        for name, value in variables.items()
        if name not in OF_A_SESSION and not name.startswith(_OF_SSH)
    }


def _packages() -> Iterator[tuple[str, int]]:
    """Yield the installed packages, with their versions in their names, and when each was installed."""
    for folder in dict.fromkeys(filter(has_packages, sys.path)):
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if entry.name.endswith(_PACKAGES)]
                yield from ((entry.name, entry.stat().st_mtime_ns) for entry in found)
        except OSError:
            continue


def has_packages(folder: str) -> bool:
    """Return whether a folder has installed packages."""
    return in_library(f"{os.path.abspath(folder)}{os.sep}")  # noqa: PTH100


@functools.cache
def _own_sources() -> str:
    """Return a SHA-256 of all files of this program: in a checkout, they change without a version."""
    root, found = Path(ftbench.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*")):
        if file.suffix != ".pyc" and file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found.update(f"{file.relative_to(root).as_posix()}\0{content}\n".encode())
    return found.hexdigest()
