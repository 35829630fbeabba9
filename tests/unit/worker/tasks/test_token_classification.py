"""Classes of words: which token has which label, and scores."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import resolve_model
from tests.factories import profile, task

TASK = task("token-classification")


@pytest.fixture(scope="module")
def tokenizer():
    location = resolve_model(profile().workload).source.location
    return AutoTokenizer.from_pretrained(location)


def encode(tokenizer, words, labels, length=16, *, pad=False):
    batch = {"text": [words], "labels": [labels]}
    found = TASK.encode(tokenizer, batch, max_length=length, pad=pad)
    return tokenizer.convert_ids_to_tokens(found["input_ids"][0]), found["labels"][0]


def test_the_first_token_of_each_word_has_its_label(tokenizer):
    tokens, labels = encode(tokenizer, ["unbelievably", "Angela", "Merkel's", "x"], [3, 1, 2, 0])
    firsts = [i for i, label in enumerate(labels) if label != -100]
    assert [labels[i] for i in firsts] == [3, 1, 2, 0]
    assert [tokens[i] for i in firsts][1:] == ["angela", "mer", "x"] or tokens[
        firsts[1]
    ] == "angela"
    assert all(labels[i] == -100 for i, token in enumerate(tokens) if token.startswith("##"))
    assert labels[0] == labels[-1] == -100


def test_words_that_are_cut_off_have_no_label_and_padding_neither(tokenizer):
    _, labels = encode(tokenizer, list("abcdefgh"), list(range(8)), 6)
    assert [label for label in labels if label != -100] == [0, 1, 2, 3]
    tokens, labels = encode(tokenizer, ["a"], [5], 8, pad=True)
    assert labels == [-100, 5] + [-100] * 6
    assert tokens[3:] == ["[PAD]"] * 5


def test_a_word_without_a_token_takes_no_label_from_the_next(tokenizer):
    tokens, labels = encode(tokenizer, ["a", "\u200b", "b"], [1, 2, 3])
    known = {t: label for t, label in zip(tokens, labels, strict=True) if label != -100}
    assert (known["a"], known["b"]) == (1, 3)


def chunked(values):
    return pa.chunked_array([pa.array(values)])


def read(train, evaluation=None, names=None):
    return TASK.read_labels(
        chunked(train), chunked(evaluation or train), names=names, column="tags"
    )


def test_labels_are_numbered_by_their_names():
    found = read([["O", "B-PER"], ["I-PER"]])
    assert found.names == ("B-PER", "I-PER", "O")
    assert found.train.to_pylist() == [[2, 0], [1]]
    named = read([[0, 1]], names=["O", "B-PER"])
    assert (named.names, named.train.to_pylist()) == (("O", "B-PER"), [[0, 1]])
    numbers = read([[7, 9]])
    assert (numbers.names, numbers.train.to_pylist()) == (("7", "9"), [[0, 1]])


@pytest.mark.parametrize(
    ("train", "evaluation", "words"),
    [
        ([["O"], ["O"]], None, "only one class"),
        ([["O", "B-A"]], [["B-B"]], "evaluation pool"),
    ],
)
def test_labels_that_cannot_be_learned(train, evaluation, words):
    with pytest.raises(WorkloadError, match=words) as caught:
        read(train, evaluation)
    assert caught.value.where == "workload.label_column tags"


def test_scores_are_of_labelled_words():
    names = ("O", "B-A", "I-A")
    references = np.array([[-100, 1, 2, 0, -100], [-100, 0, 1, -100, -100]])
    answers = np.array([[0, 1, 2, 1, 1], [2, 0, 1, 0, 0]])
    train = np.array([[0, 0, 1]])
    entity, word = TASK.answer(answers, references, train, names)
    assert (word.name, word.value, word.guess) == ("word_accuracy", 4 / 5, 2 / 5)
    # Wanted: A at 1 to 2, and A in the second; answered: both and another one.
    assert (entity.name, entity.value, entity.guess) == ("f1_entities", 2 * 2 / 5, 0.0)
    (only,) = TASK.answer(answers, references, train, ("NOUN", "VERB", "X"))
    assert only.name == "word_accuracy"


def test_outputs_that_are_not_numbers_have_no_score():
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0] = float("nan")
    kept = TASK.reduce_logits((logits, None), torch.zeros(1, 3))
    assert kept.tolist() == [[0, -1, 0]]
    assert TASK.answer(kept.numpy(), np.array([[0, 1, 0]]), np.array([[0, 1]]), ("a", "b")) == ()
