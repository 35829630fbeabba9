"""Heads: the last part of language models as transformers 4 wrote it, while a trace lasts.

transformers 5 shifts the labels and takes the loss of all logits; transformers 4 copied the logits without those of
the last token. The copy, and the type of logits and loss, move the peak by gigabytes. Read in the sources of
transformers 4.45.2 and 4.48.1 (`modeling_*.py`, `loss/loss_utils.py`):

- up to 4.45, logits are converted to float32 as soon as they are made, and only these are kept;
- from 4.46 on, the loss converts a copy, and the logits of half precision are kept beside it;
- GPT-BigCode never converts them. It also keeps keys and values of every layer for its answer although it trains
  with checkpointing, and these are a part of the result of `c_attn`, which is kept whole. They are a part of the
  output, which Accelerate converts to float32 under autocast, and live as long as it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import peft
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from ftbench.prediction.trace import patches
from tests.validation.fms import kernels

Conversion = Literal["of the logits", "in the loss", "none"]
Loss = Literal["torch", "fast", "liger"]
_LOSS_FUNCTIONS_SINCE = (4, 46)
_IN_HALF = ("lm_head", "embed_tokens", "wte", "wpe")


def conversion_of(model_type: str, version: tuple[int, int]) -> Conversion:
    """Return where a version of transformers converts the logits of a model to float32."""
    if model_type == "gpt_bigcode":
        return "none"
    return "in the loss" if version >= _LOSS_FUNCTIONS_SINCE else "of the logits"


@contextlib.contextmanager
def unprepared() -> Iterator[None]:
    """Leave a quantised model as it was loaded: fms-acceleration does not call peft's preparation for training."""
    with patches.replaced(peft, "prepare_model_for_kbit_training", lambda _: _as_it_is):
        yield


@contextlib.contextmanager
def prepared_by_trl() -> Iterator[None]:
    """Prepare a quantised model as TRL's SFTTrainer does: by peft, and then with embeddings and head in bfloat16.

    peft makes all that is not quantised float32, and under `bf16` TRL takes that back but for the norms
    (`peft_module_casting_to_bf16` in trl 0.11 to 0.13, trainer/utils.py). So the residual stream is float32.
    """

    def then_cast(original: Callable[..., Any]) -> Callable[..., Any]:
        def prepare(model: Any, *args: Any, **named: Any) -> Any:
            model = original(model, *args, **named)
            for name, module in model.named_modules():
                if name.endswith(_IN_HALF) and module.weight.dtype == torch.float32:
                    module.weight.data = module.weight.data.to(torch.bfloat16)
            return model

        return prepare

    with patches.replaced(peft, "prepare_model_for_kbit_training", then_cast):
        yield


def _as_it_is(model: Any, **_: Any) -> Any:
    return model


@contextlib.contextmanager
def head_as_published(
    model_type: str, version: tuple[int, int], loss: Loss = "torch"
) -> Iterator[None]:
    """Give the causal language models of a type the head of a version of transformers while the context lasts.

    `fast` is the plugin's cross entropy of the same logits, `liger` its fused linear cross entropy (`kernels`).
    """
    family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.for_model(model_type))]
    before = family.forward
    family.forward = _forward(conversion_of(model_type, version), loss)
    try:
        yield
    finally:
        family.forward = before


def _forward(conversion: Conversion, kind: Loss) -> Callable[..., CausalLMOutputWithPast]:
    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        kept: list[Tensor] = []
        with _projections_kept(self, kept):
            outputs = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **others)
        if kind == "liger" and labels is not None:
            return CausalLMOutputWithPast(loss=_fused_loss(self, outputs[0], labels))
        logits = self.lm_head(outputs[0])
        scaling = getattr(self.config, "logits_scaling", None)  # Granite's
        if scaling is not None:
            logits = logits / scaling
        if conversion == "of the logits":
            logits = logits.float()
        loss = None if labels is None else _loss(logits, labels, conversion, kind)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=tuple(kept) or None)

    return forward


@contextlib.contextmanager
def _projections_kept(model: Any, kept: list[Tensor]) -> Iterator[None]:
    """Add GPT-BigCode's keys and values to `kept`, parts of the results of `c_attn`, as its forward pass did."""

    def keep(_module: Any, _inputs: Any, result: Tensor) -> None:
        kept.append(result[..., model.config.n_embd :])

    handles = [
        module.register_forward_hook(keep)
        for name, module in model.named_modules()
        if model.config.model_type == "gpt_bigcode" and name.endswith(".c_attn")
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _loss(logits: Tensor, labels: Tensor, conversion: Conversion, kind: Loss) -> Tensor:
    if conversion == "in the loss":
        logits = logits.float()
    predicting = logits[..., :-1, :].contiguous()
    predicted = labels[..., 1:].contiguous()
    function = kernels.cross_entropy if kind == "fast" else cross_entropy
    return function(predicting.view(-1, predicting.size(-1)), predicted.view(-1))


def _fused_loss(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of the last layer's states, without logits (`lce_forward` of the plugin)."""
    predicting = hidden[..., :-1, :].contiguous()
    predicted = labels[..., 1:].contiguous()
    return kernels.linear_cross_entropy(
        predicting.view(-1, predicting.size(-1)),
        model.lm_head.weight,
        predicted.view(-1),
        scaled=getattr(model.config, "logits_scaling", None) is not None,
    )
