"""Packing: several texts in one row of a batch, so that no position is spent on padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

Row = dict[str, list[int]]


def blocks(batches: Iterable[Mapping[str, Sequence[Sequence[int]]]], length: int) -> Iterator[Row]:
    """Yield rows of exactly `length` tokens, cut from the joined token ids and labels of examples, in their order.

    The mask is 1 throughout: attention crosses from one text to the next, which the end-of-text tokens between them
    mark, as in transformers' `run_clm.py`. What is left at the end is dropped.
    """
    ids: list[int] = []
    labels: list[int] = []
    for batch in batches:
        for tokens, wanted in zip(batch["input_ids"], batch["labels"], strict=True):
            ids += tokens
            labels += wanted
        whole = len(ids) // length * length
        for start in range(0, whole, length):
            end = start + length
            mask = [1] * length
            yield {"input_ids": ids[start:end], "attention_mask": mask, "labels": labels[start:end]}
        ids, labels = ids[whole:], labels[whole:]
