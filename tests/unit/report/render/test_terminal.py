import io

import pandas as pd
from rich.console import Console

from ftbench.report.document import Document
from ftbench.report.elements.section import Section
from ftbench.report.elements.tables import Table
from ftbench.report.render.terminal import show, show_table


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
    assert "spare" not in shown(40)
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
