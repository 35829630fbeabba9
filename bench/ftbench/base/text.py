"""Texts from outside, from a file, a library or a worker, made safe for the place where they are shown."""

from __future__ import annotations

from collections.abc import Iterable

# Control characters may move a cursor, set colours, or end a line of Markdown; the others here turn text around, so
# that what is read differs from what is there.
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
_CONTROL |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Return a text without control characters but tab and newline."""
    return text.translate(_CONTROL)


def no_formula(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe in front of it says that it is text."""
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def joined(words: Iterable[str]) -> str:
    """Return words as a list in a sentence: `3, 8 and 12`."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
