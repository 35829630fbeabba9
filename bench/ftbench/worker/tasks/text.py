"""Texts and pairs of texts as features, for tasks with one label per text or pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftbench.plan.sources import DataSource

TEXT, PAIR, LABEL = "text", "text_pair", "label"


class WholeTexts:
    """The common part of tasks with one label per text, or per pair of texts."""

    def columns(self, source: DataSource) -> dict[str, str]:
        """Return the column of the text, or the two of a pair, and the column of the label."""
        texts = dict(zip((TEXT, PAIR), source.text_columns, strict=False))
        return {**texts, LABEL: source.label_column}

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[str]],
        *,
        max_length: int,
        pad: bool,
    ) -> Mapping[str, Any]:
        """Return the features of a batch; if a pair is too long, the longer text is truncated first.

        That is transformers' truncation `longest_first`, which `run_glue.py` uses.
        """
        encoded: Mapping[str, Any] = tokenizer(
            list(batch[TEXT]),
            list(batch[PAIR]) if PAIR in batch else None,
            truncation="longest_first",
            max_length=max_length,
            padding="max_length" if pad else False,
        )
        return encoded


def lengths(encoded: Mapping[str, Any]) -> list[int]:
    """Return the number of tokens of each example of encoded features."""
    return list(map(len, encoded["input_ids"]))
