"""litgpt's Llama 2 and the loop of thunder's benchmark, under FSDP2, written anew from both as of August 2024.

Weights, buffers and gradients are bfloat16. Queries, keys and values come from one product; the logits, in bfloat16
too, live until the next step's take their name. Nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

_BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)


class Norm(nn.Module):
    """The root mean square norm, in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.float()
        mean = torch.mean(x * x, dim=-1, keepdim=True)
        normed = (x * torch.rsqrt(mean + 1e-5)).to(dtype=dtype)
        return normed * self.weight


class Attention(nn.Module):
    """Causal attention, whose queries, keys and values come from one product; heads may share keys and values."""

    def __init__(self, width: int, heads: int, key_heads: int):
        super().__init__()
        self.groups, self.sharing = key_heads, heads // key_heads
        outputs = (heads + 2 * key_heads) * width // heads
        self.projection = nn.Linear(width, outputs, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        projected = self.projection(x).view(batch, length, self.groups, self.sharing + 2, -1)
        size = projected.shape[-1]
        query, key, value = projected.permute(0, 2, 3, 1, 4).split((self.sharing, 1, 1), dim=2)
        if self.sharing > 1:
            key, value = (
                y.expand(batch, self.groups, self.sharing, length, size) for y in (key, value)
            )
        query, key, value = (y.reshape(batch, -1, length, size) for y in (query, key, value))
        # Elements of a head that are not turned, of which there are none here, are joined to those that are.
        turned_query, turned_key = _turned(query, cos, sin), _turned(key, cos, sin)
        query = torch.cat((turned_query, query[..., size:]), dim=-1)
        key = torch.cat((turned_key, key[..., size:]), dim=-1)
        context = scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(context.transpose(1, 2).reshape(batch, length, width))


class Perceptron(nn.Module):
    """The gated multi-layer perceptron."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        up = self.up(x)
        x = silu(gate) * up
        return self.down(x)


class Block(nn.Module):
    """Attention and a multi-layer perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, key_heads: int, hidden: int):
        super().__init__()
        self.before_attention, self.before_perceptron = Norm(width), Norm(width)
        self.attention = Attention(width, heads, key_heads)
        self.perceptron = Perceptron(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        normed = self.before_attention(x)
        attended = self.attention(normed, cos, sin)
        x = attended + x
        return self.perceptron(self.before_perceptron(x)) + x


class Gpt(nn.Module):
    """Llama 2 with the sizes of its 7 billion parameters, unless others are given."""

    def __init__(
        self,
        length: int,
        *,
        layers: int = 32,
        width: int = 4096,
        heads: int = 32,
        key_heads: int = 32,
        hidden: int = 11008,
        vocabulary: int = 32000,
    ):
        super().__init__()
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Block(width, heads, key_heads, hidden) for _ in range(layers)])
        self.norm = Norm(width)
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(length, width // heads))

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        cos, sin = self.cos[:length].unsqueeze(0), self.sin[:length].unsqueeze(0)
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def litgpt_loop(
    batch: int, length: int, *, reshard: bool, **sizes: int
) -> Callable[..., Callable[[], None]]:
    """Return the factory of a run: the sharded model, fused AdamW, and a step."""

    def factory(device: torch.device, mesh: Any) -> Callable[[], None]:
        with torch.device("meta"):
            model = Gpt(length, **sizes)
        model.to(dtype=torch.bfloat16)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=_BFLOAT16, reshard_after_forward=reshard)
        fully_shard(model, mesh=mesh, mp_policy=_BFLOAT16, reshard_after_forward=reshard)
        model.to_empty(device=device)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, fused=True)
        kept: dict[str, Tensor] = {}

        def step() -> None:
            for name in ("tokens", "labels"):
                kept[name] = torch.zeros(batch, length, dtype=torch.long, device=device)
            logits = model(kept["tokens"])
            kept["logits"] = logits.reshape(-1, logits.shape[-1])
            kept["labels"] = kept["labels"].reshape(-1)
            del logits
            kept["loss"] = cross_entropy(kept["logits"], kept["labels"])
            kept["loss"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    return factory


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries or keys with rotary embeddings."""
    x = x[..., : cos.shape[-1]]
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    turned = (x * cos) + (rotated * sin)
    return turned.to(dtype=x.dtype)
