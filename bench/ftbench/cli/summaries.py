"""Summaries of commands for a list of them: whole sentences, where Click's own are cut to a line's width."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def summary_of(command: Callable[..., None]) -> str:
    """Return the first sentence of a command's docstring; a list of commands wraps it, and never cuts it."""
    paragraph = inspect.cleandoc(command.__doc__ or "").partition("\n\n")[0]
    sentence, stop, _ = " ".join(paragraph.split()).partition(". ")
    return f"{sentence}{stop}".strip()
