"""Commands after a run: the report of one run directory, or of two side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import ProfileError
from ftbench.cli.options import open_console

if TYPE_CHECKING:
    from ftbench.records.run_directory import RunDirectory
    from ftbench.report.document import Document


def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_DIR",
            help="A directory of `ftbench run`; two are compared side by side.",
        ),
    ],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME,...",
            help="One or more of md, html, csv, json, parquet, latex, png, step-summary."
            "  [default: md,html,csv]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="The folder for the files.  [default: the run directory; for two, none]",
        ),
    ] = None,
    usd_per_hour: Annotated[
        float | None,
        typer.Option(
            "--usd-per-hour",
            metavar="USD",
            min=0.0,
            help="The price of the device; the report then shows costs as well.",
        ),
    ] = None,
) -> None:
    """Show and write the report of a run directory.

    Given two run directories, it compares them side by side, and writes files only with --out or --format.
    """
    from ftbench.records.run_directory import RunDirectory
    from ftbench.verbs.results import DEFAULT_FORMATS

    if len(run_dirs) > 2:
        raise ProfileError(
            "too many run directories",
            where="RUN_DIR",
            got=", ".join(map(str, run_dirs)),
            expected="one, or two for a comparison side by side",
        )
    wanted = tuple(name.strip() for name in formats.split(",")) if formats is not None else None
    directories = [RunDirectory.open(path) for path in run_dirs]
    if len(directories) == 2:
        _side_by_side(directories[0], directories[1], out, wanted)
    else:
        show_report(
            directories[0], out or run_dirs[0], wanted or DEFAULT_FORMATS, usd_per_hour=usd_per_hour
        )


def schema() -> None:
    """Print the JSON Schema of profiles, for editors."""
    from ftbench.plan.profile_file import profile_schema

    print(json.dumps(profile_schema(), indent=1))


def show_report(
    directory: RunDirectory,
    folder: Path,
    formats: tuple[str, ...],
    *,
    usd_per_hour: float | None = None,
) -> None:
    """Show and write the report of a run directory."""
    from ftbench.report.write import load_document, write_report

    document = load_document(directory, usd_per_hour=usd_per_hour)
    _show(document, write_report(document, folder, formats))


def _side_by_side(
    a: RunDirectory, b: RunDirectory, folder: Path | None, formats: tuple[str, ...] | None
) -> None:
    """Show two run directories side by side, and write the comparison if a folder or formats are given."""
    from ftbench.report.commands.side_by_side import build, load_side_by_side, writers
    from ftbench.report.write import write_report
    from ftbench.verbs.results import DEFAULT_FORMATS

    nowhere = formats is not None and set(formats) != {"step-summary"} and folder is None
    if nowhere or (folder is not None and folder.resolve() in (a.path.resolve(), b.path.resolve())):
        raise ProfileError(
            "a comparison of two run directories needs a folder of its own",
            where="--out",
            got=str(folder) if folder else None,
            expected="a folder that is neither of them",
        )
    found = load_side_by_side(a, b)
    document = build(found)
    written: list[Path] = []
    if folder is not None or formats is not None:
        wanted = formats or DEFAULT_FORMATS
        written = write_report(document, folder or Path(), wanted, writers(found))
    _show(document, written)


def _show(document: Document, written: list[Path]) -> None:
    """Print a document, and the names of the files written."""
    from ftbench.report.render.terminal import show

    console = open_console()
    show(console, document)
    console.print()
    for file in written:
        console.print(f"wrote {file}", soft_wrap=True, highlight=False)
