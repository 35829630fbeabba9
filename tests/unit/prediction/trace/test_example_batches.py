"""The batches that stand for all others of a shape."""

import pytest
import torch

from ftbench.prediction.trace.example_batches import ExampleBatches
from ftbench.worker.recipe.tokenizer import load_tokenizer
from tests.factories import task
from tests.traced import traced_cell


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(traced_cell("bert").model)


def examples(tokenizer, *, padding, documents=3, length=16, classes=2):
    shape = (documents, length)
    batch = {
        name: torch.zeros(shape, dtype=torch.int64) for name in ("input_ids", "attention_mask")
    }
    batch["labels"] = torch.zeros(documents, dtype=torch.int64)
    return ExampleBatches(task(), tokenizer, classes, padding).of(batch, documents)


def test_without_padding_all_tokens_are_real(tokenizer):
    assert all(mask.all() for mask in examples(tokenizer, padding=False)["attention_mask"])


@pytest.mark.parametrize("documents", [1, 3])
def test_with_padding_its_amounts_differ(tokenizer, documents):
    few, much = examples(tokenizer, padding=True, documents=documents)["attention_mask"]
    assert 0 < (1 - few).sum() < (1 - much).sum()


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_batch_of_special_tokens_alone_is_padded_as_well(tokenizer, length):
    for mask in examples(tokenizer, padding=True, length=length)["attention_mask"]:
        assert not mask.all()
    for mask in examples(tokenizer, padding=False, length=length)["attention_mask"]:
        assert mask.all()


def test_words_and_labels_differ_and_special_tokens_do_not(tokenizer):
    values = examples(tokenizer, padding=False)
    first, second = values["input_ids"]
    assert len(first.unique()) != len(second.unique())
    assert torch.equal(first.eq(tokenizer.sep_token_id), second.eq(tokenizer.sep_token_id))
    assert len({len(labels.unique()) for labels in values["labels"]}) == 2


def test_the_decoder_reads_the_labels_of_each_batch_shifted(tokenizer):
    of = task("seq2seq-lm", completion_column="target", max_target_length=4)
    shape = {"input_ids": (2, 16), "attention_mask": (2, 16)}
    shape |= dict.fromkeys(("labels", "decoder_input_ids"), (2, 4))
    batch = {name: torch.zeros(size, dtype=torch.int64) for name, size in shape.items()}
    shifted = ExampleBatches(
        of, tokenizer, 2, padding=False, decoder_inputs=lambda ids: ids.roll(1)
    )
    values = shifted.of(batch, 2)
    for labels, read in zip(values["labels"], values["decoder_input_ids"], strict=True):
        assert torch.equal(read, labels.roll(1))
    unshifted = ExampleBatches(of, tokenizer, 2, padding=False).of(batch, 2)
    assert "decoder_input_ids" not in unshifted
