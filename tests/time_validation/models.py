"""The training steps of published benchmarks that are not the Trainer's, as factories to trace.

Each follows the public code that was timed, as far as its kernels go; all values are placeholders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional

Factory = Callable[[Any], Callable[[], Any]]

# Layers, hidden size, heads.
BERT_SIZES = {"bert_base": (12, 768, 12), "bert_large": (24, 1024, 16)}
VIT_SIZES = {
    "tiny": (12, 192, 3),
    "small": (12, 384, 6),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
    "huge": (32, 1280, 16),
}
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
# A language model of transformers by the name of a workload: its type, and what its config says.
LANGUAGE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "bert_base": ("bert", {}),
    "bert_large": ("bert", _LARGE),
    "roberta": ("roberta", {}),
    "roberta_base": ("roberta", {}),
    "camembert": ("camembert", {"vocab_size": 32005}),
    "xlm_roberta": ("xlm-roberta", {"vocab_size": 250002}),
    "distilbert": ("distilbert", {}),
    "electra": ("electra", {}),
    "gpt2": ("gpt2", {}),
    "gpt2_medium": ("gpt2", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "gpt2_large": ("gpt2", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "gpt2_xl": ("gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    # As NeuSight sizes them (its configs for GPT3-XL and GPT3-2.7B).
    "gpt3_xl": ("gpt2", {"n_embd": 3072, "n_layer": 24, "n_head": 24, "n_positions": 2048}),
    "gpt3_27": ("gpt2", {"n_embd": 2560, "n_layer": 32, "n_head": 32, "n_positions": 2048}),
    "biogpt": ("biogpt", {}),
    "opt_125m": ("opt", {}),
    "opt_350m": (
        "opt",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "ffn_dim": 4096,
            "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        },
    ),
    "pythia_70m": (
        "gpt_neox",
        {
            "hidden_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "vocab_size": 50304,
        },
    ),
    "pythia_160m": (
        "gpt_neox",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 50304,
        },
    ),
    "pythia_410m": ("gpt_neox", _LARGE | {"vocab_size": 50304}),
}
_DEPTH_NAMES = ("num_hidden_layers", "n_layer", "n_layers")


def language_model_depth(name: str) -> int:
    """Return the layers of a language model."""
    return int(_config(name).num_hidden_layers)


def _config(name: str, layers: int | None = None) -> Any:
    kind, values = LANGUAGE_MODELS[name]
    config = transformers.CONFIG_MAPPING[kind](**values)
    if layers is not None:
        depth = next(one for one in _DEPTH_NAMES if one in config.to_dict())
        setattr(config, depth, layers)
    config.use_cache = False
    return config


def _language_model(name: str, layers: int, attention: str) -> nn.Module:
    config = _config(name, layers)
    config._attn_implementation = attention
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    auto = (
        transformers.AutoModelForMaskedLM
        if masked or not causal
        else transformers.AutoModelForCausalLM
    )
    return auto.from_config(config, attn_implementation=attention)


def passes_alone(name: str, layers: int, batch: int, length: int, *, backward: bool) -> Factory:
    """Return NeuSight's step: the passes of a model in fp32, without an optimizer."""

    def factory(device: Any) -> Callable[[], Any]:
        model = _language_model(name, layers, "eager").to(device)
        model.train(backward)

        def step() -> Any:
            ids = torch.zeros(batch, length, dtype=torch.long, device=device)
            if not backward:
                with torch.no_grad():
                    return model(ids)[0]
            model(ids)[0].sum().backward()
            for parameter in model.parameters():
                parameter.grad = None
            return None

        return step

    return factory


def half_model(name: str, layers: int, batch: int, length: int, attention: str) -> Factory:
    """Return the step that the model pages of transformers time: a model in float16, and plain descent."""

    def factory(device: Any) -> Callable[[], Any]:
        model = _language_model(name, layers, attention).half().to(device)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

        def step() -> None:
            ids = torch.zeros(batch, length, dtype=torch.long, device=device)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return factory


class _SquadLayer(nn.Module):
    """A layer of NVIDIA's BERT: the sequence is the first dimension, and attention is of two products."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(3))
        self.dense = nn.Linear(hidden, hidden)
        self.wide, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length, batch, hidden = x.shape
        width = hidden // self.heads
        rows = (length, batch * self.heads, width)
        query, key, value = (project(x).view(rows).transpose(0, 1) for project in self.projections)
        scores = torch.bmm(query, key.transpose(1, 2))
        scores = scores.view(batch, self.heads, length, length) / math.sqrt(width) + mask
        shares = self.dropout(functional.softmax(scores, dim=-1))
        mixed = torch.bmm(shares.view(-1, length, length), value).transpose(0, 1)
        x = self.norms[0](self.dropout(self.dense(mixed.reshape(length, batch, hidden))) + x)
        return self.norms[1](self.dropout(self.narrow(functional.gelu(self.wide(x)))) + x)


class _SquadBert(nn.Module):
    """BERT with a start and an end for each token, as NVIDIA's DeepLearningExamples trains it on SQuAD."""

    def __init__(self, layers: int, hidden: int, heads: int) -> None:
        super().__init__()
        sizes = (30528, 512, 2)
        self.tables = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
        self.norm, self.dropout = nn.LayerNorm(hidden), nn.Dropout(0.1)
        self.layers = nn.ModuleList(_SquadLayer(hidden, heads) for _ in range(layers))
        self.spans = nn.Linear(hidden, 2)

    def forward(self, ids: torch.Tensor, kinds: torch.Tensor, mask: torch.Tensor) -> Any:
        inputs = ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids), kinds
        embedded = [table(of) for table, of in zip(self.tables, inputs, strict=True)]
        x = self.dropout(self.norm(embedded[0] + embedded[1] + embedded[2]))
        x = x.transpose(0, 1).contiguous()
        added = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, added)
        return self.spans(x.transpose(0, 1)).unbind(-1)


class _LoopingAdam:
    """Adam of pytorch-pretrained-BERT: each parameter by itself, with a norm of its own to clip."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self.parameters = parameters
        self.means = [torch.zeros_like(one) for one in parameters]
        self.squares = [torch.zeros_like(one) for one in parameters]

    @torch.no_grad()
    def step(self) -> None:
        for parameter, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            nn.utils.clip_grad_norm_([parameter], 1.0)
            mean.mul_(0.9).add_(parameter.grad, alpha=0.1)
            square.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
            update = mean / (square.sqrt() + 1e-6)
            if parameter.dim() > 1:
                update += 0.01 * parameter
            parameter.add_(-(1e-5 * update))


class _MasterAdam:
    """Adam over float32 copies of half parameters, in kernels over lists, as apex has it (level O2)."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self.parameters = parameters
        self.masters = [one.detach().float() for one in parameters]
        self.gradients, self.means, self.squares = (
            [torch.zeros_like(one) for one in self.masters] for _ in range(3)
        )
        self.steps = [torch.ones((), device=one.device) for one in self.masters]

    @torch.no_grad()
    def step(self) -> None:
        torch._foreach_copy_(self.gradients, [one.grad for one in self.parameters])
        torch.stack(torch._foreach_norm(self.gradients)).norm()
        torch._foreach_mul_(self.gradients, 0.5)
        torch._fused_adamw_(
            self.masters, self.gradients, self.means, self.squares, [], self.steps,
            lr=1e-5, beta1=0.9, beta2=0.999, weight_decay=0.01, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        torch._foreach_copy_(self.parameters, self.masters)


def squad(size: str, layers: int, batch: int, length: int, *, half: bool) -> Factory:
    """Return the step of NVIDIA's BERT on SQuAD, in float16 by apex or in float32."""

    def factory(device: Any) -> Callable[[], Any]:
        model = _SquadBert(layers, *BERT_SIZES[size][1:]).to(device)
        if half:
            model.half()
        parameters = list(model.parameters())
        optimizer = _MasterAdam(parameters) if half else _LoopingAdam(parameters)

        def step() -> torch.Tensor:
            ids, kinds = (
                torch.zeros(batch, length, dtype=torch.long, device=device) for _ in range(2)
            )
            places = torch.zeros(batch, dtype=torch.long, device=device)
            spans = model(ids, kinds, torch.ones(batch, length, dtype=torch.long, device=device))
            losses = [functional.cross_entropy(span.float(), places) for span in spans]
            loss = (losses[0] + losses[1]) / 2
            (loss * 1024.0 if half else loss).backward()
            optimizer.step()
            for parameter in parameters:
                parameter.grad = None
            return loss

        return step

    return factory


class _VitBlock(nn.Module):
    """A block of a vision transformer with eager attention, before timm had fused kernels."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.wide, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, places, hidden = x.shape
        width = hidden // self.heads
        split = self.qkv(self.norms[0](x)).reshape(batch, places, 3, self.heads, width)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        shares = (query @ key.transpose(-2, -1) * width**-0.5).softmax(dim=-1)
        mixed = (shares @ value).transpose(1, 2).reshape(batch, places, hidden)
        x = x + self.out(mixed)
        return x + self.narrow(functional.gelu(self.wide(self.norms[1](x))))


class _Vit(nn.Module):
    """A vision transformer that classifies by its first token."""

    def __init__(self, layers: int, hidden: int, heads: int, patch: int, pixels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, hidden, patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, hidden))
        self.places = nn.Parameter(torch.zeros(1, (pixels // patch) ** 2 + 1, hidden))
        self.blocks = nn.ModuleList(_VitBlock(hidden, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(hidden, eps=1e-6), nn.Linear(hidden, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.first.expand(x.shape[0], -1, -1), x), dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit(size: str, layers: int, patch: int, pixels: int, batch: int) -> Factory:
    """Return timm's benchmark step: autocast to float16, and descent with momentum."""

    def factory(device: Any) -> Callable[[], Any]:
        model = _Vit(layers, *VIT_SIZES[size][1:], patch, pixels).to(device)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=1e-4
        )

        def step() -> None:
            optimizer.zero_grad()
            images = torch.zeros(batch, 3, pixels, pixels, device=device)
            with torch.autocast("cuda", torch.float16):
                labels = torch.zeros(batch, dtype=torch.long, device=device)
                loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()

        return step

    return factory
