import pandas as pd
import pytest

from ftbench.report.document import Document
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table
from ftbench.report.render.markdown import escaped, render

TABLE = Table("Cells", ("a", "status"), (("1", "ok"), ("2", "a|b <script>")), (True, False))


def test_a_table():
    text = render(
        Document("t", (Section("Cells", ("Text.",), (TABLE,)),), pd.DataFrame(), pd.DataFrame())
    )
    assert text.startswith("# t\n\n## Cells\n\nText.\n\n| a | status |\n| ---: | --- |\n| 1 | ok |")


def test_code_is_shown_as_it_is():
    assert escaped("`ftbench run <dir>` and <b>") == "`ftbench run <dir>` and &lt;b&gt;"
    assert escaped("`a|b`") == "`a\\|b`"


@pytest.mark.parametrize("text", ["\\`<b>`", "``` <b> `x` `", "`<b>", "`a` `<b>"])
def test_what_may_not_be_code_is_escaped(text):
    assert "<" not in escaped(text)


def test_nothing_breaks_out_of_its_place():
    text = render(
        Document("<b>", (Section("S", ("<img src=x>",), (TABLE,)),), pd.DataFrame(), pd.DataFrame())
    )
    assert "<" not in text
    assert "a\\|b" in text
    assert "### Cells" in text
