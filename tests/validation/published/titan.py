"""torchtitan's Llama and its loop, under FSDP2, written anew from what it did in December 2024 (commit 9dec370).

Operators and their types decide what is kept for the backward pass: the norm is written out in float32, rotary
embeddings are products of complex numbers, keys and values are repeated for attention, and the loss is of logits
in float32. Each
block is sharded, and the rest as one root; the last block stays whole after the forward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Checkpointing = Literal["none", "full", "operators", "every second block"]

_MIXED = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
_PRODUCT = torch.ops.aten.mm.default
_ATTENTION = (
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
)


class Norm(nn.Module):
    """The root mean square norm, in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-5)
        return normed.type_as(x) * self.weight


class Attention(nn.Module):
    """Causal attention, in which several heads share keys and values."""

    def __init__(self, width: int, heads: int, key_heads: int):
        super().__init__()
        self.size, self.repeats = width // heads, heads // key_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, key_heads * self.size, bias=False)
        self.value = nn.Linear(width, key_heads * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        batch, length, width = x.shape
        projected = [projection(x) for projection in (self.query, self.key, self.value)]
        query, key, value = (y.view(batch, length, -1, self.size) for y in projected)
        del projected
        query, key = _turned(query, key, turns)
        key, value = self._repeated(key), self._repeated(value)
        query, key, value = (y.transpose(1, 2) for y in (query, key, value))
        context = scaled_dot_product_attention(query, key, value, is_causal=True)
        context = context.transpose(1, 2).contiguous()
        return self.out(context.view(batch, length, width))

    def _repeated(self, x: Tensor) -> Tensor:
        if self.repeats == 1:
            return x
        batch, length, heads, size = x.shape
        wide = x.unsqueeze(3).expand(batch, length, heads, self.repeats, size)
        return wide.reshape(batch, length, heads * self.repeats, size)


class Block(nn.Module):
    """Attention and a gated multi-layer perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, key_heads: int, hidden: int):
        super().__init__()
        self.attention = Attention(width, heads, key_heads)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.norms = nn.ModuleList([Norm(width), Norm(width)])

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        h = x + self.attention(self.norms[0](x), turns)
        return h + self._perceptron(self.norms[1](h))

    def _perceptron(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Llama(nn.Module):
    """Llama 3.1 with the sizes of its 8 billion parameters, unless others are given."""

    def __init__(
        self,
        length: int,
        *,
        layers: int = 32,
        width: int = 4096,
        heads: int = 32,
        key_heads: int = 8,
        hidden: int = 14336,
        vocabulary: int = 128256,
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.register_buffer(
            "turns", torch.empty(length, width // heads // 2, dtype=torch.complex64)
        )
        blocks = [Block(width, heads, key_heads, hidden) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = Norm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.tokens(tokens)
        for block in self.blocks:
            h = block(h, self.turns)
        return self.head(self.norm(h))


def titan_loop(
    batch: int, length: int, checkpointing: Checkpointing, **sizes: int
) -> Callable[..., Callable[[], Tensor]]:
    """Return the factory of a run: the sharded model, fused AdamW, and a step that clips gradients."""

    def factory(device: torch.device, mesh: Any) -> Callable[[], Tensor]:
        with torch.device("meta"):
            model = Llama(length, **sizes)
        checkpoint(model.blocks, checkpointing)
        _shard(model, mesh)
        model.to_empty(device=device)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, fused=True)

        def step() -> Tensor:
            tokens, labels = (
                torch.zeros(batch, length, dtype=torch.long, device=device) for _ in range(2)
            )
            optimizer.zero_grad()
            logits = model(tokens)
            loss = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(0, 1))
            del logits
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            return loss

        return step

    return factory


def checkpoint(blocks: nn.ModuleList, checkpointing: Checkpointing) -> None:
    """Wrap the blocks whose activations are worked out again in the backward pass."""
    for index, block in enumerate(blocks):
        if checkpointing == "operators":
            blocks[index] = checkpoint_wrapper(
                block, context_fn=_selective_contexts, preserve_rng_state=False
            )
        elif checkpointing == "full" or (checkpointing == "every second block" and index % 2):
            blocks[index] = checkpoint_wrapper(block, preserve_rng_state=False)


def _shard(model: Llama, mesh: Any) -> None:
    last = len(model.blocks) - 1
    for index, block in enumerate(model.blocks):
        fully_shard(block, mesh=mesh, mp_policy=_MIXED, reshard_after_forward=index < last)
    fully_shard(model, mesh=mesh, mp_policy=_MIXED, reshard_after_forward=True)


def _selective_contexts() -> Any:
    """Keep the results of attention and of every other matrix product; work out the rest again."""
    products: dict[bool, int] = defaultdict(int)  # so far, in each pass

    def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        keep = operator in _ATTENTION
        if operator == _PRODUCT:
            products[context.is_recompute] += 1
            keep = products[context.is_recompute] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def _turned(query: Tensor, key: Tensor, turns: Tensor) -> list[Tensor]:
    """Return queries and keys with rotary embeddings; both are complex numbers at the same time."""
    pairs = [torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2)) for x in (query, key)]
    factors = turns[None, : query.shape[1], None, :]
    rotated = [torch.view_as_real(pair * factors).flatten(3) for pair in pairs]
    return [x.type_as(query) for x in rotated]
