import json
import os

import pytest
import torch
from transformers import BertConfig, GPT2Config, RobertaConfig, set_seed

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import resolve_model
from ftbench.worker.recipe.model import length_limit, load_config, load_model
from ftbench.worker.recipe.tokenizer import load_tokenizer
from tests.factories import profile, task

SMALL = {
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def source(**changes):
    return resolve_model(profile(workload=changes).workload)


def test_the_packaged_model_is_real():
    model = load_model(source(), ("neg", "pos"), task(), attn_implementation="sdpa").model
    assert model.num_parameters() == pytest.approx(22.71e6, rel=1e-3)
    assert model.dtype == torch.float32
    assert model.config.id2label == {0: "neg", 1: "pos"}


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_another_type(weights, dtype):
    """All of them, the new head's as well, and the same values but for rounding."""
    drawn = []
    for wanted in ("float32", dtype):
        set_seed(0)
        drawn.append(
            load_model(
                source(weights=weights, config=SMALL if weights == "random" else {}),
                ("a", "b"),
                task(),
                attn_implementation="sdpa",
                dtype=wanted,
            ).model
        )
    half = drawn[1]
    assert {p.dtype for p in half.parameters()} == {getattr(torch, dtype)}
    if weights == "pretrained":
        words = [model.base_model.embeddings.word_embeddings.weight for model in drawn]
        assert torch.equal(words[0].to(words[1].dtype), words[1])


def test_the_head_is_drawn_from_the_seed():
    heads = []
    for seed in (1, 1, 2):
        set_seed(seed)
        heads.append(
            load_model(
                source(), ("a", "b"), task(), attn_implementation="sdpa"
            ).model.classifier.weight
        )
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_random_weights_and_overrides_of_the_config():
    small = source(weights="random", config=SMALL)
    set_seed(0)
    first = load_model(small, ("a", "b", "c"), task(), attn_implementation="eager").model
    assert first.config.hidden_size == 16
    assert first.config._attn_implementation == "eager"
    assert first.classifier.out_features == 3


def test_an_architecture_by_name():
    named = source(
        model="architecture:distilbert",
        weights="random",
        tokenizer="offline:minilm-l6",
        config={"n_layers": 1},
    )
    model = load_model(named, ("a", "b"), task(), attn_implementation="sdpa").model
    assert model.config.model_type == "distilbert"
    assert model.config.n_layers == 1


def test_a_config_file_alone(tmp_path):
    BertConfig(**SMALL).to_json_file(tmp_path / "config.json")
    alone = source(
        model=str(tmp_path / "config.json"), weights="random", tokenizer="offline:minilm-l6"
    )
    assert load_config(alone, ("a", "b"), task()).hidden_size == 16


def test_a_directory_that_holds_no_model(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    empty = source(model=str(tmp_path))
    with pytest.raises(WorkloadError, match=r"workload.model"):
        load_config(empty, ("a", "b"), task())
    with pytest.raises(WorkloadError, match=r"workload.model"):
        load_model(empty, ("a", "b"), task(), attn_implementation="sdpa")
    with pytest.raises(WorkloadError, match="no tokenizer"):
        load_tokenizer(empty)


def test_pickled_weights_are_not_read(tmp_path):
    small = source(weights="random", config=SMALL)
    model = load_model(small, ("a", "b"), task(), attn_implementation="sdpa").model
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    pickled = source(model=str(tmp_path), tokenizer="offline:minilm-l6")
    with pytest.raises(WorkloadError, match="cannot be loaded"):
        load_model(pickled, ("a", "b"), task(), attn_implementation="sdpa")
    asked_for = pickled.model_copy(update={"weights_format": "any"})
    loaded = load_model(asked_for, ("a", "b"), task(), attn_implementation="sdpa").model
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(loaded.state_dict()[name], model.state_dict()[name])


class Payload:
    """What a pickle that does harm looks like: it runs a command when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


def test_a_pickle_that_runs_code_runs_none_even_where_pickles_are_read(tmp_path):
    small = source(weights="random", config=SMALL)
    load_model(small, ("a", "b"), task(), attn_implementation="sdpa").model.config.save_pretrained(
        tmp_path
    )
    torch.save({"x": Payload(tmp_path / "harm")}, tmp_path / "pytorch_model.bin")
    asked_for = source(model=str(tmp_path), tokenizer="offline:minilm-l6", weights_format="any")
    with pytest.raises(WorkloadError, match="cannot be loaded"):
        load_model(asked_for, ("a", "b"), task(), attn_implementation="sdpa")
    assert not (tmp_path / "harm").exists()


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    auto = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"}
    config = {"model_type": "evil", "auto_map": auto}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkloadError):
        load_config(
            source(model=str(tmp_path), tokenizer="offline:minilm-l6"),
            ("a", "b"),
            task(),
        )
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (BertConfig(max_position_embeddings=256), 256),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (GPT2Config(n_positions=128), 128),
    ],
)
def test_length_limit(config, limit):
    assert length_limit(config, load_tokenizer(source()), own_tokenizer=False) == limit


def test_the_tokenizers_own_limit_counts():
    config = BertConfig(max_position_embeddings=2048)
    assert length_limit(config, load_tokenizer(source()), own_tokenizer=True) == 512


@pytest.mark.parametrize(
    ("config", "what"),
    [({"num_hidden_layer": 2}, "unknown key"), ({"num_labels": 5}, "follows from the data")],
)
def test_overrides_of_the_config_that_mean_nothing(config, what):
    with pytest.raises(WorkloadError, match=what) as caught:
        load_config(source(weights="random", config=config), ("a", "b"), task())
    if what == "unknown key":
        assert caught.value.nearest == "num_hidden_layers"
