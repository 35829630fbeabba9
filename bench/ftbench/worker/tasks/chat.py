"""Conversations as token ids, by the tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ftbench.base.errors import WorkloadError

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
    found = []
    for messages in batch:
        try:
            encoded: Any = tokenizer.apply_chat_template(
                list(map(dict, messages)), return_dict=True
            )
        except (TemplateError, TypeError, KeyError) as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise WorkloadError(
                f"the tokenizer's chat template refuses a conversation: {error}",
                where=_WHERE,
                got=f"messages of the roles {roles}",
            ) from error
        found.append(list(encoded["input_ids"]))
    return found
