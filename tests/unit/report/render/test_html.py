import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from ftbench.report.document import Document
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure
from ftbench.report.elements.glossary import terms_of
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table
from ftbench.report.render import html

HOSTILE = "</script><!-- <img src=x onerror=alert(1)> {{policy}} \u2028 ' \" & `"
VEGA = 'window.vegaEmbed = () => "</script><!--";'


@pytest.fixture(autouse=True)
def little_vega(monkeypatch):
    """The real libraries take seconds to put together, and are none of these tests' business."""
    monkeypatch.setattr(html, "vega_script", lambda: VEGA)


class Page(HTMLParser):
    """What a browser's parser finds: tags with attributes, and the text inside them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.inside.setdefault(self.open[-1] if self.open else "", []).append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def figure(name="f", rows=(), choices=None, chooser=""):
    spec = {"mark": "bar", "datasets": {CHOSEN: list(rows)}}
    return ReportFigure(
        name, "A title", "A caption.", "In words.", lambda: Chart(spec, choices or {}), chooser
    )


def render(*sections, title="ftbench: t", **fields):
    return html.render(Document(title, sections, pd.DataFrame(), pd.DataFrame(), **fields))


def table(rows, columns=("length", "said"), numeric=(True, False), **fields):
    return Table("Cells", columns, tuple(rows), numeric, **fields)


def hostile_page():
    return render(
        Section(
            "S",
            (HOSTILE,),
            (table([(HOSTILE, HOSTILE)], (HOSTILE, HOSTILE)),),
            (
                figure(
                    rows=[{HOSTILE: HOSTILE}],
                    choices={HOSTILE: [{"x": HOSTILE}], "b": []},
                    chooser=HOSTILE,
                ),
            ),
        ),
        title=HOSTILE,
        stats=((HOSTILE, HOSTILE, HOSTILE),),
    )


def test_nothing_from_a_record_becomes_markup():
    page = Page(hostile_page())
    assert len(page.named("script")) == 3
    assert not page.named("img")
    assert not [value for _, a in page.tags for name, value in a.items() if name.startswith("on")]
    assert HOSTILE in page.inside["option"]
    assert HOSTILE in page.inside["h1"]
    assert [a for a in page.named("div") if a.get("aria-label") == "Cells"]


def test_the_json_of_charts_is_what_it_was_and_holds_no_markup():
    page = Page(hostile_page())
    (data,) = (text for text in page.inside["script"] if text.startswith("{"))
    assert "<" not in data
    assert data.isascii()
    assert json.loads(data)["f"]["choices"][HOSTILE] == [["x"], [[HOSTILE]]]


def test_the_policy_names_the_blocks_that_are_there_and_allows_nothing_else():
    page = Page(hostile_page())
    policy = page.named("meta")[1]["content"]
    blocks = [text for text in page.inside["script"] if not text.startswith("{")]
    for text in (*blocks, *page.inside["style"]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)


def test_no_element_has_a_style_of_its_own():
    assert not [a for _, a in Page(hostile_page()).tags if "style" in a]


def test_nothing_is_fetched():
    page = Page(hostile_page())
    fetched = [a for tag, a in page.tags if tag not in ("a",) and {"src", "href"} & a.keys()]
    assert not fetched
    assert all(a["href"].startswith("#") for a in page.named("a"))


def test_libraries_cannot_end_their_own_script():
    page = Page(render(Section("S", ("text",))))
    assert [t for t in page.inside["script"] if t == r'window.vegaEmbed = () => "<\/script><\!--";']


def test_backticks_are_code_and_a_lone_one_is_itself():
    assert html.text("run `a<b` now") == "run <code>a&lt;b</code> now"
    assert html.text("a ` b") == "a ` b"


def test_a_number_sorts_by_what_it_is_and_an_absent_one_by_nothing():
    rows = [("1.0 GiB", "ok"), ("–", "oom")]  # noqa: RUF001
    page = Page(
        render(Section("S", (), (table(rows, keys=((float(2**30), "ok"), (None, "oom"))),)))
    )
    assert [a.get("data-k") for a in page.named("td")] == ["1073741824", None, "", None]


def test_a_large_number_keeps_its_digits():
    page = Page(render(Section("S", (), (table([("x", "ok")], keys=((123456789012.0, "ok"),)),))))
    assert page.named("td")[0]["data-k"] == "123456789012"


def test_heads_are_buttons_and_say_how_they_sort():
    page = Page(render(Section("S", (), (table([("1", "ok")]),))))
    assert [a["aria-sort"] for a in page.named("th")] == ["none", "none"]
    assert page.inside["button"][-2:] == ["length", "said"]


GLOSSARY = Section("Glossary", terms=terms_of(["MFU", "front"]))


def test_the_first_use_of_a_term_has_its_meaning_and_leads_to_the_glossary():
    page = Page(render(Section("A", ("The MFU; the `MFU`.", "MFU and front.")), GLOSSARY))
    links = [one for one in page.named("a") if one.get("class") == "term"]
    assert [one["href"] for one in links] == ["#term-mfu", "#term-front"]
    assert all(one["title"] for one in links)
    ids = {one.get("id") for _, one in page.tags}
    assert {"term-mfu", "term-front"} <= ids
    assert page.inside["code"] == ["MFU"]


def test_a_column_that_is_a_term_has_its_meaning():
    page = Page(
        render(Section("A", tables=(table([("1", "x")], columns=("MFU", "said")),)), GLOSSARY)
    )
    heads = [one for one in page.named("button") if "title" in one]
    assert len(heads) == 1
    assert "FLOPs" in heads[0]["title"]


def test_the_columns_that_a_phone_shows_first():
    page = Page(render(Section("A", tables=(table([("1", "x")], leading=("said",)),))))
    assert [head.get("data-leading") for head in page.named("th")] == [None, "0"]


def test_only_a_long_table_has_a_filter():
    short, long = (render(Section("S", (), (table([("1", "ok")] * n),))) for n in (3, 30))
    assert not Page(short).named("input")
    (found,) = Page(long).named("input")
    assert found["placeholder"] == "Filter, e.g. length=1"


def test_folded_tables_open_when_asked_to():
    one = table([("1", "ok")], folded=True)
    assert Page(render(Section("S", (), (one,)))).inside["summary"] == ["Cells"]
    assert Page(render(Section("S", (), (one, one)))).inside["summary"] == ["2 more tables"]


def test_figures_with_one_chooser_share_a_select():
    choices = {"a": [], "b": []}
    figures = (
        figure("f", choices=choices, chooser="At"),
        figure("g", choices=choices, chooser="At"),
        figure("h"),
    )
    page = Page(render(Section("S", (), (), figures)))
    assert len(page.named("select")) == 1
    assert page.inside["option"] == ["a", "b"]
    assert len([a for a in page.named("div") if a.get("class") == "group"]) == 2


def test_a_figure_says_in_words_what_it_shows():
    page = Page(render(Section("S", (), (), (figure(),))))
    (chart,) = (a for a in page.named("div") if a.get("class") == "chart")
    assert (chart["role"], chart["aria-label"]) == ("img", "In words.")


def test_the_same_document_is_the_same_file():
    assert hostile_page() == hostile_page()


def test_the_page_s_parts_name_no_other_host():
    parts = "".join(map(html._part, ("page.html", "page.css", "page.js")))
    assert not re.search(r"https?://|//[a-z]+\.", parts)
