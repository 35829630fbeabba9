"""Static: a figure as an SVG or a PNG file, of its first choice."""

from __future__ import annotations

import copy

import vl_convert

from bench.report.figure import Figure, Spec

WIDTH = 680
PAPER = "white"  # under an SVG there may be a dark page
PNG_SCALE = 2.0


def svg(figure: Figure) -> str:
    """Return a figure as SVG text."""
    return vl_convert.vegalite_to_svg(_standing(figure), vl_version=_VERSION)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG image, two pixels to each of the SVG's."""
    return vl_convert.vegalite_to_png(_standing(figure), vl_version=_VERSION, scale=PNG_SCALE)


_VERSION = "6.4"  # Altair's; the page has the same one


def _standing(figure: Figure) -> Spec:
    """Return a figure's specification with a width of its own, black on white."""
    spec = copy.deepcopy(figure.drawing.spec)
    spec["width"] = WIDTH
    spec["autosize"] = {"type": "pad", "contains": "padding"}
    spec["config"] |= {"background": PAPER}
    spec["padding"] = 12
    return spec
