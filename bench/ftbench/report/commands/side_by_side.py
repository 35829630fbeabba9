"""Two run directories side by side, as a document and as data for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ftbench import __version__
from ftbench.analysis.comparisons.contrast import Contrast
from ftbench.analysis.comparisons.side_by_side import (
    NOT_RUN,
    Difference,
    Side,
    SideBySide,
    side_by_side,
)
from ftbench.base.errors import RunDirectoryError
from ftbench.base.files import write_atomically
from ftbench.base.units import counted, format_bytes, format_value
from ftbench.records.invariants import UNTRUSTED
from ftbench.records.run_directory import RunDirectory
from ftbench.report.document import Document
from ftbench.report.elements.section import Section, with_glossary
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.tables import figure_unit, format_figure
from ftbench.report.elements.words import (
    NO_DIFFERENCE,
    axis_word,
    cost_word,
    difference_text,
    point_text,
    ratio_text,
    verdict_text,
)
from ftbench.report.render.csv_text import csv_text
from ftbench.report.render.exports import dumped, parquet, rows, typed, units
from ftbench.report.render.exports import plain as plain_data
from ftbench.report.write import FORMATS, Writer

SCHEMA_VERSION = 1
STEM = "side_by_side"
_SHARED_FORMATS = ("md", "html", "latex", "step-summary")


def load_side_by_side(a: RunDirectory, b: RunDirectory) -> SideBySide:
    """Return two run directories beside each other; raises RunDirectoryError if one has no record."""
    names = [directory.path.name or str(directory.path) for directory in (a, b)]
    if names[0] == names[1]:
        names = [str(directory.path) for directory in (a, b)]
    return side_by_side(_side(a, names[0]), _side(b, names[1]))


def _side(directory: RunDirectory, name: str) -> Side:
    records, _ = directory.survey()
    if not records:
        raise RunDirectoryError(
            "no record yet", where=str(directory.path), hint="ftbench run PROFILE"
        )
    return Side(name, records, directory.read_profile(), directory.environments())


def build(found: SideBySide) -> Document:
    """Return the comparison of two run directories as a document; its sections are texts and tables only."""
    sections = (
        Section("What differs", tuple(_differing_words(found)), tuple(_differing_tables(found))),
        Section("What was found", tuple(_findings(found))),
        Section("Cells", tables=tuple(_cell_tables(found))),
        Section("Not compared", tuple(_apart_words(found)), tuple(_apart_table(found))),
        Section("How to read this", tuple(_reading(found))),
    )
    return Document(
        title=f"ftbench: {found.a.name} and {found.b.name} side by side",
        sections=with_glossary(sections),
        cells=found.table,
        ledger=pd.DataFrame(),
        stem=STEM,
    )


def writers(found: SideBySide) -> Mapping[str, Writer]:
    """Return the writers for two run directories, by the format's name."""

    def of(suffix: str, content: Callable[[], str | bytes]) -> Writer:
        def write(document: Document, folder: Path) -> list[Path]:
            file = folder / f"{document.stem}.{suffix}"
            write_atomically(file, content())
            return [file]

        return write

    own = {
        "csv": of("csv", lambda: csv_text(typed(found.table))),
        "parquet": of("parquet", lambda: parquet(found.table)),
        "json": of("json", lambda: dumped(data(found))),
    }
    return {name: FORMATS[name] for name in _SHARED_FORMATS} | own


def data(found: SideBySide) -> dict[str, Any]:
    """Return the comparison as JSON data; ratios are B divided by A, differences B less A."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "side by side",
        "ftbench": __version__,
        "a": _side_data(found.a),
        "b": _side_data(found.b),
        "same_cells": found.same_cells,
        "differences": {
            "environment": [plain_data(one) for one in found.environment],
            "settings": [plain_data(one) for one in found.settings],
        },
        "axes": list(found.axes),
        "units": units(found.table),
        "cells": rows(found.table),
        "median_ratios": {cost: plain_data(one) for cost, one in found.medians.items()},
        "score": found.score.name,
        "mean_score_difference": plain_data(found.gain),
    }


def _side_data(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "runs": len(side.records),
        "profile": side.profile.model_dump(mode="json"),
        "environments": {one.environment_id: one.model_dump(mode="json") for one in side.used},
    }


# What differs


def _differing_words(found: SideBySide) -> Iterator[str]:
    for letter, side in (("A", found.a), ("B", found.b)):
        yield f"{letter} is {side.name} (profile {side.profile.name}, {counted(len(side.records), 'run')})."
    if not found.environment:
        yield "Both were measured under the same environment."
    if not found.settings:
        yield "Both have the same settings."
    elif not found.same_cells:
        yield (
            "They differ in settings, so no cell is the same on both sides: cells are paired on"
            f" {', '.join(map(axis_word, found.axes)) or 'nothing'}, and what is told below is what all"
            " differences bring together."
        )


def _differing_tables(found: SideBySide) -> Iterator[Table]:
    kinds = (
        ("Settings that differ", found.settings),
        ("Environments that differ", found.environment),
    )
    for title, differences in kinds:
        if differences:
            texts = tuple(
                (axis_word(d.what), _values(d, d.a), _values(d, d.b)) for d in differences
            )
            yield Table(title, ("what", "A", "B"), texts, (False,) * 3)


def _values(difference: Difference, values: tuple[Any, ...]) -> str:
    if difference.what.endswith("memory_bytes"):
        return " and ".join(format_bytes(int(value)) for value in values) or ABSENT
    return " and ".join(map(format_value, values)) or ABSENT


# What was found


def _findings(found: SideBySide) -> Iterator[str]:
    compared = len(found.compared)
    if not compared:
        yield "No cell has finished runs on both sides: nothing can be compared."
        return
    cells = f"the median of {compared} cells" if compared > 1 else "the one cell of both"
    for cost, one in found.medians.items():
        yield f"{_sentence(cost_word(cost))}, B to A in {cells}: {_said(one, compared)}."
    if found.gain is not None:
        mean = f"the mean of {compared} cells" if compared > 1 else cells
        said = verdict_text(found.gain, more="B is better", less="B is worse")
        yield (
            f"{_sentence(found.score.word)}, B less A in {mean}: {difference_text(found.gain)}: {said}."
        )
    yield from _by_chance(found)


def _sentence(word: str) -> str:
    return word[:1].upper() + word[1:]


def _said(one: Contrast, cells: int) -> str:
    if one.verdict == "not known":
        few = "fewer than six cells" if cells > 1 else "too few runs"
        return (
            f"{ratio_text(one)}, without an interval ({few}): whether that is noise cannot be told"
        )
    said = verdict_text(one, more="B takes more", less="B takes less")
    return f"{ratio_text(one)}: {said}"


def _by_chance(found: SideBySide) -> Iterator[str]:
    known = [
        one
        for contrasts in found.cells.values()
        for one in contrasts.values()
        if one.interval is not None
    ]
    if len(known) > 1:
        told = sum(one.verdict in ("more", "less") for one in known)
        yield (
            f"Cell by cell, {told} of {len(known)} intervals leave out \u201cthe same\u201d; by chance alone"
            f" about {len(known) / 20:.1f} would."
        )


# Cell by cell


def _cell_tables(found: SideBySide) -> Iterator[Table]:
    compared = found.compared
    varying = [axis for axis in found.axes if found.table[axis].nunique(dropna=False) > 1]
    for name in (*found.costs, found.score.column):
        there = compared[compared[f"{name}_verdict"].notna()]
        if len(there):
            yield _cell_table(found, name, there, varying)


def _cell_table(found: SideBySide, name: str, there: pd.DataFrame, varying: list[str]) -> Table:
    unit = figure_unit(name, [*there[f"{name}_a"], *there[f"{name}_b"]])
    texts = []
    for row in there.to_dict("records"):
        one = found.cells[tuple(row[axis] for axis in found.axes)][name]
        middle = difference_text(one) if name == found.score.column else ratio_text(one)
        figures = (format_figure(name, row[f"{name}_{end}"], unit) for end in ("a", "b"))
        said = verdict_text(one, more="B has more", less="B has less")
        runs = (format_value(row[f"runs_{end}"]) for end in ("a", "b"))
        texts.append(
            (*(format_value(row[axis]) for axis in varying), *runs, *figures, middle, said)
        )
    word = cost_word(name)
    heads = (*map(axis_word, varying), "runs A", "runs B", f"{word} A", f"{word} B")
    return Table(
        title=_sentence(word),
        columns=(*heads, "B less A" if name == found.score.column else "B / A", "verdict"),
        rows=tuple(texts),
        numeric=(*(True,) * (len(heads) + 1), False),
        optional=("runs A", "runs B"),
    )


def _apart_words(found: SideBySide) -> Iterator[str]:
    for letter, end in (("A", "a"), ("B", "b")):
        statuses = found.apart[f"status_{end}"]
        only = int(
            (
                found.apart[f"runs_{'b' if end == 'a' else 'a'}"].eq(0)
                & found.apart[f"runs_{end}"].gt(0)
            ).sum()
        )
        if only:
            yield f"{counted(only, 'cell')} finished in {letter} only."
        untrusted = int(statuses.str.contains(UNTRUSTED).sum())
        if untrusted:
            yield f"{counted(untrusted, 'cell')} of {letter} left out for untrusted figures."


def _apart_table(found: SideBySide) -> Iterator[Table]:
    if len(found.apart):
        texts = tuple(
            (point_text({axis: row[axis] for axis in found.axes}), row["status_a"], row["status_b"])
            for row in found.apart.to_dict("records")
        )
        yield Table("Not compared", ("cell", "A", "B"), texts, (False,) * 3)


def _reading(found: SideBySide) -> Iterator[str]:
    yield (
        "Ratios are B divided by A, of geometric means over runs; the values beside them are medians (of"
        " scores, means over seeds). Intervals hold the true value in 95 of 100 cases. A cell's comes from"
        " its runs and, if it has few, from the spread of its side's other cells; that of a single step"
        " time from the run's own steps, which is less than what another run would show. The median over"
        " cells has the interval of order statistics, which takes six cells or more, and takes cells to be"
        " independent: a machine that was slower throughout one side is in it as a difference."
    )
    yield (
        f"\u201c{NO_DIFFERENCE}\u201d means that the interval holds the same on both sides, not that they are"
        f" the same. \u201c{NOT_RUN}\u201d means that the directory has no record of the cell."
    )
