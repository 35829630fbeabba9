"""What each method trains, on models so small that it can be counted by hand."""

import pytest
import torch
from transformers import set_seed

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.plan.profile import LoraSettings
from ftbench.plan.sources import resolve_model
from ftbench.worker.recipe.method import counts, head_modules, require_peft, with_method
from ftbench.worker.recipe.model import load_model
from tests.factories import profile, task

H, INNER, VOCABULARY, LABELS = 16, 24, 32, 3
CONFIGS = {
    "bert": {"hidden_size": H, "num_attention_heads": 2, "intermediate_size": INNER},
    "distilbert": {"dim": H, "n_heads": 2, "hidden_dim": INNER},
    "llama": {"hidden_size": H, "num_attention_heads": 2, "intermediate_size": INNER},
}
LAYERS = {"bert": "num_hidden_layers", "distilbert": "n_layers", "llama": "num_hidden_layers"}
# Weights of the linear modules of one layer: in and out of each.
LINEAR = [(H, H)] * 4 + [(H, INNER), (INNER, H)]
HEADS = {"bert": H * LABELS + LABELS, "distilbert": H * H + H + H * LABELS + LABELS}
POOLER = {"bert": [(H, H)], "distilbert": []}


def small(architecture, of=None):
    workload = {
        "model": f"architecture:{architecture}",
        "tokenizer": "offline:minilm-l6",
        "weights": "random",
        "config": {**CONFIGS[architecture], LAYERS[architecture]: 1, "vocab_size": VOCABULARY},
    }
    source = resolve_model(profile(workload=workload).workload)
    return load_model(source, ("a", "b", "c"), of or task(), attn_implementation="sdpa").model


def trained(model):
    return {name for name, one in model.named_parameters() if one.requires_grad}


def counted(model):
    return counts(list(model.parameters()))


@pytest.fixture(params=HEADS)
def architecture(request):
    return request.param


def test_full_fine_tuning_trains_all(architecture):
    model = with_method(small(architecture), "full", task())
    total, of_them = counted(model)
    assert total == of_them == sum(one.numel() for one in model.parameters())


def test_the_head_alone_is_what_is_new_in_the_model(architecture):
    model = with_method(small(architecture), "head", task())
    heads = {"bert": {"classifier"}, "distilbert": {"pre_classifier", "classifier"}}
    assert set(head_modules(model)) == heads[architecture]
    assert {name.partition(".")[0] for name in trained(model)} == heads[architecture]
    assert counted(model)[1] == HEADS[architecture]


def test_lora_trains_its_matrices_and_the_head(architecture):
    whole = counted(small(architecture))[0]
    model = with_method(small(architecture), "lora", task(), LoraSettings(r=4))
    matrices = sum(4 * (a + b) for a, b in LINEAR + POOLER[architecture])
    # peft keeps the head as it was beside the one that it trains.
    assert counted(model) == (
        whole + matrices + HEADS[architecture],
        matrices + HEADS[architecture],
    )
    assert not any("classifier" in name and "lora" in name for name in trained(model))


def test_lora_of_named_modules():
    of_two = LoraSettings(r=2, target_modules=("query", "value"))
    model = with_method(small("bert"), "lora", task(), of_two)
    assert counted(model)[1] == 2 * 2 * (H + H) + HEADS["bert"]


def test_modules_that_are_not_there_are_refused_with_those_that_are():
    with pytest.raises(WorkloadError) as caught:
        with_method(
            small("distilbert"),
            "lora",
            task(),
            LoraSettings(target_modules=("query",)),
        )
    assert caught.value.where == "lora.target_modules"
    assert "q_lin" in caught.value.expected


def test_lora_starts_from_the_model_itself_and_from_the_seed():
    ids = torch.arange(8)[None]
    drawn = []
    for seed in (1, 1, 2):
        set_seed(seed)
        model = small("bert").eval()
        before = model(ids).logits
        adapted = with_method(model, "lora", task()).eval()
        assert torch.equal(adapted(ids).logits, before)
        drawn.append(next(p for n, p in adapted.named_parameters() if "lora_A" in n))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_model_without_a_head_is_refused():
    with pytest.raises(WorkloadError, match="no head separate"):
        with_method(small("bert").bert, "head", task())


def test_lora_without_peft_names_what_to_install(monkeypatch):
    model = small("bert")
    require_peft(["lora"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_peft(["full", "head"])
    with pytest.raises(ProfileError, match="peft") as caught:
        with_method(model, "lora", task())
    assert "ftbench[peft]" in caught.value.hint


def test_lora_of_a_language_model_leaves_its_head_as_it_is():
    of = task("causal-lm")
    model = small("llama", of)
    adapted = with_method(model, "lora", of, LoraSettings(r=2))
    names = trained(adapted)
    assert names
    assert all("lora_" in name for name in names)
    assert not any("lm_head" in name for name in names)
    with pytest.raises(WorkloadError, match="no new head"):
        with_method(model, "head", of)
