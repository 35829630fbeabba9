import pandas as pd

from ftbench.report.render.csv_text import csv_text


def test_a_spreadsheet_runs_nothing_of_it():
    table = pd.DataFrame(
        {"=x": [-1.5, 2.0], "why": ["=HYPERLINK(1)", "plain\x1b[2J"], "n": [None, 3]}
    )
    assert csv_text(table).splitlines() == [
        "'=x,why,n",
        "-1.5,'=HYPERLINK(1),",
        "2.0,plain\ufffd[2J,3.0",
    ]
