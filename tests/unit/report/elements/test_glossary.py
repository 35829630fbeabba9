import re

import pytest

from ftbench.report.elements.glossary import TERMS, FirstUses, terms_of


def names(*texts):
    return [term.name for term in terms_of(texts)]


def marked(uses, text):
    return [part for part, term in uses.parts(text) if term is not None]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_every_term_is_found_by_its_own_name(term):
    assert re.fullmatch(term.found_by, term.name)
    assert term.name in names(term.name)


def test_only_the_terms_that_are_used():
    assert names("The MFU of 2 cells (PSS)") == ["cell", "MFU", "PSS"]
    assert names("nothing of the kind") == []


@pytest.mark.parametrize("text", ["excellent", "frontier", "misleading", "reseeded", "MFUs"])
def test_a_part_of_a_word_is_no_term(text):
    assert names(text) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Bars are 95 % intervals.", "95 % intervals"),
        ("95 % bootstrap intervals", "95 % bootstrap intervals"),
        ("first steps", "first steps"),
        ("padded tokens/s", "padded tokens/s"),
        ("step (median)", "step (median)"),
    ],
)
def test_the_longest_of_several_terms(text, part):
    assert marked(FirstUses(TERMS), text) == [part]


def test_a_term_is_marked_once_over_all_texts_and_no_text_is_lost():
    uses = FirstUses(TERMS)
    text = "RSS and seeds, RSS again"
    assert marked(uses, text) == ["RSS", "seeds"]
    assert marked(uses, "a seed, MFU") == ["MFU"]
    assert "".join(part for part, _ in FirstUses(TERMS).parts(text)) == text
