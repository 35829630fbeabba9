"""Masked language modelling: tokens of a text that were replaced, from all others, as BERT was trained."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
)

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.worker.tasks.language_modelling import LanguageModelling, features
from ftbench.worker.tasks.protocol import IGNORED, TEXT

# Of the tokens that are to be predicted, these shares become the mask token and a random one; the rest stays.
# Devlin et al., "BERT" (2019), section 3.1; they are the defaults of transformers' collator.
_MASKED, _RANDOM = 0.8, 0.1


class MaskedLm(LanguageModelling):
    """Each token is to be predicted with `mlm_probability`: others in every epoch, the same in every evaluation."""

    name: TaskName = "masked-lm"
    auto_model: Any = AutoModelForMaskedLM
    peft_task: str | None = None

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set with a column of texts."""
        super().__init__(source)
        self._probability = source.mlm_probability

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int,
        pad: bool,
        evaluation: bool = False,
    ) -> Mapping[str, Any]:
        """Return the features of a batch; evaluation examples with tokens replaced and labels for these alone."""
        if tokenizer.mask_token_id is None:
            raise WorkloadError(
                "the tokenizer has no mask token",
                where="workload.tokenizer",
                got=str(tokenizer.name_or_path),
                expected="the tokenizer of a model that was trained on masked texts",
            )
        texts = tokenizer(list(batch[TEXT]), truncation=True, max_length=max_length)["input_ids"]
        made = (self._masked(ids, tokenizer) if evaluation else (ids, ids) for ids in texts)
        return features(made, tokenizer, max_length if pad else None)

    def _masked(
        self, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[int]]:
        """Return a text with tokens replaced, and labels; at least one token of a text that has any is labelled.

        The choice is drawn with a seed made of the text, so that every model has the same to predict.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        drawn = np.random.default_rng(zlib.crc32(tokens.tobytes()))
        special: Any = tokenizer.get_special_tokens_mask(list(ids), already_has_special_tokens=True)
        plain = np.asarray(special) == 0
        chance = drawn.random(len(tokens))
        asked = plain & (chance < self._probability)
        if plain.any() and not asked.any():
            asked[np.flatnonzero(plain)[np.argmin(chance[plain])]] = True
        kind = drawn.random(len(tokens))
        words = drawn.integers(0, len(tokenizer), len(tokens))
        given = np.where(asked & (kind < _MASKED), tokenizer.mask_token_id, tokens)
        random = asked & (kind >= _MASKED) & (kind < _MASKED + _RANDOM)
        given = np.where(random, words, given)
        return given.tolist(), np.where(asked, tokens, IGNORED).tolist()

    def collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return transformers' collator, which replaces tokens at random."""
        mask = DataCollatorForLanguageModeling(
            tokenizer,
            mlm=True,
            mlm_probability=self._probability,
            mask_replace_prob=_MASKED,
            random_replace_prob=_RANDOM,
        )
        return _Masking(mask)

    def evaluation_collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the collator that pads examples whose tokens are replaced already."""
        return super().collator(tokenizer, model)


class _Masking:
    """Makes batches of examples whose labels, all of their tokens, are drawn anew."""

    def __init__(self, mask: DataCollatorForLanguageModeling) -> None:
        self._mask = mask

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        unlabelled = [{k: v for k, v in one.items() if k != "labels"} for one in examples]
        return self._mask(unlabelled)
