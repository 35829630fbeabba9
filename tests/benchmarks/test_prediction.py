"""What a prediction costs: tracing, a grid of a thousand cells, one fitted cell."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

import pytest

from tests.benchmarks import report

TRACE_CPU_S = 2.0
GRID_LIVE_S = 15.0
GRID_SIMULATED_S = 60.0
FITTED_CELL_S = 100e-6
REPEATS = 5

PROFILE = """
[workload]
model = "architecture:distilbert"
weights = "random"
tokenizer = "offline:minilm-l6"
dataset = "offline:imdb"
eval_size = 100

[[grid]]
max_length = [{lengths}]
per_device_train_batch_size = [{batches}]
train_size = [1000]
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    lengths = ", ".join(str(length) for length in range(48, 448, 16))
    batches = ", ".join(str(batch) for batch in range(2, 82, 2))
    file = tmp_path_factory.mktemp("profiles") / "thousand.toml"
    file.write_text(PROFILE.format(lengths=lengths, batches=batches))
    return file


def distilbert(batch: int, length: int):
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    def factory(device):
        config = DistilBertConfig(attn_implementation="sdpa")
        model = DistilBertForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        model.to(device)

        def step():
            tokens = torch.ones((batch, length), dtype=torch.long, device=device)
            labels = torch.zeros((batch,), dtype=torch.long, device=device)
            loss = model(input_ids=tokens, attention_mask=tokens, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return loss

        return step

    return factory


def test_a_trace_of_three_steps():
    from ftbench.predict.trace.tracer import trace

    def once() -> float:
        began = time.process_time()
        trace(distilbert(8, 128))
        return time.process_time() - began

    first = once()
    seconds = [once() for _ in range(REPEATS)]
    report.show(
        "DistilBERT (8, 128), three steps traced: CPU seconds after imports",
        {"first": first, "median": statistics.median(seconds), "bar": TRACE_CPU_S},
    )
    assert statistics.median(seconds) <= TRACE_CPU_S


def test_a_fitted_cell():
    from ftbench.predict.shapes.fit import fit_events
    from ftbench.predict.trace.tracer import trace

    shapes = [(3, 40), (5, 72), (7, 200), (2, 136), (4, 328)]
    fitted = fit_events({shape: trace(distilbert(*shape)) for shape in shapes})
    fitted.peak_bytes(8, 128)
    began = time.perf_counter()
    for length in range(16, 1016):
        fitted.peak_bytes(8, length)
    each = (time.perf_counter() - began) / 1000
    report.show(
        "the live peak of a fitted cell: microseconds",
        {"mean": each * 1e6, "bar": FITTED_CELL_S * 1e6},
    )
    assert each <= FITTED_CELL_S


@pytest.mark.parametrize(("gpus", "bar"), [((), GRID_LIVE_S), (("a100-40gb",), GRID_SIMULATED_S)])
def test_a_grid_of_a_thousand_cells(grid, gpus, bar):
    options = [option for gpu in gpus for option in ("--gpu", gpu)]
    command = [sys.executable, "-m", "ftbench", "predict", str(grid), *options, "--json"]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    answer = json.loads(done.stdout)
    assert len(answer["cells"]) == 1000
    what = "simulated, with intervals and the largest batch of 25 lengths" if gpus else "live peaks"
    report.show(f"a thousand cells, {what}: seconds, all in", {"wall": seconds, "bar": bar})
    assert seconds <= bar
