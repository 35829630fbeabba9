"""The Vega libraries as one script, for the page of a report."""

from __future__ import annotations

import contextlib
from functools import cache
from importlib.metadata import version

from ftbench.base.errors import RunDirectoryError
from ftbench.base.files import cache_folder, write_atomically

_START = "window.vegaEmbed = vegaEmbed;"


@cache
def script() -> str:
    """Return the libraries as one script, from the user's cache folder if it was made before.

    To make it takes two seconds of a processor; it depends on the version of vl-convert alone.
    """
    file = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8")
    import vl_convert

    made = vl_convert.javascript_bundle(_START)
    with contextlib.suppress(OSError, RunDirectoryError):  # a report needs no cache
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, made)
    return made
