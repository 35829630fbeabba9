"""Columns of lists: conversations, and words with their labels."""

import json

import pytest

from ftbench.base.errors import WorkloadError
from ftbench.worker.data.pools import load_pools
from tests.unit.worker.data.sources import source, written

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def talks(path, rows):
    written(path, lines({"messages": row} for row in rows))
    return source(path, task="causal-lm", messages_column="messages")


def test_conversations_are_read_and_equal_ones_dropped(tmp_path):
    of = talks(
        tmp_path / "d.jsonl",
        [TALK] * 3 + [[TALK[0], {"role": "assistant", "content": f"{i}"}] for i in range(20)],
    )
    pools = load_pools(of.model_copy(update={"drop_duplicates": True}))
    assert pools.train.column_names == ["messages"]
    assert len(pools.train) + len(pools.evaluation) == 21
    assert pools.left_out == {"seen before": 2}


@pytest.mark.parametrize(
    "wrong",
    [None, [], "a text", [{"role": "user"}], [{"content": "a"}], [{"role": "user", "content": ""}]],
)
def test_what_is_no_conversation_is_named_with_its_row(tmp_path, wrong):
    rows = [TALK, wrong, TALK]
    if isinstance(wrong, str):
        rows = [wrong] * 3
    with pytest.raises(WorkloadError) as caught:
        load_pools(talks(tmp_path / "d.jsonl", rows))
    assert caught.value.where == "workload.messages_column messages"
    assert "row" in caught.value.got


def tagged(path, rows):
    written(path, lines({"tokens": words, "tags": tags} for words, tags in rows))
    return source(path, task="token-classification", text_column="tokens", label_column="tags")


def test_words_and_their_labels(tmp_path):
    rows = [(["Ann", "ran"], ["B-PER", "O"]), (["so"], ["O"])] * 10
    pools = load_pools(tagged(tmp_path / "d.jsonl", rows))
    assert pools.labels == ("B-PER", "O")
    assert {
        len(words) == len(labels)
        for words, labels in zip(pools.train["text"], pools.train["labels"], strict=True)
    } == {True}


def test_a_label_for_each_word(tmp_path):
    rows = [(["Ann", "ran"], ["B-PER", "O"])] * 4 + [(["so"], ["O", "O"])]
    with pytest.raises(WorkloadError) as caught:
        load_pools(tagged(tmp_path / "d.jsonl", rows))
    assert caught.value.where == "workload.label_column tags"
    assert "row 5" in caught.value.got
