"""HTML: the report as one file that needs no other, and no network.

Whatever comes from records is escaped, in the text and in the JSON that charts are drawn from, and a
content security policy lets nothing run or load but the three inline blocks whose hashes it names:
this page's style, its script, and the Vega libraries. Vega evaluates expressions with its interpreter,
so that the policy needs no `unsafe-eval`.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from ftbench import __version__
from ftbench.report.document import Document
from ftbench.report.elements.figure import CHOSEN, Figure, Row
from ftbench.report.elements.section import Section
from ftbench.report.elements.tables import Table

# Tables from so many rows on can be filtered, and scroll inside the page.
_LONG = 12
# Characters: a column of names is on one line, one of sentences has room for them.
_SHORT_TEXT, _WIDE_TEXT = 32, 60
FINDINGS = "What was found"


def render(document: Document) -> str:
    """Return a document as one HTML page."""
    style, script = _part("page.css"), _inside_script(_part("page.js"))
    vega = _inside_script(_vega())
    texts = {
        "policy": _policy(style, (vega, script)),
        "title": escape(document.title),
        "style": style,
        "heading": escape(document.title.removeprefix("ftbench: ")),
        "intro": _intro(document),
        "contents": _contents(document.sections),
        "sections": "\n".join(map(_section, document.sections)),
        "version": escape(__version__),
        "figures": _json({figure.name: _data(figure) for figure in document.figures}),
        "vega": vega,
        "script": script,
    }
    # In one pass: a text from a record that holds a placeholder stays what it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], _part("page.html"))


def _part(name: str) -> str:
    return files("ftbench.report.render").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Return the Vega libraries as one script, made once a process: it takes seconds."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


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


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(data: Any) -> str:
    """Return JSON that is safe inside a script element: no `<` to end it, ASCII only."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=_plain)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _plain(value: Any) -> Any:
    """Return a numpy number as Python's."""
    return value.item()


def _data(figure: Figure) -> dict[str, Any]:
    """Return a figure's specification and its choices, each as columns and rows of values."""
    drawing = figure.drawing
    spec = {name: value for name, value in drawing.spec.items() if name != "datasets"}
    choices = drawing.choices or {"": drawing.spec["datasets"][CHOSEN]}
    return {"spec": spec, "choices": {label: _columns(rows) for label, rows in choices.items()}}


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


def text(plain: str) -> str:
    """Return a text as HTML: escaped, with what stands in backticks as code."""
    parts = plain.split("`")
    if len(parts) % 2 == 0:  # a backtick of a record, with no other
        return escape(plain)
    return "".join(
        f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def _intro(document: Document) -> str:
    said = document.profile.description if document.profile else ""
    first, _, _ = said.strip().partition("\n")
    stats = "".join(
        f'<div><dt>{escape(what)}</dt><dd class="value">{escape(value)}</dd>'
        f'<dd class="note">{escape(note)}</dd></div>'
        for what, value, note in document.stats
    )
    intro = f'<p class="intro">{text(first)}</p>' if first else ""
    return intro + (f'<dl class="stats">{stats}</dl>' if stats else "")


def _contents(sections: Iterable[Section]) -> str:
    links = (
        f'<li><a href="#{_slug(section.heading)}">{escape(section.heading)}</a></li>'
        for section in sections
    )
    return f"<ol>{''.join(links)}</ol>"


def _slug(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _section(section: Section) -> str:
    slug = _slug(section.heading)
    parts = [f'<section id="{slug}" aria-labelledby="{slug}-heading">']
    parts.append(f'<h2 id="{slug}-heading">{escape(section.heading)}</h2>')
    if section.heading == FINDINGS:
        items = "".join(f"<li>{text(paragraph)}</li>" for paragraph in section.paragraphs)
        parts.append(f'<ul class="findings">{items}</ul>')
    else:
        parts += [f"<p>{text(paragraph)}</p>" for paragraph in section.paragraphs]
    parts += _groups(section.figures)
    parts += [
        _table(table, titled=table.title != section.heading)
        for table in section.tables
        if not table.folded
    ]
    parts += _folded([table for table in section.tables if table.folded])
    return "\n".join([*parts, "</section>"])


def _groups(figures: Iterable[Figure]) -> Iterator[str]:
    """Yield figures in groups that share a chooser, each under its select element."""
    for chooser, group in itertools.groupby(figures, key=lambda figure: figure.chooser):
        members = list(group)
        labels = dict.fromkeys(label for one in members for label in one.drawing.choices)
        options = "".join(f"<option>{escape(label)}</option>" for label in labels)
        select = (
            f"<label>{escape(chooser)} <select data-chooser>{options}</select></label>"
            if options
            else ""
        )
        drawn = "".join(map(_figure, members))
        yield f'<div class="group">{select}<div class="figures">{drawn}</div></div>'


def _figure(figure: Figure) -> str:
    return (
        f"<figure><h3>{escape(figure.title)}</h3>"
        f'<div class="chart" data-figure="{escape(figure.name)}" role="img"'
        f' aria-label="{escape(figure.alt)}"></div>'
        f"<noscript><p>{escape(figure.alt)}</p></noscript>"
        f"<figcaption>{text(figure.caption)}</figcaption></figure>"
    )


def _folded(tables: Sequence[Table]) -> Iterator[str]:
    """Yield tables that open when asked to: one under its title, several under one line."""
    if len(tables) == 1:
        summary, inside = tables[0].title, _table(tables[0], titled=False)
    else:
        summary = f"{len(tables)} more tables"
        inside = "".join(_table(table, titled=True) for table in tables)
    if tables:
        yield f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _table(table: Table, *, titled: bool) -> str:
    """Return a table whose columns sort; a long one has a field that filters its rows."""
    long = len(table.rows) >= _LONG
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_class(table, i)}>'
        f'<button type="button">{escape(name)}</button></th>'
        for i, name in enumerate(table.columns)
    )
    body = "".join(_row(table, i) for i in range(len(table.rows)))
    scroll = (
        f'<div class="scroll{" tall" if long else ""}" tabindex="0" role="region"'
        f' aria-label="{escape(table.title)}"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    heading = f"<h3>{escape(table.title)}</h3>" if titled else ""
    tools = _tools(table) if long else ""
    return f'<div class="table" data-table>{heading}{tools}{scroll}</div>'


def _tools(table: Table) -> str:
    first = table.rows[0][0].partition(",")[0]
    example = f"{table.columns[0].replace(' ', '_')}={first}" if table.numeric[0] else first
    return (
        '<div class="tools"><input type="search" spellcheck="false"'
        f' aria-label="Filter {escape(table.title)}" placeholder="Filter, e.g. {escape(example)}">'
        '<output aria-live="polite"></output></div>'
    )


def _row(table: Table, number: int) -> str:
    keys = table.keys[number] if table.keys else ()
    cells = []
    for i, said in enumerate(table.rows[number]):
        key = f' data-k="{escape(_key(keys[i]))}"' if keys and not isinstance(keys[i], str) else ""
        cells.append(f"<td{_class(table, i)}{key}>{text(said)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _key(key: float | str | None) -> str:
    return "" if key is None else f"{key:.12g}" if isinstance(key, float) else key


def _class(table: Table, column: int) -> str:
    if table.numeric[column]:
        return ' class="n"'
    longest = max((len(row[column]) for row in table.rows), default=0)
    if longest <= _SHORT_TEXT:
        return ' class="s"'
    return ' class="wide"' if longest > _WIDE_TEXT else ""
