"""Completion of names in a shell: profiles, cards, and cells by their values on the axes of a profile.

typer asks these functions while somebody types, so that they import little, ask no worker and no network, and
never fail: what cannot be read has no completions.
"""

from __future__ import annotations

from collections.abc import Iterator

import typer

from ftbench.base.errors import FtbenchError


def profiles(incomplete: str) -> list[tuple[str, str]]:
    """Return the profiles that begin so, each with the sentence that says what it measures."""
    from ftbench.plan.profile_file import profile_names

    return [(name, _summary(name)) for name in profile_names() if name.startswith(incomplete)]


def _summary(name: str) -> str:
    from ftbench.plan.profile_file import load_profile

    try:
        text = " ".join(load_profile(name).description.split())
    except FtbenchError:
        return "cannot be used"
    return text.partition(". ")[0]


def cards(incomplete: str) -> list[tuple[str, str]]:
    """Return the cards of the catalogue that begin so, each with its memory; and `all`."""
    from ftbench.base.units import format_bytes
    from ftbench.plan.gpus import load_gpus

    named = [(gpu.name, format_bytes(gpu.memory_bytes)) for gpu in load_gpus().values()]
    return [one for one in [*named, ("all", "every card")] if one[0].startswith(incomplete)]


def tasks(incomplete: str) -> list[str]:
    """Return the tasks that begin so."""
    from typing import get_args

    from ftbench.plan.profile import TaskName

    return [name for name in get_args(TaskName) if name.startswith(incomplete)]


def selections(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the values on the axes of the profile that is already typed, as KEY=VALUE after what is complete.

    An axis that the selection has is not offered again.
    """
    complete, comma, begun = incomplete.rpartition(",")
    taken = {part.partition("=")[0].strip() for part in complete.split(",")}
    return [
        f"{complete}{comma}{pair}"
        for axis, pair in _pairs(_profile_of(ctx))
        if axis not in taken and pair.startswith(begun)
    ]


def _profile_of(ctx: typer.Context) -> str:
    """Return the profile that is already typed.

    An option without its value ends the parsing of a command line before its arguments have their names. The
    profile is the last of them (`check-snapshot` has a file before it).
    """
    named = ctx.params.get("profile") or ctx.params.get("subject")
    return str(named or next(reversed(ctx.args), ""))


def _pairs(reference: str) -> Iterator[tuple[str, str]]:
    """Yield each axis of a profile with each of its values as KEY=VALUE, in the order of the profile."""
    from ftbench.plan.profile_file import load_profile

    try:
        blocks = load_profile(reference).grid
    except (FtbenchError, OSError):
        return
    values = [(axis, value) for block in blocks for axis, of in block.axes.items() for value in of]
    for axis, value in dict.fromkeys((axis, _text(value)) for axis, value in values):
        yield axis, f"{axis}={value}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
