"""Write: a run directory's report, in the formats asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.errors import ProfileError, RunDirectoryError, nearest_name
from bench.report import markdown
from bench.report.document import Document, build
from bench.store import RunDirectory, write_atomically

FORMATS = ("md", "csv")


def load_document(directory: RunDirectory) -> Document:
    """Return the report of a run directory; raises RunDirectoryError where it has no record."""
    records, damaged = directory.survey()
    if not records:
        raise RunDirectoryError(
            "no record yet", where=str(directory.path), hint="ftbench run PROFILE"
        )
    return build(
        records,
        directory.read_profile(),
        directory.read_preparation(),
        directory.environments(),
        damaged=[f"{one.file.name}: {one.reason}" for one in damaged],
    )


def write_report(document: Document, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write `report.md`, `cells.csv` and `ledger.csv` into a folder and return their paths."""
    wanted = list(formats)
    for name in wanted:
        if name not in FORMATS:
            raise ProfileError(
                "no such format",
                where="--format",
                got=name,
                expected=f"a list of {', '.join(FORMATS)}",
                nearest=nearest_name(name, FORMATS),
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"cannot be made: {error.strerror}", where=str(folder)) from error
    written = []
    if "md" in wanted:
        written.append(folder / "report.md")
        write_atomically(written[-1], markdown.render(document))
    if "csv" in wanted:
        for name, table in (("cells.csv", document.cells), ("ledger.csv", document.ledger)):
            written.append(folder / name)
            write_atomically(written[-1], table.to_csv(index=False))
    return written
