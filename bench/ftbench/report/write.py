"""Write: a run directory's report, in the formats asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ftbench.analysis.comparisons.contrast import separating_axes
from ftbench.analysis.fits.laws import FitGroup, LearningCurve, Refusal
from ftbench.analysis.fits.learning import learning_curves
from ftbench.analysis.fits.scaling import fit_scaling, scaling_table
from ftbench.analysis.tables.cells_table import varying_axes
from ftbench.base.errors import ProfileError, RunDirectoryError, nearest_name
from ftbench.base.files import write_atomically
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory
from ftbench.report.document import Document, build
from ftbench.report.render import exports, markdown, step_summary
from ftbench.report.render.csv_text import csv_text
from ftbench.report.run_files import PREDICTIONS, read_largest, read_samples

# Writes one format into a folder that exists, and returns the paths of what it wrote.
Writer = Callable[[Document, Path], list[Path]]
STEP_SUMMARY = "step-summary"


def load_document(directory: RunDirectory, *, usd_per_hour: float | None = None) -> Document:
    """Return the report of a run directory; raises RunDirectoryError if it has no record."""
    records, damaged = directory.survey()
    if not records:
        raise RunDirectoryError(
            "no record yet", where=str(directory.path), hint="ftbench run PROFILE"
        )
    groups, fitted_curves = fits(records)
    return build(
        records,
        directory.read_profile(),
        directory.read_preparation(),
        directory.environments(),
        damaged=[f"{one.file.name}: {one.reason}" for one in damaged],
        groups=groups,
        fitted_curves=fitted_curves,
        tries=directory.tries(),
        predicted=read_largest(directory.path / PREDICTIONS),
        samples=lambda record: read_samples(directory, record),
        usd_per_hour=usd_per_hour,
    )


def fits(
    records: Sequence[Record],
) -> tuple[tuple[FitGroup, ...], tuple[LearningCurve | Refusal, ...]]:
    """Return the laws of cost and of the score that are fitted to records."""
    table, axes = scaling_table(records), varying_axes(records)
    return fit_scaling(table, axes), learning_curves(table, separating_axes(table, axes))


def write_report(
    document: Document,
    folder: Path,
    formats: Iterable[str],
    writers: Mapping[str, Writer] | None = None,
) -> list[Path]:
    """Write a report in these formats into a folder and return the paths of all its files.

    Raises ProfileError for a format that `writers` (FORMATS, if not given) does not have.
    """
    known = FORMATS if writers is None else writers
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in known:
            raise ProfileError(
                "no such format",
                where="--format",
                got=name,
                expected=f"a list of {', '.join(known)}",
                nearest=nearest_name(name, known),
            )
    wanted.sort(key=lambda name: name != STEP_SUMMARY)  # nothing is written if this is refused
    make_folder(folder)
    return [file for name in wanted for file in known[name](document, folder)]


def make_folder(folder: Path) -> None:
    """Make a folder if it does not exist; raises RunDirectoryError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"cannot be made: {error.strerror}", where=str(folder)) from error


def _markdown(document: Document, folder: Path) -> list[Path]:
    """Write `report.md`, by the document's stem, and the figures that it shows as SVG."""
    file = folder / f"{document.stem}.md"
    write_atomically(file, markdown.render(document))
    return [file, *_figures(document, folder, "svg")]


def _html(document: Document, folder: Path) -> list[Path]:
    """Write `report.html`, which needs no other file."""
    from ftbench.report.render import html

    file = folder / f"{document.stem}.html"
    write_atomically(file, html.render(document))
    return [file]


def _png(document: Document, folder: Path) -> list[Path]:
    """Write the figures as PNG."""
    return _figures(document, folder, "png")


def _figures(document: Document, folder: Path, kind: Literal["svg", "png"]) -> list[Path]:
    """Write the figures of a document into a folder of their own."""
    figures = tuple(document.figures)
    if not figures:
        return []
    from ftbench.report.render import pictures as static

    place = folder / document.figures_folder
    make_folder(place)
    written = []
    for figure in figures:
        written.append(place / f"{figure.name}.{kind}")
        picture = static.svg(figure) if kind == "svg" else static.png(figure)
        write_atomically(written[-1], picture)
    return written


def _csv(document: Document, folder: Path) -> list[Path]:
    """Write `cells.csv`, `ledger.csv` and `scores.csv`, and `ranks.csv` if cells have several processes."""
    tables = {
        "cells.csv": document.cells,
        "ledger.csv": document.ledger,
        "scores.csv": document.scores,
    }
    if not document.ranks.empty:
        tables["ranks.csv"] = document.ranks
    for name, table in tables.items():
        write_atomically(folder / name, csv_text(table))
    return [folder / name for name in tables]


def _step_summary(document: Document, folder: Path) -> list[Path]:
    """Append to the summary of a step of GitHub Actions, whatever the folder."""
    return [step_summary.append(document)]


# A writer that needs a heavy package imports it itself: most reports want two formats.
FORMATS: Mapping[str, Writer] = {
    "md": _markdown,
    "csv": _csv,
    "html": _html,
    "png": _png,
    "parquet": exports.write_parquet,
    "json": exports.write_json,
    "latex": exports.write_latex,
    STEP_SUMMARY: _step_summary,
}
