"""Classifiers that ask for data: exact on the CPU, and predicted on a card without a refusal."""

import pytest

from ftbench.plan.gpus import find_gpu
from ftbench.predict.predict_cells import predict
from tests.architectures.configs import TYPES, small_config
from tests.architectures.judge import AGREES, REFUSED, cell_of, judge

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


def test_what_is_judged_is_every_sequence_classifier():
    assert len(TYPES) >= 127
    assert set(ASKING) < set(TYPES)
