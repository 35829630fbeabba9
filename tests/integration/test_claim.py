"""The claim about memory on real traces of a small model: what the page's headlines say holds to the byte."""

import pytest

from ftbench.plan.grid import expand
from ftbench.plan.sources import resolve_model
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.predict_cells import predict
from ftbench.records.prediction import PredictRequest
from studies.memory_claim.growth import (
    BYTES_PER_PARAMETER,
    FLOAT32_BYTES,
    doublings,
    law_at_end,
    parameters_of,
    peak_of,
)
from tests.factories import data_source, profile
from tests.traced import LAYERS, VOCABULARY, traced_cell

BATCH, HEADS, WIDTH = 8, 2, 256
LENGTHS = (64, 128, 192, 256)
CONFIG = {"n_heads": HEADS, "dim": WIDTH, "hidden_dim": 4 * WIDTH}
SAVED = 4 + 4 + 1  # bytes a score: the softmax's output, dropout's, and its mask
TENSORS = 2 + 2 + 16 * LAYERS + 2 + 2  # of parameters: embeddings, their norm, layers, two heads

# Tokens whose numbers have to be in the vocabulary.
SPECIAL = [f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep")]


def small_cells(attention, **training):
    return [
        traced_cell("distilbert", attention, batch=BATCH, length=length, config=CONFIG, **training)
        for length in LENGTHS
    ]


def local_cells(*lengths):
    """ModernBERT's shape, small: one layer that attends to all tokens, and two to 16 around each."""
    config = {
        "num_hidden_layers": 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 1,
        "local_attention": 16,
        "vocab_size": VOCABULARY,
        **dict.fromkeys(SPECIAL, 0),
    }
    workload = {
        "model": "architecture:modernbert",
        "tokenizer": "offline:minilm-l6",
        "weights": "random",
        "config": config,
    }
    axes = {
        "max_length": list(lengths),
        "per_device_train_batch_size": [BATCH],
        "train_size": [16 * BATCH],
    }
    of = profile(workload=workload, grid=[axes], attn_implementation="sdpa")
    return expand(of, resolve_model(of.workload), data_source(eval_size=16)).cells


def peaks(cells, *, full_batches=False):
    sequence_lengths = (
        SequenceLengths(lengths=(max(LENGTHS),)) if full_batches else SequenceLengths()
    )
    request = PredictRequest(cells=tuple(cells), explain=True)
    answer = predict(cells, sequence_lengths=sequence_lengths, request=request)
    assert not answer.refused
    return [peak_of(*pair) for pair in zip(cells, answer.cells, strict=True)]


@pytest.fixture(scope="module")
def eager():
    return peaks(small_cells("eager"))


@pytest.fixture(scope="module")
def padded():
    return peaks(small_cells("sdpa"))


@pytest.fixture(scope="module")
def full():
    return peaks(small_cells("sdpa"), full_batches=True)


def test_eager_attention_keeps_nine_bytes_a_score_in_every_head_and_layer(eager):
    law = law_at_end(eager)
    assert law.square == BATCH * LAYERS * HEADS * SAVED
    assert law.checked == len(LENGTHS) - 3


def test_fused_attention_in_full_batches_is_linear(full):
    law = law_at_end(full)
    assert law.square == 0
    assert all(one.total <= 1 for one in doublings(full))


def test_a_mask_makes_fused_attention_quadratic_four_bytes_a_layer(padded, full):
    law = law_at_end(padded)
    assert law.square == BATCH * LAYERS * FLOAT32_BYTES
    assert law.linear >= law_at_end(full).linear


def test_layers_that_attend_locally_keep_a_mask_even_in_full_batches():
    padded = peaks(local_cells(256, 320, 384, 448))
    full = peaks(local_cells(64, 128, 192, 256), full_batches=True)
    kept = [law_at_end(of).square / (BATCH * FLOAT32_BYTES) for of in (padded, full)]
    assert [int(layers) for layers in kept] == [3, 2]  # what is over are truths, a byte each


def test_eager_attention_grows_faster_with_every_doubling_and_fused_does_not(eager, full):
    powers = [one.other for one in doublings(eager)]
    assert powers == sorted(powers)
    assert powers[-1] > 1.1
    assert all(one.other <= 1.05 for one in doublings(full))


def test_state_is_sixteen_bytes_a_parameter_to_the_byte():
    (floor,) = peaks([traced_cell("distilbert", "sdpa", batch=2, length=16, config=CONFIG)])
    embeddings = (VOCABULARY + 512) * WIDTH
    layer = 4 * (WIDTH**2 + WIDTH) + 2 * 4 * WIDTH**2 + 4 * WIDTH + WIDTH + 2 * 2 * WIDTH
    head = WIDTH**2 + WIDTH + 2 * WIDTH + 2
    parameters = embeddings + 2 * WIDTH + LAYERS * layer + head
    assert parameters_of(floor) == parameters
    assert floor.gradients_bytes == FLOAT32_BYTES * parameters
    counters, positions = 4 * TENSORS, 8 * 512
    assert floor.state_bytes == BYTES_PER_PARAMETER * parameters + counters + positions
