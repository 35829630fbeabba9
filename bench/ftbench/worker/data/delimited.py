"""CSV and TSV files: every field is a text, an empty one is missing, and a row that does not fit is refused.

Rows are numbered as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from ftbench.base.errors import WorkloadError
from ftbench.worker.data.columns import FILE, ROW, require_column
from ftbench.worker.data.content import Reading, opened_text, unreadable

# The usual ones first: of those that the header has equally often, the first is taken.
SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_BATCH = 1 << 16
_START = 1 << 16
# No field is too long: Python's own limit is 128 KiB.
csv.field_size_limit(2**31 - 1)


@dataclasses.dataclass(frozen=True)
class _Dialect:
    """The separator of a file, and whether quotes enclose fields or are part of their text."""

    separator: str
    quoted: bool = True

    def rows(self, lines: Iterator[str]) -> Iterator[list[str]]:
        if self.quoted:
            return csv.reader(lines, delimiter=self.separator, strict=True)
        return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE, strict=True)


def read_delimited(file: Path, columns: Mapping[str, str], reading: Reading) -> pa.Table:
    """Return the named columns of a file as texts, with the row's number and the file.

    `columns` gives the setting that names each column. Raises WorkloadError if a column is missing, or if the file
    cannot be read: a row of another number of fields, a quote that does not end, bytes of another encoding.
    """
    dialect = _Dialect(_separator(file, reading))
    if not _is_tsv(file):
        return _read(file, columns, reading, dialect)
    try:
        return _read(file, columns, reading, dialect)
    except _QuoteError:
        # TSV has no quotes of its own; many are written without any (those of GLUE), some with CSV's.
        reading.note(
            f"{file.name}: its quotes do not enclose fields, so they are part of the texts"
        )
        return _read(file, columns, reading, dataclasses.replace(dialect, quoted=False))


def read_header(file: Path, reading: Reading) -> list[str]:
    """Return the names of a file's columns; raises WorkloadError if the file cannot be read."""
    with opened_text(file, reading) as stream:
        for _, header in _numbered_rows(file, _Dialect(_separator(file, reading)), stream):
            return header
    raise unreadable(file, "it is empty")


class _QuoteError(WorkloadError):
    """A quote that does not end, or does not enclose a whole field."""


def _is_tsv(file: Path) -> bool:
    return ".tsv" in file.name.lower()


def _separator(file: Path, reading: Reading) -> str:
    """Return the separator: the given one, a TSV's tab, or the one that the header has most of."""
    if reading.separator is not None:
        return reading.separator
    if _is_tsv(file):
        return "\t"
    with opened_text(file, reading) as stream:
        lines = stream.read(_START).splitlines()
    header = next((line for line in lines if line.strip()), "")
    outside = "".join(header.split('"')[::2])
    found = max(SEPARATORS, key=outside.count)
    if found != ",":
        if not outside.count(found):
            return ","
        reading.note(f"{file.name}: its fields are separated by {SEPARATORS[found]}")
    return found


def _read(file: Path, columns: Mapping[str, str], reading: Reading, dialect: _Dialect) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    schema = pa.schema([*((name, pa.string()) for name in columns), (ROW, pa.int64())])
    with opened_text(file, reading) as stream:
        rows = _numbered_rows(file, dialect, stream)
        try:
            _, header = next(rows)
        except StopIteration:
            raise unreadable(file, "it is empty") from None
        for name, setting in columns.items():
            require_column(name, setting, header, file.name)
        places = [header.index(name) for name in columns]
        values: list[list[str | None]] = [[] for _ in places]
        numbers: list[int] = []
        for number, row in rows:
            if len(row) != len(header):
                raise _uneven(file, number, row, header, dialect)
            for column, place in zip(values, places, strict=True):
                column.append(row[place] or None)
            numbers.append(number)
            if len(numbers) == _BATCH:
                batches.append(_batch(values, numbers, schema))
                values, numbers = [[] for _ in places], []
        batches.append(_batch(values, numbers, schema))
    table = pa.Table.from_batches(batches, schema)
    return table.append_column(FILE, pa.repeat(pa.scalar(file.name), len(table)))


def _batch(
    values: Sequence[Sequence[str | None]], numbers: Sequence[int], schema: pa.Schema
) -> pa.RecordBatch:
    return pa.record_batch([*map(pa.array, values, schema.types[:-1]), pa.array(numbers)], schema)


def _numbered_rows(
    file: Path, dialect: _Dialect, lines: Iterator[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with their numbers from 1."""
    reader = dialect.rows(lines)
    number = begun = 0
    while True:
        begun = reader.line_num + 1  # type: ignore[attr-defined]  # typeshed has an Iterator here
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _QuoteError(
                f"{file.name} cannot be read: {_cause(error)}",
                where="workload.dataset",
                got=f"row {number + 1} of {file}, which begins in line {begun}",
                expected='fields in "quotes" as a whole, with each quote inside doubled',
            ) from error
        number += 1
        if row:
            yield number, row


def _cause(error: csv.Error) -> str:
    """Return the reader's cause, in words that say what was found."""
    if "unexpected end of data" in str(error):
        return "a quote begins that does not end"
    if "expected after" in str(error):
        return "a quote ends within a field"
    return str(error)


def _uneven(
    file: Path, number: int, row: Sequence[str], header: Sequence[str], dialect: _Dialect
) -> WorkloadError:
    """Return the error for a row that has not as many fields as the header."""
    separator = SEPARATORS.get(dialect.separator, repr(dialect.separator))
    begin = dialect.separator.join(row)[:60]
    count = "1 field" if len(row) == 1 else f"{len(row):,} fields"
    return WorkloadError(
        f"{file.name} cannot be read: row {number:,} has {count}, the header has {len(header):,}",
        where="workload.dataset",
        got=f"{begin} in {file}",
        expected=f"fields that are separated by {separator}, in quotes if it is part of a text",
        hint='another separator is named in the profile: separator = ";", under [workload]',
    )
