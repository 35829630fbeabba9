"""The page as a whole: it begins with its answers, it can be drawn, and it does not change by itself."""

import xml.etree.ElementTree as ElementTree

import pytest

from ftbench.report.render import markdown
from ftbench.report.render import pictures as static
from studies.memory_claim.page import page
from tests.unit.studies.memory_claim.planted import planted, with_over


@pytest.fixture(scope="module")
def document():
    return page(planted(), {"a": 1_000})


def test_answers_come_first(document):
    assert document.sections[0].heading == "What was found"
    assert len(document.sections[0].paragraphs) >= 7


def test_the_same_answers_give_the_same_page(document):
    text = markdown.render(document)
    assert markdown.render(page(planted(), {"a": 1_000})) == text
    assert markdown.render(page(planted(), {})) != text


def test_nothing_measured_is_said_with_the_command():
    assert "Not measured yet: `ftbench run attention-scaling" in markdown.render(
        page(planted(), {})
    )


def test_what_is_over_the_count_by_hand_is_said_of_each_model_that_has_it():
    over = with_over(
        {("distilbert", "eager", True, True): 4, ("modernbert", "eager", True, True): 104}
    )
    text = markdown.render(page(over, {}))
    assert "4 (eager, checkpointing); ModernBERT-base 104 (eager, checkpointing)." in text
    assert "What is over is ModernBERT's" not in text
    assert "Nothing is over." in markdown.render(page(planted(), {}))


def test_figures_are_drawn_with_what_they_show(document):
    figures = {figure.name: figure for figure in document.figures}
    assert list(figures) == ["length-distilbert", "length-modernbert", "state-share", "parameters"]
    for figure in figures.values():
        drawn = static.svg(figure)
        assert static.svg(figure) == drawn
        ElementTree.fromstring(drawn)
        assert figure.alt
    assert "sdpa, full batches" in static.svg(figures["length-modernbert"])
    assert "large" in static.svg(figures["parameters"])
