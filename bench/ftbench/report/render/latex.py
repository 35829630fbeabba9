"""LaTeX: a report's tables with booktabs, and a document around them that compiles.

Nothing in a text can run: every character that TeX gives a meaning to is escaped, and one that the usual
fonts lack stands as its code point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table

PACKAGES = ("array", "booktabs", "longtable", "textcomp")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",  # two in a row would be a dash
    "[": "{[}",  # after a row's end it would be an option of it
    "]": "{]}",
    "*": "{*}",  # and so would this
    "–": r"\textendash{}",  # noqa: RUF001
    "—": r"\textemdash{}",
    "±": r"\textpm{}",
    "×": r"\texttimes{}",  # noqa: RUF001
    "µ": r"\textmu{}",
    "μ": r"\textmu{}",
    "°": r"\textdegree{}",
    "…": r"\textellipsis{}",
    "‘": r"\textquoteleft{}",  # noqa: RUF001
    "’": r"\textquoteright{}",  # noqa: RUF001
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
}
_SPACE = re.compile(r"\s+")
_LATIN = range(0xC0, 0x100)  # whose letters the T1 fonts have all of
# A column of longer texts wraps.
_LONG = 60
_WRAPPED = r">{\raggedright\arraybackslash}p{9cm}"


def escaped(text: str) -> str:
    """Return a text that TeX sets as it stands, whatever is in it."""
    return "".join(map(_character, _SPACE.sub(" ", text)))


def _character(one: str) -> str:
    if one in _SPECIAL:
        return _SPECIAL[one]
    code = ord(one)
    if 32 <= code < 127 or (code in _LATIN and one.isalpha()):
        return one
    return rf"\texttt{{U+{code:04X}}}"


def render_tables(sections: Sequence[Section]) -> str:
    """Return the tables of all sections, to be read with `\\input` by a document that has PACKAGES."""
    needs = "".join(rf"\usepackage{{{name}}}" for name in PACKAGES)
    tables = (render_table(table) for section in sections for table in section.tables)
    return "\n\n".join((rf"% Needs: \usepackage[T1]{{fontenc}}{needs}", *tables)) + "\n"


def render_table(table: Table) -> str:
    """Return one table that may be longer than a page, under its title."""
    columns = "".join(map(_column, table.numeric, zip(table.columns, *table.rows, strict=True)))
    head = _row(table.columns)
    return "\n".join(
        (
            rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
            rf"\caption{{{escaped(table.title)}}}\\",
            rf"\toprule {head} \midrule \endfirsthead",
            rf"\toprule {head} \midrule \endhead",
            r"\bottomrule \endfoot",
            *map(_row, table.rows),
            r"\end{longtable}",
        )
    )


def _column(numeric: bool, texts: Sequence[str]) -> str:
    if numeric:
        return "r"
    return _WRAPPED if max(map(len, texts)) > _LONG else "l"


def _row(texts: Sequence[str]) -> str:
    return " & ".join(map(escaped, texts)) + r" \\"


def render_document(title: str, sections: Sequence[Section], tables: str) -> str:
    """Return a whole document: the paragraphs of the sections, then the tables of the file `tables`."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[a3paper,landscape,margin=12mm]{geometry}",
        *(rf"\usepackage{{{name}}}" for name in PACKAGES),
        r"\setlength{\tabcolsep}{4pt}",
        r"\begin{document}",
        rf"\section*{{{escaped(title)}}}",
    ]
    for section in sections:
        if section.paragraphs or section.terms:
            lines.append(rf"\subsection*{{{escaped(section.heading)}}}")
            lines += [escaped(paragraph) + r"\par" for paragraph in section.paragraphs]
            lines += [
                rf"\textbf{{{escaped(term.name)}}}: {escaped(term.meaning)}\par"
                for term in section.terms
            ]
    lines += [r"\footnotesize", rf"\input{{{tables}}}", r"\end{document}"]
    return "\n".join(lines) + "\n"
