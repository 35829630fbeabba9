"""The worker that reads the texts of a data set as a run would, counts their tokens, and times steps on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import datasets
import numpy as np
import transformers
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ftbench.records.first_look import TextFacts, TextsRequest
from ftbench.records.messages import ClassCount, Progress
from ftbench.records.token_facts import USUAL_LENGTHS, TokenFacts, token_facts
from ftbench.worker.data.lists import texts_of
from ftbench.worker.data.pools import Pools, load_pools
from ftbench.worker.first_look.step_time import time_steps
from ftbench.worker.measure.device import describe, torch_device
from ftbench.worker.recipe.model import length_limit, load_config, model_class, require_room
from ftbench.worker.recipe.model_files import require_model_files
from ftbench.worker.recipe.tokenizer import (
    load_tokenizer,
    padding_warnings,
    require_own_tokenizer,
    unknown_share,
    unknown_warnings,
)
from ftbench.worker.tasks.protocol import LABEL, Task
from ftbench.worker.tasks.tasks import task_of
from ftbench.worker.tasks.text import lengths as encoded_lengths

# Texts whose tokens are counted: of more, a random sample.
_SAMPLE = 5000
# A length that no text has.
_WHOLE = 10**9
_JUDGED = 1000


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `TextFacts` of a `TextsRequest`, both as JSON data.

    Raises WorkloadError if a run would refuse the data, the model or the tokenizer.
    """
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # a text longer than the model reads is no news here
    request = TextsRequest.model_validate(body)
    task, model = task_of(request.data), request.model
    emit(Progress(phase="reading the texts"))
    as_they_are = load_pools(request.data.model_copy(update={"drop_duplicates": False}))
    duplicates, contradictions = _seen_before(as_they_are)
    pools = load_pools(request.data) if duplicates else as_they_are
    emit(Progress(phase="counting tokens"))
    require_model_files(model)
    config = load_config(model, pools.labels, task)
    model_class(config, task)
    tokenizer = load_tokenizer(model)
    require_own_tokenizer(tokenizer, config, model)
    limit = length_limit(config, tokenizer, own_tokenizer=model.tokenizer == model.source)
    warnings = padding_warnings(tokenizer, config) + unknown_warnings(
        unknown_share(tokenizer, task.plain_texts(pools.train[:_JUDGED])), model
    )
    tokens = _tokens(pools.train, task, tokenizer, limit)
    require_room(model, pools.labels, task, "float32")
    device = torch_device(request.device)
    timed = time_steps(
        request, [one.max_length for one in tokens.by_length], pools.labels, tokenizer, device, emit
    )
    return TextFacts(
        train_pool=len(pools.train),
        eval_pool=len(pools.evaluation),
        eval_split=pools.eval_split,
        classes=_classes(pools) if task.has_classes else (),
        duplicates=duplicates,
        contradictions=contradictions,
        left_out=dict(pools.left_out),
        notes=(*pools.notes, *(warning.message for warning in warnings)),
        tokens=tokens,
        limit=limit,
        parameters=timed.parameters,
        device=describe(device).name,
        batch=request.batch,
        times=timed.times,
        load_s=timed.load_s,
    ).model_dump(mode="json")


def _seen_before(pools: Pools) -> tuple[int, int]:
    """Return how many examples have a text that came before, and how many of them another label."""
    seen: dict[Hashable, str] = {}
    contradictions = 0
    for pool in (pools.train, pools.evaluation):
        names = [name for name in pool.column_names if name not in ("labels", LABEL)]
        labels = pool["labels"][:] if "labels" in pool.column_names else [None] * len(pool)
        for text, label in zip(texts_of(pool, names), map(str, labels), strict=True):
            first = seen.setdefault(text, label)
            contradictions += first != label
    return len(pools.train) + len(pools.evaluation) - len(seen), contradictions


def _classes(pools: Pools) -> tuple[ClassCount, ...]:
    """Return each class and its examples in both pools; all of the evaluation pool counts as evaluated."""
    columns = (pool.with_format("numpy")["labels"][:] for pool in (pools.train, pools.evaluation))
    counts = [np.bincount(labels, minlength=len(pools.labels)).tolist() for labels in columns]
    return tuple(
        ClassCount(name=name, train_pool=of_train, eval_pool=of_eval, evaluated=of_eval)
        for name, of_train, of_eval in zip(pools.labels, *counts, strict=True)
    )


def _tokens(
    pool: Dataset, task: Task, tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> TokenFacts:
    """Return the tokens per training text; a pool is shuffled, so its beginning is a random sample."""
    sample = pool.select(range(min(_SAMPLE, len(pool))))[:]
    lengths = encoded_lengths(task.encode(tokenizer, sample, max_length=_WHOLE, pad=False))
    usual = [length for length in USUAL_LENGTHS if limit is None or length <= limit]
    return token_facts(lengths, usual or [limit or USUAL_LENGTHS[0]], of=len(pool))
