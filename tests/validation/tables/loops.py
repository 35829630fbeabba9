"""Loops: the steps of the published tables, as factories for `ftbench.prediction.trace`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from ftbench.prediction.trace import patches
from tests.validation.tables.gpt import Gpt
from tests.validation.tables.rows import COURSE, Run, config_of

_FAMILIES = {
    "causal-lm": AutoModelForCausalLM,
    "masked-lm": AutoModelForMaskedLM,
    "text-classification": AutoModelForSequenceClassification,
}
Step = Callable[[], Any]


def loop(run: Run) -> Callable[[torch.device], Step]:
    """Return the factory of a run's steps."""
    if run.model == COURSE:
        return lambda device: _course_step(run, device)
    if run.work == "sum of logits":
        return lambda device: _summing_step(run, device)
    return lambda device: _training_step(run, device)


def _summing_step(run: Run, device: torch.device) -> Step:
    """Return the step of transformers' tables: the gradient of the sum of all logits, and no optimizer."""
    model, inputs = _model(run, device), _inputs(run, device)
    kept: dict[str, Any] = {}  # the loop's names stay bound until the next step assigns them

    def step() -> None:
        model.zero_grad()
        with _contiguous_inputs() if run.contiguous else contextlib.nullcontext():
            kept["outputs"] = model(**inputs)
        kept["loss"] = kept["outputs"].logits.sum()
        kept["loss"].backward()

    return step


def _training_step(run: Run, device: torch.device) -> Step:
    """Return a step with labels and an optimizer, as the Trainer makes it: gradients are clipped."""
    model, inputs = _model(run, device), _inputs(run, device)
    shape = (run.batch,) if run.task == "text-classification" else (run.batch, run.length)
    inputs["labels"] = torch.zeros(shape, dtype=torch.long, device=device)
    optimizer = _optimizer(run, model)
    kept: dict[str, Any] = {}

    def step() -> None:
        kept["loss"] = model(**inputs).loss
        kept["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()

    return step


def _course_step(run: Run, device: torch.device) -> Step:
    """Return the course's step: the batch is moved to the card, gradients are cleared before the forward pass."""
    model = Gpt(buffer=run.mask == "buffer").to(device)
    optimizer = _optimizer(run, model)
    kept: dict[str, Any] = {}

    def step() -> None:
        optimizer.zero_grad()
        ids, targets = (torch.zeros(run.batch, run.length, dtype=torch.long) for _ in range(2))
        kept["ids"], kept["targets"] = ids.to(device), targets.to(device)
        logits = model(kept["ids"])
        kept["loss"] = functional.cross_entropy(logits.flatten(0, 1), kept["targets"].flatten())
        del logits
        kept["loss"].backward()
        optimizer.step()

    return step


def _model(run: Run, device: torch.device) -> Any:
    fields = dict(config_of(run.model) or {})
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    chosen = {} if run.attention == "default" else {"attn_implementation": run.attention}
    dtype = getattr(torch, run.dtype)
    model = _FAMILIES[run.task].from_config(config, torch_dtype=dtype, **chosen)
    return model.to(device).train()


def _inputs(run: Run, device: torch.device) -> dict[str, Tensor]:
    """Return tokens and a mask of ones, which the models take for no padding."""
    shape = (run.batch, run.length)
    names = ("input_ids", "attention_mask")
    return {name: torch.ones(shape, dtype=torch.long, device=device) for name in names}


def _optimizer(run: Run, model: torch.nn.Module) -> torch.optim.Optimizer:
    if run.optimizer.lower() == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-3)
    return torch.optim.AdamW(model.parameters(), fused=run.fused or None)


@contextlib.contextmanager
def _contiguous_inputs() -> Iterator[None]:
    """Copy queries, keys and values before attention, as pull request 28802 did when its figures were measured.

    Its review thread (2024-01-31) asks whether to skip the calls with torch 2.2; they were taken out later. Flash
    attention gives its result the layout of the queries, which then is not that of the next layer's input.
    """

    def wrapped(original: Any) -> Any:
        def attention(query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any) -> Any:
            three = (tensor.contiguous() for tensor in (query, key, value))
            return original(*three, *others, **named)

        return attention

    with patches.replaced(functional, "scaled_dot_product_attention", wrapped):
        yield
