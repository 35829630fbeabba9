"""One text from another: labels, padding and scores."""

import numpy as np
import pytest
import torch

from ftbench.base.errors import ProfileError
from tests.factories import profile, task


def of(length=5):
    return task("seq2seq-lm", completion_column="target", max_target_length=length)


def test_the_target_is_cut_and_padded_to_its_own_length(word_tokenizer):
    batch = {"text": ["a b c", "a"], "completion": ["d e", "a b c d e f g h"]}
    found = of().encode(word_tokenizer, batch, max_length=4, pad=True)
    letters = word_tokenizer("d e")["input_ids"]
    assert found["labels"][0] == [*letters, *[-100] * (5 - len(letters))]
    assert len(found["labels"][1]) == 5
    assert -100 not in found["labels"][1]
    assert [len(ids) for ids in found["input_ids"]] == [4, 4]
    free = of().encode(word_tokenizer, batch, max_length=4, pad=False)
    assert free["labels"][0] == letters


def test_an_artificial_example_has_labels_of_the_largest_length(word_tokenizer):
    example = of(7).example(word_tokenizer, "a b", 4)
    assert (len(example["input_ids"]), len(example["labels"])) == (4, 7)
    assert -100 not in example["labels"]


def test_each_label_is_answered_by_the_output_at_its_own_place():
    labels = torch.tensor([[2, 1, -100]])
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = logits[0, 1, 3] = 5.0
    kept = of().reduce_logits(logits, labels)
    assert kept[0, :, 1].tolist() == [1, 0, 0]
    scores = {s.name: s for s in of().answer(kept.numpy(), labels.numpy(), np.array([[2, 1]]))}
    assert (scores["token_accuracy"].value, scores["exact_match"].value) == (0.5, 0.0)


def test_a_profile_names_the_target():
    with pytest.raises(ProfileError, match="completion_column"):
        profile(workload={"task": "seq2seq-lm"})
    with pytest.raises(ProfileError, match="max_target_length"):
        profile(workload={"max_target_length": 5})
