"""Options that several commands share, and functions that read them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, NoReturn, TypedDict, Unpack

import typer

from ftbench.base.errors import ProfileError
from ftbench.cli.completion import cards, profiles, selections
from ftbench.verbs.asking import asked_of

if TYPE_CHECKING:
    from rich.console import Console

    from ftbench.plan.gpus import Gpu
    from ftbench.plan.grid import Grid
    from ftbench.plan.profile import Profile
    from ftbench.records.messages import Progress
    from ftbench.records.prediction import AttentionKernel, Predictions

PLAIN_WIDTH = 200  # columns if the output is not a terminal, so that a log is not wrapped

ProfileArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        help="A name under profiles/, or a path to a TOML file.",
        autocompletion=profiles,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the profile, such as run.repeats=3; repeatable.",
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="KEY=VALUE,...",
        help="Only the cells with these values on the axes, such as max_length=512.",
        autocompletion=selections,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of tables.")
]


GpuOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="A card by its name, such as t4, a memory size, such as 24GiB, or all; repeatable.",
        autocompletion=cards,
    ),
]
AttentionOption = Annotated[
    str | None,
    typer.Option(
        "--attention",
        metavar="KERNEL",
        help="The kernel of scaled dot product attention: math, efficient, flash or cudnn."
        "  [default: each card's choice]",
    ),
]
ExpandableOption = Annotated[
    bool,
    typer.Option(
        "--expandable-segments",
        help="Simulate PYTORCH_ALLOC_CONF=expandable_segments:True.",
    ),
]
AssumeTorchOption = Annotated[
    str | None,
    typer.Option(
        "--assume-torch",
        metavar="MAJOR.MINOR",
        help="Correct the figures by what is known of another version of torch, such as 1.10.",
    ),
]


def fail(message: str, code: int) -> NoReturn:
    """Print a message on stderr, and end with this exit code."""
    print(f"ftbench: {message}", file=sys.stderr)
    sys.exit(code)


def resolved_grid(
    profile: str, overrides: list[str] | None, only: str | None, *, option: str = "--only"
) -> tuple[Profile, Grid]:
    """Return a profile, and the selected part of its grid; raises ProfileError, WorkloadError."""
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import resolve

    selection = selection_of(only, option=option)
    loaded = load_profile(profile, overrides or ())
    return loaded, resolve(loaded).only(selection, option=option)


def version_of(text: str | None) -> tuple[int, int] | None:
    """Return the version that --assume-torch names, major and minor; raises ProfileError if it is none."""
    if text is None:
        return None
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    if not (major.isdecimal() and minor.isdecimal()):
        raise ProfileError(
            "no version of torch", where="--assume-torch", got=text, expected="such as 1.10 or 2.6"
        )
    return int(major), int(minor)


NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Trace anew: neither take predictions from the cache nor keep them."
    ),
]


class PredictOptions(TypedDict, total=False):
    """Options of predictions, as in `PredictRequest`."""

    largest_batch: bool
    explain: bool
    attention: AttentionKernel | None
    expandable_segments: bool
    assume_torch: tuple[int, int] | None
    data_at_hand: bool
    on_cpu: bool
    hypothetical: bool
    work: bool
    breakdown_of: tuple[str, ...]
    allocations_of: tuple[str, ...]


def forecast_of(
    grid: Grid, gpus: Sequence[Gpu], *, cached: bool = False, **options: Unpack[PredictOptions]
) -> Predictions:
    """Return the predictions of a grid: those in the cache, or a worker's, whose progress is shown on stderr."""
    from ftbench.records.prediction import PredictRequest

    request = PredictRequest(cells=grid.cells, gpus=tuple(gpus), **options)
    return asked_of(shown, cached=cached)(request)


def shown() -> AbstractContextManager[Callable[[Progress], None]]:
    """Show the progress of a worker on stderr while the context is open."""
    from ftbench.report.render.terminal import phases_on

    return phases_on(sys.stderr)


def size_of(text: str | None, option: str) -> int | None:
    """Return the bytes that an option gives, None without it; raises ProfileError if it is not a size."""
    from ftbench.base.units import parse_bytes

    try:
        return None if text is None else parse_bytes(text)
    except ValueError as error:
        raise ProfileError(str(error), where=option) from error


def selection_of(only: str | None, *, option: str = "--only") -> dict[str, object]:
    """Return the axis values that --only selects; raises ProfileError, also if an axis is there twice."""
    from ftbench.plan.profile_file import parse_selection

    if not only:
        return {}
    names = [part.partition("=")[0].strip() for part in only.split(",")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProfileError(
            "the same axis twice: an axis has one value in a selection",
            where=option,
            got=only,
            hint=f"one command for each value of {twice}",
        )
    return parse_selection(only, option=option)


def open_console() -> Console:
    """Return the console for tables: as wide as the terminal, or `PLAIN_WIDTH` columns without one."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(highlight=False, width=wide)
