"""Texts and pairs of texts as features, for tasks with one label per text or pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftbench.plan.sources import DataSource
from ftbench.worker.tasks.protocol import LABEL, PAIR, TEXT, Column


class WholeTexts:
    """The common part of tasks with one label per text, or per pair of texts."""

    new_head = True
    loss_per_token = False
    reduce_logits: Callable[[Any, torch.Tensor], torch.Tensor] | None = None

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set."""
        texts = zip((TEXT, PAIR), source.text_columns, strict=False)
        self.columns: Mapping[str, Column] = {
            **{name: Column(column, "text_column", "text") for name, column in texts},
            LABEL: Column(source.label_column, "label_column", "label"),
        }

    def plain_texts(self, batch: Mapping[str, Sequence[Any]]) -> list[str]:
        """Return the text, or the first of a pair, of each example."""
        return list(batch[TEXT])

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int,
        pad: bool,
        evaluation: bool = False,
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

    def example(
        self, tokenizer: PreTrainedTokenizerBase, text: str, length: int, label: int = 0
    ) -> dict[str, Any]:
        """Return the features of an artificial example of exactly `length` tokens, with one label."""
        encoded = tokenizer(text, truncation=True, max_length=length, padding="max_length")
        return {**encoded, "labels": self.filler(label)}

    def filler(self, label: int) -> int | float:
        """Return a label for an artificial example."""
        return label

    def collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return None: the Trainer's own pads a batch to its longest example."""
        return None

    def evaluation_collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return None, as for training."""
        return None


def lengths(encoded: Mapping[str, Any]) -> list[int]:
    """Return the number of tokens of each example of encoded features."""
    return list(map(len, encoded["input_ids"]))
