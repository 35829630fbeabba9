"""Figures: charts of a report, whatever it is rendered to; drawn only when they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

Spec = dict[str, Any]  # a Vega-Lite specification
Row = dict[str, Any]

# The dataset of a specification that a choice stands in for.
CHOSEN = "chosen"


@dataclasses.dataclass(frozen=True)
class Chart:
    """A specification, and the rows of its dataset `chosen` by the label that they are chosen by.

    The specification alone shows the first of them. `choices` is empty if there is nothing to choose.
    """

    spec: Spec
    choices: Mapping[str, Sequence[Row]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ReportFigure:
    """A chart under a title. `name` is the stem of its file; `alt` describes it in words.

    Figures of one section with the same `chooser` (the words beside it) change together.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Chart]
    chooser: str = ""

    @cached_property
    def drawing(self) -> Chart:
        """Return the chart, drawn once."""
        return self.draw()
