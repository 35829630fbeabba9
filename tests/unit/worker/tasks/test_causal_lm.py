"""Causal language modelling: features, losses and scores against figures made by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from ftbench.base.errors import WorkloadError
from tests.factories import task

# The tokens of three kinds of examples below, and the end of text.
END, PAD = 1, 0


@pytest.fixture
def tokenizer(word_tokenizer):
    return word_tokenizer


def encode(of, tokenizer, length=8, *, pad=False, **columns):
    return of.encode(tokenizer, columns, max_length=length, pad=pad)


def test_a_text_ends_in_the_end_of_text_and_all_of_its_tokens_are_labels(tokenizer):
    found = encode(task("causal-lm"), tokenizer, text=["a b c", "a b c d e f g h i"])
    first, second = found["input_ids"]
    assert (len(first), first[-1]) == (4, END)
    assert len(second) == 8
    assert END not in second
    assert found["labels"] == found["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_tokenizer_s_side_and_has_no_label(tokenizer, side):
    tokenizer.padding_side = side
    found = encode(task("causal-lm"), tokenizer, pad=True, text=["a b"])
    (ids,), (mask,), (labels,) = found["input_ids"], found["attention_mask"], found["labels"]
    real = slice(5, 8) if side == "left" else slice(0, 3)
    assert sum(mask) == 3 == sum(mask[real])
    assert [label for label, is_real in zip(labels, mask, strict=True) if not is_real] == [-100] * 5
    assert labels[real] == ids[real]


def test_the_loss_is_on_the_completion_only(tokenizer):
    of = task("causal-lm", completion_column="answer")
    found = encode(of, tokenizer, text=["a b c"], completion=["d e"])
    (ids,), (labels,) = found["input_ids"], found["labels"]
    assert labels == [-100] * 3 + ids[3:]
    assert (len(ids), ids[-1]) == (6, END)


def test_a_prompt_that_is_too_long_loses_its_end_and_the_completion_stays_whole(tokenizer):
    of = task("causal-lm", completion_column="answer")
    whole = encode(of, tokenizer, 100, text=["a b c d e f g h"], completion=["i j"])
    found = encode(of, tokenizer, 6, text=["a b c d e f g h"], completion=["i j"])
    (ids,), (labels,) = found["input_ids"], found["labels"]
    assert ids == whole["input_ids"][0][:3] + whole["input_ids"][0][-3:]
    assert labels == [-100] * 3 + ids[-3:]
    # Even a completion that fills everything keeps a token to be predicted from.
    found = encode(of, tokenizer, 2, text=["a b c"], completion=["d e f g"])
    assert found["labels"][0] == [-100, found["input_ids"][0][1]]


def test_a_conversation_is_written_by_the_template(tokenizer):
    of = task("causal-lm", messages_column="messages")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'x' %}{{ raise_exception('no x') }}{% endif %}"
        "{{ m.role }} {{ m.content }} {% endfor %}"
    )
    messages = [{"role": "a", "content": "b c"}, {"role": "d", "content": "e"}]
    found = encode(of, tokenizer, messages=[messages])
    assert found["input_ids"] == [tokenizer("a b c d e")["input_ids"]]
    assert found["labels"] == found["input_ids"]
    with pytest.raises(WorkloadError, match="no x"):
        encode(of, tokenizer, messages=[[{"role": "x", "content": "b"}]])
    tokenizer.chat_template = None
    with pytest.raises(WorkloadError) as caught:
        encode(of, tokenizer, messages=[messages])
    assert caught.value.where == "workload.tokenizer"


MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{%- generation -%}{{ m.content }}{% endgeneration %} {% else %}{{ m.content }} {% endif %}{% endfor %}"
)
TALK = [
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "c d"},
    {"role": "user", "content": "e"},
    {"role": "assistant", "content": "f"},
]


def assistant_only(tokenizer, template, talk, length=8):
    of = task("causal-lm", messages_column="messages", assistant_only_loss=True)
    tokenizer.chat_template = template
    return encode(of, tokenizer, length, messages=[talk])


def test_the_loss_may_be_of_the_assistant_s_tokens_alone(tokenizer):
    found = assistant_only(tokenizer, MARKED, TALK)
    (ids,), (labels,) = found["input_ids"], found["labels"]
    assert ids == tokenizer("a b c d e f")["input_ids"]
    assert labels == [-100, -100, *ids[2:4], -100, ids[5]]
    assert assistant_only(tokenizer, MARKED, TALK, length=3)["labels"] == [labels[:3]]


@pytest.mark.parametrize(
    ("template", "talk", "length", "where"),
    [
        (MARKED.replace("generation", "if true"), TALK, 8, "workload.assistant_only_loss"),
        (MARKED, TALK, 2, "workload.messages_column"),
        (MARKED, TALK[:1], 8, "workload.messages_column"),
    ],
)
def test_without_a_token_of_the_assistant_there_is_no_loss(
    tokenizer, template, talk, length, where
):
    template = template.replace("endif true", "endif")
    with pytest.raises(WorkloadError) as caught:
        assistant_only(tokenizer, template, talk, length)
    assert caught.value.where == where


def planted(labels, vocabulary=5):
    """Return logits whose softmax is known: 0.7 on one token and the rest shared."""
    return torch.full((*labels.shape, vocabulary), math.log(0.3 / (vocabulary - 1)))


def test_each_token_is_scored_by_the_output_before_it():
    of = task("causal-lm")
    labels = torch.tensor([[-100, 2, 3, 1], [2, 2, -100, -100]])
    logits = planted(labels)
    logits[0, 0, 2] = logits[0, 1, 3] = logits[0, 2, 4] = logits[1, 0, 2] = math.log(0.7)
    kept = of.reduce_logits((logits, torch.zeros(3)), labels)
    assert kept.shape == (2, 4, 2)
    right, wrong = -math.log(0.7), -math.log(0.3 / 4)
    assert kept[0, :, 0].tolist() == pytest.approx([right, right, wrong, 0], rel=1e-6)
    assert kept[0, :, 1].tolist() == [1, 1, 0, 0]
    assert kept[1, 0].tolist() == pytest.approx([right, 1], rel=1e-6)
    train = np.array([[2, 2, 3, 1]])
    scores = {s.name: s for s in of.answer(kept.numpy(), labels.numpy(), train)}
    assert scores["token_accuracy"].value == pytest.approx(3 / 4)
    assert scores["perplexity"].value == pytest.approx(math.exp((3 * right + wrong) / 4))
    assert set(scores) == {"token_accuracy", "perplexity"}


def test_exact_match_is_of_whole_completions_and_its_guess_the_most_frequent_one():
    of = task("causal-lm", completion_column="answer")
    references = np.array([[-100, 7, 1], [-100, 8, 1], [-100, 7, 1], [-100, 9, 1]])
    right = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    outputs = np.stack([np.ones(right.shape), right], axis=-1)
    train = np.array([[-100, 7, 1], [-100, 7, 1], [-100, 8, 1]])
    scores = {s.name: s for s in of.answer(outputs, references, train)}
    assert scores["exact_match"].value == 0.5
    assert scores["exact_match"].guess == 0.5
    assert scores["exact_match"].low < 0.5 < scores["exact_match"].high
    assert scores["token_accuracy"].value == 6 / 8


def test_outputs_that_are_not_numbers_have_no_score():
    outputs = np.full((1, 3, 2), np.nan)
    assert task("causal-lm").answer(outputs, np.array([[1, 2, 3]]), np.array([[1]])) == ()


def test_completions_of_few_kinds_are_strata_and_texts_are_not():
    few = pa.table({"text": ["a", "b", "c", "d"], "completion": ["x", "y", "x", "y"]})
    of = task("causal-lm", completion_column="answer")
    assert [list(rows) for rows in of.strata(few)] == [[0, 2], [1, 3]]
    every = few.set_column(1, "completion", pa.array(["p", "q", "r", "s"]))
    assert [list(rows) for rows in of.strata(every)] == [[0, 1, 2, 3]]
    assert [list(rows) for rows in task("causal-lm").strata(few.drop_columns("completion"))] == [
        [0, 1, 2, 3]
    ]


def test_an_artificial_example_has_exactly_the_length(tokenizer):
    for length in (4, 30):
        example = task("causal-lm").example(tokenizer, "a " * 10, length)
        assert {len(values) for values in example.values()} == {length}
        padding = [i for i, m in enumerate(example["attention_mask"]) if not m]
        assert len(padding) == max(0, length - 10)
        assert all(example["labels"][i] == -100 for i in padding)
