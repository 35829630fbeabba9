"""The loop that the published cells were measured with, written as a factory for `ftbench.prediction.trace`.

Source: the artefact of xMem (Middleware '25, github.com/Stone-ResearchLife/xMem): a plain loop over a
causal language model or an encoder-decoder with random weights, in float32, on lines of wikitext
cut at 128 tokens and padded to the longest of the batch; four iterations; optimizers with nothing
but a learning rate; `outputs`, `loss` and `batch` stay bound until the next iteration assigns them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

ITERATIONS = 4
MAX_LENGTH = 128
LEARNING_RATE = 1e-3


def load_architecture(file: Path) -> Any:
    """Return the transformers config in a JSON file."""
    fields = json.loads(file.read_text())
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def make_optimizer(name: str, parameters: Any) -> torch.optim.Optimizer:
    """Return an optimizer by the name that the cells have for it."""
    if name == "Adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=LEARNING_RATE, relative_step=False)
    return getattr(torch.optim, name)(parameters, lr=LEARNING_RATE)


def published_loop(
    config: Any, optimizer: str, batch: int, lengths: Sequence[int], zero_grad_at: int
) -> Callable[[torch.device], Callable[[], Any]]:
    """Return the factory of one cell; `lengths` has the padded length of each iteration's batch.

    `zero_grad_at`: 0 before the forward pass, 1 between forward and backward, 2 after the optimizer.
    """

    def factory(device: torch.device) -> Callable[[], Any]:
        family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = family.from_config(config)
        model.train()
        stepper = make_optimizer(optimizer, model.parameters())
        model.to(device)
        left = iter(lengths)
        kept: dict[str, Any] = {}

        def step() -> None:
            if zero_grad_at == 0:
                stepper.zero_grad()
            shape = (batch, next(left))
            names = ("input_ids", "attention_mask", "labels")
            on_host = {name: torch.zeros(shape, dtype=torch.long) for name in names}
            kept["batch"] = {name: tensor.to(device) for name, tensor in on_host.items()}
            kept["outputs"] = model(**kept["batch"])
            kept["loss"] = kept["outputs"].loss
            if zero_grad_at == 1:
                stepper.zero_grad()
            kept["loss"].backward()
            stepper.step()
            if zero_grad_at == 2:
                stepper.zero_grad()

        return step

    return factory
