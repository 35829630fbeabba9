"""Causal language modelling: texts, prompts with completions, or conversations; each token from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.worker.tasks.chat import assistant_labelled, conversations, require_template
from ftbench.worker.tasks.language_modelling import LanguageModelling, features
from ftbench.worker.tasks.protocol import COMPLETION, IGNORED, MESSAGES, TEXT, Column


class _Decoders:
    """The models of causal language models; and the decoders among those of sequence to sequence.

    transformers lists language models that hear (Qwen2-Audio, Voxtral) beside encoder-decoders only. They read
    prompt and completion as one sequence.
    """

    def __contains__(self, config: type[PreTrainedConfig]) -> bool:
        return config in MODEL_FOR_CAUSAL_LM_MAPPING or (
            config in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
        )

    def __getitem__(self, config: type[PreTrainedConfig]) -> Any:
        if config in MODEL_FOR_CAUSAL_LM_MAPPING:
            return MODEL_FOR_CAUSAL_LM_MAPPING[config]
        return MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[config]


class AutoModelForDecoding(AutoModelForCausalLM):
    """transformers' AutoModelForCausalLM, with the decoders that it leaves out."""

    _model_mapping: Any = _Decoders()


class CausalLm(LanguageModelling):
    """The loss is over all tokens of a text or a conversation; with completions, over those alone.

    Of a conversation it may be over the assistant's tokens alone.

    A text ends in the tokenizer's end-of-text token, as in trl's SFTTrainer, unless it is cut off.
    """

    name: TaskName = "causal-lm"
    auto_model: Any = AutoModelForDecoding
    shift = 1

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set, which has a column of conversations, of texts, or two columns."""
        super().__init__(source)
        self._assistant_only = source.assistant_only_loss
        if source.messages_column is not None:
            named = Column(source.messages_column, "messages_column", "messages")
            self.columns: Mapping[str, Column] = {MESSAGES: named}
        elif source.completion_column is not None:
            completion = Column(source.completion_column, "completion_column", "text")
            self.columns = {**self.columns, COMPLETION: completion}
            self.scores = (*self.scores, "exact_match")

    def plain_texts(self, batch: Mapping[str, Sequence[Any]]) -> list[str]:
        """Return the text of each example; of a conversation, its messages."""
        if MESSAGES not in batch:
            return super().plain_texts(batch)
        return ["\n".join(m["content"] or "" for m in messages) for messages in batch[MESSAGES]]

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int,
        pad: bool,
        evaluation: bool = False,
    ) -> Mapping[str, Any]:
        """Return token ids, mask and labels of a batch; see `_completed` for prompts that are too long."""
        examples: Iterator[tuple[Sequence[int], Sequence[int]]]
        if MESSAGES in batch:
            require_template(tokenizer)
            examples = (
                (ids[:max_length], labels[:max_length])
                for ids, labels in self._conversations(tokenizer, batch[MESSAGES], max_length)
            )
        elif COMPLETION in batch:
            examples = _completed(tokenizer, batch[TEXT], batch[COMPLETION], max_length)
        else:
            texts = tokenizer(list(batch[TEXT]), truncation=True, max_length=max_length)
            whole = (_ended(ids, tokenizer)[:max_length] for ids in texts["input_ids"])
            examples = ((ids, ids) for ids in whole)
        return features(examples, tokenizer, max_length if pad else None)

    def _conversations(
        self, tokenizer: PreTrainedTokenizerBase, batch: Sequence[Any], max_length: int
    ) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
        """Yield the token ids of conversations, and their labels: all, or those of the assistant."""
        if self._assistant_only:
            return assistant_labelled(tokenizer, batch, max_length)
        return ((ids, ids) for ids in conversations(tokenizer, batch))


def _ended(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return token ids that end in the end-of-text token, if the tokenizer has one."""
    end = tokenizer.eos_token_id
    return list(ids) if end is None or (ids and ids[-1] == end) else [*ids, end]


def _completed(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
    max_length: int,
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield the token ids and labels of prompts with completions.

    A prompt that is too long loses its end, and a completion keeps at least the last token before it: an example
    without a label would have no loss.
    """
    before = tokenizer(list(prompts))["input_ids"]
    after = tokenizer(list(completions), add_special_tokens=False)["input_ids"]
    for prompt, completion in zip(before, after, strict=True):
        answer = _ended(completion, tokenizer)[: max_length - 1]
        asked = prompt[: max_length - len(answer)]
        yield [*asked, *answer], [*[IGNORED] * len(asked), *answer]
