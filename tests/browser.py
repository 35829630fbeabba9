"""The lookup of the browser that reports are checked in, for the session `tests` and the tests themselves.

Standard library only: nox reads it before anything is installed.
"""

from __future__ import annotations

import os
import shutil

VARIABLE = "FTBENCH_CHROMIUM"
NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "msedge",
)
OPTIONS = f"""\
Reports are checked in a real browser. One of these helps:
    install Chromium, Google Chrome or Microsoft Edge (Debian and Ubuntu: apt-get install chromium)
    put one of {", ".join(NAMES)} on PATH
    name the program of such a browser in the variable {VARIABLE}
    run the tests that need none: python -m nox -s tests -- tests/unit"""


class NoBrowserError(Exception):
    """No browser was found; the text says what was looked for and what helps."""


def find_browser() -> str:
    """Return the path of a Chromium, Chrome or Edge: the one that FTBENCH_CHROMIUM names, else of PATH.

    Raises NoBrowserError, also if the variable names something that is not a program: another browser
    than the one asked for is never used.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if found := shutil.which(named):
            return found
        raise NoBrowserError(f"{VARIABLE} is set to {named}, which is not a program.\n{OPTIONS}")
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise NoBrowserError(f"No browser is on PATH.\n{OPTIONS}")
