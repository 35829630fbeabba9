"""Headline: sentences say what was planted, and say other things of other figures."""

import dataclasses
import re

import pytest

from bench.report.claim.headline import headline, law_of, room_tokens
from tests.unit.report.claim.planted import BATCH, FLOOR, LINEAR, PARAMETERS, planted

ANSWERS = planted()


@pytest.fixture(scope="module")
def said():
    return headline(ANSWERS, {})


def sentence(said, start):
    (found,) = [text for text in said if text.startswith(start)]
    return found


def test_ten_lines_are_enough(said):
    assert len(said) <= 9


def test_the_length_where_quadratic_begins_to_lead_is_said(said):
    text = sentence(said, "Length")
    assert f"overtakes the linear part at {LINEAR / 648:,.0f}" in text
    assert f"overtakes the linear part at {LINEAR / (22 * 12 * 4):,.0f}" in text


def test_the_last_doubling_is_said_with_its_power(said):
    assert re.search(r"from 4,096 to 8,192 tokens the whole grows 3\.99x \(power 2\.00\)", said[0])


def test_fused_attention_is_linear_where_its_square_is_zero(said):
    text = sentence(said, "With fused attention")
    assert "memory is linear in length" in text
    assert "24 bytes a token² instead of eager's 648" in text
    assert "88 bytes a token² instead of eager's 1,056" in text
    assert "(56 bytes)" in text


def test_fused_attention_with_a_square_is_not_called_linear():
    series = dict(ANSWERS.series)
    for setting in series:
        if setting.attention == "sdpa" and not setting.padded and setting.model == "distilbert":
            series[setting] = series[dataclasses.replace(setting, padded=True)]
    text = sentence(headline(dataclasses.replace(ANSWERS, series=series), {}), "With fused")
    assert "memory is not linear in length" in text


def test_the_room_of_a_short_step_is_what_the_gradients_leave():
    tokens = room_tokens(ANSWERS, "distilbert", "sdpa")
    law = law_of(ANSWERS, "distilbert", "sdpa")
    assert law.at(tokens / BATCH) == pytest.approx(FLOOR, rel=1e-5)
    assert tokens < 4 * PARAMETERS / LINEAR  # what it were without a part in length²


def test_state_is_sixteen_bytes_a_parameter_and_what_is_over(said):
    text = sentence(said, "Parameters, gradients")
    assert f"16 x {12 * 768**2:,} and 400 bytes" in text
    assert "100% of the peak at length 64" in text


def test_powers_with_parameters_depth_and_width_are_said(said):
    assert "0.5 M to 25 M" not in said  # the planted sizes: 2 x 128² to 24 x 1024²
    text = sentence(said, "Activations follow")
    assert "they grow with the power 1.00, with width" in text
    assert "where parameters grow with 1.00 and 2.00" in text


def test_what_is_measured_is_said_with_its_largest_difference(said):
    assert not any(text.startswith("Measured") for text in said)
    text = sentence(headline(ANSWERS, {"a": 1_000, "b": 2_020}), "Measured")
    assert "2 cells" in text
    assert "20 bytes (0.99%)" in text
