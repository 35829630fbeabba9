"""The tokenizer of a model, and whether it belongs to the model and to the texts."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import ModelSource
from ftbench.records.measurement import RunWarning
from ftbench.worker.recipe.sources import location_of, revision_of

_WHERE = "workload.tokenizer"
# A tokenizer with fewer tokens than this share of the model's embeddings is another model's. Sizes differ a little
# in good pairs: embeddings are padded to a multiple of 64 or more.
_FEWEST_TOKENS = 0.5
# Shares of unknown tokens in the training texts: worth a warning, and too many to learn from.
UNKNOWN_WARN, UNKNOWN_MOST = 0.05, 0.5
_TEXTS, _LONGEST = 1000, 512


def load_tokenizer(model: ModelSource) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with a padding token (the end-of-text token if it has none).

    Raises WorkloadError.
    """
    source = model.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            location_of(source), trust_remote_code=False, **revision_of(source)
        )
    except WorkloadError:
        raise
    except Exception as error:  # OSError, ValueError or KeyError, depending on what is missing
        raise WorkloadError(f"no tokenizer: {error}", where=_WHERE, got=source.reference) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise WorkloadError(
                "the tokenizer has neither a padding token nor an end-of-text token, so texts of different lengths"
                " cannot be in one batch",
                where=_WHERE,
                got=source.reference,
                hint="set pad_token in its tokenizer_config.json, or name another tokenizer in [workload]",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def require_own_tokenizer(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, model: ModelSource
) -> None:
    """Raise WorkloadError if the tokenizer has more tokens than the model has embeddings, or far fewer.

    Far fewer: without tokenizer files, transformers makes a tokenizer of the special tokens alone. Models without
    a vocabulary (characters are hashed) take any tokenizer.
    """
    size = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        return
    found = len(tokenizer)
    if found > size:
        raise WorkloadError(
            "the tokenizer has more tokens than the model",
            where=_WHERE,
            got=f"{found} tokens",
            expected=f"at most {size}",
        )
    if model.weights == "pretrained" and found < _FEWEST_TOKENS * size:
        raise WorkloadError(
            "the tokenizer has far fewer tokens than the model: it is not the one that the model was trained with,"
            " or its files are missing",
            where=_WHERE,
            got=f"{model.tokenizer.reference}: {found:,} tokens",
            expected=f"about {size:,}",
            hint='name the right one: tokenizer = "..." in [workload]',
        )


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float | None:
    """Return the share of unknown tokens in the first texts; None if the tokenizer has no unknown token."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.eos_token_id or not texts:
        return None
    encoded = tokenizer(
        list(texts[:_TEXTS]), add_special_tokens=False, truncation=True, max_length=_LONGEST
    )["input_ids"]
    tokens = sum(map(len, encoded))
    return sum(ids.count(unknown) for ids in encoded) / tokens if tokens else None


def unknown_warnings(share: float | None, model: ModelSource) -> list[RunWarning]:
    """Return a warning if the texts have many unknown tokens; raises WorkloadError if most are unknown."""
    if share is None or share <= UNKNOWN_WARN:
        return []
    message = f"{share:.0%} of the tokens of the training texts are unknown to the tokenizer"
    if share > UNKNOWN_MOST and model.weights == "pretrained":
        raise WorkloadError(
            f"{message}: it is of another language or of another model, and there is little to learn from",
            where=_WHERE,
            got=model.tokenizer.reference,
            expected=f"at most {UNKNOWN_MOST:.0%}",
        )
    return [RunWarning(name="unknown_tokens", message=message, value=share, threshold=UNKNOWN_WARN)]


def padding_warnings(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
) -> list[RunWarning]:
    """Return a warning if model and tokenizer have different padding tokens: the model may read padding as text."""
    own, pad = config.get_text_config().pad_token_id, tokenizer.pad_token_id
    if own is None or own < 0 or own == pad or tokenizer.pad_token == tokenizer.eos_token:
        return []
    return [
        RunWarning(
            name="padding_token",
            message=f"the tokenizer pads with token {pad}, the model's config says {own}: the model may read"
            " padding as text",
        )
    ]
