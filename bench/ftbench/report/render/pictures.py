"""Static: a figure as an SVG or a PNG file, of its first choice."""

from __future__ import annotations

import copy
import re
from typing import Any

import vl_convert

from ftbench.report.elements.figure import ReportFigure, Spec

WIDTH = 680
PAPER = "white"  # under an SVG there may be a dark page
PNG_SCALE = 2.0


def svg(figure: ReportFigure) -> str:
    """Return a figure as SVG text."""
    return _renumbered(vl_convert.vegalite_to_svg(_standing(figure), vl_version=_VERSION))


def png(figure: ReportFigure) -> bytes:
    """Return a figure as a PNG image, two pixels to each of the SVG's."""
    return vl_convert.vegalite_to_png(_standing(figure), vl_version=_VERSION, scale=PNG_SCALE)


_VERSION = "6.4"  # Altair's; the page has the same one
_REFERENCE = re.compile(r"""(\bid="|url\(#)((?:clip|gradient_)\d+)("|\))""")


def _renumbered(picture: str) -> str:
    """Return an SVG whose clips and gradients count from 0: Vega counts on from figure to figure."""
    numbers: dict[str, str] = {}

    def again(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], f"of-{len(numbers)}") + match[3]

    return _REFERENCE.sub(again, picture)


# What no XML may hold: vl-convert ends the whole process over one, and nothing can catch that.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def _printable(part: Any) -> Any:
    """Return a specification with a replacement sign for every character that XML may not hold."""
    if isinstance(part, str):
        return _UNPRINTABLE.sub("\ufffd", part)
    if isinstance(part, dict):
        return {_printable(name): _printable(value) for name, value in part.items()}
    return [_printable(one) for one in part] if isinstance(part, list) else part


def _standing(figure: ReportFigure) -> Spec:
    """Return a figure's specification with a width of its own, black on white."""
    spec: Spec = _printable(copy.deepcopy(figure.drawing.spec))
    spec["width"] = WIDTH
    spec["autosize"] = {"type": "pad", "contains": "padding"}
    spec["config"] |= {"background": PAPER}
    spec["padding"] = 12
    return spec
