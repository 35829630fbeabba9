"""Headline: sentences say what was planted, and say other things of other figures."""

import dataclasses

import pytest

from studies.memory_claim.headline import headline, over_by_hand, room_tokens
from tests.unit.studies.memory_claim.planted import LINEAR, planted, with_over

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
    text = sentence(said, "Eager attention")
    assert f"at {LINEAR / 648:,.0f} tokens in DistilBERT's shape, which ends at 512" in text
    assert f"at {LINEAR / (22 * 12 * 4):,.0f} tokens in ModernBERT-base's" in text


def test_the_short_answer_is_what_the_last_doublings_do(said):
    assert said[0].startswith("In short")
    assert "ModernBERT-base's peak by 3.99x (eager) or" in said[0]
    assert "from 4,096 to 8,192 tokens" in said[0]


def test_fused_attention_is_linear_where_its_square_is_zero(said):
    text = sentence(said, "Fused attention")
    assert "(sdpa) is linear in length" in text
    assert "24 bytes per token² instead of eager's 648" in text
    assert "88 bytes per token² instead of eager's 1,056" in text
    assert "(56 bytes)" in text


def test_fused_attention_with_a_square_is_not_called_linear():
    series = dict(ANSWERS.series)
    for setting in series:
        if setting.attention == "sdpa" and not setting.padded and setting.model == "distilbert":
            series[setting] = series[dataclasses.replace(setting, padded=True)]
    text = sentence(headline(dataclasses.replace(ANSWERS, series=series), {}), "Fused attention")
    assert "(sdpa) is not linear in length" in text


def test_the_room_of_a_short_step_ends_where_the_peak_moves(said):
    assert room_tokens(ANSWERS, "distilbert", "eager") == (8 * 64, 8 * 128)
    assert room_tokens(ANSWERS, "distilbert", "sdpa") == (8 * 128, 8 * 256)
    text = sentence(said, "The memory of short steps")
    assert "512 to 1,024 (eager) or 1,024 to 2,048 (sdpa) in DistilBERT" in text
    assert "512 to 8,192 in ModernBERT-base" in text


def test_state_is_sixteen_bytes_a_parameter_and_what_is_over(said):
    text = sentence(said, "Parameters, gradients")
    assert f"16 x {12 * 768**2:,} and 400 bytes" in text
    assert "100% of the peak at length 64" in text


def test_powers_with_parameters_depth_and_width_are_said(said):
    text = sentence(said, "Activations follow")
    assert "they grow with the power 1.00, with width" in text
    assert "where parameters grow with 1.00 and 2.00" in text


def test_what_laws_have_over_the_count_by_hand_is_read_from_them():
    over = {
        ("distilbert", "eager", True, True): 4,
        ("modernbert", "eager", True, False): 96,
        ("modernbert", "sdpa", False, False): 1,
        ("modernbert", "eager", True, True): 104,
    }
    assert over_by_hand(with_over(over)) == (
        "DistilBERT 4 (eager, checkpointing); ModernBERT-base 96 (eager), 1 (sdpa, full batches),"
        " 104 (eager, checkpointing)"
    )
    assert over_by_hand(ANSWERS) == ""


def test_what_is_measured_is_said_with_its_largest_difference(said):
    assert not any(text.startswith("Measured") for text in said)
    text = sentence(headline(ANSWERS, {"a": 1_000, "b": 2_020}), "Measured")
    assert "2 cells" in text
    assert "20 bytes (0.99%)" in text
