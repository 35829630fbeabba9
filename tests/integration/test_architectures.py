"""Models that ask for data: exact on the CPU, and predicted on a card or refused by an error of ours."""

import pytest

from ftbench.plan.gpus import find_gpu
from ftbench.prediction.predict_cells import predict
from tests.architectures.configs import TYPES, small_config
from tests.architectures.judge import AGREES, REFUSED, cell_of, judge
from tests.integration.conftest import some_long

pytestmark = pytest.mark.integration

# End-of-sequence counts (BART, T5), labels (DeBERTa-v2), padding to a window (Longformer), routed tokens (Mixtral).
ASKING = ("deberta-v2", "bart", "t5", "longformer", "mixtral")


@pytest.mark.parametrize("model_type", ASKING)
def test_it_agrees_with_the_cpu_allocator(model_type):
    judgement = judge(model_type)
    assert judgement.outcome == AGREES, judgement.line()


@pytest.mark.parametrize("model_type", ASKING)
def test_it_is_predicted_on_a_card(model_type, tmp_path):
    small_config(model_type).save_pretrained(tmp_path)
    cell = cell_of(tmp_path)
    # Older cards have no product per expert: their experts are taken one at a time, by the router's choices.
    found = predict([cell], [find_gpu("l4" if model_type == "mixtral" else "t4")])
    assert not found.refused
    assert found.cells[0].cards[0].verdict == "fits"


@pytest.mark.parametrize("model_type", ["layoutlmv2", "tapas"])
def test_a_model_that_needs_more_than_text_is_refused_by_name(model_type):
    judgement = judge(model_type)
    assert judgement.outcome == REFUSED
    assert "WorkloadError" in judgement.detail


# Experts, state spaces, keys chosen by an indexer, an encoder alone, masks for media.
DECODERS = ("mixtral", "mamba2", "deepseek_v32", "bert", "gemma3_text", "bamba", "xlnet")
TRANSLATORS = ("t5", "longt5", "prophetnet", "led")
OF_TOKENS = [
    *(("causal-lm", name) for name in DECODERS),
    *(("seq2seq-lm", name) for name in TRANSLATORS),
]


@pytest.mark.parametrize(("task", "model_type"), some_long(OF_TOKENS, every=4))
def test_a_language_model_agrees_with_the_cpu_allocator(task, model_type):
    judgement = judge(model_type, task)
    assert judgement.outcome == AGREES, judgement.line()


# Its routed tokens are chosen by computed values; of git, texts alone have no loss.
@pytest.mark.parametrize(
    ("model_type", "where"),
    [
        ("jetmoe", "aten._local_scalar_dense"),
        ("longcat_flash", "aten.nonzero"),
        ("git", "loss_utils.py"),
    ],
)
def test_a_language_model_that_cannot_be_traced_is_refused_with_the_place(model_type, where):
    judgement = judge(model_type, "causal-lm")
    assert judgement.outcome == REFUSED, judgement.line()
    assert "PredictionError" in judgement.detail
    assert where in judgement.detail


def test_what_is_judged_is_every_type_that_transformers_has_for_a_task():
    counts = {task: len(types) for task, types in TYPES.items()}
    assert counts["text-classification"] >= 127
    assert counts["causal-lm"] >= 189
    assert counts["seq2seq-lm"] >= 37
    assert set(ASKING) < set(TYPES["text-classification"])
