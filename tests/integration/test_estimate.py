"""Estimates for real: the command line, the offline model, real traces, and a real run to compare with."""

import json
import time

import numpy as np
import pytest

from bench.analysis.roofline import Job, Rates, job_seconds
from bench.grid import expand
from bench.predict.tracer import Target
from bench.predict.trainer import Batches
from bench.predict.work import count_work
from bench.worker.flops import fit_flops
from bench.worker.model import load_model
from bench.worker.steps import document_flops
from bench.workload import resolve_model
from tests import published_fine_tunes as published
from tests.factories import data_source, profile
from tests.integration.conftest import ftbench

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
    assert figures["time_s"]["source"].startswith("roofline, not measured")
    assert figures["cost_usd"]["value"] == pytest.approx(figures["time_s"]["value"] / 3600 * 0.8)
    assert figures["energy_j"] == {
        "value": None,
        "absent": "no run on this device was measured",
    }
    assert on_l4["accuracy"]["value"] is None


def test_its_flops_are_those_that_the_worker_counts_for_its_documents(on_l4):
    of = profile(workload={"eval_size": 16})
    model = load_model(resolve_model(of.workload), ("0", "1"), attn_implementation="eager")
    document = document_flops(fit_flops(model, 128), 128)
    job = on_l4["job"]
    assert (job["steps"], job["documents"], job["evaluations"]) == (250, 2000, 3)
    assert job["flops"] == 2000 * document + 3 * 16 * document / 3


def test_a_run_directory_gives_what_its_runs_can_carry(smoke):
    data = said(
        "estimate", "smoke", "--measured", smoke.directory.path, "--train-size", "64",
        "--usd-per-hour", "0.1",
    )  # fmt: skip
    (here,) = data["devices"]
    figures = here["figures"]
    assert figures["tensors_bytes"]["interval"] == "exact"
    for figure in figures.values():
        assert figure["value"] is not None or figure["absent"]
    assert data["accuracy"]["absent"]


# The roofline, against what is real


def copied_bytes_per_s():
    """What this machine's memory moves: a copy reads and writes."""
    source = np.ones(2**24)
    target = np.empty_like(source)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - began)
    return 2 * source.nbytes / min(seconds)


def test_a_real_step_lies_in_its_interval(smoke):
    rates = None
    for record in smoke.records:
        measured = record.measurement
        if measured.steps is None or measured.peak_matmul_flops is None:
            continue
        bandwidth = copied_bytes_per_s()
        rates = Rates("here", "fp32", measured.peak_matmul_flops, bandwidth)
        cell = record.cell
        work = count_work(cell, Target(device="cpu"), Batches.of(cell))
        # What was done once is left out, and all but one step's work.
        step = Job(1, work.step.documents, 0, 0, 0, 0)
        found = job_seconds(step, work, rates)
        assert found.low / 1.5 <= measured.steps.median_s <= found.high
    assert rates is not None


@pytest.mark.parametrize(
    ("expected", "model", "batch", "length", "config", "training"),
    [
        (published.BERT_BASE_128, "bert", 32, 128, {"vocab_size": 28996}, {}),
        (published.DISTILBERT_512_FP16, "distilbert", 12, 512, {}, {"fp16": True}),
    ],
    ids=["bert", "distilbert, fp16"],
)
def test_the_work_of_published_runs_is_what_is_counted(
    expected, model, batch, length, config, training
):
    of = profile(
        workload={
            "model": f"architecture:{model}",
            "tokenizer": "offline:minilm-l6",
            "weights": "random",
            "config": config,
        },
        grid=[
            {
                "max_length": [length],
                "per_device_train_batch_size": [batch],
                "train_size": [1000],
            }
        ],
        training=training,
        attn_implementation="eager",
    )
    (cell,) = expand(of, resolve_model(of.workload), data_source(eval_size=16)).cells
    assert count_work(cell, Target(), Batches.of(cell)) == expected
