import io

import pandas as pd
import pytest
from rich.console import Console

from ftbench.report.document import Document
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table
from ftbench.report.render.terminal import show, show_line, show_table


def shown(width, terminal=False):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal)
    table = Table(
        "Cells",
        ("name", "spare", "needed"),
        (("x", "1" * 20, "2" * 20),),
        (False, True, True),
        ("spare",),
    )
    show_table(console, table)
    return console.file.getvalue()


def test_a_narrow_terminal_does_without_the_spare_columns():
    assert "spare" in shown(80)
    assert "not shown for lack of room: spare" in shown(40)
    assert "1" * 20 not in shown(40)
    assert "2" * 20 in shown(40)


def test_notes_stay_in_the_report_file():
    console = Console(file=io.StringIO(), width=80)
    sections = (Section("What was found", ("Found.",)), Section("How to read this", ("Notes.",)))
    show(console, Document("t", sections, pd.DataFrame(), pd.DataFrame()))
    assert "Found." in console.file.getvalue()
    assert "Notes." not in console.file.getvalue()


def test_markup_in_a_text_is_text():
    console = Console(file=io.StringIO(), width=80)
    show_table(console, Table("[bold]t", ("[red]a",), (("[b]x",),), (False,)))
    assert "[b]x" in console.file.getvalue()


def wide(columns, rows=3):
    names = tuple(f"a column of the name {n}" for n in range(columns))
    texts = tuple(tuple(f"{row * 1000 + n}.25 MiB" for n in range(columns)) for row in range(rows))
    return Table("Wide", names, texts, (True,) * columns)


@pytest.mark.parametrize("columns", [3, 7, 17])
def test_a_table_folds_by_dropping_columns_and_breaks_no_number(columns):
    console = Console(file=io.StringIO(), width=80)
    table = wide(columns)
    show_table(console, table)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    shown = [n for n in range(columns) if f"{n}.25 MiB" in text]
    assert shown[:2] == [0, 1]
    for n in set(range(columns)) - set(shown):
        assert table.columns[n].split()[-1] in text.partition("not shown")[2]


def test_a_long_text_is_broken_between_words():
    console = Console(file=io.StringIO(), width=40)
    words = " ".join(f"word{n}" for n in range(30))
    show_table(console, Table("T", ("cell", "what"), (("x", words),), (False, False)))
    text = console.file.getvalue()
    assert all(f"word{n}" in text for n in range(30))


def test_a_table_that_fits_by_its_words_is_no_wider_than_the_console():
    table = Table(
        title="Room",
        columns=("name", "text", "source"),
        rows=(
            ("a-name-of-twenty-eight-letter", "some words that may be wrapped " * 4, "a/source-of-19-signs"),
            ("b", "few", "short"),
        ),
        numeric=(False, False, False),
    )  # fmt: skip
    for width in range(64, 100):
        console = Console(file=io.StringIO(), width=width)
        show_table(console, table)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert any("a/source-of-19-signs" in line for line in lines)


def test_a_line_of_prose_is_broken_between_words_on_a_terminal_only():
    text = "    some words that are longer than the console is wide"
    shown_on = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=24, force_terminal=terminal)
        show_line(console, text)
        shown_on[terminal] = console.file.getvalue()
    assert shown_on[False] == f"{text}\n"
    lines = shown_on[True].splitlines()
    assert len(lines) > 2
    assert all(len(line) <= 24 and line.startswith("    ") for line in lines)
    assert " ".join(shown_on[True].split()) == text.strip()
