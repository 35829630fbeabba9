"""What a prediction costs: tracing, grids of a thousand cells, also of several processes, one fitted cell."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import pytest

from tests.benchmarks import report

TRACE_CPU_S = 2.0
GRID_LIVE_S = 15.0
GRID_SIMULATED_S = 60.0
GRID_OF_RANKS_S = 120.0
LARGE_CPU_S = 15.0
LARGE_HOST_BYTES = 2 * 1024**3
LARGE_RANK_CPU_S = 60.0
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

# 12 batches, 14 lengths and 6 numbers of processes: 1,008 cells.
PROFILE_OF_RANKS = """
[workload]
{workload}
dataset = "offline:imdb"
eval_size = 64

[[grid]]
max_length = [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 448, 512]
per_device_train_batch_size = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
train_size = [256]
num_processes = [1, 2, 4, 8, 16, 32]

[parallel]
{parallel}
"""
CLASSIFIER = 'model = "offline:minilm-l6"'
LANGUAGE_MODEL = """
task = "causal-lm"
model = "architecture:llama"
weights = "random"
tokenizer = "offline:smollm2"
config = { num_hidden_layers = 4, hidden_size = 512, intermediate_size = 1376, num_attention_heads = 8 }
"""
DDP, FSDP2 = 'strategy = "ddp"', 'strategy = "fsdp2"'
# accelerate 1.15 shards BERT's embeddings twice, unless the other units are named.
FSDP2_OF_BERT = f'{FSDP2}\ntransformer_layer_cls_to_wrap = ["BertLayer"]'

# The shape of Llama 3.1 8B.
LARGE = """
[workload]
task = "causal-lm"
model = "architecture:llama"
weights = "random"
tokenizer = "offline:smollm2"
dataset = "synthetic:full-length"
eval_size = 8
config = {{ num_hidden_layers = 32, hidden_size = 4096, intermediate_size = 14336, num_attention_heads = 32, \
num_key_value_heads = 8, vocab_size = 128256 }}

[[grid]]
max_length = [4096]
per_device_train_batch_size = [1]
train_size = [64]
num_processes = [{processes}]

[parallel]
strategy = "fsdp2"

[training]
gradient_checkpointing = true
bf16 = true
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
    from ftbench.prediction.trace.tracer import trace

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
    from ftbench.prediction.shapes.fit import fit_events
    from ftbench.prediction.trace.tracer import trace

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


@pytest.mark.parametrize(
    ("workload", "parallel"),
    [
        pytest.param(CLASSIFIER, DDP, id="MiniLM, DDP"),
        pytest.param(CLASSIFIER, FSDP2_OF_BERT, id="MiniLM, FSDP2"),
        pytest.param(LANGUAGE_MODEL, DDP, id="Llama of 4 layers, DDP"),
        pytest.param(LANGUAGE_MODEL, FSDP2, id="Llama of 4 layers, FSDP2"),
    ],
)
def test_a_grid_of_a_thousand_cells_of_several_processes(tmp_path, request, workload, parallel):
    file = tmp_path / "ranks.toml"
    file.write_text(PROFILE_OF_RANKS.format(workload=workload, parallel=parallel))
    wall, cpu, _, answer = predicted(file)
    assert len(answer["cells"]) == 1008
    report.show(
        f"1,008 cells over batch, length and 1 to 32 processes, {request.node.callspec.id}: seconds, all in",
        {"wall": wall, "CPU": cpu, "bar of the wall": GRID_OF_RANKS_S},
    )
    assert wall <= GRID_OF_RANKS_S


@pytest.mark.parametrize(("processes", "bar"), [(1, LARGE_CPU_S), (8, LARGE_RANK_CPU_S)])
def test_a_model_of_8b_with_checkpointing(tmp_path, processes, bar):
    file = tmp_path / "large.toml"
    file.write_text(LARGE.format(processes=processes))
    _, cpu, host_bytes, answer = predicted(file)
    assert len(answer["cells"]) == 1
    report.show(
        f"a model of 8 B, length 4,096, checkpointing, {processes} processes: CPU seconds, all in, and host memory",
        {"CPU": cpu, "bar": bar, "host bytes": host_bytes, "bar of bytes": LARGE_HOST_BYTES},
    )
    assert cpu <= bar
    assert host_bytes <= LARGE_HOST_BYTES


def predicted(profile):
    """Return the wall and CPU seconds of a prediction, the most resident memory of a process so far, the answer."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ftbench", "predict", str(profile), "--json"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss * 1024, json.loads(done.stdout)
