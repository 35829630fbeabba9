"""Token classification: a class for each word of a text, such as the entity that it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerBase,
)

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.records.scores import Score
from ftbench.worker.tasks import entity_scoring, strata, token_scoring
from ftbench.worker.tasks.protocol import IGNORED, LABEL, TEXT, Array, Column, Labels

# An answer for outputs that are not numbers.
_NO_ANSWER = -1


class TokenClassification:
    """A word's class is that of its first token; its other tokens, and special ones, have no label."""

    name: TaskName = "token-classification"
    auto_model: Any = AutoModelForTokenClassification
    peft_task: str | None = "TOKEN_CLS"
    scores: tuple[str, ...] = ("f1_entities", "word_accuracy")
    new_head = True
    has_classes = False
    loss_per_token = True

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set with lists of words, and of their labels."""
        self.columns: Mapping[str, Column] = {
            TEXT: Column(source.text_columns[0], "text_column", "words"),
            LABEL: Column(source.label_column, "label_column", "word_labels"),
        }

    def strata(self, examples: pa.Table) -> list[Array]:
        """Return all rows as one group."""
        return strata.whole(examples)

    def read_labels(
        self,
        train: pa.ChunkedArray,
        evaluation: pa.ChunkedArray,
        *,
        names: Sequence[str] | None,
        column: str,
    ) -> Labels:
        """Return each word's label as the index of its value among those of training, or among the names."""
        where = f"workload.label_column {column}"
        pools = {"training": train.to_pylist(), "evaluation": evaluation.to_pylist()}
        seen = {label for labels in pools["training"] for label in labels}
        if len(set(map(type, seen))) > 1:
            raise WorkloadError("labels are texts and numbers", where=where)
        found: list[Any] = sorted(seen)
        named = names is not None and all(isinstance(value, int) for value in found)
        values: list[Any] = list(range(len(names or ()))) if named else list(names or found)
        if len(values) < 2:
            raise WorkloadError(
                "the data has only one class: there is nothing to learn",
                where=where,
                got=repr(found),
            )
        number = {value: i for i, value in enumerate(values)}
        for pool, rows in pools.items():
            _require_known(rows, number, pool, where)
        learned, evaluated = (
            pa.array([[number[label] for label in labels] for labels in rows], pa.list_(pa.int64()))
            for rows in pools.values()
        )
        return Labels(learned, evaluated, tuple(map(str, names if names is not None else values)))

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the number of classes, and their names."""
        return {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {name: i for i, name in enumerate(labels)},
        }

    def plain_texts(self, batch: Mapping[str, Sequence[Any]]) -> list[str]:
        """Return the words of each example, with spaces between them."""
        return [" ".join(words) for words in batch[TEXT]]

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int,
        pad: bool,
        evaluation: bool = False,
    ) -> Mapping[str, Any]:
        """Return the features of a batch: words with spaces between them, and a label for each word's first token.

        Raises WorkloadError for a tokenizer that does not say which characters a token is made of.
        """
        if not tokenizer.is_fast:
            raise WorkloadError(
                "a tokenizer written in Python does not say which word a token belongs to",
                where="workload.tokenizer",
                got=type(tokenizer).__name__,
                expected="a fast tokenizer",
            )
        encoded = tokenizer(
            self.plain_texts(batch),
            truncation=True,
            max_length=max_length,
            padding="max_length" if pad else False,
            return_offsets_mapping=True,
        )
        offsets = encoded.pop("offset_mapping")
        rows = zip(offsets, batch[TEXT], batch.get("labels", batch[TEXT]), strict=True)
        labelled = "labels" in batch
        labels = (
            [_of_tokens(ends, words, known) for ends, words, known in rows] if labelled else None
        )
        return {**encoded, "labels": labels} if labelled else encoded

    def example(
        self, tokenizer: PreTrainedTokenizerBase, text: str, length: int, label: int = 0
    ) -> dict[str, Any]:
        """Return the features of an artificial example of exactly `length` tokens, all of one class."""
        encoded = tokenizer(text, truncation=True, max_length=length, padding="max_length")
        labels = [label if real else IGNORED for real in encoded["attention_mask"]]
        return {**encoded, "labels": labels}

    def collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the collator that pads features and labels to the longest example of a batch."""
        return DataCollatorForTokenClassification(tokenizer)

    def evaluation_collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the same collator."""
        return self.collator(tokenizer, model)

    def reduce_logits(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the class of the largest output of each token, -1 if its outputs are not numbers."""
        outputs = logits[0] if isinstance(logits, tuple) else logits
        finite = outputs.isfinite().all(dim=-1)
        return torch.where(finite, outputs.argmax(dim=-1), _NO_ANSWER)

    def guess_loss(self, train_labels: Array) -> float:
        """Return the entropy of the classes of words, in nats."""
        return token_scoring.entropy(train_labels)

    def answer(
        self,
        outputs: Array,
        references: Array,
        train_labels: Array,
        labels: Sequence[str] = (),
    ) -> tuple[Score, ...]:
        """Return entity F1, if classes are tags of entities, and the share of words whose class is right.

        The guess is the most frequent class of training, for all words.
        """
        known = references != IGNORED
        if not known.any() or (outputs[known] == _NO_ANSWER).any():
            return ()
        guess = int(np.bincount(train_labels[train_labels != IGNORED]).argmax())
        guessed = float(np.mean(references[known] == guess))
        found = [
            token_scoring.token_accuracy(
                (outputs == references).astype(float), known, guessed, name="word_accuracy"
            )
        ]
        if entity_scoring.has_entities(labels):
            rows = [
                ([labels[i] for i in wanted[real]], [labels[i] for i in given[real]])
                for wanted, given, real in zip(references, outputs, known, strict=True)
            ]
            wanted, given = ([pair[i] for pair in rows] for i in (0, 1))
            found.insert(0, entity_scoring.f1(wanted, given, labels[guess]))
        return tuple(found)


def _require_known(
    rows: Sequence[Sequence[Any]], number: Mapping[Any, int], pool: str, where: str
) -> None:
    unknown = Counter(label for labels in rows for label in labels if label not in number)
    if unknown:
        raise WorkloadError(
            f"the {pool} pool has labels that are none of the classes",
            where=where,
            got=", ".join(
                f"{value!r} ({count:,} words)" for value, count in unknown.most_common(5)
            ),
            expected=f"some of {', '.join(map(str, list(number)[:10]))}",
        )


def _of_tokens(
    offsets: Sequence[tuple[int, int]], words: Sequence[str], labels: Sequence[int]
) -> list[int]:
    """Return the label of each token: that of its word if it is the word's first token, else `IGNORED`.

    Offsets are those of characters in the text of the words with spaces between them; a token belongs to the word
    of its last character, since some tokenizers count the space before a word to it.
    """
    word_of = [i for i, word in enumerate(words) for _ in range(len(word) + 1)]
    found, last = [], -1
    for start, end in offsets:
        word = word_of[end - 1] if end > start else -1
        found.append(labels[word] if word > last else IGNORED)
        last = max(last, word)
    return found
