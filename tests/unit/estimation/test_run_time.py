"""Times of whole runs by the model of kernels: counts by hand, and published fine-tunes."""

import dataclasses
import statistics

import pytest

from ftbench.estimation.answers import card_time
from ftbench.estimation.kernel_time import Steps
from ftbench.estimation.reasons import KernelTimes, NotPredicted, RooflineRates
from ftbench.estimation.roofline import STEP_S, job_seconds, seconds_beside
from ftbench.estimation.run_time import RunOnCard, has_kernels, run_times
from ftbench.estimation.time_constants import load_time_constants
from ftbench.plan.gpus import find_gpu
from tests.factories import cell, cell_work, predicted_cell
from tests.published_fine_tunes import BERT_BASE_128, FINE_TUNES


def run_of(published, **changes):
    """A published run, with the software of its years."""
    return RunOnCard(
        published.job,
        published.work,
        published.rates,
        published.card,
        old=True,
        loops=True,
        **changes,
    )


RUNS = [run_of(one) for one in FINE_TUNES]


def step_of(run):
    """The predicted seconds of a step, with what the Trainer adds to it."""
    one = dataclasses.replace(run.job, steps=1, documents=run.work.step.documents, evaluations=0)
    none = dataclasses.replace(one, steps=0, documents=0)
    more, less = (
        time.seconds.value - seconds_beside(job, run.work).value
        for job, time in zip(
            (one, none),
            run_times([dataclasses.replace(run, job=one), dataclasses.replace(run, job=none)]),
            strict=True,
        )
    )
    return more - less + STEP_S.usual


@pytest.mark.parametrize(
    ("published", "time"),
    list(zip(FINE_TUNES, run_times(RUNS), strict=True)),
    ids=[published.name for published in FINE_TUNES],
)
def test_the_interval_holds_published_times(published, time):
    assert time.seconds.low <= published.seconds <= time.seconds.high


@pytest.mark.parametrize(("dtype", "bar"), [("fp32", 0.08), ("fp16", 0.15)])
def test_published_steps_are_met(dtype, bar):
    """The published seconds are the Trainer's: of all steps and their evaluations, without the start."""
    errors = []
    for published, run in zip(FINE_TUNES, RUNS, strict=True):
        if published.rates.dtype == dtype:
            measured = published.seconds / published.job.steps
            evaluating = run_times([run])[0].seconds.value - seconds_beside(run.job, run.work).value
            trained = evaluating / run.job.steps + STEP_S.usual
            errors.append(abs(trained / measured - 1))
    assert statistics.median(errors) <= bar


def test_a_run_is_its_steps_its_evaluations_and_what_is_beside():
    run = dataclasses.replace(RUNS[-2])  # evaluates after each epoch
    (time,) = run_times([run])
    job, work = run.job, run.work
    alone = dataclasses.replace(job, evaluations=0)
    (training,) = run_times([dataclasses.replace(run, job=alone)])
    beside = seconds_beside(job, work).value
    kernels = time.seconds.value - beside
    trained = training.seconds.value - beside
    assert trained == pytest.approx(job.documents / 12 * (step_of(run) - STEP_S.usual), rel=1e-6)
    assert kernels > trained
    double = dataclasses.replace(job, evaluations=2 * job.evaluations)
    (twice,) = run_times([dataclasses.replace(run, job=double)])
    assert twice.seconds.value - time.seconds.value == pytest.approx(kernels - trained)


def test_many_runs_together_are_as_each_alone():
    for run, time in zip(RUNS, run_times(RUNS), strict=True):
        (alone,) = run_times([run])
        assert alone.seconds.value == pytest.approx(time.seconds.value)


def test_the_low_end_is_at_least_the_rooflines_and_of_the_least_work():
    run = RUNS[0]
    step = run.work.step
    half = run.work.model_copy(update={"step": step.model_copy(update={"by_kernel": halved(step)})})
    (whole,), (varying,) = (
        run_times([dataclasses.replace(run, least=least)]) for least in (None, half)
    )
    assert varying.seconds.low < whole.seconds.low
    assert varying.seconds.value == whole.seconds.value
    for one, time in zip(RUNS, run_times(RUNS), strict=True):
        assert time.seconds.low >= job_seconds(one.job, one.work, one.rates).low


def halved(step):
    """The kernels of a step with half the depth in every product."""
    products = [row.model_copy(update={"k": row.k // 2}) for row in step.by_kernel.products]
    return step.by_kernel.model_copy(update={"products": tuple(products)})


# As an answer of `ftbench estimate`


def answer(gpu="l4", work=BERT_BASE_128, **settings):
    found = predicted_cell("x", work=work)
    return card_time(cell(train_size=1000, **settings), find_gpu(gpu), found, NotPredicted())


def test_an_estimate_on_one_card_is_the_models():
    found = answer("a100-40gb")
    assert isinstance(found.source, KernelTimes)
    assert (found.interval, found.source.factor, found.source.gaps) == ("90 %", 1.4, ())
    assert (found.source.steps, found.source.cards) == (159, 22)
    assert found.low < found.value < found.high


def test_it_says_where_the_evidence_ends():
    assert answer("l4", bf16=True).source.gaps == ("low-power half",)
    assert answer("l4").source.gaps == ()


def test_without_shapes_the_roofline_answers():
    assert not has_kernels(cell_work())
    assert isinstance(answer(work=cell_work()).source, RooflineRates)


def test_constants_are_read_with_their_evidence():
    assert Steps([]).seconds(load_time_constants()).total.shape == (0,)
