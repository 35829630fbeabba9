"""Results: the records of a run directory, as tables and as a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftbench.base.errors import RunDirectoryError
from ftbench.records.run_directory import RunDirectory
from ftbench.verbs.notebook import page_of

if TYPE_CHECKING:
    import pandas as pd

    from ftbench.records.record import Record

DEFAULT_FORMATS = ("md", "html", "csv")


class Results:
    """The records of a run directory; a notebook shows them as a table."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    @property
    def path(self) -> Path:
        """Return the run directory."""
        return self._directory.path

    @property
    def records(self) -> list[Record]:
        """Return the records; raises RunDirectoryError for one that is damaged."""
        return self._directory.records()

    @property
    def ok(self) -> bool:
        """Return whether every run has trustworthy figures, or was left out because it would not fit."""
        return not any(one.status not in ("ok", "unfit") or one.untrusted for one in self.records)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per run: `cell_id`, `status`, the axes, `seed`, and the figures, as in `cells.csv`.

        Memory is in bytes, times in seconds; a figure that is absent or untrusted is missing.
        """
        from ftbench.analysis.tables.cells_table import cells_table

        return cells_table(self.records)

    def memory(self) -> pd.DataFrame:
        """Return one row per run, phase and reading of memory, in bytes, as in `ledger.csv`."""
        from ftbench.analysis.tables.memory_table import memory_table

        return memory_table(self.records)

    def scores(self) -> pd.DataFrame:
        """Return one row per run and score, with its interval, as in `scores.csv`."""
        from ftbench.analysis.tables.scores_table import scores_table

        return scores_table(self.records)

    def steps(self) -> pd.DataFrame:
        """Return one row per optimizer step of every run: `cell_id`, `seed`, `repeat`, and the step's figures.

        Times in seconds; the runs that have no file of steps (they did not finish) are left out.
        """
        import pandas as pd

        tables = [_steps(self._directory, record) for record in self.records]
        found = [table for table in tables if table is not None]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    def report(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        formats: Sequence[str] = DEFAULT_FORMATS,
        usd_per_hour: float | None = None,
    ) -> list[Path]:
        """Write the report, into the run directory if `out` names no other; return the paths of its files.

        Raises ProfileError for a format that does not exist; RunDirectoryError without a record.
        """
        from ftbench.report.write import load_document, write_report

        document = load_document(self._directory, usd_per_hour=usd_per_hour)
        return write_report(document, self.path if out is None else Path(out), formats)

    def __len__(self) -> int:
        """Return the number of records."""
        return self._directory.record_count()

    def __repr__(self) -> str:
        """Return the directory and the number of its records."""
        return f"Results({str(self.path)!r}, {len(self)} runs)"

    def _repr_html_(self) -> str:
        from ftbench.analysis.tables.cells_table import cells_table, varying_axes
        from ftbench.report.elements.tables import cells

        records = self.records
        if not records:
            return page_of((), (f"{self.path}: no run yet",))
        axes = varying_axes(records)
        return page_of([cells(cells_table(records, axes), axes)])


def open(path: str | os.PathLike[str]) -> Results:  # noqa: A001 - asked for as `ftbench.open`
    """Return the results in a directory that `ftbench run` wrote; raises RunDirectoryError if it is not one."""
    return Results(RunDirectory.open(Path(path)))


def _steps(directory: RunDirectory, record: Record) -> pd.DataFrame | None:
    """Return the steps of a run, None if it left none; raises RunDirectoryError for a file that cannot be read."""
    import pandas as pd

    file = directory.file("steps", record.file_name, ".parquet")
    if file.is_symlink() or not file.is_file():
        return None
    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"cannot be read: {error}", where=str(file)) from error
    table.insert(0, "cell_id", record.cell_id)
    table.insert(1, "seed", record.seed)
    table.insert(2, "repeat", record.repeat)
    return table
