"""Estimates for real: the command line, the offline model, real traces, and a real run to compare with."""

import json
import time

import pytest
import torch

from ftbench.estimation.roofline import Rates, job_seconds
from ftbench.plan.schedule import Schedule
from ftbench.plan.sources import resolve_model
from ftbench.prediction.trace.trace_trainer import Batches
from ftbench.prediction.trace.tracer import Target
from ftbench.prediction.trace.work import count_work
from ftbench.worker.measure.steps import example_flops
from ftbench.worker.prepare.flops import fit_flops
from ftbench.worker.recipe.model import load_model
from tests import published_fine_tunes as published
from tests.factories import profile, task
from tests.integration.conftest import ftbench
from tests.published_kernels import count

pytestmark = pytest.mark.integration


def said(*arguments):
    """The JSON document that a command prints; nothing else is on stdout."""
    done = ftbench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def on_l4(tmp_path_factory):
    done = ftbench(
        "estimate", "smoke", "--train-size", "1000", "--max-length", "128", "--gpu", "l4",
        "--usd-per-hour", "0.8", "--set", 'grid.attn_implementation=["eager"]', "--json",
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_run_that_was_not_made_has_its_costs(on_l4):
    (card,) = on_l4["devices"]
    figures = card["figures"]
    assert card["verdict"] == "fits"
    assert card["largest_batch"]["certain"] > 8
    for name in ("time_s", "cost_usd", "reserved_bytes", "process_bytes"):
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert figures["time_s"]["source"].startswith("model of kernels, not measured")
    assert figures["cost_usd"]["value"] == pytest.approx(figures["time_s"]["value"] / 3600 * 0.8)
    assert figures["energy_j"] == {
        "value": None,
        "absent": "no run on this device was measured",
    }
    assert on_l4["score"]["value"] is None


def test_its_flops_are_those_that_the_worker_counts_for_its_documents(on_l4):
    of = profile(workload={"eval_size": 16})
    model = load_model(
        resolve_model(of.workload),
        ("0", "1"),
        task(),
        attn_implementation="eager",
    ).model
    document = example_flops(fit_flops(model, 128), 128)
    job = on_l4["job"]
    assert (job["steps"], job["documents"], job["evaluations"]) == (250, 2000, 3)
    assert job["flops"] == 2000 * document + 3 * 16 * document / 3


def test_a_run_directory_gives_what_its_runs_can_carry(smoke):
    data = said(
        "estimate", "smoke", "--runs", smoke.directory.path, "--train-size", "64",
        "--usd-per-hour", "0.1",
    )  # fmt: skip
    (here,) = data["devices"]
    figures = here["figures"]
    assert figures["tensors_bytes"]["interval"] == "exact"
    for figure in figures.values():
        assert figure["value"] is not None or figure["absent"]
    assert data["score"]["absent"]


# The roofline, against what is real


def best_rate(work, run, times=20):
    """What this machine does of some work in a second, when it is left alone: the best of many times."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return work / min(seconds)


@pytest.fixture(scope="module")
def rates():
    """The rates of this machine: a product of matrices, and a copy, which reads and writes."""
    size = 1024
    one, other = torch.ones(size, size), torch.ones(size, size)
    flops = best_rate(2 * size**3, lambda: one @ other)
    source, target = torch.ones(2**24), torch.empty(2**24)
    bandwidth = best_rate(2 * source.nbytes, lambda: target.copy_(source))
    return Rates("here", "fp32", flops, bandwidth)


def step_interval(work, rates):
    """The interval of one more step: what is done once a run is left out."""
    many, one = (
        job_seconds(Schedule(steps, steps * work.step.documents, 0, 0, 0, 0, 0), work, rates)
        for steps in (101, 1)
    )
    return (many.low - one.low) / 100, (many.high - one.high) / 100


def test_real_steps_lie_in_their_interval(smoke, rates):
    works = {}
    for record in smoke.records:
        cell, measured = record.cell, record.measurement
        shape = (cell.max_length, cell.per_device_train_batch_size)
        if shape not in works:
            works[shape] = count_work(cell, Target(device="cpu"), Batches.of(cell))
        low, high = step_interval(works[shape], rates)
        # Clocks differ from minute to minute; and other work on the machine has no upper bound.
        assert low / 1.1 <= measured.steps.median_s
        if not record.noisy:
            assert measured.steps.median_s <= high


@pytest.mark.parametrize("name", ["BERT_BASE_128", "DISTILBERT_512_FP16"])
def test_the_work_of_published_runs_is_what_is_counted(name):
    assert count(name) == getattr(published, name)
