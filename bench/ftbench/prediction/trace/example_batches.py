"""Batches that stand for all batches of a shape: as different as documents can be."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftbench.worker.tasks.protocol import IGNORED, Task


@dataclasses.dataclass(frozen=True)
class ExampleBatches:
    """Makes two batches of a shape: other words, other labels and, with padding, other amounts of it."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    classes: int
    padding: bool
    # The decoder's inputs of labels, which the collator of an encoder-decoder makes.
    decoder_inputs: Callable[[torch.Tensor], torch.Tensor] | None = None

    def of(
        self, batch: Mapping[str, torch.Tensor], examples: int
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        """Return the values of every column of a batch of so many examples, in each of the two."""
        if "position_ids" in batch:
            return _flattened(batch["position_ids"], examples)
        documents, length = batch["input_ids"].shape
        room = length - self.tokenizer.num_special_tokens_to_add()
        alike = [room] * documents
        shorter = [room] + [room // 2] * (documents - 1)
        if self.padding:
            alike[-1], shorter[-1] = room - 1, room // 2
        row_of, classes = functools.cache(self._row), max(self.classes, 1)  # most rows are alike
        first = [row_of(length, words, "a", 0) for words in alike]
        second = [
            row_of(length, words if self.padding else room, "b c d", (row + 1) % classes)
            for row, words in enumerate(shorter)
        ]
        if self.padding:
            for of in (first, second):
                of[-1] = copy.deepcopy(of[-1])
                self._end_in_padding(of[-1])
        rows = (first, second)
        values = {
            name: tuple(_column(batch[name], name, of) for of in rows)
            for name in batch
            if name in rows[0][0]
        }
        if self.decoder_inputs is not None and "decoder_input_ids" in batch:
            values["decoder_input_ids"] = tuple(map(self.decoder_inputs, values["labels"]))
        return values

    def _row(self, length: int, words: int, text: str, label: int) -> dict[str, Any]:
        text = " ".join((text.split() * length)[: max(words, 0)])
        return self.task.example(self.tokenizer, text, length, label)

    def _end_in_padding(self, row: dict[str, Any]) -> None:
        """Make the last token one of padding, also where special tokens fill the whole length."""
        row["input_ids"][-1] = self.tokenizer.pad_token_id
        row["attention_mask"][-1] = 0
        if isinstance(row["labels"], list):
            row["labels"][-1] = IGNORED


def _flattened(given: torch.Tensor, examples: int) -> dict[str, tuple[torch.Tensor, ...]]:
    """Return the positions of a row of examples: two of equal lengths, or of others; or those of a single one."""
    length = given.shape[-1]
    ends = (length // 2, length // 3) if examples > 1 else (length, length)
    rows = [torch.cat([torch.arange(end), torch.arange(length - end)]) for end in ends]
    return {"position_ids": tuple(row.reshape(given.shape).to(given.dtype) for row in rows)}


def _column(like: torch.Tensor, name: str, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    values = torch.tensor([row[name] for row in rows], device="cpu").to(like.dtype)
    return values.reshape(like.shape)
