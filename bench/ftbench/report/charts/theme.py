"""Theme: colours, type and sizes of every chart, and its way from Altair to a specification.

Ink is `currentColor`: a page in light or dark colours recolours its charts without drawing them anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftbench.report.elements.figure import CHOSEN, Chart, Row

if TYPE_CHECKING:
    import altair as alt

    AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

# Okabe and Ito's colours that can be told apart with every kind of colour vision, less the black and
# the yellow: each can be seen on white and on near-black. Marks differ in shape as well.
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"
)
INK = "currentColor"
HEIGHT = 260

_QUIET = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        **_QUIET,
        "titleFontWeight": 500,
        "titlePadding": 8,
        "labelPadding": 5,
        "grid": True,
        "gridColor": INK,
        "gridOpacity": 0.12,
        "domain": False,
        "ticks": False,
        "labelOverlap": "greedy",
        "labelSeparation": 6,
        "labelOpacity": 0.85,
    },
    "legend": {
        **_QUIET,
        "titleFontWeight": 500,
        "orient": "top",
        "columns": 6,
        "offset": 8,
        "labelLimit": 300,
        "symbolOpacity": 1,
    },
    "title": {"color": INK},
    "text": {"fontSize": 12, "color": INK},
    "range": {"category": list(CATEGORIES), "symbol": list(SHAPES)},
}


# The widths of a letter of a legend, on average, and of its symbol with the space around it, in pixels.
_LETTER, _SYMBOL = 6.2, 26
# A chart's width less its vertical axis. `width` itself shrinks while a chart is laid out, and a legend that gets a
# second row then is cut off; `width` is in it so that a page of another size asks again.
_ROOM = "(width && isFinite(containerSize()[0]) ? containerSize()[0] - 70 : width)"


def legend_columns(labels: Sequence[str]) -> alt.ExprRef:
    """Return how many columns of a legend have room above the chart, as an expression of its width."""
    import altair as alt

    said = "1"
    for columns in range(2, len(labels) + 1):
        longest = (max(map(len, labels[place::columns])) for place in range(columns))
        needed = sum(_SYMBOL + _LETTER * letters for letters in longest)
        said = f"{_ROOM} >= {needed:.0f} ? {columns} : {said}"
    return alt.ExprRef(said)


def finish(
    chart: AnyChart,
    rows: Sequence[Row] | Mapping[str, Sequence[Row]],
    height: float = HEIGHT,
) -> Chart:
    """Return a chart of the dataset `chosen` as a drawing that is as wide as its place.

    `rows` are the dataset's, or the rows of each choice by its label.
    """
    choices = rows if isinstance(rows, Mapping) else {}
    first = next(iter(rows.values())) if isinstance(rows, Mapping) else rows
    spec = chart.to_dict()
    spec |= {
        "config": CONFIG,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "datasets": {CHOSEN: list(first)},
    }
    return Chart(spec, choices if len(choices) > 1 else {})
