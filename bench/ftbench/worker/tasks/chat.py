"""Conversations as token ids, by the tokenizer's own chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ftbench.base.errors import WorkloadError
from ftbench.worker.tasks.protocol import IGNORED

# The marks that `return_assistant_tokens_mask` needs, without which transformers returns a mask of zeros.
_GENERATED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_WHERE = "workload.messages_column"


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise WorkloadError if the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise WorkloadError(
            "the tokenizer has no chat template, so a conversation has no text of its own",
            where="workload.tokenizer",
            got=str(tokenizer.name_or_path),
            hint="name the tokenizer of a model that was tuned on conversations, or write texts into a text_column",
        )


def conversations(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[Sequence[Mapping[str, Any]]]
) -> list[list[int]]:
    """Return the token ids of each conversation, as the template writes it.

    Raises WorkloadError for a conversation that the template refuses.
    """
    return [list(_encoded(tokenizer, messages)["input_ids"]) for messages in batch]


def assistant_labelled(
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Sequence[Mapping[str, Any]]],
    max_length: int,
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the token ids of each conversation, and its labels: what the template marks as generated.

    Raises WorkloadError for a template without such marks, and for a conversation of which the first `max_length`
    tokens have none of the assistant: it would have no loss.
    """
    if not _GENERATED.search(str(tokenizer.chat_template)):
        raise WorkloadError(
            "the tokenizer's chat template does not mark what the assistant writes",
            where="workload.assistant_only_loss",
            got=str(tokenizer.name_or_path),
            expected="a template with {% generation %} around the assistant's text",
            hint="without assistant_only_loss, all tokens of a conversation have a loss",
        )
    for messages in batch:
        encoded = _encoded(tokenizer, messages, return_assistant_tokens_mask=True)
        pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        labels = [token if written else IGNORED for token, written in pairs]
        if set(labels[:max_length]) <= {IGNORED}:
            raise WorkloadError(
                "a conversation without a token of the assistant has no loss",
                where=_WHERE,
                got=f"none in its first {max_length} of {len(labels)} tokens",
                hint="a larger max_length, or a data set without such conversations",
            )
        yield list(encoded["input_ids"]), labels


def _encoded(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **options: Any
) -> Any:
    try:
        return tokenizer.apply_chat_template(list(map(dict, messages)), return_dict=True, **options)
    except (TemplateError, TypeError, KeyError) as error:
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise WorkloadError(
            f"the tokenizer's chat template refuses a conversation: {error}",
            where=_WHERE,
            got=f"messages of the roles {roles}",
        ) from error
