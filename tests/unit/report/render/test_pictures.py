import dataclasses
import json
import re
import subprocess
import sys

import altair
import pytest

from ftbench.report.render.pictures import PNG_SCALE, WIDTH, png, svg
from tests import synthetic
from tests.unit.report.charts.made_up import MEASURED, group, learning_curve

DOCUMENT = synthetic.document(MEASURED, groups=(group(),), fitted_curves=(learning_curve(),))
FIGURES = {figure.name: figure for figure in DOCUMENT.figures}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_valid_specification_in_svg(name):
    figure = FIGURES[name]
    altair.Chart.from_dict(figure.drawing.spec, validate=True)
    picture = svg(figure)
    assert picture.startswith("<svg")
    assert "NaN" not in picture
    assert "Infinity" not in json.dumps(figure.drawing.spec)
    assert figure.alt
    assert figure.caption.endswith(".")


def test_a_figure_stands_on_white_wherever_it_is_shown():
    assert 'fill="white"' in svg(FIGURES["pareto-time"])


def test_the_same_picture_whatever_was_drawn_before():
    first = {name: svg(figure) for name, figure in FIGURES.items()}
    assert {name: svg(figure) for name, figure in FIGURES.items()} == first
    ids = re.findall(r'\bid="([^"]+)"', first["memory-phases"])
    used = re.findall(r"url\(#([^)]+)\)", first["memory-phases"])
    assert set(used) == set(ids) == {f"of-{number}" for number in range(len(ids))}


def test_what_xml_may_not_hold_is_replaced():
    figure = FIGURES["pareto-time"]
    spec = figure.drawing.spec | {"title": "bell \x07, escape \x1b[31m, nul \x00"}
    drawn = dataclasses.replace(figure, draw=lambda: dataclasses.replace(figure.drawing, spec=spec))
    assert "bell \ufffd, escape \ufffd[31m, nul \ufffd" in svg(drawn)


def test_png():
    picture = png(FIGURES["memory-phases"])
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20]) >= WIDTH * PNG_SCALE


def test_the_same_specification_whenever_it_is_drawn():
    again = synthetic.document(MEASURED, groups=(group(),), fitted_curves=(learning_curve(),))
    for figure in again.figures:
        assert figure.drawing == FIGURES[figure.name].drawing


def test_a_document_imports_nothing_to_draw_with():
    code = "import ftbench.report.document, sys; print({'altair', 'vl_convert'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
