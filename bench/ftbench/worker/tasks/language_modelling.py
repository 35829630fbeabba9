"""What tasks have in common whose model answers a token at each position: features, losses and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from ftbench.plan.sources import DataSource
from ftbench.records.scores import Score
from ftbench.worker.tasks import strata, token_scoring
from ftbench.worker.tasks.protocol import COMPLETION, IGNORED, TEXT, Array, Column

# A completion of at most this many different texts stands for a class.
_FEW = 10


class LanguageModelling:
    """The common part of language models: the labels of an example are token ids, `IGNORED` for padding."""

    peft_task: str | None = "CAUSAL_LM"
    new_head = False
    scores: tuple[str, ...] = ("token_accuracy", "perplexity")
    has_classes = False
    loss_per_token = True
    # How many positions before a label the output is that answers it.
    shift = 0

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set."""
        self.columns: Mapping[str, Column] = {
            TEXT: Column(source.text_columns[0], "text_column", "text")
        }

    def strata(self, examples: pa.Table) -> list[Array]:
        """Return one group; or one for each completion, if there are few different ones: they are classes."""
        if COMPLETION not in examples.column_names:
            return strata.whole(examples)
        different = len(examples[COMPLETION].unique())
        few = different <= min(_FEW, len(examples) // 2)
        return strata.of_values(examples[COMPLETION]) if few else strata.whole(examples)

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return none: the model's vocabulary is its own."""
        return {}

    def plain_texts(self, batch: Mapping[str, Sequence[Any]]) -> list[str]:
        """Return the text of each example."""
        return list(batch[TEXT])

    def example(
        self, tokenizer: PreTrainedTokenizerBase, text: str, length: int, label: int = 0
    ) -> dict[str, Any]:
        """Return the features of an artificial example of exactly `length` tokens, all of them labelled."""
        encoded = tokenizer(text, truncation=True, max_length=length, padding="max_length")
        return dict(with_labels(encoded["input_ids"], encoded["attention_mask"]))

    def collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the collator that pads features and labels to the longest example of a batch."""
        return DataCollatorForTokenClassification(tokenizer)

    def evaluation_collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the collator of training, unless a task says otherwise."""
        return self.collator(tokenizer, model)

    def reduce_logits(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return, for each position, the loss of the label that it answers, and 1 if that is the likeliest, else 0.

        The shape is [examples, tokens, 2], in float32, losses in nats: the logits of all evaluation examples would
        take as much memory as the vocabulary is large. Positions that answer no label have 0 and 0.
        """
        outputs = logits[0] if isinstance(logits, tuple) else logits
        answers = torch.zeros(*labels.shape, 2, dtype=torch.float32, device=labels.device)
        asked = torch.nn.functional.pad(labels, (0, self.shift), value=IGNORED)[:, self.shift :]
        for row, of_row, wanted in zip(answers, outputs, asked, strict=True):
            scores = of_row.float()
            row[:, 0] = cross_entropy(scores, wanted, reduction="none")
            row[:, 1] = (scores.argmax(dim=-1) == wanted).float()
        return answers

    def guess_loss(self, train_labels: Array) -> float:
        """Return the entropy of the tokens, in nats."""
        return token_scoring.entropy(train_labels)

    def answer(
        self,
        outputs: Array,
        references: Array,
        train_labels: Array,
        labels: Sequence[str] = (),
    ) -> tuple[Score, ...]:
        """Return token accuracy and perplexity, and exact match if the task has it.

        The guess knows how often each token, or each completion, occurs in training.
        """
        losses, right = outputs[..., 0].astype(float), outputs[..., 1].astype(float)
        wanted = np.full_like(references, IGNORED)
        wanted[:, : wanted.shape[1] - self.shift] = references[:, self.shift :]
        known = wanted != IGNORED
        if not known.any() or not np.isfinite(losses[known]).all():
            return ()
        accuracy, guessed = token_scoring.guess_tokens(train_labels, wanted)
        found = [
            token_scoring.token_accuracy(right, known, accuracy),
            token_scoring.perplexity(losses, known, guessed),
        ]
        if "exact_match" in self.scores:
            match = token_scoring.guess_match(train_labels, wanted)
            found.append(token_scoring.exact_match(right, known, match))
        return tuple(score for score in found if score is not None)


def with_labels(ids: Sequence[int], mask: Sequence[int]) -> Mapping[str, list[int]]:
    """Return the features of one example whose labels are its own tokens."""
    labels = [token if real else IGNORED for token, real in zip(ids, mask, strict=True)]
    return {"input_ids": list(ids), "attention_mask": list(mask), "labels": labels}


def features(
    examples: Iterable[tuple[Sequence[int], Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    length: int | None,
) -> Mapping[str, list[list[int]]]:
    """Return the features of examples, pairs of token ids and labels, padded to a length unless it is None.

    Padding is on the tokenizer's side, and has no label.
    """
    left = tokenizer.padding_side == "left"
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for ids, labels in examples:
        missing = 0 if length is None else length - len(ids)
        filled = (
            (ids, tokenizer.pad_token_id),
            ([1] * len(ids), 0),
            (labels, IGNORED),
        )
        for column, (values, filler) in zip(columns.values(), filled, strict=True):
            padding = [filler] * missing
            column.append([*padding, *values] if left else [*values, *padding])
    return columns
