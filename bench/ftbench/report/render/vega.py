"""The Vega libraries as one script, for the page of a report."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ftbench.base.errors import RunDirectoryError
from ftbench.base.files import write_atomically

_START = "window.vegaEmbed = vegaEmbed;"


@cache
def script() -> str:
    """Return the libraries as one script, from the user's cache folder if it was made before.

    To make it takes two seconds of a processor; it depends on the version of vl-convert alone.
    """
    file = _cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8")
    import vl_convert

    made = vl_convert.javascript_bundle(_START)
    with contextlib.suppress(OSError, RunDirectoryError):  # a report needs no cache
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, made)
    return made


def _cache_folder() -> Path:
    """Return this program's folder in the user's cache folder (XDG base directories)."""
    named = os.environ.get("XDG_CACHE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return (Path(named) if named else Path(home) / ".cache") / "ftbench"
