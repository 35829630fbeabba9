"""Sequence to sequence: one text from another, as in translation and summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.worker.tasks.language_modelling import LanguageModelling
from ftbench.worker.tasks.protocol import COMPLETION, IGNORED, TEXT, Column


class Seq2SeqLm(LanguageModelling):
    """The encoder reads `text_column`, the decoder learns to write `completion_column`."""

    name: TaskName = "seq2seq-lm"
    auto_model: Any = AutoModelForSeq2SeqLM
    peft_task: str | None = "SEQ_2_SEQ_LM"
    scores: tuple[str, ...] = ("token_accuracy", "perplexity", "exact_match")

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set with two columns of texts."""
        super().__init__(source)
        assert source.completion_column is not None  # the profile requires it
        target = Column(source.completion_column, "completion_column", "text")
        self.columns: Mapping[str, Column] = {**self.columns, COMPLETION: target}
        self._target_length = source.max_target_length

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int,
        pad: bool,
        evaluation: bool = False,
    ) -> Mapping[str, Any]:
        """Return the features of the texts, and the tokens of the completions as labels."""
        padding = "max_length" if pad else False
        encoded = tokenizer(
            list(batch[TEXT]), truncation=True, max_length=max_length, padding=padding
        )
        labels = self._labels(tokenizer, list(batch[COMPLETION]), pad=pad)
        return {**encoded, "labels": labels}

    def _labels(
        self, tokenizer: PreTrainedTokenizerBase, texts: list[str], *, pad: bool
    ) -> list[list[int]]:
        targets = tokenizer(text_target=texts, truncation=True, max_length=self._target_length)
        return [
            [*ids, *[IGNORED] * (self._target_length - len(ids) if pad else 0)]
            for ids in targets["input_ids"]
        ]

    def example(
        self, tokenizer: PreTrainedTokenizerBase, text: str, length: int, label: int = 0
    ) -> dict[str, Any]:
        """Return the features of an artificial example of `length` tokens, with labels of the largest length."""
        encoded = tokenizer(text, truncation=True, max_length=length, padding="max_length")
        (labels,) = self._labels(tokenizer, ["a " * self._target_length], pad=True)
        return {**encoded, "labels": labels}

    def collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return transformers' collator, which also makes the decoder's inputs from the labels."""
        return _OfLists(DataCollatorForSeq2Seq(tokenizer, model=model))


class _OfLists:
    """Makes batches of labels that are lists: the collator pads tensors by way of numpy, which a trace has not."""

    def __init__(self, collate: DataCollatorForSeq2Seq) -> None:
        self._collate = collate

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        return self._collate([{**one, "labels": _listed(one["labels"])} for one in examples])


def _listed(labels: Any) -> Any:
    return labels.tolist() if hasattr(labels, "tolist") else labels
