"""Joined texts, cut into rows: no token is lost, doubled or moved."""

from hypothesis import given
from hypothesis import strategies as st

from ftbench.worker.tasks.packing import blocks


def encoded(lengths):
    """Return features of examples whose tokens are numbered throughout, and whose labels are their negatives."""
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    ids = [list(range(s, s + n)) for s, n in zip(starts, lengths, strict=True)]
    return {"input_ids": ids, "labels": [[-i for i in row] for row in ids]}


@given(st.lists(st.lists(st.integers(1, 40), max_size=8), max_size=5), st.integers(1, 50))
def test_rows_are_the_tokens_in_their_order_without_the_rest(batches, length):
    numbered, start = [], 0
    for batch in batches:
        found = encoded(batch)
        shifted = [[i + start for i in row] for row in found["input_ids"]]
        numbered.append({"input_ids": shifted, "labels": [[-i for i in row] for row in shifted]})
        start += sum(batch)
    rows = list(blocks(numbered, length))
    assert [token for row in rows for token in row["input_ids"]] == list(
        range(start // length * length)
    )
    assert all(row["labels"] == [-token for token in row["input_ids"]] for row in rows)
    assert all(row["attention_mask"] == [1] * length for row in rows)
