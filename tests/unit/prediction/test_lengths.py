"""What data decide of memory: labels, lengths, and in which order they come."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from ftbench.base.errors import WorkloadError
from ftbench.prediction import lengths as module
from ftbench.prediction.lengths import ORDERS, SAMPLE, SequenceLengths, read_lengths
from tests.factories import grid

UNKNOWN = SequenceLengths()


def test_without_documents_nothing_is_taken_for_granted():
    assert UNKNOWN.labels == ("0", "1")
    assert UNKNOWN.padded(16)
    assert UNKNOWN.longest(128) == 128
    assert UNKNOWN.orders(8, 128, 3) == [(128, 128, 128)]


@pytest.mark.parametrize(
    ("max_length", "padded", "longest"),
    [(16, False, 16), (20, False, 20), (21, True, 21), (512, True, 90)],
)
def test_padding_and_the_longest_batch(max_length, padded, longest):
    documents = SequenceLengths(lengths=(20, 90, 40))
    assert documents.padded(max_length) == padded
    assert documents.longest(max_length) == longest


def test_orders_begin_with_the_longest_throughout():
    documents = SequenceLengths(lengths=tuple(range(10, 200)))
    first, *others = documents.orders(4, 128, 3)
    assert first == (128, 128, 128)
    assert 1 <= len(others) <= ORDERS
    assert first not in others
    assert len(set(others)) == len(others)


def test_rows_of_several_examples_are_as_long_as_all_of_them():
    documents = SequenceLengths(lengths=(10, 20, 300))
    first, *others = documents.orders_in_one_row(4, 128, 3)
    assert first == (128, 128, 128)
    assert others
    for order in others:
        totals = [4 * length for length in order]
        assert all(total == int(total) and total % 8 == 0 for total in totals)
        assert all(40 <= total <= 4 * 128 for total in totals)
    # Two of three examples are short: few batches of four have the longest alone.
    assert min(map(min, others)) < 128
    assert UNKNOWN.orders_in_one_row(8, 128, 3) == [(128, 128, 128)]


def test_orders_are_seeded():
    documents = SequenceLengths(lengths=tuple(range(10, 200)))
    assert documents.orders(4, 128, 3) == documents.orders(4, 128, 3)
    assert documents.orders(4, 128, 3) != documents.orders(2, 128, 3)


def test_larger_batches_vary_less():
    documents = SequenceLengths(lengths=tuple(range(8, 512)))
    shortest = [min(map(min, documents.orders(batch, 512, 3))) for batch in (1, 8, 64)]
    assert shortest[0] < shortest[1] < shortest[2]


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=50),
    st.integers(1, 64),
    st.integers(1, 512),
    st.integers(1, 4),
)
def test_lengths_in_orders(lengths, batch, max_length, steps):
    documents = SequenceLengths(lengths=tuple(lengths))
    longest = documents.longest(max_length)
    for order in documents.orders(batch, max_length, steps):
        assert len(order) == steps
        for length in order:
            assert length % 8 == 0 or length == longest
            assert min(*lengths, longest) <= length <= longest


class Words:
    """A tokenizer that makes a token of every word, and of the beginning and the end."""

    def __call__(self, texts, pairs, *, truncation, max_length, padding):
        assert (pairs, truncation, padding) == (None, "longest_first", False)
        return {"input_ids": [[0] * min(max_length, len(text.split()) + 2) for text in texts]}


@pytest.fixture
def data(monkeypatch):
    """Pools of documents with as many words as there are before them."""
    asked = []

    def load_pools(source):
        asked.append(source)
        texts = ["word " * number for number in range(1, SAMPLE + 100)]
        return SimpleNamespace(
            labels=("neg", "pos", "so-so"),
            train=Dataset.from_dict({"text": texts}),
            evaluation=Dataset.from_dict({"text": texts[:1] * 8}),
        )

    monkeypatch.setattr(module, "load_pools", load_pools)
    monkeypatch.setattr(module, "load_tokenizer", lambda model: Words())
    return asked


def cells(**axes):
    block = {"max_length": [16, 32], "per_device_train_batch_size": [4], "train_size": [16]} | axes
    return grid(grid=[block]).cells


def test_documents_are_those_that_the_largest_subset_trains_on(data):
    documents = read_lengths(cells(train_size=[16, 40]))
    assert documents.labels == ("neg", "pos", "so-so")
    assert len(documents.lengths) == 40
    assert documents.lengths[:4] == (3, 4, 5, 6)
    assert data == [cells()[0].data]


def test_lengths_are_cut_at_the_longest_of_the_cells(data):
    assert max(read_lengths(cells(train_size=[100])).lengths) == 32
    assert max(read_lengths(cells(train_size=[100], max_length=[64, 8])).lengths) == 64


def test_of_very_many_documents_a_sample_is_read_and_nothing_concluded(data):
    documents = read_lengths(cells(train_size=[10**6]), hypothetical=True)
    assert len(documents.lengths) == SAMPLE
    assert not documents.complete
    assert documents.longest(4096) == 4096
    assert documents.padded(1)


def test_the_longest_is_of_the_subset_that_a_cell_trains_on():
    documents = SequenceLengths(lengths=(5, 6, 90))
    assert documents.longest(128, 2) == 6
    assert documents.longest(128, 3) == 90


def test_a_longer_document_to_evaluate_on_leaves_the_longest_open(monkeypatch):
    pools = SimpleNamespace(
        labels=("a", "b"),
        train=Dataset.from_dict({"text": ["one"]}),
        evaluation=Dataset.from_dict({"text": ["one two three"]}),
    )
    monkeypatch.setattr(module, "load_pools", lambda source: pools)
    monkeypatch.setattr(module, "load_tokenizer", lambda model: Words())
    assert not read_lengths(cells(), hypothetical=True).complete


def test_all_there_are_may_be_few(monkeypatch):
    pools = SimpleNamespace(
        labels=("a", "b"),
        train=Dataset.from_dict({"text": ["one", "one two"]}),
        evaluation=Dataset.from_dict({"text": ["one"]}),
    )
    monkeypatch.setattr(module, "load_pools", lambda source: pools)
    monkeypatch.setattr(module, "load_tokenizer", lambda model: Words())
    with pytest.raises(WorkloadError, match="more examples than the data set has") as caught:
        read_lengths(cells())
    assert (caught.value.where, caught.value.got) == ("grid.train_size", "16")
    assert read_lengths(cells(), hypothetical=True) == SequenceLengths(("a", "b"), (3, 4))
