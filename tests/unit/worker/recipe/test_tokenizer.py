"""Tokenizers that belong to their model and to the texts, and those that do not."""

import pytest
from transformers import BertConfig, CanineConfig

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import resolve_model
from ftbench.worker.recipe.tokenizer import (
    load_tokenizer,
    padding_warnings,
    require_own_tokenizer,
    unknown_share,
    unknown_warnings,
)
from tests.factories import profile

MINILM = 30522


def source(**changes):
    return resolve_model(profile(workload=changes).workload)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(source())


def test_a_tokenizer_of_its_model(tokenizer):
    require_own_tokenizer(tokenizer, BertConfig(vocab_size=MINILM), source())
    require_own_tokenizer(tokenizer, BertConfig(vocab_size=MINILM + 100), source())  # padded
    require_own_tokenizer(tokenizer, CanineConfig(), source())  # has no vocabulary


@pytest.mark.parametrize(
    ("size", "what"), [(MINILM - 1, "more tokens"), (10 * MINILM, "far fewer")]
)
def test_a_tokenizer_of_another_model(tokenizer, size, what):
    with pytest.raises(WorkloadError, match=what):
        require_own_tokenizer(tokenizer, BertConfig(vocab_size=size), source())


def test_random_weights_take_a_smaller_tokenizer(tokenizer):
    require_own_tokenizer(tokenizer, BertConfig(vocab_size=10 * MINILM), source(weights="random"))


def test_the_share_of_unknown_tokens_is_that_of_the_texts(tokenizer):
    assert unknown_share(tokenizer, ["plain words", "and more"]) == 0
    # Signs that the vocabulary does not have: one unknown token each, beside three known words.
    assert unknown_share(tokenizer, ["one two three ⛄"]) == pytest.approx(1 / 4)
    assert unknown_share(tokenizer, []) is None


def test_some_unknown_tokens_are_a_warning_and_most_are_refused():
    assert unknown_warnings(None, source()) == unknown_warnings(0.05, source()) == []
    (warning,) = unknown_warnings(0.25, source())
    assert (warning.name, warning.value) == ("unknown_tokens", 0.25)
    with pytest.raises(WorkloadError, match="60%"):
        unknown_warnings(0.6, source())
    assert unknown_warnings(0.6, source(weights="random"))


def test_two_padding_tokens_are_a_warning(tokenizer):
    assert padding_warnings(tokenizer, BertConfig(pad_token_id=0)) == []
    assert padding_warnings(tokenizer, BertConfig(pad_token_id=None)) == []
    (warning,) = padding_warnings(tokenizer, BertConfig(pad_token_id=7))
    assert warning.name == "padding_token"


def test_a_tokenizer_without_padding_or_end_is_refused(tmp_path, tokenizer):
    from transformers import PreTrainedTokenizerFast

    tokenizer.backend_tokenizer.no_padding()  # else a padding token is taken from an earlier test's batch
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    bare.save_pretrained(tmp_path)
    with pytest.raises(WorkloadError, match="neither a padding token"):
        load_tokenizer(source(tokenizer=str(tmp_path)))
    ended = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]")
    ended.save_pretrained(tmp_path / "ended")
    assert load_tokenizer(source(tokenizer=str(tmp_path / "ended"))).pad_token == "[SEP]"
