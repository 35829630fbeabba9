"""Growth: laws that are planted are given back to the byte, and what is no law is none."""

import dataclasses
from fractions import Fraction

import pytest

from ftbench.records.prediction import Share
from studies.memory_claim.growth import (
    Peak,
    SeriesSetting,
    Size,
    doublings,
    law_at_end,
    local_exponent,
    parameters_of,
    peak_of,
    power,
    series_of,
    setting_of,
)
from tests.factories import cell, composition, predicted_cell

LENGTHS = (64, 128, 256, 384, 512)
STATE = 1_000


def planted(length, constant=10_000, linear=300, square=7, moment="backward"):
    total = constant + linear * length + square * length**2
    return Peak(length, total, STATE // 4, STATE // 4, STATE // 2, moment)


def peaks(*lengths, **law):
    return tuple(planted(length, **law) for length in lengths)


def test_a_planted_law_is_given_back_to_the_byte():
    law = law_at_end(peaks(*LENGTHS))
    assert (law.constant, law.linear, law.square) == (10_000, 300, 7)
    assert (law.start, law.end, law.checked) == (64, 512, 2)
    assert law.constant + 1000 * law.linear + 1000**2 * law.square == planted(1000).total_bytes


def test_a_coefficient_may_be_a_fraction():
    law = law_at_end(peaks(*LENGTHS, square=Fraction(1, 4)))
    assert law.square == Fraction(1, 4)


def test_a_law_begins_where_the_peak_is_first_on_it():
    floor = [dataclasses.replace(planted(64), total_bytes=999_999)]
    law = law_at_end([*floor, *peaks(*LENGTHS[1:])])
    assert (law.start, law.checked) == (128, 1)


@pytest.mark.parametrize("off", [-1, 1])
def test_one_byte_off_is_no_law(off):
    last = planted(LENGTHS[-1])
    moved = dataclasses.replace(last, total_bytes=last.total_bytes + off)
    assert law_at_end([*peaks(*LENGTHS[:-1]), moved]) is None


def test_three_lengths_are_no_law():
    assert law_at_end(peaks(*LENGTHS[:3])) is None


def test_the_lengths_of_note_of_a_law():
    law = law_at_end(peaks(*LENGTHS))
    assert law.even == pytest.approx(300 / 7)
    flat = law_at_end(peaks(*LENGTHS, square=0))
    assert flat.even is None


def test_exponents_are_between_a_length_and_its_double():
    pure = [Peak(n, n**2 + STATE, STATE // 4, STATE // 4, STATE // 2, "m") for n in LENGTHS]
    found = doublings(pure)
    assert [(one.start, one.end) for one in found] == [(64, 128), (128, 256), (256, 512)]
    assert [one.other for one in found] == pytest.approx([2, 2, 2])
    assert all(one.total < 2 for one in found)


def test_peaks_at_two_moments_are_not_of_one_kind():
    (one,) = doublings([planted(64, moment="optimizer"), planted(128)])
    assert one.other is None
    assert one.total == pytest.approx(
        local_exponent(planted(64).total_bytes, planted(128).total_bytes, 2)
    )


def test_a_peak_is_read_from_an_explained_prediction():
    shares = {
        "parameters": 40,
        "gradients": 30,
        "optimizer state": 80,
        "activations": 7,
        "inputs": 3,
    }
    roles = tuple(Share(name=name, nbytes=nbytes) for name, nbytes in shares.items())
    of = cell(max_length=32)
    prediction = predicted_cell(of.cell_id, "t4", composition=composition(roles=roles))
    peak = peak_of(of, prediction)
    assert (peak.length, peak.state_bytes) == (32, 150)
    assert peak.total_bytes == prediction.tensors.value_bytes
    assert peak.other_bytes == peak.total_bytes - 150
    assert peak.state_share == 150 / peak.total_bytes
    assert peak.moment == "backward: aten::mm of layer"
    assert peak.cards == prediction.cards


def test_series_are_by_setting_and_rise():
    one = setting_of(cell(attn_implementation="eager", per_device_train_batch_size=8), padded=True)
    assert one == SeriesSetting("/m", "eager", True, False, 8)
    two = dataclasses.replace(one, checkpointing=True)
    found = series_of([(one, planted(128)), (two, planted(64)), (one, planted(64))])
    assert [peak.length for peak in found[one]] == [64, 128]
    assert len(found) == 2


def test_a_size_knows_its_floor_and_its_parameters():
    small, large = planted(64), planted(512)
    size = Size("base", 12, 768, 0, {(8, 512): large, (2, 64): small})
    assert size.floor is small
    assert parameters_of(dataclasses.replace(small, gradients_bytes=400)) == 100


def test_a_power_is_given_back():
    assert power([(x, 5 * x**0.75) for x in (1, 10, 100)]) == pytest.approx(0.75)
