"""The per-event fit: the same as a trace to the byte, event by event, in cells it never saw.

Five traces a workload, then six other cells of each: the Trainer's own, of a card's memory. With one
layer, since a second one repeats the first (two are in the unit tests).
"""

import pytest

from ftbench.prediction.shapes.fit import fit_events
from ftbench.prediction.trace.trace_trainer import trace_trainer
from ftbench.prediction.trace.tracer import Target
from tests.integration.conftest import some_long
from tests.traced import traced_cell

pytestmark = pytest.mark.integration

FITTED = [(3, 40), (5, 80), (7, 200), (2, 136), (4, 320)]
# Beyond what was fitted in every direction, and lengths in all places of a tile of 32.
ALIGNED = [(2, 16), (6, 96), (9, 72), (33, 64), (48, 248), (64, 512)]
# Eager attention pads no mask: any length will do.
ANY = [(2, 2), (6, 97), (11, 75), (33, 64), (48, 255), (64, 512)]
ONE_LAYER = {
    "bert": {"num_hidden_layers": 1},
    "distilbert": {"n_layers": 1},
    "bart": {"encoder_layers": 1, "decoder_layers": 1},
    "gpt2": {"n_layer": 1},
    "t5": {"num_layers": 1},
    "llama": {"num_hidden_layers": 1},
}
LANGUAGE = {"task": "causal-lm"}
WORKLOADS = {
    "bert, eager": ("bert", "eager", {}),
    "bert, sdpa": ("bert", "sdpa", {}),
    "bert, eager, checkpointing": ("bert", "eager", {"gradient_checkpointing": True}),
    "bert, sdpa, accumulation": (
        "bert",
        "sdpa",
        {"gradient_accumulation_steps": 2, "optim": "adafactor"},
    ),
    "distilbert, eager, bf16": ("distilbert", "eager", {"bf16": True, "optim": "adamw_torch"}),
    "distilbert, sdpa, bf16": ("distilbert", "sdpa", {"bf16": True}),
    "distilbert, sdpa, fp16, checkpointing": (
        "distilbert",
        "sdpa",
        {"fp16": True, "gradient_checkpointing": True, "optim": "sgd"},
    ),
    "llama, causal-lm": ("llama", "sdpa", LANGUAGE),
    "gpt2, causal-lm, bf16": ("gpt2", "sdpa", LANGUAGE | {"bf16": True}),
    "llama, concatenated": (
        "llama",
        "sdpa",
        LANGUAGE | {"packing": "concatenate", "gradient_checkpointing": True},
    ),
    "bert, masked-lm": ("bert", "sdpa", {"task": "masked-lm", "optim": "adamw_torch"}),
    "t5, seq2seq-lm": ("t5", "eager", {"task": "seq2seq-lm"}),
    "bart, seq2seq-lm, bf16": ("bart", "sdpa", {"task": "seq2seq-lm", "bf16": True}),
    "distilbert, token-classification": ("distilbert", "sdpa", {"task": "token-classification"}),
    "llama, padding-free": ("llama", "sdpa", LANGUAGE | {"packing": "padding-free"}),
    "gpt2, padding-free, lora, bf16": (
        "gpt2",
        "sdpa",
        LANGUAGE | {"packing": "padding-free", "method": "lora", "bf16": True},
    ),
}


def held_out(attention):
    return ANY if attention == "eager" else ALIGNED


def traced(workload, shape):
    model, attention, settings = WORKLOADS[workload]
    batch, length = shape
    cell = traced_cell(
        model, attention, batch=batch, length=length, config=ONE_LAYER[model], **settings
    )
    # Fused attention with a mask would take the memory-efficient kernel, without one flash attention
    # in half precision: both are there.
    target = Target(padding="bf16" not in settings)
    return trace_trainer(cell, target, steps=2)


def test_there_are_enough_cells():
    cells = [shape for _, attention, _ in WORKLOADS.values() for shape in held_out(attention)]
    assert len(cells) >= 40
    assert not set(cells) & set(FITTED)


@pytest.mark.parametrize("workload", some_long(WORKLOADS, every=5))
def test_events_are_those_of_a_trace(workload):
    one_row = WORKLOADS[workload][2].get("packing") == "padding-free"
    fitted = fit_events({shape: traced(workload, shape) for shape in FITTED}, one_row=one_row)
    for shape in held_out(WORKLOADS[workload][1]):
        found, expected = fitted.at(*shape), traced(workload, shape)
        assert found.same_events(expected), shape
        assert found.nbytes.tolist() == expected.nbytes.tolist(), shape
        assert found.kernels == expected.kernels, shape
        assert fitted.peak_bytes(*shape) == expected.peak_bytes, shape
