import pytest

from ftbench.base.text import no_formula, printable


def test_control_characters_and_what_turns_text_around_are_replaced():
    assert (
        printable("a\x1b[31mb\x07c\x9bd\u202ee\tf\ng") == "a\ufffd[31mb\ufffdc\ufffdd\ufffde\tf\ng"
    )
    assert printable("plain … ± ä 中") == "plain … ± ä 中"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_formula_is_text(text):
    assert no_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1.5", "+3", "plain", "", "a=1", "-inf"])
def test_numbers_and_ordinary_texts_stay(text):
    assert no_formula(text) == text
