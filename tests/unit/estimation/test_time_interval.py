"""Intervals of predicted times: factors, the gaps that widen them, and the floor."""

import dataclasses

import pytest

from ftbench.estimation.card_speed import speed_of
from ftbench.estimation.time_constants import load_interval_factors, load_time_constants
from ftbench.estimation.time_interval import gaps_of, interval_of, least_seconds
from ftbench.plan.gpus import find_gpu
from tests.unit.estimation.test_kernel_time import attention, product, step

FACTORS = load_interval_factors()


@pytest.mark.parametrize(
    ("gpu", "dtype", "share", "gaps", "factor"),
    [
        ("a100-40gb", "fp16", 0.1, (), FACTORS.inside),
        ("l4", "fp32", 0.1, (), FACTORS.inside),
        ("l4", "bf16", 0.1, ("low-power half",), FACTORS.low_power_half),
        ("a100-40gb", "bf16", 0.5, ("host-bound",), FACTORS.host),
        ("t4", "fp16", 0.9, ("low-power half", "host-bound"), FACTORS.host),
    ],
)
def test_the_interval_is_wider_where_the_evidence_ends(gpu, dtype, share, gaps, factor):
    of = step(product(64, 64, 64), card=speed_of(find_gpu(gpu)))
    found = gaps_of(of, dtype, host_share=share)
    assert found == gaps
    interval = interval_of(12.0, found, FACTORS, floor=0.0)
    assert interval.factor == factor
    assert interval.seconds.low == pytest.approx(12 / factor)
    assert interval.seconds.high == pytest.approx(12 * factor)


def test_long_fused_attention_and_unknown_products_are_gaps():
    short = attention(causal=False)
    long = short.model_copy(update={"length": 513})
    unknown = product(64, 64, 64).model_copy(update={"flops_only": True})
    card = speed_of(find_gpu("a100-40gb"))
    assert gaps_of(step(short, card=card), "fp32", host_share=0) == ()
    assert gaps_of(step(long, card=card), "fp32", host_share=0) == ("long attention",)
    assert gaps_of(step(unknown, card=card), "fp32", host_share=0) == ("unknown products",)


def test_no_interval_reaches_below_the_floor():
    found = interval_of(10.0, (), FACTORS, floor=9.0).seconds
    assert (found.low, found.value) == (9.0, 10.0)
    assert interval_of(10.0, (), FACTORS, floor=11.0).seconds.value == 11.0


def test_the_floor_is_flops_at_the_peak():
    card = dataclasses.replace(
        speed_of(find_gpu("rtx-4090")), peak_flops={"fp32": 1e12, "fp16": 2e12}
    )
    clock = load_time_constants().geforce_clock
    of = step(product(1000, 1000, 500, dtype="float16", count=2), attention(causal=True), card=card)
    assert least_seconds(of, load_time_constants()) == pytest.approx(
        (2e9 / 2e12 + 1.5e12 / 1e12) / clock
    )


def test_factors_are_within_their_bars():
    assert FACTORS.inside**2 <= 2.25
    assert FACTORS.low_power_half**2 <= 2.6
    assert FACTORS.host**2 <= 4
