import pandas as pd

from bench.report.document import Document, Section
from bench.report.markdown import render
from bench.report.tables import Table

TABLE = Table("Cells", ("a", "status"), (("1", "ok"), ("2", "a|b <script>")), (True, False))


def test_a_table():
    text = render(
        Document("t", (Section("Cells", ("Text.",), (TABLE,)),), pd.DataFrame(), pd.DataFrame())
    )
    assert text.startswith("# t\n\n## Cells\n\nText.\n\n| a | status |\n| ---: | --- |\n| 1 | ok |")


def test_nothing_breaks_out_of_its_place():
    text = render(
        Document("<b>", (Section("S", ("<img src=x>",), (TABLE,)),), pd.DataFrame(), pd.DataFrame())
    )
    assert "<" not in text
    assert "a\\|b" in text
    assert "### Cells" in text
