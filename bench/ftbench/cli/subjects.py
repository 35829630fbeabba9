"""Subjects: what commands predict, a profile or a program (`FILE.py:FACTORY`), decided in one place.

`predict`, `explain`, `gate` and `baseline` treat both alike. An option that means nothing for one of them is
refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from ftbench.base.errors import ProfileError
from ftbench.cli.completion import profiles
from ftbench.cli.options import selection_of, shown
from ftbench.verbs.asking import asked_of
from ftbench.verbs.given import MOST_GPUS
from ftbench.verbs.subjects import Subject, profile_subject, program_subject

SubjectArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE|FILE.py:FACTORY",
        help="A profile's name or TOML file; or a function that builds a training step.",
        autocompletion=profiles,
    ),
]
ArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        metavar="NAME=VALUE",
        help="With FILE.py:FACTORY: an argument of the factory; a list is an axis of a grid. Repeatable.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", min=1, help="With FILE.py:FACTORY: the traced steps.  [default: 3]"
    ),
]
LargestOption = Annotated[
    str | None,
    typer.Option(
        "--largest",
        metavar="NAME",
        help="With FILE.py:FACTORY and --gpu: search the largest value of this argument that fits.",
    ),
]

GpusOption = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="N,...",
        help="The number of GPUs, one process each: 8, or 1,2,4, or 1..8.",
    ),
]

_OF_PROGRAMS = "applies to FILE.py:FACTORY only"
OF_PROFILES = "applies to profiles only"


def subject_of(
    reference: str,
    only: str | None = None,
    *,
    overrides: list[str] | None = None,
    arguments: list[str] | None = None,
    steps: int | None = None,
    largest: str | None = None,
    gpus: str | None = None,
    option: str = "--only",
    cached: bool = False,
) -> Subject:
    """Return the subject that the command line names; raises ProfileError and WorkloadError."""
    from ftbench.plan.programs import is_program

    selection = selection_of(only, option=option)
    numbers = numbers_of_gpus(gpus) if gpus else ()
    ask = asked_of(shown, cached=cached)
    if is_program(reference):
        refuse_options(reference, OF_PROFILES, {"--set": overrides})
        return program_subject(
            reference,
            selection,
            numbers,
            ask,
            arguments=arguments or (),
            steps=steps,
            largest=largest,
            option=option,
        )
    from ftbench.plan.profile_file import load_profile

    given = {"--arg": arguments, "--steps": steps, "--largest": largest}
    refuse_options(reference, _OF_PROGRAMS, given)
    profile = load_profile(reference, overrides or ())
    return profile_subject(profile, selection, numbers, ask, option=option)


def numbers_of_gpus(text: str) -> tuple[int, ...]:
    """Return the numbers that `--gpus` names: `8`, `1,2,4` or `1..8`, which has both ends; raises ProfileError."""
    try:
        first, dots, last = text.partition("..")
        numbers = range(int(first), int(last) + 1) if dots else map(int, text.split(","))
        found = tuple(dict.fromkeys(numbers))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > MOST_GPUS:
        raise ProfileError(
            "not a number of GPUs",
            where="--gpus",
            got=text,
            expected=f"8, or 1,2,4, or 1..8; each from 1 to {MOST_GPUS:,}",
        )
    return found


def refuse_options(reference: str, why: str, given: Mapping[str, object]) -> None:
    """Raise ProfileError for the first of these options that is given: it means nothing for this subject."""
    for option, value in given.items():
        if value:
            raise ProfileError(f"this option {why}", where=option, got=f"{option} with {reference}")
