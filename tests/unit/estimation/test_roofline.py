"""The roofline: job counts by hand, intervals by hand, and published times of fine-tunes inside them."""

import statistics

import pytest

from ftbench.estimation.reasons import CardSpeedUnknown, RateUnknown
from ftbench.estimation.roofline import (
    BANDWIDTH,
    DISK_BYTES_PER_S,
    LAUNCH_S,
    PLAIN_PRODUCTS,
    START_S,
    STEP_S,
    TENSOR_PRODUCTS,
    Rates,
    dtype_of,
    flops_of,
    job_seconds,
    rates_of,
)
from ftbench.plan.gpus import find_gpu
from ftbench.plan.schedule import Schedule
from tests.factories import cell, cell_work, pass_work
from tests.published_fine_tunes import FINE_TUNES

# The card's rates


@pytest.mark.parametrize(
    ("gpu", "settings", "dtype"),
    [
        ("a100-40gb", {}, "fp32"),
        ("a100-40gb", {"tf32": True}, "tf32"),
        ("a100-40gb", {"bf16": True, "tf32": True}, "bf16"),
        ("a100-40gb", {"fp16": True}, "fp16"),
        ("t4", {"tf32": True}, "fp32"),
        ("a100-40gb", {"dtype": "bfloat16", "tf32": True}, "bf16"),
        ("a100-40gb", {"dtype": "float16"}, "fp16"),
        ("a100-40gb", {"dtype": "bfloat16", "bf16": True}, "bf16"),
    ],
)
def test_products_are_in_the_type_of_the_settings(gpu, settings, dtype):
    assert dtype_of(cell(**settings), find_gpu(gpu)) == dtype


def test_rates_are_those_of_the_catalogue():
    assert rates_of(find_gpu("l4"), cell()) == Rates("l4", "fp32", 30.3e12, 300e9)


def test_evaluations_in_another_type_have_rates_of_their_own():
    found = rates_of(find_gpu("l4"), cell(fp16_full_eval=True))
    assert found.peak_flops == 30.3e12
    assert (found.evaluating.dtype, found.evaluating.peak_flops) == ("fp16", 121e12)
    assert rates_of(find_gpu("l4"), cell()).evaluating.dtype == "fp32"


def test_a_type_that_a_card_does_not_have_is_refused():
    found = rates_of(find_gpu("t4"), cell(bf16=True))
    assert isinstance(found, RateUnknown)
    assert (found.gpu, found.dtype, "fp16" in found.known) == ("t4", "bf16", True)


def test_a_card_that_is_only_a_size_has_no_speed():
    assert rates_of(find_gpu("24GiB"), cell()) == CardSpeedUnknown("24GiB")


# The interval, by hand: ten steps of four documents, the last with two; two evaluations of three batches

WORK = cell_work(
    step=pass_work(
        4, flops=4000, product_bytes=300, other_bytes=500, compulsory_bytes=90, kernels=7
    ),
    evaluation=pass_work(
        16, batches=2, flops=1600, product_bytes=80, other_bytes=60, compulsory_bytes=20, kernels=6
    ),
    checkpoint_bytes=10_000,
)
JOB = Schedule(
    steps=10,
    documents=38,
    examples_per_epoch=38,
    evaluations=2,
    eval_documents=20,
    eval_batches=3,
    checkpoints=4,
)
FLOPS = 38 * 1000 + 2 * 20 * 100


def test_flops_go_with_documents():
    assert flops_of(JOB, WORK) == FLOPS


@pytest.mark.parametrize(
    ("peak", "bandwidth", "low"),
    [(1e3, 1e12, FLOPS / 1e3), (1e12, 1e3, (10 * 90 + 2 * 3 * 20) / 1e3)],
)
def test_nothing_undercuts_the_low_end(peak, bandwidth, low):
    assert job_seconds(JOB, WORK, Rates("", "fp32", peak, bandwidth)).low == pytest.approx(low)


def test_evaluations_in_half_precision_are_held_to_its_peak():
    rates = Rates("", "fp32", 1e3, 1e12, Rates("", "fp16", 4e3, 1e12))
    expected = 38 * 1000 / 1e3 + 2 * 20 * 100 / 4e3
    assert job_seconds(JOB, WORK, rates).low == pytest.approx(expected)


def test_at_the_high_end_all_is_slow_and_nothing_overlaps():
    rates = Rates("", "fp32", 1e3, 1e3)
    moved = 10 * 800 + 3 * (80 + 60)  # an evaluation's bytes go with batches: two of them have 140
    started = 10 * 7 + 3 * 6
    expected = (
        FLOPS / (1e3 * PLAIN_PRODUCTS.slow)
        + moved / (1e3 * BANDWIDTH.slow)
        + started * LAUNCH_S.slow
        + 5 * 10_000 / DISK_BYTES_PER_S.slow
        + START_S.slow
        + 10 * STEP_S.slow
    )
    assert job_seconds(JOB, WORK, rates).high == pytest.approx(expected)


def test_usually_products_keep_the_processors_or_the_memory_busy():
    rates = Rates("", "fp16", 1e3, 1e9)  # limited by FLOPs
    other = (10 * 500 + 3 * 60) / (1e9 * BANDWIDTH.usual)
    once = 5 * 10_000 / DISK_BYTES_PER_S.usual + START_S.usual + 10 * STEP_S.usual
    expected = FLOPS / (1e3 * TENSOR_PRODUCTS.usual) + other + once
    assert job_seconds(JOB, WORK, rates).value == pytest.approx(expected)


def test_a_card_that_waits_for_its_host_takes_what_the_host_takes():
    started = (10 * 7 + 3 * 6) * LAUNCH_S.usual
    once = 5 * 10_000 / DISK_BYTES_PER_S.usual + START_S.usual + 10 * STEP_S.usual
    found = job_seconds(JOB, WORK, Rates("", "fp32", 1e15, 1e15))
    assert found.value == pytest.approx(started + once)


def test_where_work_varies_the_low_end_is_of_the_least():
    half = WORK.model_copy(
        update={"step": WORK.step.model_copy(update={"flops": WORK.step.flops // 2})}
    )
    rates = Rates("", "fp32", 1e3, 1e12)
    found, whole = job_seconds(JOB, WORK, rates, least=half), job_seconds(JOB, WORK, rates)
    assert found.low == pytest.approx((38 * 500 + 2 * 20 * 100) / 1e3)
    assert (found.value, found.high) == (whole.value, whole.high)


# Against what was published


@pytest.mark.parametrize("run", FINE_TUNES, ids=lambda run: run.name)
def test_the_interval_holds_published_times(run):
    found = job_seconds(run.job, run.work, run.rates)
    assert found.low <= run.seconds <= found.high


def test_the_value_is_no_more_than_half_as_much_off():
    ratios = [job_seconds(r.job, r.work, r.rates).value / r.seconds for r in FINE_TUNES]
    assert min(ratios) > 0.6
    assert max(ratios) < 1.5
    assert 0.8 < statistics.median(ratios) < 1.25
