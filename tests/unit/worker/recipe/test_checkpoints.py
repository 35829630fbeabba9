"""Checkpoints that fit their config, and those that do not, made small and saved for real."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    Qwen2AudioConfig,
    T5Config,
    ViTConfig,
    VoxtralRealtimeConfig,
)

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.plan.sources import resolve_model
from ftbench.worker.recipe.model import attention_for, load_model, model_class, require_room
from ftbench.worker.recipe.model_files import require_model_files
from tests.architectures.configs import small_config
from tests.factories import profile, task

TASK = task()
SIZES = {
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def source(folder, **changes):
    named = {"model": str(folder), "tokenizer": "offline:minilm-l6"} | changes
    return resolve_model(profile(workload=named).workload)


@pytest.fixture
def saved(tmp_path):
    """Return the folder of a small BERT without a head, as `save_pretrained` writes it."""
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def loaded(folder, labels=("a", "b"), attention="sdpa", **changes):
    return load_model(source(folder, **changes), labels, TASK, attn_implementation=attention)


def test_a_body_without_a_head_gets_a_new_head_alone(saved):
    found = loaded(saved)
    assert found.checkpoint.new == ("classifier.bias", "classifier.weight")
    assert found.checkpoint.new_parameters == 2 * 16 + 2
    assert found.checkpoint.loaded_parameters == found.model.num_parameters() - 34
    assert (found.checkpoint.new_in_body, found.checkpoint.unused) == (0, 0)


def test_weights_of_another_architecture_are_refused_with_their_count(saved):
    other = DistilBertModel(DistilBertConfig(vocab_size=100, dim=16, n_layers=2, n_heads=2))
    other.save_pretrained(saved.parent / "other")
    shutil.copy(saved.parent / "other" / "model.safetensors", saved)
    with pytest.raises(WorkloadError) as caught:
        loaded(saved)
    # Of 41, two are the head's; three of the embeddings have the same names in both architectures.
    assert caught.value.what.startswith("36 of 41 parameters")
    assert "bert.e" in caught.value.got
    assert "missing_weights" in caught.value.hint


def test_a_missing_layer_is_refused_or_accepted_by_name(saved):
    tensors = load_file(saved / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.1." not in name}
    save_file(kept, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WorkloadError, match="16 of 41 parameters"):
        loaded(saved)
    accepted = loaded(saved, missing_weights="random").checkpoint
    assert accepted.new_in_body == 16
    assert len(accepted.new) == 18


def test_a_body_of_another_shape_is_refused(saved):
    config = json.loads((saved / "config.json").read_text()) | {"intermediate_size": 48}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkloadError, match="outside the new head"):
        loaded(saved)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [(5, None), (1, "regression"), (3, "multi_label_classification")],
)
def test_a_head_of_another_number_of_labels_is_made_anew(tmp_path, labels, problem):
    config = BertConfig(**SIZES, num_labels=labels, problem_type=problem)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    found = loaded(tmp_path)
    assert found.model.classifier.out_features == 2
    assert found.model.config.problem_type == "single_label_classification"
    assert found.checkpoint.reshaped == ("classifier.bias", "classifier.weight")
    assert found.checkpoint.new == found.checkpoint.reshaped


def test_a_head_that_fits_is_kept_and_its_problem_is_the_task_s(tmp_path):
    config = BertConfig(**SIZES, num_labels=2, problem_type="multi_label_classification")
    made = BertForSequenceClassification(config)
    made.save_pretrained(tmp_path)
    found = loaded(tmp_path)
    assert found.checkpoint.new == ()
    assert torch.equal(found.model.classifier.weight, made.classifier.weight)
    tokens = torch.ones(2, 4, dtype=torch.int64)
    assert found.model(tokens, labels=torch.tensor([0, 1])).loss.isfinite()


def test_random_weights_came_from_no_checkpoint(saved):
    assert loaded(saved, weights="random").checkpoint is None


# Attention


@pytest.mark.parametrize(
    ("config", "asked", "used"),
    [
        (BertConfig(**SIZES), "sdpa", "sdpa"),
        (BertConfig(**SIZES), "eager", "eager"),
        (DebertaV2Config(), "sdpa", "eager"),
    ],
)
def test_the_best_attention_that_a_model_has(config, asked, used):
    assert attention_for(config, TASK, asked) == used


def test_an_attention_that_was_named_is_refused_if_the_model_lacks_it():
    with pytest.raises(ProfileError) as caught:
        attention_for(DebertaV2Config(), TASK, "flash_attention_2")
    assert caught.value.expected == "one of eager"
    with pytest.raises(ProfileError) as caught:
        attention_for(GPT2Config(), TASK, "flex_attention")
    assert "sdpa" in caught.value.expected


def test_an_architecture_that_reads_no_text():
    with pytest.raises(WorkloadError, match="no model for text-classification"):
        model_class(ViTConfig(), TASK)


SEQ2SEQ = task("seq2seq-lm", completion_column="target", max_target_length=8)


@pytest.mark.parametrize(
    ("config", "of", "made"),
    [
        (Qwen2AudioConfig(), task("causal-lm"), "Qwen2AudioForConditionalGeneration"),
        (GPT2Config(), task("causal-lm"), "GPT2LMHeadModel"),
        (T5Config(), SEQ2SEQ, "T5ForConditionalGeneration"),
    ],
)
def test_a_decoder_that_transformers_lists_beside_encoder_decoders(config, of, made):
    assert model_class(config, of).__name__ == made


@pytest.mark.parametrize(
    ("config", "of", "where"),
    [
        (Qwen2AudioConfig(), SEQ2SEQ, "workload.task"),
        (VoxtralRealtimeConfig(), SEQ2SEQ, "workload.model"),
        (VoxtralRealtimeConfig(), task("causal-lm"), "workload.model"),
        (T5Config(), task("causal-lm"), "workload.model"),
    ],
)
def test_a_model_of_another_task(config, of, where):
    with pytest.raises(WorkloadError) as caught:
        model_class(config, of)
    assert caught.value.where == where


def test_a_part_of_a_model_without_the_attention_of_the_others(tmp_path):
    small_config("vibevoice_asr", "causal-lm").save_pretrained(tmp_path)
    of = source(tmp_path, weights="random", task="causal-lm")
    made = load_model(of, (), task("causal-lm"), attn_implementation="sdpa").model
    text, speech = made.config.text_config, made.config.acoustic_tokenizer_encoder_config
    assert (text._attn_implementation, speech._attn_implementation) == ("sdpa", "eager")


# Sizes


@pytest.mark.parametrize(
    "absurd",
    [{"vocab_size": 10**12}, {"num_hidden_layers": 10**9}, {"hidden_size": 2**24}],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(saved, absurd):
    config = json.loads((saved / "config.json").read_text()) | absurd
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkloadError, match=r"workload\.model"):
        require_room(source(saved), ("a", "b"), TASK)


# Files


def require(folder, **changes):
    require_model_files(source(folder, **changes))


def test_whole_files_pass(saved):
    require(saved)
    require(saved, weights="random")


def test_a_pointer_of_git_lfs_is_named_with_its_file(saved):
    (saved / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
    )
    with pytest.raises(WorkloadError, match="Git LFS") as caught:
        require(saved)
    assert caught.value.where == str(saved / "model.safetensors")


@pytest.mark.parametrize("left", [4, 100, -1])
def test_weights_that_were_cut_off_are_named_with_their_file(saved, left):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(WorkloadError) as caught:
        require(saved)
    assert caught.value.where == str(file)
    if left == -1:
        assert "cut off" in caught.value.what


@pytest.mark.parametrize(
    "header",
    [b"[]", b'{"a": 1}', b'{"a": {"data_offsets": "x"}}', b'{"a": {"data_offsets": [0, 10e300]}}'],
)
def test_a_header_that_lies_is_refused(saved, header):
    file = saved / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WorkloadError) as caught:
        require(saved)
    assert caught.value.where == str(file)


def test_a_header_longer_than_any(saved):
    file = saved / "model.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(WorkloadError, match="not a safetensors file"):
        require(saved)


def test_a_missing_shard_is_named(saved):
    BertModel(BertConfig(**SIZES)).save_pretrained(saved / "parts", max_shard_size="4KB")
    shutil.copy(saved / "config.json", saved / "parts")
    lost = sorted((saved / "parts").glob("model-*"))[1]
    lost.unlink()
    with pytest.raises(WorkloadError, match="are missing") as caught:
        require(saved / "parts")
    assert caught.value.got == lost.name


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "outside of the model's directory"),
        ({"weight_map": {"a": "/etc/hostname"}}, "outside of the model's directory"),
        ({"weight_map": {"a": ".."}}, "outside of the model's directory"),
        ({"weight_map": {}}, "names no files"),
        ({"weight_map": []}, "names no files"),
        ([], "names no files"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(saved, index, said):
    (saved / "model.safetensors").rename(saved.parent / "model.safetensors")
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WorkloadError, match=said):
        require(saved)


def test_pickled_weights_name_the_setting_that_allows_them(saved):
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(WorkloadError) as caught:
        require(saved)
    assert 'weights_format = "any"' in caught.value.hint
    require(saved, weights_format="any")


def test_no_weights_at_all(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(WorkloadError, match="no weights"):
        require(saved)
    require(saved, weights="random")


def test_directories_of_other_libraries_are_told_as_such(tmp_path, saved):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(WorkloadError, match="adapter of peft") as caught:
        require(adapter)
    assert "org/base" in caught.value.hint
    whole = tmp_path / "st"
    shutil.copytree(saved, whole / "0_Transformer")
    (whole / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}])
    )
    with pytest.raises(WorkloadError, match="sentence-transformers") as caught:
        require(whole)
    assert caught.value.hint.endswith("st/0_Transformer")
    (tmp_path / "neither").mkdir()
    (tmp_path / "neither" / "readme.txt").write_text("")
    with pytest.raises(WorkloadError, match=r"without config\.json"):
        require(tmp_path / "neither")
