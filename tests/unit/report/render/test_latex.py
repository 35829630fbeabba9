r"""LaTeX, by its structure: no TeX is needed to see that nothing in a text can run."""

import re

import pytest

from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table
from ftbench.report.render.latex import (
    PACKAGES,
    escaped,
    render_document,
    render_table,
    render_tables,
)

HOSTILE = (
    r"\input{/etc/passwd} $x_1^2$ & 50% #1 {~} *[2ex] \\ ^^41 <a|b> \"'` µs ± é 中 "
    "\u2013\u00d7\x07"
)


def table(*rows, title="Cells", columns=("a", "said"), numeric=(True, False)):
    return Table(title, columns, rows, numeric)


def unescape(text):
    """Return what TeX would set: the reverse of `escaped`, for the characters it has a name for."""
    names = {
        "textbackslash": "\\",
        "textasciitilde": "~",
        "textasciicircum": "^",
        "textless": "<",
        "textgreater": ">",
        "textbar": "|",
        "textquotedbl": '"',
        "textquotesingle": "'",
        "textasciigrave": "`",
    }
    text = re.sub(r"\\(text[a-z]+)\{\}", lambda m: names[m[1]].replace("\\", "\0"), text)
    text = text.replace("-{}", "-").replace("{[}", "[").replace("{]}", "]").replace("{*}", "*")
    return re.sub(r"\\([{}$&#_%])", r"\1", text).replace("\0", "\\")


@pytest.mark.parametrize("one", list("\\{}$&#_%~^<>|\"'`-[]*"))
def test_every_character_that_tex_gives_a_meaning_to(one):
    assert escaped(one) != one
    assert unescape(escaped(f"a{one}{one}b")) == f"a{one}{one}b"


def test_a_hostile_text_has_no_command_of_its_own():
    text = escaped(HOSTILE)
    commands = set(re.findall(r"\\([A-Za-z]+|.)", text))
    ours = {name for name in commands if name.startswith("text")} | set("{}$&#_%")
    assert commands <= ours
    without = re.sub(r"\\.", "", text)  # nothing special is left beside the escapes
    assert not set(without) & set("$&#_%~^\\")
    assert without.count("{") == without.count("}")


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("µ ± \u00d7", r"\textmu{} \textpm{} \texttimes{}"),
        ("é Ü", "é Ü"),
        ("中", r"\texttt{U+4E2D}"),
        ("\x07", r"\texttt{U+0007}"),
        ("a\n\n\tb", "a b"),  # an empty line would end the paragraph
        ("1--2", "1-{}-{}2"),
    ],
)
def test_characters_that_fonts_lack(text, tex):
    assert escaped(text) == tex


def test_what_is_not_escaped_is_plain_or_a_letter():
    text = escaped("".join(map(chr, [*range(0x3000), 0x1F600])))
    assert all(" " <= one <= "~" or one.isalpha() for one in text)
    assert all(ord(one) < 0x100 for one in text)


def test_a_table_is_of_booktabs():
    lines = render_table(table(("1", "x & y"), ("2", "[3]"))).splitlines()
    assert lines[0] == r"\begin{longtable}{@{}rl@{}}"
    assert lines[1] == r"\caption{Cells}\\"
    assert lines[-1] == r"\end{longtable}"
    assert [line for line in lines if line[0].isdigit()] == [
        r"1 & x \& y \\",
        r"2 & {[}3{]} \\",
    ]
    assert sum(line.count(r"\toprule") for line in lines) == 2
    assert r"\bottomrule" in lines[-4]


def test_a_row_cannot_begin_with_an_option_of_the_last_ones_end():
    (first,) = (
        line
        for line in render_table(table(("[9cm]", "a"), ("*", "b"))).splitlines()
        if "9cm" in line
    )
    assert first.startswith("{[}")
    assert r"{*} & b \\" in render_table(table(("*", "b")))


def test_long_texts_wrap():
    assert r"p{9cm}" in render_table(table(("1", "word " * 30)))
    assert r"p{9cm}" not in render_table(table(("1", "word")))


def test_every_row_has_the_columns_of_its_head():
    text = render_table(table(("1", HOSTILE), ("2", HOSTILE * 2)))
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert len(rows) == 2
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)


def balanced(text):
    """Return whether braces and environments are closed in order."""
    depth = 0
    for one in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if one == "{" else -1
        assert depth >= 0
    open_ones = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    return depth == 0 and not open_ones


SECTIONS = (
    Section(HOSTILE, (HOSTILE,), (table(("1", HOSTILE), title=HOSTILE),)),
    Section("Nothing but tables", (), (table(("1", "b")),)),
)


def test_the_document_and_its_tables_are_whole():
    document = render_document(HOSTILE, SECTIONS, "report-tables")
    tables = render_tables(SECTIONS)
    assert balanced(document)
    assert balanced(tables)
    assert document.startswith(r"\documentclass")
    assert r"\input{report-tables}" in document
    assert document.endswith("\\end{document}\n")
    for name in PACKAGES:
        assert rf"\usepackage{{{name}}}" in document
        assert name in tables.splitlines()[0]
    assert tables.startswith("% ")
    assert tables.count(r"\begin{longtable}") == 2
    # A per cent sign of ours would eat the rest of its line: the first line is the only comment.
    assert not re.search(r"(?<!\\)%", tables.split("\n", 1)[1] + document)


def test_no_paragraph_has_an_empty_line():
    assert "\n\n" not in render_document("t", (Section("s", ("a\n\nb",)),), "x")
