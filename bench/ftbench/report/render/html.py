"""HTML: the report as one file that needs no other, and no network.

Jinja escapes whatever comes from records, in the text and in the JSON that charts are drawn from. A
content security policy lets nothing run or load but the three inline blocks whose hashes it names:
this page's style, its script, and the Vega libraries. Vega evaluates expressions with its interpreter,
so that the policy needs no `unsafe-eval`.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ftbench import __version__
from ftbench.report.document import Document
from ftbench.report.elements.figure import CHOSEN, ReportFigure, Row
from ftbench.report.elements.glossary import FirstUses, Term
from ftbench.report.elements.table import Table
from ftbench.report.render.vega import script as vega_script

# Tables from so many rows on can be filtered, and scroll inside the page.
_LONG = 12
# Characters: a column of names is on one line, one of sentences has room for them.
_SHORT_TEXT, _WIDE_TEXT = 32, 60
FINDINGS = "What was found"


def render(document: Document) -> str:
    """Return a document as one HTML page."""
    style = _part("page.css")
    script, vega = _inside_script(_part("page.js")), _inside_script(vega_script())
    description = document.profile.description if document.profile else ""
    page = _templates().get_template("page.html")
    terms = [term for section in document.sections for term in section.terms]
    return page.render(
        explained=_Explained(terms),
        document=document,
        intro=description.strip().partition("\n")[0],
        version=__version__,
        policy=_policy(style, (vega, script)),
        style=style,
        figures={figure.name: _data(figure) for figure in document.figures},
        vega=vega,
        script=script,
    )


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (text, _slug, _anchor, _by_chooser, _classes, _example, _leading, _cells)
    templates.filters |= {function.__name__.lstrip("_"): function for function in filters}
    # For `tojson`, which escapes what could end the script element.
    templates.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"),
        "allow_nan": False,
        "default": lambda number: number.item(),  # numpy's
    }
    templates.globals |= {"FINDINGS": FINDINGS, "LONG": _LONG}
    return templates


def _part(name: str) -> str:
    return files("ftbench.report.render").joinpath("page", name).read_text(encoding="utf-8")


def _inside_script(code: str) -> str:
    """Return JavaScript that nothing in it can end early; both spellings mean the same in a string."""
    return code.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _policy(style: str, scripts: Iterable[str]) -> str:
    """Return a content security policy that allows these inline blocks and nothing else."""
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)};"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(block: str) -> str:
    digest = hashlib.sha256(block.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _data(figure: ReportFigure) -> dict[str, Any]:
    """Return a figure's specification and its choices, each as columns and rows of values."""
    drawing = figure.drawing
    spec = {name: value for name, value in drawing.spec.items() if name != "datasets"}
    choices = drawing.choices or {"": drawing.spec["datasets"][CHOSEN]}
    return {"spec": spec, "choices": {label: _columns(rows) for label, rows in choices.items()}}


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


class _Explained:
    """Texts as HTML, in which the first use of each term has its meaning and leads to the glossary."""

    def __init__(self, terms: Sequence[Term]):
        self._terms = terms
        self._uses = FirstUses(terms)

    def __call__(self, plain: str) -> Markup:
        """Return a text as HTML: escaped, with text in backticks as code."""
        code = Markup("<code>{}</code>")
        return Markup("").join(
            code.format(part) if i % 2 else self._linked(part)
            for i, part in enumerate(_code_parts(plain))
        )

    def _linked(self, plain: str) -> Markup:
        link = Markup('<a class="term" href="#{}" title="{}">{}</a>')
        return Markup("").join(
            link.format(_anchor(term), term.meaning, part) if term else escape(part)
            for part, term in self._uses.parts(plain)
        )

    def meaning(self, head: str) -> str:
        """Return the meaning of a table's column; empty if it is no term."""
        parts = FirstUses(self._terms).parts(head)
        return next((term.meaning for _, term in parts if term is not None), "")


def _anchor(term: Term) -> str:
    return f"term-{_slug(term.name)}"


def _code_parts(plain: str) -> list[str]:
    """Return a text cut at its backticks: every second part is code."""
    parts = plain.split("`")
    if len(parts) < 3 or len(parts) % 2 == 0:  # none, or a backtick of a record, with no other
        return [plain]
    return parts


# The templates' filters, each under its name less the underscore.


def text(plain: str) -> Markup:
    """Return a text as HTML: escaped, with text in backticks as code."""
    return _Explained(())(plain)


def _slug(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _by_chooser(
    figures: Iterable[ReportFigure],
) -> Iterator[tuple[str, list[str], list[ReportFigure]]]:
    """Yield (chooser, labels to choose from, figures) for neighbours that share a chooser."""
    for chooser, group in itertools.groupby(figures, key=lambda figure: figure.chooser):
        members = list(group)
        labels = dict.fromkeys(label for figure in members for label in figure.drawing.choices)
        yield chooser, list(labels), members


def _classes(table: Table) -> list[Markup]:
    """Return the class attribute of each column: of numbers, of short texts, of sentences."""
    longest = [
        max((len(row[i]) for row in table.rows), default=0) for i in range(len(table.columns))
    ]
    names = [
        "n" if number else "s" if length <= _SHORT_TEXT else "wide" if length > _WIDE_TEXT else ""
        for number, length in zip(table.numeric, longest, strict=True)
    ]
    return [Markup(' class="{}"').format(name) if name else Markup("") for name in names]


def _example(table: Table) -> str:
    """Return what may be typed into the filter of a table."""
    first = table.rows[0][0]
    if table.numeric[0]:
        return f"{table.columns[0].replace(' ', '_')}={first.replace(',', '')}"
    return first.partition(",")[0]


def _leading(table: Table) -> list[Markup]:
    """Return the attribute of each column that a phone shows before others: its place among them."""
    places = {name: place for place, name in enumerate(table.leading)}
    return [
        Markup(' data-leading="{}"').format(places[name]) if name in places else Markup("")
        for name in table.columns
    ]


def _cells(table: Table) -> Iterator[list[tuple[str, str | None]]]:
    """Yield the cells of each row: the text, and its sort key if that is not the text."""
    for row, keys in itertools.zip_longest(table.rows, table.keys, fillvalue=()):
        yield list(itertools.zip_longest(row, map(_key, keys)))


def _key(key: float | str | None) -> str | None:
    if isinstance(key, str):
        return None
    return "" if key is None else f"{key:.12g}"
