"""The training loops of the self-check: seeded models from configurations, nothing is downloaded.

A prediction traces the same file (`prediction/programs.py`), so it imports nothing of ftbench. transformers is
imported where a model of it is made: a loop of an own module needs torch alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_WORDS = 4096
_CLASSES = 2
_WIDTH, _HEADS = 256, 4
_SIZES: dict[str, Any] = {
    "vocab_size": _WORDS,
    "hidden_size": _WIDTH,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": _HEADS,
}
_LEARNING_RATE = 1e-3
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def make_step(
    device: Any,
    model: str = "encoder",
    attention: str = "sdpa",
    weights: str = "float32",
    autocast: str = "",
    optimizer: str = "adamw",
    checkpointing: bool = False,
    padding: bool = False,
    accumulation: int = 1,
    batch: int = 8,
    length: int = 128,
) -> Callable[[], torch.Tensor]:
    """Return a function that runs one optimizer step of a small model on random tokens, and returns its loss.

    `autocast` is a type, or empty for none. With `padding`, half of each second text is padding.
    """
    torch.manual_seed(0)
    network = _MODELS[model](attention).to(device=device, dtype=_TYPES[weights]).train()
    if checkpointing:
        network.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    made = _OPTIMIZERS[optimizer](network.parameters())
    scaler = torch.amp.GradScaler("cuda", enabled=autocast == "float16")
    batches = [_batch(device, model, batch, length, padding) for _ in range(accumulation)]

    def step() -> torch.Tensor:
        for inputs in batches:
            with _autocast(autocast):
                loss = network(**inputs)["loss"] / accumulation
            scaler.scale(loss).backward()
        scaler.step(made)
        scaler.update()
        made.zero_grad()
        return loss.detach()

    return step


def random_tokens(device: Any, batch: int, length: int) -> torch.Tensor:
    """Return a batch of random tokens."""
    return torch.randint(_WORDS, (batch, length), device=device)


def replicated(device: Any, batch: int = 8, length: int = 128) -> Callable[[], torch.Tensor]:
    """Return a step of the own module, of which every rank has a copy (DistributedDataParallel)."""
    torch.manual_seed(0)
    return _step_of(DistributedDataParallel(OwnModule().to(device)), device, batch, length)


def sharded(
    device: Any, mesh: Any, batch: int = 8, length: int = 128
) -> Callable[[], torch.Tensor]:
    """Return a step of the own module, whose parameters are in shards on the ranks of the mesh (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    module = OwnModule().to(device)
    fully_shard(module, mesh=mesh)
    return _step_of(module, device, batch, length)


def _step_of(module: nn.Module, device: Any, batch: int, length: int) -> Callable[[], torch.Tensor]:
    optimizer = _adamw(module.parameters())
    inputs = _batch(device, "own", batch, length, padding=False)

    def step() -> torch.Tensor:
        loss: torch.Tensor = module(**inputs)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _autocast(name: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cuda", dtype=_TYPES[name]) if name else contextlib.nullcontext()


def _batch(device: Any, model: str, batch: int, length: int, padding: bool) -> dict[str, Any]:
    """Return a batch of random tokens: with labels of classes, of a decoder with the next tokens."""
    tokens = random_tokens(device, batch, length)
    labels = tokens if model == "decoder" else torch.randint(_CLASSES, (batch,), device=device)
    found = {"input_ids": tokens, "labels": labels}
    if padding:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[::2, length // 2 :] = 0
        found["attention_mask"] = mask.to(device)
    return found


def encoder(attention: str) -> nn.Module:
    """Return a small BERT with random weights."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    made: nn.Module = AutoModelForSequenceClassification.from_config(
        BertConfig(**_SIZES), attn_implementation=attention
    )
    return made


def _decoder(attention: str) -> nn.Module:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**_SIZES, num_key_value_heads=_HEADS // 2, use_cache=False)
    made: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return made


class OwnModule(nn.Module):
    """A module that no library has: embeddings, a convolution over the text, and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, _WIDTH)
        self.neighbours = nn.Linear(3 * _WIDTH, 2 * _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, _CLASSES)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of the classes of texts."""
        hidden = self.words(input_ids)
        around = torch.cat([hidden.roll(1, 1), hidden, hidden.roll(-1, 1)], dim=-1)
        value, gate = self.neighbours(around).chunk(2, dim=-1)
        mixed = self.norm(hidden + value * torch.sigmoid(gate))
        return {"loss": nn.functional.cross_entropy(self.head(mixed.mean(1)), labels)}


def _adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=_LEARNING_RATE)


def _fused_adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)


def _momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=_LEARNING_RATE, momentum=0.9)


_MODELS: dict[str, Callable[[str], Any]] = {
    "encoder": encoder,
    "decoder": _decoder,
    "own": lambda _: OwnModule(),
}
_OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw fused": _fused_adamw,
    "sgd": _momentum,
}
