"""Masked texts: what is to be predicted, and how often."""

import numpy as np
import pytest
import torch

from ftbench.base.errors import WorkloadError
from tests.factories import task

TASK = task("masked-lm")
TEXT = " ".join("abcdefghijklmnopqrst" * 20)


def evaluated(tokenizer, texts, **changes):
    options = {"max_length": 400, "pad": False, "evaluation": True} | changes
    return task("masked-lm").encode(tokenizer, {"text": texts}, **options)


def test_an_evaluation_has_the_same_masks_every_time_and_others_for_other_texts(word_tokenizer):
    first, again = (evaluated(word_tokenizer, [TEXT, TEXT[2:]]) for _ in range(2))
    assert first == again
    assert first["labels"][0][:-1] != first["labels"][1]


def test_fifteen_of_a_hundred_tokens_are_asked_for_and_four_of_five_of_them_masked(word_tokenizer):
    texts = [TEXT[2 * i :] for i in range(30)]
    found = evaluated(word_tokenizer, texts)
    whole = word_tokenizer(texts, truncation=True, max_length=400)["input_ids"]
    labels, given, tokens = (
        np.concatenate(x) for x in (found["labels"], found["input_ids"], whole)
    )
    asked = labels != -100
    assert np.mean(asked) == pytest.approx(0.15, abs=0.01)
    assert (labels[asked] == tokens[asked]).all()
    assert (given[~asked] == tokens[~asked]).all()
    masked = given[asked] == word_tokenizer.mask_token_id
    assert np.mean(masked) == pytest.approx(0.8, abs=0.05)
    changed = (given[asked] != tokens[asked]) & ~masked
    assert np.mean(changed) == pytest.approx(0.1, abs=0.05)


def test_even_a_word_has_something_to_predict(word_tokenizer):
    found = evaluated(word_tokenizer, ["a"] * 3)
    assert all(any(label != -100 for label in labels) for labels in found["labels"])


def test_training_draws_anew_each_time(word_tokenizer):
    encoded = TASK.encode(word_tokenizer, {"text": [TEXT]}, max_length=400, pad=False)
    assert encoded["labels"] == encoded["input_ids"]
    rows = [{name: values[0] for name, values in encoded.items()}] * 2
    torch.manual_seed(0)
    batch = TASK.collator(word_tokenizer, None)(rows)
    labels = batch["labels"]
    assert (labels[0] != labels[1]).any()
    assert float((labels != -100).float().mean()) == pytest.approx(0.15, abs=0.05)
    # An evaluation is given what was masked beforehand.
    same = TASK.evaluation_collator(word_tokenizer, None)(rows)
    assert same["labels"].tolist() == [encoded["labels"][0]] * 2


def test_a_tokenizer_without_a_mask_is_refused(word_tokenizer):
    word_tokenizer.mask_token = None
    with pytest.raises(WorkloadError) as caught:
        evaluated(word_tokenizer, ["a b"])
    assert caught.value.where == "workload.tokenizer"
