"""Padding-free rows: which models keep the examples of one apart."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from ftbench.base.errors import ProfileError
from ftbench.worker.recipe.packing import flattening_collator, refuse_cache, require_apart
from tests.factories import cell

SMALL = {
    "llama": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4},
    "gpt2": {"n_embd": 32, "n_head": 4},
    "bloom": {"hidden_size": 32, "n_head": 4},
    "mamba": {"hidden_size": 32},
}


def small(name, attention="eager"):
    config = AutoConfig.for_model(name, vocab_size=32, num_hidden_layers=2, **SMALL[name])
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, token, 0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decoders_whose_masks_come_from_positions_are_accepted(name, attention):
    model = small(name, attention).train()
    require_apart(model, name)
    assert model.training


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_models_without_positions_are_refused(name):
    with pytest.raises(ProfileError) as caught:
        require_apart(small(name), name)
    assert caught.value.where == "grid.packing"


def test_a_row_has_every_example_with_its_own_positions_and_no_label_at_its_start():
    rows = [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8, 9], "labels": [8, 9]}]
    batch = flattening_collator()(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9]]
    assert "attention_mask" not in batch


def test_a_cache_is_refused_with_padding_free_rows():
    of = cell().model_copy(update={"packing": "padding-free"})
    refuse_cache(of)
    refuse_cache(cell().with_settings(use_cache=True))
    with pytest.raises(ProfileError) as caught:
        refuse_cache(of.with_settings(use_cache=True))
    assert caught.value.where == "training.use_cache"
